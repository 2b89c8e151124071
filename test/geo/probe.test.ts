import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { HttpProbe } from '../../geo/probe.ts'

async function serve(
  t: Test,
  handler: (req: IncomingMessage, res: ServerResponse) => void,
): Promise<{ server: Server; port: number }> {
  const server = createServer(handler)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { server, port: (server.address() as AddressInfo).port }
}

function probeOf(t: Test, o: { timeoutMs?: number; isBlocked?: (address: string) => boolean } = {}): HttpProbe {
  const probe = new HttpProbe({
    timeoutMs: o.timeoutMs ?? 2000,
    ...(o.isBlocked === undefined ? {} : { isBlocked: o.isBlocked }),
  })
  t.teardown(() => probe.close())
  return probe
}

t.test('200 is well, and the connection is kept', async (t) => {
  const ports = new Set<number | undefined>()
  const { port } = await serve(t, (req, res) => {
    ports.add(req.socket.remotePort)
    t.equal(req.url, '/healthz')
    res.end('ok\n')
  })
  const probe = probeOf(t)
  for (let i = 0; i < 5; i++) {
    const result = await probe.probe('127.0.0.1', port)
    t.ok(result.ok)
    t.ok(result.rttMs > 0)
  }
  t.equal(ports.size, 1, 'one connection')
})

t.test('any other status is not well', async (t) => {
  const { port } = await serve(t, (_, res) => res.writeHead(503).end('journal'))
  t.match(await probeOf(t).probe('127.0.0.1', port), { ok: false, why: 'status', detail: 'status 503' })
})

t.test('nobody listens', async (t) => {
  const { server, port } = await serve(t, (_, res) => res.end())
  await new Promise((resolve) => server.close(resolve))
  t.match(await probeOf(t).probe('127.0.0.1', port), { ok: false, why: 'error' })
})

t.test('a server that never answers is given up, and the next probe starts afresh', async (t) => {
  let silent = true
  const { port } = await serve(t, (_, res) => {
    if (!silent) res.end('ok')
  })
  const probe = probeOf(t, { timeoutMs: 60 })
  t.match(await probe.probe('127.0.0.1', port), { ok: false, why: 'timeout' })
  silent = false
  const second = probeOf(t)
  t.match(await second.probe('127.0.0.1', port), { ok: true })
  silent = true
  t.match(await probe.probe('127.0.0.1', port), { ok: false, why: 'timeout' }, 'again')
})

t.test('a body that never ends is given up too', async (t) => {
  const { port } = await serve(t, (_, res) => {
    res.writeHead(200)
    res.write('a')
  })
  t.match(await probeOf(t, { timeoutMs: 60 }).probe('127.0.0.1', port), { ok: false, why: 'timeout' })
})

t.test('a listener that speaks no HTTP', async (t) => {
  const sockets = new Set<Socket>()
  const server = createTcpServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.end('SSH-2.0-OpenSSH\r\n')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  t.match(await probeOf(t).probe('127.0.0.1', (server.address() as AddressInfo).port), { ok: false, why: 'error' })
})

t.test('what a drill blocks is not asked, also when the block falls while the answer is under way', async (t) => {
  let asked = 0
  let blocked = true
  const { port } = await serve(t, (_, res) => {
    asked++
    blocked = true
    res.end('ok')
  })
  const probe = probeOf(t, { isBlocked: (address) => blocked && address === '127.0.0.1' })
  t.match(await probe.probe('127.0.0.1', port), { ok: false, why: 'blocked' })
  t.equal(asked, 0)
  blocked = false
  t.match(await probe.probe('127.0.0.1', port), { ok: false, why: 'blocked' })
  t.equal(asked, 1)
})

t.test('a closed probe answers instead of rejecting', async (t) => {
  const { port } = await serve(t, (_, res) => res.end('ok'))
  const probe = probeOf(t)
  await probe.close()
  t.match(await probe.probe('127.0.0.1', port), { ok: false, why: 'error' })
})
