import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect as tlsConnect } from 'node:tls'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import type { SipMessage, SipRequest, SipResponse } from '../../src/sip/message.ts'
import { parseMessage } from '../../src/sip/parse.ts'
import { makeResponse } from '../../src/sip/respond.ts'
import { serialize } from '../../src/sip/serialize.ts'
import { type Pair, Pki } from '../src/transport/stream-rig.ts'
import { missing, until } from './demo.ts'

/** One node as a process, with every transport, and phones on each: secure WebSocket as a browser does it, TLS through OpenSSL's own client, UDP. */
const root = fileURLToPath(new URL('../..', import.meta.url))
const AT = '127.0.9.1'
const PORTS = { sipPort: 5060, tlsPort: 5061, wsPort: 5080, wssPort: 5443 }
const skip = missing('openssl') ?? (process.platform === 'linux' ? false : 'needs all of 127.0.0.0/8')

/** A phone on some transport: what it heard, and a way to speak. */
class Phone {
  readonly via: string
  readonly contact: string
  readonly heard: SipMessage[] = []
  readonly user: string
  readonly #write: (bytes: Buffer) => void
  #count = 0

  constructor(user: string, via: string, contact: string, write: (bytes: Buffer) => void) {
    this.user = user
    this.via = via
    this.contact = contact
    this.#write = write
  }

  /** What has come for it; a callee that rings and answers. */
  hear(bytes: Buffer): void {
    const parsed = parseMessage(bytes)
    if (!parsed.ok) throw new Error(`${this.user} cannot read ${bytes.toString('latin1')}`)
    const message = parsed.value
    this.heard.push(message)
    if (message.kind !== 'request' || message.method === 'ACK') return
    for (const status of message.method === 'INVITE' ? [180, 200] : [200]) {
      const response = makeResponse(message, status, undefined, `tag-${this.user}`)
      for (const line of message.headers.lines('Record-Route')) response.headers.append('Record-Route', line)
      if (message.method === 'INVITE') response.headers.set('Contact', `<${this.contact}>`)
      this.#write(serialize(response))
    }
  }

  send(method: string, uri: string, callId: string, to: string, more: readonly string[] = [], fromTag = 'f'): void {
    const lines = [
      `${method} ${uri} SIP/2.0`,
      `Via: SIP/2.0/${this.via};branch=z9hG4bK${this.user}${++this.#count}`,
      'Max-Forwards: 70',
      `From: <sip:${this.user}@example.net>;tag=${fromTag}`,
      `To: ${to}`,
      `Call-ID: ${callId}`,
      `CSeq: ${method === 'ACK' ? 1 : this.#count} ${method}`,
      `Contact: <${this.contact}>`,
      ...more,
      'Content-Length: 0',
    ]
    this.#write(Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'))
  }

  answer(callId: string, method: string): Promise<SipResponse> {
    return until(`${this.user} has the answer to ${method} ${callId}`, 10_000, async () =>
      this.heard.find(
        (m): m is SipResponse => m.kind === 'response' && m.callId === callId && m.cseq.method === method && m.status >= 200,
      ),
    )
  }

  request(method: string): Promise<SipRequest> {
    return until(`${this.user} is sent ${method}`, 10_000, async () =>
      this.heard.find((m): m is SipRequest => m.kind === 'request' && m.method === method),
    )
  }

  async register(): Promise<number> {
    const callId = `register-${this.user}-${this.#count}`
    this.send('REGISTER', 'sip:example.net', callId, `<sip:${this.user}@example.net>`, ['Expires: 600'])
    return (await this.answer(callId, 'REGISTER')).status
  }

  /** Calls, and hangs up once the callee has the ACK. @returns the statuses of INVITE and BYE */
  async call(callee: Phone, callId: string): Promise<number[]> {
    this.send('INVITE', `sip:${callee.user}@example.net`, callId, `<sip:${callee.user}@example.net>`)
    const ok = await this.answer(callId, 'INVITE')
    const routes = ok.headers
      .values('Record-Route')
      .reverse()
      .map((route) => `Route: ${route}`)
    const remote = ok.headers.get('Contact')?.replace(/[<>]/g, '') ?? ''
    const to = ok.headers.get('To')!
    this.send('ACK', remote, callId, to, routes)
    await callee.request('ACK')
    this.send('BYE', remote, callId, to, routes)
    return [ok.status, (await this.answer(callId, 'BYE')).status]
  }
}

async function udpPhone(t: Test, user: string): Promise<Phone> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  const at = `127.0.0.1:${socket.address().port}`
  const phone = new Phone(user, `UDP ${at}`, `sip:${user}@${at}`, (bytes) => socket.send(bytes, PORTS.sipPort, AT))
  socket.on('message', (bytes) => phone.hear(bytes))
  return phone
}

async function browser(t: Test, user: string, url: string, ca: Pair): Promise<{ phone: Phone; ws: WebSocket }> {
  const ws = new WebSocket(url, ['sip'], {
    ca: readFileSync(ca.certificate),
    localAddress: '127.0.0.1',
    origin: 'https://phone.example.net',
  })
  t.teardown(() => ws.terminate())
  await once(ws, 'open')
  const host = `${user}.invalid`
  const via = `${url.startsWith('wss') ? 'WSS' : 'WS'} ${host}`
  const phone = new Phone(user, via, `sip:${user}@${host};transport=ws`, (bytes) => ws.send(bytes.toString('latin1')))
  ws.on('message', (data) => phone.hear(data as Buffer))
  return { phone, ws }
}

/** OpenSSL's client carries the bytes; it verifies the node's address. */
async function opensslPhone(t: Test, user: string, ca: Pair): Promise<Phone> {
  const options = ['-quiet', '-verify_return_error', '-verify_ip', AT, '-CAfile', ca.certificate]
  const client = spawn('openssl', ['s_client', '-connect', `${AT}:${PORTS.tlsPort}`, '-bind', '127.0.0.1', ...options], {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  t.teardown(() => client.kill('SIGKILL'))
  const phone = new Phone(user, 'TLS 127.0.0.1:5061', `sip:${user}@127.0.0.1;transport=tls`, (bytes) => client.stdin.write(bytes))
  let text = ''
  client.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
    for (let end = text.indexOf('\r\n\r\n'); end >= 0; end = text.indexOf('\r\n\r\n')) {
      phone.hear(Buffer.from(text.slice(0, end + 4), 'latin1'))
      text = text.slice(end + 4)
    }
  })
  await once(client, 'spawn')
  return phone
}

async function startNode(t: Test, dir: string): Promise<{ child: ChildProcess; log: () => string }> {
  const key = (byte: string): string => `{ current: a, keys: { a: { value: ${byte.repeat(32)} } } }`
  const ports = Object.entries(PORTS).map(([name, port]) => `${name}: ${port}`)
  writeFileSync(
    join(dir, 'node.yaml'),
    `region: one
cluster:
  name: alone
  electorate: [one]
  regions: [{ name: one, nodes: [{ name: one-1, address: ${AT}, ${ports.join(', ')} }] }]
  keys: { link: ${key('a1')}, token: ${key('b2')}, nonce: ${key('c3')} }
domains: [example.net]
sip:
  realm: example.net
  trusted: [127.0.0.1/32]
  tls: { certificate: current.pem, key: current.key }
  webSocket: { origins: [https://phone.example.net] }
geo: { dns: { origin: example.net, hostmaster: hostmaster.example.net } }
stateDirectory: state
`,
  )
  const child = spawn(process.execPath, ['src/main.ts', 'node', '--config', join(dir, 'node.yaml')], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  let log = ''
  for (const stream of [child.stdout!, child.stderr!])
    stream.on('data', (chunk) => {
      log += chunk
    })
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill('SIGTERM')
    await gone
  })
  let report: unknown
  child.on('message', (said) => {
    report = said
  })
  await until('the node listens', 30_000, async () => {
    if (child.exitCode !== null) throw new Error(`the node ended with ${child.exitCode}: ${log}`)
    return report !== undefined
  })
  t.match(report, { kind: 'listening' })
  return { child, log: () => log }
}

/** Common name of the certificate that a new TLS connection is shown. */
async function shown(ca: Pair): Promise<string> {
  const socket = tlsConnect({ host: AT, port: PORTS.tlsPort, ca: readFileSync(ca.certificate) })
  await once(socket, 'secureConnect')
  const { CN } = socket.getPeerCertificate().subject
  socket.destroy()
  return String(CN)
}

t.test('TLS and secure WebSocket at a real node', { skip, timeout: 90_000 }, async (t) => {
  const pki = new Pki(t)
  const dir = pki.file('')
  const ca = pki.authority('ca')
  const install = (pair: Pair): void => {
    copyFileSync(pair.certificate, join(dir, 'current.pem'))
    copyFileSync(pair.key, join(dir, 'current.key'))
  }
  install(pki.issue('first', ca, `IP:${AT}`))
  const { child, log } = await startNode(t, dir)

  const { phone: alice, ws } = await browser(t, 'alice', `wss://${AT}:${PORTS.wssPort}/`, ca)
  const { phone: dora } = await browser(t, 'dora', `ws://${AT}:${PORTS.wsPort}/`, ca)
  const bob = await udpPhone(t, 'bob')
  const carol = await opensslPhone(t, 'carol', ca)
  for (const phone of [alice, bob, carol, dora]) t.equal(await phone.register(), 200, `${phone.user} is registered`)

  t.same(await alice.call(bob, 'call-1'), [200, 200], 'a browser calls a UDP phone and hangs up')
  t.same(await bob.call(carol, 'call-2'), [200, 200], 'a UDP phone calls a TLS phone')
  t.match((await carol.request('INVITE')).topVia, { transport: 'tls', host: AT, port: PORTS.tlsPort })
  t.same(await carol.call(dora, 'call-3'), [200, 200], 'a TLS phone calls a browser without TLS')
  t.same(await dora.call(alice, 'call-4'), [200, 200], 'and that one a browser with')
  t.match((await alice.request('INVITE')).topVia, { transport: 'wss', port: PORTS.wssPort })

  t.equal(await shown(ca), 'first')
  install(pki.issue('second', ca, `IP:${AT}`))
  child.kill('SIGHUP')
  await until('the new certificate is shown', 10_000, async () => (await shown(ca)) === 'second')
  t.equal(ws.readyState, WebSocket.OPEN)
  t.same(await bob.call(alice, 'call-5'), [200, 200], 'who was connected before still is')
  writeFileSync(join(dir, 'current.pem'), 'half of a certificate')
  child.kill('SIGHUP')
  await until('the node says that it cannot', 10_000, async () => log().includes('NET_TLS_FILES'))
  t.equal(await shown(ca), 'second')
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  t.same(await gone, [0, null], 'and it stops as ever')
})
