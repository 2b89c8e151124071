import t from 'tap'
import { checkMessage, type SipMessage, type SipRequest } from '../../src/sip/message.ts'
import { parseMessage } from '../../src/sip/parse.ts'
import { serialize } from '../../src/sip/serialize.ts'
import { canonicalAor, parseNameAddr, parseUri, parseVia } from '../../src/sip/uri.ts'
import { ALL, RFC4475, RFC5118, torture } from './all.ts'
import { raw } from './message.ts'

// What the parser makes of the messages of RFC 4475 and RFC 5118. What a running node makes of them: fired.test.ts.

function judge(bytes: Buffer): { code: string; message?: SipMessage } {
  const parsed = parseMessage(bytes)
  if (!parsed.ok) return { code: parsed.fault.code }
  return { code: checkMessage(parsed.value)?.code ?? '', message: parsed.value }
}

function requestOf(name: string): SipRequest {
  const { message } = judge(torture(name).bytes)
  if (message?.kind !== 'request') throw new Error(`${name} is no request`)
  return message
}

const good = <T>(result: { ok: true; value: T } | { ok: false; fault: { detail: string } }): T => {
  if (!result.ok) throw new Error(result.fault.detail)
  return result.value
}

t.test('all of them are here, each once', async (t) => {
  t.equal(RFC4475.length, 49)
  t.equal(RFC5118.length, 12)
  t.equal(new Set(ALL.map((m) => m.name)).size, 61)
})

for (const m of ALL) {
  t.test(`${m.section} ${m.name}: ${m.what}: ${m.code || 'well formed'}`, async (t) => {
    const { code, message } = judge(m.bytes)
    t.equal(code, m.code)
    if (m.code !== '') return
    // What passed is sent on and must pass again, and mean the same.
    const again = judge(serialize(message!))
    t.equal(again.code, '', 'well formed after a round')
    const rest = (of: SipMessage) => [...of.headers.entries()].filter(([name]) => name !== 'Content-Length')
    t.same(rest(again.message!), rest(message!), 'headers survive a round')
    t.ok(again.message!.body.equals(message!.body), 'body survives a round')
  })
}

t.test('wsinv is read through all its white space', async (t) => {
  const m = requestOf('wsinv')
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

t.test('intmeth keeps every character', async (t) => {
  const m = requestOf('intmeth')
  t.equal(m.method, "!interesting-Method0123456789_*+`.%indeed'~")
  const uri = good(m.parsedUri)
  t.equal(uri.user, "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*")
  t.equal(uri.password, "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
  t.equal(uri.host, 'example.com')
  t.equal(m.to.display, 'BEL:\u0007 NUL:\u0000 DEL:\u007f')
  t.equal(m.from.display, "token1~` token2'+_ token3*%!.-")
  t.equal(Buffer.from(m.from.params.get("fromparam''~+*_!.-%")!, 'latin1').toString('utf8'), 'работающий')
  t.equal(m.fromTag, "_token~1'+`*%!-.")
  t.equal(Buffer.from(m.headers.get("extensionheader-!.%*+_`'~")!, 'latin1').toString('utf8'), '\ufeff大停電')
})

t.test('esc01 and escnull: escapes stay as they are, and count only where they must be compared', async (t) => {
  const m = requestOf('esc01')
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
  const register = requestOf('escnull')
  t.same(canonicalAor(register.to.uri), { ok: true, value: 'sip:null-%00-null@example.com' })
  t.same(register.headers.values('Contact'), ['<sip:%00@host5.example.com>', '<sip:%00%00@host5.example.com>'])
})

t.test('esc02: a % in a method or a header name is not an escape', async (t) => {
  const m = requestOf('esc02')
  t.equal(m.method, 'RE%47IST%45R')
  t.equal(m.to.display, '%Z%45')
  t.equal(m.headers.count('Contact'), 2)
  t.equal(m.topVia.branch, 'z9hG4bK209%fzsnel234')
})

t.test('longreq, lwsdisp, semiuri, transports', async (t) => {
  const long = requestOf('longreq')
  t.equal(long.headers.count('Via'), 34)
  t.equal(long.fromTag.length, 155)
  t.equal(long.body.length, 150)
  t.equal(requestOf('lwsdisp').from.display, 'caller')
  const semi = requestOf('semiuri')
  t.equal(good(semi.parsedUri).user, 'user;par=u%40example.net')
  t.equal(semi.headers.values('Accept').length, 6)
  t.same(
    requestOf('transports')
      .headers.values('Via')
      .map((via) => good(parseVia(via)).transport),
    ['udp', 'sctp', 'tls', 'unknown', 'tcp'],
  )
})

t.test('unreason and noreason: a reason phrase keeps its bytes, and may be empty', async (t) => {
  const { message: first } = judge(torture('unreason').bytes)
  t.ok(first?.kind === 'response' && first.status === 200)
  if (first?.kind === 'response') t.match(Buffer.from(first.reason, 'latin1').toString('utf8'), /простое$/)
  const { message: second } = judge(torture('noreason').bytes)
  t.ok(second?.kind === 'response' && second.status === 100 && second.reason === '')
})

t.test('cparam01 and cparam02: parameters in and outside of <> are told apart; regbadct cannot be', async (t) => {
  const contactOf = (name: string) => parseNameAddr(requestOf(name).headers.get('Contact')!)
  const outside = good(contactOf('cparam01'))
  t.same([[...outside.params], good(parseUri(outside.uri)).params.size], [[['unknownparam', '']], 0])
  const inside = good(contactOf('cparam02'))
  t.same([inside.params.size, [...good(parseUri(inside.uri)).params]], [0, [['unknownparam', '']]])
  t.equal(good(parseUri(good(contactOf('regescrt')).uri)).headers, 'Route=%3Csip:sip.example.com%3E')
  t.equal(contactOf('regbadct').ok, false)
})

t.test('RFC 5118: addresses have one form, and a port is one only after the brackets', async (t) => {
  t.same(
    ['ipv6-good', 'port-ambiguous', 'port-unambiguous'].map((name) => {
      const uri = good(requestOf(name).parsedUri)
      return [uri.host, uri.port]
    }),
    [
      ['[2001:db8::10]', undefined],
      ['[2001:db8::10:5070]', undefined],
      ['[2001:db8::10]', 5070],
    ],
  )
  const [three, two] = ['ipv6-bug-abnf-3-colons', 'ipv6-correct-abnf-2-colons'].map((n) => good(requestOf(n).parsedUri).host)
  t.equal(three, two, 'the third colon makes no difference')
  t.equal(requestOf('via-received-param-with-delim').topVia.params.get('received'), '[2001:db8::9:255]')
  t.equal(requestOf('via-received-param-no-delim').topVia.params.get('received'), '2001:db8::9:255')
  t.equal(good(parseUri('sip:[::ffff:192.0.2.2]')).host, good(parseUri('sip:[::ffff:c000:202]')).host)
  for (const host of ['[1:::2]', '[::::192.0.2.1]', '[2001:db8:::]', '[:::192.0.2]']) t.notOk(parseUri(`sip:a@${host}`).ok, host)
  const whole = judge(raw(torture('ipv6-in-sdp').bytes.toString('latin1').replaceAll('\r\n', '\n').replace('268', '251')))
  t.equal(whole.code, '', 'with the length that its body has, ipv6-in-sdp is well formed')
})

t.test('the requests that differ from an invalid one in nothing but the fault are accepted', async (t) => {
  const mended: Record<string, readonly [from: string | RegExp, to: string]> = {
    badinv01: [/;;,;,,|;;;;/g, ';branch=z9hG4bKa'],
    clerr: ['9999', '152'],
    ncl: ['-999', '152'],
    quotbal: ['J. User', 'J. User"'],
    ltgtruri: ['<sip:user@example.com>', 'sip:user@example.com'],
    lwsruri: ['; lr', ';lr'],
    lwsstart: [/ {2}/g, ' '],
    trws: ['2.0  ', '2.0'],
    escruri: ['?Route=%3Csip:example.com%3E', ''],
    badaspec: ['< sip:t.watson@example.org >', '<sip:t.watson@example.org>'],
    baddn: [/(\w+), (\w+)/g, '$2 $1'],
    badvers: [/7\.0/g, '2.0'],
    mismatch01: ['8 INVITE', '8 OPTIONS'],
    mismatch02: ['8 INVITE', '8 NEWMETHOD'],
    bigcode: ['4294967301', '603'],
    unkscm: ['nobodyKnowsThisScheme:totallyopaquecontent', 'sip:b@example.com'],
    mcl01: ['Content-Length: 13\r\n', ''],
    inv2543: ['user=phone>', 'user=phone>;tag=a'],
  }
  for (const [name, [from, to]] of Object.entries(mended)) {
    const text = torture(name).bytes.toString('latin1')
    const changed = text.replace(from, to)
    t.not(changed, text, name)
    t.equal(judge(Buffer.from(changed, 'latin1')).code, '', name)
  }
})
