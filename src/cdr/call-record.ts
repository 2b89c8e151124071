/**
 * One durable statement about one call. Parts of a call may be written by any node, more than once; the merge in `merge.ts` commutes.
 * Times are wall clock of the writing node, ms since the epoch. DESIGN "CDRs", FORMAT.md.
 */
export interface CdrPart {
  readonly part: 'attempt' | 'start' | 'interim' | 'end'
  /** hash(Call-ID, From-tag, stamp), 32 hex digits: the call. */
  readonly id: string
  /** The To-tag of the answered leg; empty on `attempt` and on the `end` of a call that nobody answered. */
  readonly leg: string
  readonly callId: string
  readonly fromTag: string
  /** When it happened: the INVITE's arrival, the 2xx's, the BYE's or the final response's. */
  readonly atMs: number
  /** Who wrote it. */
  readonly region: string
  readonly node: string
  readonly incarnation: number
  /** AoR of the From header. */
  readonly caller: string
  /** AoR that was dialled (the Request-URI of the INVITE). */
  readonly callee: string
  /** The authenticated account, or the name of the trusted source. */
  readonly account: string
  /** Flow that the call came in on, as `flowText` gives it. */
  readonly source: string
  /** INVITE's arrival as far as the writer knows it (from the token on an `end` written elsewhere); 0 when unknown. */
  readonly startMs: number
  /** The 2xx's arrival as far as the writer knows it; 0 when not answered or unknown. */
  readonly answerMs: number
  /** `end`: final status of the INVITE (200 on an answered call), else 0. */
  readonly status: number
  /** `end`: Reason header, or a word of ours (`cancelled`, `timeout`, `rejected`, `bye`, `lease`). */
  readonly reason: string
  /** `end`: seen, not concluded. */
  readonly observed: boolean
  readonly hungUpBy: '' | 'caller' | 'callee' | 'system'
  readonly emergency: boolean
}

/** Where a part came from, for the CDR's `parts`. */
export interface CdrPartOrigin {
  readonly part: CdrPart['part']
  readonly atMs: number
  readonly region: string
  readonly node: string
}

/** A call as it is billed: the merge of its parts. `callId` is the SIP Call-ID. */
export interface Cdr {
  readonly id: string
  readonly callId: string
  readonly caller: string
  readonly callee: string
  readonly account: string
  readonly startMs: number
  /** 0 when nobody answered. */
  readonly answerMs: number
  /** 0 while the end is not known. */
  readonly endMs: number
  /** end - answer; 0 when not answered or not ended. */
  readonly durationMs: number
  /** Final status of the INVITE; 0 while open. */
  readonly status: number
  readonly reason: string
  readonly observed: boolean
  readonly hungUpBy: '' | 'caller' | 'callee' | 'system'
  readonly leg: string
  readonly emergency: boolean
  /** `open`: no end yet. */
  readonly state: 'complete' | 'open'
  readonly parts: readonly CdrPartOrigin[]
}
