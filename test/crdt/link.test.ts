import { randomBytes } from 'node:crypto'
import { connect, createServer, type Server, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import type { ClusterConstants } from '../../crdt/entry.ts'
import { LIMITS } from '../../crdt/frames.ts'
import { constantsOf, encodeHello, type Hello, LINK_VERSION, MESSAGE_MAX_BYTES } from '../../crdt/hello.ts'
import { ClusterLink, type PeerAddress, type PeerInfo } from '../../crdt/link.ts'
import { systemClock } from '../../src/base/clock.ts'
import type { KeyRing } from '../../src/base/keys.ts'
import { silentLog } from '../../src/base/log.ts'
import { createMetrics, type Metrics } from '../../src/base/metrics.ts'
import { SystemRandom } from '../../src/base/prng.ts'
import { CONSTANTS, INCARNATION, REGIONS } from './replica-kit.ts'

const KEY = randomBytes(32)
const ring = (...ids: string[]): KeyRing => ({ current: ids[0]!, keys: new Map(ids.map((id) => [id, KEY])) })
/** Loopback addresses of this test's nodes: 127.7.r.n. */
const ADDRESS: Readonly<Record<string, string>> = {
  'us-east-1': '127.7.1.1',
  'us-east-2': '127.7.1.2',
  'eu-west-1': '127.7.2.1',
  'eu-west-2': '127.7.2.2',
  'ap-south-1': '127.7.3.1',
}

/** A free port, the same for all addresses of one test. */
const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.7.1.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

interface Node {
  readonly name: string
  readonly link: ClusterLink
  readonly metrics: Metrics
  readonly blocked: Set<string>
  readonly events: string[]
  readonly messages: { node: string; channel: number; text: string }[]
}

class Net {
  readonly nodes: Node[] = []
  readonly #port: number
  readonly #members: readonly string[]

  constructor(port: number, members: readonly string[]) {
    this.#port = port
    this.#members = members
  }

  static async make(t: Test, ...members: string[]): Promise<Net> {
    const net = new Net(await freePort(), members)
    t.teardown(() => Promise.all(net.nodes.map((n) => n.link.stop())))
    return net
  }

  peers(): PeerAddress[] {
    return this.#members.map((node) => ({ region: REGIONS[node]!, node, address: ADDRESS[node]!, port: this.#port }))
  }

  url(node: string): string {
    return `ws://${ADDRESS[node]}:${this.#port}/cluster`
  }

  async start(
    name: string,
    o: { ring?: KeyRing; cluster?: string; constants?: ClusterConstants; incarnation?: number; peers?: PeerAddress[] } = {},
  ): Promise<Node> {
    const metrics = createMetrics()
    const blocked = new Set<string>()
    const events: string[] = []
    const messages: Node['messages'] = []
    const link = new ClusterLink({
      self: { region: REGIONS[name]!, node: name, incarnation: o.incarnation ?? INCARNATION },
      cluster: o.cluster ?? 'test',
      listen: { address: ADDRESS[name]!, port: this.#port },
      peers: o.peers ?? this.peers(),
      ring: o.ring ?? ring('k1'),
      constants: o.constants ?? CONSTANTS,
      clock: systemClock,
      random: new SystemRandom(),
      log: silentLog,
      metrics,
      isBlocked: (address) => blocked.has(address),
    })
    link.on('up', (p) => events.push(`up ${p.node}`))
    link.on('down', (p) => events.push(`down ${p.node}`))
    link.on('message', (node, channel, payload) => messages.push({ node, channel, text: payload.toString('latin1') }))
    const node = { name, link, metrics, blocked, events, messages }
    this.nodes.push(node)
    await link.start()
    return node
  }
}

/** Waits for what must come true; how long it takes is not judged beyond the suite's patience. */
async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 800; i++) {
    if (await condition()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error(`did not come true: ${what}`)
}

const linked = (n: Node): string[] =>
  n.link
    .peers()
    .map((p) => p.node)
    .sort()
const info = (n: Node, peer: string): PeerInfo => n.link.peers().find((p) => p.node === peer)!

async function refused(n: Node, code: string): Promise<number> {
  const { values } = await n.metrics.link.refused.get()
  return values.find((v) => v.labels.code === code)?.value ?? 0
}

t.test('siblings get one link, whoever dials, and carry messages of every channel both ways', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'us-east-2')
  const [a, b] = await Promise.all([net.start('us-east-1'), net.start('us-east-2')])
  await until('both up', () => linked(a).length === 1 && linked(b).length === 1)
  for (const channel of [1, 2, 3, 4]) {
    t.ok(a.link.send('us-east-2', channel, Buffer.from(`to b on ${channel}`)))
    t.ok(b.link.send('us-east-1', channel, Buffer.from(`to a on ${channel}`)))
  }
  await until('all arrived', () => a.messages.length === 4 && b.messages.length === 4)
  t.same(a.messages[0], { node: 'us-east-2', channel: 1, text: 'to a on 1' })
  t.same(
    b.messages.map((m) => m.channel),
    [1, 2, 3, 4],
    'in order',
  )
  await until('a heartbeat has been answered', () => info(a, 'us-east-2').rttMs >= 0)
  t.equal(info(a, 'us-east-2').outbound, !info(b, 'us-east-1').outbound, 'one of the two dialed')
  t.same([a.events, b.events], [['up us-east-2'], ['up us-east-1']], 'and it never flapped')
  t.match(info(a, 'us-east-2'), { region: 'us-east', node: 'us-east-2', incarnation: INCARNATION, queueBytes: 0 })
  t.equal(a.link.send('eu-west-1', 1, Buffer.alloc(1)), false, 'no link, no promise')
})

t.test('a message of the largest size arrives, and one byte more is our own mistake', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'us-east-2')
  const [a, b] = await Promise.all([net.start('us-east-1'), net.start('us-east-2')])
  await until('up', () => linked(a).length === 1 && linked(b).length === 1)
  t.ok(a.link.send('us-east-2', 1, Buffer.alloc(LIMITS.messageBytes, 7)))
  await until('arrived', () => b.messages.length === 1)
  t.equal(b.messages[0]!.text.length, LIMITS.messageBytes)
  t.throws(() => a.link.send('us-east-2', 1, Buffer.alloc(LIMITS.messageBytes + 1)), { code: 'INVARIANT' })
  t.throws(() => a.link.send('us-east-2', 0, Buffer.alloc(1)), { code: 'INVARIANT' }, 'channel 0 is the link itself')
})

t.test('full mesh inside the region, one link per node to each other region', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'us-east-2', 'eu-west-1', 'eu-west-2', 'ap-south-1')
  const nodes = await Promise.all(['us-east-1', 'us-east-2', 'eu-west-1', 'eu-west-2', 'ap-south-1'].map((n) => net.start(n)))
  const outbound = (n: Node): string[] =>
    n.link.peers().flatMap((p) => (p.outbound && p.region !== REGIONS[n.name] ? [p.region] : []))
  await until('everyone has a way to each other region', () => nodes.every((n) => outbound(n).length === 2))
  for (const n of nodes) {
    t.same(outbound(n).sort(), [...new Set(Object.values(REGIONS))].filter((r) => r !== REGIONS[n.name]).sort(), n.name)
    const siblings = Object.keys(REGIONS).filter((m) => m !== n.name && REGIONS[m] === REGIONS[n.name])
    await until('siblings', () => siblings.every((s) => linked(n).includes(s)))
  }
})

t.test('the way to a region moves when its node dies', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'eu-west-1', 'eu-west-2')
  const nodes = await Promise.all(['us-east-1', 'eu-west-1', 'eu-west-2'].map((n) => net.start(n)))
  const us = nodes[0]!
  // A link to the other may be there too: every node of eu-west dials us-east-1.
  const way = (): string | undefined => us.link.peers().find((p) => p.outbound)?.node
  await until('a way', () => way() !== undefined && nodes.every((n) => linked(n).length === 2))
  const first = way()!
  await nodes.find((n) => n.name === first)!.link.stop()
  await until('another way', () => way() !== undefined && way() !== first)
  t.not(way(), first)
})

t.test('wrong keys, clusters, constants and strangers are refused by name, and counted', async (t) => {
  const cases: [string, string, Parameters<Net['start']>[1]][] = [
    ['another key of the same id', 'CRDT_HELLO_PROOF', { ring: { current: 'k1', keys: new Map([['k1', randomBytes(32)]]) } }],
    ['no key in common', 'CRDT_HELLO_KEY', { ring: ring('k2') }],
    ['another cluster', 'CRDT_HELLO_CLUSTER', { cluster: 'other' }],
    ['another constant', 'CRDT_HELLO_CONSTANT', { constants: { ...CONSTANTS, windowMs: 1 } }],
  ]
  for (const [what, code, options] of cases) {
    const net = await Net.make(t, 'us-east-1', 'us-east-2')
    const [a, b] = await Promise.all([net.start('us-east-1'), net.start('us-east-2', options)])
    await until(what, async () => (await refused(a, code)) + (await refused(b, code)) >= 1)
    t.same([linked(a), linked(b)], [[], []], `${what}: no link`)
    t.same([a.events, b.events], [[], []])
  }
  const net = await Net.make(t, 'us-east-1', 'us-east-2', 'eu-west-1')
  const a = await net.start('us-east-1', { peers: net.peers().filter((p) => p.node !== 'eu-west-1') })
  await net.start('eu-west-1')
  await until('a node that is not configured', async () => (await refused(a, 'CRDT_HELLO_NODE')) >= 1)
  t.same(linked(a), [])
})

t.test('keys overlap in rotation: an older key is accepted while it is listed', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'us-east-2')
  const other = randomBytes(32)
  const rotated: KeyRing = {
    current: 'k2',
    keys: new Map([
      ['k2', other],
      ['k1', KEY],
    ]),
  }
  const [a, b] = await Promise.all([net.start('us-east-1', { ring: ring('k1') }), net.start('us-east-2', { ring: rotated })])
  await until('up', () => linked(a).length === 1 && linked(b).length === 1)
  t.pass('linked by k1')
})

t.test('garbage, text, oversized and early messages on the port cost one connection each, and the node goes on', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'us-east-2')
  const [a, b] = await Promise.all([net.start('us-east-1'), net.start('us-east-2')])
  await until('up', () => linked(a).length === 1 && linked(b).length === 1)
  const send = (data: Buffer | string, protocol = 'antipode.link.1'): Promise<number> =>
    new Promise((resolve) => {
      const socket = new WebSocket(net.url('us-east-1'), [protocol])
      socket.on('open', () => socket.send(data))
      socket.on('error', () => undefined)
      socket.on('close', resolve)
    })
  t.equal(await send('hello'), 4003)
  t.equal(await send(randomBytes(100)), 4001)
  t.equal(await send(Buffer.alloc(MESSAGE_MAX_BYTES + 1)), 1009)
  const hello: Hello = {
    ...{ version: LINK_VERSION, features: 0, role: 'dialer', cluster: 'test', region: 'us-east', node: 'us-east-2' },
    ...{ incarnation: 1, to: 'us-east-1', nonce: randomBytes(32), constants: constantsOf(CONSTANTS), keyIds: ['k1'] },
  }
  t.equal(await send(encodeHello({ ...hello, version: 2 })), 4001)
  t.equal(await send(encodeHello({ ...hello, to: 'us-east-2' })), 4001)
  t.equal(await send(encodeHello({ ...hello, node: 'us-east-1' })), 4001, 'ourselves')
  const unproved = await new Promise<number>((resolve) => {
    const socket = new WebSocket(net.url('us-east-1'), ['antipode.link.1'])
    socket.on('open', () => socket.send(encodeHello(hello)))
    socket.on('message', () => socket.send(randomBytes(32)))
    socket.on('close', resolve)
  })
  t.equal(unproved, 4001, 'a hello without the key')
  for (const [code, count] of [
    ['CRDT_LINK_TEXT', 1],
    ['CRDT_HELLO_MALFORMED', 1],
    ['CRDT_LINK_SIZE', 1],
    ['CRDT_HELLO_VERSION', 1],
    ['CRDT_HELLO_TO', 1],
    ['CRDT_HELLO_NODE', 1],
    ['CRDT_HELLO_PROOF', 1],
  ] as const)
    t.equal(await refused(a, code), count, code)
  t.same([linked(a), linked(b)], [['us-east-2'], ['us-east-1']], 'the honest link has stayed')
  t.same([a.events, b.events], [['up us-east-2'], ['up us-east-1']])
})

t.test('a blocked address is cut at once on both sides, and comes back when it is freed', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'eu-west-1')
  const [us, eu] = await Promise.all([net.start('us-east-1'), net.start('eu-west-1')])
  await until('up', () => linked(us).length === 1 && linked(eu).length === 1)
  us.blocked.add(ADDRESS['eu-west-1']!)
  us.link.refreshBlocked()
  t.same(linked(us), [])
  await until('the other side knows', () => linked(eu).length === 0)
  await new Promise((resolve) => setTimeout(resolve, 700))
  t.same([linked(us), linked(eu)], [[], []], 'neither dial nor accept while it is blocked')
  us.blocked.clear()
  await until('up again', () => linked(us).length === 1 && linked(eu).length === 1)
  t.same(us.events.slice(0, 2), ['up eu-west-1', 'down eu-west-1'])
  t.equal(us.events.at(-1), 'up eu-west-1')
})

t.test('a restarted peer replaces its old link; a violation drops the link and it is dialed again', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'us-east-2')
  const [a, b] = await Promise.all([net.start('us-east-1'), net.start('us-east-2')])
  await until('up', () => linked(a).length === 1 && linked(b).length === 1)
  await b.link.stop()
  await until('down', () => linked(a).length === 0)
  const again = await net.start('us-east-2', { incarnation: INCARNATION + 2 ** 32 })
  await until('up', () => linked(a).length === 1 && linked(again).length === 1)
  t.equal(info(a, 'us-east-2').incarnation, INCARNATION + 2 ** 32)
  a.link.dropPeer('us-east-2', 'CRDT_HASH')
  t.same(linked(a), [])
  await until('up again', () => linked(a).length === 1 && linked(again).length === 1)
  t.equal(a.events.filter((e) => e === 'down us-east-2').length, 2)
})

/** A wire to a node that can be frozen: TCP stays up, nothing arrives, nobody is told. */
class Wire {
  #frozen = false
  readonly #sockets = new Set<Socket>()
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  static async make(address: string, port: number, to: string): Promise<Wire> {
    const wire = new Wire(createServer({ pauseOnConnect: true }))
    wire.#server.on('connection', (socket) => {
      const onward = connect(port, to)
      for (const [from, into] of [
        [socket, onward],
        [onward, socket],
      ] as const) {
        wire.#sockets.add(from)
        from.on('error', () => into.destroy())
        from.on('close', () => into.destroy())
        from.on('data', (data) => into.write(data))
        if (wire.#frozen) from.pause()
        else from.resume()
      }
    })
    await new Promise<void>((resolve) => wire.#server.listen(port, address, resolve))
    return wire
  }

  freeze(frozen: boolean): void {
    this.#frozen = frozen
    for (const s of this.#sockets) {
      if (frozen) s.pause()
      else s.resume()
    }
  }

  close(): void {
    this.#server.close()
    for (const s of this.#sockets) s.destroy()
  }
}

t.test('a peer that falls silent is down at both ends, and up again when it is heard', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'eu-west-1')
  // Each reaches the other by a wire of its own.
  const peers = net.peers().map((p) => ({ ...p, address: p.address.replace('127.7.', '127.8.') }))
  const wires = await Promise.all(peers.map((p) => Wire.make(p.address, p.port, ADDRESS[p.node]!)))
  t.teardown(() => {
    for (const w of wires) w.close()
  })
  const [us, eu] = await Promise.all([net.start('us-east-1', { peers }), net.start('eu-west-1', { peers })])
  await until('up', () => linked(us).length === 1 && linked(eu).length === 1)
  for (const w of wires) w.freeze(true)
  await until('down', () => linked(us).length === 0 && linked(eu).length === 0)
  for (const w of wires) w.freeze(false)
  await until('up again', () => linked(us).length === 1 && linked(eu).length === 1)
  us.link.send('eu-west-1', 1, Buffer.from('after'))
  await until('it carries', () => eu.messages.some((m) => m.text === 'after'))
  t.same(us.events.slice(0, 2), ['up eu-west-1', 'down eu-west-1'])
})

t.test('a slow peer loses messages, not our memory', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'us-east-2')
  const [a, b] = await Promise.all([net.start('us-east-1'), net.start('us-east-2')])
  await until('up', () => linked(a).length === 1 && linked(b).length === 1)
  const payload = Buffer.alloc(LIMITS.messageBytes)
  let taken = 0
  // Nothing is read while this loop runs: both ends live in this process.
  while (a.link.send('us-east-2', 3, payload) && taken < 100) taken++
  t.ok(taken >= 6 && taken < 20, `${taken} messages of 1 MiB were queued`)
  const { values } = await a.metrics.link.dropped.get()
  t.match(values, [{ labels: { channel: '3' }, value: 1 }])
  await until('what was queued arrives', () => b.messages.length === taken)
})

t.test('a port in use is named', async (t) => {
  const net = await Net.make(t, 'us-east-1')
  await net.start('us-east-1')
  await t.rejects(net.start('us-east-1'), { code: 'NET_PORT_IN_USE', message: /127\.7\.1\.1:\d+ is in use/ })
})

t.test('a connection that says nothing keeps no place', async (t) => {
  const net = await Net.make(t, 'us-east-1', 'us-east-2')
  await net.start('us-east-1')
  const { hostname, port } = new URL(net.url('us-east-1'))
  const socket = connect(Number(port), hostname)
  socket.on('error', () => undefined)
  let closed = false
  socket.on('close', () => {
    closed = true
  })
  socket.resume()
  await until('closed by the listener', () => closed)
})
