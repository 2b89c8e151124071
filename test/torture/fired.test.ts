import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { loadConfig } from '../../config/load.ts'
import { Gateway } from '../../src/gateway.ts'
import type { SipMessage, SipRequest, SipResponse } from '../../src/sip/message.ts'
import { parseMessage } from '../../src/sip/parse.ts'
import { makeResponse } from '../../src/sip/respond.ts'
import { serialize } from '../../src/sip/serialize.ts'
import { ALL, torture } from './all.ts'
import type { TortureMessage } from './message.ts'

// Every torture message is fired at a running node over UDP, from a source that it trusts: the right status comes back, or nothing does where that is
// right, and the node answers an OPTIONS afterwards.

// Answers go to the port in the Via, which is 5060 more often than not: each process has addresses of its own, so that two runs do not meet.
const at = (n: number): string => `127.77.${(process.pid >> 6) & 255}.${(process.pid & 63) * 4 + n}`
const [NODE, SENDER, PHONE] = [at(0), at(1), at(2)] as const
const STRANGER = '127.0.0.1'
/** Nothing comes within this: nothing comes. Only messages that are to be met with silence are waited for that long. */
const SILENCE_MS = 300
const PATIENCE_MS = 20_000

const directory = mkdtempSync(join(tmpdir(), 'antipode-torture-'))
const file = join(directory, 'node.yaml')
const key = (byte: string): string => `{ current: a, keys: { a: { value: '${byte.repeat(32)}' } } }`
writeFileSync(
  file,
  `
region: torture
cluster:
  name: torture
  electorate: [torture]
  regions: [{ name: torture, nodes: [{ name: torture-1, address: ${NODE} }] }]
  keys: { link: ${key('01')}, token: ${key('02')}, nonce: ${key('03')} }
domains: [example.com, example.net, example.org]
sip: { realm: example.com, trusted: [${SENDER}/32, ${PHONE}/32] }
geo: { dns: { origin: example.net, hostmaster: hostmaster.example.net } }
admin: { trustLoopback: true }
stateDirectory: state
logLevel: silent
`,
)

const NOT_HERE = 'needs addresses in 127.0.0.0/8 that only Linux has by itself'

const parsed = (bytes: Buffer): SipMessage => {
  const result = parseMessage(bytes)
  if (!result.ok) throw new Error(`${result.fault.code} ${result.fault.detail}: ${bytes.toString('latin1')}`)
  return result.value
}

async function bound(address: string, port: number, receive: (bytes: Buffer, socket: Socket) => void): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.on('message', (bytes) => receive(bytes, socket))
  socket.bind(port, address)
  await once(socket, 'listening')
  return socket
}

/** What came to the sender and has not been asked for. */
let answers: SipResponse[] = []
let wake = (): void => undefined
/** What came to the phone. */
let rung: SipRequest[] = []

const receive = (bytes: Buffer): void => {
  const message = parsed(bytes)
  if (message.kind === 'response') answers.push(message)
  wake()
}

/** The phone: busy for calls, well for everything else. */
function ring(bytes: Buffer, socket: Socket): void {
  const message = parsed(bytes)
  if (message.kind === 'response') return
  if (message.method === 'ACK') return
  rung.push(message)
  socket.send(serialize(makeResponse(message, message.method === 'INVITE' ? 486 : 200, undefined, 'phone')), 5060, NODE)
}

/** The final response to what was sent with that CSeq, or undefined when it is quiet for so long. */
async function final(cseq: string | undefined, ms: number): Promise<SipResponse | undefined> {
  const deadlineMs = performance.now() + ms
  for (;;) {
    const found = answers.find((m) => m.status >= 200 && m.headers.get('CSeq') === cseq)
    const leftMs = deadlineMs - performance.now()
    if (found !== undefined || leftMs <= 0) return found
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, leftMs)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

/** As it is on the wire, but for the one address in a Route that is the phone's here. */
const onWire = (m: TortureMessage): Buffer =>
  Buffer.from(m.bytes.toString('latin1').replace('Route: <sip:127.0.0.1:5080>', `Route: <sip:${PHONE}:5060>`), 'latin1')

const lineOf = (m: TortureMessage, name: RegExp): string => name.exec(m.bytes.toString('latin1'))?.[0] ?? ''
/** By what a node tells requests apart: two that share any of it are not to meet in one node. */
const identity = (m: TortureMessage): string[] => [
  `${lineOf(m, /^[^ ]+/)} ${lineOf(m, /SIP\/2.0\/[^\n]*/)}`,
  `${lineOf(m, /^(?:Call-ID|i):.*/im)} ${lineOf(m, /^CSeq.*/im)}`,
]

/** What is looked at beyond the status. */
const extra: Record<string, ((t: TapTest, answer: SipResponse | undefined) => void) | undefined> = {
  escnull: (t, answer) => t.equal(answer!.headers.count('Contact'), 2, 'both are bound'),
  bext01: (t, answer) => t.equal(answer!.headers.get('Unsupported'), 'noProxiesSupportThis, norDoAnyProxiesSupportThis'),
  cparam01: (t, answer) =>
    t.match(answer!.headers.get('Contact'), /^<sip:\+19725552222@gw1\.example\.net>;unknownparam;expires=\d+$/),
  cparam02: (t, answer) =>
    t.match(answer!.headers.get('Contact'), /^<sip:\+19725552222@gw1\.example\.net;unknownparam>;expires=\d+$/),
  regescrt: (t, answer) =>
    t.ok(answer!.headers.values('Contact').some((c) => c.startsWith('<sip:user@example.com?Route=%3Csip:sip.example.com%3E>'))),
  dblreq: (t, answer) => t.equal(answer!.headers.get('CSeq'), '8 REGISTER'),
}

type TapTest = Pick<typeof t, 'equal' | 'match' | 'ok'>

/** `antipode_process_defects_total`: inputs that made the node throw. */
async function defectsOf(node: Gateway): Promise<number> {
  const text = await node.metricsText()
  return Number(/^antipode_process_defects_total (\d+)/m.exec(text)?.[1] ?? 0)
}

t.test('fired at a running node', { skip: process.platform === 'linux' ? false : NOT_HERE }, async (t) => {
  const sockets: Socket[] = []
  for (const port of [5060, 5050, 5070, 6050, 19823]) sockets.push(await bound(SENDER, port, receive))
  const sender = sockets[0]!
  const phone = await bound(PHONE, 5060, ring)
  sockets.push(phone)
  let node: Gateway | undefined
  let known = new Set<string>()
  let probes = 0

  const send = async (bytes: Buffer, from: Socket = sender): Promise<void> => {
    await new Promise<void>((resolve, reject) => from.send(bytes, 5060, NODE, (e) => (e ? reject(e) : resolve())))
  }
  const start = async (): Promise<void> => {
    await node?.stop()
    rmSync(join(directory, 'state'), { recursive: true, force: true })
    node = await Gateway.start(await loadConfig(file, 'torture-1'))
    known = new Set()
    // The phone that `user@example.com` is.
    const register = `REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP ${SENDER};branch=z9hG4bKr${++probes}\r\nTo: <sip:user@example.com>\r\nFrom: <sip:user@example.com>;tag=p\r\nCall-ID: phone\r\nCSeq: 1 REGISTER\r\nContact: <sip:user@${PHONE}:5060>\r\nContent-Length: 0\r\n\r\n`
    answers = []
    await send(Buffer.from(register.replace(SENDER, PHONE)), phone)
    await alive()
  }
  /** It answers for itself. Whatever was sent before has been read by then: there is one socket. */
  const alive = async (): Promise<boolean> => {
    const cseq = `${++probes} OPTIONS`
    await send(
      Buffer.from(
        `OPTIONS sip:${NODE} SIP/2.0\r\nVia: SIP/2.0/UDP ${SENDER};branch=z9hG4bKp${probes}\r\nTo: <sip:${NODE}>\r\nFrom: <sip:t@${SENDER}>;tag=p\r\nCall-ID: probe\r\nCSeq: ${cseq}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n`,
      ),
    )
    return (await final(cseq, PATIENCE_MS))?.status === 200
  }
  t.teardown(async () => {
    for (const socket of sockets) socket.close()
    await node?.stop()
    rmSync(directory, { recursive: true, force: true })
  })
  await start()

  // Registrations last: those of user@example.com would fork the calls to the phone.
  const order = [...ALL].sort((a, b) => Number(lineOf(a, /^\w+/) === 'REGISTER') - Number(lineOf(b, /^\w+/) === 'REGISTER'))
  for (const m of order) {
    await t.test(`${m.section} ${m.name}: ${m.what}: ${m.answer || 'silence'}`, async (t) => {
      const names = identity(m)
      if (names.some((name) => known.has(name))) await start()
      for (const name of names) known.add(name)
      answers = []
      rung = []
      const defects = await defectsOf(node!)
      const bytes = onWire(m)
      await send(bytes)
      const partial = parseMessage(m.bytes)
      const cseq = partial.ok ? partial.value.headers.get('CSeq') : partial.fault.partial?.headers.get('CSeq')
      const answer = await final(cseq, m.answer === 0 ? SILENCE_MS : PATIENCE_MS)
      t.equal(answer?.status ?? 0, m.answer)
      t.equal(rung.length, m.forwarded ? 1 : 0, m.forwarded ? 'the phone has it' : 'nobody else hears of it')
      if (m.forwarded) {
        const sent = parsed(bytes)
        t.ok(rung[0]!.body.equals(sent.body), 'the body byte for byte')
        t.same(rung[0]!.headers.values('Via').slice(2), sent.headers.values('Via').slice(1), 'Vias below the top as they came')
        for (const name of ['From', 'To', 'Call-ID', 'CSeq', 'Content-Type', 'Date', 'Identity', 'Accept'])
          t.equal(rung[0]!.headers.get(name), sent.headers.get(name), name)
      }
      extra[m.name]?.(t, answer)
      t.ok(await alive(), 'the node lives')
      t.equal(await defectsOf(node!), defects, 'no defect of ours')
    })
  }

  t.test('3.3.7 regaut01 from a stranger: an unknown scheme is as good as no credentials', async (t) => {
    const stranger = createSocket('udp4')
    stranger.bind(0, STRANGER)
    await once(stranger, 'listening')
    t.teardown(() => stranger.close())
    const text = torture('regaut01').bytes.toString('latin1').replace('TCP 192.0.2.253;', 'UDP 192.0.2.253;rport;')
    const heard = once(stranger, 'message')
    await send(Buffer.from(text.replace('kdjuw', 'kdjuw.2'), 'latin1'), stranger)
    const answer = parsed((await heard)[0] as Buffer)
    t.ok(answer.kind === 'response' && answer.status === 401 && answer.headers.has('WWW-Authenticate'))
  })

  t.test('on a stream each of them is answered, or waited for, or ends the connection; the node lives', async (t) => {
    await Promise.all(
      ALL.map(async (m) => {
        const socket = connect({ host: NODE, port: 5060, localAddress: SENDER })
        socket.on('error', () => undefined)
        socket.on('data', () => undefined)
        await once(socket, 'connect')
        socket.write(onWire(m))
        const closed = once(socket, 'close')
        // Half-closed: what is whole has been answered by then, what is not never will be.
        socket.end()
        await closed
      }),
    )
    t.ok(await alive())
    t.equal(await defectsOf(node!), 0)
  })
})
