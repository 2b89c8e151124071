import t from 'tap'
import { Headers } from '../../../src/sip/headers.ts'
import { checkMessage, SipRequest, SipResponse } from '../../../src/sip/message.ts'

const headers = (lines: Record<string, string> = {}): Headers => {
  const h = new Headers()
  const all = {
    Via: 'SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa',
    From: '<sip:a@b>;tag=1',
    To: '<sip:c@d>',
    'Call-ID': 'x',
    CSeq: '7 INVITE',
    ...lines,
  }
  for (const [name, value] of Object.entries(all)) if (value !== 'none') h.append(name, value)
  return h
}
const invite = (lines: Record<string, string> = {}, uri = 'sip:c@d'): SipRequest => new SipRequest('INVITE', uri, headers(lines))

t.test('typed getters read what the headers say, and keep it while they say the same', async (t) => {
  const m = invite()
  t.same([m.callId, m.cseq, m.fromTag, m.toTag, m.topVia.branch], ['x', { seq: 7, method: 'INVITE' }, '1', '', 'z9hG4bKa'])
  t.equal(m.from, m.from)
  t.equal(m.topVia, m.topVia)
  t.equal(m.parsedUri, m.parsedUri)
})

t.test('a header that changes is read again, whatever door it changed through', async (t) => {
  const m = invite()
  t.equal(m.toTag, '')
  m.headers.set('To', '<sip:c@d>;tag=2')
  t.equal(m.toTag, '2')
  t.equal(m.topVia.branch, 'z9hG4bKa')
  m.headers.prepend('Via', 'SIP/2.0/TCP h;branch=z9hG4bKb')
  t.equal(m.topVia.branch, 'z9hG4bKb')
  m.headers.replaceFirstValue('Via', 'SIP/2.0/TCP h;branch=z9hG4bKc')
  t.equal(m.topVia.branch, 'z9hG4bKc')
  m.headers.removeFirstValue('Via')
  t.equal(m.topVia.branch, 'z9hG4bKa')
  t.equal(m.cseq.seq, 7)
  m.headers.set('CSeq', '8 INVITE')
  t.equal(m.cseq.seq, 8)
  m.uri = 'sip:other@d'
  t.ok(m.parsedUri.ok && m.parsedUri.value.user === 'other')
})

t.test('a header that is missing or malformed throws by getter and is a fault by result', async (t) => {
  const m = invite({ From: 'nonsense', To: 'none', CSeq: 'x', Via: 'none', 'Call-ID': 'none' })
  for (const read of [() => m.from, () => m.fromTag, () => m.to, () => m.toTag, () => m.cseq, () => m.topVia, () => m.callId]) {
    t.throws(read, { code: 'SIP_HEADER_MALFORMED' })
  }
  t.notOk(m.parsedFrom.ok || m.parsedTo.ok || m.parsedCSeq.ok || m.parsedTopVia.ok)
})

t.test('a copy goes its own way, parsed forms included', async (t) => {
  const m = invite()
  m.topVia.params.set('received', '192.0.2.9')
  const copy = m.copy()
  t.notOk(copy.topVia.params.has('received'))
  copy.headers.set('CSeq', '9 INVITE')
  copy.uri = 'sip:z@d'
  t.same([m.cseq.seq, m.uri, copy.cseq.seq], [7, 'sip:c@d', 9])
  const res = new SipResponse(200, 'OK', headers(), Buffer.from('b'))
  t.same([res.copy().status, res.copy().reason, res.copy().body.toString()], [200, 'OK', 'b'])
})

t.test('what is complete and well formed passes the check', async (t) => {
  t.equal(checkMessage(invite()), undefined)
  t.equal(checkMessage(invite({ 'Max-Forwards': '255', 'Content-Length': '0', To: 'sip:c@d;tag=x' }, 'tel:+1201')), undefined)
  t.equal(checkMessage(new SipResponse(200, 'OK', headers({ CSeq: '7 BYE' }))), undefined)
})

t.test('each thing that is wrong has its status and its code', async (t) => {
  const table: [SipRequest, number, string][] = [
    [invite({ Via: 'none' }), 400, 'SIP_HEADER_MISSING'],
    [invite({ From: 'none' }), 400, 'SIP_HEADER_MISSING'],
    [invite({ To: 'none' }), 400, 'SIP_HEADER_MISSING'],
    [invite({ 'Call-ID': 'none' }), 400, 'SIP_HEADER_MISSING'],
    [invite({ CSeq: 'none' }), 400, 'SIP_HEADER_MISSING'],
    [invite({ Via: '' }), 400, 'SIP_VIA'],
    [invite({ Via: 'SIP/2.0/UDP h, nonsense' }), 400, 'SIP_VIA'],
    [invite({ Via: 'SIP/2.0/UDP h,' }), 400, 'SIP_VIA'],
    [invite({ From: '<sip:a@b>' }), 400, 'SIP_FROM_TAG'],
    [invite({ From: '<sip:a@b>;tag' }), 400, 'SIP_FROM_TAG'],
    [invite({ To: '<sip:a@b>;tag' }), 400, 'SIP_TO_TAG'],
    [invite({ CSeq: '7 BYE' }), 400, 'SIP_CSEQ'],
    [invite({ CSeq: '7 invite' }), 400, 'SIP_CSEQ'],
    [invite({ CSeq: '2147483648 INVITE' }), 400, 'SIP_CSEQ'],
    [invite({ CSeq: '-1 INVITE' }), 400, 'SIP_CSEQ'],
    [invite({ CSeq: '7' }), 400, 'SIP_CSEQ'],
    [invite({ CSeq: '7 INVITE x' }), 400, 'SIP_CSEQ'],
    [invite({ 'Call-ID': '' }), 400, 'SIP_CALL_ID'],
    [invite({ 'Call-ID': 'two words' }), 400, 'SIP_CALL_ID'],
    [invite({ 'Max-Forwards': '256' }), 400, 'SIP_MAX_FORWARDS'],
    [invite({ 'Max-Forwards': '-1' }), 400, 'SIP_MAX_FORWARDS'],
    [invite({ 'Content-Length': 'x' }), 400, 'SIP_CONTENT_LENGTH'],
    [invite({}, 'nonsense'), 400, 'SIP_URI'],
    [invite({}, 'sip:a@.b'), 400, 'SIP_HOST'],
    [invite({}, 'sip:a@b?x=y'), 400, 'SIP_URI'],
    [invite({}, 'http://a/b'), 416, 'SIP_URI_SCHEME'],
  ]
  for (const [m, status, code] of table) {
    const wrong = checkMessage(m)
    t.same([wrong?.status, wrong?.code], [status, code], wrong?.detail ?? 'passed')
  }
})

t.test('a CSeq of 2^31 - 1 is the highest', async (t) => {
  t.equal(checkMessage(invite({ CSeq: '2147483647 INVITE' })), undefined)
})

t.test('after the check every Via that comes to the top can be read', async (t) => {
  const m = invite({ Via: 'SIP/2.0/UDP a;branch=1, SIP/2.0/TCP b;branch=2' })
  m.headers.append('Via', 'SIP/2.0/TLS c;branch=3')
  t.equal(checkMessage(m), undefined)
  const branches: string[] = []
  while (m.headers.has('Via')) {
    branches.push(m.topVia.branch)
    m.headers.removeFirstValue('Via')
  }
  t.same(branches, ['1', '2', '3'])
})

t.test('what is wrong in a response or an ACK has no status to answer', async (t) => {
  t.equal(checkMessage(new SipResponse(200, 'OK', headers({ To: 'none' })))?.status, 0)
  t.equal(checkMessage(new SipRequest('ACK', 'sip:a@b', headers()))?.status, 0)
})
