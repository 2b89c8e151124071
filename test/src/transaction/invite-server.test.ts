import t from 'tap'
import type { Flow } from '../../../src/sip/flow.ts'
import { makeResponse } from '../../../src/sip/respond.ts'
import { INVITE_ANSWER_MS, inviteServer } from '../../../src/transaction/invite-server.ts'
import { cells, Rig, TCP, TIMERS, textRequest, UDP } from './rig.ts'

const INVITE = textRequest('INVITE')
const ACK = textRequest('ACK', { toTag: 'b' })

/** A rig with one INVITE up, and a function that answers it. */
function ringing(flow: Flow = UDP): { rig: Rig; id: number; say: (status: number) => void } {
  const rig = new Rig()
  const { id, request } = rig.incoming(INVITE, flow)
  return { rig, id, say: (status) => rig.layer.respond(id, makeResponse(request, status, undefined, 'b'), rig.nowMs) }
}

t.test('the table is that of RFC 3261 figure 7 with RFC 6026 §7.1', (t) => {
  t.strictSame(cells(inviteServer), [
    'proceeding request -> proceeding [resend]',
    'proceeding provisional -> proceeding +Answer [send]',
    'proceeding success -> accepted -Answer +L [send]',
    'proceeding failure -> completed -Answer +G +H [send]',
    'proceeding transportError -> proceeding [serverTransportError]',
    'proceeding timerAnswer -> terminated [serverTimeout]',
    'completed request -> completed [resend]',
    'completed ack -> confirmed -G -H +I []',
    'completed transportError -> completed [serverTransportError]',
    'completed timerG -> completed +G [resend]',
    'completed timerH -> terminated [ackTimeout]',
    'confirmed timerI -> terminated []',
    'accepted ack -> accepted [pass]',
    'accepted success -> accepted [send]',
    'accepted transportError -> accepted [serverTransportError]',
    'accepted timerL -> terminated []',
  ])
  t.strictSame(
    inviteServer.timerEvents,
    inviteServer.timers.map((timer) => `timer${timer}`),
  )
  t.end()
})

t.test('Timer G is capped at T2, and Timer H tells the TU that no ACK came', (t) => {
  const { rig, say } = ringing()
  say(486)
  rig.pass(100_000)
  t.strictSame(rig.story(), [
    ...[0, 500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500].map((ms) => `${ms} > 486 Busy Here`),
    '32000 ackTimeout',
    '32000 terminated',
  ])
  t.equal(inviteServer.duration('G', 'completed', 3000, false, TIMERS), 4000)
  t.equal(rig.layer.nextTimeoutMs(), undefined)
  t.end()
})

t.test('on a stream a final response is sent once, and Timer H still waits for the ACK', (t) => {
  const { rig, say } = ringing(TCP)
  say(486)
  rig.pass(100_000)
  t.strictSame(rig.story(), ['0 > 486 Busy Here', '32000 ackTimeout', '32000 terminated'])
  t.end()
})

t.test('an INVITE that comes again gets the last provisional response, none when there is none', (t) => {
  const { rig, say } = ringing()
  rig.receive(INVITE)
  t.strictSame(rig.story(), [])
  say(100)
  rig.receive(INVITE)
  say(180)
  rig.receive(INVITE)
  t.strictSame(rig.story(), ['0 > 100 Trying', '0 > 100 Trying', '0 > 180 Ringing', '0 > 180 Ringing'])
  t.end()
})

t.test('an INVITE that comes again after a 300-699 gets it again: the same bytes', (t) => {
  const { rig, say } = ringing()
  say(486)
  const first = rig.take()[0]
  rig.receive(INVITE)
  const second = rig.take()[0]
  t.ok(first?.kind === 'send' && second?.kind === 'send' && first.bytes === second.bytes)
  t.end()
})

t.test('the ACK ends retransmissions; Timer I absorbs what still comes', (t) => {
  const { rig, say } = ringing()
  say(486)
  rig.pass(100)
  rig.receive(ACK)
  rig.receive(ACK)
  rig.receive(INVITE)
  rig.pass(4999)
  t.equal(rig.layer.counts().inviteServer, 1)
  rig.pass(1)
  t.strictSame(rig.story(), ['0 > 486 Busy Here', '5100 terminated'])
  t.end()
})

t.test('on a stream Timer I is zero', (t) => {
  const { rig, say } = ringing(TCP)
  say(603)
  rig.receive(ACK, TCP)
  t.strictSame(rig.story(), ['0 > 603 Decline', '0 terminated'])
  t.end()
})

t.test(
  'after a 2xx the INVITE is absorbed, each further 2xx of the TU is sent, an ACK goes to the TU, and Timer L ends it',
  (t) => {
    const { rig, say } = ringing()
    say(200)
    rig.receive(INVITE)
    rig.pass(500)
    say(200)
    say(180)
    say(500)
    rig.receive(ACK)
    rig.pass(31_499)
    rig.receive(INVITE)
    rig.pass(1)
    t.strictSame(rig.story(), ['0 > 200 OK', '500 > 200 OK', '500 request ACK', '32000 terminated'])
    say(200)
    t.strictSame(rig.story(), [], 'RFC 6026: without a transaction no 2xx goes back')
    t.end()
  },
)

t.test('Timer L runs on a stream too', (t) => {
  const { rig, say } = ringing(TCP)
  say(200)
  rig.pass(31_999)
  t.equal(rig.layer.counts().inviteServer, 1)
  rig.pass(1)
  t.strictSame(rig.story(), ['0 > 200 OK', '32000 terminated'])
  t.end()
})

t.test('one final response decides: later ones are discarded', (t) => {
  const { rig, say } = ringing()
  say(404)
  say(200)
  say(180)
  say(500)
  t.strictSame(rig.story(), ['0 > 404 Not Found'])
  t.end()
})

t.test('a response that cannot be sent is told to the TU and ends nothing', (t) => {
  const { rig, id, say } = ringing()
  say(180)
  rig.layer.handleSendError(id, 0)
  say(200)
  rig.layer.handleSendError(id, 0)
  t.strictSame(rig.story(), ['0 > 180 Ringing', '0 serverTransportError', '0 > 200 OK', '0 serverTransportError'])
  rig.receive(INVITE)
  t.strictSame(rig.story(), [], 'the retransmission is not taken for a new call')
  t.end()
})

t.test('an INVITE that the TU never answers is given up; provisional responses put that off', (t) => {
  const { rig, say } = ringing()
  rig.pass(INVITE_ANSWER_MS - 1)
  say(180)
  rig.pass(INVITE_ANSWER_MS)
  t.strictSame(rig.story(), [
    `${INVITE_ANSWER_MS - 1} > 180 Ringing`,
    `${2 * INVITE_ANSWER_MS - 1} serverTimeout`,
    `${2 * INVITE_ANSWER_MS - 1} terminated`,
  ])
  t.equal(rig.layer.counts().inviteServer, 0)
  t.end()
})

t.test('an ACK before any final response is absorbed', (t) => {
  const { rig, say } = ringing()
  rig.receive(ACK)
  say(486)
  t.strictSame(rig.story(), ['0 > 486 Busy Here'])
  t.end()
})
