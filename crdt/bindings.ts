import { HLC_PER_MS, hlcMs } from '../src/base/hlc.ts'
import type { BindingEntry, ClusterConstants } from './entry.ts'
import { MAX_CSEQ } from './entry-check.ts'
import { binds, compareBindings, compareEntries, effectiveExpiryMs, headsOf, isCleared } from './view.ts'

/** The entries of one key, ascending by `compareEntries`; the entry itself where there is one, for most keys of an idle cluster have just that. */
type KeyEntries = BindingEntry | BindingEntry[]

/** An AoR with several keys or a `clear`. The others are held as their only key's entries. */
class AorState {
  readonly keys = new Map<string, KeyEntries>()
  /** Ascending; the last one counts. */
  clears: BindingEntry[] = []
}

type Held = KeyEntries | AorState

/** A REGISTER that asks to be written: one contact of it, or `Contact: *` with an empty `key`. */
export interface AdmitQuery {
  readonly aor: string
  readonly key: string
  readonly callId: string
  readonly cseq: number
  /** `registrar.cseq: lenient`: a low CSeq over a live head that is older than the window is taken as a reset. */
  readonly lenient: boolean
}

/** `reset` goes into the entry as it is. A refusal is answered with `status`, and Retry-After where it is given. */
export type Admission =
  | { readonly kind: 'accept'; readonly reset: boolean }
  | { readonly kind: 'refuse'; readonly status: 400 | 500; readonly retryAfterS?: number; readonly why: string }

/** Why a key is bound, or is not: for `locate --json`. */
export interface KeyExplanation {
  /** Empty for an AoR of which only a `clear` is left. */
  readonly key: string
  /** One for each Call-ID, the latest first. */
  readonly heads: readonly BindingEntry[]
  /** The latest head. */
  readonly winner: BindingEntry | undefined
  /** The newest `Contact: *` of the AoR. */
  readonly clear: BindingEntry | undefined
  readonly isLive: boolean
  /** All that is held for the key, ascending by (HLC, node). */
  readonly entries: readonly BindingEntry[]
}

/** Up to here an array is copied when it grows: V8 leaves room for 16 more at each push, and most keys hold three or four entries for good. */
const SNUG_LENGTH = 16
/** Liveness is counted in slots of this width. */
const TALLY_MS = 1000

/**
 * All bindings that this node knows of, by AoR and key: the fast form of `view.ts`, and equal to it over the same set of entries in any order of `add`
 * and `drop`. DESIGN "State" 4.
 */
export class BindingIndex {
  readonly #constants: ClusterConstants
  readonly #windowHlc: number
  readonly #aors = new Map<string, Held>()
  /** Compaction leaves verbatim copies of an entry in several docs for a while: how many beyond the first, by the one that is held. */
  readonly #copies = new Map<BindingEntry, number>()
  /** Winners that bind, by the second in which they expire (rounded up). */
  readonly #tally = new Map<number, number>()
  #size = 0

  constructor(constants: ClusterConstants) {
    this.#constants = constants
    this.#windowHlc = constants.windowMs * HLC_PER_MS
  }

  /** Distinct entries held, dead ones included. */
  get size(): number {
    return this.#size
  }

  /** AoRs with any entry, live or not. */
  aors(): Iterable<string> {
    return this.#aors.keys()
  }

  /** Keys of the AoR with any entry, live or not, in a fixed order. */
  keys(aor: string): string[] {
    return keyEntriesOf(this.#aors.get(aor))
      .map((entries) => lastOf(entries).key)
      .sort()
  }

  /** Takes in one copy of an entry: ours as it is written, or another's as it arrives. */
  add(e: BindingEntry): void {
    const held = this.#aors.get(e.aor)
    if (held === undefined) {
      this.#aors.set(e.aor, e.op === 'clear' ? withClear(new AorState(), e) : e)
      this.#size++
      if (e.op !== 'clear') this.#count(e, undefined, 1)
      return
    }
    if (e.op === 'clear') this.#addClear(held, e)
    else this.#addToKey(held, e)
  }

  /** Gives back one copy of an entry, whose doc is being dropped; the last copy takes the entry along. */
  drop(e: BindingEntry): void {
    const held = this.#aors.get(e.aor)
    if (held === undefined) return
    const list = e.op === 'clear' ? (held instanceof AorState ? held.clears : undefined) : entriesOf(held, e.key)
    if (list === undefined) return
    const place = Array.isArray(list) ? placeOf(list, e) : compareEntries(list, e) === 0 ? 0 : -1
    if (place < 0) return
    const known = Array.isArray(list) ? list[place]! : list
    const copies = this.#copies.get(known)
    if (copies !== undefined) {
      if (copies === 1) this.#copies.delete(known)
      else this.#copies.set(known, copies - 1)
      return
    }
    this.#size--
    if (e.op === 'clear') this.#dropClear(held as AorState, e.aor, place)
    else this.#dropFromKey(held, list, e, place)
  }

  /** The live bindings, by q, then the later first. A million AoRs later still one map look-up and a walk over the keys' newest entries. */
  lookup(aor: string, nowMs: number): BindingEntry[] {
    const held = this.#aors.get(aor)
    if (held === undefined) return []
    if (!(held instanceof AorState)) {
      const winner = this.#winner(held)
      return binds(winner, undefined, nowMs, this.#constants) ? [winner] : []
    }
    const clear = held.clears.at(-1)
    const live: BindingEntry[] = []
    for (const entries of held.keys.values()) {
      const winner = this.#winner(entries)
      if (binds(winner, clear, nowMs, this.#constants)) live.push(winner)
    }
    return live.length > 1 ? live.sort(compareBindings) : live
  }

  /** Every key of the AoR with all that decides it. */
  explain(aor: string, nowMs: number): KeyExplanation[] {
    const held = this.#aors.get(aor)
    const clear = held instanceof AorState ? held.clears.at(-1) : undefined
    const keys = keyEntriesOf(held).map((list): KeyExplanation => {
      const entries = listOf(list).slice()
      const heads = headsOf(entries, this.#constants.windowMs)
      const winner = heads[0]!
      return { key: winner.key, heads, winner, clear, isLive: binds(winner, clear, nowMs, this.#constants), entries }
    })
    if (keys.length === 0 && clear !== undefined)
      return [{ key: '', heads: [], winner: undefined, clear, isLive: false, entries: [] }]
    return keys.sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  /**
   * May this REGISTER be written? The check of RFC 3261 §10.3 (steps 6 and 7) against what this node knows, with DESIGN's reset and reboot guard.
   * With an empty key it asks for `Contact: *`, which every key of the AoR must admit. Nothing is written.
   */
  admit(q: AdmitQuery, nowMs: number): Admission {
    // §8.1.1.5: a CSeq is less than 2^31.
    if (!(Number.isSafeInteger(q.cseq) && q.cseq >= 0 && q.cseq <= MAX_CSEQ))
      return { kind: 'refuse', status: 400, why: 'CSeq out of range' }
    const held = this.#aors.get(q.aor)
    if (held === undefined) return { kind: 'accept', reset: false }
    const clear = held instanceof AorState ? held.clears.at(-1) : undefined
    if (q.key === '') {
      // §10.3 step 6: a binding of the same Call-ID whose CSeq is not lower keeps `*` from removing any.
      for (const entries of keyEntriesOf(held)) {
        const head = this.#headOf(listOf(entries), q.callId)
        if (head !== undefined && q.cseq <= head.cseq && binds(head, clear, nowMs, this.#constants)) return LOW_CSEQ
      }
      return { kind: 'accept', reset: false }
    }
    // The removal that may have overtaken this request can be a `*`, also where no entry of the key was ever seen.
    if (clear !== undefined && clear.callId === q.callId && q.cseq <= clear.cseq) {
      const wait = this.#guardLeftMs(clear, nowMs)
      if (wait > 0) return tooSoon(wait)
    }
    const entries = entriesOf(held, q.key)
    const head = entries === undefined ? undefined : this.#headOf(listOf(entries), q.callId)
    if (head === undefined || q.cseq > head.cseq) return { kind: 'accept', reset: false }
    if (binds(head, clear, nowMs, this.#constants)) {
      const isOld = nowMs - hlcMs(head.hlc) >= this.#constants.windowMs
      return q.lenient && isOld ? { kind: 'accept', reset: true } : LOW_CSEQ
    }
    // Removed or expired: a phone that rebooted starts over at CSeq 1. Just after a removal it may be a delayed refresh that the removal overtook.
    const wait = this.#guardLeftMs(isCleared(head, clear) ? clear! : head, nowMs)
    return wait > 0 ? tooSoon(wait) : { kind: 'accept', reset: true }
  }

  /** Live bindings of all AoRs. Exact at whole seconds, else those that expired within the current second still count. */
  liveCount(nowMs: number): number {
    let live = 0
    for (const [second, count] of this.#tally) if (second * TALLY_MS > nowMs) live += count
    return live
  }

  #guardLeftMs(end: BindingEntry, nowMs: number): number {
    return hlcMs(end.hlc) + this.#constants.rebootGuardMs - nowMs
  }

  #addToKey(held: Held, e: BindingEntry): void {
    const known = entriesOf(held, e.key)
    const clear = held instanceof AorState ? held.clears.at(-1) : undefined
    if (known === undefined) {
      this.#put(held, e, e)
      this.#size++
      this.#count(e, clear, 1)
      return
    }
    const list = listOf(known)
    const place = ~placeOf(list, e)
    if (place < 0) {
      this.#addCopy(list[~place]!)
      return
    }
    const before = this.#winner(known)
    const grown = insertAt(Array.isArray(known) ? known : [known], place, e)
    if (grown !== known) this.#put(held, e, grown)
    this.#size++
    this.#recount(before, this.#winner(grown), clear)
  }

  #addClear(held: Held, e: BindingEntry): void {
    const state = held instanceof AorState ? held : stateOf(held)
    const place = ~placeOf(state.clears, e)
    if (place < 0) {
      this.#addCopy(state.clears[~place]!)
      return
    }
    if (state !== held) this.#aors.set(e.aor, state)
    this.#size++
    const before = state.clears.at(-1)
    state.clears = insertAt(state.clears, place, e)
    this.#reclear(state, before)
  }

  #addCopy(known: BindingEntry): void {
    this.#copies.set(known, (this.#copies.get(known) ?? 0) + 1)
  }

  #dropClear(state: AorState, aor: string, place: number): void {
    const before = state.clears.at(-1)
    state.clears.splice(place, 1)
    this.#reclear(state, before)
    this.#tidy(aor, state)
  }

  #dropFromKey(held: Held, list: KeyEntries, e: BindingEntry, place: number): void {
    const clear = held instanceof AorState ? held.clears.at(-1) : undefined
    const before = this.#winner(list)
    if (!Array.isArray(list)) {
      this.#count(before, clear, -1)
      if (held instanceof AorState) held.keys.delete(e.key)
      else this.#aors.delete(e.aor)
    } else {
      list.splice(place, 1)
      const left = list.length === 1 ? list[0]! : list
      if (left !== list) this.#put(held, e, left)
      this.#recount(before, this.#winner(left), clear)
    }
    if (held instanceof AorState) this.#tidy(e.aor, held)
  }

  /** Back to the small form where one key and no clear is left. */
  #tidy(aor: string, state: AorState): void {
    if (state.clears.length > 0 || state.keys.size > 1) return
    const only = state.keys.values().next().value
    if (only === undefined) this.#aors.delete(aor)
    else this.#aors.set(aor, only)
  }

  #put(held: Held, e: BindingEntry, entries: KeyEntries): void {
    if (held instanceof AorState) held.keys.set(e.key, entries)
    else if (lastOf(held).key === e.key) this.#aors.set(e.aor, entries)
    else {
      const state = stateOf(held)
      state.keys.set(e.key, entries)
      this.#aors.set(e.aor, state)
    }
  }

  /**
   * The latest of the heads: `view.headsOf(…)[0]` without looking further back than a window or two. Where the newest entry is its Call-ID's head,
   * as after every refresh, that is the answer.
   */
  #winner(entries: KeyEntries): BindingEntry {
    if (!Array.isArray(entries)) return entries
    const newest = entries.length - 1
    let best = this.#headAt(entries, newest)
    // No head lies above the newest entry of its Call-ID, so what is below the best one needs no look. An entry that is not the newest of its Call-ID is
    // tried too, and harmless: it sees further back than its Call-ID may, so the head that it finds is not later than the right one, found before.
    for (let i = newest - 1; i >= 0; i--) {
      const e = entries[i]!
      if (e.hlc < best.hlc || e === best) break
      const head = this.#headAt(entries, i)
      if (compareEntries(head, best) > 0) best = head
    }
    return best
  }

  /** The head of the Call-ID whose newest entry stands at `newest`. */
  #headAt(entries: readonly BindingEntry[], newest: number): BindingEntry {
    let head = entries[newest]!
    const callId = head.callId
    let floor = head.hlc - this.#windowHlc
    for (let i = newest; i >= 0; i--) {
      const e = entries[i]!
      if (e.hlc <= floor) break
      if (e.callId !== callId) continue
      if (e.cseq > head.cseq) head = e
      // It sets aside what is lower than itself, not another node's entry of the same HLC.
      if (e.reset) floor = Math.max(floor, e.hlc - 1)
    }
    return head
  }

  #headOf(entries: readonly BindingEntry[], callId: string): BindingEntry | undefined {
    for (let i = entries.length - 1; i >= 0; i--) if (entries[i]!.callId === callId) return this.#headAt(entries, i)
    return undefined
  }

  #count(winner: BindingEntry, clear: BindingEntry | undefined, by: 1 | -1): void {
    if (winner.op !== 'set' || isCleared(winner, clear)) return
    const second = Math.ceil(effectiveExpiryMs(winner, this.#constants) / TALLY_MS)
    const count = (this.#tally.get(second) ?? 0) + by
    if (count === 0) this.#tally.delete(second)
    else this.#tally.set(second, count)
  }

  #recount(before: BindingEntry, after: BindingEntry, clear: BindingEntry | undefined): void {
    if (before === after) return
    this.#count(before, clear, -1)
    this.#count(after, clear, 1)
  }

  #reclear(state: AorState, before: BindingEntry | undefined): void {
    const after = state.clears.at(-1)
    if (after === before) return
    for (const entries of state.keys.values()) {
      const winner = this.#winner(entries)
      this.#count(winner, before, -1)
      this.#count(winner, after, 1)
    }
  }
}

const LOW_CSEQ: Admission = { kind: 'refuse', status: 500, why: 'CSeq is not higher than that of the binding' }

const tooSoon = (waitMs: number): Admission => ({
  kind: 'refuse',
  status: 500,
  retryAfterS: Math.ceil(waitMs / 1000),
  why: 'CSeq is not higher than that of a binding just removed',
})

const listOf = (entries: KeyEntries): readonly BindingEntry[] => (Array.isArray(entries) ? entries : [entries])
const lastOf = (entries: KeyEntries): BindingEntry => (Array.isArray(entries) ? entries.at(-1)! : entries)

function keyEntriesOf(held: Held | undefined): KeyEntries[] {
  if (held === undefined) return []
  return held instanceof AorState ? [...held.keys.values()] : [held]
}

function entriesOf(held: Held, key: string): KeyEntries | undefined {
  if (held instanceof AorState) return held.keys.get(key)
  return lastOf(held).key === key ? held : undefined
}

function stateOf(entries: KeyEntries): AorState {
  const state = new AorState()
  state.keys.set(lastOf(entries).key, entries)
  return state
}

function withClear(state: AorState, clear: BindingEntry): AorState {
  state.clears = [clear]
  return state
}

/** Where `e` stands in an ascending list, or the complement of where it would. Looks at the end first: most entries arrive in order. */
function placeOf(list: readonly BindingEntry[], e: BindingEntry): number {
  let low = 0
  let high = list.length
  if (high > 0 && list[high - 1]!.hlc < e.hlc) return ~high
  while (low < high) {
    const middle = (low + high) >> 1
    const order = compareEntries(list[middle]!, e)
    if (order === 0) return middle
    if (order < 0) low = middle + 1
    else high = middle
  }
  return ~low
}

function insertAt(list: BindingEntry[], place: number, e: BindingEntry): BindingEntry[] {
  if (list.length < SNUG_LENGTH) return list.toSpliced(place, 0, e)
  list.splice(place, 0, e)
  return list
}
