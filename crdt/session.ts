import { type Fault, fault } from '../src/base/errors.ts'
import {
  ALL_BUCKETS,
  type Author,
  authorKey,
  type DocName,
  docKey,
  encodeMessage,
  type Frame,
  frameSize,
  LIMITS,
  type Range,
  type StateMessage,
} from './frames.ts'
import type { Replica } from './replica.ts'

/**
 * Anti-entropy with one peer over one link. PROTOCOL.md "Messages of channel 1", DESIGN "State" 6 and 9.
 *
 *        DIGEST in                   TIPS in                      all of the slice applied
 *   idle ─────────▶ asking (per author) ─────────▶ lacking docs ──WANT──▶ fetching ──DONE──▶ next slice … idle
 *     ▲  equal          │ rest equal                    │ applied from elsewhere                │
 *     └─────────────────┴───────────────────────────────┴───────── no news for 2 s ◀────────────┘
 *
 * Each side only pulls; serving the other side's ASKs and WANTs needs no state.
 */

const FIRST_TIPS = 16
const MORE_TIPS = 256
const SLICE_DOCS = 64
const SLICE_BYTES = 512 * 1024
/** Outside the first round a push is probably on its way: wait for it this long before asking. */
const LAG_MS = 200
const SILENCE_MS = 2000
/** One FRAMES message of an answer is closed at this size. */
const MESSAGE_BYTES = 256 * 1024

/** What the sessions of one node share. */
export interface SessionHost {
  readonly replica: Replica
  readonly horizon: (nowMs: number) => number
  /** Whether a doc is worth asking for now: its author is known, its bucket is not over, nothing holds it back from this peer. */
  readonly wanted: (doc: DocName, peer: string, nowMs: number) => boolean
  /** Docs that are being fetched, and from whom: one peer per doc. */
  readonly fetching: Map<string, string>
  readonly send: (peer: string, bytes: Buffer) => void
  /** A doc whose author wrote two histories, or a peer that altered it. */
  readonly forked: (doc: DocName, peer: string) => void
  readonly compared: (equal: boolean) => void
}

interface Lacking {
  readonly doc: DocName
  readonly clock: number
  readonly notBeforeMs: number
}

export class Session {
  readonly peer: string
  readonly #host: SessionHost
  /** Authors whose tips we wait for, and since when. */
  readonly #asks = new Map<string, number>()
  readonly #lacking = new Map<string, Lacking>()
  #want:
    | { readonly id: number; deadlineMs: number; readonly docs: readonly { readonly key: string; readonly from: number }[] }
    | undefined
  #nextId = 1
  #nextMs: number | undefined
  #rounds = 0
  /** Something of this round did not come: the next digest decides. */
  #unsettled = false
  /** When something last came of the pull. */
  progressMs: number
  /** A first digest has been compared, and all that it led to is here. */
  pulled = false

  constructor(peer: string, host: SessionHost, nowMs: number) {
    this.peer = peer
    this.#host = host
    this.progressMs = nowMs
  }

  /** Absolute ms, or undefined while nothing is under way. */
  nextTimeoutMs(): number | undefined {
    return this.#nextMs
  }

  handleTimeout(nowMs: number): void {
    this.#pump(nowMs)
  }

  /** Handles everything but `frames`; a fault costs the peer its link. */
  handle(m: Exclude<StateMessage, { type: 'frames' }>, nowMs: number): Fault | undefined {
    switch (m.type) {
      case 'digest':
        return this.#digest(m, nowMs)
      case 'ask':
        return this.#serveTips(m, nowMs)
      case 'tips':
        return this.#tips(m, nowMs)
      case 'want':
        return this.#serveFrames(m, nowMs)
      case 'done':
        return this.#done(m, nowMs)
    }
  }

  /** A push came before what it builds on: fetch that from this peer, at the next `handleTimeout`. */
  lack(doc: DocName, clock: number, nowMs: number): void {
    this.#remember(doc, clock, nowMs)
  }

  /** Frames that we asked for have come. */
  fed(nowMs: number): void {
    this.progressMs = nowMs
    if (this.#want !== undefined) this.#want.deadlineMs = nowMs + SILENCE_MS
  }

  /** Gives free what this session was fetching; call when the link is gone. */
  close(): void {
    this.#release()
  }

  #digest(m: StateMessage & { type: 'digest' }, nowMs: number): undefined {
    const { replica } = this.#host
    const own = this.#host.horizon(nowMs)
    let equal = true
    this.#unsettled = false
    // What was never answered was lost; the author may be equal by now, and would be waited for without end.
    for (const [key, sinceMs] of this.#asks) if (nowMs - sinceMs > SILENCE_MS) this.#asks.delete(key)
    for (const { author, docs, sum } of m.authors) {
      // Below its own horizon the peer has dropped what we still hold; a peer whose horizon is lower than ours has summed what we dropped, and
      // only its tips can tell.
      if (m.horizon >= own && replica.matches(author, m.horizon, ALL_BUCKETS, docs, sum)) continue
      equal = false
      if (this.#asks.size < LIMITS.digestAuthors && !this.#asks.has(authorKey(author)))
        this.#ask(author, ALL_BUCKETS, FIRST_TIPS, nowMs)
    }
    this.#rounds++
    this.#host.compared(equal)
    this.#pump(nowMs)
  }

  #ask(author: Author, below: number, limit: number, nowMs: number): void {
    this.#asks.set(authorKey(author), nowMs)
    this.#host.send(this.peer, encodeMessage({ type: 'ask', author, horizon: this.#host.horizon(nowMs), below, limit }))
  }

  #tips(m: StateMessage & { type: 'tips' }, nowMs: number): Fault | undefined {
    const key = authorKey(m.author)
    // An answer to nothing is an answer that came too late.
    if (!this.#asks.delete(key)) return undefined
    if (
      m.floor > m.below ||
      m.tips.some((t) => t.bucket < m.floor || t.bucket >= m.below || t.clock < 1 || t.clock > LIMITS.docRecords)
    )
      return fault('CRDT_MESSAGE_MALFORMED', `tips of ${key} out of bounds`)
    const { replica } = this.#host
    for (const { kind, bucket, part, clock, hash } of m.tips) {
      const doc = { ...m.author, kind, bucket, part }
      const id = docKey(doc)
      const have = replica.clock(id)
      if (clock > have) this.#remember(doc, clock, this.#rounds <= 1 ? nowMs : nowMs + LAG_MS)
      else if (clock === have && !replica.hash(id)?.equals(hash)) this.#host.forked(doc, this.peer)
    }
    const horizon = Math.max(m.horizon, this.#host.horizon(nowMs))
    // A rest of nothing, or one that equals ours, ends it. A floor that does not fall would never end.
    if (m.floor > horizon && m.floor < m.below && !replica.matches(m.author, horizon, m.floor, m.restDocs, m.restSum))
      if (m.restDocs > 0) this.#ask(m.author, m.floor, MORE_TIPS, nowMs)
    this.progressMs = nowMs
    this.#pump(nowMs)
    return undefined
  }

  #done(m: StateMessage & { type: 'done' }, nowMs: number): undefined {
    if (this.#want?.id !== m.id) return
    // What was served in full and is lacking still cannot be had here now: the next digest will say whether to ask again.
    // Where the budget ran out it goes on, as long as that brings anything.
    const { replica, wanted } = this.#host
    const goesOn = !m.complete && this.#want.docs.some(({ key, from }) => replica.clock(key) > from)
    for (const { key } of goesOn ? [] : this.#want.docs) {
      const lacking = this.#lacking.get(key)
      if (lacking === undefined) continue
      this.#lacking.delete(key)
      if (replica.clock(key) < lacking.clock && wanted(lacking.doc, this.peer, nowMs)) this.#unsettled = true
    }
    this.#release()
    this.progressMs = nowMs
    this.#pump(nowMs)
  }

  #remember(doc: DocName, clock: number, notBeforeMs: number): void {
    const key = docKey(doc)
    const known = this.#lacking.get(key)
    if (known === undefined && this.#lacking.size >= LIMITS.docs) return
    this.#lacking.set(key, {
      doc,
      clock: Math.max(clock, known?.clock ?? 0),
      notBeforeMs: Math.min(notBeforeMs, known?.notBeforeMs ?? Number.POSITIVE_INFINITY),
    })
  }

  #release(): void {
    for (const { key } of this.#want?.docs ?? []) if (this.#host.fetching.get(key) === this.peer) this.#host.fetching.delete(key)
    this.#want = undefined
  }

  /** Asks for the next slice when none is under way, and says when to look again. */
  #pump(nowMs: number): void {
    const { fetching, replica, wanted } = this.#host
    if (this.#want !== undefined && nowMs >= this.#want.deadlineMs) {
      this.#release()
      this.#lacking.clear()
      this.#asks.clear()
      this.#unsettled = true
    }
    if (this.#want === undefined && this.#lacking.size > 0) {
      const due: Lacking[] = []
      for (const [key, l] of this.#lacking) {
        if (replica.clock(key) >= l.clock || !wanted(l.doc, this.peer, nowMs)) this.#lacking.delete(key)
        else if (l.notBeforeMs <= nowMs && !fetching.has(key)) due.push(l)
      }
      due.sort((a, b) => b.doc.bucket - a.doc.bucket || b.doc.part - a.doc.part)
      const slice = due.slice(0, SLICE_DOCS)
      if (slice.length > 0) this.#fetch(slice, nowMs)
    }
    if (this.#rounds > 0 && !this.#unsettled && this.#asks.size === 0 && this.#lacking.size === 0) this.pulled = true
    this.#nextMs = this.#want?.deadlineMs ?? (this.#lacking.size > 0 ? nowMs + LAG_MS / 2 : undefined)
  }

  #fetch(slice: readonly Lacking[], nowMs: number): void {
    const ranges: Range[] = []
    const docs: { key: string; from: number }[] = []
    for (const { doc, clock } of slice) {
      const key = docKey(doc)
      const from = this.#host.replica.clock(key)
      ranges.push({ doc, from, to: clock })
      docs.push({ key, from })
      this.#host.fetching.set(key, this.peer)
    }
    this.#want = { id: this.#nextId++, deadlineMs: nowMs + SILENCE_MS, docs }
    this.#host.send(this.peer, encodeMessage({ type: 'want', id: this.#want.id, budgetBytes: SLICE_BYTES, ranges }))
  }

  #serveTips(m: StateMessage & { type: 'ask' }, nowMs: number): undefined {
    const horizon = Math.max(m.horizon, this.#host.horizon(nowMs))
    const { tips, floor, rest } = this.#host.replica.tips(m.author, horizon, m.below, Math.max(1, Math.min(m.limit, MORE_TIPS)))
    this.#host.send(
      this.peer,
      encodeMessage({
        type: 'tips',
        author: m.author,
        horizon,
        below: m.below,
        // An ASK from wholly below the horizon gets nothing, in bounds.
        floor: Math.min(floor, m.below),
        tips,
        restDocs: rest.docs,
        restSum: rest.bytes(),
      }),
    )
  }

  #serveFrames(m: StateMessage & { type: 'want' }, _nowMs: number): undefined {
    let left = Math.min(m.budgetBytes, LIMITS.wantBudgetBytes)
    let frames: Frame[] = []
    let bytes = 0
    let complete = true
    const close = (): void => {
      if (frames.length > 0) this.#host.send(this.peer, encodeMessage({ type: 'frames', asked: true, frames }))
      frames = []
      bytes = 0
    }
    for (const { doc, from, to } of m.ranges) {
      for (let at = from; complete; ) {
        const frame = this.#host.replica.serve(doc, at, to, Math.min(left, MESSAGE_BYTES / 2))
        if (frame === undefined) break
        frames.push(frame)
        at = frame.to
        bytes += frameSize(frame)
        left -= frameSize(frame)
        if (bytes >= MESSAGE_BYTES || frames.length >= LIMITS.frames) close()
        if (left <= 0) complete = false
      }
      if (!complete) break
    }
    close()
    this.#host.send(this.peer, encodeMessage({ type: 'done', id: m.id, complete }))
  }
}
