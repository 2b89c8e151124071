import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { below, SeededRandom } from '../../src/base/prng.ts'
import { digestResponse } from '../../src/sip/digest.ts'
import type { Flow } from '../../src/sip/flow.ts'
import { type Framed, StreamFramer } from '../../src/sip/framer.ts'
import { checkMessage } from '../../src/sip/message.ts'
import { DEFAULT_LIMITS, parseMessage } from '../../src/sip/parse.ts'
import { makeResponse } from '../../src/sip/respond.ts'
import { serialize } from '../../src/sip/serialize.ts'
import { caller, invite, phone, register } from '../src/proxy/agents.ts'
import { World } from '../src/proxy/world.ts'
import { ALL } from './all.ts'
import { mutate } from './mutate.ts'

// Mutants of real messages go through all that a message goes through in a node: framer, parser, checks, transactions, registrar, proxy. Nothing throws,
// nothing takes long, what goes out is well formed, and when time has passed nothing is left. The seed is fixed; a failing input says its number.

const COUNT = process.env.ANTIPODE_TEST_LONG === undefined ? 20_000 : 1_000_000
/** A world's stores keep what is written until a doc is dropped, which is not theirs to do: each serves so many inputs. */
const PER_WORLD = 2_000
const SLOW_MS = 5
/** The machine may be busy; a path that is not linear is slower than this by far. */
const LIMIT_MS = 250
/** What a request that only just passed runs into at the next node, for the headers that the one before has added. */
const GROWN: ReadonlySet<string> = new Set(['SIP_TOO_MANY_HEADERS', 'SIP_HEAD_TOO_LARGE', 'SIP_TOO_LARGE', 'SIP_LINE_TOO_LONG'])
const USERS = { bob: 'secret', alice: 'secret' }

const makeWorld = (): World => {
  const world = new World(['us-east-1', 'eu-west-1'], {
    users: USERS,
    destinations: [{ name: 'pbx', match: { domain: 'example.com' }, uri: 'sip:127.0.0.1:5080' }],
  })
  register(world, 'us-east-1', 'bob', '127.0.0.1:7001')
  register(world, 'eu-west-1', 'bob', '127.0.0.1:7002', ';q=0.5')
  return world
}

/** Everything that crosses the wire in a call between two nodes, with tokens and hop headers that hold in the worlds of the run. */
function recorded(): string[] {
  const world = makeWorld()
  for (const at of ['127.0.0.1:7001', '127.0.0.1:7002']) phone(world, at, (m) => (m.method === 'INVITE' ? [180, 200] : [200]))
  const got = caller(world)
  world.send('127.0.0.1:6060', 'us-east-1', invite('bob'))
  const ok = got.find((m) => m.kind === 'response' && m.status === 200)!
  const routes = ok.headers.values('Record-Route').reverse()
  for (const [method, cseq] of [
    ['ACK', 1],
    ['UPDATE', 2],
    ['BYE', 3],
  ] as const) {
    const lines = [
      `${method} sip:callee@127.0.0.1:7001 SIP/2.0`,
      `Via: SIP/2.0/UDP 127.0.0.1:6060;branch=z9hG4bKd${cseq}`,
      'Max-Forwards: 70',
    ]
    lines.push(...routes.map((r) => `Route: ${r}`), `From: ${ok.headers.get('From')}`, `To: ${ok.headers.get('To')}`)
    lines.push(`Call-ID: ${ok.callId}`, `CSeq: ${cseq} ${method}`, 'Content-Length: 0', '', '')
    world.send('127.0.0.1:6060', 'us-east-1', lines.join('\n'))
  }
  // carol's phone hangs on the other node: its edge is reached with a hop header.
  world.connect('127.0.0.1:7003', 'eu-west-1')
  register(world, 'eu-west-1', 'carol', '127.0.0.1:7003', '', 'TCP')
  world.send('127.0.0.1:6060', 'us-east-1', invite('carol', { branch: 'z9hG4bKh', callId: 'hop' }))
  const cancel = invite('bob', { branch: 'z9hG4bKc', callId: 'cancelled' })
  world.send('127.0.0.1:6060', 'us-east-1', cancel.replace('INVITE sip', 'CANCEL sip').replace('1 INVITE', '1 CANCEL'))
  // A stranger, who is challenged, and comes back with what is asked for.
  const stranger = '198.51.100.7:5060'
  let challenge = ''
  world.agent(stranger, (m) => {
    challenge = m.headers.get('Proxy-Authenticate') ?? ''
  })
  world.send(stranger, 'us-east-1', invite('bob', { via: stranger, branch: 'z9hG4bKs', callId: 'stranger' }))
  const credentials = {
    username: 'alice',
    password: USERS.alice,
    method: 'INVITE',
    uri: 'sip:bob@example.net',
    random: new SeededRandom(1),
  }
  const headers = `Proxy-Authorization: ${digestResponse(challenge, credentials)}\n`
  world.send(stranger, 'us-east-1', invite('bob', { via: stranger, branch: 'z9hG4bKs2', callId: 'stranger', headers }))
  return world.wire.map((w) => w.text)
}

interface Input {
  readonly node: string
  readonly bytes: Buffer
  readonly flow: Flow
}

/** Two nodes' cores with the shell's part played here: bytes in, bytes out. */
class Rig {
  readonly world = makeWorld()
  sent = 0
  /** Requests that went out malformed. */
  readonly malformed: string[] = []
  readonly #random: SeededRandom
  readonly #pending: Input[] = []

  constructor(random: SeededRandom) {
    this.#random = random
  }

  /** As `Transports` and `Gateway` do it. */
  take({ node, bytes, flow }: Input): void {
    const { core } = this.world.nodes.get(node)!
    const parsed = parseMessage(bytes)
    if (parsed.ok) core.handleMessage(parsed.value, flow, this.world.nowMs)
    else if (parsed.fault.partial !== undefined)
      core.refuseStateless(parsed.fault.partial, flow, parsed.fault.status, parsed.fault.detail, this.world.nowMs)
    this.#drain()
  }

  /** What nodes have sent each other, and what phones answer. */
  settle(): void {
    for (let steps = 0; this.#pending.length > 0; steps++) {
      if (steps > 2_000) throw new Error('one input sets off more than 2,000 messages')
      this.take(this.#pending.shift()!)
    }
  }

  pass(ms: number): void {
    const { world } = this
    const end = world.nowMs + ms
    for (;;) {
      let next = end
      for (const { core } of world.nodes.values()) next = Math.min(next, core.nextTimeoutMs() ?? end)
      world.nowMs = Math.max(world.nowMs, next)
      for (const { core } of world.nodes.values()) core.handleTimeout(world.nowMs)
      this.#drain()
      this.settle()
      if (world.nowMs >= end) return
    }
  }

  #drain(): void {
    for (const [name, { core, address }] of this.world.nodes)
      for (let outputs = core.takeOutputs(); outputs.length > 0; outputs = core.takeOutputs())
        for (const output of outputs) {
          if (output.kind === 'journal') {
            if (output.ticket !== 0) core.handleJournaled(output.ticket, this.#random.unit() < 0.9, this.world.nowMs)
            continue
          }
          this.sent++
          // A stream that is not there any more.
          if (output.flow.transport !== 'udp' && this.#random.unit() < 0.5) core.handleSendError(output.ref, this.world.nowMs)
          else this.#deliver(name, address, output.bytes, output.flow)
        }
  }

  #deliver(from: string, address: string, bytes: Buffer, flow: Flow): void {
    const parsed = parseMessage(bytes)
    const wrong = parsed.ok ? checkMessage(parsed.value) : parsed.fault
    if (!parsed.ok || wrong !== undefined) {
      // An answer repeats what was wrong with its request. A request of ours has no such excuse, but may grow past what the next node takes.
      if (!GROWN.has(wrong!.code) && !bytes.toString('latin1', 0, 8).startsWith('SIP/2.0 '))
        this.malformed.push(`${wrong!.code} ${wrong!.detail}: ${bytes.toString('latin1', 0, 1000)}`)
      return
    }
    const back = (to: string, remoteAddress: string, remotePort: number): Omit<Input, 'bytes'> => ({
      node: to,
      flow: {
        transport: flow.transport,
        localAddress: this.world.nodes.get(to)!.address,
        localPort: 5060,
        remoteAddress,
        remotePort,
      },
    })
    const node = [...this.world.nodes].find(([, n]) => n.address === flow.remoteAddress)
    if (node !== undefined) {
      this.#pending.push({ ...back(node[0], address, 5060), bytes })
      return
    }
    const message = parsed.value
    if (message.kind === 'response' || message.method === 'ACK') return
    const chance = this.#random.unit()
    if (chance < 0.3) return
    const status = chance < 0.5 ? 180 : chance < 0.6 ? 200 : chance < 0.8 ? 486 : chance < 0.9 ? 302 : 603
    const response = serialize(makeResponse(message, status, undefined, 'phone'))
    const mutant = this.#random.unit() < 0.3 ? mutate([response.toString('latin1')], this.#random, 0).bytes : response
    this.#pending.push({ ...back(from, flow.remoteAddress, flow.remotePort), bytes: mutant })
  }
}

/** One stream's bytes in random chunks; what comes out is the same as from one. */
function cut(bytes: Buffer, random: SeededRandom): Framed[] {
  const framer = new StreamFramer()
  const out: Framed[] = []
  for (let at = 0; at < bytes.length; ) {
    const size = random.unit() < 0.5 ? 1 + below(random, 8) : 1 + below(random, bytes.length)
    out.push(...framer.push(bytes.subarray(at, at + size)))
    if (framer.heldBytes > DEFAULT_LIMITS.maxMessageBytes + size) throw new Error(`the framer holds ${framer.heldBytes} bytes`)
    at += size
  }
  return out
}

const shape = (framed: readonly Framed[]): string =>
  framed.map((f) => (f.kind === 'message' ? f.bytes.toString('latin1') : f.kind === 'fault' ? f.fault.code : f.kind)).join('|')

/** The least of three goes, each at nodes of its own. */
function repeated(input: Input): number {
  let leastMs = Number.POSITIVE_INFINITY
  for (let go = 0; go < 3; go++) {
    const rig = new Rig(new SeededRandom(go))
    const beganMs = performance.now()
    rig.take(input)
    leastMs = Math.min(leastMs, performance.now() - beganMs)
  }
  return leastMs
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
/** What is held, not what has not been collected yet. */
function heapBytes(): number {
  collect()
  return process.memoryUsage().heapUsed
}

t.test(`${COUNT} mutants`, async (t) => {
  const corpus = [...recorded(), ...ALL.map((m) => m.bytes.toString('latin1').replaceAll('example.com', 'example.net'))]
  const pieces = ['Antipode-Hop', ';tk=', 'BYE ', 'CANCEL ', 'SIP/2.0 407', 'Proxy-Authorization: Digest', 'SIP/2.0 180']
  t.same(
    pieces.filter((piece) => !corpus.some((m) => m.includes(piece))),
    [],
    'the corpus has tokens, hops and challenges',
  )
  const random = new SeededRandom(4475)
  const thrown: string[] = []
  const uneven: string[] = []
  const left: unknown[] = []
  const malformed: string[] = []
  const reached = { whole: 0, sent: 0 }
  const heaps: number[] = []
  /** Slow by themselves, not because of a collection or another process. */
  const slowAgain: string[] = []
  let slowestAgainMs = 0
  let slow = 0
  let slowest = { ms: 0, story: '' }
  for (let first = 0; first < COUNT; first += PER_WORLD) {
    const rig = new Rig(random)
    for (let i = first; i < Math.min(first + PER_WORLD, COUNT); i++) {
      const { bytes, story } = mutate(corpus, random, i)
      const stream = random.unit() < 0.3
      const remoteAddress = random.unit() < 0.8 ? '127.0.0.1' : '198.51.100.7'
      const node = random.unit() < 0.8 ? 'us-east-1' : 'eu-west-1'
      const flow: Flow = {
        ...{
          transport: stream ? ('tcp' as const) : ('udp' as const),
          localAddress: rig.world.nodes.get(node)!.address,
          localPort: 5060,
        },
        ...{ remoteAddress, remotePort: 6060, ...(stream ? { connectionId: i } : {}) },
      }
      const beganMs = performance.now()
      try {
        if (stream) {
          const framed = cut(bytes, random)
          for (const f of framed) if (f.kind === 'message') rig.take({ node, bytes: f.bytes, flow })
        } else rig.take({ node, bytes, flow })
      } catch (error) {
        thrown.push(`#${i} ${story}: ${(error as Error).stack}\n${JSON.stringify(bytes.toString('latin1').slice(0, 2000))}`)
      }
      const ms = performance.now() - beganMs
      if (ms > SLOW_MS) {
        slow++
        const againMs = repeated({ node, bytes, flow })
        if (againMs > SLOW_MS) slowAgain.push(`#${i} ${story}: ${againMs.toFixed(1)} ms`)
        slowestAgainMs = Math.max(slowestAgainMs, againMs)
      }
      if (ms > slowest.ms) slowest = { ms, story: `#${i} ${story}, ${bytes.length} bytes` }
      if (stream && shape(cut(bytes, random)) !== shape(new StreamFramer().push(bytes))) uneven.push(`#${i} ${story}`)
      const again = parseMessage(bytes)
      if (again.ok && checkMessage(again.value) === undefined) reached.whole++
      try {
        rig.settle()
        // Time passes unevenly, so that inputs meet transactions in every state.
        if (random.unit() < 0.02) rig.pass(below(random, 8_000))
      } catch (error) {
        thrown.push(`after #${i} ${story}: ${(error as Error).stack}`)
      }
    }
    // Timer C, what a context outlives its end by, and the longest that a call is taken to be up without a word.
    rig.pass(25 * 3_600_000)
    for (const { core } of rig.world.nodes.values()) {
      const { transactions, contexts, ownedDialogs } = core.counts()
      const all = { ...transactions, contexts, ownedDialogs, timers: core.nextTimeoutMs() === undefined ? 0 : 1 }
      if (Object.values(all).some((n) => n > 0)) left.push(all)
    }
    if (first >= COUNT / 2 || COUNT <= PER_WORLD) heaps.push(heapBytes())
    malformed.push(...rig.malformed)
    reached.sent += rig.sent
    if (thrown.length > 20) break
  }
  t.same(thrown, [], 'nothing throws')
  t.same(uneven, [], 'how a stream is cut into chunks makes no difference')
  t.same(left, [], 'no transaction, context, call or timer is left when time has passed')
  t.ok(
    heaps.at(-1)! - heaps[0]! < 16 << 20,
    `the heap does not grow: ${heaps
      .map((b) => (b / 1e6).toFixed(1))
      .join(' ')
      .slice(0, 200)} MB`,
  )
  t.same(malformed.slice(0, 3), [], 'no malformed request is sent on')
  t.ok(slowestAgainMs < LIMIT_MS, `no input takes over ${LIMIT_MS} ms by itself`)
  t.ok(reached.whole > COUNT / 20 && reached.sent > COUNT / 5, 'enough of them get past the parser')
  t.comment(
    `${reached.whole} well formed, ${reached.sent} messages sent; slowest ${slowest.ms.toFixed(2)} ms (${slowest.story}); over ${SLOW_MS} ms: ${slow}, of them when repeated: ${slowAgain.length} ${slowAgain.slice(0, 5)}`,
  )
})
