import fc from 'fast-check'
import t from 'tap'
import type { Result } from '../../../src/base/errors.ts'
import { checkMessage, type SipMessage } from '../../../src/sip/message.ts'
import { DEFAULT_LIMITS, type ParseFault, type ParseLimits, parseMessage } from '../../../src/sip/parse.ts'
import { serialize } from '../../../src/sip/serialize.ts'

const REQUEST = [
  'INVITE sip:u1@example.net SIP/2.0',
  'Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa',
  'From: <sip:u2@example.net>;tag=1',
  'To: <sip:u1@example.net>',
  'Call-ID: c1@192.0.2.1',
  'CSeq: 1 INVITE',
]
const bytes = (lines: readonly string[], body = ''): Buffer => Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}`, 'latin1')
const parsed = (b: Buffer, limits?: ParseLimits): SipMessage => {
  const result = parseMessage(b, limits)
  if (!result.ok) throw new Error(`${result.fault.code}: ${result.fault.detail}`)
  return result.value
}
const faultOf = (result: Result<SipMessage, ParseFault>): ParseFault => {
  if (result.ok) throw new Error('parsed')
  return result.fault
}
const codeOf = (b: Buffer, limits?: ParseLimits): [number, string] => {
  const { status, code } = faultOf(parseMessage(b, limits))
  return [status, code]
}

t.test('a request is read: start line, headers in their order, body', async (t) => {
  const m = parsed(bytes([...REQUEST, 'Content-Length: 4'], 'body'))
  t.ok(m.kind === 'request' && m.method === 'INVITE' && m.uri === 'sip:u1@example.net')
  t.same(
    [...m.headers.entries()].map(([name]) => name),
    ['Via', 'From', 'To', 'Call-ID', 'CSeq', 'Content-Length'],
  )
  t.equal(m.body.toString(), 'body')
})

t.test('the body is a view of the datagram', async (t) => {
  const b = bytes([...REQUEST, 'Content-Length: 4'], 'body')
  t.equal(parsed(b).body.buffer, b.buffer)
})

t.test('the body ends where Content-Length says, or with the datagram where there is none', async (t) => {
  t.equal(parsed(bytes([...REQUEST, 'l: 2'], 'body')).body.toString(), 'bo')
  t.equal(parsed(bytes([...REQUEST, 'l: 0'], 'body')).body.length, 0)
  t.equal(parsed(bytes(REQUEST, 'body')).body.toString(), 'body')
})

t.test('empty lines before the start line are skipped, and nothing else is a keep-alive', async (t) => {
  t.equal(parsed(Buffer.concat([Buffer.from('\r\n\r\n'), bytes(REQUEST)])).callId, 'c1@192.0.2.1')
  t.same(codeOf(Buffer.from('\r\n\r\n')), [0, 'SIP_EMPTY'])
  t.same(codeOf(Buffer.alloc(0)), [0, 'SIP_EMPTY'])
})

t.test('folded headers become one line', async (t) => {
  const m = parsed(
    bytes([...REQUEST, 'Subject: one', ' two', '\t  three', '   ', ' four  ', 'X-Empty:', ' ', 'X-Late:', '  late']),
  )
  t.equal(m.headers.get('Subject'), 'one two three four')
  t.equal(m.headers.get('X-Empty'), '')
  t.equal(m.headers.get('X-Late'), 'late')
})

t.test('a response is read, and one that is wrong is never answered', async (t) => {
  const rest = REQUEST.slice(1)
  const m = parsed(bytes(['SIP/2.0 486 Busy Here', ...rest]))
  t.ok(m.kind === 'response' && m.status === 486 && m.reason === 'Busy Here')
  t.ok(parsed(bytes(['sip/2.0 200', ...rest])).kind === 'response', 'the space before an empty reason may be missing')
  for (const line of [
    'SIP/2.0 99 x',
    'SIP/2.0 700 x',
    'SIP/2.0 20 x',
    'SIP/2.0 2000 x',
    'SIP/2.0  200 OK',
    'SIP/3.0 200 OK',
    'SIP/2.0 +20 x',
    'SIP/2.0 200 \u0000',
  ]) {
    t.same(codeOf(bytes([line, ...rest])), [0, 'SIP_START_LINE'], line)
  }
  t.equal(faultOf(parseMessage(bytes(['SIP/2.0 200 OK', 'no colon', ...rest]))).status, 0)
})

t.test('what does not claim to be SIP gets no answer', async (t) => {
  for (const line of [
    'GET / HTTP/1.1',
    'hello',
    '\u0000\u0000\u0000\u0000',
    ' INVITE sip:a@b SIP/2.0',
    'IN(VITE sip:a@b SIP/2.0',
    'INVITE',
    '\u0080 a SIP/2.0',
  ]) {
    t.equal(faultOf(parseMessage(bytes([line, ...REQUEST.slice(1)]))).status, 0, line)
  }
})

t.test('a start line that is nearly right is answered 400, another version 505', async (t) => {
  const table: [string, number, string][] = [
    ['INVITE sip:a@b SIP/2.0 ', 400, 'SIP_START_LINE'],
    ['INVITE SIP/2.0', 400, 'SIP_START_LINE'],
    ['INVITE  SIP/2.0', 400, 'SIP_START_LINE'],
    ['INVITE sip:a\tb SIP/2.0', 400, 'SIP_START_LINE'],
    ['INVITE sip:a@b SIP/2.0x', 400, 'SIP_START_LINE'],
    ['INVITE sip:a@b SIP/1.0', 505, 'SIP_VERSION'],
    ['INVITE sip:a@b sip/30.25', 505, 'SIP_VERSION'],
  ]
  for (const [line, status, code] of table) {
    t.same(codeOf(bytes([line, ...REQUEST.slice(1)])), [status, code], line)
  }
  t.ok(parsed(bytes(['INVITE sip:a@b sip/2.0', ...REQUEST.slice(1)])), 'the version has no case')
})

t.test('a bad header is answered from the headers that are well, and says where it is', async (t) => {
  const b = bytes([REQUEST[0]!, 'no colon here', ...REQUEST.slice(1)])
  const f = faultOf(parseMessage(b))
  t.same([f.status, f.code, f.offset], [400, 'SIP_HEADER_LINE', b.indexOf('no colon')])
  t.same([f.partial?.method, f.partial?.callId, f.partial?.topVia.branch], ['INVITE', 'c1@192.0.2.1', 'z9hG4bKa'])
  t.same(codeOf(bytes([...REQUEST, ': no name'])), [400, 'SIP_HEADER_LINE'])
  t.same(codeOf(bytes([...REQUEST, 'two words: x'])), [400, 'SIP_HEADER_LINE'])
  t.same(codeOf(bytes([REQUEST[0]!, ' folded too soon: x', ...REQUEST.slice(1)])), [400, 'SIP_HEADER_LINE'])
})

t.test('a fault in an ACK, or in what lacks the headers of an answer, is not answered', async (t) => {
  t.same(codeOf(bytes(['ACK sip:a@b SIP/2.0', ...REQUEST.slice(1, 5), 'CSeq: 1 ACK', 'no colon'])), [0, 'SIP_HEADER_LINE'])
  t.same(codeOf(bytes([...REQUEST.slice(0, 4), 'no colon'])), [0, 'SIP_HEADER_LINE'])
})

t.test('CR, LF and controls do not get into a value, but for a quoted pair', async (t) => {
  for (const bad of ['a\rb', 'a\nb', 'a\u0000b', 'a\u007fb', 'a\u000bb', '\\\rb', '\\\nb', 'a\nVia: evil']) {
    t.same(codeOf(bytes([...REQUEST, `Subject: ${bad}`, 'X-After: 1'])), [400, 'SIP_CONTROL'], JSON.stringify(bad))
  }
  t.equal(parsed(bytes([...REQUEST, 'Subject: "a\\\u0000b"\tc'])).headers.get('Subject'), '"a\\\u0000b"\tc')
})

t.test('Content-Length is one number that fits', async (t) => {
  for (const bad of ['-1', '+1', '1 1', '1,1', '0x1', '1e1', '', 'abc', '99999999999999999999']) {
    t.same(codeOf(bytes([...REQUEST, `Content-Length: ${bad}`], 'body')), [400, 'SIP_CONTENT_LENGTH'], bad)
  }
  t.same(codeOf(bytes([...REQUEST, 'Content-Length: 4', 'l: 4'], 'body')), [400, 'SIP_CONTENT_LENGTH'], 'not even the same twice')
  t.same(codeOf(bytes([...REQUEST, 'Content-Length: 5'], 'body')), [400, 'SIP_BODY_SHORT'])
  t.same(codeOf(bytes([...REQUEST, 'Content-Length: 9007199254740991'], 'body')), [400, 'SIP_BODY_SHORT'])
})

t.test('limits hold: message, headers, lines, number of headers', async (t) => {
  const limits: ParseLimits = { maxMessageBytes: 1000, maxHeaderBytes: 600, maxHeaders: 10, maxLineBytes: 100 }
  t.ok(parseMessage(bytes(REQUEST), limits).ok)
  t.same(codeOf(bytes(REQUEST, 'x'.repeat(1000)), limits), [513, 'SIP_TOO_LARGE'])
  t.same(codeOf(bytes([...REQUEST, ...Array.from({ length: 8 }, () => `X: ${'x'.repeat(80)}`)]), limits), [
    513,
    'SIP_HEAD_TOO_LARGE',
  ])
  t.same(codeOf(bytes([...REQUEST, `X: ${'x'.repeat(100)}`]), limits), [400, 'SIP_LINE_TOO_LONG'])
  t.same(
    codeOf(bytes([...REQUEST, 'X: a', ...Array.from({ length: 20 }, () => ' aaaa')]), limits),
    [400, 'SIP_LINE_TOO_LONG'],
    'folding does not help',
  )
  t.same(codeOf(bytes([`INVITE sip:${'a'.repeat(100)}@b SIP/2.0`, ...REQUEST.slice(1)]), limits), [414, 'SIP_LINE_TOO_LONG'])
  t.same(codeOf(bytes([...REQUEST, 'X: 1', 'X: 2', 'X: 3', 'X: 4', 'X: 5', 'X: 6']), limits), [400, 'SIP_TOO_MANY_HEADERS'])
  t.ok(parseMessage(bytes([...REQUEST, 'X: 1', 'X: 2', 'X: 3', 'X: 4', 'X: 5']), limits).ok)
})

t.test('a message that is cut off anywhere is refused, and answered once its mandatory headers are there', async (t) => {
  const whole = bytes([...REQUEST, 'Content-Length: 4'], 'body')
  const needed = whole.indexOf('Content-Length')
  for (let end = 0; end < whole.length; end++) {
    const f = faultOf(parseMessage(whole.subarray(0, end)))
    t.equal(f.status, end < needed ? 0 : 400, `cut at ${end}: ${f.code}`)
  }
})

const headerName = fc.oneof(
  fc.constantFrom('Via', 'v', 'From', 't', 'Contact', 'Subject', 'Route', 'X-Odd', 'x-odd'),
  fc
    .string({ unit: fc.constantFrom(..."abzAZ09-.!%*_+`'~"), minLength: 1, maxLength: 8 })
    .filter((name) => !/^(l|content-length)$/i.test(name)),
)
const headerValue = fc
  .string({
    unit: fc
      .integer({ min: 32, max: 255 })
      .filter((code) => code !== 127)
      .map((code) => String.fromCharCode(code)),
    maxLength: 30,
  })
  .map((value) => value.replace(/^[ \t]+|[ \t]+$/g, ''))
const startLine = fc.constantFrom(
  'INVITE sip:a@b SIP/2.0',
  'x!%y any:thing SIP/2.0',
  'SIP/2.0 200 OK',
  'SIP/2.0 699 ',
  'SIP/2.0 183 \u00d0\u00b5 x',
)

t.test('serialize and parse undo each other', async () => {
  fc.assert(
    fc.property(
      startLine,
      fc.array(fc.tuple(headerName, headerValue), { maxLength: 20 }),
      fc.uint8Array({ maxLength: 200 }),
      (line, headers, body) => {
        const head = `${[line, ...headers.map(([name, value]) => `${name}: ${value}`), `Content-Length: ${body.length}`].join('\r\n')}\r\n\r\n`
        const once = parsed(Buffer.concat([Buffer.from(head, 'latin1'), body]))
        const out = serialize(once)
        const again = parsed(out)
        t.same(again.headers, once.headers)
        t.same([...again.headers.entries()], [...once.headers.entries()])
        t.ok(again.body.equals(body) && again.kind === once.kind)
        return serialize(again).equals(out) && out.toString('latin1').startsWith(`${line}\r\n`)
      },
    ),
    { numRuns: 200 },
  )
})

t.test('no bytes whatever make parse or check throw, and limits are never exceeded', async () => {
  const limits: ParseLimits = { maxMessageBytes: 600, maxHeaderBytes: 500, maxHeaders: 12, maxLineBytes: 120 }
  const whole = bytes([...REQUEST, 'Content-Length: 4'], 'body')
  const mutated = fc
    .array(
      fc.record({
        at: fc.nat({ max: whole.length - 1 }),
        byte: fc.constantFrom(0, 9, 10, 13, 32, 34, 44, 58, 59, 60, 62, 64, 92, 127, 200, 255),
      }),
      { maxLength: 6 },
    )
    .map((edits) => {
      const copy = Buffer.from(whole)
      for (const { at, byte } of edits) copy[at] = byte
      return copy
    })
  const pieces = fc
    .array(
      fc.constantFrom(
        '\r\n',
        '\r',
        '\n',
        ' ',
        ':',
        'INVITE sip:a@b SIP/2.0',
        'SIP/2.0 200 OK',
        'Via: SIP/2.0/UDP h',
        'l: 3',
        'CSeq: 1 INVITE',
        '\u0000',
        '"',
        '\u00ff',
        ',',
        'From: <sip:a@b>;tag=x',
      ),
      { maxLength: 60 },
    )
    .map((parts) => Buffer.from(parts.join(''), 'latin1'))
  const random = fc.uint8Array({ maxLength: 700 }).map((b) => Buffer.from(b))
  fc.assert(
    fc.property(fc.oneof(mutated, pieces, random), (input) => {
      const result = parseMessage(input, limits)
      if (!result.ok) {
        const { status, offset, partial } = result.fault
        return (
          (status === 0) === (partial === undefined) &&
          offset >= 0 &&
          offset <= input.length &&
          (partial?.headers.size ?? 0) <= 12
        )
      }
      checkMessage(result.value)
      return (
        result.value.headers.size <= 12 &&
        result.value.body.length <= 600 &&
        parseMessage(serialize(result.value), DEFAULT_LIMITS).ok
      )
    }),
    { numRuns: 3000 },
  )
})
