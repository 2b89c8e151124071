import fc from 'fast-check'
import t from 'tap'
import { canonicalAor, canonicalContact, parseUri, type SipUri, sameUri, uriText } from '../../../src/sip/uri.ts'

const uri = (text: string): SipUri => {
  const result = parseUri(text)
  if (!result.ok) throw new Error(`${text}: ${result.fault.detail}`)
  return result.value
}
const value = (result: ReturnType<typeof canonicalAor>): string => (result.ok ? result.value : `fault ${result.fault.code}`)

t.test('a SIP URI is taken apart into all its parts', async (t) => {
  t.same(uri('sip:alice:secret@Atlanta.Example.COM:5070;Transport=TCP;lr?Subject=a%20b&Priority=urgent'), {
    ...{
      scheme: 'sip',
      user: 'alice',
      password: 'secret',
      host: 'atlanta.example.com',
      port: 5070,
      headers: 'Subject=a%20b&Priority=urgent',
    },
    params: new Map([
      ['transport', 'TCP'],
      ['lr', ''],
    ]),
  })
  t.same(uri('SIPS:example.com'), {
    scheme: 'sips',
    user: undefined,
    host: 'example.com',
    port: undefined,
    params: new Map(),
    headers: '',
  })
  t.equal(uri('sip:example.com.').host, 'example.com', 'the dot of the root is dropped')
  t.equal(uri('sip:#21@example.com').user, '#21', 'feature codes come unescaped')
})

t.test('IPv6 references have one form', async (t) => {
  for (const text of [
    'sip:a@[2001:db8::1]:5060',
    'sip:a@[2001:DB8:0:0::0001]:5060',
    'sip:a@[2001:0db8:0000:0000:0000:0000:0000:0001]:5060',
  ]) {
    t.same([uri(text).host, uri(text).port], ['[2001:db8::1]', 5060])
  }
  t.equal(uri('sip:[::ffff:192.0.2.1]').host, '[::ffff:192.0.2.1]')
})

t.test('tel: URIs are numbers with parameters, other schemes are kept whole', async (t) => {
  t.same(uri('tel:+1-201-555-0123;ext=7'), {
    ...{ scheme: 'tel', user: '+1-201-555-0123', host: '', port: undefined, headers: '', params: new Map([['ext', '7']]) },
  })
  t.equal(uri('tel:*67#;phone-context=example.com').user, '*67#')
  t.equal(uri('isbn:2983792873').user, '2983792873')
  t.equal(uriText(uri('soap.beep://192.0.2.103:3002')), 'soap.beep://192.0.2.103:3002')
})

t.test('what is no URI is a fault with its place', async (t) => {
  const table: [string, number][] = [
    ['', 0],
    ['sip', 0],
    [':x', 0],
    ['1sip:a', 0],
    ['<sip:a@b>', 0],
    ['sip:', 4],
    ['sip:@b', 4],
    ['sip:a@', 6],
    ['sip:a@b@c', 7],
    ['sip:a b@c', 5],
    ['sip:a%4@c', 5],
    ['sip:a%zz@c', 5],
    ['sip:a"@c', 5],
    ['sip:a@b c', 7],
    ['sip:a@b:0', 8],
    ['sip:a@b:', 8],
    ['sip:a@b:65536', 8],
    ['sip:a@b:123456', 8],
    ['sip:a@b:5060x', 12],
    ['sip:a@b;', 8],
    ['sip:a@b;=x', 8],
    ['sip:a@b;lr;lr', 11],
    ['sip:a@b;LR;x;lr', 13],
    ['sip:a@b; lr', 8],
    ['sip:a@b;x=<y>', 10],
    ['sip:a@b?x=<y>', 10],
    ['sip:a@.b', 6],
    ['sip:a@b..c', 6],
    ['sip:a@999.1.1.1', 6],
    ['sip:a@1.2.3', 6],
    ['sip:a@[::1', 6],
    ['sip:a@[::g]', 6],
    ['sip:a@[fe80::1%25eth0]', 6],
    ['sip:a@[fe80::1%eth0]', 6],
    ['sip:a@192.0.2.1.', 6],
    ['sip:\u00e9@b', 4],
    ['sip:a@\u0130.com', 6],
    ['sip:a\u0000@b', 5],
    ['tel:', 4],
    ['tel:+', 4],
    ['tel:12 3', 6],
    ['tel:1;', 6],
    ['tel:1;x;x', 8],
    ['http:', 5],
    ['http://a b', 8],
  ]
  for (const [text, offset] of table) {
    const result = parseUri(text)
    t.ok(!result.ok, text)
    if (!result.ok) t.equal(result.fault.offset, offset, `${JSON.stringify(text)}: ${result.fault.detail}`)
  }
})

t.test('RFC 3261 §19.1.4: its examples of equal and of different URIs', async (t) => {
  const equal: [string, string][] = [
    ['sip:%61lice@atlanta.com;transport=TCP', 'sip:alice@AtLanTa.CoM;Transport=tcp'],
    ['sip:carol@chicago.com', 'sip:carol@chicago.com;newparam=5'],
    ['sip:carol@chicago.com', 'sip:carol@chicago.com;security=on'],
    [
      'sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com',
      'sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com',
    ],
    ['sip:alice@atlanta.com?subject=project%20x&priority=urgent', 'sip:alice@atlanta.com?priority=urgent&subject=project%20x'],
    ['tel:+1-201-555-0123', 'tel:+12015550123'],
  ]
  for (const [a, b] of equal) {
    t.ok(sameUri(uri(a), uri(b)), `${a} = ${b}`)
    t.ok(sameUri(uri(b), uri(a)), `${b} = ${a}`)
  }
  const different: [string, string][] = [
    ['SIP:ALICE@AtLanTa.CoM;Transport=udp', 'sip:alice@AtLanTa.CoM;Transport=UDP'],
    ['sip:bob@biloxi.com', 'sip:bob@biloxi.com:5060'],
    ['sip:bob@biloxi.com', 'sip:bob@biloxi.com;transport=udp'],
    ['sip:bob@biloxi.com', 'sip:bob@biloxi.com:6000;transport=tcp'],
    ['sip:carol@chicago.com', 'sip:carol@chicago.com?Subject=next%20meeting'],
    ['sip:bob@phone21.boxesbybob.com', 'sip:bob@192.0.2.4'],
    ['sip:carol@chicago.com;security=on', 'sip:carol@chicago.com;security=off'],
    ['sip:alice@atlanta.com', 'sips:alice@atlanta.com'],
    ['sip:a%2Bb@atlanta.com', 'sip:a+b@atlanta.com'],
    ['sip:alice:x@atlanta.com', 'sip:alice@atlanta.com'],
  ]
  for (const [a, b] of different) {
    t.notOk(sameUri(uri(a), uri(b)), `${a} ≠ ${b}`)
    t.notOk(sameUri(uri(b), uri(a)), `${b} ≠ ${a}`)
  }
})

t.test('an address-of-record has one spelling', async (t) => {
  const table: [string, string][] = [
    ['sip:alice@Example.NET', 'sip:alice@example.net'],
    ['sips:%61lice:pw@example.net:5061;transport=tls?x=y', 'sip:alice@example.net'],
    ['sip:Alice@example.net', 'sip:Alice@example.net'],
    ['sip:%41%6c%69%63%65@example.net', 'sip:Alice@example.net'],
    ['sip:a%2bb@example.net', 'sip:a%2Bb@example.net'],
    ['sip:%2321@example.net', 'sip:%2321@example.net'],
    ['sip:#21@example.net', 'sip:%2321@example.net'],
    ['sip:j%C3%A9@example.net', 'sip:j%C3%A9@example.net'],
    ['sip:j%c3%a9@example.net.', 'sip:j%C3%A9@example.net'],
    ['sip:example.net', 'sip:example.net'],
    ['sip:a@[2001:DB8::0:1]', 'sip:a@[2001:db8::1]'],
    ['tel:+1(201)555-0123', 'tel:+12015550123'],
    ['tel:7042;phone-context=Example.com;x=y', 'tel:7042;phone-context=example.com'],
    ['http://example.net', 'fault SIP_AOR_SCHEME'],
    ['nonsense', 'fault SIP_URI'],
  ]
  for (const [text, aor] of table) t.equal(value(canonicalAor(text)), aor, text)
})

t.test('a contact has one spelling, and what could be another phone is another string', async (t) => {
  const table: [string, string][] = [
    ['sip:u1@192.0.2.1', 'sip:u1@192.0.2.1'],
    ['sip:u1@192.0.2.1:5060', 'sip:u1@192.0.2.1:5060'],
    ['SIP:%75%31@Host.EXAMPLE:5070;Transport=TCP;ob', 'sip:u1@host.example:5070;ob;transport=tcp'],
    ['sip:u1@host.example:5070;ob;transport=tcp', 'sip:u1@host.example:5070;ob;transport=tcp'],
    ['sips:u1@h;lr?B=2&a=1', 'sips:u1@h;lr?a=1&b=2'],
    ['tel:+1-201', 'tel:+1201'],
    ['isbn:123', 'isbn:123'],
  ]
  for (const [text, contact] of table) t.equal(value(canonicalContact(text)), contact, text)
})

const user = fc.string({
  unit: fc.constantFrom(..."aZ09-_.!~*'()&=+$,;?/#", '%41', '%2b', '%00', '%C3'),
  minLength: 1,
  maxLength: 12,
})
const host = fc.constantFrom('example.com', 'EXAMPLE.net', '192.0.2.1', '[2001:db8::1]', '[::1]', 'a-b.c_d')
const param = fc.tuple(
  fc.constantFrom('lr', 'Transport', 'maddr', 'x', 'ttl', 'user'),
  fc.string({ unit: fc.constantFrom(...'aZ09[]/:&+$-_.=', '%41', '%2f'), maxLength: 6 }),
)
const anyUri = fc
  .record({
    scheme: fc.constantFrom('sip', 'sips', 'SIP'),
    user: fc.option(user, { nil: undefined }),
    host,
    port: fc.option(fc.integer({ min: 1, max: 65535 }), { nil: undefined }),
    params: fc.uniqueArray(param, { selector: ([name]) => name.toLowerCase(), maxLength: 4 }),
    headers: fc.constantFrom('', '?a=b', '?a=b&C=%41'),
  })
  .map(
    (u) =>
      `${u.scheme}:${u.user === undefined ? '' : `${u.user}@`}${u.host}${u.port === undefined ? '' : `:${u.port}`}${u.params
        .map(([n, v]) => (v === '' ? `;${n}` : `;${n}=${v}`))
        .join('')}${u.headers}`,
  )

t.test('a URI that is written out and read again is the same', async () => {
  fc.assert(
    fc.property(anyUri, (text) => {
      const once = uri(text)
      const again = uri(uriText(once))
      t.same(again, once)
      return sameUri(once, again) && uriText(again) === uriText(once)
    }),
  )
})

t.test('canonical forms are fixed points, and equal ones are equal URIs', async () => {
  fc.assert(
    fc.property(anyUri, anyUri, (a, b) => {
      const contactA = value(canonicalContact(a))
      const contactB = value(canonicalContact(b))
      return (
        value(canonicalContact(contactA)) === contactA &&
        value(canonicalAor(value(canonicalAor(a)))) === value(canonicalAor(a)) &&
        sameUri(uri(a), uri(contactA)) &&
        (contactA !== contactB || sameUri(uri(a), uri(b)))
      )
    }),
  )
})

t.test('no text whatever makes the URI parser throw', async () => {
  const nearly = fc.string({
    unit: fc.constantFrom('sip', ':', '@', ';', '=', '?', '[', ']', '%', '41', 'a', '1', '.', ' ', '<', '"', '\u00ff', '\u0000'),
  })
  fc.assert(
    fc.property(fc.oneof(nearly, fc.string({ unit: 'binary' })), (text) => {
      const result = parseUri(text)
      const contact = canonicalContact(text)
      return result.ok === contact.ok && (result.ok || (result.fault.offset >= 0 && result.fault.offset <= text.length))
    }),
    { numRuns: 1000 },
  )
})
