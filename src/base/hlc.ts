/**
 * A hybrid logical clock stamp: milliseconds since the epoch × 2048 + a counter, as one safe integer (good until 2109). Kulkarni et al.,
 * "Logical Physical Clocks" (2014). Numbers compare as stamps do.
 */
export type Hlc = number

export const HLC_PER_MS = 2048

export const hlcOfMs = (ms: number): Hlc => ms * HLC_PER_MS
export const hlcMs = (hlc: Hlc): number => Math.floor(hlc / HLC_PER_MS)
/** What a stamp from the wire must be before it is compared with anything. */
export const isHlc = (value: unknown): value is Hlc => Number.isSafeInteger(value) && (value as number) >= 0

/** One node's clock. Strictly monotone; never more than the drift bound ahead of the wall clock through others' stamps. */
export class HlcClock {
  #last: Hlc
  readonly #driftBoundMs: number

  /** @param floor no stamp at or below this is ever given (the highest stamp known to be our own from before). */
  constructor(driftBoundMs: number, floor: Hlc = 0) {
    this.#driftBoundMs = driftBoundMs
    this.#last = floor
  }

  get last(): Hlc {
    return this.#last
  }

  /** The next stamp: higher than every stamp given or accepted before. */
  tick(nowMs: number): Hlc {
    this.#last = Math.max(this.#last + 1, hlcOfMs(nowMs))
    return this.#last
  }

  /** Takes another's stamp in, unless it is further ahead of our wall clock than the drift bound; returns whether it was taken. */
  observe(stamp: Hlc, nowMs: number): boolean {
    if (hlcMs(stamp) > nowMs + this.#driftBoundMs) return false
    if (stamp > this.#last) this.#last = stamp
    return true
  }

  /** How far our own stamps run ahead of the wall clock, in ms; 0 when they do not. */
  aheadMs(nowMs: number): number {
    return Math.max(0, hlcMs(this.#last) - nowMs)
  }
}
