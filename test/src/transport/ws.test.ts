import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as netConnect, type Socket } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import t, { type Test } from 'tap'
import { type ClientOptions, WebSocket } from 'ws'
import { systemClock } from '../../../src/base/clock.ts'
import type { TlsSettings } from '../../../src/transport/certificates.ts'
import { message, type Node, type Pair, Pki, skip, startNode, until } from './stream-rig.ts'

interface Client {
  readonly ws: WebSocket
  readonly got: { text: string; binary: boolean }[]
  /** Close code once it is closed; the HTTP status where it was never open. */
  readonly end: number[]
}

async function dial(t: Test, n: Node, options: ClientOptions = {}, protocols = ['sip'], secure = false): Promise<Client> {
  const url = secure ? `wss://127.0.0.1:${n.port('wss')}/` : `ws://127.0.0.1:${n.port('ws')}/`
  const ws = new WebSocket(url, protocols, options)
  const client: Client = { ws, got: [], end: [] }
  ws.on('message', (data, binary) => client.got.push({ text: (data as Buffer).toString('latin1'), binary }))
  ws.on('unexpected-response', (_request, response) => {
    client.end.push(response.statusCode!)
    ws.terminate()
  })
  ws.on('error', () => {})
  ws.on('close', (code) => client.end.push(code))
  t.teardown(() => ws.terminate())
  await new Promise((resolve) => ws.once('open', resolve).once('close', resolve))
  return client
}

const UPGRADE =
  'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\n\r\n'

async function raw(
  t: Test,
  n: Node,
  bytes: string | Buffer,
): Promise<{ socket: Socket; text: () => string; closed: () => boolean }> {
  const socket = netConnect(n.port('ws'), '127.0.0.1').on('error', () => {})
  let text = ''
  let closed = false
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
  })
  socket.on('close', () => {
    closed = true
  })
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  socket.write(bytes)
  return { socket, text: () => text, closed: () => closed }
}

t.test('SIP over WebSocket', async (t) => {
  t.test('a message in each WebSocket message, text or binary; the answer goes back on the connection', async (t) => {
    const n = await startNode(t, ['ws'])
    const c = await dial(t, n)
    t.equal(c.ws.protocol, 'sip')
    t.equal(c.ws.extensions, '', 'no compression')
    c.ws.send(message('OPTIONS', 'text', '', 'WS'))
    c.ws.send(Buffer.from(message('MESSAGE', 'binary', 'h\xe9llo', 'WS'), 'latin1'))
    c.ws.send(message('MESSAGE', 'no-length', 'body', 'WS').replace(/Content-Length.*\r\n/, ''))
    await until(() => n.messages.length === 3)
    t.same(
      n.messages.map((m) => [m.message.callId, m.message.body.toString('latin1')]),
      [
        ['text', ''],
        ['binary', 'h\xe9llo'],
        ['no-length', 'body'],
      ],
    )
    const { flow } = n.messages[0]!
    t.match(flow, { transport: 'ws', localPort: n.port('ws'), remoteAddress: '127.0.0.1', connectionId: Number })
    n.transports.send(flow, Buffer.from('SIP/2.0 200 OK\r\n\r\n'))
    n.transports.send(flow, Buffer.from([0xff, 0xfe]))
    await until(() => c.got.length === 2)
    t.same(c.got, [
      { text: 'SIP/2.0 200 OK\r\n\r\n', binary: false },
      { text: '\xff\xfe', binary: true },
    ])
    t.equal(await n.count('sent', 'ws'), 2)
    c.ws.close()
    await until(() => n.closed.length === 1)
    n.transports.send(flow, Buffer.from('late'), 4)
    const { connectionId: _, ...anew } = flow
    n.transports.send(anew, Buffer.from('late'), 5)
    await until(() => n.errors.length === 2)
    t.match(n.errors, [
      { ref: 4, error: { code: 'NET_CONNECTION_GONE' } },
      { ref: 5, error: { code: 'NET_CONNECTION_GONE' } },
    ])
  })

  t.test('keep-alives: CRLFs and pings are answered', async (t) => {
    const n = await startNode(t, ['ws'])
    const c = await dial(t, n)
    c.ws.send('\r\n\r\n')
    await until(() => c.got.length === 1)
    t.same(c.got, [{ text: '\r\n', binary: false }])
    c.ws.send('\r\n')
    c.ws.send('')
    const pong = once(c.ws, 'pong')
    c.ws.ping('x')
    await pong
    t.same([n.messages.length, n.faults.length, c.got.length], [0, 0, 1])
  })

  t.test('who does not offer the subprotocol sip, or comes from another origin, is refused', async (t) => {
    const n = await startNode(t, ['ws'], {}, { webSocket: { origins: ['https://phone.example.net'] } })
    t.equal((await dial(t, n, {}, [])).end[0], 400)
    t.equal((await dial(t, n, {}, ['chat', 'xmpp'])).end[0], 400)
    t.equal((await dial(t, n, { origin: 'https://evil.example' })).end[0], 403)
    t.equal((await dial(t, n, { origin: 'https://phone.example.net.evil.example' })).end[0], 403)
    await until(() => n.transports.connections === 0)
    t.equal(await n.count('refused', 'NET_WS_HANDSHAKE'), 4)
    const good = await dial(t, n, { origin: 'https://Phone.example.net' }, ['chat', 'sip'])
    t.equal(good.ws.protocol, 'sip')
    t.equal((await dial(t, n)).ws.readyState, WebSocket.OPEN, 'a client that is no browser names no origin')
  })

  t.test('what is no upgrade is refused, counted and closed', async (t) => {
    const n = await startNode(t, ['ws'])
    const asked = await raw(t, n, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    await until(() => asked.closed())
    t.match(asked.text(), /^HTTP\/1\.1 426 /)
    for (const junk of [
      message('OPTIONS'),
      '\0\x01\x02',
      UPGRADE.replace('13', '7'),
      `GET /${'x'.repeat(20_000)} HTTP/1.1\r\n\r\n`,
    ]) {
      const c = await raw(t, n, junk)
      await until(() => c.closed())
      t.notMatch(c.text(), /101 Switching/)
    }
    await until(() => n.transports.connections === 0)
    t.equal(await n.count('refused', 'NET_WS_HANDSHAKE'), 5)
    t.equal(n.messages.length + n.faults.length, 0)
  })

  t.test('a message that does not parse is a fault, and the connection stays', async (t) => {
    const n = await startNode(t, ['ws'])
    const c = await dial(t, n)
    c.ws.send('garbage')
    c.ws.send(message('OPTIONS', 'short').replace('Content-Length: 0', 'Content-Length: 10'))
    c.ws.send(message('OPTIONS', 'after'))
    await until(() => n.messages.length === 1)
    t.match(n.faults, [{ fault: { status: 0 } }, { fault: { status: 400 }, flow: { transport: 'ws' } }])
  })

  t.test('oversize, text that is none and frames that make no sense end the connection', async (t) => {
    const n = await startNode(t, ['ws'])
    const big = await dial(t, n)
    big.ws.send(Buffer.alloc(65_536))
    await until(() => big.end.length > 0)
    const frames = [
      [0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], // not UTF-8
      [0xc1, 0x80, 0, 0, 0, 0], // RSV1: compressed, which was not agreed on
      [0x81, 0x02, 0x41, 0x42], // not masked
      [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], // 2^63 bytes to come
    ]
    for (const frame of frames) {
      const c = await raw(t, n, Buffer.concat([Buffer.from(UPGRADE), Buffer.from(frame)]))
      await until(() => c.closed())
      t.match(c.text(), /101 Switching/)
    }
    // Fragments that never end.
    const many = await raw(t, n, UPGRADE)
    await until(() => many.text() !== '')
    const part = Buffer.concat([Buffer.from([0, 0xfe, 0x40, 0, 0, 0, 0, 0]), Buffer.alloc(0x4000)])
    many.socket.write(Buffer.from([1, 0x80, 0, 0, 0, 0]))
    for (let i = 0; i < 5; i++) many.socket.write(part)
    await until(() => many.closed())
    await until(() => n.transports.connections === 0)
    t.equal(await n.count('refused', 'NET_WS_PROTOCOL'), 6)
    t.same([n.messages.length, n.faults.length], [0, 0])
  })

  t.test('the bounds of streams hold: per source, first message, idle; pongs keep who has spoken', async (t) => {
    let nowMs = 0
    const clock = { ...systemClock, monotonicMs: () => nowMs }
    const limits = { handshakeMs: 500, firstMessageMs: 1000, idleMs: 5000, pingMs: 2000, maxConnectionsPerSource: 4 }
    const n = await startNode(t, ['ws'], limits, { clock })
    const slow = await raw(t, n, UPGRADE.slice(0, 40))
    const mute = await dial(t, n)
    const alive = await dial(t, n)
    const deaf = await dial(t, n, { autoPong: false })
    const fifth = await dial(t, n)
    t.equal(fifth.ws.readyState, WebSocket.CLOSED)
    t.equal(await n.count('refused', 'NET_SOURCE_FULL'), 1)
    alive.ws.send(message('OPTIONS'))
    deaf.ws.send('\r\n\r\n')
    await until(() => n.messages.length === 1 && deaf.got.length === 1)
    nowMs = 500
    await until(() => slow.closed())
    t.equal(await n.count('refused', 'NET_HANDSHAKE_TIMEOUT'), 1)
    const pinged = once(alive.ws, 'ping')
    const pinged2 = once(deaf.ws, 'ping')
    nowMs = 2000
    await until(() => mute.end.length > 0)
    t.equal(await n.count('refused', 'NET_NO_MESSAGE'), 1)
    await pinged
    await pinged2
    await new Promise((resolve) => setTimeout(resolve, 50))
    nowMs = 4000
    await until(() => deaf.end.length > 0)
    t.equal(alive.ws.readyState, WebSocket.OPEN, 'its pong counts')
    // Its answer to the second ping is there before the clock leaps.
    alive.ws.send('\r\n\r\n')
    await until(() => alive.got.length === 1)
    nowMs = 20_000
    await until(() => alive.end.length > 0)
    t.equal(await n.count('refused', 'NET_IDLE'), 1)
    t.equal(await n.count('refused', 'NET_NO_PONG'), 1)
  })

  t.test('a slow peer is cut off', async (t) => {
    const n = await startNode(t, ['ws'], { maxQueueBytes: 100_000 })
    const c = await dial(t, n)
    c.ws.send(message('OPTIONS'))
    await until(() => n.messages.length === 1)
    c.ws.pause()
    for (let i = 1; n.errors.length === 0; i++) {
      n.transports.send(n.messages[0]!.flow, Buffer.alloc(50_000, 32), i)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await until(() => n.transports.connections === 0)
    t.equal(await n.count('refused', 'NET_SLOW_PEER'), 1)
    t.ok(n.errors.some((e) => e.error.code === 'NET_SLOW_PEER'))
  })

  t.test('a blocked connection stands still; healed, nothing that came in is lost', async (t) => {
    const n = await startNode(t, ['ws'])
    const c = await dial(t, n)
    c.ws.send(message('OPTIONS', 'before'))
    await until(() => n.messages.length === 1)
    n.blocked.add('127.0.0.1')
    for (const id of ['one', 'two', 'three']) c.ws.send(message('OPTIONS', id))
    const late = dial(t, n)
    await until(() => n.transports.connections === 2)
    await new Promise((resolve) => setTimeout(resolve, 20))
    t.equal(n.messages.length, 1)
    n.blocked.clear()
    n.transports.refreshBlocked()
    ;(await late).ws.send(message('OPTIONS', 'late'))
    await until(() => n.messages.length === 5)
    t.same(
      n.messages.map((m) => m.message.callId).filter((id) => id !== 'late'),
      ['before', 'one', 'two', 'three'],
    )
  })
})

t.test('SIP over secure WebSocket', { skip }, async (t) => {
  const pki = new Pki(t)
  const ca = pki.authority('ca')
  const own = pki.issue('node', ca, 'IP:127.0.0.1')
  const trust = { ca: readFileSync(ca.certificate) }
  const settings = (pair: Pair, more: Partial<TlsSettings> = {}): TlsSettings => ({
    ...pair,
    requireClientCert: false,
    minVersion: 'TLSv1.2',
    names: [],
    verify: true,
    peerNames: {},
    ...more,
  })

  t.test('it is the same inside TLS, and named for what it is', async (t) => {
    const n = await startNode(t, ['ws', 'wss', 'tls'], {}, { tls: settings(own) })
    const c = await dial(t, n, trust, ['sip'], true)
    c.ws.send(message('OPTIONS', 'secure', '', 'WSS'))
    await until(() => n.messages.length === 1)
    t.match(n.messages[0]!.flow, { transport: 'wss', localPort: n.port('wss') })
    n.transports.send(n.messages[0]!.flow, Buffer.from('answer'))
    await until(() => c.got[0]?.text === 'answer')
    t.equal(await n.count('sent', 'wss'), 1)
    n.transports.reloadCertificates()
    c.ws.send('\r\n\r\n')
    await until(() => c.got.length === 2)
  })

  t.test('who does not get through TLS, or through the upgrade behind it, is told apart', async (t) => {
    const n = await startNode(t, ['wss'], {}, { tls: settings(own, { ca: ca.certificate, requireClientCert: true }) })
    const plain = netConnect(n.port('wss'), '127.0.0.1').on('error', () => {})
    plain.end(UPGRADE)
    await until(() => n.closed.length === 1)
    t.equal(await n.count('refused', 'NET_TLS_HANDSHAKE'), 1)
    const nameless = await dial(t, n, trust, ['sip'], true)
    await until(() => nameless.end.length > 0 && n.closed.length === 2)
    t.equal(await n.count('refused', 'NET_TLS_CLIENT_CERT'), 1)
    const client = pki.issue('client', ca, 'DNS:client.example.net')
    const shown = { ...trust, cert: readFileSync(client.certificate), key: readFileSync(client.key) }
    const sip = tlsConnect({ host: '127.0.0.1', port: n.port('wss'), ...shown }).on('error', () => {})
    await once(sip, 'secureConnect')
    sip.end(message('OPTIONS'))
    await until(() => n.closed.length === 3)
    t.equal(await n.count('refused', 'NET_WS_HANDSHAKE'), 1)
    const good = await dial(t, n, shown, ['sip'], true)
    t.equal(good.ws.readyState, WebSocket.OPEN)
    plain.destroy()
    sip.destroy()
  })

  t.test('without a certificate it does not start', async (t) => {
    await t.rejects(startNode(t, ['wss']), { code: 'NET_TLS_FILES', message: 'a wss listener without a certificate' })
  })
})
