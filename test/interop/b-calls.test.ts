import t from 'tap'
import type { Cdr } from '../../src/cdr/call-record.ts'
import { Demo, missing, registration, until } from './demo.ts'

const skip = missing('sipp')

t.test('B: calls between regions and their CDRs', { skip: skip ?? false, timeout: 180_000 }, async (t) => {
  const demo = await Demo.start()
  t.teardown(() => demo.stop())
  const answering = 6070
  demo.uas('uas.xml', answering)
  demo.uas('uas.xml', 6075)
  demo.uas('uas-busy.xml', 6071)
  demo.uas('uas-ringing.xml', 6072)
  // Nobody listens on 6079: a phone that is off.
  const lines = [
    registration('u1', { port: answering }),
    registration('busy', { port: 6071 }),
    registration('ringing', { port: 6072 }),
    registration('off', { port: 6079 }),
    // SIPp takes no second call with a Call-ID that it has had: the second one is answered by another.
    registration('first', { port: answering }),
    registration('second', { port: 6075 }),
  ]
  t.equal((await demo.sipp('register.xml', 'us-east-1', lines)).code, 0)
  await until('registered in eu-west', 2000, async () => (await demo.registrations('eu-west-2', 'off')).bindings.length === 1)
  const byCallee = async (user: string, count = 1): Promise<Cdr[]> =>
    until(`${count} CDR of ${user}`, 5000, async () => {
      const found = (await demo.cdrs()).filter((c) => c.callee === `sip:${user}@example.net` && c.endMs > 0)
      return found.length >= count && found
    })

  t.test('answered, held 1 s, ended: one CDR with everything in it', async (t) => {
    const call = await demo.sipp('call.xml', 'eu-west-2', ['u1'], { holdMs: 1000 })
    t.equal(call.code, 0, call.code === 0 ? 'SIPp is content' : call.output)
    const [cdr, ...more] = await byCallee('u1')
    t.same(more, [])
    const answer = call.log.find((l) => l.what === 'answer')!
    const bye = call.log.find((l) => l.what === 'bye')!
    t.equal(cdr!.callId, answer.callId)
    t.equal(cdr!.caller, 'sip:caller@example.net')
    t.equal(cdr!.status, 200)
    t.equal(cdr!.hungUpBy, 'caller')
    t.ok(Math.abs(cdr!.answerMs - answer.atMs) < 100, `answer off by ${cdr!.answerMs - answer.atMs} ms`)
    t.ok(Math.abs(cdr!.endMs - bye.atMs) < 100, `end off by ${cdr!.endMs - bye.atMs} ms`)
    t.ok(Math.abs(cdr!.durationMs - (bye.atMs - answer.atMs)) < 100, `duration ${cdr!.durationMs} ms`)
    t.ok(cdr!.startMs > 0 && cdr!.startMs <= cdr!.answerMs)
    for (const part of ['attempt', 'start', 'end'] as const) {
      t.match(
        cdr!.parts.find((p) => p.part === part),
        { region: 'eu-west', node: 'eu-west-2' },
        part,
      )
    }
  })

  t.test('refused: the CDR has the phone’s status', async (t) => {
    const call = await demo.sipp('call-refused.xml', 'eu-west-2', ['busy'], { replace: { STATUS: '486' } })
    t.equal(call.code, 0, call.code === 0 ? 'SIPp is content' : call.output)
    t.match((await byCallee('busy'))[0], { status: 486, answerMs: 0, durationMs: 0 })
  })

  t.test('cancelled: 487', async (t) => {
    const call = await demo.sipp('call-cancelled.xml', 'eu-west-2', ['ringing'], { holdMs: 300 })
    t.equal(call.code, 0, call.code === 0 ? 'SIPp is content' : call.output)
    t.match((await byCallee('ringing'))[0], { status: 487, answerMs: 0, reason: 'cancelled' })
  })

  t.test('unanswered: a phone that is off is given up after 2 s, with 408', async (t) => {
    const call = await demo.sipp('call-refused.xml', 'us-east-1', ['off'], { replace: { STATUS: '408' } })
    t.equal(call.code, 0, call.code === 0 ? 'SIPp is content' : call.output)
    t.match((await byCallee('off'))[0], { status: 408, answerMs: 0, reason: 'timeout' })
  })

  t.test('unknown users get a CDR as well', async (t) => {
    const call = await demo.sipp('call-refused.xml', 'ap-south-1', ['nobody-here'], { replace: { STATUS: '404' } })
    t.equal(call.code, 0, call.code === 0 ? 'SIPp is content' : call.output)
    t.match((await byCallee('nobody-here'))[0], { status: 404 })
  })

  t.test('any node tells of the calls of the whole cluster when it is asked to', async (t) => {
    const { cdrs } = await demo.get<{ cdrs: Cdr[] }>('ap-south-2', '/v1/cdrs?scope=cluster')
    const found = cdrs.filter((c) => c.callee === 'sip:u1@example.net')
    t.equal(found.length, 1)
    t.match(found[0], { status: 200, state: 'complete' })
  })

  t.test('the same Call-ID, tags and branch used again is a second call', async (t) => {
    const fixed = { 'tag=c[pid]-[call_number]': 'tag=same', 'branch=[branch]': 'branch=z9hG4bK-same-[msg_index]' }
    for (let i = 0; i < 2; i++) {
      const call = await demo.sipp('call.xml', i === 0 ? 'eu-west-2' : 'us-east-2', [i === 0 ? 'first' : 'second'], {
        holdMs: 200,
        callId: 'same-call-id',
        replace: fixed,
      })
      t.equal(call.code, 0, call.code === 0 ? 'SIPp is content' : call.output)
    }
    const cdrs = await until('two CDRs', 5000, async () => {
      const found = (await demo.cdrs()).filter((c) => c.callId === 'same-call-id' && c.endMs > 0)
      return found.length >= 2 && found
    })
    t.equal(cdrs.length, 2)
    t.not(cdrs[0]!.id, cdrs[1]!.id)
  })
})
