import { bindingFault } from '../crdt/codec.ts'
import { StateCore } from '../crdt/state.ts'
import type { NodeIdentity } from '../src/base/ids.ts'
import { createMetrics } from '../src/base/metrics.ts'
import { SeededRandom } from '../src/base/prng.ts'
import { OwnRoutes } from '../src/proxy/record-route.ts'
import { SipCore } from '../src/proxy/sip-core.ts'
import { NonceReplay } from '../src/sip/digest.ts'
import type { Flow } from '../src/sip/flow.ts'
import { checkMessage, type SipMessage } from '../src/sip/message.ts'
import { parseMessage } from '../src/sip/parse.ts'
import { serialize } from '../src/sip/serialize.ts'
import { CONSTANTS } from './lib/constants.ts'
import { Checksum, cpuFigure, measure } from './lib/measure.ts'
import type { BenchOptions, BenchResult } from './lib/scenario.ts'

export const name = 'sip'
export const description =
  'parse, check, serialize, and REGISTER to 200 through the SIP core and the state core of one node, in memory'
export const kind = 'micro'

const SECONDS = 2
const BATCH = 500
const USERS = 20_000
const START_MS = 1_800_000_000_000
const flow: Flow = { transport: 'udp', localAddress: '127.0.1.1', localPort: 5060, remoteAddress: '127.0.0.1', remotePort: 6060 }

export async function run({ seconds = SECONDS }: BenchOptions): Promise<BenchResult> {
  const failures: string[] = []
  const sum = new Checksum()
  const register = registerBytes(1, 1)
  const invite = inviteBytes()
  const read = (bytes: Buffer): SipMessage => {
    const parsed = parseMessage(bytes)
    if (!parsed.ok) throw new Error(`does not parse: ${parsed.fault.code}`)
    return parsed.value
  }
  const repeated = (once: () => number) => () => {
    for (let i = 0; i < BATCH; i++) sum.add(once())
    return BATCH
  }
  const checked = (bytes: Buffer): number => {
    const message = read(bytes)
    if (checkMessage(message) !== undefined) throw new Error('malformed')
    return message.headers.count('Via')
  }
  const parsedInvite = read(invite)
  const figures = [
    cpuFigure(
      'parse REGISTER',
      measure(
        seconds,
        repeated(() => read(register).headers.count('Via')),
      ),
      `${register.length} bytes`,
    ),
    cpuFigure(
      'parse and check REGISTER',
      measure(
        seconds,
        repeated(() => checked(register)),
      ),
    ),
    cpuFigure(
      'parse INVITE with SDP',
      measure(
        seconds,
        repeated(() => read(invite).body.length),
      ),
      `${invite.length} bytes`,
    ),
    cpuFigure(
      'parse and check INVITE',
      measure(
        seconds,
        repeated(() => checked(invite)),
      ),
    ),
    cpuFigure(
      'serialize INVITE',
      measure(
        seconds,
        repeated(() => serialize(parsedInvite).length),
      ),
    ),
  ]

  const node = new OneNode()
  let serial = 0
  const whole = measure(seconds, () => {
    for (let i = 0; i < BATCH; i++, serial++) node.receive(registerBytes(serial % USERS, 1 + Math.floor(serial / USERS)))
    return BATCH
  })
  figures.push(cpuFigure('REGISTER to 200 in memory', whole, 'parse, transaction, admit, entry, index, frame, 200'))
  if (node.answered !== node.received) failures.push(`${node.received - node.answered} of ${node.received} REGISTERs got no 200`)
  return { figures, failures }
}

/** The cores of one node, wired as the gateway does, on a clock that moves a tenth of a millisecond with each request. */
class OneNode {
  received = 0
  answered = 0
  readonly #state: StateCore
  readonly #sip: SipCore
  #nowMs = START_MS

  constructor() {
    const self: NodeIdentity = { region: 'us-east', node: 'us-east-1', incarnation: 2 ** 32 + 7 }
    const sibling = { region: 'us-east', node: 'us-east-2' }
    const nodes = [self, sibling].map((n, i) => ({ name: n.node, address: `127.0.1.${i + 1}`, sipPort: 5060 }))
    const key = (byte: number) => ({ current: 'k', keys: new Map([['k', Buffer.alloc(32, byte)]]) })
    const random = new SeededRandom(1)
    this.#state = new StateCore({ self, constants: CONSTANTS, random, members: [self, sibling] })
    this.#state.handlePeerUp({ ...sibling, incarnation: 1, outbound: true }, START_MS)
    this.#sip = new SipCore({
      self,
      domains: new Set(['example.net']),
      realm: 'example.net',
      trusted: ['127.0.0.1/32'],
      timers: { t1Ms: 500, t2Ms: 4000, t4Ms: 5000, timerDMs: 32_000, timerCMs: 180_000 },
      silenceMs: 2000,
      dialogLeaseMs: 1_800_000,
      maxForks: 10,
      maxTransactions: 10_000_000,
      nonceLifetimeMs: 300_000,
      digestAlgorithms: ['SHA-256', 'MD5'],
      registrar: { minExpiresS: 60, defaultExpiresS: 3600, maxExpiresS: 7200, maxContactsPerAor: 10, cseq: 'strict' },
      destinations: [],
      tokenKeys: key(1),
      nonceKeys: key(2),
      nonceReplay: new NonceReplay(),
      bindings: {
        lookup: (aor, nowMs) => this.#state.bindings.lookup(aor, nowMs),
        admit: (query, nowMs) => this.#state.bindings.admit(query, nowMs),
        keys: (aor) => this.#state.bindings.keys(aor),
        fault: bindingFault,
        write: (entry, nowMs) => this.#state.writeBinding(entry, nowMs),
      },
      dialogs: {
        write: (entry, nowMs) => void this.#state.writeDialog(entry, nowMs),
        callEnded: (id) => this.#state.dialogs.hasEnded(id),
        dialogEnded: (id) => this.#state.dialogs.get(id)?.phase === 'ended',
      },
      hood: {
        self,
        nodeAddress: (n) => nodes.filter((x) => x.name === n).map((x) => ({ address: x.address, port: x.sipPort }))[0],
        verdict: () => 'alive',
        reachable: () => true,
        local: () => ({ address: '127.0.1.1', port: 5060 }),
      },
      routes: new OwnRoutes(nodes, self.node, 'example.net', 'address'),
      ha1: () => undefined,
      isSubscriber: () => false,
      admitCalls: () => true,
      random,
      metrics: createMetrics(),
    })
  }

  receive(bytes: Buffer): void {
    this.received++
    this.#nowMs += this.received % 10 === 0 ? 1 : 0
    const parsed = parseMessage(bytes)
    if (!parsed.ok) return
    this.#sip.handleMessage(parsed.value, flow, this.#nowMs)
    if ((this.#sip.nextTimeoutMs() ?? Number.POSITIVE_INFINITY) <= this.#nowMs) this.#sip.handleTimeout(this.#nowMs)
    if ((this.#state.nextTimeoutMs() ?? Number.POSITIVE_INFINITY) <= this.#nowMs) this.#state.handleTimeout(this.#nowMs)
    this.#state.takeOutputs()
    for (const output of this.#sip.takeOutputs()) {
      if (output.kind === 'send' && output.bytes.toString('latin1', 0, 11) === 'SIP/2.0 200') this.answered++
    }
  }
}

const registerBytes = (user: number, cseq: number): Buffer =>
  Buffer.from(
    `REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:6060;branch=z9hG4bK-4711-${user}-${cseq}\r\nMax-Forwards: 70\r\n` +
      `From: <sip:u${user}@example.net>;tag=r4711-${user}\r\nTo: <sip:u${user}@example.net>\r\nCall-ID: ${user}-4711@127.0.0.1\r\nCSeq: ${cseq} REGISTER\r\n` +
      `Contact: <sip:u${user}@127.0.0.1:6060>\r\nExpires: 3600\r\nUser-Agent: bench\r\nContent-Length: 0\r\n\r\n`,
    'latin1',
  )

function inviteBytes(): Buffer {
  const sdp =
    'v=0\r\no=user1 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 16000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n'
  return Buffer.from(
    'INVITE sip:u1@example.net SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.1.2:5060;branch=z9hG4bK9kX2mQ\r\nVia: SIP/2.0/UDP 127.0.0.1:6060;branch=z9hG4bK-4711-1;received=127.0.0.1;rport=6060\r\n' +
      'Record-Route: <sip:127.0.1.2:5060;lr;tk=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0->\r\nMax-Forwards: 69\r\n' +
      'From: <sip:caller@example.net>;tag=c4711-1\r\nTo: <sip:u1@example.net>\r\nCall-ID: 1-4711@127.0.0.1\r\nCSeq: 1 INVITE\r\nContact: <sip:caller@127.0.0.1:6060>\r\n' +
      `Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\nSupported: replaces, timer\r\nContent-Type: application/sdp\r\nContent-Length: ${sdp.length}\r\n\r\n${sdp}`,
    'latin1',
  )
}
