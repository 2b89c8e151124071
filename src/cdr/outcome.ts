/**
 * How a group came to rest. `mirrors`: the local disk failed, peers have it. `atRisk`: on the local disk (or one peer), but on fewer peers than
 * configured. `lost`: nowhere that we know of.
 */
export type Outcome =
  | { readonly kind: 'durable' }
  | { readonly kind: 'mirrors' }
  | { readonly kind: 'atRisk'; readonly why: 'unreachable' | 'timeout' | 'disk' }
  | { readonly kind: 'lost' }

export interface GroupFacts {
  /** What the local datasync returned; undefined while it has not. */
  readonly local: boolean | undefined
  /** Peers that have synced it. */
  readonly acks: number
  /** Peers that were to sync it. With a disk that failed, at least one. */
  readonly needed: number
  /** A node of another region has it, or need not. */
  readonly remoteOk: boolean
  /** A peer whose ack would help can still give it. */
  readonly hope: boolean
  /** `mirrorTimeoutMs` is over. */
  readonly expired: boolean
}

interface OutcomeCase {
  readonly when: (f: GroupFacts, copied: boolean) => boolean
  readonly outcome: Outcome | undefined
}

/** The first row that fits stands; undefined: wait. `copied`: as many peers as were to have it have it, another region included where it must. */
export const OUTCOME_CASES: readonly OutcomeCase[] = [
  { when: (f, copied) => f.local === true && copied, outcome: { kind: 'durable' } },
  { when: (f, copied) => f.local === false && copied, outcome: { kind: 'mirrors' } },
  { when: (f) => f.local === undefined && !f.expired, outcome: undefined },
  // A disk that stalls past the timeout is as good as one that failed.
  { when: (f, copied) => f.local === undefined && copied, outcome: { kind: 'mirrors' } },
  { when: (f) => !f.expired && f.hope, outcome: undefined },
  { when: (f) => f.local === true && f.expired, outcome: { kind: 'atRisk', why: 'timeout' } },
  { when: (f) => f.local === true, outcome: { kind: 'atRisk', why: 'unreachable' } },
  { when: (f) => f.acks > 0, outcome: { kind: 'atRisk', why: 'disk' } },
  { when: () => true, outcome: { kind: 'lost' } },
]

export function outcomeOf(f: GroupFacts): Outcome | undefined {
  const copied = f.acks >= f.needed && f.remoteOk
  return OUTCOME_CASES.find((row) => row.when(f, copied))!.outcome
}
