import { raw, type TortureMessage } from './message.ts'

// RFC 5118 §4: IPv6 in SIP. All but §4.2 are to be understood.

const registerOf = (uri: string, early: boolean): Buffer =>
  raw(`
REGISTER ${uri} SIP/2.0
To: sip:user@example.com
From: sip:user@example.com;tag=81x2
Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111
Call-ID: SSG9559905523997077@hlau_4100
${early ? 'Max-Forwards: 70\nContact: "Caller" <sip:caller@[2001:db8::1]>' : 'Contact: "Caller" <sip:caller@[2001:db8::1]>\nMax-Forwards: 70'}
CSeq: 98176 REGISTER
Content-Length: 0

`)

const optionsOf = (address: string): Buffer =>
  raw(`
OPTIONS sip:user@${address} SIP/2.0
To: sip:user@${address}
From: sip:user@example.com;tag=810x2
Via: SIP/2.0/UDP lab1.east.example.com;branch=z9hG4bKas3-111
Call-ID: G9559905523997077@hlau_4100
CSeq: 689 OPTIONS
Max-Forwards: 70
Content-Length: 0

`)

export const IPV6: readonly TortureMessage[] = [
  {
    name: 'ipv6-good',
    section: '4.1',
    what: 'an IPv6 reference in Request-URI, Via and Contact',
    code: '',
    answer: 200,
    bytes: registerOf('sip:[2001:db8::10]', true),
  },
  {
    name: 'ipv6-bad',
    section: '4.2',
    what: 'an IPv6 address without its brackets',
    code: 'SIP_HOST',
    answer: 400,
    bytes: registerOf('sip:2001:db8::10', true),
  },
  {
    name: 'port-ambiguous',
    section: '4.3',
    what: 'what was meant as a port is part of the address',
    code: '',
    answer: 200,
    bytes: registerOf('sip:[2001:db8::10:5070]', false),
  },
  {
    name: 'port-unambiguous',
    section: '4.4',
    what: 'a port after the brackets',
    code: '',
    answer: 200,
    bytes: registerOf('sip:[2001:db8::10]:5070', false),
  },
  {
    name: 'via-received-param-with-delim',
    section: '4.5',
    what: 'received in brackets, as many write it; the dialog is nobody’s',
    code: '',
    answer: 481,
    bytes: raw(`
BYE sip:[2001:db8::10] SIP/2.0
To: sip:user@example.com;tag=bd76ya
From: sip:user@example.com;tag=81x2
Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3-111
Call-ID: SSG9559905523997077@hlau_4100
Max-Forwards: 70
CSeq: 321 BYE
Content-Length: 0

`),
  },
  {
    name: 'via-received-param-no-delim',
    section: '4.5',
    what: 'received without brackets, as the grammar has it; the address is not ours',
    code: '',
    answer: 403,
    bytes: raw(`
OPTIONS sip:[2001:db8::10] SIP/2.0
To: sip:user@example.com
From: sip:user@example.com;tag=81x2
Via: SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3
Call-ID: SSG95523997077@hlau_4100
Max-Forwards: 70
Contact: "Caller" <sip:caller@[2001:db8::9:1]>
CSeq: 921 OPTIONS
Content-Length: 0

`),
  },
  {
    name: 'ipv6-in-sdp',
    section: '4.6',
    what: 'IPv6 addresses in the session description; of the 268 bytes that the RFC announces it prints 251',
    code: 'SIP_BODY_SHORT',
    answer: 400,
    bytes: raw(`
INVITE sip:user@[2001:db8::10] SIP/2.0
To: sip:user@[2001:db8::10]
From: sip:user@example.com;tag=81x2
Via: SIP/2.0/UDP [2001:db8::20];branch=z9hG4bKas3-111
Call-ID: SSG9559905523997077@hlau_4100
Contact: "Caller" <sip:caller@[2001:db8::20]>
CSeq: 8612 INVITE
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: 268

v=0
o=assistant 971731711378798081 0 IN IP6 2001:db8::20
s=Live video feed for today's meeting
c=IN IP6 2001:db8::20
t=3338481189 3370017201
m=audio 6000 RTP/AVP 2
a=rtpmap:2 G726-32/8000
m=video 6024 RTP/AVP 107
a=rtpmap:107 H263-1998/90000
`),
  },
  {
    name: 'mult-ip-in-header',
    section: '4.7',
    what: 'Vias of both families in one request',
    code: '',
    answer: 481,
    bytes: raw(`
BYE sip:user@host.example.net SIP/2.0
Via: SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144
Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200
Call-ID: 997077@lau_4100
Max-Forwards: 70
CSeq: 89187 BYE
To: sip:user@example.net;tag=9817--94
From: sip:user@example.com;tag=81x2
Content-Length: 0

`),
  },
  {
    name: 'mult-ip-in-sdp',
    section: '4.8',
    what: 'media on both families; we do not relay to that address',
    code: '',
    answer: 403,
    bytes: raw(`
INVITE sip:user@[2001:db8::10] SIP/2.0
To: sip:user@[2001:db8::10]
From: sip:user@example.com;tag=81x2
Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111
Call-ID: SSG9559905523997077@hlau_4100
Contact: "Caller" <sip:caller@[2001:db8::9:1]>
Max-Forwards: 70
CSeq: 8912 INVITE
Content-Type: application/sdp
Content-Length: 181

v=0
o=bob 280744730 28977631 IN IP4 host.example.com
s=
t=0 0
m=audio 22334 RTP/AVP 0
c=IN IP4 192.0.2.1
m=video 6024 RTP/AVP 107
c=IN IP6 2001:db8::1
a=rtpmap:107 H263-1998/90000
`),
  },
  {
    name: 'ipv4-mapped-ipv6',
    section: '4.9',
    what: 'IPv4-mapped addresses in Via, Contact and session description',
    code: '',
    answer: 486,
    forwarded: true,
    bytes: raw(`
INVITE sip:user@example.com SIP/2.0
To: sip:user@example.com
From: sip:user@east.example.com;tag=81x2
Via: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKbh19
Via: SIP/2.0/UDP [::ffff:192.0.2.2];branch=z9hG4bKas3-111
Call-ID: SSG9559905523997077@hlau_4100
Contact: "T. desk phone" <sip:ted@[::ffff:192.0.2.2]>
CSeq: 612 INVITE
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: 236

v=0
o=assistant 971731711378798081 0 IN IP6 ::ffff:192.0.2.2
s=Call me soon, please!
c=IN IP6 ::ffff:192.0.2.2
t=3338481189 3370017201
m=audio 6000 RTP/AVP 2
a=rtpmap:2 G726-32/8000
m=video 6024 RTP/AVP 107
a=rtpmap:107 H263-1998/90000
`),
  },
  {
    name: 'ipv6-bug-abnf-3-colons',
    section: '4.10',
    what: 'the third colon that the grammar of RFC 3261 wants before an IPv4 tail',
    code: '',
    answer: 403,
    bytes: optionsOf('[2001:db8:::192.0.2.1]'),
  },
  {
    name: 'ipv6-correct-abnf-2-colons',
    section: '4.10',
    what: 'the two colons that are right',
    code: '',
    answer: 403,
    bytes: optionsOf('[2001:db8::192.0.2.1]'),
  },
]
