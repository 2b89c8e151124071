import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { systemClock } from '../../../src/base/clock.ts'
import { silentLog } from '../../../src/base/log.ts'
import { createMetrics } from '../../../src/base/metrics.ts'
import type { Flow } from '../../../src/sip/flow.ts'
import type { SipMessage } from '../../../src/sip/message.ts'
import type { ParseFault } from '../../../src/sip/parse.ts'
import { type TransportLimits, Transports, type TransportsOptions } from '../../../src/transport/transports.ts'

const message = (method: string, callId = 'c1', body = ''): string =>
  `${method} sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKx\r\nMax-Forwards: 70\r\n` +
  `From: <sip:a@example.net>;tag=a\r\nTo: <sip:b@example.net>\r\nCall-ID: ${callId}\r\nCSeq: 1 ${method}\r\n` +
  `Content-Length: ${body.length}\r\n\r\n${body}`

/** Waits until `ready` says so; the test's own time limit is the only one. */
async function until(ready: () => boolean): Promise<void> {
  while (!ready()) await new Promise((resolve) => setTimeout(resolve, 2))
}

interface Node {
  readonly transports: Transports
  readonly metrics: ReturnType<typeof createMetrics>
  readonly messages: { message: SipMessage; flow: Flow }[]
  readonly faults: { fault: ParseFault; flow: Flow }[]
  readonly errors: { flow: Flow; bytes: Buffer; error: Error; ref: number }[]
  readonly closed: Flow[]
  readonly blocked: Set<string>
  readonly udpPort: number
  readonly tcpPort: number
}

async function node(t: Test, limits: Partial<TransportLimits> = {}, more: Partial<TransportsOptions> = {}): Promise<Node> {
  const messages: Node['messages'] = []
  const faults: Node['faults'] = []
  const errors: Node['errors'] = []
  const closed: Flow[] = []
  const blocked = new Set<string>()
  const metrics = createMetrics()
  const transports = new Transports({
    listeners: [
      { transport: 'udp', address: '127.0.0.1', port: 0 },
      { transport: 'tcp', address: '127.0.0.1', port: 0 },
    ],
    limits,
    log: silentLog,
    metrics,
    onMessage: (message, flow) => messages.push({ message, flow }),
    onFault: (fault, flow) => faults.push({ fault, flow }),
    onSendError: (flow, bytes, error, ref) => errors.push({ flow, bytes, error, ref }),
    onClosed: (flow) => closed.push(flow),
    isBlocked: (address) => blocked.has(address),
    ...more,
  })
  await transports.start()
  t.teardown(() => transports.stop())
  const udpPort = transports.localFor('udp', '127.0.0.9').port
  const tcpPort = transports.localFor('tcp', '127.0.0.9').port
  return { transports, metrics, messages, faults, errors, closed, blocked, udpPort, tcpPort }
}

async function phone(t: Test, address = '127.0.0.2'): Promise<{ socket: UdpSocket; port: number; got: string[] }> {
  const socket = createSocket('udp4')
  const got: string[] = []
  socket.on('message', (bytes) => got.push(bytes.toString('latin1')))
  socket.bind({ address, port: 0 })
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return { socket, port: socket.address().port, got }
}

async function dial(t: Test, n: Node, localAddress = '127.0.0.2'): Promise<{ socket: Socket; text: () => string }> {
  const socket = connect({ host: '127.0.0.1', port: n.tcpPort, localAddress })
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
  })
  socket.on('error', () => {})
  // One that is not taken in may be reset before it knows that it was up.
  await new Promise((resolve) => socket.once('connect', resolve).once('close', resolve))
  t.teardown(() => socket.destroy())
  return { socket, text: () => text }
}

const count = async (
  metric: { get(): Promise<{ values: { value: number; labels: Partial<Record<string, string | number>> }[] }> },
  label: string,
) => (await metric.get()).values.find((v) => Object.values(v.labels).includes(label))?.value ?? 0

t.test('UDP', async (t) => {
  t.test('a datagram becomes a message with its flow, and the answer leaves from the same socket', async (t) => {
    const n = await node(t)
    const p = await phone(t)
    p.socket.send(message('OPTIONS'), n.udpPort, '127.0.0.1')
    await until(() => n.messages.length === 1)
    const { message: got, flow } = n.messages[0]!
    t.match(got, { kind: 'request', method: 'OPTIONS' })
    t.strictSame(flow, {
      transport: 'udp',
      localAddress: '127.0.0.1',
      localPort: n.udpPort,
      remoteAddress: '127.0.0.2',
      remotePort: p.port,
    })
    const from = once(p.socket, 'message')
    n.transports.send(flow, Buffer.from('SIP/2.0 200 OK\r\n\r\n'))
    const [, remote] = (await from) as [Buffer, { address: string; port: number }]
    t.match(remote, { address: '127.0.0.1', port: n.udpPort })
    t.strictSame(p.got, ['SIP/2.0 200 OK\r\n\r\n'])
    t.equal(await count(n.metrics.sip.sent, 'udp'), 1)
  })

  t.test('garbage is handed over as a fault, keep-alives are not', async (t) => {
    const n = await node(t)
    const p = await phone(t)
    for (const bytes of ['\r\n\r\n', '\0\0\0\0', '', '\r\n', 'garbage', message('OPTIONS')])
      p.socket.send(bytes, n.udpPort, '127.0.0.1')
    await until(() => n.messages.length === 1)
    t.equal(n.faults.length, 1)
    t.match(n.faults[0], { fault: { status: 0 }, flow: { remoteAddress: '127.0.0.2' } })
  })

  t.test('a datagram that cannot be sent is counted and told with its reference, later and not from within', async (t) => {
    const n = await node(t)
    const flow: Flow = {
      transport: 'udp',
      localAddress: '127.0.0.1',
      localPort: n.udpPort,
      remoteAddress: '127.0.0.3',
      remotePort: 5060,
    }
    n.transports.send(flow, Buffer.alloc(70_000), 17)
    n.transports.send({ ...flow, remoteAddress: 'not.an.address' }, Buffer.from('x'), 18)
    n.transports.send({ ...flow, remotePort: 0 }, Buffer.from('x'), 19)
    n.transports.send({ ...flow, localAddress: '::1', remoteAddress: '::1' }, Buffer.from('x'), 20)
    t.equal(n.errors.length, 0)
    await until(() => n.errors.length === 4)
    t.strictSame(n.errors.map((e) => e.ref).sort(), [17, 18, 19, 20])
    t.match(n.errors.find((e) => e.ref === 17)?.error, { code: 'EMSGSIZE' })
    t.match(n.errors.find((e) => e.ref === 18)?.error, { code: 'NET_NOT_AN_ADDRESS' })
    t.match(n.errors.find((e) => e.ref === 20)?.error, { code: 'NET_NO_LISTENER' })
    t.equal(await count(n.metrics.sip.sendErrors, 'udp'), 4)
  })

  t.test('a blocked address is not heard and not spoken to, in silence', async (t) => {
    const n = await node(t)
    const p = await phone(t)
    const free = await phone(t, '127.0.0.3')
    n.blocked.add('127.0.0.2')
    const to = (port: number, remoteAddress: string): Flow => ({
      transport: 'udp',
      localAddress: '127.0.0.1',
      localPort: n.udpPort,
      remoteAddress,
      remotePort: port,
    })
    p.socket.send(message('OPTIONS', 'blocked'), n.udpPort, '127.0.0.1')
    n.transports.send(to(p.port, '127.0.0.2'), Buffer.from('lost'))
    n.transports.send(to(free.port, '127.0.0.3'), Buffer.from('kept'))
    free.socket.send(message('OPTIONS', 'free'), n.udpPort, '127.0.0.1')
    await until(() => n.messages.length === 1 && free.got.length === 1)
    n.blocked.clear()
    p.socket.send(message('OPTIONS', 'healed'), n.udpPort, '127.0.0.1')
    n.transports.send(to(p.port, '127.0.0.2'), Buffer.from('healed'))
    await until(() => n.messages.length === 2 && p.got.length === 1)
    t.strictSame(
      n.messages.map((m) => m.message.callId),
      ['free', 'healed'],
    )
    t.strictSame(p.got, ['healed'])
    t.equal(n.errors.length, 0)
  })
})

t.test('TCP', async (t) => {
  t.test('messages are framed whatever the chunks, and the answer goes back on the connection', async (t) => {
    const n = await node(t)
    const p = await dial(t, n)
    const two = message('OPTIONS', 'c1') + message('MESSAGE', 'c2', 'hello')
    for (const cut of [10, 200, two.length - 3]) {
      const before = n.messages.length
      p.socket.write(two.slice(0, cut))
      await new Promise((resolve) => setTimeout(resolve, 5))
      p.socket.write(two.slice(cut))
      await until(() => n.messages.length === before + 2)
    }
    t.strictSame(
      n.messages.map((m) => m.message.callId),
      ['c1', 'c2', 'c1', 'c2', 'c1', 'c2'],
    )
    t.equal(n.messages[1]!.message.body.toString(), 'hello')
    const { flow } = n.messages[0]!
    t.match(flow, {
      transport: 'tcp',
      localAddress: '127.0.0.1',
      localPort: n.tcpPort,
      remoteAddress: '127.0.0.2',
      connectionId: Number,
    })
    n.transports.send(flow, Buffer.from('answer'))
    await until(() => p.text() === 'answer')
    t.equal(await count(n.metrics.sip.sent, 'tcp'), 1)
  })

  t.test('a double CRLF is answered by one CRLF (RFC 5626)', async (t) => {
    const n = await node(t)
    const p = await dial(t, n)
    p.socket.write(`\r\n\r\n${message('OPTIONS')}`)
    await until(() => n.messages.length === 1 && p.text() !== '')
    t.equal(p.text(), '\r\n')
  })

  t.test('one connection to a remote is opened on demand and shared; its answers come in on it', async (t) => {
    const n = await node(t)
    const peers: Socket[] = []
    let heard = ''
    const server = createServer((socket) => {
      peers.push(socket)
      socket.on('data', (chunk) => {
        heard += chunk.toString('latin1')
      })
    })
    server.listen(0, '127.0.0.5')
    await once(server, 'listening')
    t.teardown(() => {
      for (const p of peers) p.destroy()
      server.close()
    })
    const { port } = server.address() as { port: number }
    const flow: Flow = {
      transport: 'tcp',
      localAddress: '127.0.0.1',
      localPort: n.tcpPort,
      remoteAddress: '127.0.0.5',
      remotePort: port,
    }
    n.transports.send(flow, Buffer.from('one '))
    n.transports.send(flow, Buffer.from('two '))
    await until(() => heard === 'one two ')
    n.transports.send(flow, Buffer.from('three'))
    await until(() => heard === 'one two three')
    t.equal(peers.length, 1)
    t.equal(peers[0]!.remoteAddress, '127.0.0.1', 'it leaves from our own address')
    peers[0]!.write(message('OPTIONS', 'back'))
    await until(() => n.messages.length === 1)
    const { connectionId } = n.messages[0]!.flow
    t.match(n.messages[0]!.flow, { remoteAddress: '127.0.0.5', remotePort: port, connectionId: Number })

    t.test('when it has closed, its number is gone for good and the next send opens another', async (t) => {
      peers[0]!.destroy()
      await until(() => n.closed.length === 1)
      t.equal(n.closed[0]?.connectionId, connectionId)
      n.transports.send({ ...flow, connectionId: connectionId! }, Buffer.from('x'), 5)
      await until(() => n.errors.length === 1)
      t.match(n.errors[0], { ref: 5, error: { code: 'NET_CONNECTION_GONE' } })
      n.transports.send(flow, Buffer.from(' four'))
      await until(() => heard.endsWith(' four'))
      t.equal(peers.length, 2)
    })
  })

  t.test('a peer that refuses is told for every message that waited for it', async (t) => {
    const n = await node(t)
    const gone = createServer()
    gone.listen(0, '127.0.0.5')
    await once(gone, 'listening')
    const { port } = gone.address() as { port: number }
    await new Promise((resolve) => gone.close(resolve))
    const flow: Flow = {
      transport: 'tcp',
      localAddress: '127.0.0.1',
      localPort: n.tcpPort,
      remoteAddress: '127.0.0.5',
      remotePort: port,
    }
    for (const ref of [1, 2, 3]) n.transports.send(flow, Buffer.from('x'), ref)
    await until(() => n.errors.length === 3)
    t.strictSame(
      n.errors.map((e) => e.ref),
      [1, 2, 3],
    )
    t.equal(n.transports.connections, 0)
    t.equal(await count(n.metrics.sip.sendErrors, 'tcp'), 3)
  })

  t.test('a stream that cannot be framed is a fault; the answer given to it arrives before the close', async (t) => {
    const n: Node = await node(
      t,
      {},
      { onFault: (_fault, flow) => n.transports.send(flow, Buffer.from('SIP/2.0 400 Bad\r\n\r\n')) },
    )
    const p = await dial(t, n)
    p.socket.write(`OPTIONS sip:x SIP/2.0\r\nContent-Length: many\r\n\r\n${message('OPTIONS')}`)
    await until(() => p.socket.destroyed)
    t.equal(p.text(), 'SIP/2.0 400 Bad\r\n\r\n')
    t.equal(n.messages.length, 0, 'what followed is not believed')
  })

  t.test('connections are bounded per source and as a whole', async (t) => {
    const n = await node(t, { maxConnections: 3, maxConnectionsPerSource: 2 })
    await dial(t, n)
    await dial(t, n)
    await until(() => n.transports.connections === 2)
    const third = await dial(t, n)
    await until(() => third.socket.destroyed)
    t.equal(await count(n.metrics.sip.refused, 'NET_SOURCE_FULL'), 1)
    await dial(t, n, '127.0.0.3')
    await until(() => n.transports.connections === 3)
    const fifth = await dial(t, n, '127.0.0.4')
    await until(() => fifth.socket.destroyed)
    t.equal(await count(n.metrics.sip.refused, 'NET_CONNECTIONS_FULL'), 1)
    n.transports.send(
      { transport: 'tcp', localAddress: '127.0.0.1', localPort: n.tcpPort, remoteAddress: '127.0.0.5', remotePort: 5060 },
      Buffer.from('x'),
    )
    await until(() => n.errors.length === 1)
    t.match(n.errors[0]?.error, { code: 'NET_CONNECTIONS_FULL' }, 'our own count as well')
  })

  t.test('a slow peer is disconnected when too much waits for it', async (t) => {
    const n = await node(t, { maxQueueBytes: 100_000 })
    const p = await dial(t, n)
    p.socket.write(message('OPTIONS'))
    await until(() => n.messages.length === 1)
    p.socket.pause()
    const { flow } = n.messages[0]!
    const chunk = Buffer.alloc(50_000)
    for (let i = 1; n.errors.length === 0; i++) {
      n.transports.send(flow, chunk, i)
      await new Promise((resolve) => setImmediate(resolve))
    }
    t.ok(n.errors.some((e) => (e.error as { code?: string }).code === 'NET_SLOW_PEER'))
    await until(() => n.transports.connections === 0)
    t.equal(await count(n.metrics.sip.refused, 'NET_SLOW_PEER'), 1)
  })

  t.test('who says nothing, or nothing more, is disconnected; dripping does not help', async (t) => {
    let nowMs = 0
    const clock = { ...systemClock, monotonicMs: () => nowMs }
    const n = await node(t, { idleMs: 1000, firstMessageMs: 100 }, { clock })
    const mute = await dial(t, n)
    const busy = await dial(t, n)
    await until(() => n.transports.connections === 2)
    mute.socket.write('OPTIONS')
    busy.socket.write(message('OPTIONS'))
    await until(() => n.messages.length === 1)
    nowMs = 500
    await until(() => mute.socket.destroyed)
    t.equal(n.transports.connections, 1)
    nowMs = 1000
    await until(() => busy.socket.destroyed)
    t.equal(await count(n.metrics.sip.refused, 'NET_NO_MESSAGE'), 1)
    t.equal(await count(n.metrics.sip.refused, 'NET_IDLE'), 1)
  })

  t.test('a blocked connection stands still; healed, nothing that came in is lost', async (t) => {
    const n = await node(t)
    const p = await dial(t, n)
    p.socket.write(message('OPTIONS', 'before'))
    await until(() => n.messages.length === 1)
    const { flow } = n.messages[0]!
    n.blocked.add('127.0.0.2')
    const half = message('OPTIONS', 'during')
    p.socket.write(half.slice(0, 50))
    n.transports.send(flow, Buffer.from('lost'))
    const late = await dial(t, n)
    late.socket.write(message('OPTIONS', 'late'))
    const free = await dial(t, n, '127.0.0.3')
    free.socket.write(message('OPTIONS', 'free'))
    await until(() => n.messages.length === 2)
    p.socket.write(half.slice(50))
    await new Promise((resolve) => setTimeout(resolve, 20))
    t.strictSame(
      n.messages.map((m) => m.message.callId),
      ['before', 'free'],
    )
    n.blocked.clear()
    n.transports.refreshBlocked()
    await until(() => n.messages.length === 4)
    t.strictSame(
      n.messages
        .slice(2)
        .map((m) => m.message.callId)
        .sort(),
      ['during', 'late'],
    )
    n.transports.send(flow, Buffer.from('healed'))
    await until(() => p.text() === 'healed')
  })
})

t.test('start and stop', async (t) => {
  t.test('a port in use is named, with its transport, and nothing stays open', async (t) => {
    for (const transport of ['udp', 'tcp'] as const) {
      const first = await node(t)
      const port = transport === 'udp' ? first.udpPort : first.tcpPort
      const other = transport === 'udp' ? 'tcp' : 'udp'
      const make = (): Transports =>
        new Transports({
          listeners: [
            { transport: other, address: '127.0.0.6', port: 0 },
            { transport, address: '127.0.0.1', port },
          ],
          log: silentLog,
          metrics: createMetrics(),
          onMessage: () => {},
          onFault: () => {},
          onSendError: () => {},
          isBlocked: () => false,
        })
      const second = make()
      await t.rejects(second.start(), {
        code: 'NET_PORT_IN_USE',
        message: `${transport} 127.0.0.1:${port} is in use by another process`,
      })
      t.strictSame(second.listeners, [])
      await first.transports.stop()
      const third = make()
      await third.start()
      t.equal(third.listeners.length, 2, 'after a stop the port is free')
      await third.stop()
    }
  })

  t.test('an address that is not ours is named as such', async (t) => {
    const transports = new Transports({
      listeners: [{ transport: 'udp', address: '192.0.2.1', port: 5060 }],
      log: silentLog,
      metrics: createMetrics(),
      onMessage: () => {},
      onFault: () => {},
      onSendError: () => {},
      isBlocked: () => false,
    })
    await t.rejects(transports.start(), { code: 'NET_ADDRESS_UNAVAILABLE', message: /udp 192\.0\.2\.1:5060/ })
  })

  t.test('stop closes the connections that are open', async (t) => {
    const n = await node(t)
    const p = await dial(t, n)
    await until(() => n.transports.connections === 1)
    await n.transports.stop()
    await until(() => p.socket.destroyed)
    t.throws(() => n.transports.localFor('udp', '127.0.0.9'), { code: 'NET_NO_LISTENER' })
  })

  t.test('IPv6 loopback', async (t) => {
    const n = await node(
      t,
      {},
      {
        listeners: [
          { transport: 'udp', address: '::1', port: 0 },
          { transport: 'tcp', address: '127.0.0.1', port: 0 },
          { transport: 'udp', address: '127.0.0.1', port: 0 },
        ],
      },
    )
    const local = n.transports.localFor('udp', '::1')
    t.equal(local.address, '::1')
    const socket = createSocket('udp6')
    socket.bind({ address: '::1', port: 0 })
    await once(socket, 'listening')
    t.teardown(() => socket.close())
    socket.send(message('OPTIONS'), local.port, '::1')
    await until(() => n.messages.length === 1)
    const { flow } = n.messages[0]!
    t.equal(flow.remoteAddress, '::1')
    n.transports.send(flow, Buffer.from('hi'))
    const [bytes] = (await once(socket, 'message')) as [Buffer]
    t.equal(bytes.toString(), 'hi')
  })
})
