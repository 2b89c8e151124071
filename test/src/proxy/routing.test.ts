import t from 'tap'
import { mergeParts } from '../../../src/cdr/merge.ts'
import type { SipRequest, SipResponse } from '../../../src/sip/message.ts'
import { makeResponse } from '../../../src/sip/respond.ts'
import { serialize } from '../../../src/sip/serialize.ts'
import { CALLER, caller, inDialog, invite, NODES, normal, phone, register, statuses } from './agents.ts'
import { World } from './world.ts'

const BOB = '127.0.0.1:6070'

t.test('a phone with us as its outbound proxy, by domain or by a name of our zone, is not relaying', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  const got = phone(world, BOB, normal)
  const answers = caller(world)
  const names = ['example.net', 'sip.example.net', 'us-east.example.net', 'us-east-2.example.net:5060', '127.0.1.1']
  for (const [i, name] of names.entries()) {
    const route = `Route: <sip:${name};lr>\n`
    world.send(CALLER, 'us-east-1', invite('bob', { branch: `z9hG4bKo${i}`, callId: `o${i}`, headers: route }))
    t.equal(statuses(answers).at(-1), 200, name)
    t.notOk(got.at(-1)!.headers.has('Route'), 'the phone behind it sees no Route')
  }
  world.send(
    CALLER,
    'us-east-1',
    invite('bob', { branch: 'z9hG4bKz', callId: 'z' }).replace('bob@example.net SIP', 'bob@sip.example.net SIP'),
  )
  t.equal(statuses(answers).at(-1), 200, 'as the host of the Request-URI too')
})

t.test('a strict router before us is understood: our Route as Request-URI, the target as last Route', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  const got = phone(world, BOB, normal)
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  const ok = answers.at(-1) as SipResponse
  const ours = ok.headers.values('Record-Route')[0]!.replace(/[<>]/g, '')
  const contact = ok.headers.get('Contact')!
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok, { routes: [contact] }).replace(/^BYE \S+/, `BYE ${ours}`))
  t.equal(statuses(answers).at(-1), 200)
  t.equal(got.at(-1)!.method, 'BYE')
  t.equal(`<${got.at(-1)!.uri}>`, contact)
  t.notOk(got.at(-1)!.headers.has('Route'))
})

t.test('PRACK and UPDATE before the answer, and a re-INVITE and an UPDATE after it, take both nodes', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  let held: SipRequest | undefined
  const got = phone(world, BOB, (r) => {
    if (r.method !== 'INVITE' || r.toTag !== '') return normal(r)
    held = r
    return [183]
  })
  const answers = caller(world)
  world.send(CALLER, 'eu-west-1', invite('bob'))
  const early = answers.at(-1) as SipResponse
  t.equal(early.status, 183)
  world.send(CALLER, 'eu-west-1', inDialog('PRACK', early, { cseq: 2 }))
  world.send(CALLER, 'eu-west-1', inDialog('UPDATE', early, { cseq: 3 }))
  const answer = makeResponse(held!, 200, 'OK', early.toTag)
  for (const line of held!.headers.lines('Record-Route')) answer.headers.append('Record-Route', line)
  answer.headers.set('Contact', `<sip:bob@${BOB}>`)
  world.send(BOB, 'us-east-1', serialize(answer).toString('latin1'))
  const ok = answers.at(-1) as SipResponse
  t.match(ok, { status: 200, cseq: { method: 'INVITE' } })
  world.send(CALLER, 'eu-west-1', inDialog('ACK', ok, { cseq: 1 }))
  world.send(CALLER, 'us-east-2', inDialog('INVITE', ok, { cseq: 4 }))
  world.send(CALLER, 'us-east-2', inDialog('ACK', ok, { cseq: 4, branch: 'z9hG4bKack4' }))
  world.send(CALLER, 'eu-west-1', inDialog('UPDATE', ok, { cseq: 5 }))
  t.same(
    got.map((r) => r.method),
    ['INVITE', 'PRACK', 'UPDATE', 'ACK', 'INVITE', 'ACK', 'UPDATE'],
  )
  t.notOk(got.some((r) => r.headers.has('Antipode-Hop') || r.headers.has('Route')))
  t.same(
    world.nodes.get('eu-west-1')!.journal.map((p) => p.part),
    ['attempt', 'start'],
    'a re-INVITE is no call',
  )
})

t.test('a CANCEL through two nodes reaches the phone, and one that crosses the answer lets it stand', async (t) => {
  for (const cross of [false, true]) {
    const world = new World(NODES)
    register(world, 'us-east-1', 'bob', BOB)
    let held: SipRequest | undefined
    const got = phone(world, BOB, (r) => {
      if (r.method === 'INVITE') held = r
      return r.method === 'INVITE' ? [180] : [200]
    })
    const answers = caller(world)
    world.send(CALLER, 'eu-west-1', invite('bob'))
    const cancel = invite('bob')
      .replaceAll('INVITE', 'CANCEL')
      .replace(/Contact.*\n/, '')
    const final = serialize(makeResponse(held!, cross ? 200 : 487, undefined, 'x')).toString('latin1')
    world.send(CALLER, 'eu-west-1', cancel)
    t.ok(got.some((r) => r.method === 'CANCEL'))
    world.send(BOB, 'us-east-1', final)
    const last = statuses(answers.filter((m) => m.cseq.method === 'INVITE')).at(-1)
    t.equal(last, cross ? 200 : 487)
    const cdrs = mergeParts(world.nodes.get('eu-west-1')!.journal)
    t.match(cdrs, [cross ? { leg: 'x', state: 'open' } : { leg: '', status: 487, reason: 'cancelled' }])
  }
})

t.test('both phones of a fork answer: both answers reach the caller, each leg has its CDR and its own end', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  register(world, 'us-east-2', 'bob', '127.0.0.1:6071')
  const pending: { at: string; node: string; request: SipRequest }[] = []
  for (const [at, node] of [
    [BOB, 'us-east-1'],
    ['127.0.0.1:6071', 'us-east-2'],
  ] as const)
    phone(world, at, (r) => {
      if (r.method !== 'INVITE') return r.method === 'ACK' ? [] : [200]
      pending.push({ at, node, request: r })
      return [180]
    })
  const answers = caller(world)
  world.journalAnswers = false
  world.send(CALLER, 'us-east-1', invite('bob'))
  for (const { at, request } of pending) {
    const answer = makeResponse(request, 200, 'OK', `leg${at.slice(-4)}`)
    for (const line of request.headers.lines('Record-Route')) answer.headers.append('Record-Route', line)
    answer.headers.set('Contact', `<sip:bob@${at}>`)
    const via = request.topVia
    world.send(at, `${via.host}:${via.port}`, serialize(answer).toString('latin1'))
    world.advance(100)
  }
  world.release()
  world.journalAnswers = true
  const oks = answers.filter((m): m is SipResponse => m.kind === 'response' && m.status === 200)
  t.same(oks.map((m) => m.toTag).sort(), ['leg6070', 'leg6071'])
  world.send(CALLER, 'us-east-1', inDialog('BYE', oks[1]!, { branch: 'z9hG4bKb1' }))
  world.advance(3000)
  world.send(CALLER, 'us-east-1', inDialog('BYE', oks[0]!, { branch: 'z9hG4bKb0' }))
  const cdrs = mergeParts([...world.nodes.values()].flatMap((n) => n.journal))
  t.equal(cdrs.length, 2)
  t.ok(cdrs.every((c) => c.state === 'complete' && c.answerMs > 0))
  t.equal(world.nodes.get('us-east-1')!.core.counts().ownedDialogs, 0)
})

t.test('after a 603 no further way is tried, not even for a phone that was silent', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  register(world, 'us-east-2', 'bob', '127.0.0.1:6071')
  phone(world, BOB, (r) => (r.method === 'INVITE' ? [603] : []))
  const silent = phone(world, '127.0.0.1:6071', () => [])
  world.killed.add('us-east-2')
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  world.advance(5000)
  t.same(silent, [])
  t.equal(statuses(answers).at(-1), 603)
})

t.test('a re-INVITE is given the time that lost packets take: no 408 of ours ends the call', async (t) => {
  for (const ingress of ['us-east-1', 'eu-west-1']) {
    const world = new World(NODES)
    register(world, 'us-east-1', 'bob', BOB)
    let deaf = false
    phone(world, BOB, (r) => (deaf ? [] : normal(r)))
    const answers = caller(world)
    world.send(CALLER, ingress, invite('bob'))
    const ok = answers.at(-1) as SipResponse
    deaf = true
    world.send(CALLER, ingress, inDialog('INVITE', ok, { cseq: 2 }))
    world.advance(6000)
    deaf = false
    world.advance(4000)
    t.same(
      statuses(answers.filter((m) => m.cseq.seq === 2)).filter((s) => s > 180),
      [200],
      ingress,
    )
  }
})

t.test('what a Contact may have and a Request-URI may not is left out of the INVITE (RFC 3261 §16.6 item 2)', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', BOB)
  world.send(
    BOB,
    'us-east-1',
    `REGISTER sip:example.net SIP/2.0
Via: SIP/2.0/UDP ${BOB};branch=z9hG4bKheaders
Max-Forwards: 70
From: <sip:carol@example.net>;tag=r
To: <sip:carol@example.net>
Call-ID: headers
CSeq: 1 REGISTER
Contact: <sip:c?x@${BOB};ob;method=MESSAGE?Route=%3Csip:sip.example.com%3E>
Content-Length: 0

`,
  )
  const got = phone(world, BOB, normal)
  world.send(CALLER, 'us-east-1', invite('carol'))
  t.equal(got[0]!.uri, `sip:c?x@${BOB};ob`)
})

t.test('a contact that no request can be sent to may be registered, and is passed over', async (t) => {
  const world = new World(NODES)
  const contacts = 'Contact: <mailto:carol@example.net>\nContact: <mailto:dave@example.net>'
  world.send(
    BOB,
    'us-east-1',
    `REGISTER sip:example.net SIP/2.0
Via: SIP/2.0/UDP ${BOB};branch=z9hG4bKmailto
Max-Forwards: 70
From: <sip:carol@example.net>;tag=r
To: <sip:carol@example.net>
Call-ID: mailto
CSeq: 1 REGISTER
${contacts}
Content-Length: 0

`,
  )
  const got = phone(world, BOB, normal)
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('carol'))
  t.equal(statuses(answers).at(-1), 480)
  t.same(got, [])
})

t.test('what is asked of the node itself and is not its to do: 405, 501, 420', async (t) => {
  const world = new World(NODES)
  const answers = caller(world)
  let count = 0
  const ask = (method: string, uri: string, headers = ''): SipResponse => {
    const text = invite('x', { branch: `z9hG4bKown${++count}`, callId: `own${count}`, headers })
    world.send(
      CALLER,
      'us-east-1',
      text.replace('INVITE sip:x@example.net', `${method} ${uri}`).replace('1 INVITE', `1 ${method}`),
    )
    return answers.at(-1) as SipResponse
  }
  for (const uri of ['sip:example.net', 'sip:127.0.1.1']) {
    const known = ask('SUBSCRIBE', uri)
    t.same([known.status, known.headers.get('Allow')], [405, 'OPTIONS, REGISTER'])
    t.equal(ask('FROBNICATE', uri).status, 501)
    t.equal(ask('OPTIONS', uri).status, 200)
    t.equal(ask('INVITE', uri).status, 404, 'a call to nobody')
  }
  t.equal(ask('FROBNICATE', 'sip:bob@example.net').status, 404, 'what is for a user is the user’s to judge')
  for (const method of ['OPTIONS', 'REGISTER']) {
    const refused = ask(method, 'sip:example.net', 'Require: path, teleportation\n')
    t.same([refused.status, refused.headers.get('Unsupported')], [420, 'teleportation'])
  }
  t.equal(ask('REGISTER', 'sip:example.net', 'Require: Path\n').status, 200)
})
