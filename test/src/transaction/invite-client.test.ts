import t from 'tap'
import { inviteClient } from '../../../src/transaction/invite-client.ts'
import { cells, Rig, responseTo, TCP, TIMERS } from './rig.ts'

t.test('the table is that of RFC 3261 figure 5 with RFC 6026 §7.2', (t) => {
  t.strictSame(cells(inviteClient), [
    'calling provisional -> proceeding -A -B [pass releaseCancel]',
    'calling success -> accepted -A -B +M [pass]',
    'calling failure -> completed -A -B +D [ack pass]',
    'calling transportError -> terminated [transportError]',
    'calling timerA -> calling +A [resend]',
    'calling timerB -> terminated [timeout]',
    'proceeding provisional -> proceeding [pass]',
    'proceeding success -> accepted -A -B +M [pass]',
    'proceeding failure -> completed -A -B +D [ack pass]',
    'proceeding cancelSent -> proceeding +B []',
    'proceeding timerB -> terminated [timeout]',
    'completed failure -> completed [resendAck]',
    'completed transportError -> terminated [transportError]',
    'completed timerD -> terminated []',
    'accepted success -> accepted [pass]',
    'accepted timerM -> terminated []',
  ])
  t.strictSame(
    inviteClient.timerEvents,
    inviteClient.timers.map((timer) => `timer${timer}`),
  )
  t.equal(inviteClient.duration('D', 'completed', 0, false, { ...TIMERS, timerDMs: 40_000 }), 40_000)
  t.end()
})

t.test('Timer A doubles without a cap until Timer B gives up after 64*T1', (t) => {
  const rig = new Rig()
  rig.outgoing('INVITE')
  rig.pass(100_000)
  t.strictSame(rig.story(), [
    ...[500, 1500, 3500, 7500, 15_500, 31_500].map((ms) => `${ms} > INVITE`),
    '32000 timeout',
    '32000 terminated',
  ])
  t.strictSame(rig.layer.counts(), { inviteClient: 0, inviteServer: 0, nonInviteClient: 0, nonInviteServer: 0 })
  t.equal(rig.layer.nextTimeoutMs(), undefined)
  t.end()
})

t.test('on a stream nothing is retransmitted, and Timer B still gives up', (t) => {
  const rig = new Rig()
  rig.outgoing('INVITE', TCP)
  rig.pass(100_000)
  t.strictSame(rig.story(), ['32000 timeout', '32000 terminated'])
  t.end()
})

t.test('a provisional response stops Timers A and B, and every one goes to the TU', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('INVITE')
  rig.pass(600)
  rig.answer(request, 100)
  rig.answer(request, 180)
  rig.answer(request, 180)
  t.equal(rig.layer.nextTimeoutMs(), undefined, "how long it may ring is the TU's Timer C")
  rig.pass(170_000)
  t.strictSame(rig.story(), ['500 > INVITE', '600 response 100', '600 response 180', '600 response 180'])
  t.end()
})

t.test('every 2xx goes to the TU until Timer M, and the layer sends no ACK to it', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('INVITE')
  rig.answer(request, 200)
  rig.pass(1000)
  rig.answer(request, 200)
  rig.answer(request, 180)
  rig.answer(request, 486)
  rig.pass(30_999)
  t.equal(rig.layer.counts().inviteClient, 1)
  rig.pass(1)
  t.strictSame(rig.story(), ['0 response 200', '1000 response 200', '32000 terminated'])
  rig.answer(request, 200)
  t.strictSame(rig.story(), ['32000 strayResponse'])
  t.end()
})

t.test('Timer M runs on a stream too', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('INVITE', TCP)
  rig.answer(request, 200, TCP)
  rig.pass(40_000)
  t.strictSame(rig.story(), ['0 response 200', '32000 terminated'])
  t.end()
})

t.test('a 300-699 is acknowledged hop by hop, once to the TU, and again at each retransmission until Timer D', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('INVITE')
  rig.answer(request, 180)
  rig.answer(request, 486)
  rig.pass(500)
  rig.answer(request, 486)
  rig.answer(request, 200)
  rig.pass(31_499)
  rig.answer(request, 486)
  rig.pass(1)
  t.strictSame(rig.story(), ['0 response 180', '0 > ACK', '0 response 486', '500 > ACK', '31999 > ACK', '32000 terminated'])
  t.end()
})

t.test('on a stream Timer D is zero', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('INVITE', TCP)
  rig.answer(request, 404, TCP)
  t.strictSame(rig.story(), ['0 > ACK', '0 response 404', '0 terminated'])
  t.equal(rig.layer.nextTimeoutMs(), undefined)
  t.end()
})

t.test('the ACK has what §17.1.1.3 says', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('INVITE')
  rig.layer.handleResponse(responseTo(request, 486), { ...TCP }, 0)
  const sent = rig.take()[0]
  const text = sent?.kind === 'send' ? sent.bytes.toString('latin1') : ''
  t.equal(
    text,
    'ACK sip:bob@example.net SIP/2.0\r\n' +
      `Via: ${request.headers.get('Via')}\r\n` +
      'Max-Forwards: 70\r\nFrom: <sip:alice@example.net>;tag=a\r\nTo: <sip:bob@example.net>;tag=callee\r\n' +
      'Call-ID: call-1\r\nCSeq: 4711 ACK\r\nContent-Length: 0\r\n\r\n',
  )
  t.end()
})

t.test('a transport error while calling ends it; once a provisional response is here nothing was being sent', (t) => {
  const rig = new Rig()
  const first = rig.outgoing('INVITE')
  rig.layer.handleSendError(first.id, 0)
  t.strictSame(rig.story(), ['0 transportError', '0 terminated'])
  const second = rig.outgoing('INVITE')
  rig.answer(second.request, 180)
  rig.layer.handleSendError(second.id, 0)
  t.strictSame(rig.story(), ['0 response 180'])
  rig.answer(second.request, 500)
  rig.layer.handleSendError(second.id, 0)
  t.strictSame(rig.story(), ['0 > ACK', '0 response 500', '0 transportError', '0 terminated'], 'the ACK could not be sent')
  t.end()
})
