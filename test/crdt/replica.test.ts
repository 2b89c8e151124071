import fc from 'fast-check'
import t from 'tap'
import * as Y from 'yjs'
import { encodeEntry } from '../../crdt/codec.ts'
import { retentionEndMs } from '../../crdt/digest.ts'
import type { Entry } from '../../crdt/entry.ts'
import { ALL_BUCKETS, docKey, type Frame, LIMITS } from '../../crdt/frames.ts'
import type { Outcome } from '../../crdt/replica.ts'
import { encodeUpdate, parseUpdate } from '../../crdt/update.ts'
import { WireWriter } from '../../src/base/bytes.ts'
import { HLC_PER_MS } from '../../src/base/hlc.ts'
import { author, binding, CONSTANTS, dialog, docName, fingerprint, INCARNATION, makeReplica, NOW } from './replica-kit.ts'

const record = (e: Entry): Uint8Array => new Uint8Array([1, ...encodeEntry(e)])
const code = (o: Outcome): string => (o.kind === 'refused' || o.kind === 'ignored' ? o.fault.code : o.kind)

t.test('an update is byte for byte what yjs makes of the same records', async (t) => {
  const random = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { minLength: 1, maxLength: 40 })
  fc.assert(
    fc.property(random, fc.nat(), (records, cut) => {
      const from = cut % records.length
      const y = new Y.Doc({ gc: false })
      y.clientID = INCARNATION
      const map = y.getMap<Uint8Array>('e')
      y.transact(() => {
        for (const [i, r] of records.entries()) map.set(String(i), r)
      })
      const have = Y.encodeStateVector(new Map([[INCARNATION, from]]))
      const ours = encodeUpdate(docName(), from, records.slice(from))
      return ours.equals(Buffer.from(Y.encodeStateAsUpdate(y, have)))
    }),
  )
  t.pass('for random records and ranges')
})

t.test('what is parsed out of an update is what was put in', async (t) => {
  const { frames, entries } = author([3])
  const parsed = parseUpdate(frames[0]!)
  t.ok(parsed.ok)
  t.same(
    parsed.ok && parsed.value.map((r) => Buffer.from(r)),
    entries.map((e) => Buffer.from(record(e))),
  )
})

t.test('order, duplicates, batching and overlaps make no difference', async (t) => {
  const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 8 })
  fc.assert(
    fc.property(sizes, fc.infiniteStream(fc.nat()), (batches, picks) => {
      const { replica, frames, entries } = author(batches)
      const other = makeReplica('eu-west-1')
      const got: Entry[] = []
      const name = frames[0]!.doc
      // Deliver random frames and random ranges, in any order and more than once, until all is there.
      for (let round = 0; other.recordCount < entries.length && round < 10_000; round++) {
        const [a, b, c] = [picks.next().value!, picks.next().value!, picks.next().value!]
        const from = b % entries.length
        const frame = a % 2 === 0 ? frames[b % frames.length]! : replica.serve(name, from, from + 1 + (c % 7), 1 << 18)!
        const before = fingerprint(other)
        const outcome = other.apply(frame, NOW)
        if (outcome.kind === 'applied') got.push(...outcome.entries)
        else if (fingerprint(other) !== before) return false
        if (outcome.kind === 'refused' || outcome.kind === 'ignored') return false
      }
      return fingerprint(other) === fingerprint(replica) && JSON.stringify(got) === JSON.stringify(entries)
    }),
    { numRuns: 100 },
  )
  t.pass('each entry was given once, in order, and the digests are equal')
})

t.test('a relay serves what it was given: the same bytes as the author', async (t) => {
  const { replica, frames } = author([70, 90, 1])
  const relay = makeReplica('eu-west-1')
  for (const f of frames) t.equal(relay.apply(f, NOW).kind, 'applied')
  const end = makeReplica('ap-south-1')
  for (const from of [0, 63, 64, 65, 128, 160])
    t.same(relay.serve(docName(), from, 161, 4096), replica.serve(docName(), from, 161, 4096), `from ${from}`)
  let slices = 0
  for (let at = 0; at < 161; at = end.clock(docKey(docName()))) {
    t.equal(end.apply(relay.serve(docName(), at, 161, 4096)!, NOW).kind, 'applied')
    slices++
  }
  t.ok(slices > 3, `${slices} slices`)
  t.equal(fingerprint(end), fingerprint(replica))
})

t.test('an early frame is not applied, and says what is lacking', async (t) => {
  const { frames } = author([2, 2])
  const other = makeReplica('eu-west-1')
  t.same(other.apply(frames[1]!, NOW), { kind: 'early', have: 0 })
  t.equal(other.docCount, 0)
  t.equal(other.apply(frames[0]!, NOW).kind, 'applied')
  t.equal(other.apply(frames[1]!, NOW).kind, 'applied')
})

t.test('hostile frames are refused by name and leave the state as it was', async (t) => {
  const { frames, entries } = author([2, 2])
  const [first, second] = [frames[0]!, frames[1]!]
  const rest = entries.slice(2).map(record)
  const make = (records: readonly Uint8Array[], doc = docName(), from = 2): Frame => ({
    ...second,
    ...{ doc, from, to: from + records.length, update: encodeUpdate(doc, from, records) },
  })
  /** The second frame with another update. */
  const bytes = (update: Uint8Array): Frame => ({ ...second, update })
  const edit = (at: number, value: number): Frame => {
    const update = Buffer.from(second.update)
    update[at] = value
    return bytes(update)
  }
  // 01 count incarnation(7) from | 23 01 01 65 …
  const withoutDeletes = second.update.subarray(0, -1)
  const yDeletes = ((): Buffer => {
    const y = new Y.Doc({ gc: false })
    Y.applyUpdate(y, first.update)
    y.getMap('e').delete('1')
    const set = Buffer.from(Y.encodeStateAsUpdate(y, Y.encodeStateVector(y)))
    // An update without structs, with a delete set only: 00, then the set.
    return set.subarray(1)
  })()
  const cases: [string, string, Frame][] = [
    ['a delete set', 'CRDT_UPDATE_DELETES', bytes(Buffer.concat([withoutDeletes, yDeletes]))],
    ['a delete set of six bytes and no structs', 'CRDT_UPDATE_CLIENTS', bytes(Buffer.concat([Buffer.from([0]), yDeletes]))],
    ['no delete set at all', 'CRDT_UPDATE_DELETES', bytes(withoutDeletes)],
    ['bytes left over', 'CRDT_UPDATE_TRAILING', bytes(Buffer.concat([second.update, Buffer.from([0])]))],
    ['two clients', 'CRDT_UPDATE_CLIENTS', edit(0, 2)],
    ['another count', 'CRDT_UPDATE_COUNT', edit(1, 3)],
    [
      'a million structs in a few bytes',
      'CRDT_UPDATE_COUNT',
      bytes(new WireWriter().uint(1).uint(1_000_000).uint(INCARNATION).uint(2).u8(0).done()),
    ],
    [
      'a frame that claims as many as its update, and has none',
      'CRDT_UPDATE_COUNT',
      { ...bytes(new WireWriter().uint(1).uint(16_000).uint(INCARNATION).uint(2).u8(0).done()), to: 16_002 },
    ],
    ['an unknown client', 'CRDT_UPDATE_CLIENT', bytes(encodeUpdate({ ...docName(), incarnation: 5 }, 2, rest))],
    ['another first clock', 'CRDT_UPDATE_CLOCK', bytes(encodeUpdate(docName(), 3, rest))],
    ['a skip', 'CRDT_UPDATE_STRUCT', edit(10, 10)],
    ['a GC struct', 'CRDT_UPDATE_STRUCT', edit(10, 0)],
    ['an item with an origin', 'CRDT_UPDATE_STRUCT', edit(10, 0xa3)],
    ['a string instead of bytes', 'CRDT_UPDATE_STRUCT', edit(10, 0x24)],
    ['another root', 'CRDT_UPDATE_STRUCT', edit(13, 0x66)],
    ['a key that is not the clock', 'CRDT_UPDATE_STRUCT', edit(15, 0x30)],
    ['an empty record', 'CRDT_RECORD_SIZE', make([new Uint8Array(0), rest[1]!])],
    ['a record too long', 'CRDT_RECORD_SIZE', make([new Uint8Array(LIMITS.recordBytes + 1)])],
    ['a reserved record', 'CRDT_RECORD_TAG', make([new Uint8Array([2, 1, 2]), rest[1]!])],
    ['an entry of another author', 'CRDT_ENTRY_AUTHOR', make([record(binding(NOW, 10, { node: 'us-east-2' }))])],
    ['an entry of another incarnation', 'CRDT_ENTRY_AUTHOR', make([record(binding(NOW, 10, { incarnation: 1 }))])],
    ['an entry of another bucket', 'CRDT_ENTRY_BUCKET', make([record(binding(NOW - 1000, 10))])],
    ['a stamp that is not above the last', 'CRDT_ENTRY_ORDER', make([record(binding(NOW, 1))])],
    ['stamps that fall', 'CRDT_ENTRY_ORDER', make([...rest].reverse())],
    ['a wrong hash', 'CRDT_HASH', { ...second, hash: Buffer.alloc(32) }],
    ['an altered record', 'CRDT_HASH', make([record(binding(NOW, 2, { cseq: 77 } as Partial<Entry>)), rest[1]!])],
    ['an author that is not configured', 'CRDT_UNKNOWN_AUTHOR', make(rest, docName({ node: 'mars-1' }))],
    ['an author in a region that is not its own', 'CRDT_UNKNOWN_AUTHOR', make(rest, docName({ region: 'eu-west' }))],
    [
      'a false clock',
      'CRDT_CLOCK_AHEAD',
      make([record(binding(NOW + 501, 0))], docName({ bucket: Math.floor((NOW + 501) / 1000) }), 0),
    ],
    ['a bucket far ahead', 'CRDT_CLOCK_AHEAD', make(rest, docName({ bucket: 10 ** 12 }))],
    ['a bucket past its retention', 'CRDT_EXPIRED', make(rest, docName({ bucket: 1 }))],
  ]
  const holder = makeReplica('eu-west-1')
  t.equal(holder.apply(first, NOW).kind, 'applied')
  const before = fingerprint(holder)
  for (const [what, expected, frame] of cases) {
    t.equal(code(holder.apply(frame, NOW)), expected, what)
    t.equal(fingerprint(holder), before, `${what}: state unchanged`)
  }
  t.equal(holder.apply(second, NOW).kind, 'applied', 'the honest frame is still taken')
  t.notSame(holder.serve(docName(), 0, 4, 4096), undefined)
})

t.test('an entry that no codec would write is refused by the codec', async (t) => {
  const holder = makeReplica('eu-west-1')
  const bad = new Uint8Array([1, 255, 255, 255])
  const outcome = holder.apply(
    { doc: docName(), from: 0, to: 1, hash: Buffer.alloc(32), update: encodeUpdate(docName(), 0, [bad]) },
    NOW,
  )
  t.match(code(outcome), /^CRDT_ENTRY_/)
  t.equal(holder.docCount, 0)
})

t.test('random damage to a frame never throws and never gets in', async (t) => {
  const { frames } = author([4])
  const good = frames[0]!
  fc.assert(
    fc.property(fc.nat(good.update.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const update = Buffer.from(good.update)
      update[at] = update[at]! ^ change
      const holder = makeReplica('eu-west-1')
      return holder.apply({ ...good, update }, NOW).kind === 'refused' && holder.docCount === 0
    }),
    { numRuns: 500 },
  )
  t.pass('500 damaged frames')
})

t.test('a false clock holds its doc back until the clock has come there', async (t) => {
  const writer = makeReplica('us-east-1')
  writer.append(binding(NOW + 800))
  const [frame] = writer.flush()
  const holder = makeReplica('eu-west-1')
  const outcome = holder.apply(frame!, NOW)
  t.match(outcome, { kind: 'ignored', retryAtMs: NOW + 300 })
  t.equal(holder.apply(frame!, NOW + 299).kind, 'ignored')
  t.equal(holder.apply(frame!, NOW + 300).kind, 'applied')
})

t.test('a doc is dropped with all its entries when its retention is over, and is refused from then on', async (t) => {
  const { replica, frames, entries } = author([3])
  const holder = makeReplica('eu-west-1')
  holder.apply(frames[0]!, NOW)
  const end = retentionEndMs(docName().bucket, CONSTANTS)
  t.same(holder.expire(end - 1), [])
  t.same(holder.expire(end), [entries])
  t.same([holder.docCount, holder.recordCount, holder.digests()], [0, 0, []])
  t.equal(code(holder.apply(frames[0]!, end)), 'CRDT_EXPIRED')
  t.same(replica.expire(end), [entries], 'at the author too')
  t.equal(fingerprint(replica), fingerprint(holder))
})

t.test('docs roll by bucket and by part, bindings and dialogs apart', async (t) => {
  const replica = makeReplica('us-east-1')
  for (let i = 0; i <= LIMITS.partRecords; i++) replica.append(binding(NOW, i))
  replica.append(dialog(NOW, 40_000))
  replica.append(binding(NOW + 1000))
  const frames = replica.flush()
  t.ok(frames.length > 4 && frames.every((f) => f.update.length <= LIMITS.updateBytes), 'a long flush is cut into frames')
  const ends = new Map(frames.map((f) => [docKey(f.doc), f]))
  t.same(
    [...ends.values()].map((f) => [f.doc.kind, f.doc.bucket - docName().bucket, f.doc.part, f.to]).sort(),
    [
      ['binding', 0, 0, LIMITS.partRecords],
      ['binding', 0, 1, 1],
      ['binding', 1, 0, 1],
      ['dialog', 0, 0, 1],
    ].sort(),
  )
  t.equal(replica.docCount, 4)
})

t.test('what was appended is on no wire before the flush, and one flush makes one frame a doc', async (t) => {
  const replica = makeReplica('us-east-1')
  replica.append(binding(NOW, 0))
  replica.append(binding(NOW, 1))
  t.equal(replica.docCount, 0)
  t.ok(replica.pendingBytes > 100)
  const frames = replica.flush()
  t.equal(frames.length, 1)
  t.equal(replica.pendingBytes, 0)
  t.same(replica.flush(), [])
  t.equal(replica.recordCount, 2)
})

t.test('a doc of this very incarnation that is longer than we wrote is told apart from a duplicate', async (t) => {
  const { replica, frames } = author([2])
  t.equal(replica.apply(frames[0]!, NOW).kind, 'duplicate')
  t.equal(replica.apply({ ...frames[0]!, from: 2, to: 3 }, NOW).kind, 'own')
  const restarted = makeReplica('us-east-1', INCARNATION + 2 ** 32)
  t.equal(restarted.apply(frames[0]!, NOW).kind, 'applied', 'an older incarnation is read like any other author')
  restarted.append(binding(NOW, 5, { incarnation: INCARNATION + 2 ** 32 }))
  t.same(
    restarted.flush().map((f) => f.doc.incarnation),
    [INCARNATION + 2 ** 32],
    'and never written',
  )
})

t.test('tips come newest bucket first in whole buckets, with the sum of the rest', async (t) => {
  const replica = makeReplica('us-east-1')
  for (let s = 0; s < 6; s++) {
    replica.append(binding(NOW + 1000 * s))
    replica.append(dialog(NOW + 1000 * s, 1))
  }
  replica.flush()
  const base = docName().bucket
  const { tips, floor, rest } = replica.tips(docName(), 0, ALL_BUCKETS, 3)
  t.same(
    tips.map((tip) => tip.bucket - base),
    [5, 5, 4, 4],
    'three asked for, the bucket completed',
  )
  t.equal(floor, base + 4)
  t.equal(rest.docs, 8)
  t.ok(replica.matches(docName(), 0, floor, rest.docs, rest.bytes()))
  t.notOk(replica.matches(docName(), base + 1, floor, rest.docs, rest.bytes()), 'above another horizon')
  const all = replica.tips(docName(), base + 2, ALL_BUCKETS, 100)
  t.same([all.tips.length, all.floor, all.rest.docs], [8, base + 2, 0])
})

t.test('stamps of one author rise, so entries of one millisecond keep their order', async (t) => {
  const { entries } = author([5])
  t.same(
    entries.map((e) => e.hlc - NOW * HLC_PER_MS),
    [0, 1, 2, 3, 4],
  )
})

t.test('no doc name is used twice, even when a clock that ran ahead had its doc dropped', async (t) => {
  const { replica, frames } = author([2])
  t.equal(replica.expire(retentionEndMs(docName().bucket, CONSTANTS)).length, 1)
  replica.append(binding(NOW, 2))
  const [frame] = replica.flush()
  t.not(docKey(frame!.doc), docKey(frames[0]!.doc))
  const holder = makeReplica('eu-west-1')
  for (const f of [...frames, frame!]) t.equal(holder.apply(f, NOW).kind, 'applied')
  t.equal(holder.recordCount, 3)
})

t.test('a node never holds more authors than its digest may list', async (t) => {
  const holder = makeReplica('eu-west-1')
  for (let i = 0; i < LIMITS.digestAuthors; i++) {
    const writer = makeReplica('us-east-1', INCARNATION + i)
    writer.append({ ...binding(NOW), incarnation: INCARNATION + i })
    holder.apply(writer.flush()[0]!, NOW)
  }
  holder.append({ ...binding(NOW), region: 'eu-west', node: 'eu-west-1' })
  holder.flush()
  t.equal(holder.digests().length, LIMITS.digestAuthors)
})
