import fc from 'fast-check'
import t from 'tap'
import { DialogIndex } from '../../crdt/dialogs.ts'
import type { DialogEntry } from '../../crdt/entry.ts'
import { HLC_PER_MS } from '../../src/base/hlc.ts'
import { makeDialog, modelDialog } from './model.ts'

const indexOf = (...entries: DialogEntry[]): DialogIndex => {
  const index = new DialogIndex()
  for (const e of entries) index.add(e)
  return index
}
const at = (ms: number, fields: Partial<DialogEntry> = {}): DialogEntry => makeDialog({ hlc: ms * HLC_PER_MS, ...fields })
const ids = (index: DialogIndex, nowMs = 0, options = { limit: 100 }): string[] => index.list(nowMs, options).map((d) => d.id)

const CALLS = ['c1', 'c2']
const IDS = CALLS.flatMap((call) => [`${call}/`, `${call}/t1`, `${call}/t2`])

const entry: fc.Arbitrary<DialogEntry> = fc
  .record({
    id: fc.constantFrom(...IDS),
    ms: fc.nat(8),
    node: fc.constantFrom('n0', 'n1', 'n2'),
    phase: fc.constantFrom('early' as const, 'confirmed' as const, 'confirmed' as const, 'ended' as const),
    observed: fc.boolean(),
    endMs: fc.integer({ min: 1, max: 3 }),
    leaseUntilMs: fc.integer({ min: 1, max: 50 }),
    startMs: fc.nat(3),
  })
  .map(({ ms, phase, observed, endMs, leaseUntilMs, ...e }) => {
    const isEnded = phase === 'ended'
    return at(ms, {
      ...e,
      phase,
      observed: isEnded && observed,
      endMs: isEnded ? endMs : 0,
      leaseUntilMs: isEnded ? 0 : leaseUntilMs,
    })
  })

/** The index against the model, over the same set. */
function isEqual(index: DialogIndex, held: readonly DialogEntry[], nowMs: number): boolean {
  const tops = IDS.map((id) => modelDialog(held, id))
  if (IDS.some((id, i) => index.get(id) !== tops[i])) return false
  const isListed = (e: DialogEntry): boolean => {
    const call = e.id.slice(0, 3)
    return e.id !== call || e.phase === 'ended' || !held.some((o) => o.id.startsWith(call) && o.id !== call)
  }
  const listed = tops.filter((e) => e !== undefined).filter(isListed)
  const counts = { ...{ early: 0, confirmed: 0, ended: 0 }, entries: held.length }
  for (const e of listed) counts[e.phase]++
  const found = index.counts
  if (found.early !== counts.early || found.confirmed !== counts.confirmed || found.ended !== counts.ended) return false
  if (found.entries !== held.length || index.size !== new Set(held.map((e) => e.id)).size) return false
  const rows = index.list(nowMs, { limit: 100, ended: true })
  if (rows.length !== listed.length) return false
  if (!rows.every((r) => r.isUnknown === (r.phase !== 'ended' && nowMs >= r.leaseUntilMs))) return false
  const open = index.list(nowMs, { limit: 100 })
  return open.length === counts.early + counts.confirmed && open.every((r) => r.phase !== 'ended')
}

t.test('the index equals the model after any adds and drops of any copies, at every step', async (t) => {
  const pool = fc.uniqueArray(entry, { minLength: 1, maxLength: 12, size: 'max', selector: (e) => `${e.hlc} ${e.node}` })
  const script = fc.array(fc.tuple(fc.nat(), fc.boolean()), { maxLength: 50, size: 'max' })
  fc.assert(
    fc.property(pool, script, fc.nat(60), (entries, steps, nowMs) => {
      const index = new DialogIndex()
      const copies = new Map<DialogEntry, number>()
      for (const [i, isAdd] of steps) {
        const e = entries[i % entries.length]!
        const count = copies.get(e) ?? 0
        if (isAdd) index.add(count === 0 ? e : structuredClone(e))
        else index.drop(structuredClone(e))
        copies.set(e, Math.max(0, count + (isAdd ? 1 : -1)))
        const held = [...copies].filter(([, n]) => n > 0).map(([known]) => known)
        if (!isEqual(index, held, nowMs)) return false
      }
      for (const [e, n] of copies) for (let i = 0; i < n; i++) index.drop(e)
      const { early, confirmed, ended, entries: left } = index.counts
      return early + confirmed + ended + left + index.size === 0
    }),
    { numRuns: 1500 },
  )
  t.pass('1,500 scripts')
})

t.test('an answered call is listed by its legs only', async (t) => {
  const early = at(1, { id: 'c/' })
  const index = indexOf(early)
  t.strictSame(ids(index), ['c/'])
  t.match(index.counts, { early: 1, confirmed: 0 })
  const leg = at(2, { id: 'c/t', phase: 'confirmed' })
  index.add(leg)
  t.strictSame(ids(index), ['c/t'])
  t.match(index.counts, { early: 0, confirmed: 1, entries: 2 })
  t.equal(index.get('c/'), early, 'though each id answers for itself')
  index.drop(leg)
  t.strictSame(ids(index), ['c/'])
})

t.test('a lease is renewed by a later entry, and one that ran out is flagged and kept', async (t) => {
  const index = indexOf(at(1, { phase: 'confirmed', leaseUntilMs: 1000 }))
  t.match(index.list(999, { limit: 1 }), [{ isUnknown: false }])
  t.match(index.list(1000, { limit: 1 }), [{ isUnknown: true, phase: 'confirmed' }])
  index.add(at(2, { phase: 'confirmed', leaseUntilMs: 2000 }))
  t.match(index.list(1000, { limit: 1 }), [{ isUnknown: false, leaseUntilMs: 2000 }])
  t.match(index.counts, { confirmed: 1, entries: 2 })
})

t.test('ended never comes back', async (t) => {
  const end = at(5, { phase: 'ended', endMs: 900 })
  const index = indexOf(end)
  const id = end.id
  index.add(at(9, { id, phase: 'confirmed', leaseUntilMs: 9000 }))
  t.equal(index.get(id), end)
  t.strictSame(ids(index), [])
  t.strictSame(
    index.list(0, { limit: 9, ended: true }).map((d) => d.endMs),
    [900],
  )
})

t.test('an observed end replaces an inferred one, and the count stays one', async (t) => {
  const index = indexOf(at(5, { phase: 'ended', endMs: 900, observed: false }))
  const seen = at(6, { phase: 'ended', endMs: 1500 })
  index.add(seen)
  t.equal(index.get(seen.id), seen)
  t.match(index.counts, { ended: 1, entries: 2 })
})

t.test('lists the oldest calls first, up to the limit', async (t) => {
  const index = indexOf(
    at(1, { id: 'c/', startMs: 30 }),
    at(2, { id: 'b/', startMs: 10 }),
    at(3, { id: 'a/', startMs: 30 }),
    at(4, { id: 'd/', startMs: 20 }),
  )
  t.strictSame(ids(index), ['b/', 'd/', 'a/', 'c/'])
  t.strictSame(ids(index, 0, { limit: 2 }), ['b/', 'd/'])
})
