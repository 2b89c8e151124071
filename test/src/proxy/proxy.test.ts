import t from 'tap'
import { mergeParts } from '../../../src/cdr/merge.ts'
import type { SipRequest, SipResponse } from '../../../src/sip/message.ts'
import { makeResponse } from '../../../src/sip/respond.ts'
import { serialize } from '../../../src/sip/serialize.ts'
import { CALLER, caller, inDialog, invite, NODES, normal, phone, register, statuses } from './agents.ts'
import { World } from './world.ts'

t.test('a call through one node: 100, 180, 200, ACK, BYE, and three parts of one CDR', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  const got = phone(world, '127.0.0.1:6070', normal)
  const answers = caller(world)
  const startMs = world.nowMs
  world.send(CALLER, 'us-east-1', invite('bob'))
  t.same(statuses(answers), [100, 180, 200])
  const ok = answers.at(-1) as SipResponse
  t.equal(ok.headers.count('Via'), 1, 'only the caller’s own Via is left')
  world.send(CALLER, 'us-east-1', inDialog('ACK', ok, { cseq: 1 }))
  world.advance(1000)
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok))
  t.same(
    got.map((r) => r.method),
    ['INVITE', 'ACK', 'BYE'],
  )
  t.equal(got[0]!.headers.get('Max-Forwards'), '69')
  t.equal(statuses(answers).at(-1), 200)
  const parts = world.nodes.get('us-east-1')!.journal
  t.same(
    parts.map((p) => p.part),
    ['attempt', 'start', 'end'],
  )
  t.equal(new Set(parts.map((p) => p.id)).size, 1)
  t.equal(parts[2]!.atMs, startMs + 1000)
  t.equal(parts[2]!.hungUpBy, 'caller')
  t.equal(parts[2]!.leg, parts[1]!.leg)
  t.equal(parts[2]!.caller, 'sip:alice@example.net')
  t.ok(world.dialogs.hasEnded(parts[0]!.id))
})

t.test('the 2xx waits until the start is durable, and losers of the fork are cancelled meanwhile', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  register(world, 'us-east-1', 'bob', '127.0.0.1:6071')
  phone(world, '127.0.0.1:6070', normal)
  const loser = phone(world, '127.0.0.1:6071', (r) => (r.method === 'INVITE' ? [180] : r.method === 'CANCEL' ? [200] : []))
  const answers = caller(world)
  world.journalAnswers = false
  world.send(CALLER, 'us-east-1', invite('bob'))
  t.notOk(statuses(answers).includes(200), 'held')
  t.ok(
    loser.some((r) => r.method === 'CANCEL'),
    'the other phone stops ringing at once',
  )
  world.advance(600)
  world.release()
  t.equal(statuses(answers).filter((s) => s === 200).length, 1)
})

t.test('a refused call gets its end before the final response, with the status', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  phone(world, '127.0.0.1:6070', (r) => (r.method === 'INVITE' ? [180, 486] : []))
  const answers = caller(world)
  world.journalAnswers = false
  world.send(CALLER, 'us-east-1', invite('bob'))
  t.notOk(statuses(answers).includes(486))
  world.release()
  t.equal(statuses(answers).at(-1), 486)
  const end = world.nodes.get('us-east-1')!.journal.at(-1)!
  t.match(end, { part: 'end', status: 486, reason: 'rejected', leg: '' })
})

t.test('nobody, unknown, foreign: 480, 404, 403, each with a CDR', async (t) => {
  const world = new World(NODES, { users: { carol: 'x' } })
  const answers = caller(world)
  const send = (user: string, n: number, host = 'example.net') =>
    world.send(
      CALLER,
      'us-east-1',
      invite(user, { branch: `z9hG4bK${n}`, callId: `c${n}` }).replace(`sip:${user}@example.net SIP`, `sip:${user}@${host} SIP`),
    )
  send('carol', 1)
  send('nobody', 2)
  send('x', 3, 'elsewhere.example')
  t.same(
    statuses(answers).filter((s) => s > 100),
    [480, 404, 403],
  )
  t.equal(world.nodes.get('us-east-1')!.journal.filter((p) => p.part === 'end').length, 3)
})

t.test('CANCEL: 200 to it, 487 to the INVITE, the phone is cancelled, the CDR says so', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  let pending: SipRequest | undefined
  const got = phone(world, '127.0.0.1:6070', (r) => {
    if (r.method === 'INVITE') pending = r
    return r.method === 'INVITE' ? [180] : r.method === 'CANCEL' ? [200] : []
  })
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  world.send(
    CALLER,
    'us-east-1',
    invite('bob')
      .replace(/^INVITE/, 'CANCEL')
      .replace('1 INVITE', '1 CANCEL')
      .replace(/Contact.*\n/, ''),
  )
  t.ok(got.some((r) => r.method === 'CANCEL'))
  world.send('127.0.0.1:6070', 'us-east-1', serialize(makeResponse(pending!, 487, undefined, 'x')).toString('latin1'))
  t.same(statuses(answers).slice(-2).sort(), [200, 487])
  t.match(world.nodes.get('us-east-1')!.journal.at(-1), { part: 'end', status: 487, reason: 'cancelled', hungUpBy: 'caller' })
})

t.test('CANCEL of a target that never spoke does not keep the caller waiting', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  phone(world, '127.0.0.1:6070', () => [])
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  world.send(
    CALLER,
    'us-east-1',
    invite('bob')
      .replace(/^INVITE/, 'CANCEL')
      .replace('1 INVITE', '1 CANCEL'),
  )
  t.same(statuses(answers).slice(-2).sort(), [200, 487])
})

t.test('a call to a binding whose edge is another node goes by that edge, and both record the same token', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  const got = phone(world, '127.0.0.1:6070', normal)
  const answers = caller(world)
  world.send(CALLER, 'eu-west-1', invite('bob'))
  t.equal(statuses(answers).at(-1), 200)
  const routes = got[0]!.headers.values('Record-Route')
  t.equal(routes.length, 2)
  t.match(routes[0], '127.0.1.1:5060')
  t.match(routes[1], '127.0.1.3:5060')
  t.equal(routes[0]!.split('tk=')[1], routes[1]!.split('tk=')[1])
  t.notOk(got[0]!.headers.has('Antipode-Hop'), 'the phone never sees the hop')
  t.same(world.nodes.get('us-east-1')!.journal, [], 'the edge writes no CDR')
  t.same(
    world.nodes.get('eu-west-1')!.journal.map((p) => p.part),
    ['attempt', 'start'],
  )
})

t.test('the ingress dies in the call: the BYE through its sibling, or another region, ends it with the same id', async (t) => {
  for (const survivor of ['us-east-2', 'eu-west-1']) {
    for (const edge of ['us-east-1', 'eu-west-1']) {
      const world = new World(NODES)
      register(world, edge, 'bob', '127.0.0.1:6070')
      const got = phone(world, '127.0.0.1:6070', normal)
      const answers = caller(world)
      world.send(CALLER, 'us-east-1', invite('bob'))
      const ok = answers.at(-1) as SipResponse
      world.killed.add('us-east-1')
      world.unreachable.add('us-east-1')
      world.verdicts.set('us-east-1', 'dead')
      world.send(CALLER, survivor, inDialog('BYE', ok))
      world.advance(100)
      t.equal(statuses(answers).at(-1), 200, `${edge} → ${survivor}`)
      t.equal(got.at(-1)!.method, 'BYE')
      const end = world.nodes.get(survivor)!.journal
      t.same(
        end.map((p) => p.part),
        ['end'],
      )
      t.equal(end[0]!.id, world.nodes.get('us-east-1')!.journal[0]!.id)
      t.ok(end[0]!.startMs > 0)
    }
  }
})

t.test('an edge that has died unnoticed costs one silence, then the direct way is taken', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  phone(world, '127.0.0.1:6070', normal)
  const answers = caller(world)
  world.killed.add('us-east-1')
  world.send(CALLER, 'eu-west-1', invite('bob'))
  t.same(statuses(answers), [100])
  world.advance(2000)
  t.equal(statuses(answers).at(-1), 200)
  const ok = answers.at(-1) as SipResponse
  // The BYE too: its edge is silent, and by now this node knows.
  world.unreachable.add('us-east-1')
  world.send(CALLER, 'eu-west-1', inDialog('BYE', ok))
  t.equal(statuses(answers).at(-1), 200)
})

t.test('a user behind a NAT whose edge is dead is withheld at once: 480', async (t) => {
  const world = new World(NODES)
  world.agent('127.0.0.1:6070', () => {})
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  world.send(
    '127.0.0.1:7777',
    'us-east-1',
    `REGISTER sip:example.net SIP/2.0
Via: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKnat;rport
Max-Forwards: 70
From: <sip:nat@example.net>;tag=r
To: <sip:nat@example.net>
Call-ID: reg-nat
CSeq: 1 REGISTER
Contact: <sip:nat@10.0.0.9:5060>
Content-Length: 0

`,
  )
  const answers = caller(world)
  world.verdicts.set('us-east-1', 'dead')
  world.send(CALLER, 'eu-west-1', invite('nat'))
  t.equal(statuses(answers).at(-1), 480)
})

t.test('a token carries its own call only, and nothing in-dialog passes without one', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  const got = phone(world, '127.0.0.1:6070', normal)
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  const ok = answers.at(-1) as SipResponse
  const before = got.length
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok, { routes: [], branch: 'z9hG4bKx1' }))
  t.equal(statuses(answers).at(-1), 481, 'no token')
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok, { callId: 'another-call', branch: 'z9hG4bKx2' }))
  t.equal(statuses(answers).at(-1), 481, 'another call’s Call-ID')
  const forged = ok.headers.values('Record-Route').map((r) => r.replace(/tk=k1\.(.)/, (_, c) => `tk=k1.${c === 'A' ? 'B' : 'A'}`))
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok, { routes: forged, branch: 'z9hG4bKx3' }))
  t.equal(statuses(answers).at(-1), 481, 'a changed token')
  t.equal(got.length, before, 'the phone saw none of it')
  // A valid token with a stranger as Request-URI still goes to the token's leg.
  const stray = phone(world, '127.0.0.1:9999', normal)
  world.send(
    CALLER,
    'us-east-1',
    inDialog('BYE', ok, { branch: 'z9hG4bKx4' }).replace(/^BYE \S+/, 'BYE sip:stranger@127.0.0.1:9999'),
  )
  t.equal(stray.length, 0)
  t.equal(got.at(-1)!.method, 'BYE')
})

t.test('a hop header that no node made is refused', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  const got = phone(world, '127.0.0.1:6070', normal)
  const answers = caller(world)
  world.send(CALLER, 'eu-west-1', invite('bob', { headers: 'Antipode-Hop: k1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n' }))
  t.equal(statuses(answers).at(-1), 403)
  t.equal(got.length, 0)
})

t.test('a retransmission to a sibling is the same call; the same identifiers after its end are another', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  phone(world, '127.0.0.1:6070', normal)
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  const ok = answers.at(-1) as SipResponse
  world.send(CALLER, 'us-east-2', invite('bob'))
  const id = world.nodes.get('us-east-1')!.journal[0]!.id
  t.equal(world.nodes.get('us-east-2')!.journal[0]!.id, id)
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok))
  world.advance(40_000)
  world.send(CALLER, 'eu-west-1', invite('bob'))
  const again = world.nodes.get('eu-west-1')!.journal[0]!
  t.not(again.id, id)
})

t.test('the callee hangs up through its own edge', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  const got = phone(world, '127.0.0.1:6070', normal)
  const answers = caller(world)
  world.send(CALLER, 'eu-west-1', invite('bob'))
  const inv = got[0]!
  const ok = answers.at(-1) as SipResponse
  const callerGot = phone(world, CALLER, normal)
  world.send(
    '127.0.0.1:6070',
    'us-east-1',
    `BYE sip:alice@${CALLER} SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:6070;branch=z9hG4bKcalleebye
Max-Forwards: 70
${inv.headers
  .values('Record-Route')
  .map((r) => `Route: ${r}\n`)
  .join('')}From: ${ok.headers.get('To')}
To: ${ok.headers.get('From')}
Call-ID: call-1
CSeq: 1 BYE
Content-Length: 0

`,
  )
  t.equal(callerGot.at(-1)?.method, 'BYE')
  const end = world.nodes.get('us-east-1')!.journal.at(-1)!
  t.match(end, { part: 'end', hungUpBy: 'callee', caller: 'sip:alice@example.net' })
  t.equal(end.id, world.nodes.get('eu-west-1')!.journal[0]!.id)
  t.equal(end.leg, world.nodes.get('eu-west-1')!.journal[1]!.leg)
})

t.test('a BYE that is answered 500 does not end the call; one that times out does', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  let mode: 'refuse' | 'silent' = 'refuse'
  phone(world, '127.0.0.1:6070', (r) => (r.method === 'BYE' ? (mode === 'refuse' ? [500] : []) : normal(r)))
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  const ok = answers.at(-1) as SipResponse
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok))
  t.equal(statuses(answers).at(-1), 500)
  t.notOk(world.nodes.get('us-east-1')!.journal.some((p) => p.part === 'end'))
  mode = 'silent'
  const byeMs = world.nowMs
  world.send(CALLER, 'us-east-1', inDialog('BYE', ok, { cseq: 3 }))
  world.advance(33_000)
  const end = world.nodes.get('us-east-1')!.journal.at(-1)!
  t.match(end, { part: 'end', atMs: byeMs })
  world.advance(10_000)
  t.notOk(statuses(answers).includes(408), 'RFC 4320: no 408 to a BYE')
  t.equal(world.nodes.get('us-east-1')!.core.counts().transactions.nonInviteServer, 0)
})

t.test('serial forking by q: the lower q is tried when the higher has refused', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070', ';q=0.9')
  register(world, 'us-east-1', 'bob', '127.0.0.1:6071', ';q=0.5')
  const first = phone(world, '127.0.0.1:6070', (r) => (r.method === 'INVITE' ? [486] : []))
  const second = phone(world, '127.0.0.1:6071', (r) => (r.method === 'INVITE' ? [603] : []))
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  t.equal(first.filter((r) => r.method === 'INVITE').length, 1)
  t.equal(second.filter((r) => r.method === 'INVITE').length, 1)
  t.equal(statuses(answers).at(-1), 603, '6xx is the best of 486 and 603')
})

t.test('Timer C ends a call that rings for ever', async (t) => {
  const world = new World(NODES)
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  const got = phone(world, '127.0.0.1:6070', (r) => (r.method === 'INVITE' ? [180] : r.method === 'CANCEL' ? [200] : []))
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  world.advance(1500)
  t.equal(world.dialogs.counts.early, 1, 'ringing calls are shown')
  world.advance(180_000)
  t.equal(statuses(answers).at(-1), 408)
  t.ok(got.some((r) => r.method === 'CANCEL'))
  t.equal(world.dialogs.counts.early, 0)
})

t.test('a call that goes to a destination by prefix, and comes back to us, is one call', async (t) => {
  const world = new World(NODES, { destinations: [{ name: 'pbx', match: { prefix: '9' }, uri: 'sip:127.0.0.1:6090' }] })
  register(world, 'us-east-1', 'bob', '127.0.0.1:6070')
  phone(world, '127.0.0.1:6070', normal)
  // The PBX: sends the INVITE on to bob through us, and the response back.
  let back: SipRequest | undefined
  world.agent('127.0.0.1:6090', (message) => {
    if (message.kind === 'request' && message.method === 'INVITE') {
      back = message.copy()
      const onward = message.copy()
      onward.uri = 'sip:bob@example.net'
      onward.headers.prepend('Via', 'SIP/2.0/UDP 127.0.0.1:6090;branch=z9hG4bKpbx')
      world.send('127.0.0.1:6090', 'us-east-2', serialize(onward).toString('latin1'))
    } else if (message.kind === 'response' && message.status >= 200) {
      const response = message.copy()
      response.headers.removeFirstValue('Via')
      world.send('127.0.0.1:6090', 'us-east-1', serialize(response).toString('latin1'))
    }
  })
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('9123'))
  t.ok(back)
  t.match(back!.uri, 'sip:9123@127.0.0.1:6090')
  t.equal(statuses(answers).at(-1), 200)
  const spiral = world.nodes.get('us-east-2')!.journal
  t.same(
    spiral.map((p) => p.part),
    ['start'],
  )
  const cdrs = mergeParts([...world.nodes.get('us-east-1')!.journal, ...spiral])
  t.equal(cdrs.length, 1, 'the spiral makes no second CDR')
  t.match(cdrs[0], { callee: 'sip:9123@example.net', answerMs: world.nowMs })
})

t.test('Max-Forwards 0 is 483, Proxy-Require is 420, OPTIONS to us is 200', async (t) => {
  const world = new World(NODES)
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob', { branch: 'z9hG4bKm' }).replace('Max-Forwards: 70', 'Max-Forwards: 0'))
  world.send(CALLER, 'us-east-1', invite('bob', { branch: 'z9hG4bKp', headers: 'Proxy-Require: foo\n' }))
  t.same(statuses(answers), [483, 420])
  world.send(
    CALLER,
    'us-east-1',
    `OPTIONS sip:example.net SIP/2.0\nVia: SIP/2.0/UDP ${CALLER};branch=z9hG4bKo\nMax-Forwards: 0\nFrom: <sip:a@b>;tag=1\nTo: <sip:example.net>\nCall-ID: o\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n`,
  )
  t.equal(statuses(answers).at(-1), 200)
})

t.test('nobody outside the ACL gets anywhere without credentials', async (t) => {
  const world = new World(NODES, { trusted: ['10.0.0.0/8'] })
  const answers = caller(world)
  world.send(CALLER, 'us-east-1', invite('bob'))
  t.equal(statuses(answers).at(-1), 407)
  const challenged = answers.at(-1) as SipResponse
  t.match(challenged.headers.lines('Proxy-Authenticate').join('\n'), /SHA-256[\s\S]*MD5/)
  t.same(world.nodes.get('us-east-1')!.journal, [], 'a challenge is no call')
})
