import { HLC_PER_MS, hlcMs } from '../src/base/hlc.ts'
import { compareEncoded } from './codec.ts'
import type { BindingEntry, ClusterConstants, DialogEntry, DialogPhase, Entry } from './entry.ts'

/**
 * What a set of entries means: pure functions of the set and the clock, so equal sets mean equal answers whatever the order of arrival. DESIGN
 * "State" 4 and 5. Written for reading; `bindings.ts` and `dialogs.ts` answer the same questions fast, and the tests hold them to this file.
 */

/**
 * Total order of entries: `(HLC, node)` identifies. Two entries that share both and differ come from a forked author (DESIGN "State" 9); until it is
 * quarantined every node must still answer alike, so their canonical bytes decide.
 */
export function compareEntries(a: Entry, b: Entry): number {
  if (a.hlc !== b.hlc) return a.hlc - b.hlc
  if (a.node !== b.node) return a.node < b.node ? -1 : 1
  return a === b ? 0 : compareEncoded(a, b)
}

/** Order within the reorder window: `(CSeq, HLC, node)`. */
const compareInWindow = (a: BindingEntry, b: BindingEntry): number => a.cseq - b.cseq || compareEntries(a, b)

/**
 * No binding outlives the longest expiry, whatever its author wrote: retention (DESIGN "State" 2) is safe only because every entry is dead when it
 * is dropped. Absolute, ms.
 */
export const effectiveExpiryMs = (e: BindingEntry, constants: ClusterConstants): number =>
  Math.min(e.expiresAtMs, hlcMs(e.hlc) + constants.longestExpiryMs)

/** The entry that speaks for one key and one Call-ID: the highest CSeq that is neither set aside by a reset nor older than the newest by the window. */
export function windowHead(entries: Iterable<BindingEntry>, windowMs: number): BindingEntry | undefined {
  const all = [...entries]
  const resetHlc = all.reduce((highest, e) => (e.reset && e.hlc > highest ? e.hlc : highest), 0)
  const rest = all.filter((e) => e.hlc >= resetHlc)
  const newestHlc = rest.reduce((highest, e) => Math.max(highest, e.hlc), 0)
  let head: BindingEntry | undefined
  for (const e of rest) {
    if (e.hlc <= newestHlc - windowMs * HLC_PER_MS) continue
    if (head === undefined || compareInWindow(e, head) > 0) head = e
  }
  return head
}

/** The newest `clear` among the entries of one AoR. */
export function newestClear(entries: Iterable<BindingEntry>): BindingEntry | undefined {
  let newest: BindingEntry | undefined
  for (const e of entries) {
    if (e.op === 'clear' && (newest === undefined || compareEntries(e, newest) > 0)) newest = e
  }
  return newest
}

/** One head for each Call-ID, the latest first. `entries` are the sets and removals of one key. */
export function headsOf(entries: Iterable<BindingEntry>, windowMs: number): BindingEntry[] {
  const byCallId = Map.groupBy(entries, (e) => e.callId)
  return [...byCallId.values()].map((group) => windowHead(group, windowMs)!).sort((a, b) => compareEntries(b, a))
}

/** A `clear` hides every entry of a lower HLC, seen or not. */
export const isCleared = (e: BindingEntry, clear: BindingEntry | undefined): boolean => clear !== undefined && clear.hlc > e.hlc

/** Whether this entry, where it wins its key, binds at `nowMs`. */
export const binds = (e: BindingEntry, clear: BindingEntry | undefined, nowMs: number, constants: ClusterConstants): boolean =>
  e.op === 'set' && effectiveExpiryMs(e, constants) > nowMs && !isCleared(e, clear)

/**
 * The binding of one key, or undefined. The latest head decides alone: where it is a removal, expired or cleared, no older head takes its place.
 *
 * @param entries the sets and removals of one key, in any order
 * @param clear the newest `clear` of the AoR
 */
export function bindingOf(
  entries: Iterable<BindingEntry>,
  clear: BindingEntry | undefined,
  nowMs: number,
  constants: ClusterConstants,
): BindingEntry | undefined {
  const winner = headsOf(entries, constants.windowMs)[0]
  return winner !== undefined && binds(winner, clear, nowMs, constants) ? winner : undefined
}

/** Order in which bindings are tried: q, then the later one. */
export const compareBindings = (a: BindingEntry, b: BindingEntry): number => b.q - a.q || compareEntries(b, a)

/**
 * Whether an author may leave `older` out when it compacts, because `newer` hides it for good: no entry that may still arrive can make `older` count
 * again. Own entries only, for another author's may be dropped with a doc that this one cannot speak for. DESIGN "State" 3.
 */
export function hides(newer: BindingEntry, older: BindingEntry, windowMs: number): boolean {
  if (newer.node !== older.node || newer.aor !== older.aor || newer.key !== older.key) return false
  const windowHlc = windowMs * HLC_PER_MS
  // A head lies less than a window below the newest of its Call-ID. So of another Call-ID it takes two windows: one for each of the two heads.
  if (newer.callId !== older.callId) return newer.hlc - 2 * windowHlc >= older.hlc
  return newer.hlc > older.hlc && (newer.reset || newer.hlc - windowHlc >= older.hlc)
}

const PHASE_RANK: Readonly<Record<DialogPhase, number>> = { early: 0, confirmed: 1, ended: 2 }

/** Positive where `a` speaks for the dialog rather than `b`. */
export function compareDialogs(a: DialogEntry, b: DialogEntry): number {
  if (a.phase !== b.phase) return PHASE_RANK[a.phase] - PHASE_RANK[b.phase]
  if (a.phase === 'ended') {
    if (a.observed !== b.observed) return a.observed ? 1 : -1
    if (a.endMs !== b.endMs) return b.endMs - a.endMs
    if (a.region !== b.region) return a.region < b.region ? 1 : -1
    if (a.node !== b.node) return a.node < b.node ? 1 : -1
  }
  // A later statement renews the lease; a later copy of an end is the one that is retained longest.
  return compareEntries(a, b)
}

/** The entry that speaks for one dialog id. Early < confirmed < ended; an observed end beats an inferred one; the earliest end stands. */
export function dialogOf(entries: Iterable<DialogEntry>): DialogEntry | undefined {
  let top: DialogEntry | undefined
  for (const e of entries) if (top === undefined || compareDialogs(e, top) > 0) top = e
  return top
}

/** The owner has not renewed it: what became of the call is not known. It is never taken for ended. */
export const isUnknown = (e: DialogEntry, nowMs: number): boolean => e.phase !== 'ended' && e.leaseUntilMs <= nowMs
