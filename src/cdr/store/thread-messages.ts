import type { NodeIdentity } from '../../base/ids.ts'
import type { OpenReport } from './own-log.ts'

/** What the journal thread is started with. */
export interface ThreadData {
  readonly directory: string
  readonly self: NodeIdentity
  readonly segmentBytes: number
}

/** To the journal thread. Buffers are transferred where they can be. */
export type ThreadRequest =
  /** Payloads of parts, back to back; their lengths in order. Grouped with whatever else arrived; answered by `group` and `local`. */
  | { readonly kind: 'append'; readonly bytes: Uint8Array; readonly lengths: readonly number[] }
  /** A message of the mirror protocol that goes to a mirror, as it came. Answered by `reply`, or not. */
  | { readonly kind: 'peer'; readonly node: string; readonly bytes: Uint8Array }
  | { readonly kind: 'read'; readonly node: string; readonly incarnation: number; readonly from: number }
  | { readonly kind: 'position'; readonly node: string; readonly incarnation: number; readonly commit: number }
  | {
      readonly kind: 'recover'
      readonly incarnation: number
      readonly from: number
      readonly header: Uint8Array | undefined
      readonly groups: Uint8Array
    }
  | { readonly kind: 'remoteHeld'; readonly incarnation: number; readonly commits: number }
  | { readonly kind: 'close' }

/** From the journal thread. */
export type ThreadReply =
  | { readonly kind: 'opened'; readonly report: OpenReport }
  | { readonly kind: 'refused'; readonly code: string; readonly message: string }
  /** The next `records` parts, in the order of `append`, are written as this group; its datasync begins now. */
  | { readonly kind: 'group'; readonly commit: number; readonly records: number; readonly bytes: Uint8Array }
  /** The datasync of everything up to this commit returned; or the disk does not let us. */
  | { readonly kind: 'local'; readonly commit: number; readonly ok: boolean }
  | { readonly kind: 'reply'; readonly node: string; readonly bytes: Uint8Array }
  | {
      readonly kind: 'read'
      readonly node: string
      readonly incarnation: number
      readonly from: number
      readonly next: number
      readonly groups: Uint8Array
    }
  | {
      readonly kind: 'position'
      readonly node: string
      readonly incarnation: number
      readonly header: Uint8Array | undefined
    }
  | { readonly kind: 'recovered'; readonly incarnation: number; readonly commits: number; readonly ok: boolean }
  /** A write or sync failed, of the own chain or of what is held for others. */
  | {
      readonly kind: 'failure'
      readonly what: 'own' | 'mirror' | 'recover' | 'hint'
      readonly code: string
      readonly message: string
    }
  | { readonly kind: 'closed' }
