import t from 'tap'
import { SystemRandom } from '../../../src/base/prng.ts'
import { mergeParts } from '../../../src/cdr/merge.ts'
import { digestResponse } from '../../../src/sip/digest.ts'
import type { SipMessage, SipRequest, SipResponse } from '../../../src/sip/message.ts'
import { makeResponse } from '../../../src/sip/respond.ts'
import { serialize } from '../../../src/sip/serialize.ts'
import { CALLER, caller, inDialog, invite, NODES, normal, phone, register, statuses } from './agents.ts'
import { World } from './world.ts'

const BOB = '127.0.0.1:6070'
const random = new SystemRandom()

/** Sends a request, answers the challenge, and sends it again. */
function sendAuthenticated(world: World, from: string, node: string, text: string, user: string, password: string): SipMessage[] {
  const got: SipMessage[] = []
  world.agent(from, (message) => got.push(message))
  world.send(from, node, text)
  const challenge = got.at(-1) as SipResponse
  const [method, uri] = text.split(' ') as [string, string]
  const header = challenge.status === 401 ? 'WWW-Authenticate' : 'Proxy-Authenticate'
  const credentials = digestResponse(challenge.headers.get(header)!, { username: user, password, method, uri, random })!
  const answer = `${challenge.status === 401 ? 'Authorization' : 'Proxy-Authorization'}: ${credentials}\n`
  world.send(from, node, text.replace('branch=z9hG4bK', 'branch=z9hG4bKauth').replace('Max-Forwards', `${answer}Max-Forwards`))
  return got
}

const registration = (at: string, headers: string): string => `REGISTER sip:example.net SIP/2.0
Via: SIP/2.0/UDP ${at};branch=z9hG4bKreg
Max-Forwards: 70
From: <sip:mallory@example.net>;tag=r
To: <sip:mallory@example.net>
Call-ID: reg-mallory
CSeq: 1 REGISTER
${headers}Content-Length: 0

`

t.test('a subscriber cannot aim calls at a stranger: not by a second Contact, not by a Path', async (t) => {
  const at = '127.0.0.1:6666'
  for (const headers of [
    'Contact: <sip:victim@10.9.9.9>\n',
    `Contact: <sip:mallory@${at}>\nContact: <sip:+1900@10.9.9.9>\n`,
    `Contact: <sip:mallory@${at}>\nPath: <sip:10.9.9.9;lr>\n`,
    `Contact: <sip:mallory@${at}>\nPath: <sip:${at};lr>, <sip:10.9.9.9;lr>\n`,
  ]) {
    const world = new World(NODES, { trusted: ['127.0.0.9/32'], users: { mallory: 'secret' } })
    const answers = sendAuthenticated(world, at, 'us-east-1', registration(at, headers), 'mallory', 'secret')
    t.equal(statuses(answers).at(-1), 200)
    world.agent('127.0.0.9:6060', () => {})
    world.send('127.0.0.9:6060', 'us-east-1', invite('mallory', { via: '127.0.0.9:6060' }))
    world.advance(5000)
    t.notOk(
      world.wire.some((w) => w.to.startsWith('10.9.9.9')),
      headers,
    )
  }
})

t.test('a REGISTER of Contact: * with more Path than an entry holds is refused, and throws nothing', async (t) => {
  const world = new World(NODES)
  const answers = caller(world)
  const path = Array.from({ length: 40 }, (_, i) => `Path: <sip:p${i}.${'x'.repeat(150)}.example;lr>\n`).join('')
  world.send(CALLER, 'us-east-1', registration(CALLER, `Contact: *\nExpires: 0\n${path}`))
  t.same(statuses(answers), [400])
})

t.test('a Record-Route of an old call does not make a new one free', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  register(world, 'us-east-1', 'carol', '127.0.0.1:6071')
  phone(world, BOB, normal)
  phone(world, '127.0.0.1:6071', normal)
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  const ok = answers.at(-1) as SipResponse
  const recorded = `Record-Route: ${ok.headers.get('Record-Route')}\n`
  // While it is up: not a spiral, but the caller itself; what is answered is billed.
  world.send(CALLER, 'us-east-2', invite('carol', { branch: 'z9hG4bKagain', headers: recorded }))
  t.equal(statuses(answers).at(-1), 200)
  t.match(world.nodes.get('us-east-2')!.journal.at(-1), { part: 'start' })
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok))
  // After its end, at any node: another call, with an attempt and a start of its own.
  for (const [i, node] of NODES.entries()) {
    const before = world.nodes.get(node)!.journal.length
    world.send(CALLER, node, invite('carol', { branch: `z9hG4bKafter${i}`, headers: recorded }))
    const parts = world.nodes.get(node)!.journal.slice(before)
    t.same(
      parts.map((p) => p.part),
      ['attempt', 'start'],
      node,
    )
    t.not(parts[0]!.id, world.nodes.get('us-east-1')!.journal[0]!.id)
  }
})

t.test('a BYE to a leg that nobody answered makes no second CDR', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  phone(world, BOB, (r) => (r.method === 'BYE' && r.toTag === 'bogus' ? [481] : normal(r)))
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  const ok = answers.at(-1) as SipResponse
  world.send(
    CALLER,
    'us-east-1',
    inDialog('BYE', ok, { branch: 'z9hG4bKbogus' }).replace(/^To: .*$/m, 'To: <sip:bob@x>;tag=bogus'),
  )
  world.advance(2000)
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok, { cseq: 3 }))
  const cdrs = mergeParts(world.nodes.get('us-east-1')!.journal)
  t.equal(cdrs.length, 1)
  t.match(cdrs[0], { leg: ok.toTag, state: 'complete', durationMs: 2000 })
})

t.test('a BYE that the far end answers 503 does not end the call', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  phone(world, BOB, (r) => (r.method === 'BYE' ? [503] : normal(r)))
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  world.send(CALLER, 'us-east-1', inDialog('BYE', answers.at(-1) as SipResponse))
  t.equal(statuses(answers).at(-1), 500)
  t.notOk(world.nodes.get('us-east-1')!.journal.some((p) => p.part === 'end'))
})

t.test('a callee that answers with ever new tags does not fill the journal', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  let pending: SipRequest | undefined
  phone(world, BOB, (r) => {
    if (r.method === 'INVITE') pending = r
    return []
  })
  caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  for (let i = 0; i < 100; i++)
    world.send(BOB, 'us-east-1', serialize(makeResponse(pending!, 200, 'OK', `t${i}`)).toString('latin1'))
  t.equal(world.nodes.get('us-east-1')!.journal.filter((p) => p.part === 'start').length, 10)
})

t.test('the dialog of a SUBSCRIBE carries no calls', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  const got = phone(world, BOB, normal)
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob').replaceAll('INVITE', 'SUBSCRIBE'))
  const ok = answers.at(-1) as SipResponse
  t.equal(ok.status, 200)
  ok.headers.set('Contact', '<sip:bob@127.0.0.1:6070>')
  world.send(CALLER, 'us-east-1', inDialog('SUBSCRIBE', ok))
  t.equal(statuses(answers).at(-1), 200)
  world.send(CALLER, 'us-east-1', inDialog('INVITE', ok, { cseq: 3 }))
  t.equal(statuses(answers).at(-1), 481)
  t.same(
    got.map((r) => r.method),
    ['SUBSCRIBE', 'SUBSCRIBE'],
  )
})

t.test('contacts that point back at the cluster do not multiply: 482 at once', async (t) => {
  const world = new World(NODES, { trusted: ['127.0.0.0/16'] })
  for (let i = 1; i <= 9; i++)
    world.send(
      CALLER,
      'us-east-1',
      registration(CALLER, `Contact: <sip:mallory@127.0.1.${1 + (i % 3)};x=${i}>\n`).replaceAll('reg', `reg${i}`),
    )
  const answers = caller(world)
  const before = world.wire.length
  world.send(CALLER, 'us-east-1', invite('mallory'))
  t.equal(statuses(answers).at(-1), 482)
  t.ok(world.wire.length - before < 100, `${world.wire.length - before} messages`)
  t.equal(mergeParts(world.nodes.get('us-east-1')!.journal).length, 1)
})

t.test('our credentials go no further, those for a proxy behind us do', async (t) => {
  const world = new World(NODES, { trusted: ['127.0.0.1/32'], users: { alice: 'secret' } })
  register(world, 'us-east-1', 'bob', BOB)
  const got = phone(world, BOB, normal)
  const at = '127.0.0.8:6060'
  const further = 'Proxy-Authorization: Digest username="alice", realm="carrier.example", nonce="n", uri="sip:x", response="0"'
  const answers = sendAuthenticated(
    world,
    at,
    'us-east-1',
    invite('bob', { via: at, headers: `${further}\n` }),
    'alice',
    'secret',
  )
  const ok = answers.at(-1) as SipResponse
  t.equal(ok.status, 200)
  const sent = world.wire.findLast((w) => w.to === '127.0.1.1:5060' && w.text.startsWith('INVITE'))!
  const both = sent.text.split('\r\n').filter((line) => line.startsWith('Proxy-Authorization'))
  t.equal(both.length, 2)
  // RFC 3261 §22.3: the ACK bears the credentials of the INVITE.
  world.send(at, 'us-east-1', inDialog('ACK', ok, { cseq: 1 }).replace('Max-Forwards', `${both.join('\n')}\nMax-Forwards`))
  t.same(
    got.map((r) => [r.method, r.headers.lines('Proxy-Authorization').map((line) => `Proxy-Authorization: ${line}`)]),
    [
      ['INVITE', [further]],
      ['ACK', [further]],
    ],
  )
})
