import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { bindingFault, compareEncoded, decodeEntry, encodeEntry, MAX_ENTRY_BYTES, tryEncodeEntry } from '../../crdt/codec.ts'
import type { BindingEntry, DialogEntry, Entry } from '../../crdt/entry.ts'
import { ENTRY_LIMITS } from '../../crdt/entry-check.ts'
import { AntipodeError } from '../../src/base/errors.ts'
import { makeBinding, makeDialog } from './model.ts'

/** Any string at all: bytes of a SIP message, astral characters, lone surrogates. */
const text = (maxLength: number, minLength = 0): fc.Arbitrary<string> =>
  fc.oneof(
    fc.string({ minLength, maxLength: Math.min(maxLength, 40), unit: 'binary-ascii' }),
    fc
      .array(fc.oneof({ weight: 4, arbitrary: fc.nat(0xff) }, fc.nat(0xffff)), { minLength, maxLength: Math.min(maxLength, 40) })
      .map((units) => String.fromCharCode(...units)),
  )
const number = fc.oneof(
  fc.maxSafeNat(),
  fc.nat(300),
  fc.constantFrom(0, 127, 128, 16383, 16384, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER),
)
const PLAIN = { noNullPrototype: true }
const port = fc.nat(0xffff)

const base = { hlc: number, region: text(64, 1), node: text(64, 1), incarnation: number }

const binding: fc.Arbitrary<BindingEntry> = fc
  .record(
    {
      ...base,
      kind: fc.constant('binding' as const),
      op: fc.constantFrom('set' as const, 'remove' as const, 'clear' as const),
      aor: text(512, 1),
      key: text(1024, 1),
      isKeyContact: fc.boolean(),
      callId: text(512, 1),
      cseq: fc.nat(0x7fffffff),
      reset: fc.boolean(),
      expiresAtMs: number,
      contact: text(1024, 1),
      contactParams: text(1024),
      q: fc.nat(1000),
      path: fc.array(text(512), { maxLength: ENTRY_LIMITS.pathValues }),
      flow: fc.record(
        {
          transport: text(8),
          localAddress: text(64),
          localPort: port,
          remoteAddress: text(64),
          remotePort: port,
          connectionId: fc.oneof(fc.constant(-1), fc.nat()),
          nat: fc.boolean(),
        },
        PLAIN,
      ),
      userAgent: text(256),
    },
    PLAIN,
  )
  .map(({ isKeyContact, ...e }) => ({
    ...e,
    key: e.op === 'clear' ? '' : isKeyContact ? e.contact : e.key,
    reset: e.reset && e.op !== 'clear',
    expiresAtMs: e.op === 'set' ? Math.max(1, e.expiresAtMs) : 0,
  }))

const dialog: fc.Arbitrary<DialogEntry> = fc
  .record(
    {
      ...base,
      kind: fc.constant('dialog' as const),
      id: text(60),
      isIdTagged: fc.boolean(),
      phase: fc.constantFrom('early' as const, 'confirmed' as const, 'ended' as const),
      callId: text(512, 1),
      fromTag: text(256),
      toTag: text(256),
      caller: text(512),
      callee: text(512),
      startMs: number,
      answerMs: number,
      leaseUntilMs: number,
      endMs: number,
      observed: fc.boolean(),
    },
    PLAIN,
  )
  .map(({ isIdTagged, ...e }) => ({
    ...e,
    id: isIdTagged ? `${e.id}/${e.toTag}` : `${e.id}/x`,
    answerMs: e.phase === 'early' ? 0 : e.answerMs,
    leaseUntilMs: e.phase === 'ended' ? 0 : Math.max(1, e.leaseUntilMs),
    endMs: e.phase === 'ended' ? Math.max(1, e.endMs) : 0,
    observed: e.phase === 'ended' && e.observed,
  }))

const anyEntry: fc.Arbitrary<Entry> = fc.oneof(binding, dialog)

const hex = (e: Entry): string => Buffer.from(encodeEntry(e)).toString('hex')
const copyOf = (e: Entry): Entry => structuredClone(e)

t.test('every entry comes back as it was', async (t) => {
  fc.assert(
    fc.property(anyEntry, (e) => {
      const decoded = decodeEntry(e.kind, encodeEntry(e))
      if (!decoded.ok) throw new Error(`${decoded.fault.code} ${decoded.fault.detail}`)
      return isDeepStrictEqual(decoded.value, e)
    }),
    { numRuns: 3000 },
  )
  t.pass('3,000 entries')
})

t.test('the format is final: two entries byte for byte', async (t) => {
  t.equal(
    hex(makeBinding({ cseq: 300, contactParams: ';ob', q: 500 })),
    '1080807d8180808010' + // set, key is the contact; hlc 2048000; incarnation 2^32 + 1
      '0e75732d65617374' + // us-east
      '1275732d656173742d31' + // us-east-1
      '247369703a7531406578616d706c652e6e6574' +
      '1c6138346234633736653636373130' +
      'ac02' + // CSeq
      'a408' + // expires at 1060
      '2a7369703a7531403132372e302e302e313a35303730' +
      '063b6f62' +
      'f403' + // q
      '00' + // no Path
      '06756470' +
      '123132372e302e312e31' +
      'c427' +
      '123132372e302e302e31' +
      'ce27' +
      '00' + // no connection
      '0873697070',
  )
  t.equal(
    hex(makeDialog({ phase: 'ended', callId: 'ü€' })),
    '0e80807d8180808010' + // ended, observed, id ends with the To-tag
      '0e75732d65617374' +
      '1275732d656173742d31' +
      '40' +
      Buffer.from('0123456789abcdef0123456789abcdef').toString('hex') +
      '05fc00ac20' + // two wide units
      '047431' +
      '047432' +
      '247369703a7532406578616d706c652e6e6574' +
      '247369703a7531406578616d706c652e6e6574' +
      '8407' +
      'b607' +
      'd00f',
  )
})

t.test('bytes altered anywhere are refused or encode to themselves', async (t) => {
  let accepted = 0
  let refused = 0
  const codes = new Set<string>()
  fc.assert(
    fc.property(anyEntry, fc.array(fc.tuple(fc.nat(), fc.nat(255), fc.nat(3)), { minLength: 1, maxLength: 3 }), (e, edits) => {
      const bytes = [...encodeEntry(e)]
      for (const [place, value, how] of edits) {
        const i = place % bytes.length
        if (how === 0) bytes.splice(i, 1)
        else if (how === 1) bytes.splice(i, 0, value)
        else bytes[i] = value
      }
      const altered = Uint8Array.from(bytes)
      const decoded = decodeEntry(e.kind, altered)
      if (decoded.ok) {
        accepted++
        return Buffer.compare(encodeEntry(decoded.value), altered) === 0
      }
      refused++
      codes.add(decoded.fault.code)
      return /^CRDT_ENTRY_[A-Z_]+$/.test(decoded.fault.code) && decoded.fault.offset >= -1
    }),
    { numRuns: 6000 },
  )
  // Both outcomes have been seen, or the property says little.
  t.ok(accepted > 200 && refused > 200, `${accepted} accepted, ${refused} refused`)
  t.strictSame([...codes].sort(), ['CRDT_ENTRY_FIELD', 'CRDT_ENTRY_NOT_CANONICAL', 'CRDT_ENTRY_SHORT'])
})

t.test('random bytes never throw', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom('binding' as const, 'dialog' as const), (bytes, kind) => {
      const decoded = decodeEntry(kind, bytes)
      return !decoded.ok || Buffer.compare(encodeEntry(decoded.value), bytes) === 0
    }),
    { numRuns: 5000 },
  )
  t.pass('5,000 inputs')
})

t.test('every truncation is refused', async (t) => {
  for (const e of [
    makeBinding({ path: ['<sip:p1@127.0.1.1;lr>', '<sip:p2@127.0.1.2;lr>'], key: '"<urn:uuid:1>";1' }),
    makeBinding({ op: 'clear', key: '' }),
    makeDialog({ phase: 'confirmed' }),
    makeDialog({ caller: '€' }),
  ]) {
    const bytes = encodeEntry(e)
    for (let size = 0; size < bytes.length; size++) {
      const decoded = decodeEntry(e.kind, bytes.subarray(0, size))
      if (decoded.ok) t.fail(`${size} of ${bytes.length} bytes of a ${e.kind} were accepted`)
    }
    t.ok(decodeEntry(e.kind, bytes).ok)
  }
})

t.test('refuses what has a second spelling', async (t) => {
  const bytes = encodeEntry(makeBinding())
  const at = (haystack: Uint8Array, needle: string): number => Buffer.from(haystack).indexOf(needle, 0, 'latin1')
  const splice = (i: number, removed: number, ...inserted: number[]): Uint8Array =>
    Uint8Array.from([...bytes.subarray(0, i), ...inserted, ...bytes.subarray(i + removed)])
  const code = (input: Uint8Array): string => {
    const decoded = decodeEntry('binding', input)
    return decoded.ok ? 'accepted' : decoded.fault.code
  }
  t.equal(code(bytes), 'accepted')
  const cseqAt = at(bytes, 'a84b4c76e66710') + 14
  t.equal(bytes[cseqAt], 1)
  t.equal(code(splice(cseqAt, 1, 0x81, 0)), 'CRDT_ENTRY_NOT_CANONICAL', 'a varint with a byte too many')
  const uaAt = at(bytes, 'sipp') - 1
  t.equal(code(splice(uaAt, 5, 9, 0x73, 0, 0x69, 0, 0x70, 0, 0x70, 0)), 'CRDT_ENTRY_NOT_CANONICAL', 'a wide string without need')
  for (const run of [8, 9, 200, 2000]) {
    const long = splice(cseqAt, 1, ...new Array(run).fill(0x80), 1)
    t.equal(code(long), 'CRDT_ENTRY_FIELD', `a varint of ${run + 1} bytes`)
    const hlc = Uint8Array.from([0, ...new Array(run).fill(0x80), 1])
    t.equal(code(hlc), 'CRDT_ENTRY_FIELD', 'also where any number is allowed')
  }
  t.equal(code(splice(uaAt, 5, 1)), 'CRDT_ENTRY_NOT_CANONICAL', 'an empty wide string')
  t.equal(code(splice(bytes.length, 0, 0)), 'CRDT_ENTRY_NOT_CANONICAL', 'a byte after the end')
  const aorEnd = at(bytes, 'sip:u1@example.net') + 18
  const key = [42, ...Buffer.from('sip:u1@127.0.0.1:5070')]
  t.equal(
    code(Uint8Array.from([0, ...splice(aorEnd, 0, ...key).subarray(1)])),
    'CRDT_ENTRY_NOT_CANONICAL',
    'a key that repeats the contact',
  )
  t.equal(code(Uint8Array.from([bytes[0]! | 0b100000, ...bytes.subarray(1)])), 'CRDT_ENTRY_FIELD', 'an unknown flag')
  t.equal(code(Uint8Array.from([3, ...bytes.subarray(1)])), 'CRDT_ENTRY_FIELD', 'an unknown op')
  const clear = encodeEntry(makeBinding({ op: 'clear', key: '' }))
  t.equal(code(Uint8Array.from([0b10010, ...clear.subarray(1)])), 'CRDT_ENTRY_NOT_CANONICAL', 'a clear whose key is its contact')
  const ended = encodeEntry(makeDialog({ phase: 'ended' }))
  const idAt = at(ended, '0123456789') - 1
  const spelled = [
    ended[0]! & ~0b1000,
    ...ended.subarray(1, idAt),
    70,
    ...ended.subarray(idAt + 1, idAt + 33),
    0x2f,
    0x74,
    0x32,
    ...ended.subarray(idAt + 33),
  ]
  const decoded = decodeEntry('dialog', Uint8Array.from(spelled))
  t.match(decoded, { ok: false, fault: { code: 'CRDT_ENTRY_NOT_CANONICAL' } }, 'an id that repeats the To-tag')
})

t.test('reads at an offset of a larger buffer, and keeps nothing of it', async (t) => {
  const e = makeBinding({ key: '"<urn:uuid:1>";1', callId: 'ü€' })
  const bytes = encodeEntry(e)
  const frame = new Uint8Array(bytes.length + 7)
  frame.set(bytes, 3)
  const decoded = decodeEntry('binding', frame.subarray(3, 3 + bytes.length))
  frame.fill(0)
  t.ok(decoded.ok)
  if (decoded.ok) t.strictSame(decoded.value, e)
})

t.test('holds every field to its limit, both ways', async (t) => {
  const x = (n: number): string => 'x'.repeat(n)
  const flow = makeBinding().flow
  const atLimit: Entry[] = [
    makeBinding({ aor: x(512) }),
    makeBinding({ key: x(1024) }),
    makeBinding({ callId: x(512), cseq: 0x7fffffff }),
    makeBinding({ contact: x(1024), contactParams: x(1024) }),
    makeBinding({ path: Array.from({ length: 6 }, () => x(512)) }),
    makeBinding({ path: Array.from({ length: 8 }, () => '') }),
    makeBinding({ region: x(64), node: x(64), userAgent: x(256), flow: { ...flow, localAddress: x(64), remotePort: 65535 } }),
    makeDialog({ id: `${x(319)}/`, fromTag: x(256), toTag: x(256) }),
  ]
  for (const e of atLimit) t.ok(decodeEntry(e.kind, encodeEntry(e)).ok)
  const over: [string, Entry][] = [
    ['hlc', makeBinding({ hlc: -1 })],
    ['hlc', makeBinding({ hlc: 2 ** 53 })],
    ['incarnation', makeBinding({ incarnation: 0.5 })],
    ['region', makeBinding({ region: '' })],
    ['node', makeBinding({ node: x(65) })],
    ['aor', makeBinding({ aor: x(513) })],
    ['aor', makeBinding({ aor: '' })],
    ['key', makeBinding({ key: '' })],
    ['key', makeBinding({ op: 'clear' })],
    ['key', makeBinding({ key: x(1025) })],
    ['callId', makeBinding({ callId: '' })],
    ['cseq', makeBinding({ cseq: 2 ** 31 })],
    ['cseq', makeBinding({ cseq: -1 })],
    ['reset', makeBinding({ op: 'clear', key: '', reset: true })],
    ['expiresAtMs', makeBinding({ expiresAtMs: 0 })],
    ['expiresAtMs', makeBinding({ op: 'remove', expiresAtMs: 5 })],
    ['expiresAtMs', makeBinding({ expiresAtMs: Number.NaN })],
    ['contact', makeBinding({ contact: x(1025) })],
    ['contactParams', makeBinding({ contactParams: x(1025) })],
    ['q', makeBinding({ q: 1001 })],
    ['path', makeBinding({ path: Array.from({ length: 9 }, () => '') })],
    ['path', makeBinding({ path: [x(513)] })],
    ['flow.transport', makeBinding({ flow: { ...flow, transport: x(9) } })],
    ['flow.localAddress', makeBinding({ flow: { ...flow, localAddress: x(65) } })],
    ['flow.localPort', makeBinding({ flow: { ...flow, localPort: 65536 } })],
    ['flow.remoteAddress', makeBinding({ flow: { ...flow, remoteAddress: x(65) } })],
    ['flow.remotePort', makeBinding({ flow: { ...flow, remotePort: -1 } })],
    ['flow.connectionId', makeBinding({ flow: { ...flow, connectionId: -2 } })],
    ['userAgent', makeBinding({ userAgent: x(257) })],
    ['id', makeDialog({ id: 'no slash' })],
    ['id', makeDialog({ id: `${x(320)}/` })],
    ['callId', makeDialog({ callId: x(513) })],
    ['fromTag', makeDialog({ fromTag: x(257) })],
    ['toTag', makeDialog({ toTag: x(257) })],
    ['caller', makeDialog({ caller: x(513) })],
    ['callee', makeDialog({ callee: x(513) })],
    ['startMs', makeDialog({ startMs: -1 })],
    ['answerMs', makeDialog({ answerMs: 5 })],
    ['leaseUntilMs', makeDialog({ leaseUntilMs: 0 })],
    ['leaseUntilMs', makeDialog({ phase: 'ended', leaseUntilMs: 5 })],
    ['endMs', makeDialog({ endMs: 5 })],
    ['endMs', makeDialog({ phase: 'ended', endMs: 0 })],
    ['observed', makeDialog({ phase: 'confirmed', observed: true })],
  ]
  for (const [field, e] of over) {
    const encoded = tryEncodeEntry(e)
    t.match(encoded, { ok: false, fault: { code: 'CRDT_ENTRY_FIELD', detail: new RegExp(`^${field}:`) } }, field)
  }
  t.throws(() => encodeEntry(makeBinding({ aor: '' })), AntipodeError)
})

t.test('refuses an entry of more than 4 KiB, both ways', async (t) => {
  const path = Array.from({ length: 8 }, () => 'p'.repeat(500))
  t.match(tryEncodeEntry(makeBinding({ path })), { ok: false, fault: { code: 'CRDT_ENTRY_TOO_LARGE' } })
  const wide = '€'.repeat(512)
  t.match(tryEncodeEntry(makeBinding({ path: Array.from({ length: 8 }, () => wide), contact: '€'.repeat(1024) })), { ok: false })
  t.match(decodeEntry('binding', new Uint8Array(MAX_ENTRY_BYTES + 1)), { ok: false, fault: { code: 'CRDT_ENTRY_TOO_LARGE' } })
  t.ok(tryEncodeEntry(makeBinding()).ok, 'and the next one is not disturbed')
})

t.test('a binding is judged before it is stamped, for the node with the longest name', async (t) => {
  const { kind: _kind, hlc: _hlc, region: _region, node: _node, incarnation: _incarnation, ...w } = makeBinding()
  t.equal(bindingFault(w), undefined)
  t.match(bindingFault({ ...w, aor: 'x'.repeat(513) }), { code: 'CRDT_ENTRY_FIELD' })
  const pathOf = (units: number): string[] => [...new Array(7).fill('p'.repeat(500)), 'p'.repeat(units)]
  const longest = {
    hlc: Number.MAX_SAFE_INTEGER,
    region: 'r'.repeat(64),
    node: 'n'.repeat(64),
    incarnation: Number.MAX_SAFE_INTEGER,
  }
  let refused = 0
  for (let units = 100; units < 400; units++) {
    const fields = { ...w, path: pathOf(units) }
    const problem = bindingFault(fields)
    if (problem !== undefined) refused++
    t.equal(problem === undefined, tryEncodeEntry({ ...fields, ...longest, kind: 'binding' }).ok)
  }
  t.ok(refused > 10 && refused < 290, `the edge lies between: ${refused} of 300 refused`)
})

t.test('refuses on the wire what an author may not write', async (t) => {
  // Each is spelled canonically, so only the meaning is at fault.
  const ended = Buffer.from(encodeEntry(makeDialog({ phase: 'ended', endMs: 5 })))
  t.equal(ended.at(-1), 5)
  ended[ended.length - 1] = 0
  t.match(decodeEntry('dialog', ended), { ok: false, fault: { detail: /^endMs/ } })
  const confirmed = Buffer.from(encodeEntry(makeDialog({ phase: 'confirmed' })))
  confirmed[0] = confirmed[0]! | 0b100
  t.match(decodeEntry('dialog', confirmed), { ok: false, fault: { detail: /^observed/ } })
  const clear = Buffer.from(encodeEntry(makeBinding({ op: 'clear', key: '' })))
  clear[0] = clear[0]! | 0b100
  t.match(decodeEntry('binding', clear), { ok: false, fault: { detail: /^reset/ } })
})

t.test('tells verbatim copies from forged ones', async (t) => {
  const a = makeBinding()
  t.equal(compareEncoded(a, copyOf(a)), 0)
  const forged = makeBinding({ contact: 'sip:mallory@127.0.0.9' })
  t.equal(Math.sign(compareEncoded(a, forged)), -Math.sign(compareEncoded(forged, a)))
  t.not(compareEncoded(a, forged), 0)
})
