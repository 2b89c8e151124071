import fc from 'fast-check'
import t from 'tap'
import { type Framed, StreamFramer } from '../../../src/sip/framer.ts'
import { DEFAULT_LIMITS, type ParseLimits } from '../../../src/sip/parse.ts'

const message = (body: string, length: string | number = body.length, more = ''): string =>
  `OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n${more}` +
  `${length === '' ? '' : `Content-Length: ${length}\r\n`}\r\n${body}`

/** What came out, in words. */
const words = (framed: readonly Framed[]): string[] =>
  framed.map((f) =>
    f.kind === 'message' ? f.bytes.toString('latin1') : f.kind === 'fault' ? `fault ${f.fault.code} ${f.fault.status}` : f.kind,
  )
const through = (framer: StreamFramer, chunks: readonly Buffer[]): string[] =>
  chunks.flatMap((chunk) => words(framer.push(chunk)))
const whole = (text: string, limits?: ParseLimits): string[] => through(new StreamFramer(limits), [Buffer.from(text, 'latin1')])

t.test('messages are cut by Content-Length, several in a chunk', async (t) => {
  t.same(whole(message('') + message('body\r\n\r\n') + message('x')), [message(''), message('body\r\n\r\n'), message('x')])
})

t.test('a message that is whole in one chunk is a view of it', async (t) => {
  const chunk = Buffer.from(message('a') + message('b'))
  for (const f of new StreamFramer().push(chunk)) t.ok(f.kind === 'message' && f.bytes.buffer === chunk.buffer)
})

t.test('a message that came in pieces does not change when the stream goes on', async (t) => {
  const framer = new StreamFramer()
  const first = Buffer.from(message('first'))
  framer.push(first.subarray(0, 50))
  const out = framer.push(Buffer.concat([first.subarray(50), first.subarray(0, 60)]))
  framer.push(Buffer.from(first.subarray(60).toString().replace('first', 'SECON')))
  t.same(words(out), [message('first')])
  t.equal(framer.heldBytes, 0)
})

t.test('CRLF between messages is a pong, and the next one a ping', async (t) => {
  t.same(whole('\r\n'), ['pong'])
  t.same(whole('\r\n\r\n'), ['pong', 'ping'])
  t.same(whole(`\r\n\r\n\r\n\r\n${message('')}\r\n${message('')}`), [
    'pong',
    'ping',
    'pong',
    'ping',
    message(''),
    'pong',
    message(''),
  ])
  const framer = new StreamFramer()
  t.same(
    through(
      framer,
      ['\r', '\n', '\r', '\n'].map((c) => Buffer.from(c)),
    ),
    ['pong', 'ping'],
  )
})

t.test('a stream that cannot be cut is a fault, the last thing that comes out', async (t) => {
  const table: [string, string][] = [
    [message('', ''), 'fault SIP_CONTENT_LENGTH 400'],
    [message('', -1), 'fault SIP_CONTENT_LENGTH 400'],
    [message('', '1 2'), 'fault SIP_CONTENT_LENGTH 400'],
    [message('', 0, 'l: 0\r\n'), 'fault SIP_CONTENT_LENGTH 400'],
    [message('', 65_535), 'fault SIP_TOO_LARGE 513'],
    [message('', '99999999999999999999999'), 'fault SIP_CONTENT_LENGTH 400'],
    [message('', 0, 'no colon\r\n'), 'fault SIP_HEADER_LINE 400'],
    [message('', 0, `X: ${'x'.repeat(9000)}\r\n`), 'fault SIP_LINE_TOO_LONG 400'],
    [message('', 0, `X: ${'x'.repeat(40_000)}\r\n`), 'fault SIP_HEAD_TOO_LARGE 513'],
    ['x'.repeat(40_000), 'fault SIP_START_LINE 0'],
    ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'fault SIP_START_LINE 0'],
    ['\n\n\r\n\r\n', 'fault SIP_START_LINE 0'],
    ['\rx\r\n\r\n', 'fault SIP_START_LINE 0'],
  ]
  for (const [text, fault] of table) {
    const framer = new StreamFramer()
    t.same(through(framer, [Buffer.from(message('before') + text + message('after'), 'latin1')]), [message('before'), fault])
    t.same([framer.broken, framer.heldBytes], [true, 0])
    t.same(framer.push(Buffer.from(message('later'))), [])
  }
})

t.test('a message of exactly the limits passes, one byte more does not', async (t) => {
  const limits: ParseLimits = { ...DEFAULT_LIMITS, maxMessageBytes: 400, maxHeaderBytes: 300 }
  const head = message('', 0).length
  const body = (bytes: number): string => message('b'.repeat(bytes))
  const fits = body(400 - head - 2)
  t.equal(fits.length, 400)
  t.same(whole(fits, limits), [fits])
  t.same(whole(body(400 - head - 1), limits), ['fault SIP_TOO_LARGE 513'])
  const padded = (bytes: number): string => message('', 0, `X: ${'x'.repeat(bytes)}\r\n`)
  t.same(whole(padded(300 - head - 5), limits), [padded(300 - head - 5)])
  t.same(whole(padded(300 - head - 4), limits), ['fault SIP_HEAD_TOO_LARGE 513'])
})

const piece = fc.oneof(
  fc.constantFrom('', 'b', 'a longer body\r\n\r\n', '\r\n').map((body) => message(body)),
  fc.constantFrom(
    '\r\n',
    '\r\n\r\n',
    message('', '', ''),
    message('', 'x'),
    '\r',
    '\n',
    'garbage',
    'garbage\r\n\r\n',
    message('', 9999),
  ),
)

t.test('what comes out does not depend on how the stream is cut into chunks', async () => {
  const limits: ParseLimits = { ...DEFAULT_LIMITS, maxMessageBytes: 300, maxHeaderBytes: 250 }
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 6 }),
      fc.array(fc.nat({ max: 60 }), { minLength: 1, maxLength: 20 }),
      (pieces, sizes) => {
        const stream = Buffer.from(pieces.join(''), 'latin1')
        const framer = new StreamFramer(limits)
        const cut: string[] = []
        let at = 0
        for (let i = 0; at < stream.length; i++) {
          const size = Math.max(sizes[i % sizes.length]!, i % 3)
          cut.push(...words(framer.push(Buffer.from(stream.subarray(at, at + size)))))
          if (framer.heldBytes > limits.maxMessageBytes) return false
          at += size
        }
        t.same(cut, whole(stream.toString('latin1'), limits))
        return true
      },
    ),
    { numRuns: 500 },
  )
})

t.test('no bytes whatever make it throw, and it never holds more than a message', async () => {
  const limits: ParseLimits = { maxMessageBytes: 200, maxHeaderBytes: 100, maxHeaders: 5, maxLineBytes: 50 }
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 150 }), { maxLength: 8 }), (chunks) => {
      const framer = new StreamFramer(limits)
      for (const chunk of chunks) {
        framer.push(Buffer.from(chunk))
        if (framer.heldBytes > limits.maxMessageBytes) return false
      }
      return true
    }),
    { numRuns: 500 },
  )
})

t.test('a stream that comes byte by byte is framed in linear work', async (t) => {
  const text = message('b'.repeat(60_000))
  const framer = new StreamFramer()
  const out: Framed[] = []
  for (const byte of Buffer.from(text)) out.push(...framer.push(Buffer.from([byte])))
  t.same(words(out), [text])
})
