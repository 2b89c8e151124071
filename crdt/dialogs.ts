import type { DialogEntry } from './entry.ts'
import { compareDialogs, compareEntries, isUnknown } from './view.ts'

/** A dialog as it is listed. */
export interface ListedDialog extends DialogEntry {
  /** Its lease ran out: what became of the call is not known. */
  readonly isUnknown: boolean
}

export interface DialogCounts {
  readonly early: number
  readonly confirmed: number
  readonly ended: number
  /** Distinct entries held. */
  readonly entries: number
}

/**
 * All dialogs that this node knows of, by id: equal to `view.dialogOf` over the same set of entries in any order of `add` and `drop`. DESIGN "State" 5.
 *
 * A call is early under the id without To-tag until a leg is answered; from then on that id is neither listed nor counted.
 */
export class DialogIndex {
  /** The entry itself where there is one. In no order: a dialog has a handful, its renewals. */
  readonly #dialogs = new Map<string, DialogEntry | DialogEntry[]>()
  /** Verbatim copies beyond the first, by the entry that is held. */
  readonly #copies = new Map<DialogEntry, number>()
  /** Ids with a To-tag, by call. */
  readonly #legs = new Map<string, number>()
  /** Entries that end a leg, by call. */
  readonly #endedLegs = new Map<string, number>()
  readonly #counts = { early: 0, confirmed: 0, ended: 0, entries: 0 }

  /** Dialog ids with any entry. */
  get size(): number {
    return this.#dialogs.size
  }

  /** By phase, whether the lease holds or not. */
  get counts(): DialogCounts {
    return { ...this.#counts }
  }

  add(e: DialogEntry): void {
    const held = this.#dialogs.get(e.id)
    if (held !== undefined) {
      const known = findCopy(held, e)
      if (known !== undefined) {
        this.#copies.set(known, (this.#copies.get(known) ?? 0) + 1)
        return
      }
    }
    this.#counts.entries++
    this.#countEnd(e, 1)
    this.#count(e.id, -1)
    if (held === undefined) {
      this.#dialogs.set(e.id, e)
      this.#countLeg(e.id, 1)
    } else if (Array.isArray(held)) held.push(e)
    else this.#dialogs.set(e.id, [held, e])
    this.#count(e.id, 1)
  }

  drop(e: DialogEntry): void {
    const held = this.#dialogs.get(e.id)
    const known = held === undefined ? undefined : findCopy(held, e)
    if (held === undefined || known === undefined) return
    const copies = this.#copies.get(known)
    if (copies !== undefined) {
      if (copies === 1) this.#copies.delete(known)
      else this.#copies.set(known, copies - 1)
      return
    }
    this.#counts.entries--
    this.#countEnd(e, -1)
    this.#count(e.id, -1)
    if (!Array.isArray(held)) {
      this.#dialogs.delete(e.id)
      this.#countLeg(e.id, -1)
    } else {
      held.splice(held.indexOf(known), 1)
      if (held.length === 1) this.#dialogs.set(e.id, held[0]!)
    }
    this.#count(e.id, 1)
  }

  /** The entry that speaks for the id, whatever its age. */
  get(id: string): DialogEntry | undefined {
    const held = this.#dialogs.get(id)
    return held === undefined ? undefined : topOf(held)
  }

  /** Dialogs by start, then id; those that ended only where asked for. Goes through all: for people, not for calls. */
  list(nowMs: number, options: { readonly limit: number; readonly ended?: boolean }): ListedDialog[] {
    const listed: DialogEntry[] = []
    for (const [id, held] of this.#dialogs) {
      const top = topOf(held)
      if (top.phase === 'ended' ? options.ended === true : !this.#isAnswered(id)) listed.push(top)
    }
    listed.sort((a, b) => a.startMs - b.startMs || (a.id < b.id ? -1 : 1))
    return listed.slice(0, options.limit).map((e) => ({ ...e, isUnknown: isUnknown(e, nowMs) }))
  }

  /** A leg of this call has ended, or the call ended before any was answered; `call` is what stands before the `/` of an id. */
  hasEnded(call: string): boolean {
    return this.#endedLegs.has(call) || (!this.#legs.has(call) && this.get(`${call}/`)?.phase === 'ended')
  }

  #countEnd(e: DialogEntry, by: 1 | -1): void {
    if (e.phase !== 'ended' || isUntagged(e.id)) return
    const call = e.id.slice(0, e.id.indexOf('/'))
    const ends = (this.#endedLegs.get(call) ?? 0) + by
    if (ends === 0) this.#endedLegs.delete(call)
    else this.#endedLegs.set(call, ends)
  }

  #isAnswered(id: string): boolean {
    return isUntagged(id) && this.#legs.has(id.slice(0, -1))
  }

  #countLeg(id: string, by: 1 | -1): void {
    if (isUntagged(id)) return
    const call = id.slice(0, id.indexOf('/'))
    const legs = (this.#legs.get(call) ?? 0) + by
    const isTurn = legs === 0 || (by === 1 && legs === 1)
    // The call's early dialog leaves the count with the first leg, and comes back where the last leg is dropped before it.
    if (isTurn) this.#count(`${call}/`, -1)
    if (legs === 0) this.#legs.delete(call)
    else this.#legs.set(call, legs)
    if (isTurn) this.#count(`${call}/`, 1)
  }

  #count(id: string, by: 1 | -1): void {
    const held = this.#dialogs.get(id)
    if (held === undefined) return
    const { phase } = topOf(held)
    if (phase === 'ended' || !this.#isAnswered(id)) this.#counts[phase] += by
  }
}

const isUntagged = (id: string): boolean => id.indexOf('/') === id.length - 1

function topOf(held: DialogEntry | DialogEntry[]): DialogEntry {
  if (!Array.isArray(held)) return held
  let top = held[0]!
  for (let i = 1; i < held.length; i++) if (compareDialogs(held[i]!, top) > 0) top = held[i]!
  return top
}

function findCopy(held: DialogEntry | DialogEntry[], e: DialogEntry): DialogEntry | undefined {
  if (!Array.isArray(held)) return compareEntries(held, e) === 0 ? held : undefined
  return held.find((known) => compareEntries(known, e) === 0)
}
