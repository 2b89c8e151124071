import t from 'tap'
import { checkMessage, type SipMessage, type SipRequest } from '../../../src/sip/message.ts'
import { parseMessage } from '../../../src/sip/parse.ts'
import { serialize } from '../../../src/sip/serialize.ts'
import { canonicalAor, parseNameAddr, parseUri, parseVia } from '../../../src/sip/uri.ts'

// Messages of RFC 4475, "SIP Torture Test Messages", and what this element makes of each.

const raw = (text: string): Buffer => Buffer.from(text.replace(/^\n/, '').replaceAll('\n', '\r\n'), 'utf8')

/** What comes out of parse and check; status 200 for a message that passes both. */
function judge(bytes: Buffer): { status: number; code: string; message?: SipMessage } {
  const parsed = parseMessage(bytes)
  if (!parsed.ok) return { status: parsed.fault.status, code: parsed.fault.code }
  const wrong = checkMessage(parsed.value)
  return wrong === undefined ? { status: 200, code: '', message: parsed.value } : { status: wrong.status, code: wrong.code }
}

function accepted(bytes: Buffer): SipMessage {
  const { status, code, message } = judge(bytes)
  if (message === undefined) throw new Error(`refused with ${status} ${code}`)
  // What passed is sent on and must pass again, and mean the same.
  const again = judge(serialize(message)).message
  if (again === undefined) throw new Error('refused after serialize')
  t.same([...again.headers.entries()], [...message.headers.entries()], 'headers survive a round')
  t.ok(again.body.equals(message.body), 'body survives a round')
  return message
}

function acceptedRequest(bytes: Buffer): SipRequest {
  const message = accepted(bytes)
  if (message.kind !== 'request') throw new Error('not a request')
  return message
}

const good = <T>(result: { ok: true; value: T } | { ok: false; fault: { detail: string } }): T => {
  if (!result.ok) throw new Error(result.fault.detail)
  return result.value
}

const SDP = `v=0
o=mhandley 29739 7272939 IN IP4 192.0.2.3
s=-
c=IN IP4 192.0.2.4
t=0 0
m=audio 49217 RTP/AVP 0 12
m=video 3227 RTP/AVP 31
a=rtpmap:31 LPC
`

const WSINV =
  String.raw`
INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0
TO :
 sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n
from   : "J Rosenberg \\\""       <sip:jdrosen@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : 150
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Content-Type: application/sdp
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:"Quoted string \"\"" <sip:jdrosen@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33

` + SDP

t.test('3.1.1.1 wsinv: a short tortuous INVITE is read through all its white space', async (t) => {
  const m = acceptedRequest(raw(WSINV))
  t.equal(m.method, 'INVITE')
  t.equal(m.to.uri, 'sip:vivekg@chair-dnrc.example.com')
  t.equal(m.toTag, '1918181833n')
  t.equal(m.from.display, 'J Rosenberg \\"')
  t.equal(m.fromTag, '98asjd8')
  t.same(m.cseq, { seq: 9, method: 'INVITE' })
  t.equal(m.headers.get('Subject'), '')
  t.equal(m.headers.get('NEWFANGLEDHEADER'), 'newfangled value continued newfangled value')
  t.equal(m.headers.get('Max-Forwards'), '0068')
  const vias = m.headers.values('Via').map((via) => good(parseVia(via)))
  t.same(
    vias.map((via) => [via.transport, via.host, via.branch]),
    [
      ['udp', '192.0.2.2', '390skdjuw'],
      ['tcp', 'spindle.example.com', 'z9hG4bK9ikj8'],
      ['udp', '192.168.255.111', 'z9hG4bK30239'],
    ],
  )
  const contact = good(parseNameAddr(m.headers.get('Contact')!))
  t.equal(contact.display, 'Quoted string ""')
  t.same(
    [...contact.params],
    [
      ['newparam', 'newvalue'],
      ['secondparam', ''],
      ['q', '0.33'],
    ],
  )
  t.equal(m.body.length, 150)
})

const INTMETH = `
!interesting-Method0123456789_*+\`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0
Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+\`'~
To: "BEL:\\\u0007 NUL:\\\u0000 DEL:\\\u007f" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>
From: token1~\` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%="\u0440\u0430\u0431\u043e\u0442\u0430\u044e\u0449\u0438\u0439";tag=_token~1'+\`*%!-.
Call-ID: intmeth.word%ZK-!.*_+'@word\`~)(><:\\/"][?}{
CSeq: 139122385 !interesting-Method0123456789_*+\`.%indeed'~
Max-Forwards: 255
extensionHeader-!.%*+_\`'~:\u5927\u505c\u96fb
Content-Length: 0

`

t.test('3.1.1.2 intmeth: the wide range of valid characters is let through', async (t) => {
  const m = acceptedRequest(raw(INTMETH))
  t.equal(m.method, "!interesting-Method0123456789_*+`.%indeed'~")
  const uri = good(m.parsedUri)
  t.equal(uri.user, "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*")
  t.equal(uri.password, "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
  t.equal(uri.host, 'example.com')
  t.equal(m.to.display, 'BEL:\u0007 NUL:\u0000 DEL:\u007f')
  t.equal(m.from.display, "token1~` token2'+_ token3*%!.-")
  t.equal(Buffer.from(m.from.params.get("fromparam''~+*_!.-%")!, 'latin1').toString('utf8'), 'работающий')
  t.equal(m.fromTag, "_token~1'+`*%!-.")
  t.equal(Buffer.from(m.headers.get("extensionheader-!.%*+_`'~")!, 'latin1').toString('utf8'), '大停電')
})

t.test('3.1.1.3 esc01: valid %-escapes stay as they are', async (t) => {
  const m = acceptedRequest(
    raw(`
INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0
To: sip:%75se%72@example.com
From: <sip:I%20have%20spaces@example.net>;tag=938
Max-Forwards: 87
i: esc01.239409asdfakjkn23onasd0-3234
CSeq: 234234 INVITE
Via: SIP/2.0/UDP host5.example.net;branch=z9hG4bKkdjuw
C: application/sdp
Contact:
  <sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>
Content-Length: 0

`),
  )
  t.equal(good(m.parsedUri).user, 'sips%3Auser%40example.com')
  t.same(canonicalAor(m.to.uri), { ok: true, value: 'sip:user@example.com' })
  const contact = good(parseUri(good(parseNameAddr(m.headers.get('m')!)).uri))
  t.same(
    [...contact.params],
    [
      ['%6c%72', ''],
      ['n%61me', 'v%61lue%25%34%31'],
    ],
  )
})

t.test('3.1.1.4 escnull: an escaped NUL is a character like others', async (t) => {
  const m = acceptedRequest(
    raw(`
REGISTER sip:example.com SIP/2.0
To: sip:null-%00-null@example.com
From: sip:null-%00-null@example.com;tag=839923423
Max-Forwards: 70
Call-ID: escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd
CSeq: 14398234 REGISTER
Via: SIP/2.0/UDP host5.example.com;branch=z9hG4bKkdjuw
Contact: <sip:%00@host5.example.com>
Contact: <sip:%00%00@host5.example.com>
L:0

`),
  )
  t.same(canonicalAor(m.to.uri), { ok: true, value: 'sip:null-%00-null@example.com' })
  t.same(m.headers.values('Contact'), ['<sip:%00@host5.example.com>', '<sip:%00%00@host5.example.com>'])
})

t.test('3.1.1.5 esc02: a % in a method is not an escape', async (t) => {
  const m = acceptedRequest(
    raw(`
RE%47IST%45R sip:registrar.example.com SIP/2.0
To: "%Z%45" <sip:resource@example.com>
From: "%Z%45" <sip:resource@example.com>;tag=f232jadfj23
Call-ID: esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf
Via: SIP/2.0/TCP host.example.com;branch=z9hG4bK209%fzsnel234
CSeq: 29344 RE%47IST%45R
Max-Forwards: 70
Contact: <sip:alias1@host1.example.com>
C%6Fntact: <sip:alias2@host2.example.com>
Contact: <sip:alias3@host3.example.com>
l: 0

`),
  )
  t.equal(m.method, 'RE%47IST%45R')
  t.equal(m.to.display, '%Z%45')
  t.equal(m.headers.count('Contact'), 2)
  t.equal(m.topVia.branch, 'z9hG4bK209%fzsnel234')
})

t.test('3.1.1.6 lwsdisp: no space is needed between display name and <', async (t) => {
  const m = acceptedRequest(
    raw(`
OPTIONS sip:user@example.com SIP/2.0
To: sip:user@example.com
From: caller<sip:caller@example.com>;tag=323
Max-Forwards: 70
Call-ID: lwsdisp.1234abcd@funky.example.com
CSeq: 60 OPTIONS
Via: SIP/2.0/UDP funky.example.com;branch=z9hG4bKkdjuw
l: 0

`),
  )
  t.equal(m.from.display, 'caller')
})

t.test('3.1.1.7 longreq: long values in header fields are taken whole', async (t) => {
  const m = acceptedRequest(
    raw(`
INVITE sip:user@example.com SIP/2.0
To: "I have a user name of ${'extreme'.repeat(10)} proportion"<sip:user@example.com:6000;unknownparam1=very${'long'.repeat(20)}value;longparam${'name'.repeat(25)}=shortvalue;very${'long'.repeat(25)}ParameterNameWithNoValue>
F: sip:${'amazinglylongcallername'.repeat(5)}@example.net;tag=12${'982'.repeat(50)}424;unknownheaderparam${'name'.repeat(20)}=unknowheaderparam${'value'.repeat(15)};unknownValueless${'paramname'.repeat(10)}
Call-ID: longreq.one${'really'.repeat(20)}longcallid
CSeq: 3882340 INVITE
Unknown-${'Long'.repeat(20)}-Name: unknown-${'long'.repeat(20)}-value; unknown-${'long'.repeat(20)}-parameter-name = unknown-${'long'.repeat(20)}-parameter-value
Via: SIP/2.0/TCP sip33.example.com
v: SIP/2.0/TCP sip32.example.com
V: SIP/2.0/TCP sip31.example.com
Via: SIP/2.0/TCP sip30.example.com
ViA: SIP/2.0/TCP sip29.example.com
VIa: SIP/2.0/TCP sip28.example.com
VIA: SIP/2.0/TCP sip27.example.com
via: SIP/2.0/TCP sip26.example.com
viA: SIP/2.0/TCP sip25.example.com
vIa: SIP/2.0/TCP sip24.example.com
vIA: SIP/2.0/TCP sip23.example.com
Max-Forwards: 70
Contact: <sip:amazinglylongcallername@host5.example.net>
Content-Type: application/sdp
l: 150

${SDP}`),
  )
  t.equal(m.headers.count('Via'), 11)
  t.equal(m.fromTag.length, 155)
  t.equal(m.body.length, 150)
})

t.test('3.1.1.8 dblreq: what follows the message in a datagram is ignored', async (t) => {
  const m = acceptedRequest(
    raw(`
REGISTER sip:example.com SIP/2.0
To: sip:j.user@example.com
From: sip:j.user@example.com;tag=43251j3j324
Max-Forwards: 8
I: dblreq.0ha0isndaksdj99sdfafnl3lk233412
Contact: sip:j.user@host.example.com
CSeq: 8 REGISTER
Via: SIP/2.0/UDP 192.0.2.125;branch=z9hG4bKkdjuw23492
Content-Length: 0


INVITE sip:joe@example.com SIP/2.0
t: sip:joe@example.com
From: sip:caller@example.net;tag=141334
`),
  )
  t.equal(m.method, 'REGISTER')
  t.equal(m.body.length, 0)
})

t.test('3.1.1.9 semiuri: semicolons in the user part belong to it', async (t) => {
  const m = acceptedRequest(
    raw(`
OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0
To: sip:j_user@example.com
From: sip:caller@example.org;tag=33242
Max-Forwards: 3
Call-ID: semiuri.0ha0isndaksdj
CSeq: 8 OPTIONS
Accept: application/sdp, application/pkcs7-mime,
        multipart/mixed, multipart/signed,
        message/sip, message/sipfrag
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKkdjuw
l: 0

`),
  )
  t.equal(good(m.parsedUri).user, 'user;par=u%40example.net')
  t.equal(m.headers.values('Accept').length, 6)
})

t.test('3.1.1.10 transports: a Via may name a transport that nobody knows', async (t) => {
  const m = acceptedRequest(
    raw(`
OPTIONS sip:user@example.com SIP/2.0
To: sip:user@example.com
From: <sip:caller@example.com>;tag=323
Max-Forwards: 70
Call-ID:  transports.kijh4akdnaqjkwendsasfdj
Accept: application/sdp
CSeq: 60 OPTIONS
Via: SIP/2.0/UDP t1.example.com;branch=z9hG4bKkdjuw
Via: SIP/2.0/SCTP t2.example.com;branch=z9hG4bKklasjdhf
Via: SIP/2.0/TLS t3.example.com;branch=z9hG4bK2980unddj
Via: SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bKasd0f3en
Via: SIP/2.0/TCP t5.example.com;branch=z9hG4bK0a9idfnee
l: 0

`),
  )
  t.same(
    m.headers.values('Via').map((via) => good(parseVia(via)).transport),
    ['udp', 'sctp', 'tls', 'unknown', 'tcp'],
  )
})

t.test('3.1.1.12 unreason: a reason phrase in UTF-8 keeps its bytes', async (t) => {
  const m = accepted(
    raw(`
SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять - простое
Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923
Call-ID: unreason.1234ksdfak3j2erwedfsASdf
CSeq: 35 INVITE
From: sip:user@example.com;tag=11141343
To: sip:user@example.edu;tag=2229
Content-Length: 0
Contact: <sip:user@host198.example.com>

`),
  )
  t.ok(m.kind === 'response' && m.status === 200 && Buffer.from(m.reason, 'latin1').toString('utf8').endsWith('простое'))
})

t.test('3.1.1.13 noreason: a reason phrase may be empty', async (t) => {
  const m = accepted(
    raw(`
SIP/2.0 100 ${''}
Via: SIP/2.0/UDP 192.0.2.105;branch=z9hG4bK2398ndaoe
Call-ID: noreason.asndj203insdf99223ndf
CSeq: 35 INVITE
From: <sip:user@example.com>;tag=39ansfi3
To: <sip:user@example.edu>;tag=902jndnke3
Content-Length: 0
Contact: <sip:user@host105.example.com>

`),
  )
  t.ok(m.kind === 'response' && m.status === 100 && m.reason === '')
})

/** A request that is well but for what the test puts in. */
const options = (o: {
  line?: string
  to?: string
  from?: string
  cseq?: string
  via?: string
  more?: string
  length?: string
  body?: string
}): string => `
${o.line ?? 'OPTIONS sip:user@example.com SIP/2.0'}
${o.via ?? 'Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKkdjuw'}
To: ${o.to ?? 'sip:user@example.com'}
From: ${o.from ?? '<sip:caller@example.com>;tag=323'}
Max-Forwards: 70
Call-ID: torture.1234abcd@funky.example.com
CSeq: ${o.cseq ?? '60 OPTIONS'}
${o.more ?? 'User-Agent: torture'}
${o.length ?? 'l: 0'}

${o.body ?? ''}`

/** Section, what is wrong, message, status to answer (0: drop), code. */
const INVALID: readonly (readonly [section: string, what: string, text: string, status: number, code: string])[] = [
  [
    '3.1.2.1 badinv01',
    'extraneous separators in Via',
    `
INVITE sip:user@example.com SIP/2.0
To: sip:j.user@example.com
From: sip:caller@example.net;tag=134161461246
Max-Forwards: 7
Call-ID: badinv01.0ha0isndaksdjasdf3234nas
CSeq: 8 INVITE
Via: SIP/2.0/UDP 192.0.2.15;;,;,,
Contact: "Joe" <sip:joe@example.org>;;;;
Content-Length: 152
Content-Type: application/sdp

${SDP}  `,
    400,
    'SIP_PARAM',
  ],
  [
    '3.1.2.2 clerr',
    'Content-Length larger than the message',
    options({ length: 'Content-Length: 9999', body: SDP }),
    400,
    'SIP_BODY_SHORT',
  ],
  ['3.1.2.3 ncl', 'negative Content-Length', options({ length: 'Content-Length: -999', body: SDP }), 400, 'SIP_CONTENT_LENGTH'],
  [
    '3.1.2.4 scalar02',
    'a scalar that is too large',
    `
REGISTER sip:example.com SIP/2.0
Via: SIP/2.0/TCP host129.example.com;branch=z9hG4bK342sdfoi3
To: <sip:user@example.com>
From: <sip:user@example.com>;tag=239232jh3
CSeq: 36893488147419103232 REGISTER
Call-ID: scalar02.23o0pd9vanlq3wnrlnewofjas9ui32
Max-Forwards: 300
Expires: 10000000000000000000000000000000000000000000000000000000000000000000000000
Contact: <sip:user@host129.example.com>
  ;expires=280297596632815
Content-Length: 0

`,
    400,
    'SIP_CSEQ',
  ],
  [
    '3.1.2.5 scalarlg',
    'a response with a scalar that is too large',
    `
SIP/2.0 503 Service Unavailable
Via: SIP/2.0/TCP host129.example.com;branch=z9hG4bKzzxdiwo34sw;received=192.0.2.129
To: <sip:user@example.com>
From: <sip:other@example.net>;tag=2easdjfejw
CSeq: 9292394834772304023312 OPTIONS
Call-ID: scalarlg.noase0of0234hn2qofoaf0232aewf2394r
Retry-After: 949302838503028349304023988
Warning: 1812 overture "In Progress"
Content-Length: 0

`,
    0,
    'SIP_CSEQ',
  ],
  [
    '3.1.2.6 quotbal',
    'a quote that does not close in To',
    options({ to: '"Mr. J. User <sip:j.user@example.com>' }),
    400,
    'SIP_NAME_ADDR',
  ],
  ['3.1.2.7 ltgtruri', '<> around the Request-URI', options({ line: 'OPTIONS <sip:user@example.com> SIP/2.0' }), 400, 'SIP_URI'],
  [
    '3.1.2.8 lwsruri',
    'space in the Request-URI',
    options({ line: 'OPTIONS sip:user@example.com; lr SIP/2.0' }),
    400,
    'SIP_START_LINE',
  ],
  [
    '3.1.2.9 lwsstart',
    'several spaces in the start line',
    options({ line: 'OPTIONS  sip:user@example.com  SIP/2.0' }),
    400,
    'SIP_START_LINE',
  ],
  [
    '3.1.2.10 trws',
    'space at the end of the start line',
    options({ line: 'OPTIONS sip:user@example.com SIP/2.0  ' }),
    400,
    'SIP_START_LINE',
  ],
  [
    '3.1.2.11 escruri',
    'headers in the Request-URI',
    options({ line: 'OPTIONS sip:user@example.com?Route=%3Csip:example.com%3E SIP/2.0' }),
    400,
    'SIP_URI',
  ],
  [
    '3.1.2.14 badaspec',
    'space within <>',
    options({ to: '"Watson, Thomas" < sip:t.watson@example.org >' }),
    400,
    'SIP_NAME_ADDR',
  ],
  [
    '3.1.2.15 baddn',
    'a display name that needs quotes',
    options({ from: 'Bell, Alexander <sip:a.g.bell@example.com>;tag=43' }),
    400,
    'SIP_NAME_ADDR',
  ],
  ['3.1.2.16 badvers', 'an unknown version', options({ line: 'OPTIONS sip:t.watson@example.org SIP/7.0' }), 505, 'SIP_VERSION'],
  ['3.1.2.17 mismatch01', 'CSeq of another method', options({ cseq: '8 INVITE' }), 400, 'SIP_CSEQ'],
  [
    '3.1.2.18 mismatch02',
    'CSeq of another method, unknown method',
    options({ line: 'NEWMETHOD sip:user@example.com SIP/2.0', cseq: '8 INVITE' }),
    400,
    'SIP_CSEQ',
  ],
  [
    '3.1.2.19 bigcode',
    'a response code out of range',
    `
SIP/2.0 4294967301 better not break the receiver
Via: SIP/2.0/UDP 192.0.2.105;branch=z9hG4bK2398ndaoe
Call-ID: bigcode.asdof3uj203asdnf3429uasdhfas3ehjasdfas9i
CSeq: 353494 INVITE
From: <sip:user@example.com>;tag=39ansfi3
To: <sip:user@example.edu>;tag=902jndnke3
Content-Length: 0
Contact: <sip:user@host105.example.com>

`,
    0,
    'SIP_START_LINE',
  ],
  [
    '3.3.1 insuf',
    'From, To and Call-ID missing',
    `
INVITE sip:user@example.com SIP/2.0
CSeq: 193942 INVITE
Via: SIP/2.0/UDP 192.0.2.95;branch=z9hG4bKkdj.insuf
Content-Type: application/sdp
l: 0

`,
    400,
    'SIP_HEADER_MISSING',
  ],
  [
    '3.3.2 unkscm',
    'a Request-URI of an unknown scheme',
    options({ line: 'OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0' }),
    416,
    'SIP_URI_SCHEME',
  ],
  [
    '3.3.3 novelsc',
    'a Request-URI of a scheme that is not for SIP',
    options({ line: 'OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0' }),
    416,
    'SIP_URI_SCHEME',
  ],
  [
    '3.3.8 multi01',
    'several values where there may be one',
    `
INVITE sip:user@company.com SIP/2.0
Contact: <sip:caller@host25.example.net>
Via: SIP/2.0/UDP 192.0.2.25;branch=z9hG4bKkdjuw
Max-Forwards: 70
CSeq: 5 INVITE
Call-ID: multi01.98asdh@192.0.2.1
CSeq: 59 INVITE
Call-ID: multi01.98asdh@192.0.2.2
From: sip:caller@example.com;tag=3413415
To: sip:user@example.com
To: sip:other@example.net
From: sip:caller@example.net;tag=2923420123
Content-Type: application/sdp
l: 150
Contact: <sip:caller@host36.example.net>
Max-Forwards: 5

${SDP}`,
    400,
    'SIP_HEADER_TWICE',
  ],
  [
    '3.3.9 mcl01',
    'two Content-Lengths',
    options({
      more: 'Content-Length: 13',
      length: 'Content-Length: 5',
      body: 'There’s no way to know how many octets are supposed to be here.',
    }),
    400,
    'SIP_CONTENT_LENGTH',
  ],
]

for (const [section, what, text, status, code] of INVALID) {
  t.test(`${section}: ${what} gives ${status === 0 ? 'no answer' : status}`, async (t) => {
    const verdict = judge(raw(text))
    t.equal(verdict.code, code)
    t.equal(verdict.status, status)
  })
}

t.test('the request that the invalid ones are made from is itself accepted', async (t) => {
  t.equal(judge(raw(options({}))).status, 200)
})

t.test('3.1.2.13 regbadct: a Contact that needs <> is a fault of that Contact', async (t) => {
  const contact = parseNameAddr('sip:user@example.com?Route=%3Csip:sip.example.com%3E')
  t.equal(contact.ok, false)
})

t.test('3.3.14 regescrt: in <> the headers of a Contact belong to its URI', async (t) => {
  const contact = good(parseNameAddr('<sip:user@example.com?Route=%3Csip:sip.example.com%3E>'))
  t.equal(good(parseUri(contact.uri)).headers, 'Route=%3Csip:sip.example.com%3E')
})

t.test('3.3.12 cparam01 and cparam02: parameters in and outside of <> are told apart', async (t) => {
  const outside = good(parseNameAddr('sip:+19725552222@gw1.example.net;unknownparam'))
  t.same([[...outside.params], good(parseUri(outside.uri)).params.size], [[['unknownparam', '']], 0])
  const inside = good(parseNameAddr('<sip:+19725552222@gw1.example.net;unknownparam>'))
  t.same([inside.params.size, [...good(parseUri(inside.uri)).params]], [0, [['unknownparam', '']]])
})

t.test('3.4.1 inv2543: a request without a From tag is refused, RFC 2543 is not spoken', async (t) => {
  const verdict = judge(raw(options({ from: 'Guest <sip:guest@example.com>' })))
  t.same([verdict.status, verdict.code], [400, 'SIP_FROM_TAG'])
})
