import type { Verdict } from './verdict.ts'

/**
 * What one node knows of one target from its own probes: a state with hysteresis, so that one lost packet is not an outage and one lucky answer not
 * a recovery.
 *
 *              ok                    fall failures in a row
 *   unknown ─────────▶ alive ◀──────────────────────────────▶ dead ◀──── unknown (fall failures)
 *                            rise answers in a row (dead ▶ alive)
 */
export interface Observation {
  readonly state: Verdict
  /** Answers in a row when positive, failures in a row when negative; held within ±1000. */
  readonly streak: number
}

export interface RiseFall {
  readonly rise: number
  readonly fall: number
}

export const UNOBSERVED: Observation = { state: 'unknown', streak: 0 }

const STREAK_LIMIT = 1000

/** The next observation. A target that was never judged is alive at its first answer: there is no flap to damp yet, and a start must not wait. */
export function observe(before: Observation, ok: boolean, limits: RiseFall): Observation {
  const streak = ok
    ? Math.min(STREAK_LIMIT, Math.max(0, before.streak) + 1)
    : Math.max(-STREAK_LIMIT, Math.min(0, before.streak) - 1)
  return { state: stateAfter(before.state, streak, limits), streak }
}

function stateAfter(state: Verdict, streak: number, limits: RiseFall): Verdict {
  switch (state) {
    case 'unknown':
      return streak > 0 ? 'alive' : -streak >= limits.fall ? 'dead' : 'unknown'
    case 'alive':
      return -streak >= limits.fall ? 'dead' : 'alive'
    case 'dead':
      return streak >= limits.rise ? 'alive' : 'dead'
  }
}
