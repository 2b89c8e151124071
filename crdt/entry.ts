import type { Hlc } from '../src/base/hlc.ts'

/** What every entry has: a stamp, and the incarnation that first wrote it. `(hlc, node)` identifies an entry wherever a copy of it lies. */
export interface EntryBase {
  readonly hlc: Hlc
  readonly region: string
  readonly node: string
  readonly incarnation: number
}

/**
 * One statement of a registrar about one binding. The author is the edge: the node that took the REGISTER and holds the flow. DESIGN "State" 4.
 *
 * `set` binds, `remove` unbinds one key, `clear` (Contact: *) hides every entry of the AoR with a lower HLC, seen or not.
 */
export interface BindingEntry extends EntryBase {
  readonly kind: 'binding'
  readonly op: 'set' | 'remove' | 'clear'
  /** Canonical: scheme, user and host as `sip:user@host`. */
  readonly aor: string
  /** Instance-id and reg-id, or the contact URI in canonical form; empty for `clear`. */
  readonly key: string
  readonly callId: string
  /** 0 to 2^31 - 1 */
  readonly cseq: number
  /** Sets aside every entry of the same key and Call-ID with a lower HLC. */
  readonly reset: boolean
  /** Absolute; 0 for `remove` and `clear`. */
  readonly expiresAtMs: number
  /** The contact URI as the phone gave it, without angle brackets. */
  readonly contact: string
  /** The contact's header parameters as given, without `q` and `expires`: `;+sip.instance="<…>";reg-id=1`. */
  readonly contactParams: string
  /** 0 to 1000; 1000 is q=1. */
  readonly q: number
  /** Path header values (RFC 3327), topmost first. */
  readonly path: readonly string[]
  readonly flow: BindingFlow
  readonly userAgent: string
}

/** The flow that a binding came in on, as its edge knows it. */
export interface BindingFlow {
  readonly transport: string
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  /** Streams only; -1 for datagrams. Dies with the edge's incarnation. */
  readonly connectionId: number
  /** The contact's host and port are not where the REGISTER came from. */
  readonly nat: boolean
}

export type DialogPhase = 'early' | 'confirmed' | 'ended'

/** One statement about one dialog; the author is its owner. DESIGN "State" 5. */
export interface DialogEntry extends EntryBase {
  readonly kind: 'dialog'
  /** Id of the call (as in its CDR), then `/`, then the To-tag; the To-tag is empty while early. */
  readonly id: string
  readonly phase: DialogPhase
  readonly callId: string
  readonly fromTag: string
  readonly toTag: string
  /** AoRs as dialled. */
  readonly caller: string
  readonly callee: string
  readonly startMs: number
  /** 0 while early. */
  readonly answerMs: number
  /** Past this the state is unknown, never ended; 0 on `ended`. */
  readonly leaseUntilMs: number
  /** 0 unless ended. */
  readonly endMs: number
  /** On `ended`: seen (a BYE, a far end's own 481) or concluded (a lease ran out, a region declared dead). */
  readonly observed: boolean
}

export type Entry = BindingEntry | DialogEntry
export type EntryKind = Entry['kind']

/** The constants that every node of a cluster shares; exchanged in the hello, a mismatch is refused by name. All in milliseconds. */
export interface ClusterConstants {
  /** Width of a bucket: docs are named and dropped by it. */
  readonly bucketWidthMs: number
  /** No binding lives longer. */
  readonly longestExpiryMs: number
  /** Reorder window (DESIGN: 64 s): within it below the newest HLC, CSeq decides. */
  readonly windowMs: number
  readonly driftBoundMs: number
  /** Entries outlive the longest expiry by this; at least window + drift bound. */
  readonly graceMs: number
  /** A removed or expired head must be this old before a lower CSeq is taken as a reboot (`reset`). */
  readonly rebootGuardMs: number
}
