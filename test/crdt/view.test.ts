import fc from 'fast-check'
import t from 'tap'
import type { BindingEntry, DialogEntry } from '../../crdt/entry.ts'
import {
  bindingOf,
  compareDialogs,
  compareEntries,
  dialogOf,
  effectiveExpiryMs,
  headsOf,
  hides,
  isUnknown,
  newestClear,
  windowHead,
} from '../../crdt/view.ts'
import { HLC_PER_MS } from '../../src/base/hlc.ts'
import { below, SeededRandom } from '../../src/base/prng.ts'
import { makeBinding, makeDialog, modelBindings, modelDialog, modelHead, SMALL_CONSTANTS } from './model.ts'

const { windowMs } = SMALL_CONSTANTS

/** An entry at `ms`, alive for as long as any may be. */
const at = (ms: number, fields: Partial<BindingEntry> = {}): BindingEntry =>
  makeBinding({
    hlc: ms * HLC_PER_MS,
    expiresAtMs: fields.op === undefined || fields.op === 'set' ? ms + SMALL_CONSTANTS.longestExpiryMs : 0,
    ...fields,
  })

t.test('within the window the highest CSeq is the head, whatever arrived first', async (t) => {
  const newer = at(1000, { cseq: 5 })
  const delayed = at(1019, { cseq: 4, node: 'eu-west-1' })
  t.equal(windowHead([newer, delayed], windowMs), newer)
  t.equal(windowHead([delayed, newer], windowMs), newer)
})

t.test('older than the newest by the window, an entry does not count whatever its CSeq', async (t) => {
  const old = at(1000, { cseq: 5 })
  const newest = at(1020, { cseq: 1 })
  t.equal(windowHead([old, newest], windowMs), newest, 'at exactly the window')
  const within = makeBinding({ cseq: 1, hlc: 1020 * HLC_PER_MS - 1 })
  t.equal(windowHead([old, within], windowMs), old, 'one tick inside')
})

t.test('of equal CSeq the later (HLC, node) is the head', async (t) => {
  const a = at(1000, { cseq: 5 })
  const b = at(1001, { cseq: 5 })
  const c = at(1001, { cseq: 5, node: 'us-east-2' })
  t.equal(windowHead([c, b, a], windowMs), c)
  t.equal(windowHead([a, b], windowMs), b)
})

t.test('a reset sets aside every lower HLC of its Call-ID', async (t) => {
  const old = at(1000, { cseq: 500 })
  const reset = at(1006, { cseq: 1, reset: true })
  t.equal(windowHead([old, reset], windowMs), reset)
  const same = at(1006, { cseq: 7, node: 'ap-south-1' })
  t.equal(windowHead([old, reset, same], windowMs), same, 'another entry of the same HLC is not lower')
  const next = at(1010, { cseq: 2 })
  t.equal(windowHead([next, old, reset], windowMs), next)
  const second = at(1012, { cseq: 1, reset: true })
  t.equal(windowHead([second, next, old, reset], windowMs), second)
})

t.test('the latest head decides alone', async (t) => {
  const first = at(1000, { callId: 'a', cseq: 90 })
  const second = at(1001, { callId: 'b', cseq: 1 })
  t.equal(bindingOf([first, second], undefined, 1050, SMALL_CONSTANTS), second)
  const removal = at(1001, { callId: 'b', cseq: 1, op: 'remove' })
  t.equal(bindingOf([first, removal], undefined, 1050, SMALL_CONSTANTS), undefined, 'a removal')
  const short = at(1001, { callId: 'b', expiresAtMs: 1040 })
  t.equal(bindingOf([first, short], undefined, 1039, SMALL_CONSTANTS), short)
  t.equal(bindingOf([first, short], undefined, 1040, SMALL_CONSTANTS), undefined, 'an expired one')
  t.strictSame(headsOf([first, second], windowMs), [second, first])
})

t.test('a clear hides every lower HLC and nothing else', async (t) => {
  const clear = at(1005, { op: 'clear', key: '', callId: 'c' })
  t.equal(newestClear([at(1000), clear, at(1003, { op: 'clear', key: '' })]), clear)
  t.equal(bindingOf([at(1004)], clear, 1006, SMALL_CONSTANTS), undefined)
  const same = at(1005, { node: 'ap-south-1' })
  t.equal(bindingOf([same], clear, 1006, SMALL_CONSTANTS), same)
  const delayed = at(1008, { cseq: 3 })
  const cleared = at(1004, { cseq: 5 })
  t.equal(
    bindingOf([delayed, cleared], clear, 1009, SMALL_CONSTANTS),
    undefined,
    'a delayed REGISTER does not come out from behind it',
  )
})

t.test('no binding outlives the longest expiry, whatever its author wrote', async (t) => {
  const greedy = at(1000, { expiresAtMs: 999_999 })
  t.equal(effectiveExpiryMs(greedy, SMALL_CONSTANTS), 1100)
  t.equal(bindingOf([greedy], undefined, 1099, SMALL_CONSTANTS), greedy)
  t.equal(bindingOf([greedy], undefined, 1100, SMALL_CONSTANTS), undefined)
})

const bindingSet: fc.Arbitrary<BindingEntry[]> = fc.uniqueArray(
  fc
    .record({
      step: fc.nat(11),
      tick: fc.constantFrom(-1, 0, 1),
      node: fc.constantFrom('n0', 'n1'),
      callId: fc.constantFrom('a', 'b', 'c'),
      cseq: fc.nat(4),
      reset: fc.nat(7).map((n) => n === 0),
      op: fc.constantFrom('set' as const, 'set' as const, 'set' as const, 'remove' as const, 'clear' as const),
      expiresMs: fc.constantFrom(30, 60, 100, 500),
    })
    .map(({ step, tick, expiresMs, ...e }) => {
      const ms = 1000 + step * 5
      const key = e.op === 'clear' ? '' : 'k'
      const expiresAtMs = e.op === 'set' ? ms + expiresMs : 0
      return makeBinding({ ...e, key, reset: e.reset && e.op !== 'clear', hlc: ms * HLC_PER_MS + tick, expiresAtMs })
    }),
  { maxLength: 10, size: 'max', selector: (e) => `${e.hlc} ${e.node}` },
)

t.test('the view is the one that the words describe, in any order', async (t) => {
  fc.assert(
    fc.property(bindingSet, fc.nat(180), fc.integer(), (entries, afterMs, seed) => {
      const nowMs = 1000 + afterMs
      const shuffled = shuffle(entries, seed)
      const ofKey = shuffled.filter((e) => e.op !== 'clear')
      for (const callId of ['a', 'b', 'c']) {
        const group = ofKey.filter((e) => e.callId === callId)
        if (windowHead(group, windowMs) !== modelHead(group, windowMs)) return false
      }
      const expected = modelBindings(entries, 'sip:u1@example.net', nowMs, SMALL_CONSTANTS).get('k')
      return bindingOf(ofKey, newestClear(shuffled), nowMs, SMALL_CONSTANTS) === expected
    }),
    { numRuns: 5000 },
  )
  t.pass('5,000 sets')
})

t.test('what is hidden for good never counts again, whatever else there is', async (t) => {
  type Hides = (newer: BindingEntry, older: BindingEntry) => boolean
  const sound: Hides = (newer, older) => hides(newer, older, windowMs)
  const isOwnKey: Hides = (newer, older) => newer.node === older.node && newer.key === older.key && newer.hlc > older.hlc
  const byWindows: (same: number, other: number) => Hides = (same, other) => (newer, older) =>
    isOwnKey(newer, older) &&
    (newer.callId === older.callId
      ? newer.reset || newer.hlc - same * windowMs * HLC_PER_MS >= older.hlc
      : newer.hlc - other * windowMs * HLC_PER_MS >= older.hlc)

  const EDGES = [0, 1, windowMs - 1, windowMs, windowMs + 1, 2 * windowMs - 1, 2 * windowMs, 2 * windowMs + 1]
  /** @returns the seed of a set whose answer changes when all that the rule lets go is gone. */
  const search = (rule: Hides, sets: number): { seed: number; pairs: number } | number => {
    let pairs = 0
    for (let seed = 1; seed <= sets; seed++) {
      const random = new SeededRandom(seed)
      const entries: BindingEntry[] = []
      for (let i = 0; i < 5; i++) {
        const ms = 1000 + EDGES[below(random, EDGES.length)]!
        const node = `n${below(random, 3) === 0 ? 1 : 0}`
        const clear = below(random, 12) === 0
        const kind = clear ? { op: 'clear' as const, key: '' } : { key: 'k', reset: below(random, 8) === 0 }
        const hlc = ms * HLC_PER_MS
        if (entries.some((e) => e.hlc === hlc && e.node === node)) continue
        const callId = below(random, 2) === 0 ? 'a' : 'b'
        entries.push(makeBinding({ hlc, node, callId, cseq: below(random, 3), expiresAtMs: clear ? 0 : 1100, ...kind }))
      }
      const kept = entries.filter((e) => !entries.some((f) => f !== e && rule(f, e)))
      pairs += entries.length - kept.length
      const answer = (set: BindingEntry[]): BindingEntry | undefined =>
        modelBindings(set, 'sip:u1@example.net', 1050, SMALL_CONSTANTS).get('k')
      if (answer(entries) !== answer(kept)) return { seed, pairs }
    }
    return pairs
  }
  const pairs = search(sound, 20_000)
  t.ok(typeof pairs === 'number' && pairs > 10_000, `sound: ${JSON.stringify(pairs)} left out of 20,000 sets`)
  t.equal(search(byWindows(1, 2), 20_000), pairs, 'which is the rule in DESIGN')
  for (const [name, rule] of Object.entries({
    'less than a window for the same Call-ID': byWindows(0.9, 2),
    'one window for another Call-ID': byWindows(1, 1),
    'less than two windows for another Call-ID': byWindows(1, 1.9),
  })) {
    const found = search(rule, 60_000)
    t.type(found, 'object', `${name}: found at ${JSON.stringify(found)}`)
  }
})

t.test('only own entries of one key can be left out', async (t) => {
  const older = at(1000)
  const newer = at(1100)
  t.ok(hides(newer, older, windowMs))
  t.notOk(hides(older, newer, windowMs))
  t.notOk(hides(newer, newer, windowMs))
  t.notOk(hides(at(1100, { node: 'us-east-2' }), older, windowMs))
  t.notOk(hides(at(1100, { key: 'sip:u1@127.0.0.1:5071' }), older, windowMs))
  t.notOk(hides(at(1100, { aor: 'sip:u2@example.net' }), older, windowMs))
  t.notOk(hides(at(1100, { op: 'clear', key: '' }), older, windowMs), 'a clear speaks for another key')
})

t.test('entries of a forked author are ordered by their bytes', async (t) => {
  const a = at(1000, { contact: 'sip:a@127.0.0.1' })
  const b = at(1000, { contact: 'sip:b@127.0.0.1' })
  t.equal(compareEntries(a, { ...a }), 0)
  t.ok(compareEntries(a, b) * compareEntries(b, a) < 0)
  t.equal(windowHead([a, b], windowMs), windowHead([b, a], windowMs))
})

const dialogAt = (ms: number, fields: Partial<DialogEntry> = {}): DialogEntry => makeDialog({ hlc: ms * HLC_PER_MS, ...fields })

t.test('a dialog never goes back', async (t) => {
  const id = 'c/t2'
  const early = dialogAt(1030, { id })
  const confirmed = dialogAt(1020, { id, phase: 'confirmed' })
  const renewed = dialogAt(1025, { id, phase: 'confirmed', leaseUntilMs: 9000 })
  const inferred = dialogAt(1040, { id, phase: 'ended', observed: false, endMs: 1000 })
  const seen = dialogAt(1050, { id, phase: 'ended', endMs: 3000 })
  const seenEarlier = dialogAt(1060, { id, phase: 'ended', endMs: 2000, node: 'us-east-2' })
  const rising = [early, confirmed, renewed, inferred, seen, seenEarlier]
  for (let i = 0; i < rising.length; i++) {
    for (let j = 0; j < i; j++) {
      t.ok(compareDialogs(rising[i]!, rising[j]!) > 0)
      t.equal(dialogOf([rising[j]!, rising[i]!]), rising[i])
    }
  }
  t.equal(dialogOf([]), undefined)
})

t.test('of ends at the same time the first region and node stand, however late they are told again', async (t) => {
  const end = (ms: number, region: string, node: string): DialogEntry => dialogAt(ms, { phase: 'ended', region, node })
  const east = end(1000, 'ap-south', 'ap-south-2')
  const again = end(9000, 'ap-south', 'ap-south-2')
  t.equal(dialogOf([end(2000, 'eu-west', 'eu-west-1'), east, end(500, 'us-east', 'us-east-1')]), east)
  t.equal(dialogOf([again, east]), again, 'the copy that is retained longest speaks')
})

t.test('a lease that ran out means unknown, never ended', async (t) => {
  const e = dialogAt(1000, { phase: 'confirmed', leaseUntilMs: 5000 })
  t.notOk(isUnknown(e, 4999))
  t.ok(isUnknown(e, 5000))
  t.equal(dialogOf([e])?.phase, 'confirmed')
  t.notOk(isUnknown(dialogAt(1000, { phase: 'ended' }), 1e9))
})

t.test('the dialog view is the one that the words describe, in any order', async (t) => {
  const entry = fc
    .record({
      ms: fc.nat(6),
      node: fc.constantFrom('n0', 'n1', 'n2'),
      phase: fc.constantFrom('early' as const, 'confirmed' as const, 'ended' as const, 'ended' as const),
      observed: fc.boolean(),
      endMs: fc.integer({ min: 1, max: 3 }),
    })
    .map(({ ms, node, phase, observed, endMs }) => {
      const isEnded = phase === 'ended'
      const region = node === 'n2' ? 'r1' : 'r2'
      return dialogAt(ms, { id: 'c/t', node, region, phase, observed: isEnded && observed, endMs: isEnded ? endMs : 0 })
    })
  fc.assert(
    fc.property(
      fc.uniqueArray(entry, { maxLength: 7, size: 'max', selector: (e) => `${e.hlc} ${e.node}` }),
      fc.integer(),
      (entries, seed) => {
        return dialogOf(shuffle(entries, seed)) === modelDialog(entries, 'c/t')
      },
    ),
    { numRuns: 3000 },
  )
  t.pass('3,000 sets')
})

function shuffle<T>(items: readonly T[], seed: number): T[] {
  const random = new SeededRandom(seed)
  const out = [...items]
  for (let i = out.length - 1; i > 0; i--) {
    const j = below(random, i + 1)
    ;[out[i], out[j]] = [out[j]!, out[i]!]
  }
  return out
}
