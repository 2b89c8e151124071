import { BindingIndex } from '../../../crdt/bindings.ts'
import { bindingFault, encodeEntry } from '../../../crdt/codec.ts'
import { DialogIndex } from '../../../crdt/dialogs.ts'
import type { ClusterConstants } from '../../../crdt/entry.ts'
import { HlcClock } from '../../../src/base/hlc.ts'
import type { NodeIdentity } from '../../../src/base/ids.ts'
import { createMetrics } from '../../../src/base/metrics.ts'
import { SeededRandom } from '../../../src/base/prng.ts'
import type { CdrPart } from '../../../src/cdr/call-record.ts'
import { OwnRoutes } from '../../../src/proxy/record-route.ts'
import { type Destination, SipCore } from '../../../src/proxy/sip-core.ts'
import { type DigestAlgorithm, digestHa1, NonceReplay } from '../../../src/sip/digest.ts'
import type { Flow, TransportName } from '../../../src/sip/flow.ts'
import { checkMessage, type SipMessage } from '../../../src/sip/message.ts'
import { parseMessage } from '../../../src/sip/parse.ts'

/**
 * Several nodes' production SIP cores and scripted user agents on one virtual clock and one perfect network. Bindings and dialogs are shared by all
 * nodes at once: what replication does is tested elsewhere.
 */
export const CONSTANTS: ClusterConstants = {
  bucketWidthMs: 60_000,
  longestExpiryMs: 7_200_000,
  windowMs: 64_000,
  driftBoundMs: 500,
  graceMs: 90_000,
  rebootGuardMs: 5_000,
}

/** Where every node listens. */
const PORTS: Readonly<Record<TransportName, number>> = { udp: 5060, tcp: 5060, tls: 5061, ws: 5080, wss: 5443 }

const key = (byte: number) => ({ current: 'k1', keys: new Map([['k1', Buffer.alloc(32, byte)]]) })

export class World {
  nowMs = 1_800_000_000_000
  readonly bindings = new BindingIndex(CONSTANTS)
  readonly dialogs = new DialogIndex()
  readonly nodes = new Map<string, { core: SipCore; address: string; journal: CdrPart[]; held: { ticket: number }[] }>()
  /** Journal appends wait in `held` until `release` while this is false. */
  journalAnswers = true
  readonly verdicts = new Map<string, 'alive' | 'dead' | 'unknown'>()
  readonly unreachable = new Set<string>()
  /** Nodes that are gone: nothing is delivered to them and they do nothing. */
  readonly killed = new Set<string>()
  readonly metrics = createMetrics()
  readonly agents = new Map<string, (message: SipMessage, from: Flow) => void>()
  /** Everything that crossed the network, as `from>to first line`. */
  readonly wire: { from: string; to: string; message: SipMessage; text: string }[] = []
  readonly #queue: {
    from: string
    to: string
    bytes: Buffer
    connection: { id: number; transport: TransportName } | undefined
  }[] = []
  /** Open stream connections by `agent node` and back. */
  readonly #connections = new Map<string, { id: number; transport: TransportName }>()
  #lastConnection = 0
  readonly #hlc = new HlcClock(500)

  constructor(
    names: readonly string[],
    options: { destinations?: Destination[]; trusted?: string[]; users?: Record<string, string> } = {},
  ) {
    const list = names.map((name, i) => ({
      name,
      region: name.replace(/-\d+$/, ''),
      address: `127.0.1.${i + 1}`,
      sipPort: PORTS.udp,
      tlsPort: PORTS.tls,
      wsPort: PORTS.ws,
      wssPort: PORTS.wss,
    }))
    for (const { name, region, address } of list) {
      const self: NodeIdentity = { region, node: name, incarnation: 2 ** 32 + 7 }
      const stamp = () => ({ hlc: this.#hlc.tick(this.nowMs), ...self })
      const core = new SipCore({
        self,
        domains: new Set(['example.net']),
        realm: 'example.net',
        trusted: options.trusted ?? ['127.0.0.0/24'],
        timers: { t1Ms: 500, t2Ms: 4000, t4Ms: 5000, timerDMs: 32_000, timerCMs: 180_000 },
        silenceMs: 2000,
        dialogLeaseMs: 1_800_000,
        maxForks: 10,
        maxTransactions: 1000,
        nonceLifetimeMs: 300_000,
        digestAlgorithms: ['SHA-256', 'MD5'],
        registrar: { minExpiresS: 60, defaultExpiresS: 3600, maxExpiresS: 7200, maxContactsPerAor: 10, cseq: 'strict' },
        destinations: options.destinations ?? [],
        tokenKeys: key(1),
        nonceKeys: key(2),
        nonceReplay: new NonceReplay(),
        bindings: {
          lookup: (aor, nowMs) => this.bindings.lookup(aor, nowMs),
          admit: (q, nowMs) => this.bindings.admit(q, nowMs),
          keys: (aor) => this.bindings.keys(aor),
          fault: bindingFault,
          write: (w) => {
            const entry = { ...w, kind: 'binding' as const, ...stamp() }
            // As in production: what does not fit throws.
            encodeEntry(entry)
            this.bindings.add(entry)
            return entry
          },
        },
        dialogs: {
          write: (w) => this.dialogs.add({ ...w, kind: 'dialog', ...stamp() }),
          callEnded: (id) => this.dialogs.hasEnded(id),
          dialogEnded: (id) => this.dialogs.get(id)?.phase === 'ended',
        },
        hood: {
          self,
          nodeAddress: (n) => {
            const found = list.find((x) => x.name === n)
            return found && { address: found.address, port: 5060 }
          },
          verdict: (n) => this.verdicts.get(n) ?? 'alive',
          reachable: (n) => !this.unreachable.has(n),
          local: (transport) => ({ address, port: PORTS[transport] }),
        },
        routes: new OwnRoutes(list, name, 'example.net', 'address'),
        ha1: (user, algorithm) => {
          const password = options.users?.[user]
          return password === undefined ? undefined : digestHa1(user, 'example.net', password, algorithm as DigestAlgorithm)
        },
        isSubscriber: (u) => options.users?.[u] !== undefined,
        admitCalls: () => true,
        random: new SeededRandom(list.length * 100 + address.length + name.length + Number(name.slice(-1))),
        metrics: this.metrics,
      })
      this.nodes.set(name, { core, address, journal: [], held: [] })
    }
  }

  /** A user agent at `address:port`; `receive` is called with each message for it. */
  agent(at: string, receive: (message: SipMessage, from: Flow) => void): void {
    this.agents.set(at, receive)
  }

  /** From now on that agent and that node talk over a connection. */
  connect(agent: string, node: string, transport: TransportName = 'tcp'): void {
    this.#connections.set(`${agent} ${this.#endpoint(node)}`, { id: ++this.#lastConnection, transport })
  }

  disconnect(agent: string, node: string): void {
    this.#connections.delete(`${agent} ${this.#endpoint(node)}`)
  }

  /** Sends text (LF line ends) from an agent. */
  send(from: string, to: string, text: string): void {
    const endpoint = this.#endpoint(to)
    this.#queue.push({
      from,
      to: endpoint,
      connection: this.#connections.get(`${from} ${endpoint}`),
      bytes: Buffer.from(text.replace(/\r?\n/g, '\r\n'), 'latin1'),
    })
    this.run()
  }

  /** Delivers what is under way until nothing is. */
  run(): void {
    for (let steps = 0; ; steps++) {
      if (steps > 10_000) throw new Error('the network does not come to rest')
      for (const name of this.nodes.keys()) this.#drain(name)
      const item = this.#queue.shift()
      if (item === undefined) return
      const parsed = parseMessage(item.bytes)
      if (!parsed.ok)
        throw new Error(`unparsable on the wire: ${parsed.fault.code} ${parsed.fault.detail}\n${item.bytes.toString('latin1')}`)
      const message = parsed.value
      const wrong = checkMessage(message)
      if (wrong !== undefined) throw new Error(`malformed on the wire: ${wrong.code} ${wrong.detail}`)
      this.wire.push({ from: item.from, to: item.to, message, text: item.bytes.toString('latin1') })
      const [address, port] = item.from.split(':') as [string, string]
      const [toAddress, toPort] = item.to.split(':') as [string, string]
      const flow: Flow = {
        transport: item.connection?.transport ?? 'udp',
        localAddress: toAddress,
        localPort: item.connection === undefined ? Number(toPort) : PORTS[item.connection.transport],
        remoteAddress: address,
        remotePort: Number(port),
        ...(item.connection === undefined ? {} : { connectionId: item.connection.id }),
      }
      const node = [...this.nodes].find(([, n]) => `${n.address}:5060` === item.to)
      if (node !== undefined) {
        if (!this.killed.has(node[0])) node[1].core.handleMessage(message, flow, this.nowMs)
      } else this.agents.get(item.to)?.(message, flow)
    }
  }

  /** Lets time pass, waking cores when they ask for it. */
  advance(ms: number): void {
    const end = this.nowMs + ms
    for (;;) {
      let next = end
      for (const [name, { core }] of this.nodes) if (!this.killed.has(name)) next = Math.min(next, core.nextTimeoutMs() ?? end)
      this.nowMs = Math.max(this.nowMs, next)
      for (const [name, { core }] of this.nodes) if (!this.killed.has(name)) core.handleTimeout(this.nowMs)
      this.run()
      if (this.nowMs >= end) return
    }
  }

  /** Answers the journal appends that wait. */
  release(went = true): void {
    for (const node of this.nodes.values())
      for (const { ticket } of node.held.splice(0)) node.core.handleJournaled(ticket, went, this.nowMs)
    this.run()
  }

  #endpoint(node: string): string {
    return node.includes(':') ? node : `${this.nodes.get(node)!.address}:5060`
  }

  #drain(name: string): void {
    const node = this.nodes.get(name)!
    if (this.killed.has(name)) return
    for (let outputs = node.core.takeOutputs(); outputs.length > 0; outputs = node.core.takeOutputs()) {
      for (const output of outputs) {
        if (output.kind === 'send') {
          const from = `${node.address}:5060`
          const to = `${output.flow.remoteAddress}:${output.flow.remotePort}`
          const { transport, connectionId } = output.flow
          const open = transport === 'udp' ? undefined : this.#connections.get(`${to} ${from}`)
          if (transport !== 'udp' && (open?.transport !== transport || (connectionId ?? open.id) !== open.id))
            node.core.handleSendError(output.ref, this.nowMs)
          else this.#queue.push({ from, to, bytes: output.bytes, connection: open })
        } else {
          node.journal.push(output.part)
          if (output.ticket === 0) continue
          if (this.journalAnswers) node.core.handleJournaled(output.ticket, true, this.nowMs)
          else node.held.push({ ticket: output.ticket })
        }
      }
    }
  }
}
