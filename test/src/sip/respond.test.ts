import t from 'tap'
import { checkMessage, SipRequest } from '../../../src/sip/message.ts'
import { makeResponse } from '../../../src/sip/respond.ts'

const request = (): SipRequest => {
  const m = new SipRequest('INVITE', 'sip:c@d')
  m.headers.append('Via', 'SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK2')
  m.headers.append('Via', 'SIP/2.0/UDP c;branch=z9hG4bK3')
  m.headers.append('Max-Forwards', '70')
  m.headers.append('Record-Route', '<sip:p;lr>')
  m.headers.append('Timestamp', '54')
  m.headers.append('From', '"A" <sip:a@b>;tag=1')
  m.headers.append('To', 'sip:c@d')
  m.headers.append('Call-ID', 'x')
  m.headers.append('CSeq', '7 INVITE')
  m.body = Buffer.from('sdp')
  return m
}

t.test('RFC 3261 §8.2.6: a response has the Vias, From, To, Call-ID and CSeq of its request, and nothing else', async (t) => {
  const res = makeResponse(request(), 486)
  t.same(
    [...res.headers.entries()],
    [
      ['Via', 'SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK2'],
      ['Via', 'SIP/2.0/UDP c;branch=z9hG4bK3'],
      ['From', '"A" <sip:a@b>;tag=1'],
      ['To', 'sip:c@d'],
      ['Call-ID', 'x'],
      ['CSeq', '7 INVITE'],
    ],
  )
  t.same([res.status, res.reason, res.body.length], [486, 'Busy Here', 0])
  t.equal(checkMessage(res), undefined)
})

t.test('the reason is the one given, else the registered one, else that of its class', async (t) => {
  t.equal(makeResponse(request(), 480, 'Gone Fishing').reason, 'Gone Fishing')
  t.equal(makeResponse(request(), 423).reason, 'Interval Too Brief')
  t.equal(makeResponse(request(), 499).reason, 'Client Error')
})

t.test('a To tag is added where there is none, and never over one', async (t) => {
  const plain = makeResponse(request(), 200, undefined, 'mine')
  t.equal(plain.toTag, 'mine')
  const tagged = request()
  tagged.headers.set('To', '<sip:c@d>;tag=theirs')
  t.equal(makeResponse(tagged, 200, undefined, 'mine').headers.get('To'), '<sip:c@d>;tag=theirs')
  t.equal(makeResponse(request(), 200, undefined, '').headers.get('To'), 'sip:c@d')
})

t.test('Timestamp goes into a 100 alone', async (t) => {
  t.equal(makeResponse(request(), 100).headers.get('Timestamp'), '54')
  t.notOk(makeResponse(request(), 180).headers.has('Timestamp'))
})

t.test('what is missing or malformed in the request does not stop an answer', async (t) => {
  const m = new SipRequest('INVITE', '')
  m.headers.append('Via', 'SIP/2.0/UDP a;branch=z9hG4bK1')
  m.headers.append('To', '"unbalanced <sip:c@d>')
  const res = makeResponse(m, 400, undefined, 'mine')
  t.same(
    [...res.headers.entries()],
    [
      ['Via', 'SIP/2.0/UDP a;branch=z9hG4bK1'],
      ['To', '"unbalanced <sip:c@d>'],
    ],
  )
})
