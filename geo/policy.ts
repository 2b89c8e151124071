/**
 * What operators and the node itself decided about a region or node, next to what health says. Not a boolean but a set of reasons: a drain that ends
 * must not end the maintenance that somebody else announced.
 */
export type PolicyState = 'draining' | 'maintenance' | 'forced-off' | 'forced-on'

export interface PolicyReason {
  /** A region or node name. */
  readonly target: string
  readonly state: PolicyState
  /** Who said so: an operator's name, or a node's. One author has one reason of a state per target. */
  readonly author: string
  /** 0: until it is taken back. */
  readonly expiresAtMs: number
}

export type Standing = 'active' | PolicyState

/** Forced beats everything, off beats on (the cautious one), maintenance beats draining. */
const PRECEDENCE: readonly PolicyState[] = ['forced-off', 'forced-on', 'maintenance', 'draining']

const same = (a: PolicyReason, b: PolicyReason): boolean => a.target === b.target && a.state === b.state && a.author === b.author

export const addReason = (reasons: readonly PolicyReason[], reason: PolicyReason): PolicyReason[] => [
  ...reasons.filter((r) => !same(r, reason)),
  reason,
]

export const removeReason = (reasons: readonly PolicyReason[], reason: PolicyReason): PolicyReason[] =>
  reasons.filter((r) => !same(r, reason))

const holds = (reason: PolicyReason, nowMs: number): boolean => reason.expiresAtMs === 0 || reason.expiresAtMs > nowMs

/** The state that the live reasons about one target amount to. */
export function standingOf(reasons: readonly PolicyReason[], target: string, nowMs: number): Standing {
  const states = new Set(reasons.filter((r) => r.target === target && holds(r, nowMs)).map((r) => r.state))
  return PRECEDENCE.find((state) => states.has(state)) ?? 'active'
}

/** Targets that get no new traffic, for a ZoneView. */
export function withdrawnTargets(reasons: readonly PolicyReason[], nowMs: number): Set<string> {
  const targets = new Set(reasons.map((r) => r.target))
  return new Set(
    [...targets].filter((target) => {
      const standing = standingOf(reasons, target, nowMs)
      return standing !== 'active' && standing !== 'forced-on'
    }),
  )
}
