import { mkdirSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import type { Config, NodeAddress } from '../config/schema.ts'
import { bindingFault } from '../crdt/codec.ts'
import { ClusterLink, type PeerInfo } from '../crdt/link.ts'
import { StateCore, type StateOutput } from '../crdt/state.ts'
import { DnsServer } from '../geo/dns-server.ts'
import { HealthCore, type HealthOutput, readSavedView } from '../geo/health.ts'
import { HttpProbe } from '../geo/probe.ts'
import { buildZone } from '../geo/zone.ts'
import {
  AdminServer,
  type AdminTarget,
  type Condition,
  type DialogView,
  type NodeStatus,
  type RegistrationView,
} from './admin/api.ts'
import { AdminClient } from './admin/client.ts'
import { type Clock, systemClock } from './base/clock.ts'
import { AntipodeError } from './base/errors.ts'
import { incarnationCounter, incarnationText, type NodeIdentity } from './base/ids.ts'
import { endpoint } from './base/listen.ts'
import { createLog, LimitedLog, type Log } from './base/log.ts'
import { createMetrics, type Metrics } from './base/metrics.ts'
import { SystemRandom } from './base/prng.ts'
import type { CdrPart } from './cdr/call-record.ts'
import { CdrJournal } from './cdr/store/journal.ts'
import { Driver } from './driver.ts'
import { nextIncarnation, readIfThere, writeFileDurably } from './node-files.ts'
import { OwnRoutes } from './proxy/record-route.ts'
import { methodLabel, SipCore, type SipOutput } from './proxy/sip-core.ts'
import { literalAddress } from './proxy/target-set.ts'
import { Subscribers } from './registrar/subscribers.ts'
import { NonceReplay } from './sip/digest.ts'
import { type Flow, flowText, type TransportName } from './sip/flow.ts'
import type { ParseFault } from './sip/parse.ts'
import { canonicalAor, parseUri } from './sip/uri.ts'
import { type Listener, Transports } from './transport/transports.ts'
import { VERSION } from './version.ts'
import { bindingView, dialogView } from './views.ts'

/** Channels of the cluster link; PROTOCOL.md. */
const CHANNEL = { state: 1, health: 2, cdr: 3 } as const

const DIALOG_LEASE_MS = 30 * 60_000
/** Starts that a node may have missed of itself (a disk restored from an old backup). */
const MAX_INCARNATION_LEAP = 100_000
/** How often the loop's delay and the process's size are sampled. */
const SAMPLE_MS = 100

export interface GatewayOptions {
  readonly log?: Log
  /** A peer has met a higher incarnation of this node: the caller stops it and starts it again above this one. */
  readonly onSuperseded?: (incarnation: number) => void
  /** The new incarnation is above this. */
  readonly above?: number
}

/**
 * One node: the only place where cores meet shells. Starting order: state on disk, cluster link, journal, admin, health and DNS; the SIP sockets
 * open last, when the state has been pulled from peers (DESIGN State 6), so that no user is denied who is registered elsewhere.
 */
export class Gateway implements AdminTarget {
  readonly #config: Config
  readonly #log: Log
  readonly #limited: LimitedLog
  readonly #clock: Clock = systemClock
  readonly #metrics: Metrics = createMetrics()
  readonly #random = new SystemRandom()
  readonly #self: NodeIdentity
  readonly #startedMs: number
  readonly #blocked = new Set<string>()
  readonly #receivedBy = new Map<string, { inc(): void }>()
  readonly #nodes: readonly (NodeAddress & { readonly region: string })[]
  readonly #onSuperseded: GatewayOptions['onSuperseded']

  readonly #state: StateCore
  readonly #health: HealthCore
  readonly #sip: SipCore
  readonly #stateDriver: Driver<StateOutput>
  readonly #healthDriver: Driver<HealthOutput>
  readonly #sipDriver: Driver<SipOutput>
  readonly #link: ClusterLink
  readonly #transports: Transports
  readonly #probe: HttpProbe
  readonly #dns: DnsServer
  readonly #admin: AdminServer
  #journal: CdrJournal | undefined
  /** The last mirror message of each peer that linked before the journal was open: its QUERY. */
  readonly #beforeJournal = new Map<string, Uint8Array>()
  #sampler: NodeJS.Timeout | undefined
  #sampledMs: number | undefined
  /** Totals of the state core that the metrics have had. */
  readonly #told = new Map<string, number>()
  #open = false
  #stopping = false

  /** @throws AntipodeError NET_PORT_IN_USE with the address, CDR_… when the journal cannot be opened, NODE_STATE when the disk refuses */
  static async start(config: Config, options: GatewayOptions = {}): Promise<Gateway> {
    const gateway = new Gateway(config, options)
    try {
      await gateway.#start()
    } catch (error) {
      await gateway.stop()
      throw error
    }
    return gateway
  }

  private constructor(config: Config, options: GatewayOptions) {
    this.#config = config
    this.#onSuperseded = options.onSuperseded
    mkdirSync(config.stateDirectory, { recursive: true })
    const incarnation = nextIncarnation(config.stateDirectory, this.#random, options.above)
    this.#self = { region: config.self.region, node: config.self.node, incarnation }
    this.#log = (options.log ?? createLog({}, config.logLevel)).child({
      node: this.#self.node,
      incarnation: incarnationText(incarnation),
    })
    this.#limited = new LimitedLog(this.#log)
    this.#startedMs = this.#clock.nowMs()
    this.#nodes = config.cluster.regions.flatMap((r) => r.nodes.map((n) => ({ ...n, region: r.name })))
    const { address } = config.self
    const isBlocked = (a: string): boolean => this.#isBlocked(a)

    this.#health = this.#createHealth()
    this.#healthDriver = new Driver(
      this.#health,
      this.#clock,
      (o) => this.#handleHealth(o),
      (error) => this.#defect('health timer', 'itself', error),
    )
    this.#state = new StateCore({
      self: this.#self,
      constants: config.cluster.constants,
      random: this.#random,
      members: this.#nodes.map((n) => ({ region: n.region, node: n.name })),
    })
    this.#stateDriver = new Driver(
      this.#state,
      this.#clock,
      (o) => this.#handleState(o),
      (error) => this.#defect('state timer', 'itself', error),
    )
    this.#sip = this.#createSip()
    this.#sipDriver = new Driver(
      this.#sip,
      this.#clock,
      (o) => this.#handleSip(o),
      (error) => this.#defect('sip timer', 'itself', error),
    )

    this.#link = new ClusterLink({
      self: this.#self,
      cluster: config.cluster.name,
      listen: { address: address.address, port: address.linkPort },
      peers: this.#nodes
        .filter((n) => n.name !== this.#self.node)
        .map((n) => ({ region: n.region, node: n.name, address: n.address, port: n.linkPort })),
      ring: config.cluster.keys.link,
      constants: config.cluster.constants,
      clock: this.#clock,
      random: this.#random,
      log: this.#log,
      metrics: this.#metrics,
      isBlocked,
    })
    this.#link.on('message', (node, channel, payload) =>
      this.#guarded(`message on channel ${channel}`, node, () => this.#handlePeerMessage(node, channel, payload)),
    )
    this.#link.on('up', (peer) => this.#handlePeer(peer, true))
    this.#link.on('down', (peer) => this.#handlePeer(peer, false))
    this.#transports = new Transports({
      listeners: sipListeners(address),
      limits: {
        maxConnections: config.sip.maxConnections,
        idleMs: config.sip.connectionIdleMs,
        handshakeMs: config.sip.handshakeMs,
        pingMs: config.sip.webSocket.pingMs,
      },
      tls: config.sip.tls && { ...config.sip.tls, peerNames: { ...namesOf(config.destinations), ...config.sip.tls.peerNames } },
      webSocket: config.sip.webSocket,
      log: this.#log,
      metrics: this.#metrics,
      onMessage: (message, flow) => {
        this.#received(flow.transport, message.kind === 'request' ? methodLabel(message.method) : 'response').inc()
        this.#guarded('SIP message', flowText(flow), () => {
          this.#sip.handleMessage(message, flow, this.#clock.nowMs())
          this.#sipDriver.settle()
        })
      },
      onFault: (fault, flow) => this.#handleFault(fault, flow),
      onSendError: (_flow, _bytes, _error, ref) => {
        this.#sip.handleSendError(ref, this.#clock.nowMs())
        this.#sipDriver.settle()
      },
      isBlocked,
    })
    this.#probe = new HttpProbe({ timeoutMs: config.geo.probe.timeoutMs, isBlocked, localAddress: address.address })
    this.#dns = this.#createDns()
    this.#admin = new AdminServer(this, {
      isBlocked,
      listen: { address: address.address, port: address.adminPort },
      trustLoopback: config.admin.trustLoopback,
      ...(config.admin.token === undefined ? {} : { token: config.admin.token }),
      log: this.#log,
      metrics: this.#metrics,
    })
  }

  async #start(): Promise<void> {
    const config = this.#config
    await this.#link.start()
    this.#journal = await CdrJournal.open({
      directory: config.cdr.directory,
      self: this.#self,
      log: this.#log,
      metrics: this.#metrics,
      clock: this.#clock,
      durability: config.cdr.durability,
      policy: config.cdr.onFailure,
      mirrorTimeoutMs: config.cdr.mirrorTimeoutMs,
      mirrors: () => {
        const peers = this.#link.peers()
        const own = this.#self.region
        return {
          siblings: peers.filter((p) => p.region === own).map((p) => p.node),
          remotes: peers.filter((p) => p.region !== own).map((p) => p.node),
        }
      },
      sendToPeer: (node, payload) => this.#link.send(node, CHANNEL.cdr, payload),
    })
    for (const peer of this.#link.peers()) this.#journal.handlePeerUp(peer.node, peer.region)
    for (const [node, payload] of this.#beforeJournal) this.#journal.handlePeerMessage(node, payload)
    this.#beforeJournal.clear()
    await this.#admin.start()
    await this.#dns.start()
    this.#healthDriver.settle()
    this.#stateDriver.settle()
    this.#sampler = setInterval(() => this.#sample(), SAMPLE_MS)
    await this.#untilStateReady()
    if (this.#stopping) throw new AntipodeError('NODE_STOPPED', 'stopped while starting')
    await this.#transports.start()
    this.#open = true
    this.#log.info(
      { region: this.#self.region, sip: endpoint(config.self.address.address, config.self.address.sipPort) },
      'node is up',
    )
  }

  /** Stops in the reverse order; the journal last, so that what was promised is on disk. */
  async stop(): Promise<void> {
    if (this.#stopping) return
    this.#stopping = true
    this.#open = false
    clearInterval(this.#sampler)
    await this.#transports.stop()
    this.#sipDriver.stop()
    await this.#dns.stop()
    await this.#admin.stop()
    this.#healthDriver.stop()
    await this.#probe.close()
    // What was written in the last flush interval goes out before the links do.
    this.#state.handleTimeout(this.#clock.nowMs())
    this.#stateDriver.settle()
    this.#stateDriver.stop()
    await this.#journal?.close()
    await this.#link.stop()
    this.#log.info('node has stopped')
  }

  /** For the connections to come; those that are up stay. What cannot be read stays as it was, and is logged. */
  reloadCertificates(): void {
    this.#transports.reloadCertificates()
  }

  get identity(): NodeIdentity {
    return this.#self
  }

  // ── Cores and their outputs ────────────────────────────────────────────────────────────────────────────────────

  #createHealth(): HealthCore {
    const { cluster, geo } = this.#config
    const text = readIfThere(this.#viewFile)
    let last: ReturnType<typeof readSavedView>
    try {
      last = text === undefined ? undefined : readSavedView(JSON.parse(text))
    } catch (error) {
      this.#log.warn({ err: error, file: this.#viewFile }, 'the saved health view cannot be read; starting without one')
    }
    return new HealthCore({
      self: this.#self,
      regions: cluster.regions.map((r) => ({ name: r.name, nodes: r.nodes.map((n) => n.name) })),
      electorate: cluster.electorate,
      probe: geo.probe,
      ...(last === undefined ? {} : { last }),
    })
  }

  #createSip(): SipCore {
    const config = this.#config
    const { address } = config.self
    const subscribers = new Subscribers(config.subscribers, config.sip.realm, config.domains)
    const byName = new Map(this.#nodes.map((n) => [n.name, n]))
    const listeners = new Map(sipListeners(address).map((l) => [l.transport, l]))
    return new SipCore({
      self: this.#self,
      domains: new Set(config.domains),
      realm: config.sip.realm,
      trusted: config.sip.trusted,
      timers: config.sip.timers,
      silenceMs: config.sip.silenceMs,
      // Half the retention at the most: a renewed lease must be there before the entry that it renews is dropped.
      dialogLeaseMs: Math.min(DIALOG_LEASE_MS, config.cluster.constants.longestExpiryMs / 2),
      maxForks: config.sip.maxForks,
      maxTransactions: config.sip.maxTransactions,
      nonceLifetimeMs: config.sip.nonceLifetimeMs,
      digestAlgorithms: config.sip.digestAlgorithms,
      registrar: config.registrar,
      destinations: config.destinations,
      tokenKeys: config.cluster.keys.token,
      nonceKeys: config.cluster.keys.nonce,
      nonceReplay: new NonceReplay(),
      ha1: (username, algorithm, domain) => subscribers.ha1(username, algorithm, domain),
      isSubscriber: (username, domain) => subscribers.has(username, domain),
      admitCalls: () => config.cdr.onFailure === 'continue' || (this.#journal?.healthy() ?? false),
      random: this.#random,
      metrics: this.#metrics,
      routes: new OwnRoutes(this.#nodes, this.#self.node, config.geo.dns.origin, config.sip.recordRoute),
      bindings: {
        lookup: (aor, nowMs) => this.#state.bindings.lookup(aor, nowMs),
        admit: (query, nowMs) => this.#state.bindings.admit(query, nowMs),
        keys: (aor) => this.#state.bindings.keys(aor),
        fault: bindingFault,
        write: (entry, nowMs) => {
          const written = this.#state.writeBinding(entry, nowMs)
          this.#stateDriver.settle()
          return written
        },
      },
      dialogs: {
        write: (entry, nowMs) => {
          try {
            this.#state.writeDialog(entry, nowMs)
          } catch (error) {
            // A callee's tag longer than an entry may hold: the call goes on, its dialog is not replicated.
            if (!(error instanceof AntipodeError)) throw error
            this.#limited.warn(nowMs, error.code, { err: error }, 'a dialog could not be written')
          }
          this.#stateDriver.settle()
        },
        callEnded: (id) => this.#state.dialogs.hasEnded(id),
        dialogEnded: (id) => this.#state.dialogs.get(id)?.phase === 'ended',
      },
      hood: {
        self: this.#self,
        nodeAddress: (node) => {
          const known = byName.get(node)
          return known && { address: known.address, port: known.sipPort }
        },
        verdict: (node) => this.#health.nodeVerdict(node),
        reachable: (node) => this.#health.reachable(node),
        local: (transport: TransportName) => listeners.get(transport),
      },
    })
  }

  #createDns(): DnsServer {
    const { cluster, geo, self } = this.#config
    const zone = buildZone(
      geo.dns,
      cluster.regions.map((r) => ({
        name: r.name,
        cidrs: r.cidrs,
        nodes: r.nodes.map((n) => ({ name: n.name, address: n.address, sipPort: n.sipPort })),
      })),
    )
    return new DnsServer({
      listen: { address: self.address.address, port: self.address.dnsPort },
      isBlocked: (a) => this.#isBlocked(a),
      zone,
      view: () => this.#health.view(),
      log: this.#log,
      metrics: this.#metrics,
    })
  }

  #handleSip(output: SipOutput): void {
    if (output.kind === 'send') {
      this.#transports.send(output.flow, output.bytes, output.ref)
      return
    }
    const { ticket, part } = output
    this.#journal!.append(part).then(
      () => this.#journaled(ticket, true),
      (error: unknown) => {
        this.#limited.warn(
          this.#clock.nowMs(),
          'cdr',
          { err: error, part: part.part, id: part.id },
          'a CDR part could not be made durable',
        )
        this.#journaled(ticket, false)
      },
    )
  }

  #journaled(ticket: number, went: boolean): void {
    if (ticket === 0) return
    this.#sip.handleJournaled(ticket, went, this.#clock.nowMs())
    this.#sipDriver.settle()
  }

  #handleState(output: StateOutput): void {
    switch (output.kind) {
      case 'send':
        this.#link.send(output.node, CHANNEL.state, output.bytes)
        return
      case 'violation':
        this.#metrics.crdt.refused.inc({ code: output.fault.code })
        this.#limited.warn(
          this.#clock.nowMs(),
          `crdt:${output.node}:${output.fault.code}`,
          { peer: output.node, ...output.fault },
          'a peer sent what the protocol forbids',
        )
        this.#link.dropPeer(output.node, output.fault.code)
        return
      case 'higherIncarnation':
        // A counter that no real node has reached is a member's lie or its broken disk: going above it would use the numbers up.
        if (incarnationCounter(output.incarnation) > incarnationCounter(this.#self.incarnation) + MAX_INCARNATION_LEAP) {
          this.#log.error(
            { met: incarnationText(output.incarnation) },
            'an incarnation of this node is claimed that cannot be: ignored',
          )
          return
        }
        this.#log.error(
          { met: incarnationText(output.incarnation) },
          'a higher incarnation of this node is known: starting again above it',
        )
        this.#onSuperseded?.(output.incarnation)
        return
      case 'refused':
        this.#metrics.crdt.refused.inc({ code: output.fault.code })
        this.#limited.warn(
          this.#clock.nowMs(),
          `crdt:${output.node}:${output.fault.code}`,
          { peer: output.node, ...output.fault },
          'an entry of a peer was not taken',
        )
        return
      case 'ready':
        this.#log.info('the state has been pulled from peers')
    }
  }

  #handleHealth(output: HealthOutput): void {
    switch (output.kind) {
      case 'probe': {
        const target = this.#nodes.find((n) => n.name === output.node)!
        void this.#probe.probe(target.address, target.adminPort).then((result) => {
          this.#metrics.geo.probes.inc({ result: result.ok ? 'ok' : 'failed' })
          this.#health.handleProbeResult(output.node, result.ok, this.#clock.nowMs(), result.rttMs)
          this.#healthDriver.settle()
        })
        return
      }
      case 'send':
        this.#link.send(output.node, CHANNEL.health, output.bytes)
        return
      case 'changed':
        this.#metrics.geo.changes.inc({ target: output.target })
        this.#log.warn({ scope: output.scope, target: output.target, from: output.from, to: output.to }, 'verdict changed')
        return
      case 'persist':
        try {
          writeFileDurably(this.#viewFile, `${JSON.stringify(output.view)}\n`)
        } catch (error) {
          this.#limited.warn(this.#clock.nowMs(), 'view', { err: error }, 'the health view could not be saved')
        }
    }
  }

  #handlePeer(peer: PeerInfo, up: boolean): void {
    const nowMs = this.#clock.nowMs()
    if (up) {
      this.#state.handlePeerUp(peer, nowMs)
      this.#health.handlePeerUp(peer.node, nowMs)
      this.#journal?.handlePeerUp(peer.node, peer.region)
    } else {
      this.#state.handlePeerDown(peer, nowMs)
      this.#health.handlePeerDown(peer.node, nowMs)
      this.#journal?.handlePeerDown(peer.node)
    }
    this.#stateDriver.settle()
    this.#healthDriver.settle()
  }

  #handlePeerMessage(node: string, channel: number, payload: Uint8Array): void {
    const nowMs = this.#clock.nowMs()
    if (channel === CHANNEL.state) {
      this.#state.handleMessage(node, payload, nowMs)
      this.#stateDriver.settle()
    } else if (channel === CHANNEL.health) {
      const fault = this.#health.handleMessage(node, payload, nowMs)
      if (fault !== undefined) this.#refusePeer(node, fault.code)
      this.#healthDriver.settle()
    } else if (channel === CHANNEL.cdr) {
      // Asked as soon as the link is up; unanswered it is asked again only after 2 s, for which the peer's answers to calls would wait.
      if (this.#journal === undefined) this.#beforeJournal.set(node, payload)
      else this.#journal.handlePeerMessage(node, payload)
    } else this.#refusePeer(node, 'NET_CHANNEL_UNKNOWN')
  }

  #refusePeer(node: string, code: string): void {
    this.#metrics.link.refused.inc({ code })
    this.#limited.warn(this.#clock.nowMs(), `link:${node}:${code}`, { peer: node, code }, 'a message of a peer was refused')
  }

  /**
   * Runs what one input from the network sets off. A throw is a defect of ours, but it is that input's end and not the node's: with it would go every
   * call in progress, and the sender would send it again.
   */
  #guarded(what: string, from: string, run: () => void): void {
    try {
      run()
    } catch (error) {
      this.#defect(what, from, error)
    }
  }

  #defect(what: string, from: string, error: unknown): void {
    this.#metrics.process.defects.inc()
    this.#limited.error(
      this.#clock.nowMs(),
      `defect:${what}`,
      { err: error, from, what },
      'a defect of ours: the input was dropped',
    )
  }

  /** prom-client hashes labels at each `inc`; a child that is kept does not. */
  #received(transport: string, method: string): { inc(): void } {
    const key = `${transport} ${method}`
    let child = this.#receivedBy.get(key)
    if (child === undefined) {
      child = this.#metrics.sip.received.labels(transport, method)
      this.#receivedBy.set(key, child)
    }
    return child
  }

  #handleFault(fault: ParseFault, flow: Flow): void {
    const nowMs = this.#clock.nowMs()
    this.#metrics.sip.refused.inc({ code: fault.code })
    this.#limited.warn(
      nowMs,
      `sip:${fault.code}`,
      { code: fault.code, offset: fault.offset, detail: fault.detail, source: flowText(flow) },
      'SIP input was refused',
    )
    if (fault.partial !== undefined) {
      this.#sip.refuseStateless(fault.partial, flow, fault.status, fault.detail, nowMs)
      this.#sipDriver.settle()
    }
  }

  #isBlocked(address: string): boolean {
    return this.#blocked.size > 0 && this.#blocked.has(address)
  }

  async #untilStateReady(): Promise<void> {
    while (!this.#state.ready(this.#clock.nowMs()) && !this.#stopping) await new Promise((resolve) => setTimeout(resolve, 20))
  }

  get #viewFile(): string {
    return join(this.#config.stateDirectory, 'health-view.json')
  }

  #sample(): void {
    const memory = process.memoryUsage.rss()
    this.#metrics.process.memory.set(memory)
    const { user, system } = process.cpuUsage()
    this.#metrics.process.cpuSeconds.set((user + system) / 1e6)
    // How late this timer is: what held the loop up held it up as well.
    const nowMs = this.#clock.monotonicMs()
    if (this.#sampledMs !== undefined)
      this.#metrics.process.eventLoopDelay.observe(Math.max(0, nowMs - this.#sampledMs - SAMPLE_MS) / 1000)
    this.#sampledMs = nowMs
  }

  // ── AdminTarget ────────────────────────────────────────────────────────────────────────────────────────────────

  status(): NodeStatus {
    const nowMs = this.#clock.nowMs()
    const { address } = this.#config.self
    const summary = this.#state.summary(nowMs)
    const dialogs = this.#state.dialogs.counts
    const view = this.#health.view()
    const { user, system } = process.cpuUsage()
    return {
      node: this.#self.node,
      region: this.#self.region,
      incarnation: this.#self.incarnation,
      pid: process.pid,
      uptimeS: (nowMs - this.#startedMs) / 1000,
      version: VERSION,
      addresses: {
        sip: endpoint(address.address, address.sipPort),
        admin: endpoint(address.address, address.adminPort),
        dns: endpoint(address.address, address.dnsPort),
        link: endpoint(address.address, address.linkPort),
      },
      ready: this.ready().ok,
      healthy: this.healthy().ok,
      verdict: {
        regions: Object.fromEntries(this.#config.cluster.regions.map((r) => [r.name, this.#health.regionVerdict(r.name)])),
        nodes: Object.fromEntries(this.#nodes.map((n) => [n.name, this.#health.nodeVerdict(n.name)])),
      },
      links: this.#link.peers(),
      state: {
        digest: summary.digest,
        docs: summary.docs,
        entries: summary.entries,
        bindings: summary.bindings,
        dialogs: dialogs.early + dialogs.confirmed,
      },
      cdr: { ...this.#journal?.stats() },
      cpuSeconds: (user + system) / 1e6,
      memoryBytes: process.memoryUsage.rss(),
      drill: { blocked: [...this.#blocked] },
      inMajority: view.inMajority,
      sip: this.#sip.counts(),
    }
  }

  registrations(aor: string): RegistrationView {
    const canonical = canonicalAor(
      /^[a-z]+:/i.test(aor) ? aor : `sip:${aor.includes('@') ? aor : `${aor}@${this.#config.domains[0]}`}`,
    )
    if (!canonical.ok) throw new AntipodeError('REG_BAD_AOR', canonical.fault.detail)
    const nowMs = this.#clock.nowMs()
    return {
      aor: canonical.value,
      bindings: this.#state.bindings.lookup(canonical.value, nowMs).map(bindingView),
      explain: this.#state.bindings.explain(canonical.value, nowMs),
    }
  }

  dialogs(limit: number): DialogView[] {
    return this.#state.dialogs.list(this.#clock.nowMs(), { limit }).map(dialogView)
  }

  async cdrs({ scope }: { scope: 'node' | 'cluster' }): Promise<CdrPart[]> {
    const own = (await this.#journal?.parts()) ?? []
    if (scope === 'node') return own
    // Whoever does not answer is left out: what it had lies in its mirrors.
    const others = this.#nodes.filter((n) => n.name !== this.#self.node && !this.#isBlocked(n.address))
    const answers = await Promise.allSettled(others.map((n) => this.#partsOf(n)))
    return [own, ...answers.map((a) => (a.status === 'fulfilled' ? a.value : []))].flat()
  }

  async #partsOf(node: NodeAddress): Promise<CdrPart[]> {
    const client = new AdminClient({ address: node.address, port: node.adminPort, token: this.#config.admin.token })
    try {
      return await client.cdrParts()
    } finally {
      await client.close()
    }
  }

  setBlocked(addresses: string[]): void {
    this.#blocked.clear()
    for (const address of addresses) this.#blocked.add(address)
    this.#log.warn(
      { blocked: addresses },
      addresses.length === 0 ? 'drill: every address is open again' : 'drill: addresses are blocked',
    )
    this.#link.refreshBlocked()
    this.#transports.refreshBlocked()
  }

  /** May traffic be sent here: SIP is open and the journal takes CDRs. */
  ready(): Condition {
    const reasons: string[] = []
    if (!this.#open) reasons.push(this.#stopping ? 'stopping' : 'starting')
    if (this.#journal !== undefined && !this.#journal.healthy()) reasons.push('the CDR journal is not healthy')
    return { ok: reasons.length === 0, reasons }
  }

  /** What siblings and regions probe. */
  healthy(): Condition {
    return this.ready()
  }

  async metricsText(): Promise<string> {
    const nowMs = this.#clock.nowMs()
    const m = this.#metrics
    const summary = this.#state.summary(nowMs)
    m.registrar.bindings.set(summary.bindings)
    m.crdt.docs.set(summary.docs)
    m.calls.active.set(this.#state.dialogs.counts.confirmed)
    m.crdt.entries.set({ kind: 'all' }, summary.entries)
    m.crdt.entries.set({ kind: 'dialog' }, this.#state.dialogs.counts.entries)
    const counters = this.#state.counters()
    raise(m.crdt.frames.labels('in'), this.#told, 'framesIn', counters.framesIn)
    raise(m.crdt.frames.labels('out'), this.#told, 'framesOut', counters.framesOut)
    raise(m.crdt.frames.labels('relayed'), this.#told, 'framesRelayed', counters.framesRelayed)
    raise(m.crdt.frameBytes.labels('in'), this.#told, 'frameBytesIn', counters.frameBytesIn)
    raise(m.crdt.frameBytes.labels('out'), this.#told, 'frameBytesOut', counters.frameBytesOut)
    raise(m.crdt.digests.labels('equal'), this.#told, 'digestsEqual', counters.digestsEqual)
    raise(m.crdt.digests.labels('different'), this.#told, 'digestsDifferent', counters.digestsDifferent)
    const { transactions } = this.#sip.counts()
    for (const [kind, count] of Object.entries(transactions)) m.sip.transactions.set({ kind }, count)
    const score = { alive: 1, dead: 0, unknown: -1 }
    for (const region of this.#config.cluster.regions)
      m.geo.verdict.set({ target: region.name }, score[this.#health.regionVerdict(region.name)])
    for (const node of this.#nodes) m.geo.verdict.set({ target: node.name }, score[this.#health.nodeVerdict(node.name)])
    const peers = this.#link.peers()
    m.link.peers.set({ scope: 'region' }, peers.filter((p) => p.region === this.#self.region).length)
    m.link.peers.set({ scope: 'wan' }, peers.filter((p) => p.region !== this.#self.region).length)
    return m.registry.metrics()
  }
}

/** Where a node listens for SIP, and sends from. */
function sipListeners({ address, sipPort, tlsPort, wsPort, wssPort }: NodeAddress): Listener[] {
  const ports = { udp: sipPort, tcp: sipPort, tls: tlsPort, ws: wsPort, wss: wssPort }
  return (['udp', 'tcp', 'tls', 'ws', 'wss'] as const).flatMap((transport) => {
    const port = ports[transport]
    return port === undefined ? [] : [{ transport, address, port }]
  })
}

/** What a destination with a name and an address (`maddr`) must prove to be, by its address. */
function namesOf(destinations: Config['destinations']): Record<string, string> {
  const names: Record<string, string> = {}
  for (const { uri } of destinations) {
    const parsed = parseUri(uri)
    const to = literalAddress(uri)
    if (parsed.ok && to?.transport === 'tls' && isIP(parsed.value.host.replace(/^\[|\]$/g, '')) === 0)
      names[to.address] = parsed.value.host
  }
  return names
}

/** Brings a counter up to a total that a core has counted by itself. */
function raise(counter: { inc(by: number): void }, told: Map<string, number>, name: string, total: number): void {
  counter.inc(total - (told.get(name) ?? 0))
  told.set(name, total)
}
