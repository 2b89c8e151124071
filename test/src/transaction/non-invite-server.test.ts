import t from 'tap'
import type { Flow } from '../../../src/sip/flow.ts'
import { makeResponse } from '../../../src/sip/respond.ts'
import { nonInviteServer } from '../../../src/transaction/non-invite-server.ts'
import { cells, Rig, TCP, textRequest, UDP } from './rig.ts'

const BYE = textRequest('BYE', { toTag: 'b' })

function asked(flow: Flow = UDP): { rig: Rig; id: number; say: (status: number) => void } {
  const rig = new Rig()
  const { id, request } = rig.incoming(BYE, flow)
  return { rig, id, say: (status) => rig.layer.respond(id, makeResponse(request, status), rig.nowMs) }
}

t.test('the table is that of RFC 3261 figure 8, but a transport error ends nothing (RFC 6026 §7.1)', (t) => {
  t.strictSame(cells(nonInviteServer), [
    'trying provisional -> proceeding [send]',
    'trying final -> completed -Answer +J [send]',
    'trying transportError -> trying [serverTransportError]',
    'trying timerAnswer -> terminated [serverTimeout]',
    'proceeding request -> proceeding [resend]',
    'proceeding provisional -> proceeding [send]',
    'proceeding final -> completed -Answer +J [send]',
    'proceeding transportError -> proceeding [serverTransportError]',
    'proceeding timerAnswer -> terminated [serverTimeout]',
    'completed request -> completed [resend]',
    'completed transportError -> completed [serverTransportError]',
    'completed timerJ -> terminated []',
  ])
  t.strictSame(
    nonInviteServer.timerEvents,
    nonInviteServer.timers.map((timer) => `timer${timer}`),
  )
  t.end()
})

t.test('while the TU is silent a retransmission is absorbed', (t) => {
  const { rig } = asked()
  rig.receive(BYE)
  rig.receive(BYE)
  t.strictSame(rig.story(), [])
  t.equal(rig.layer.counts().nonInviteServer, 1)
  t.end()
})

t.test('a retransmission gets the last response, and Timer J ends it after 64*T1', (t) => {
  const { rig, say } = asked()
  say(100)
  rig.receive(BYE)
  say(200)
  rig.pass(1000)
  rig.receive(BYE)
  say(500)
  say(100)
  rig.pass(30_999)
  rig.receive(BYE)
  rig.pass(1)
  t.strictSame(rig.story(), [
    '0 > 100 Trying',
    '0 > 100 Trying',
    '0 > 200 OK',
    '1000 > 200 OK',
    '31999 > 200 OK',
    '32000 terminated',
  ])
  t.equal(rig.layer.nextTimeoutMs(), undefined)
  rig.receive(BYE)
  t.strictSame(rig.story(), ['32000 request BYE'], 'only then it is new')
  t.end()
})

t.test('on a stream Timer J is zero', (t) => {
  const { rig, say } = asked(TCP)
  say(200)
  t.strictSame(rig.story(), ['0 > 200 OK', '0 terminated'])
  t.end()
})

t.test('a request that the TU never answers is given up after the client has, without an answer', (t) => {
  for (const provisional of [false, true]) {
    const { rig, say } = asked()
    if (provisional) say(100)
    rig.take()
    rig.pass(100_000)
    t.strictSame(rig.story(), ['37000 serverTimeout', '37000 terminated'])
  }
  t.end()
})

t.test('a response that cannot be sent is told to the TU and ends nothing', (t) => {
  const { rig, id, say } = asked()
  say(200)
  rig.layer.handleSendError(id, 0)
  rig.receive(BYE)
  t.strictSame(rig.story(), ['0 > 200 OK', '0 serverTransportError', '0 > 200 OK'])
  t.end()
})

t.test('dropped without an answer, the next retransmission is a new request', (t) => {
  const { rig, id } = asked()
  rig.layer.drop(id)
  t.equal(rig.layer.nextTimeoutMs(), undefined)
  rig.receive(BYE)
  t.strictSame(rig.story(), ['0 request BYE'])
  t.end()
})
