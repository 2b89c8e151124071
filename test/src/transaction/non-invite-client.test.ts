import t from 'tap'
import { nonInviteClient } from '../../../src/transaction/non-invite-client.ts'
import { cells, Rig, TCP } from './rig.ts'

t.test('the table is that of RFC 3261 figure 6', (t) => {
  t.strictSame(cells(nonInviteClient), [
    'trying provisional -> proceeding [pass]',
    'trying final -> completed -E -F +K [pass]',
    'trying transportError -> terminated [transportError]',
    'trying timerE -> trying +E [resend]',
    'trying timerF -> terminated [timeout]',
    'proceeding provisional -> proceeding [pass]',
    'proceeding final -> completed -E -F +K [pass]',
    'proceeding transportError -> terminated [transportError]',
    'proceeding timerE -> proceeding +E [resend]',
    'proceeding timerF -> terminated [timeout]',
    'completed timerK -> terminated []',
  ])
  t.strictSame(
    nonInviteClient.timerEvents,
    nonInviteClient.timers.map((timer) => `timer${timer}`),
  )
  t.end()
})

t.test('Timer E doubles up to T2 until Timer F gives up', (t) => {
  const rig = new Rig()
  rig.outgoing('OPTIONS')
  rig.pass(100_000)
  t.strictSame(rig.story(), [
    ...[500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500].map((ms) => `${ms} > OPTIONS`),
    '32000 timeout',
    '32000 terminated',
  ])
  t.equal(rig.layer.counts().nonInviteClient, 0)
  t.end()
})

t.test('after a provisional response Timer E fires as armed and then every T2', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('BYE')
  rig.pass(600)
  rig.answer(request, 100)
  rig.answer(request, 183)
  rig.pass(10_000)
  rig.answer(request, 200)
  rig.pass(10_000)
  t.strictSame(rig.story(), [
    '500 > BYE',
    '600 response 100',
    '600 response 183',
    '1500 > BYE',
    '5500 > BYE',
    '9500 > BYE',
    '10600 response 200',
    '15600 terminated',
  ])
  t.end()
})

t.test('Timer F gives up in Proceeding too', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('BYE', TCP)
  rig.answer(request, 100, TCP)
  rig.pass(40_000)
  t.strictSame(rig.story(), ['0 response 100', '32000 timeout', '32000 terminated'])
  t.end()
})

t.test('one final response goes to the TU, 300-699 like 2xx, and Timer K absorbs the rest', (t) => {
  for (const status of [200, 302, 401, 503, 600]) {
    const rig = new Rig()
    const { request } = rig.outgoing('REGISTER')
    rig.answer(request, status)
    rig.answer(request, status)
    rig.answer(request, 100)
    rig.pass(4999)
    t.equal(rig.layer.counts().nonInviteClient, 1)
    rig.pass(1)
    t.strictSame(rig.story(), [`0 response ${status}`, '5000 terminated'])
  }
  t.end()
})

t.test('on a stream nothing is retransmitted and Timer K is zero', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('MESSAGE', TCP)
  rig.pass(5000)
  rig.answer(request, 202, TCP)
  t.strictSame(rig.story(), ['5000 response 202', '5000 terminated'])
  t.end()
})

t.test('a transport error ends it while it waits, and does nothing afterwards', (t) => {
  const rig = new Rig()
  const trying = rig.outgoing('OPTIONS')
  rig.layer.handleSendError(trying.id, 0)
  t.strictSame(rig.story(), ['0 transportError', '0 terminated'])
  const proceeding = rig.outgoing('OPTIONS')
  rig.answer(proceeding.request, 100)
  rig.layer.handleSendError(proceeding.id, 0)
  t.strictSame(rig.story(), ['0 response 100', '0 transportError', '0 terminated'])
  const completed = rig.outgoing('OPTIONS')
  rig.answer(completed.request, 200)
  rig.layer.handleSendError(completed.id, 0)
  t.strictSame(rig.story(), ['0 response 200'])
  t.end()
})
