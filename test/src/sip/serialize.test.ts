import t from 'tap'
import { SipRequest, SipResponse } from '../../../src/sip/message.ts'
import { serialize } from '../../../src/sip/serialize.ts'

t.test('Content-Length is that of the body, in its old place or last, and once', async (t) => {
  const m = new SipRequest('OPTIONS', 'sip:a@b')
  m.headers.append('To', '<sip:a@b>')
  t.equal(serialize(m).toString(), 'OPTIONS sip:a@b SIP/2.0\r\nTo: <sip:a@b>\r\nContent-Length: 0\r\n\r\n')
  m.headers.prepend('l', '99')
  m.headers.append('Content-Length', '98')
  m.body = Buffer.from('grüße')
  t.equal(serialize(m).toString(), 'OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 7\r\nTo: <sip:a@b>\r\n\r\ngrüße')
})

t.test('compact names are written in full', async (t) => {
  const m = new SipResponse(200, 'OK')
  for (const name of ['v', 'f', 't', 'i', 'm']) m.headers.append(name, 'x')
  t.equal(
    serialize(m).toString(),
    'SIP/2.0 200 OK\r\nVia: x\r\nFrom: x\r\nTo: x\r\nCall-ID: x\r\nContact: x\r\nContent-Length: 0\r\n\r\n',
  )
})

t.test('a start line with a line break, or with what latin1 would cut to one, is our own defect', async (t) => {
  t.throws(() => serialize(new SipRequest('OPTIONS', 'sip:a@b SIP/2.0\r\nEvil: 1')), { code: 'SIP_START_LINE_UNFIT' })
  t.throws(() => serialize(new SipResponse(200, 'OK\n')), { code: 'SIP_START_LINE_UNFIT' })
  t.throws(() => serialize(new SipResponse(200, '\u010d\u010a')), { code: 'SIP_START_LINE_UNFIT' })
})
