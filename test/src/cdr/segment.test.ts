import t from 'tap'
import { leafHash, TreeHead } from '../../../src/cdr/merkle.ts'
import { decodePart, encodePart } from '../../../src/cdr/part-codec.ts'
import { buildGroup, commitsFrom, type RecordFrame, scan } from '../../../src/cdr/segment.ts'
import {
  chainStart,
  decodeHeader,
  encodeHeader,
  type Genesis,
  HEADER_BYTES,
  noPrevious,
} from '../../../src/cdr/segment-header.ts'
import { numbered } from './parts.ts'

const genesis: Genesis = { region: 'us-east', node: 'us-east-1', incarnation: 2 ** 32 + 7, createdMs: 1000, previous: noPrevious }
const payloads = (from: number, count: number): Buffer[] =>
  Array.from({ length: count }, (_, i) => encodePart(numbered(from + i)))

/** Three groups of 1, 2 and 3 records, and 64 zeros. */
function small() {
  const start = chainStart(genesis)
  const a = buildGroup(start, payloads(0, 1), 10)
  const b = buildGroup(a.end, payloads(1, 2), 20)
  const c = buildGroup(b.end, payloads(3, 3), 30)
  return { start, groups: [a, b, c], bytes: Buffer.concat([a.bytes, b.bytes, c.bytes, Buffer.alloc(64)]) }
}

t.test('a header decodes to what was encoded, frontier included', (t) => {
  const tree = new TreeHead()
  for (let i = 0; i < 11; i++) tree.append(leafHash(Buffer.from([i])))
  const header = {
    kind: 'recovered' as const,
    number: 12,
    createdMs: 5,
    sizeBytes: 8192,
    genesis: {
      ...genesis,
      previous: { state: 'cut' as const, incarnation: 9, commits: 3, records: 4, hash: new Uint8Array(32).fill(7) },
    },
    start: {
      commits: 6,
      records: 11,
      hash: new Uint8Array(32).fill(1),
      frontier: tree.frontier().map((h) => Uint8Array.from(h)),
    },
  }
  const bytes = encodeHeader(header)
  t.equal(bytes.length, HEADER_BYTES)
  t.same(decodeHeader(bytes), { ok: true, value: header })
  t.end()
})

t.test('any flipped byte of a header is found', (t) => {
  const bytes = encodeHeader({ kind: 'own', number: 1, createdMs: 5, sizeBytes: 8192, genesis, start: chainStart(genesis) })
  let unseen = 0
  for (let at = 0; at < bytes.length; at++) {
    bytes[at] = bytes[at]! ^ 0x20
    if (decodeHeader(bytes).ok) unseen++
    bytes[at] = bytes[at]! ^ 0x20
  }
  t.equal(unseen, 0)
  t.ok(decodeHeader(bytes).ok)
  t.notOk(decodeHeader(bytes.subarray(0, 4095)).ok)
  t.end()
})

t.test('a chain begins with another hash when anything in its genesis differs', (t) => {
  const hash = (g: Partial<Genesis>): string => Buffer.from(chainStart({ ...genesis, ...g }).hash).toString('hex')
  const hashes = [
    hash({}),
    hash({ node: 'us-east-2' }),
    hash({ region: 'us-eas' }),
    hash({ incarnation: 3 }),
    hash({ createdMs: 1 }),
    hash({ previous: { ...noPrevious, state: 'clean' } }),
    hash({ previous: { ...noPrevious, hash: new Uint8Array(32).fill(1) } }),
  ]
  t.equal(new Set(hashes).size, hashes.length)
  t.end()
})

t.test('groups scan back to their records, up to the zeros', (t) => {
  const { start, groups, bytes } = small()
  const records: RecordFrame[] = []
  const found = scan(bytes, 0, start, { record: (r) => records.push(r) })
  t.equal(found.stop, undefined)
  t.equal(found.endOffset, bytes.length - 64)
  t.same(found.end, groups[2]!.end)
  t.same(
    records.map((r) => r.number),
    [0, 1, 2, 3, 4, 5],
  )
  const part = decodePart(records[4]!.payload)
  t.ok(part.ok)
  if (part.ok) t.equal(part.value.callId, 'call-4@example.net')
  t.same(
    [...commitsFrom(bytes, 0)].map((c) => [c.number, c.firstRecord, c.records, c.atMs]),
    [
      [0, 0, 1, 10],
      [1, 1, 2, 20],
      [2, 3, 3, 30],
    ],
  )
  t.end()
})

t.test('a group is the same bytes whenever it is built again, and does not follow another place', (t) => {
  const { start, groups, bytes } = small()
  t.ok(buildGroup(start, payloads(0, 1), 10).bytes.equals(groups[0]!.bytes))
  t.match(scan(bytes, groups[0]!.bytes.length, start), {
    endOffset: groups[0]!.bytes.length,
    stop: { fault: { code: 'CDR_RECORD_DAMAGED' } },
  })
  t.end()
})

t.test('any flipped byte stops the scan in the frame that it is in, with the record it belongs to', (t) => {
  const { start, bytes } = small()
  const frames: { from: number; to: number; record: number; commit: boolean }[] = []
  scan(bytes, 0, start, {
    record: (r) => frames.push({ from: r.offset, to: r.offset + r.bytes, record: r.number, commit: false }),
    group: (end, _from, to) => frames.push({ from: to - 112, to, record: end.records - 1, commit: true }),
  })
  const wrong: string[] = []
  // 0x11 makes the magic of a record that of a commit.
  for (const flip of [0x01, 0x11, 0x80, 0xff]) {
    for (let at = 0; at < bytes.length; at++) {
      bytes[at] = bytes[at]! ^ flip
      const { stop } = scan(bytes, 0, start)
      bytes[at] = bytes[at]! ^ flip
      const frame = frames.find((f) => f.from <= at && at < f.to)
      const fits =
        stop !== undefined &&
        (frame === undefined
          ? stop.fault.offset <= at && stop.fault.offset >= bytes.length - 64
          : stop.fault.offset === frame.from && stop.record === frame.record)
      if (!fits) wrong.push(`byte ${at} ^ ${flip}: ${JSON.stringify(stop)} for ${JSON.stringify(frame)}`)
    }
  }
  t.same(wrong.slice(0, 5), [])
  t.end()
})

t.test('a scan of any cut ends at the last group that is whole', (t) => {
  const { start, groups, bytes } = small()
  const ends = [0, groups[0]!.bytes.length, groups[0]!.bytes.length + groups[1]!.bytes.length]
  for (let length = 0; length < bytes.length - 64; length++) {
    const found = scan(bytes.subarray(0, length), 0, start)
    const whole = ends.filter((e) => e <= length).at(-1)
    if (found.endOffset !== whole || (found.stop === undefined) !== (length === whole))
      t.fail(`cut at ${length}: ${found.endOffset}, not ${whole}`)
  }
  t.end()
})
