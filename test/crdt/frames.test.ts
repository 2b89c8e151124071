import fc from 'fast-check'
import t from 'tap'
import { ALL_BUCKETS, decodeMessage, encodeMessage, type Frame, frameSize, LIMITS, type StateMessage } from '../../crdt/frames.ts'
import { WireReader, WireWriter } from '../../src/base/bytes.ts'

const name = fc.stringMatching(/^[a-z0-9-]{1,64}$/)
const uint = fc.oneof(fc.nat(300), fc.maxSafeNat())
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const author = fc.record({ region: name, node: name, incarnation: uint })
const kind = fc.constantFrom('binding' as const, 'dialog' as const)
const doc = fc.record({ region: name, node: name, incarnation: uint, kind, bucket: uint, part: uint })
const frame: fc.Arbitrary<Frame> = fc
  .record({
    doc,
    from: fc.nat(16_000),
    count: fc.integer({ min: 1, max: 300 }),
    hash: bytes(32),
    update: fc.uint8Array({ minLength: 13 }),
  })
  .map(({ count, ...f }) => ({ ...f, to: f.from + count }))

const message: fc.Arbitrary<StateMessage> = fc.oneof(
  fc.record({
    type: fc.constant('digest' as const),
    horizon: uint,
    authors: fc.array(fc.record({ author, docs: uint, sum: bytes(32) })),
  }),
  fc.record({ type: fc.constant('ask' as const), author, horizon: uint, below: fc.constant(ALL_BUCKETS), limit: uint }),
  fc.record({
    ...{ type: fc.constant('tips' as const), author, horizon: uint, below: uint, floor: uint },
    tips: fc.array(fc.record({ kind, bucket: uint, part: uint, clock: uint, hash: bytes(32) })),
    ...{ restDocs: uint, restSum: bytes(32) },
  }),
  fc.record({
    ...{ type: fc.constant('want' as const), id: uint, budgetBytes: uint },
    ranges: fc.array(fc.record({ doc, from: uint, to: uint })),
  }),
  fc.record({ type: fc.constant('frames' as const), asked: fc.boolean(), frames: fc.array(frame) }),
  fc.record({ type: fc.constant('done' as const), id: uint, complete: fc.boolean() }),
)

/** As text, whatever the order of fields, Buffers and Uint8Arrays alike. */
const plain = (value: unknown): string => {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  if (Array.isArray(value)) return `[${value.map(plain).join()}]`
  if (typeof value !== 'object' || value === null) return String(value)
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${fields.map(([k, v]) => `${k}:${plain(v)}`).join()}}`
}

t.test('every message reads back as it was written', async (t) => {
  fc.assert(
    fc.property(message, (m) => {
      const decoded = decodeMessage(encodeMessage(m))
      return decoded.ok && plain(decoded.value) === plain(m)
    }),
    { numRuns: 500 },
  )
  t.pass('500 messages')
})

t.test('a message that is cut short anywhere is refused', async (t) => {
  fc.assert(
    fc.property(message, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (m, where) => {
      const whole = encodeMessage(m)
      return !decodeMessage(whole.subarray(0, Math.floor(where * whole.length))).ok
    }),
  )
  t.pass('no prefix was taken')
})

t.test('one byte too many is refused', async (t) => {
  fc.assert(fc.property(message, (m) => !decodeMessage(Buffer.concat([encodeMessage(m), Buffer.from([0])])).ok))
  t.pass('nothing longer was taken')
})

t.test('random bytes never throw, and what is accepted is the one form of its meaning', async (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 6 }), fc.uint8Array({ maxLength: 200 }), (type, rest) => {
      const input = Buffer.from([type, ...rest])
      const decoded = decodeMessage(input)
      return !decoded.ok || encodeMessage(decoded.value).equals(input)
    }),
    { numRuns: 2000 },
  )
  t.pass('2000 inputs')
})

t.test('a count is judged before anything is allocated for it', async (t) => {
  const huge = new WireWriter().u8(1).uint(0).uint(Number.MAX_SAFE_INTEGER).done()
  const tooMany = decodeMessage(huge)
  t.equal(tooMany.ok ? '' : tooMany.fault.code, 'CRDT_MESSAGE_LIMIT')
  const notThere = decodeMessage(new WireWriter().u8(1).uint(0).uint(LIMITS.digestAuthors).done())
  t.equal(notThere.ok ? '' : notThere.fault.code, 'CRDT_MESSAGE_MALFORMED')
})

t.test('reserved and unknown types are refused by number', async (t) => {
  for (const type of [0, 7, 8, 9, 255]) {
    const decoded = decodeMessage(Buffer.from([type, 0, 0]))
    t.match(decoded, { ok: false, fault: { code: 'CRDT_MESSAGE_TYPE', detail: `message type ${type}` } })
  }
  t.match(decodeMessage(Buffer.alloc(0)), { ok: false }, 'an empty message')
})

t.test('clocks and lengths that no frame has are refused', async (t) => {
  const good: Frame = {
    doc: { region: 'r', node: 'n', incarnation: 1, kind: 'binding', bucket: 1, part: 0 },
    ...{ from: 0, to: 1, hash: Buffer.alloc(32), update: Buffer.alloc(20) },
  }
  const cases: [string, Partial<Frame>][] = [
    ['no records', { to: 0 }],
    ['backwards', { from: 5, to: 4 }],
    ['beyond the longest doc', { from: LIMITS.docRecords, to: LIMITS.docRecords + 1 }],
    ['an update that is too long', { update: Buffer.alloc(LIMITS.updateBytes + 1) }],
  ]
  for (const [what, fields] of cases) {
    const decoded = decodeMessage(encodeMessage({ type: 'frames', asked: false, frames: [{ ...good, ...fields }] }))
    t.equal(decoded.ok ? 'taken' : decoded.fault.code, 'CRDT_FRAME_RANGE', what)
  }
})

t.test('a number has one form', async (t) => {
  for (const [hex, ok] of [
    ['00', true],
    ['7f', true],
    ['8001', true],
    ['8000', false],
    ['ffffffffffffff0f', true],
    ['ffffffffffffff10', false],
    ['ffffffffffffffff01', false],
    ['80', false],
  ] as const) {
    const r = new WireReader(Buffer.from(hex, 'hex'))
    r.uint()
    t.equal(!r.failed, ok, hex)
  }
})

t.test('a name has no control characters, spaces or slashes, and is not empty', async (t) => {
  for (const text of ['', 'a b', 'a/b', 'a\n', 'é', 'x'.repeat(65)]) {
    const r = new WireReader(new WireWriter().text(text).done())
    r.name()
    t.ok(r.failed, JSON.stringify(text))
  }
})

t.test('frameSize is never less than what a frame takes', async (t) => {
  fc.assert(
    fc.property(frame, (f) => {
      const one = encodeMessage({ type: 'frames', asked: true, frames: [f] })
      return one.length - 3 <= frameSize(f)
    }),
  )
  t.pass('for every frame')
})
