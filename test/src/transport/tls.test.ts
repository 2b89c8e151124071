import { once } from 'node:events'
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createTcp, connect as netConnect, type Socket } from 'node:net'
import { type ConnectionOptions, connect, createServer, type TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { systemClock } from '../../../src/base/clock.ts'
import type { Flow } from '../../../src/sip/flow.ts'
import type { TlsSettings } from '../../../src/transport/certificates.ts'
import { message, type Node, type Pair, Pki, skip, startNode, until } from './stream-rig.ts'

const settings = (pair: Pair, more: Partial<TlsSettings> = {}): TlsSettings => ({
  ...pair,
  requireClientCert: false,
  minVersion: 'TLSv1.2',
  names: [],
  verify: true,
  peerNames: {},
  ...more,
})

interface Client {
  readonly socket: TLSSocket
  readonly sessions: Buffer[]
  text(): string
  /** `''` while it is up; what ended it after. */
  end(): string
}

async function dial(t: Test, n: Node, ca: Pair, options: ConnectionOptions = {}): Promise<Client> {
  const socket = connect({
    host: '127.0.0.1',
    port: n.port('tls'),
    ca: readFileSync(ca.certificate),
    ...options,
  })
  let text = ''
  let end = ''
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
  })
  const sessions: Buffer[] = []
  socket.on('session', (session) => sessions.push(session))
  socket.on('error', (error: Error & { code?: string }) => {
    end = error.code ?? error.message
  })
  socket.on('close', () => {
    end ||= 'closed'
  })
  t.teardown(() => socket.destroy())
  await new Promise((resolve) => socket.once('secureConnect', resolve).once('close', resolve))
  return { socket, sessions, text: () => text, end: () => end }
}

/** A peer that takes TLS connections, and what it heard. */
async function peer(
  t: Test,
  pair: Pair,
  address: string,
): Promise<{ port: number; heard: () => string; names: unknown[]; sockets: TLSSocket[] }> {
  let heard = ''
  const names: unknown[] = []
  const sockets: TLSSocket[] = []
  const server = createServer({ cert: readFileSync(pair.certificate), key: readFileSync(pair.key) }, (socket) => {
    names.push((socket as TLSSocket & { servername?: unknown }).servername)
    sockets.push(socket)
    socket.on('data', (chunk) => {
      heard += chunk.toString('latin1')
    })
    socket.on('error', () => {})
  })
  server.on('tlsClientError', () => {})
  server.listen(0, address)
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as { port: number }).port, heard: () => heard, names, sockets }
}

const to = (n: Node, remoteAddress: string, remotePort: number): Flow => ({
  transport: 'tls',
  localAddress: '127.0.0.1',
  localPort: n.port('tls'),
  remoteAddress,
  remotePort,
})

t.test('SIP over TLS', { skip }, async (t) => {
  const pki = new Pki(t)
  const ca = pki.authority('ca')
  const other = pki.authority('other-ca')
  const own = pki.issue('node', ca, 'IP:127.0.0.1')
  const named = pki.issue('named', ca, 'DNS:sip.example.net')
  const wild = pki.issue('wild', ca, 'DNS:*.pbx.example.net')
  const client = pki.issue('client', ca, 'DNS:client.example.net')
  const stranger = pki.issue('stranger', other, 'DNS:client.example.net')
  const asClient = (pair: Pair): ConnectionOptions => ({ cert: readFileSync(pair.certificate), key: readFileSync(pair.key) })

  t.test('messages are framed whatever the chunks, and the answer goes back on the connection', async (t) => {
    const n = await startNode(t, ['tls'], {}, { tls: settings(own) })
    const c = await dial(t, n, ca)
    const two = message('OPTIONS', 'c1') + message('MESSAGE', 'c2', 'hello')
    c.socket.write(`\r\n\r\n${two.slice(0, 200)}`)
    await until(() => c.text() === '\r\n')
    c.socket.write(two.slice(200))
    await until(() => n.messages.length === 2)
    t.equal(n.messages[1]!.message.body.toString(), 'hello')
    const { flow } = n.messages[0]!
    t.match(flow, { transport: 'tls', localPort: n.port('tls'), remoteAddress: '127.0.0.1', connectionId: Number })
    n.transports.send(flow, Buffer.from('answer'))
    await until(() => c.text() === '\r\nanswer')
    t.equal(await n.count('sent', 'tls'), 1)
    c.socket.end()
    await until(() => n.closed.length === 1)
    t.equal(n.transports.connections, 0)
    n.transports.send(flow, Buffer.from('late'), 7)
    await until(() => n.errors.length === 1)
    t.match(n.errors[0], { ref: 7, error: { code: 'NET_CONNECTION_GONE' } })
  })

  t.test('a client is shown the certificate of the name that it asks for', async (t) => {
    const names = [
      { name: 'sip.example.net', ...named },
      { name: '*.pbx.example.net', ...wild },
    ]
    const n = await startNode(t, ['tls'], {}, { tls: settings(own, { names }) })
    for (const [servername, subject] of [
      ['sip.example.net', 'named'],
      ['SIP.example.net', 'named'],
      ['a.pbx.example.net', 'wild'],
      ['elsewhere.example.net', 'node'],
    ] as const) {
      const c = await dial(t, n, ca, { servername, checkServerIdentity: () => undefined })
      t.equal(c.socket.getPeerCertificate().subject.CN, subject, servername)
    }
    const c = await dial(t, n, ca)
    t.equal(c.socket.getPeerCertificate().subject.CN, 'node', 'without a name')
  })

  t.test('nothing older than TLS 1.2, and where it is asked for nothing older than 1.3', async (t) => {
    const n = await startNode(t, ['tls'], {}, { tls: settings(own) })
    const old = await dial(t, n, ca, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' })
    t.not(old.end(), '')
    await until(() => n.transports.connections === 0)
    t.equal(await n.count('refused', 'NET_TLS_HANDSHAKE'), 1)
    const good = await dial(t, n, ca, { maxVersion: 'TLSv1.2' })
    t.equal(good.socket.getProtocol(), 'TLSv1.2')
    const strict = await startNode(t, ['tls'], {}, { tls: settings(own, { minVersion: 'TLSv1.3' }) })
    t.not((await dial(t, strict, ca, { maxVersion: 'TLSv1.2' })).end(), '')
  })

  t.test('who must show a certificate is heard with a good one only, or resumes the session in which it did', async (t) => {
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const tls = settings(own, { ca: ca.certificate, requireClientCert: true })
      const n = await startNode(t, ['tls'], {}, { tls })
      let refused = 0
      const sessions: Buffer[] = []
      const attempt = async (options: ConnectionOptions): Promise<void> => {
        const c = await dial(t, n, ca, { maxVersion: version, ...options })
        if (!c.socket.destroyed) c.socket.write(message('OPTIONS', 'stranger'))
        await until(() => c.end() !== '' && n.transports.connections === 0)
        t.equal(await n.count('refused', 'NET_TLS_CLIENT_CERT'), ++refused)
        sessions.push(...c.sessions)
      }
      await attempt({})
      await attempt(asClient(stranger))
      t.equal(n.messages.length, 0, 'a stranger was not heard')
      t.equal(sessions.length, 0, 'and has no session to come back with')
      const c = await dial(t, n, ca, { maxVersion: version, ...asClient(client) })
      c.socket.write(message('OPTIONS', 'known'))
      await until(() => n.messages.length === 1)
      t.equal(n.messages[0]!.message.callId, 'known')
      await until(() => c.sessions.length > 0)
      const again = await dial(t, n, ca, { maxVersion: version, session: c.sessions[0]! })
      t.ok(again.socket.isSessionReused())
      again.socket.write(message('OPTIONS', 'known again'))
      await until(() => n.messages.length === 2)
      // What was good under the old certificates is looked at anew.
      c.socket.destroy()
      again.socket.destroy()
      n.transports.reloadCertificates()
      await attempt({ session: c.sessions[0]! })
    }
  })

  t.test('junk, plain SIP and a client that hangs up in the handshake are counted and gone', async (t) => {
    const n = await startNode(t, ['tls'], {}, { tls: settings(own) })
    for (const [i, bytes] of [message('OPTIONS'), '\x16\x03\x01\xff\xff\0\0\0', 'GET / HTTP/1.1\r\n\r\n', ''].entries()) {
      const socket = netConnect(n.port('tls'), '127.0.0.1')
      socket.on('error', () => {})
      socket.resume()
      await once(socket, 'connect')
      await until(() => n.transports.connections === 1)
      if (i % 2 === 1) socket.end(bytes, 'latin1')
      else socket.write(bytes, 'latin1')
      await until(() => n.transports.connections === 0)
      socket.destroy()
    }
    t.equal(await n.count('refused', 'NET_TLS_HANDSHAKE'), 4)
    t.same([n.messages.length, n.faults.length], [0, 0])
  })

  t.test('a handshake that does not get on is closed, and holds its place in the bounds until then', async (t) => {
    let nowMs = 0
    const clock = { ...systemClock, monotonicMs: () => nowMs }
    const limits = { handshakeMs: 1000, firstMessageMs: 5000, idleMs: 10_000, maxConnectionsPerSource: 2 }
    const n = await startNode(t, ['tls'], limits, { tls: settings(own), clock })
    const slow = netConnect(n.port('tls'), '127.0.0.1').on('error', () => {})
    await once(slow, 'connect')
    slow.write(Buffer.from([0x16, 3, 1]))
    const mute = await dial(t, n, ca)
    await until(() => n.transports.connections === 2)
    const third = netConnect(n.port('tls'), '127.0.0.1').on('error', () => {})
    await new Promise((resolve) => third.once('close', resolve))
    t.equal(await n.count('refused', 'NET_SOURCE_FULL'), 1)
    nowMs = 1000
    await until(() => n.transports.connections === 1)
    t.equal(await n.count('refused', 'NET_HANDSHAKE_TIMEOUT'), 1)
    t.equal(await n.count('refused', 'NET_TLS_HANDSHAKE'), 0, 'counted once')
    t.equal(mute.end(), '', 'who is through has more time')
    nowMs = 5000
    await until(() => n.transports.connections === 0)
    t.equal(await n.count('refused', 'NET_NO_MESSAGE'), 1)
    slow.destroy()
  })

  t.test('a fault is answered and the connection closed; a slow peer is cut off', async (t) => {
    const n: Node = await startNode(
      t,
      ['tls'],
      { maxQueueBytes: 100_000 },
      {
        tls: settings(own),
        onFault: (_fault, flow) => n.transports.send(flow, Buffer.from('SIP/2.0 400 Bad\r\n\r\n')),
      },
    )
    const bad = await dial(t, n, ca)
    bad.socket.write(`OPTIONS sip:x SIP/2.0\r\nContent-Length: many\r\n\r\n${message('OPTIONS')}`)
    await until(() => bad.end() !== '')
    t.equal(bad.text(), 'SIP/2.0 400 Bad\r\n\r\n')
    t.equal(n.messages.length, 0)
    const big = await dial(t, n, ca)
    big.socket.write(`MESSAGE sip:x SIP/2.0\r\nContent-Length: 9999999\r\n\r\n`)
    await until(() => big.end() !== '')
    t.match(big.text(), /400/, 'oversize is a fault as well')
    const slow = await dial(t, n, ca)
    slow.socket.write(message('OPTIONS'))
    await until(() => n.messages.length === 1)
    slow.socket.pause()
    const { flow } = n.messages[0]!
    for (let i = 1; n.errors.length === 0; i++) {
      n.transports.send(flow, Buffer.alloc(50_000), i)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await until(() => n.transports.connections === 0)
    t.equal(await n.count('refused', 'NET_SLOW_PEER'), 1)
  })

  t.test('a blocked connection stands still; healed, nothing that came in is lost', async (t) => {
    const n = await startNode(t, ['tls'], {}, { tls: settings(own) })
    const c = await dial(t, n, ca)
    c.socket.write(message('OPTIONS', 'before'))
    await until(() => n.messages.length === 1)
    n.blocked.add('127.0.0.1')
    c.socket.write(message('OPTIONS', 'during'))
    n.transports.send(n.messages[0]!.flow, Buffer.from('lost'))
    const late = dial(t, n, ca)
    await until(() => n.transports.connections === 2)
    await new Promise((resolve) => setTimeout(resolve, 20))
    t.equal(n.messages.length, 1)
    n.blocked.clear()
    n.transports.refreshBlocked()
    await until(() => n.messages.length === 2)
    ;(await late).socket.write(message('OPTIONS', 'late'))
    await until(() => n.messages.length === 3)
    t.same(
      n.messages.map((m) => m.message.callId),
      ['before', 'during', 'late'],
    )
    t.equal(c.text(), '')
  })

  t.test('certificates are read again for new connections, and those that are up stay', async (t) => {
    const files = { certificate: pki.file('current.pem'), key: pki.file('current.key') }
    const install = (pair: Pair): void => {
      copyFileSync(pair.certificate, files.certificate)
      copyFileSync(pair.key, files.key)
    }
    const authorities = pki.file('current-ca.pem')
    copyFileSync(ca.certificate, authorities)
    install(own)
    const second = pki.issue('second', ca, 'IP:127.0.0.1')
    const logged: unknown[] = []
    const log = { error: (fields: unknown) => logged.push(fields), info: () => {}, warn: () => {} }
    const tls = settings(files, { ca: authorities, requireClientCert: true, names: [{ name: 'sip.example.net', ...files }] })
    const n = await startNode(t, ['tls'], {}, { tls, log: log as never })
    const subjects = async (): Promise<string[]> => {
      const found: string[] = []
      for (const options of [{}, { servername: 'sip.example.net', checkServerIdentity: () => undefined }]) {
        const c = await dial(t, n, ca, { ...asClient(client), ...options })
        found.push(c.socket.getPeerCertificate().subject.CN as string)
        c.socket.destroy()
      }
      return found
    }
    const early = await dial(t, n, ca, asClient(client))
    t.same(await subjects(), ['node', 'node'])
    install(second)
    t.same(await subjects(), ['node', 'node'], 'not before it is told to')
    n.transports.reloadCertificates()
    t.same(await subjects(), ['second', 'second'])
    t.equal(logged.length, 0)

    // A certificate without its key is what a rotation looks like half-way.
    copyFileSync(own.certificate, files.certificate)
    n.transports.reloadCertificates()
    t.same(await subjects(), ['second', 'second'], 'what does not fit together is not taken')
    t.equal(logged.length, 2)
    rmSync(files.certificate)
    writeFileSync(authorities, 'no certificate in here')
    n.transports.reloadCertificates()
    t.same(await subjects(), ['second', 'second'])
    t.match(logged.slice(2), [{ code: 'NET_TLS_FILES' }, { code: 'NET_TLS_FILES' }, { code: 'NET_TLS_FILES' }])

    install(second)
    copyFileSync(other.certificate, authorities)
    n.transports.reloadCertificates()
    const late = await dial(t, n, ca, asClient(client))
    await until(() => late.end() !== '')
    t.equal(await n.count('refused', 'NET_TLS_CLIENT_CERT'), 1, 'another authority now')
    early.socket.write(message('OPTIONS', 'early'))
    await until(() => n.messages.length === 1)
    n.transports.send(n.messages[0]!.flow, Buffer.from('still here'))
    await until(() => early.text() === 'still here')
  })

  t.test('without usable files it does not start, and says which', async (t) => {
    const missing = settings({ certificate: pki.file('none.pem'), key: own.key })
    await t.rejects(startNode(t, ['tls'], {}, { tls: missing }), { code: 'NET_TLS_FILES', message: /none\.pem: ENOENT/ })
    const mixed = settings({ certificate: own.certificate, key: named.key })
    await t.rejects(startNode(t, ['tls'], {}, { tls: mixed }), { code: 'NET_TLS_FILES', message: /node\.pem with .*named\.key/ })
  })

  t.test('connections of ours', async (t) => {
    const at = pki.issue('at-address', ca, 'IP:127.0.0.5')
    const outgoing = (more: Partial<TlsSettings> = {}) => ({ tls: settings(own, { ca: ca.certificate, ...more }) })

    t.test('one is opened on demand and shared; the peer proves its address, and is answered on it', async (t) => {
      const n = await startNode(t, ['tls'], {}, outgoing())
      const p = await peer(t, at, '127.0.0.5')
      const flow = to(n, '127.0.0.5', p.port)
      n.transports.send(flow, Buffer.from('one '))
      n.transports.send(flow, Buffer.from('two '))
      await until(() => p.heard() === 'one two ')
      n.transports.send(flow, Buffer.from('three'))
      await until(() => p.heard() === 'one two three')
      t.equal(p.sockets.length, 1)
      t.equal(p.sockets[0]!.remoteAddress, '127.0.0.1')
      p.sockets[0]!.write(message('OPTIONS', 'back'))
      await until(() => n.messages.length === 1)
      t.match(n.messages[0]!.flow, { transport: 'tls', remoteAddress: '127.0.0.5', remotePort: p.port })
    })

    t.test('two nodes that ask each other for certificates show them', async (t) => {
      const [a, b] = [
        await startNode(t, ['tls'], {}, outgoing({ requireClientCert: true })),
        await startNode(t, ['tls'], {}, outgoing({ requireClientCert: true })),
      ]
      a.transports.send(to(a, '127.0.0.1', b.port('tls')), Buffer.from(message('OPTIONS', 'from a')))
      await until(() => b.messages.length === 1)
      b.transports.send(b.messages[0]!.flow, Buffer.from(message('OPTIONS', 'from b')))
      await until(() => a.messages.length === 1)
      t.same([a.messages[0]!.message.callId, a.transports.connections, b.transports.connections], ['from b', 1, 1])
    })

    t.test('a name for an address is asked for and must be in the certificate', async (t) => {
      const n = await startNode(t, ['tls'], {}, outgoing({ peerNames: { '127.0.0.5': 'sip.example.net' } }))
      const right = await peer(t, named, '127.0.0.5')
      n.transports.send(to(n, '127.0.0.5', right.port), Buffer.from('x'))
      await until(() => right.heard() === 'x')
      t.same(right.names, ['sip.example.net'])
      const wrong = await peer(t, at, '127.0.0.5')
      n.transports.send(to(n, '127.0.0.5', wrong.port), Buffer.from('secret'), 3)
      await until(() => n.errors.length === 1)
      t.match(n.errors[0], { ref: 3, error: { code: 'NET_TLS_HANDSHAKE', message: /sip\.example\.net/ } })
      t.equal(wrong.heard(), '')
    })

    t.test('who cannot prove it hears nothing, and every message that waited is told of', async (t) => {
      const n = await startNode(t, ['tls'], {}, outgoing())
      const elsewhere = await peer(t, at, '127.0.0.6')
      const unknown = await peer(t, pki.issue('forged', other, 'IP:127.0.0.7'), '127.0.0.7')
      for (const [p, address] of [
        [elsewhere, '127.0.0.6'],
        [unknown, '127.0.0.7'],
      ] as const) {
        const before = n.errors.length
        for (const ref of [1, 2]) n.transports.send(to(n, address, p.port), Buffer.from('secret'), ref)
        await until(() => n.errors.length === before + 2)
        t.match(n.errors.slice(before), [
          { ref: 1, error: { code: 'NET_TLS_HANDSHAKE' } },
          { ref: 2, error: { code: 'NET_TLS_HANDSHAKE' } },
        ])
        t.equal(p.heard(), '', address)
      }
      t.equal(n.transports.connections, 0)
      t.equal(await n.count('sendErrors', 'tls'), 4)
      const lenient = await startNode(t, ['tls'], {}, outgoing({ verify: false }))
      lenient.transports.send(to(lenient, '127.0.0.7', unknown.port), Buffer.from('unverified'))
      await until(() => unknown.heard() === 'unverified')
    })

    t.test('a peer that speaks no TLS, or none in time, has failed', async (t) => {
      const n = await startNode(t, ['tls'], { connectMs: 500 }, outgoing())
      const sockets: Socket[] = []
      const silent = createTcp((socket) => void sockets.push(socket.on('error', () => {}).resume())).listen(0, '127.0.0.5')
      await once(silent, 'listening')
      t.teardown(() => {
        for (const socket of sockets) socket.destroy()
        silent.close()
      })
      const { port } = silent.address() as { port: number }
      n.transports.send(to(n, '127.0.0.5', port), Buffer.from('x'), 1)
      await until(() => n.errors.length === 1)
      t.match(n.errors[0], { ref: 1, error: { code: 'NET_CONNECT_TIMEOUT' } })
      n.transports.send(to(n, '127.0.0.5', port), Buffer.from('x'), 2)
      await until(() => sockets.length === 2)
      sockets[1]!.write('SIP/2.0 400 What\r\n\r\n')
      await until(() => n.errors.length === 2)
      t.match(n.errors[1], { ref: 2, error: { code: 'NET_TLS_HANDSHAKE' } })
    })

    t.test('a connection that was opened to us is not taken for the peer at its address', async (t) => {
      const n = await startNode(t, ['tls'], {}, outgoing())
      const c = await dial(t, n, ca, { localPort: 0 } as ConnectionOptions)
      c.socket.write(message('OPTIONS'))
      await until(() => n.messages.length === 1)
      const { connectionId: _, ...flow } = n.messages[0]!.flow
      n.transports.send(flow, Buffer.from('for whom?'), 9)
      await until(() => n.errors.length === 1)
      t.equal(n.errors[0]!.ref, 9, 'nobody listens at that port')
      t.equal(c.text(), '')
    })
  })
})
