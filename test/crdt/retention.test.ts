/**
 * DESIGN "State" 2 and 3 as a property: three nodes with partial knowledge write, exchange, drop and leave out entries of one AoR; at no node and at no time
 * does an answer differ from that of a node that forgets nothing. Planted mistakes in the rules must be found by the same histories.
 */
import t from 'tap'
import { BindingIndex } from '../../crdt/bindings.ts'
import type { BindingEntry, ClusterConstants } from '../../crdt/entry.ts'
import { hides } from '../../crdt/view.ts'
import { HLC_PER_MS, hlcMs } from '../../src/base/hlc.ts'
import { below, SeededRandom } from '../../src/base/prng.ts'
import { makeBinding, modelBindings, SMALL_CONSTANTS } from './model.ts'

const HISTORIES = 10_000
const STEPS = 14
const AOR = 'sip:u1@example.net'
const KEYS = ['sip:u1@127.0.0.1:5070', '"<urn:uuid:1>";1']
const { longestExpiryMs, driftBoundMs, graceMs, windowMs } = SMALL_CONSTANTS

interface Rules {
  readonly constants: ClusterConstants
  /** Absolute; `known` is what its author held when it wrote the entry, with the same answer for each. */
  dropAtMs(e: BindingEntry, nowMs: number, known: readonly Known[]): number
  hides(newer: BindingEntry, older: BindingEntry): boolean
}

interface Known {
  readonly e: BindingEntry
  readonly dropAtMs: number
}

const SOUND: Rules = {
  constants: SMALL_CONSTANTS,
  dropAtMs: (e) => hlcMs(e.hlc) + longestExpiryMs + graceMs,
  hides: (newer, older) => hides(newer, older, windowMs),
}

/** A node as far as this matters: an index, what is in it, and all that ever was. */
class Replica {
  readonly index: BindingIndex
  readonly held = new Set<BindingEntry>()
  readonly received = new Set<BindingEntry>()
  readonly name: string
  readonly skewMs: number
  #lastHlc = 0

  constructor(name: string, skewMs: number, constants: ClusterConstants) {
    this.name = name
    this.skewMs = skewMs
    this.index = new BindingIndex(constants)
  }

  nextHlc(nowMs: number): number {
    this.#lastHlc = Math.max(this.#lastHlc + 1, (nowMs + this.skewMs) * HLC_PER_MS)
    return this.#lastHlc
  }

  take(e: BindingEntry): void {
    if (this.held.has(e)) return
    this.#lastHlc = Math.max(this.#lastHlc, e.hlc)
    this.held.add(e)
    this.received.add(e)
    this.index.add(e)
  }

  forget(e: BindingEntry): void {
    this.held.delete(e)
    this.index.drop(e)
  }
}

/** @returns what differed first, or undefined. */
function differenceIn(seed: number, rules: Rules): string | undefined {
  const random = new SeededRandom(seed)
  const pick = (bound: number): number => below(random, bound)
  const replicas = [0, 1, 2].map((i) => new Replica(`n${i}`, pick(driftBoundMs + 1), rules.constants))
  const dropAtMs = new Map<BindingEntry, number>()
  const cseqs = new Map<string, number>()
  let delayed: { atMs: number; untilMs: number; callId: string; key: string; cseq: number; expiresMs: number }[] = []
  let nowMs = 1000

  const write = (r: Replica, fields: Partial<BindingEntry>): void => {
    const hlc = r.nextHlc(nowMs)
    const e = makeBinding({ aor: AOR, node: r.name, hlc, ...fields })
    const known = [...r.held].map((other) => ({ e: other, dropAtMs: dropAtMs.get(other)! }))
    dropAtMs.set(e, rules.dropAtMs(e, nowMs + r.skewMs, known))
    r.take(e)
  }
  const register = (r: Replica, callId: string, key: string, cseq: number, expiresMs: number): void => {
    const own = nowMs + r.skewMs
    const admission = r.index.admit({ aor: AOR, key, callId, cseq, lenient: false }, own)
    if (admission.kind === 'refuse') return
    const op = expiresMs === 0 ? 'remove' : 'set'
    write(r, { op, key, callId, cseq, reset: admission.reset, expiresAtMs: expiresMs === 0 ? 0 : own + expiresMs })
  }
  const expiry = (): number => (pick(2) === 0 ? longestExpiryMs : 10 + pick(longestExpiryMs - 10))

  const act = (): void => {
    const r = replicas[pick(3)]!
    const callId = `c${pick(2)}`
    const key = pick(8) === 0 ? KEYS[1]! : KEYS[0]!
    // One in eight: the phone has rebooted and starts over.
    const cseq = (pick(8) === 0 ? 0 : (cseqs.get(callId) ?? 0)) + 1
    cseqs.set(callId, cseq)
    const what = pick(10)
    if (what < 5) register(r, callId, key, cseq, expiry())
    else if (what < 7) register(r, callId, key, cseq, 0)
    else if (what < 8) write(r, { op: 'clear', key: '', callId, cseq })
    else delayed.push({ atMs: nowMs + pick(windowMs), untilMs: nowMs + windowMs, callId, key, cseq, expiresMs: expiry() })
    const due = delayed.filter((d) => d.atMs <= nowMs)
    delayed = delayed.filter((d) => d.atMs > nowMs)
    for (const d of due) if (d.untilMs > nowMs) register(replicas[pick(3)]!, d.callId, d.key, d.cseq, d.expiresMs)
  }
  const exchange = (odds: number): void => {
    for (const from of replicas) {
      for (const to of replicas) {
        if (from === to || pick(odds) !== 0) continue
        for (const e of from.held) if (dropAtMs.get(e)! > nowMs + to.skewMs) to.take(e)
      }
    }
  }
  const drop = (): void => {
    for (const r of replicas) for (const e of r.held) if (dropAtMs.get(e)! <= nowMs + r.skewMs) r.forget(e)
  }
  const leftOut = new Map<BindingEntry, BindingEntry>()
  const compact = (): void => {
    for (const r of replicas) {
      const own = [...r.held].filter((e) => e.node === r.name)
      for (const e of own) {
        const hider = own.find((f) => rules.hides(f, e))
        if (hider !== undefined && pick(2) === 0) leftOut.set(e, hider)
      }
    }
    // Whoever has the replacement drops what it replaces.
    for (const r of replicas) for (const [e, hider] of leftOut) if (r.held.has(e) && r.held.has(hider)) r.forget(e)
  }
  const check = (where: string): string | undefined => {
    for (const r of replicas) {
      const own = nowMs + r.skewMs
      const expected = modelBindings([...r.received], AOR, own, rules.constants)
      const found = new Map(r.index.lookup(AOR, own).map((e) => [e.key, e]))
      for (const key of KEYS) {
        if (found.get(key) === expected.get(key)) continue
        return `seed ${seed}, ${where}, ${r.name} at ${own}: ${key} is ${text(found.get(key))}, not ${text(expected.get(key))}\n${[...r.received].map(text).join('\n')}`
      }
    }
    return undefined
  }

  for (let step = 0; step < STEPS; step++) {
    nowMs += pick(25)
    act()
    exchange(4)
    drop()
    compact()
    const difference = check(`step ${step}`)
    if (difference !== undefined) return difference
  }
  exchange(1)
  exchange(1)
  for (let i = 0; i < 60; i++) {
    nowMs += 3
    drop()
    const difference = check('after the heal')
    if (difference !== undefined) return difference
  }
  return undefined
}

const text = (e: BindingEntry | undefined): string =>
  e === undefined
    ? 'unbound'
    : `${e.op} ${e.callId}/${e.cseq}${e.reset ? ' reset' : ''} ${hlcMs(e.hlc)}+${e.hlc % HLC_PER_MS}@${e.node} until ${e.expiresAtMs}`

/** The first difference among the histories, and the seed that shows it. */
function firstDifference(rules: Rules): { seed: number; difference: string } | undefined {
  for (let seed = 1; seed <= HISTORIES; seed++) {
    const difference = differenceIn(seed, rules)
    if (difference !== undefined) return { seed, difference }
  }
  return undefined
}

t.test(`dropping and leaving out changes no answer in ${HISTORIES} histories`, async (t) => {
  t.equal(firstDifference(SOUND)?.difference, undefined)
})

t.test('the same histories find planted mistakes', async (t) => {
  const planted: Record<string, Rules> = {
    'grace shorter than the window': { ...SOUND, dropAtMs: (e) => hlcMs(e.hlc) + longestExpiryMs },
    'a removal retained for the grace only': {
      ...SOUND,
      dropAtMs: (e) => hlcMs(e.hlc) + graceMs + (e.op === 'remove' ? 0 : longestExpiryMs),
    },
    'a clear retained for the grace only': {
      ...SOUND,
      dropAtMs: (e) => hlcMs(e.hlc) + graceMs + (e.op === 'clear' ? 0 : longestExpiryMs),
    },
    'an entry retained until it expires': { ...SOUND, dropAtMs: (e) => Math.max(e.expiresAtMs, hlcMs(e.hlc)) + graceMs },
    'an entry retained as long as what it is known to hide': {
      ...SOUND,
      dropAtMs: (e, now, known) =>
        Math.max(
          e.expiresAtMs + graceMs,
          ...known.map((k) => k.dropAtMs),
          e.op !== 'set' || known.length === 0 ? now + longestExpiryMs + graceMs : 0,
        ),
    },
    'CSeq that decides without a window': { ...SOUND, constants: { ...SMALL_CONSTANTS, windowMs: 1_000_000 } },
    'leaving out what a later entry of the Call-ID follows at once': {
      ...SOUND,
      hides: (newer, older) =>
        SOUND.hides(newer, older) || (isSameKey(newer, older) && newer.callId === older.callId && newer.hlc > older.hlc),
    },
    'leaving out what a later entry of another Call-ID follows at once': {
      ...SOUND,
      hides: (newer, older) =>
        SOUND.hides(newer, older) || (isSameKey(newer, older) && newer.hlc > older.hlc && newer.callId !== older.callId),
    },
    'leaving out what a clear hides at once': {
      ...SOUND,
      hides: (newer, older) =>
        SOUND.hides(newer, older) || (newer.op === 'clear' && newer.hlc > older.hlc && newer.node === older.node),
    },
  }
  for (const [name, rules] of Object.entries(planted)) {
    const found = firstDifference(rules)
    t.ok(found, `${name}: found at seed ${found?.seed}`)
  }
})

const isSameKey = (a: BindingEntry, b: BindingEntry): boolean => a.node === b.node && a.key === b.key
