import t from 'tap'
import { OwnRoutes } from '../../../src/proxy/record-route.ts'
import { literalAddress } from '../../../src/proxy/target-set.ts'
import type { SipMessage, SipRequest, SipResponse } from '../../../src/sip/message.ts'
import { parseNameAddr, parseUri, parseVia } from '../../../src/sip/uri.ts'
import { CALLER, caller, inDialog, invite, NODES, normal, phone, register, statuses } from './agents.ts'
import { World } from './world.ts'

const BOB = '127.0.0.1:6070'

/** As a URI names it: RFC 7118 has one word for both WebSockets. */
const inUri = (transport: string): string => (transport === 'wss' ? 'ws' : transport)
const PORT: Readonly<Record<string, number>> = { udp: 5060, tcp: 5060, tls: 5061, ws: 5080, wss: 5443 }

/** What an agent that follows its first Route would speak, and to which port, by that Route. */
function firstHop(message: SipMessage, reverse: boolean): string {
  const recorded = message.headers.values('Record-Route')
  const value = parseNameAddr((reverse ? recorded.at(-1) : recorded[0])!)
  const uri = value.ok ? parseUri(value.value.uri) : undefined
  return uri?.ok ? `${uri.value.params.get('transport') ?? 'udp'} ${uri.value.port}` : ''
}

for (const [from, to] of [
  ['tcp', 'udp'],
  ['udp', 'tcp'],
  ['tcp', 'tcp'],
  ['ws', 'udp'],
  ['udp', 'tls'],
  ['tls', 'wss'],
  ['wss', 'ws'],
  ['wss', 'wss'],
] as const) {
  for (const ingress of ['us-east-1', 'eu-west-1']) {
    t.test(`a ${from} phone calls a ${to} phone through ${ingress === 'us-east-1' ? 'one node' : 'two nodes'}`, async (t) => {
      const world = new World(NODES)
      if (to !== 'udp') world.connect(BOB, 'us-east-1', to)
      if (from !== 'udp') world.connect(CALLER, ingress, from)
      register(world, 'us-east-1', 'bob', BOB, '', to.toUpperCase())
      const got = phone(world, BOB, normal)
      const answers = caller(world)
      world.send(CALLER, ingress, invite('bob', { transport: from.toUpperCase() }))
      t.same(statuses(answers), [100, 180, 200])
      const ok = answers.at(-1) as SipResponse
      // RFC 5658: each side finds a Route on top that it can speak.
      t.equal(firstHop(ok, true), `${inUri(from)} ${PORT[from]}`, 'the caller')
      t.equal(firstHop(got[0]!, false), `${inUri(to)} ${PORT[to]}`, 'the callee')
      t.equal(got[0]!.topVia.transport, to)
      t.equal(got[0]!.topVia.port, PORT[to])
      world.send(CALLER, ingress, inDialog('ACK', ok, { cseq: 1, transport: from.toUpperCase() }))
      world.send(CALLER, ingress, inDialog('INVITE', ok, { cseq: 2, transport: from.toUpperCase() }))
      world.send(CALLER, ingress, inDialog('BYE', ok, { cseq: 3, transport: from.toUpperCase() }))
      t.same(
        got.map((r) => r.method),
        ['INVITE', 'ACK', 'INVITE', 'BYE'],
      )
      t.notOk(
        got.slice(1).some((r) => r.headers.has('Route')),
        'no Route of ours is left',
      )
      t.equal(statuses(answers).at(-1), 200)
      t.same(
        world.nodes.get(ingress)!.journal.map((p) => p.part),
        ['attempt', 'start', 'end'],
      )
    })
  }
}

t.test('the callee’s connection is gone: 480 to a new call, and the BYE of the old one ends it, at either node', async (t) => {
  for (const ingress of ['us-east-1', 'eu-west-1']) {
    const world = new World(NODES)
    world.connect(BOB, 'us-east-1')
    register(world, 'us-east-1', 'bob', BOB, '', 'TCP')
    phone(world, BOB, normal)
    const answers = caller(world)
    world.send(CALLER, ingress, invite('bob'))
    const ok = answers.at(-1) as SipResponse
    world.disconnect(BOB, 'us-east-1')
    world.send(CALLER, ingress, invite('bob', { branch: 'z9hG4bKsecond', callId: 'call-2' }))
    t.equal(statuses(answers).at(-1), 480, 'RFC 5626 §5.3: the flow failed, which is not our error')
    t.match(world.nodes.get(ingress)!.journal.at(-1), { part: 'end', status: 480, reason: 'unreachable', hungUpBy: 'system' })
    world.send(CALLER, ingress, inDialog('BYE', ok))
    t.match(world.nodes.get(ingress)!.journal.at(-1), { part: 'end', callId: 'call-1', reason: 'bye' }, ingress)
  }
})

t.test('a callee that hangs up over TCP reaches a caller on UDP', async (t) => {
  const world = new World(NODES)
  world.connect(BOB, 'us-east-1')
  register(world, 'us-east-1', 'bob', BOB, '', 'TCP')
  const got = phone(world, BOB, normal)
  const answers = caller(world)
  world.send(CALLER, 'eu-west-1', invite('bob'))
  const ok = answers.at(-1) as SipResponse
  const callerGot: SipRequest[] = phone(world, CALLER, normal)
  const routes = got[0]!.headers
    .values('Record-Route')
    .map((r) => `Route: ${r}\n`)
    .join('')
  world.send(
    BOB,
    'us-east-1',
    `BYE sip:alice@${CALLER} SIP/2.0
Via: SIP/2.0/TCP ${BOB};branch=z9hG4bKbye
Max-Forwards: 70
${routes}From: ${ok.headers.get('To')}
To: ${ok.headers.get('From')}
Call-ID: call-1
CSeq: 1 BYE
Content-Length: 0

`,
  )
  t.equal(callerGot.at(-1)?.method, 'BYE')
  t.match(world.nodes.get('us-east-1')!.journal.at(-1), { part: 'end', hungUpBy: 'callee' })
})

t.test('a browser, whose host is nowhere (RFC 7118 §5), calls, is called, and hangs up on its connection', async (t) => {
  const HOST = 'df7jal23ls0d.invalid'
  for (const edge of ['us-east-1', 'eu-west-1']) {
    const world = new World(NODES)
    world.connect(CALLER, edge, 'wss')
    world.agent(CALLER, () => {})
    world.send(CALLER, edge, registration(HOST))
    register(world, 'us-east-1', 'bob', BOB)
    const bob = phone(world, BOB, normal)
    const answers = caller(world)
    const own = { via: HOST, transport: 'WSS' }
    world.send(CALLER, edge, invite('bob', { ...own, contact: `${HOST};transport=ws` }))
    t.same(statuses(answers), [100, 180, 200])
    const ok = answers.at(-1) as SipResponse
    t.equal(ok.topVia.params.get('received'), '127.0.0.1')
    world.send(CALLER, edge, inDialog('ACK', ok, { ...own, cseq: 1 }))
    world.send(CALLER, edge, inDialog('BYE', ok, { ...own, cseq: 3 }))
    t.same(
      bob.map((r) => r.method),
      ['INVITE', 'ACK', 'BYE'],
    )
    t.equal(statuses(answers).at(-1), 200)

    const alice = phone(world, CALLER, normal)
    const atBob: SipMessage[] = []
    world.agent(BOB, (message) => atBob.push(message))
    world.send(BOB, 'us-east-2', invite('alice', { via: BOB, contact: BOB, callId: 'call-2', branch: 'z9hG4bKback' }))
    t.same(statuses(atBob), [100, 180, 200])
    t.equal(alice[0]?.uri, `sip:alice@${HOST};transport=ws`)
    t.equal(alice[0]?.topVia.transport, 'wss')
    world.send(BOB, 'us-east-2', inDialog('BYE', atBob.at(-1) as SipResponse, { via: BOB, callId: 'call-2' }))
    t.equal(alice.at(-1)?.method, 'BYE')

    // Another connection of the same browser is another flow.
    world.disconnect(CALLER, edge)
    world.connect(CALLER, edge, 'wss')
    world.send(BOB, 'us-east-2', invite('alice', { via: BOB, contact: BOB, callId: 'call-3', branch: 'z9hG4bKgone' }))
    world.advance(10_000)
    t.equal(statuses(atBob).at(-1), 480)
    t.equal(alice.filter((r) => r.method === 'INVITE').length, 1)
  }
})

const registration = (host: string): string => `REGISTER sip:example.net SIP/2.0
Via: SIP/2.0/WSS ${host};branch=z9hG4bKregistration
Max-Forwards: 70
From: <sip:alice@example.net>;tag=r
To: <sip:alice@example.net>
Call-ID: registration
CSeq: 1 REGISTER
Contact: <sip:alice@${host};transport=ws>
Expires: 3600
Content-Length: 0

`

t.test('where a URI with an address leads', async (t) => {
  for (const [uri, expected] of [
    ['sip:192.0.2.1', 'udp 192.0.2.1 5060'],
    ['sip:192.0.2.1;transport=TLS', 'tls 192.0.2.1 5061'],
    ['sip:192.0.2.1:5090;transport=tls', 'tls 192.0.2.1 5090'],
    ['sips:[2001:db8::1]', 'tls 2001:db8::1 5061'],
    ['sips:192.0.2.1;transport=tcp', 'tls 192.0.2.1 5061'],
    ['sips:carrier.example;maddr=192.0.2.1', 'tls 192.0.2.1 5061'],
    ['sips:192.0.2.1;transport=udp', ''],
    ['sip:192.0.2.1;transport=ws', ''],
    ['sips:192.0.2.1;transport=ws', ''],
    ['sip:carrier.example;transport=tls', ''],
    ['tel:+123', ''],
  ] as const) {
    const to = literalAddress(uri)
    t.equal(to === undefined ? '' : `${to.transport} ${to.address} ${to.port}`, expected, uri)
  }
})

t.test('our Record-Routes name port and transport of the listener, and are known again', async (t) => {
  const nodes = [
    { name: 'n1', address: '192.0.2.1', sipPort: 5060, tlsPort: 5061, wssPort: 443 },
    { name: 'n2', address: '2001:db8::2', sipPort: 5070, wsPort: 80 },
  ]
  const byAddress = new OwnRoutes(nodes, 'n1', 'example.net', 'address')
  t.same(byAddress.values('T', 'wss', 'tls'), [
    '<sip:192.0.2.1:5061;transport=tls;lr;tk=T>',
    '<sip:192.0.2.1:443;transport=ws;lr>',
  ])
  const byName = new OwnRoutes(nodes, 'n1', 'example.net', 'name')
  t.same(byName.values('T', 'tcp', 'tls'), [
    '<sip:n1.example.net:5061;transport=tls;lr;tk=T>',
    '<sip:n1.example.net;transport=tcp;lr>',
  ])
  const known = (uri: string): boolean => {
    const parsed = parseUri(uri)
    return parsed.ok && byAddress.has(parsed.value)
  }
  for (const uri of [
    'sip:192.0.2.1:443;transport=ws',
    'sip:192.0.2.1;transport=tls',
    'sips:192.0.2.1',
    'sip:192.0.2.1',
    'sip:[2001:db8::2]:80;transport=ws',
    'sip:n1.example.net:5061',
  ])
    t.ok(known(uri), uri)
  for (const uri of ['sip:192.0.2.1:80', 'sips:[2001:db8::2]', 'sip:[2001:db8::2]:443']) t.notOk(known(uri), uri)
  for (const [via, ours] of [
    ['SIP/2.0/TLS 192.0.2.1;branch=z9hG4bKx', true],
    ['SIP/2.0/WSS 192.0.2.1;branch=z9hG4bKx', true],
    ['SIP/2.0/WS 192.0.2.1;branch=z9hG4bKx', false],
    ['SIP/2.0/TLS [2001:db8::2];branch=z9hG4bKx', false],
  ] as const) {
    const parsed = parseVia(via)
    t.equal(parsed.ok && byAddress.wrote(parsed.value), ours, via)
  }
})
