import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { scan } from '../../../../src/cdr/segment.ts'
import { decodeHeader, HEADER_BYTES } from '../../../../src/cdr/segment-header.ts'
import { readParts, verifyDirectory } from '../../../../src/cdr/store/audit.ts'
import type { CdrJournal } from '../../../../src/cdr/store/journal.ts'
import { makePart, numbered } from '../parts.ts'
import { nextIncarnation, openAlone, scratch } from './harness.ts'

const ids = (parts: readonly { callId: string }[]): string[] => parts.map((p) => p.callId).sort()
const callIds = (count: number): string[] => Array.from({ length: count }, (_, n) => `call-${n}@example.net`).sort()

async function appendAll(journal: CdrJournal, from: number, to: number): Promise<void> {
  const all: Promise<{ durable: boolean }>[] = []
  for (let n = from; n < to; n++) all.push(journal.append(numbered(n)))
  for (const { durable } of await Promise.all(all)) if (!durable) throw new Error('not durable')
}

t.test('what was appended is there after a restart, and a new chain vouches for the old one', async (t) => {
  const directory = scratch(t)
  const first = await openAlone(directory)
  t.equal(first.stats().previous, 'none')
  await appendAll(first, 0, 50)
  t.same(ids(await first.parts()), callIds(50), 'while it is open')
  t.ok(first.healthy())
  await first.close()
  await t.rejects(first.append(makePart()), { code: 'CDR_CLOSED' })
  const second = await openAlone(directory)
  t.equal(second.stats().previous, 'clean')
  await appendAll(second, 50, 60)
  const live = await verifyDirectory(directory)
  t.match(live, { errors: [], records: 60, segments: 2 }, 'verified beside a journal that is open')
  await second.close()
  t.same(ids(await readParts(directory)), callIds(60))
  const header = decodeHeader(readFileSync(join(directory, 'own/00000002.cdr')))
  t.match(header, { ok: true, value: { genesis: { previous: { state: 'clean', records: 50 } } } })
})

t.test('parts that arrive together share groups, and a full segment is rolled and signed', async (t) => {
  const directory = scratch(t)
  const journal = await openAlone(directory)
  for (let n = 0; n < 2000; n += 100) await appendAll(journal, n, n + 100)
  t.ok(journal.stats().commits < 100, `${journal.stats().commits} commits`)
  await journal.close()
  const names = readdirSync(join(directory, 'own'))
  t.ok(names.filter((n) => n.endsWith('.cdr')).length >= 3)
  t.equal(names.filter((n) => n.endsWith('.cdr')).length, names.filter((n) => n.endsWith('.checkpoint')).length)
  t.match(await verifyDirectory(directory), { errors: [], records: 2000 })
  t.equal((await readParts(directory)).length, 2000)
})

t.test('parts are filtered, bounded, and the newest first', async (t) => {
  const directory = scratch(t)
  const journal = await openAlone(directory)
  await appendAll(journal, 0, 30)
  t.same(
    (await journal.parts({ limit: 3 })).map((p) => p.callId),
    ['call-29@example.net', 'call-28@example.net', 'call-27@example.net'],
  )
  t.equal((await journal.parts({ sinceMs: numbered(20).atMs })).length, 10)
  t.same(ids(await journal.parts({ id: numbered(4).id })), ['call-4@example.net'])
  await journal.close()
})

t.test('an incarnation is used once', async (t) => {
  const directory = scratch(t)
  const self = { region: 'us-east', node: 'us-east-1', incarnation: nextIncarnation() }
  await (await openAlone(directory, { self })).close()
  await t.rejects(openAlone(directory, { self }), { code: 'CDR_INCARNATION_USED' })
})

t.test('a directory that cannot be used is said to be so', async (t) => {
  const directory = scratch(t)
  writeFileSync(join(directory, 'file'), '')
  await t.rejects(openAlone(join(directory, 'file')), { code: 'CDR_OPEN_FAILED' })
})

t.test('a part that cannot be is refused, and nothing else suffers', async (t) => {
  const journal = await openAlone(scratch(t))
  await t.rejects(journal.append(makePart({ id: 'x' })), { code: 'CDR_PART_INVALID' })
  t.same(await journal.append(makePart()), { durable: true })
  await journal.close()
})

t.test('messages that are none are refused', async (t) => {
  const journal = await openAlone(scratch(t))
  for (const bytes of [[], [0], [1, 2], [99], Array.from({ length: 5000 }, () => 3)])
    journal.handlePeerMessage('eu-west-1', Uint8Array.from(bytes))
  t.same(await journal.append(makePart()), { durable: true })
  await journal.close()
})

t.test('a torn tail is cut, kept aside, and named in the next header', async (t) => {
  const directory = scratch(t)
  const first = await openAlone(directory)
  await appendAll(first, 0, 10)
  await first.close()
  const path = join(directory, 'own/00000001.cdr')
  const whole = readFileSync(path)
  // As a crash within the write of a next group leaves it: half of its first record, then zeros; and no checkpoint yet.
  writeFileSync(path, Buffer.concat([whole, whole.subarray(HEADER_BYTES, HEADER_BYTES + 100), Buffer.alloc(4096)]))
  t.match(await verifyDirectory(directory), {
    errors: [{ segment: 'own/00000001.cdr', offset: whole.length, record: 10, code: 'CDR_TAIL_UNCOMMITTED' }],
  })
  const second = await openAlone(directory)
  t.equal(second.stats().previous, 'cut')
  t.ok(second.healthy())
  await appendAll(second, 10, 12)
  await second.close()
  t.ok(readFileSync(path).equals(whole))
  const tail = readFileSync(join(directory, `own/aside/00000001-${whole.length}.tail`))
  t.ok(tail.length > 48 && tail.equals(whole.subarray(HEADER_BYTES, HEADER_BYTES + tail.length)))
  t.match(await verifyDirectory(directory), { errors: [], records: 12 })
})

t.test('a crash while a segment is created leaves a file that is set aside', async (t) => {
  const directory = scratch(t)
  const first = await openAlone(directory)
  await appendAll(first, 0, 3)
  await first.close()
  writeFileSync(join(directory, 'own/00000002.cdr'), Buffer.alloc(5000))
  const second = await openAlone(directory)
  t.equal(second.stats().previous, 'clean')
  await second.close()
  t.same(readdirSync(join(directory, 'own/aside')), ['00000002.cdr'])
  t.match(await verifyDirectory(directory), { errors: [], records: 3, segments: 2 })
})

t.test('damage in an earlier chain is reported, the node goes on, and verification names the place', async (t) => {
  const directory = scratch(t)
  const first = await openAlone(directory)
  for (let n = 0; n < 6; n++) await appendAll(first, n, n + 1)
  await first.close()
  const path = join(directory, 'own/00000001.cdr')
  const bytes = readFileSync(path)
  const at = bytes.indexOf('call-2@example.net')
  bytes[at] = bytes[at]! ^ 1
  writeFileSync(path, bytes)
  const second = await openAlone(directory)
  t.match(second.stats(), { previous: 'damaged', damage: [{ segment: path, record: 2, code: 'CDR_RECORD_DAMAGED' }] })
  t.ok(second.healthy(), 'new parts are durable')
  await appendAll(second, 6, 8)
  t.same(
    ids(await second.parts()),
    [0, 1, 3, 4, 5, 6, 7].map((n) => `call-${n}@example.net`),
    'the damaged record is not told as if it were sound',
  )
  await second.close()
  t.ok(readFileSync(path).equals(bytes), 'nothing is cut')
  const { errors } = await verifyDirectory(directory)
  t.equal(errors.length, 1)
  t.match(errors, [{ segment: 'own/00000001.cdr', record: 2, code: 'CDR_RECORD_DAMAGED' }])
  t.ok(errors[0]!.offset <= at && at < errors[0]!.offset + 400)
})

t.test('every single flipped byte of a journal is named with segment, offset and record', async (t) => {
  const directory = scratch(t)
  // Two chains; the first rolled once. Small parts and segments, so that every byte can have its turn.
  const first = await openAlone(directory, { segmentBytes: 6000 })
  for (let n = 0; n < 8; n += 2) await appendAll(first, n, n + 2)
  await first.close()
  const second = await openAlone(directory, { segmentBytes: 6000 })
  await appendAll(second, 8, 9)
  const own = join(directory, 'own')
  // The second chain stays open: its segment keeps the preallocated zeros.
  const names = readdirSync(own).filter((n) => n.endsWith('.cdr'))
  t.ok(names.length >= 3)
  t.match(await verifyDirectory(directory), { errors: [], records: 9 })
  const { verifySegment } = await import('../../../../src/cdr/verify.ts')
  const unseen: string[] = []
  let flips = 0
  for (const [i, name] of names.entries()) {
    const bytes = readFileSync(join(own, name))
    const header = decodeHeader(bytes)
    const after = names[i + 1] === undefined ? undefined : decodeHeader(readFileSync(join(own, names[i + 1]!)))
    if (!header.ok || after?.ok === false) throw new Error('a header does not decode')
    const next = after?.value
    const sameChain = next?.genesis.incarnation === header.value.genesis.incarnation
    const knownEnd = next !== undefined && !sameChain ? { by: 'next', ...next.genesis.previous } : undefined
    const context = { successor: sameChain ? next : undefined, knownEnd }
    const spans: { from: number; to: number; record: number }[] = []
    scan(bytes, HEADER_BYTES, header.value.start, {
      record: (r) => spans.push({ from: r.offset, to: r.offset + r.bytes, record: r.number }),
      group: (end, _from, to) => spans.push({ from: to - 112, to, record: end.records - 1 }),
    })
    t.same(verifySegment(name, bytes, context).errors, [], `${name} is sound`)
    for (let at = 0; at < bytes.length; at++) {
      flips++
      bytes[at] = bytes[at]! ^ 0x11
      const error = verifySegment(name, bytes, context).errors[0]
      bytes[at] = bytes[at]! ^ 0x11
      const span = spans.find((s) => s.from <= at && at < s.to)
      const named =
        error !== undefined &&
        error.segment === name &&
        (at < HEADER_BYTES
          ? error.code === 'CDR_HEADER_DAMAGED'
          : span === undefined
            ? error.code === 'CDR_TAIL_UNCOMMITTED' && error.offset <= at && error.offset > at - 4
            : error.offset === span.from && error.record === span.record)
      if (!named) unseen.push(`${name} ${at}: ${JSON.stringify(error)}`)
    }
  }
  await second.close()
  t.same(unseen.slice(0, 5), [])
  t.ok(flips > 15_000)
  // The same through the files, at some places of each kind, a checkpoint included.
  for (const name of readdirSync(own).filter((n) => /\.(cdr|checkpoint)$/.test(n))) {
    const path = join(own, name)
    const bytes = readFileSync(path)
    for (const at of [0, bytes.length >> 1, bytes.length - 1]) {
      bytes[at] = bytes[at]! ^ 0x11
      writeFileSync(path, bytes)
      const { errors } = await verifyDirectory(directory)
      t.ok(errors.length > 0 && errors.some((e) => `${e.segment} ${e.detail}`.includes(name)), `${name} ${at}`)
      bytes[at] = bytes[at]! ^ 0x11
    }
    writeFileSync(path, bytes)
  }
  t.match(await verifyDirectory(directory), { errors: [] })
})

t.test('segments that are missing or cut short are named', async (t) => {
  const directory = scratch(t)
  const journal = await openAlone(directory)
  for (let n = 0; n < 1000; n += 100) await appendAll(journal, n, n + 100)
  await journal.close()
  await (await openAlone(directory)).close()
  const own = join(directory, 'own')
  const names = readdirSync(own).filter((n) => n.endsWith('.cdr'))
  t.ok(names.length >= 4)
  const { rename, truncate } = await import('node:fs/promises')
  await rename(join(own, names[1]!), join(directory, 'gone'))
  t.match(await verifyDirectory(directory), { errors: [{ segment: `own/${names[0]}`, code: 'CDR_GAP' }] })
  await rename(join(directory, 'gone'), join(own, names[1]!))
  const lastOfFirst = names.at(-2)!
  const bytes = readFileSync(join(own, lastOfFirst))
  await truncate(join(own, lastOfFirst), HEADER_BYTES)
  t.match(await verifyDirectory(directory), { errors: [{ segment: `own/${lastOfFirst}`, code: 'CDR_SEGMENT_SHORT' }] })
  writeFileSync(join(own, lastOfFirst), bytes)
  t.match(await verifyDirectory(directory), { errors: [] })
})
