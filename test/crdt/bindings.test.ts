import fc from 'fast-check'
import t from 'tap'
import { type Admission, type AdmitQuery, BindingIndex } from '../../crdt/bindings.ts'
import type { BindingEntry, ClusterConstants } from '../../crdt/entry.ts'
import { headsOf, newestClear } from '../../crdt/view.ts'
import { HLC_PER_MS, HlcClock } from '../../src/base/hlc.ts'
import { makeBinding, modelBindings, Rfc3261Registrar, SMALL_CONSTANTS } from './model.ts'

const S = 1000
/** As a cluster has them, in milliseconds. */
const CONSTANTS: ClusterConstants = {
  bucketWidthMs: 300 * S,
  longestExpiryMs: 7200 * S,
  windowMs: 64 * S,
  driftBoundMs: 500,
  graceMs: 65 * S,
  rebootGuardMs: 5 * S,
}
const T0 = 1_700_000_000 * S
const AOR = 'sip:u1@example.net'
const KEY = 'sip:u1@127.0.0.1:5070'

/** An entry written `s` seconds after T0 that lives for an hour. */
const at = (s: number, fields: Partial<BindingEntry> = {}): BindingEntry =>
  makeBinding({
    hlc: (T0 + s * S) * HLC_PER_MS,
    expiresAtMs: fields.op === undefined || fields.op === 'set' ? T0 + (s + 3600) * S : 0,
    ...fields,
  })
const clearAt = (s: number, fields: Partial<BindingEntry> = {}): BindingEntry => at(s, { op: 'clear', key: '', ...fields })

const indexOf = (...entries: BindingEntry[]): BindingIndex => {
  const index = new BindingIndex(CONSTANTS)
  for (const e of entries) index.add(e)
  return index
}
const admit = (index: BindingIndex, s: number, fields: Partial<AdmitQuery> = {}): Admission =>
  index.admit({ aor: AOR, key: KEY, callId: makeBinding().callId, cseq: 1, lenient: false, ...fields }, T0 + s * S)
const ACCEPT: Admission = { kind: 'accept', reset: false }
const RESET: Admission = { kind: 'accept', reset: true }

/** Small domains, so that entries meet: two AoRs, three keys, three Call-IDs, ties of HLC between nodes, steps of less than a window and more. */
const entry: fc.Arbitrary<BindingEntry> = fc
  .record({
    aor: fc.constantFrom(AOR, AOR, AOR, 'sip:u2@example.net'),
    key: fc.constantFrom('k1', 'k1', 'k1', 'k2', 'k3'),
    callId: fc.constantFrom('a', 'b', 'c'),
    cseq: fc.nat(5),
    node: fc.constantFrom('n0', 'n1', 'n2'),
    step: fc.nat(12),
    reset: fc.nat(6).map((n) => n === 0),
    op: fc.constantFrom('set' as const, 'set' as const, 'set' as const, 'set' as const, 'remove' as const, 'clear' as const),
    lifeS: fc.constantFrom(30, 120, 3600, 7200, 99_999),
    q: fc.constantFrom(1000, 500),
  })
  .map(({ step, lifeS, ...e }) => {
    const s = step * 15
    const expiresAtMs = e.op === 'set' ? T0 + (s + lifeS) * S : 0
    const only = e.op === 'clear' ? { key: '', reset: false } : {}
    return makeBinding({ ...e, hlc: (T0 + s * S) * HLC_PER_MS, expiresAtMs, ...only })
  })
const pool = fc.uniqueArray(entry, { minLength: 1, maxLength: 16, size: 'max', selector: (e) => `${e.hlc} ${e.node}` })
const script = fc.array(fc.tuple(fc.nat(), fc.boolean()), { maxLength: 60, size: 'max' })

/** The index against the model and the view, over the same set. */
function isEqual(index: BindingIndex, held: readonly BindingEntry[], nowMs: number): boolean {
  let live = 0
  for (const aor of [AOR, 'sip:u2@example.net']) {
    const found = index.lookup(aor, nowMs)
    const expected = modelBindings(held, aor, nowMs, CONSTANTS)
    live += expected.size
    if (found.length !== expected.size || found.some((e) => expected.get(e.key) !== e)) return false
    const inOrder = found.every(
      (e, i) => i === 0 || found[i - 1]!.q > e.q || (found[i - 1]!.q === e.q && found[i - 1]!.hlc >= e.hlc),
    )
    if (!inOrder) return false
    const ofAor = held.filter((e) => e.aor === aor)
    const keys = [...new Set(ofAor.filter((e) => e.op !== 'clear').map((e) => e.key))].sort()
    if (index.keys(aor).join() !== keys.join()) return false
    if ([...index.aors()].includes(aor) !== ofAor.length > 0) return false
    for (const x of index.explain(aor, nowMs)) {
      const ofKey = ofAor.filter((e) => e.op !== 'clear' && e.key === x.key)
      if (x.clear !== newestClear(ofAor) || x.isLive !== expected.has(x.key)) return false
      if (x.entries.length !== ofKey.length || !ofKey.every((e) => x.entries.includes(e))) return false
      const heads = headsOf(ofKey, CONSTANTS.windowMs)
      if (x.winner !== heads[0] || x.heads.length !== heads.length || x.heads.some((h, i) => h !== heads[i])) return false
    }
  }
  return index.size === held.length && index.liveCount(nowMs) === live
}

t.test('the index equals the model after any adds and drops of any copies, at every step', async (t) => {
  fc.assert(
    fc.property(pool, script, fc.nat(8000), (entries, steps, afterS) => {
      const index = new BindingIndex(CONSTANTS)
      const copies = new Map<BindingEntry, number>()
      for (const [i, isAdd] of steps) {
        const e = entries[i % entries.length]!
        const count = copies.get(e) ?? 0
        // A copy is another object: a doc that is decoded again gives equal entries, not the same ones. A drop of what is not held does nothing.
        if (isAdd) index.add(count === 0 ? e : structuredClone(e))
        else index.drop(structuredClone(e))
        copies.set(e, Math.max(0, count + (isAdd ? 1 : -1)))
        const held = [...copies].filter(([, n]) => n > 0).map(([known]) => known)
        for (const s of [0, 100, 150, afterS]) if (!isEqual(index, held, T0 + s * S)) return false
      }
      for (const [e, n] of copies) for (let i = 0; i < n; i++) index.drop(e)
      return index.size === 0 && index.liveCount(T0) === 0 && [...index.aors()].length === 0
    }),
    { numRuns: 2000 },
  )
  t.pass('2,000 scripts')
})

t.test('the order of arrival and duplicates change nothing', async (t) => {
  fc.assert(
    fc.property(
      pool.chain((entries) =>
        fc.tuple(fc.constant(entries), fc.shuffledSubarray([...entries, ...entries], { minLength: entries.length })),
      ),
      fc.nat(200),
      ([entries, arrivals], afterS) => {
        const index = indexOf(...arrivals)
        return isEqual(index, [...new Set(arrivals)], T0 + afterS * S) && indexOf(...entries).size === entries.length
      },
    ),
    { numRuns: 1500 },
  )
  t.pass('1,500 arrivals')
})

t.test('a forked author gives the same answer in either order', async (t) => {
  const a = at(0, { contact: 'sip:a@127.0.0.1' })
  const b = at(0, { contact: 'sip:b@127.0.0.1' })
  t.strictSame(indexOf(a, b).lookup(AOR, T0), indexOf(b, a).lookup(AOR, T0))
  const index = indexOf(a, b)
  index.drop(indexOf(a, b).lookup(AOR, T0)[0]!)
  t.equal(index.lookup(AOR, T0).length, 1, 'and the other half is still there')
  t.equal(index.size, 1)
})

t.test('many refreshes of one key keep their order and their head', async (t) => {
  const index = new BindingIndex(CONSTANTS)
  const entries = Array.from({ length: 240 }, (_, i) => at(i * 30, { cseq: i + 1 }))
  for (const e of entries) index.add(e)
  t.equal(index.lookup(AOR, T0 + 7200 * S)[0], entries[239])
  for (const e of entries.slice(0, 239)) index.drop(e)
  t.equal(index.size, 1)
  t.equal(index.lookup(AOR, T0 + 7200 * S)[0], entries[239])
  t.equal(index.explain(AOR, T0)[0]!.entries.length, 1)
})

t.test('bindings are tried by q, then the later first', async (t) => {
  const low = at(3, { key: 'k1', q: 100 })
  const older = at(1, { key: 'k2' })
  const newer = at(2, { key: 'k3' })
  const tie = at(2, { key: 'k4', node: 'ap-south-1' })
  t.strictSame(
    indexOf(low, tie, older, newer)
      .lookup(AOR, T0)
      .map((e) => e.key),
    ['k3', 'k4', 'k2', 'k1'],
  )
})

t.test('explains an AoR of which only a clear is left', async (t) => {
  const clear = clearAt(0)
  t.match(indexOf(clear).explain(AOR, T0), [{ key: '', heads: [], clear, isLive: false, entries: [] }])
  t.strictSame(indexOf().explain(AOR, T0), [])
  t.strictSame(indexOf(clear).lookup(AOR, T0), [])
})

t.test('admits a first, a higher and another Call-ID', async (t) => {
  t.strictSame(admit(indexOf(), 0), ACCEPT)
  t.strictSame(admit(indexOf(at(0, { cseq: 5 })), 1, { cseq: 6 }), ACCEPT)
  t.strictSame(admit(indexOf(at(0, { cseq: 5 })), 1, { callId: 'another' }), ACCEPT)
  t.strictSame(admit(indexOf(at(0, { cseq: 5 })), 1, { key: 'another' }), ACCEPT)
})

t.test('refuses a CSeq that is not higher over a live head', async (t) => {
  const index = indexOf(at(0, { cseq: 5 }))
  for (const cseq of [0, 4, 5]) t.match(admit(index, 3000, { cseq }), { kind: 'refuse', status: 500, retryAfterS: undefined })
})

t.test('lenient takes it as a reset once the head is older than the window', async (t) => {
  const index = indexOf(at(0, { cseq: 5 }))
  t.match(admit(index, 63, { lenient: true }), { kind: 'refuse', status: 500 })
  t.strictSame(admit(index, 64, { lenient: true }), RESET)
})

t.test('takes a low CSeq over a removed head as a reset, but not just after the removal', async (t) => {
  const index = indexOf(at(0, { cseq: 5 }), at(10, { cseq: 6, op: 'remove' }))
  t.match(admit(index, 10), { kind: 'refuse', status: 500, retryAfterS: 5 })
  t.match(admit(index, 14.5), { kind: 'refuse', status: 500, retryAfterS: 1 })
  t.strictSame(admit(index, 15), RESET)
  t.strictSame(admit(index, 11, { cseq: 7 }), ACCEPT, 'a higher one at once')
})

t.test('takes a low CSeq over an expired head as a reset', async (t) => {
  const index = indexOf(at(0, { cseq: 5, expiresAtMs: T0 + 60 * S }))
  t.match(admit(index, 59), { kind: 'refuse', status: 500 })
  t.strictSame(admit(index, 60), RESET)
})

t.test('after a clear, waits as after any removal', async (t) => {
  const index = indexOf(at(0, { cseq: 5 }), clearAt(100, { cseq: 6 }))
  t.match(admit(index, 102, { cseq: 4 }), { kind: 'refuse', status: 500, retryAfterS: 3 })
  t.match(admit(index, 102, { cseq: 6 }), { kind: 'refuse', status: 500 }, 'also where the head alone would admit it')
  t.match(admit(index, 102, { cseq: 4, key: 'never seen' }), { kind: 'refuse', status: 500 }, 'also for a key never seen')
  t.strictSame(admit(index, 102, { cseq: 7 }), ACCEPT)
  t.strictSame(admit(index, 105, { cseq: 4 }), RESET)
  t.strictSame(admit(index, 105, { cseq: 4, key: 'never seen' }), ACCEPT)
  const others = indexOf(at(0, { cseq: 5 }), clearAt(100, { cseq: 1, callId: 'another phone' }))
  t.match(admit(others, 102, { cseq: 4 }), { kind: 'refuse', status: 500, retryAfterS: 3 }, 'whoever cleared it')
  t.strictSame(admit(others, 105, { cseq: 4 }), RESET)
})

t.test('a clear is admitted unless a live binding of its Call-ID has a CSeq that is not lower', async (t) => {
  const index = indexOf(at(0, { key: 'k1', cseq: 5 }), at(0, { key: 'k2', callId: 'other', cseq: 50, node: 'n1' }))
  t.match(admit(index, 1, { key: '', cseq: 5 }), { kind: 'refuse', status: 500 })
  t.strictSame(admit(index, 1, { key: '', cseq: 6 }), ACCEPT)
  t.strictSame(admit(index, 1, { key: '', cseq: 1, callId: 'third' }), ACCEPT)
  index.add(at(2, { key: 'k1', cseq: 7, op: 'remove' }))
  t.strictSame(admit(index, 3, { key: '', cseq: 5 }), ACCEPT, 'one that is gone does not hinder it')
})

t.test('refuses a CSeq that no request may have', async (t) => {
  for (const cseq of [-1, 2 ** 31, 1.5, Number.NaN]) t.match(admit(indexOf(), 0, { cseq }), { kind: 'refuse', status: 400 })
  t.strictSame(admit(indexOf(), 0, { cseq: 2 ** 31 - 1 }), ACCEPT)
})

t.test('a phone that talks to one node gets what RFC 3261 §10.3 promises', async (t) => {
  // Without the reboot guard, which the RFC does not know.
  const constants = { ...SMALL_CONSTANTS, rebootGuardMs: 0 }
  const what = fc.constantFrom('refresh', 'refresh', 'refresh', 'repeat', 'low', 'remove', 'star', 'newCall')
  const request = fc.record({
    what: what as fc.Arbitrary<'refresh' | 'repeat' | 'low' | 'remove' | 'star' | 'newCall'>,
    phone: fc.nat(1),
    waitMs: fc.constantFrom(0, 1, 10, 30, 60),
    expiresMs: fc.constantFrom(10, 40, 100),
  })
  let refused = 0
  let resets = 0
  fc.assert(
    fc.property(fc.array(request, { maxLength: 25, size: 'max' }), (requests) => {
      const index = new BindingIndex(constants)
      const rfc = new Rfc3261Registrar()
      const clock = new HlcClock(500)
      const phones = [0, 1].map((i) => ({ key: `k${i}`, call: 0, cseq: 0 }))
      let nowMs = 1000
      for (const r of requests) {
        nowMs += r.waitMs
        const phone = phones[r.phone]!
        if (r.what === 'newCall') {
          phone.call++
          phone.cseq = 0
        }
        if (r.what === 'low') phone.cseq = 1
        else if (r.what !== 'repeat') phone.cseq++
        const { key, cseq } = phone
        const callId = `${key}-${phone.call}`
        const isStar = r.what === 'star'
        const expiresMs = r.what === 'remove' ? 0 : r.expiresMs
        const isTaken = isStar ? rfc.registerStar(callId, cseq, nowMs) : rfc.register(key, callId, cseq, expiresMs, nowMs)
        const admission = index.admit({ aor: AOR, key: isStar ? '' : key, callId, cseq, lenient: false }, nowMs)
        if ((admission.kind === 'accept') !== isTaken) return false
        if (admission.kind === 'refuse') refused++
        else {
          if (admission.reset) resets++
          const op = isStar ? 'clear' : expiresMs === 0 ? 'remove' : 'set'
          const expiresAtMs = op === 'set' ? nowMs + expiresMs : 0
          const { reset } = admission
          index.add(makeBinding({ hlc: clock.tick(nowMs), op, key: isStar ? '' : key, callId, cseq, reset, expiresAtMs }))
        }
        for (const ms of [nowMs, nowMs + 20]) {
          const found = index.lookup(AOR, ms).map((e) => e.key)
          // The RFC's registrar forgets by the clock, so it is asked about now alone.
          if (ms === nowMs && found.sort().join() !== rfc.keys(ms).join()) return false
        }
      }
      return true
    }),
    { numRuns: 3000 },
  )
  t.ok(refused > 500 && resets > 500, `${refused} refused, ${resets} taken as resets`)
})

t.test('a REGISTER delayed on the way to another region does not beat the newer one', async (t) => {
  const east = indexOf()
  const west = indexOf()
  const newer = at(10, { cseq: 8, contact: 'sip:u1@127.0.0.2:5070', node: 'us-east-1' })
  east.add(newer)
  t.strictSame(admit(west, 30, { cseq: 7 }), ACCEPT, 'eu-west does not know it yet')
  const delayed = at(30, { cseq: 7, node: 'eu-west-1' })
  west.add(delayed)
  east.add(delayed)
  west.add(newer)
  for (const index of [east, west]) t.strictSame(index.lookup(AOR, T0 + 31 * S), [newer])
})

t.test('what was unregistered by * on one side of a cut stays gone, also where its bindings were never seen', async (t) => {
  const remover = indexOf()
  const unseen = at(0, { key: 'k1', node: 'us-east-1' })
  const keeper = indexOf(unseen)
  const clear = clearAt(10, { callId: 'other', node: 'eu-west-1' })
  const after = at(20, { key: 'k2', cseq: 2, node: 'us-east-2' })
  remover.add(clear)
  keeper.add(after)
  for (const [index, ...missing] of [
    [remover, unseen, after],
    [keeper, clear],
  ] as const) {
    for (const e of missing) index.add(e)
    t.strictSame(index.lookup(AOR, T0 + 30 * S), [after])
  }
})

t.test('a phone that rebooted with a lower CSeq is found, on both sides', async (t) => {
  const before = [at(0, { cseq: 500 }), at(600, { cseq: 501, op: 'remove' })]
  const east = indexOf(...before)
  const admission = admit(east, 606)
  t.strictSame(admission, RESET)
  const rebooted = at(606, { cseq: 1, reset: true })
  const west = indexOf(rebooted)
  east.add(rebooted)
  for (const e of before) west.add(e)
  for (const index of [east, west]) t.strictSame(index.lookup(AOR, T0 + 607 * S), [rebooted])
})
