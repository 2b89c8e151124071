import { hashId, type NodeIdentity } from '../base/ids.ts'
import type { CdrPart } from '../cdr/call-record.ts'
import type { SipRequest } from '../sip/message.ts'
import { canonicalAor } from '../sip/uri.ts'

/** A call as the node that took its INVITE, or its BYE, knows it. */
export interface Call {
  /** hash(Call-ID, From-tag, stamp) */
  readonly id: string
  readonly stamp: string
  readonly callId: string
  /** The caller's tag. */
  readonly fromTag: string
  readonly caller: string
  readonly callee: string
  readonly account: string
  readonly source: string
  readonly startMs: number
  readonly emergency: boolean
}

/** What the CDR parts of a call differ in. */
export type PartDetails = Partial<Pick<CdrPart, 'leg' | 'answerMs' | 'status' | 'reason' | 'observed' | 'hungUpBy'>>

/**
 * The stamp tells calls with the same Call-ID and From-tag apart: it is a function of the Via branch that the call entered with and the CSeq, so
 * that a retransmission to a sibling is the same call; salted with the time when that id is known to have ended, so that a later use is another.
 */
export function stampOf(request: SipRequest, salt: string): string {
  return hashId('stamp', request.topVia.branch, String(request.cseq.seq), salt).slice(0, 16)
}

export const callIdOf = (callId: string, fromTag: string, stamp: string): string => hashId(callId, fromTag, stamp)

export function cdrPart(call: Call, self: NodeIdentity, part: CdrPart['part'], atMs: number, details: PartDetails = {}): CdrPart {
  return {
    part,
    id: call.id,
    leg: '',
    callId: call.callId,
    fromTag: call.fromTag,
    atMs,
    region: self.region,
    node: self.node,
    incarnation: self.incarnation,
    caller: call.caller,
    callee: call.callee,
    account: call.account,
    source: call.source,
    startMs: call.startMs,
    answerMs: 0,
    status: 0,
    reason: '',
    observed: true,
    hungUpBy: '',
    emergency: call.emergency,
    ...details,
  }
}

/** Canonical where it can be, else the URI as it stands: a CDR never fails on an odd From. */
export function aorOrRaw(uri: string): string {
  const aor = canonicalAor(uri)
  return aor.ok ? aor.value : uri.slice(0, 256)
}

/** Ids of calls that ended here, for as long as a retransmitted INVITE or a reuse of the same identifiers may come; bounded. */
export class EndedCalls {
  readonly #atMs = new Map<string, number>()
  readonly #keepMs: number
  readonly #max: number

  constructor(keepMs = 3_600_000, max = 100_000) {
    this.#keepMs = keepMs
    this.#max = max
  }

  add(id: string, nowMs: number): void {
    this.#atMs.delete(id)
    this.#atMs.set(id, nowMs)
    // Insertion order is age order: the front is the oldest.
    for (const [oldest, atMs] of this.#atMs) {
      if (this.#atMs.size <= this.#max && atMs >= nowMs - this.#keepMs) break
      this.#atMs.delete(oldest)
    }
  }

  has(id: string): boolean {
    return this.#atMs.has(id)
  }
}
