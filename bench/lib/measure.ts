import type { Figure } from './scenario.ts'

export interface Measured {
  readonly operations: number
  /** Per operation, all threads of this process: garbage collection is in it, waiting and other processes are not. */
  readonly cpuUs: number
  readonly perSecond: number
}

const WARM_UP_SHARE = 0.2

/** Runs `batch` (which says how many operations it did) for about `seconds`, once at least, after a warm-up that is not counted. */
export function measure(seconds: number, batch: () => number): Measured {
  repeat(seconds * WARM_UP_SHARE, batch)
  return repeat(seconds, batch)
}

function repeat(seconds: number, batch: () => number): Measured {
  const cpu = process.cpuUsage()
  const began = performance.now()
  let operations = 0
  let ms: number
  do {
    operations += batch()
    ms = performance.now() - began
  } while (ms < seconds * 1000)
  return measured(operations, cpu, ms)
}

/** For work that is measured from the outside. @param since of `process.cpuUsage()` */
export function measured(operations: number, since: NodeJS.CpuUsage, ms: number): Measured {
  const { user, system } = process.cpuUsage(since)
  return { operations, cpuUs: (user + system) / operations, perSecond: (1000 * operations) / ms }
}

export const cpuFigure = (what: string, m: Measured, more = ''): Figure => ({
  what,
  value: m.cpuUs,
  unit: 'us CPU',
  detail: `${m.operations} in a row, ${whole(m.perSecond)}/s${more === '' ? '' : `; ${more}`}`,
})

/** @param sorted ascending, not empty */
export const quantile = (sorted: readonly number[], q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(sorted.length * q) - 1))]!

export const whole = (n: number): string => Math.round(n).toLocaleString('en-US')

/** Keeps results from being optimised away, and tells a run from another that did something else. */
export class Checksum {
  #value = 0x811c9dc5

  add(n: number): void {
    this.#value = Math.imul(this.#value ^ n, 0x01000193) >>> 0
  }

  get value(): number {
    return this.#value
  }
}
