/** The only source of time for shells; cores take `nowMs` as an argument instead. */
export interface Clock {
  /** Wall clock, milliseconds since the epoch, whole. May jump. */
  nowMs(): number
  /** Never goes back; for durations, in milliseconds with a fraction. */
  monotonicMs(): number
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
}
