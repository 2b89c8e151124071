import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { type AdminOptions, AdminServer, isLoopback } from '../../../src/admin/api.ts'
import { AdminClient } from '../../../src/admin/client.ts'
import { silentLog } from '../../../src/base/log.ts'
import { createMetrics } from '../../../src/base/metrics.ts'
import { FakeTarget, part } from './fake-target.ts'

const TOKEN = 'a-token-of-some-length'

async function serve(t: Test, o: Partial<AdminOptions> = {}) {
  const target = new FakeTarget('east', 'east-1')
  const metrics = createMetrics()
  const server = new AdminServer(target, {
    listen: { address: '127.0.0.1', port: 0 },
    trustLoopback: true,
    log: silentLog,
    metrics,
    ...o,
  })
  await server.start()
  t.teardown(() => server.stop())
  const ask = (path: string, more: { method?: string; headers?: Record<string, string>; body?: string } = {}) =>
    new Promise<{ status: number; text: string; headers: IncomingHttpHeaders }>((resolve, reject) => {
      const { body, ...rest } = more
      const outgoing = httpRequest({ host: '127.0.0.1', port: server.port, path, agent: false, ...rest }, (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text, headers: response.headers }))
        response.on('error', reject)
      })
      outgoing.on('error', reject)
      outgoing.end(body)
    })
  return { target, metrics, server, ask }
}

const codeOf = (text: string): string => (JSON.parse(text) as { error: { code: string } }).error.code

t.test('health and readiness say yes with 200 and no with 503', async (t) => {
  const { target, ask } = await serve(t)
  t.equal((await ask('/healthz')).status, 200)
  target.isHealthy = { ok: false, reasons: ['the journal failed'] }
  const answer = await ask('/healthz')
  t.equal(answer.status, 503)
  t.same(JSON.parse(answer.text), { ok: false, reasons: ['the journal failed'] })
  t.equal((await ask('/readyz')).status, 200)
  t.equal((await ask('/healthz', { method: 'HEAD' })).text, '')
})

t.test('without a token loopback gets yes or no for probes, and nothing else', async (t) => {
  const { target, ask } = await serve(t, { trustLoopback: false, token: TOKEN })
  target.isHealthy = { ok: false, reasons: ['the journal failed'] }
  const answer = await ask('/healthz')
  t.same([answer.status, JSON.parse(answer.text)], [503, { ok: false }], 'reasons are for those who may ask')
  for (const path of ['/metrics', '/v1/status', '/v1/registrations/sip:a@b', '/v1/dialogs', '/v1/cdrs']) {
    const refused = await ask(path)
    t.equal(refused.status, 401, path)
    t.equal(refused.headers['www-authenticate'], 'Bearer realm="antipode"')
    t.equal(codeOf(refused.text), 'ADMIN_UNAUTHORIZED')
  }
  const block = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"addresses":["127.0.0.2"]}' }
  t.equal((await ask('/v1/drill/block', block)).status, 401)
  t.same(target.blocked, [])
  for (const authorization of [`Bearer ${TOKEN}x`, 'Bearer ', `Basic ${TOKEN}`, TOKEN]) {
    t.equal((await ask('/v1/status', { headers: { authorization } })).status, 401, 'wrong tokens')
  }
})

t.test('the token opens what it protects', async (t) => {
  const { ask, target } = await serve(t, { trustLoopback: false, token: TOKEN })
  const headers = { authorization: `Bearer ${TOKEN}` }
  t.equal((await ask('/v1/status', { headers })).status, 200)
  target.isHealthy = { ok: false, reasons: ['x'] }
  t.same(JSON.parse((await ask('/healthz', { headers })).text), { ok: false, reasons: ['x'] })
})

t.test('where no token is configured none is right', async (t) => {
  const { ask } = await serve(t, { trustLoopback: false })
  t.equal((await ask('/v1/status', { headers: { authorization: 'Bearer undefined' } })).status, 401)
  t.equal((await ask('/v1/status', { headers: { authorization: 'Bearer ' } })).status, 401)
})

t.test('loopback is not trusted when it speaks for someone else', async (t) => {
  const { ask } = await serve(t)
  t.equal((await ask('/v1/status')).status, 200)
  t.equal((await ask('/v1/status', { headers: { 'x-forwarded-for': '203.0.113.9' } })).status, 401, 'a proxy')
  t.equal(
    (await ask('/v1/status', { headers: { host: 'evil.example:8060' } })).status,
    401,
    'a name that was rebound to loopback',
  )
  t.equal((await ask('/v1/status', { headers: { host: 'localhost:8060' } })).status, 200)
  t.equal((await ask('/v1/status', { headers: { host: '[::1]:8060' } })).status, 200)
})

t.test('registrations, dialogs, CDRs, status and metrics come as the target has them', async (t) => {
  const { target, ask } = await serve(t)
  t.match(JSON.parse((await ask('/v1/status')).text), { node: 'east-1', state: { digest: 'd1d2d3d4d5d6d7d8' } })
  t.same(JSON.parse((await ask('/v1/registrations/sip%3Au1%40example.net')).text), {
    aor: 'sip:u1@example.net',
    bindings: [],
    explain: {},
  })
  t.same(JSON.parse((await ask('/v1/dialogs?limit=3')).text), { dialogs: [] })
  t.equal(target.lastLimit, 3)
  await ask('/v1/dialogs?limit=999999999')
  t.equal(target.lastLimit, 10_000, 'bounded, whatever is asked')
  const metrics = await ask('/metrics')
  t.match(metrics.text, /^# HELP antipode_x/)
  t.match(metrics.headers['content-type'], /^text\/plain; version=0\.0\.4/)
  target.parts = [part({ part: 'attempt', atMs: 1000 }), part({ part: 'start', atMs: 2000 }), part({ part: 'end', atMs: 5000 })]
  const { cdrs } = JSON.parse((await ask('/v1/cdrs')).text) as { cdrs: unknown[] }
  t.match(cdrs, [
    { callId: 'call-1@phone', startMs: 1000, answerMs: 2000, endMs: 5000, durationMs: 3000, status: 200, state: 'complete' },
  ])
  t.same(JSON.parse((await ask('/v1/cdrs?parts=1&scope=cluster')).text), { parts: target.parts })
  t.equal(target.lastScope, 'cluster')
})

t.test('what is asked wrongly is refused with a code, and counted', async (t) => {
  const { ask, metrics } = await serve(t)
  const post = (body: string, type = 'application/json') =>
    ask('/v1/drill/block', { method: 'POST', headers: { 'content-type': type }, body })
  const cases: [string, Promise<{ status: number; text: string }>, number, string][] = [
    ['unknown path', ask('/v2/x'), 404, 'ADMIN_NOT_FOUND'],
    ['wrong method', ask('/v1/status', { method: 'DELETE' }), 405, 'ADMIN_METHOD'],
    ['bad AoR', ask('/v1/registrations/nonsense'), 400, 'SIP_URI'],
    ['bad percent-encoding', ask('/v1/registrations/%ff'), 400, 'ADMIN_BAD_REQUEST'],
    ['bad limit', ask('/v1/dialogs?limit=-1'), 400, 'ADMIN_BAD_REQUEST'],
    ['bad scope', ask('/v1/cdrs?scope=world'), 400, 'ADMIN_BAD_REQUEST'],
    ['not JSON', post('{'), 400, 'ADMIN_BAD_REQUEST'],
    ['another shape', post('{"addresses":[1]}'), 400, 'ADMIN_BAD_REQUEST'],
    ['a name', post('{"addresses":["east-1"]}'), 400, 'ADMIN_BAD_REQUEST'],
    ['a network', post('{"addresses":["192.0.2.0/24"]}'), 400, 'ADMIN_BAD_REQUEST'],
    ['null', post('null'), 400, 'ADMIN_BAD_REQUEST'],
    ['a form of a page', post('{"addresses":[]}', 'text/plain'), 415, 'ADMIN_BAD_REQUEST'],
    ['too large', post(JSON.stringify({ addresses: 'x'.repeat(70_000) })), 413, 'ADMIN_TOO_LARGE'],
  ]
  for (const [name, asked, status, code] of cases) {
    const answer = await asked
    t.same([answer.status, codeOf(answer.text)], [status, code], name)
  }
  t.match(await metrics.registry.metrics(), /antipode_admin_requests_total\{class="4xx"\} 13/)
})

t.test('what a target throws that is not meant for the asker is a 500 without details', async (t) => {
  const { target, ask } = await serve(t)
  target.status = () => {
    throw new Error('the secret is 42')
  }
  const answer = await ask('/v1/status')
  t.equal(answer.status, 500)
  t.notMatch(answer.text, /42/)
})

t.test('a drill replaces what was blocked', async (t) => {
  const { target, server } = await serve(t)
  const client = new AdminClient({ address: '127.0.0.1', port: server.port })
  t.teardown(() => client.close())
  await client.setBlocked(['127.0.0.2', '2001:db8::1'])
  t.same(target.blocked, ['127.0.0.2', '2001:db8::1'])
  await client.setBlocked([])
  t.same(target.blocked, [])
})

t.test('loopback is 127.0.0.0/8 and ::1, also as IPv6 writes the former', async (t) => {
  for (const yes of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) t.ok(isLoopback(yes), yes)
  for (const no of ['192.0.2.1', '::ffff:192.0.2.1', '::2', '', 'localhost']) t.notOk(isLoopback(no), no)
})

t.test('a port that is in use is named', async (t) => {
  const { server } = await serve(t)
  const second = new AdminServer(new FakeTarget('east', 'east-2'), {
    listen: { address: '127.0.0.1', port: server.port },
    trustLoopback: true,
    log: silentLog,
    metrics: createMetrics(),
  })
  await t.rejects(second.start(), {
    code: 'NET_PORT_IN_USE',
    message: new RegExp(`admin HTTP on 127\\.0\\.0\\.1:${server.port}`),
  })
})

t.test('a blocked address gets no answer, on a new connection or an old one', async (t) => {
  let blocked = false
  const { server } = await serve(t, { isBlocked: () => blocked })
  const client = new AdminClient({ address: '127.0.0.1', port: server.port })
  t.teardown(() => client.close())
  t.equal((await client.status()).node, 'east-1')
  blocked = true
  await t.rejects(client.status(), { code: 'ADMIN_UNREACHABLE' })
  await t.rejects(client.status(), { code: 'ADMIN_UNREACHABLE' })
  blocked = false
  t.equal((await client.status()).node, 'east-1')
})

t.test('garbage and half requests get 400 or are cut off, and the server goes on', async (t) => {
  const { server, ask } = await serve(t, { limits: { requestTimeoutMs: 300 } })
  const send = (bytes: string) =>
    new Promise<string>((resolve) => {
      let text = ''
      const socket = connect(server.port, '127.0.0.1', () => socket.write(bytes))
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1')
      })
      socket.on('error', () => resolve(text))
      socket.on('close', () => resolve(text))
    })
  t.match(await send('\x16\x03\x01\x02garbage\r\n\r\n'), /^HTTP\/1\.1 400/)
  t.match(await send(`GET /healthz HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`), /^HTTP\/1\.1 4/)
  t.match(
    await send(
      'POST /v1/drill/block HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
    ),
    /^(HTTP\/1\.1 4|$)/,
  )
  t.equal((await ask('/healthz')).status, 200)
})

t.test('connections past the limit are refused', async (t) => {
  const { server } = await serve(t, { limits: { maxConnections: 1 } })
  const first = connect(server.port, '127.0.0.1')
  t.teardown(() => first.destroy())
  await new Promise((resolve) => first.once('connect', resolve))
  const second = connect(server.port, '127.0.0.1')
  await new Promise<void>((resolve) => {
    second.on('error', () => undefined)
    second.on('close', () => resolve())
  })
  t.pass('the second connection was closed')
})

t.test('a client says who does not answer, and why', async (t) => {
  const { server } = await serve(t)
  const { port } = server
  await server.stop()
  const client = new AdminClient({ address: '127.0.0.1', port })
  t.teardown(() => client.close())
  await t.rejects(client.status(), { code: 'ADMIN_UNREACHABLE', message: `http://127.0.0.1:${port}: connection refused` })
})
