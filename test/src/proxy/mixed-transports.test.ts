import t from 'tap'
import type { SipMessage, SipRequest, SipResponse } from '../../../src/sip/message.ts'
import { parseNameAddr, parseUri } from '../../../src/sip/uri.ts'
import { CALLER, caller, inDialog, invite, NODES, normal, phone, register, statuses } from './agents.ts'
import { World } from './world.ts'

const BOB = '127.0.0.1:6070'

/** What an agent that follows its first Route would speak, by that Route's transport parameter. */
function firstHop(message: SipMessage, reverse: boolean): string {
  const recorded = message.headers.values('Record-Route')
  const value = parseNameAddr((reverse ? recorded.at(-1) : recorded[0])!)
  const uri = value.ok ? parseUri(value.value.uri) : undefined
  return uri?.ok ? (uri.value.params.get('transport') ?? 'udp') : ''
}

for (const [from, to] of [
  ['tcp', 'udp'],
  ['udp', 'tcp'],
  ['tcp', 'tcp'],
] as const) {
  for (const ingress of ['us-east-1', 'eu-west-1']) {
    t.test(`a ${from} phone calls a ${to} phone through ${ingress === 'us-east-1' ? 'one node' : 'two nodes'}`, async (t) => {
      const world = new World(NODES)
      if (to === 'tcp') world.connect(BOB, 'us-east-1')
      if (from === 'tcp') world.connect(CALLER, ingress)
      register(world, 'us-east-1', 'bob', BOB, '', to.toUpperCase())
      const got = phone(world, BOB, normal)
      const answers = caller(world)
      world.send(CALLER, ingress, invite('bob', { transport: from.toUpperCase() }))
      t.same(statuses(answers), [100, 180, 200])
      const ok = answers.at(-1) as SipResponse
      // RFC 5658: each side finds a Route on top that it can speak.
      t.equal(firstHop(ok, true), from, 'the caller')
      t.equal(firstHop(got[0]!, false), to, 'the callee')
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
