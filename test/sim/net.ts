import type { Random } from '../../src/base/prng.ts'
import type { SimClock } from './clock.ts'

export interface NetOptions {
  /** Of messages, 0 to 1: what a full queue does. TCP loses none within a connection; a simulated net may be worse than the real one. */
  readonly loss?: number
  /** Of messages, 0 to 1: late by up to a second, so that later ones overtake. */
  readonly reorder?: number
  /** Of messages, 0 to 1: delivered twice. */
  readonly duplicate?: number
}

/** Messages between named ends: latency by region, loss, reordering and duplicates from a seed, and silent cuts. */
export class SimNet {
  readonly #clock: SimClock
  readonly #random: Random
  readonly #regionOf: (node: string) => string
  readonly #cuts = new Set<string>()
  options: NetOptions
  sent = 0
  bytes = 0
  /** Bytes between regions. */
  wanBytes = 0

  constructor(clock: SimClock, random: Random, regionOf: (node: string) => string, options: NetOptions) {
    this.#clock = clock
    this.#random = random
    this.#regionOf = regionOf
    this.options = options
  }

  /** Cuts two regions from each other: nothing arrives, nobody is told. */
  cut(a: string, b: string): void {
    this.#cuts.add(pair(a, b))
  }

  heal(a: string, b: string): void {
    this.#cuts.delete(pair(a, b))
  }

  healAll(): void {
    this.#cuts.clear()
  }

  isCut(from: string, to: string): boolean {
    return this.#cuts.has(pair(this.#regionOf(from), this.#regionOf(to)))
  }

  send(from: string, to: string, bytes: Buffer, deliver: (bytes: Buffer) => void): void {
    const { loss = 0, reorder = 0, duplicate = 0 } = this.options
    this.sent++
    this.bytes += bytes.length
    const wan = this.#regionOf(from) !== this.#regionOf(to)
    if (wan) this.wanBytes += bytes.length
    if (this.#random.unit() < loss) return
    const copies = this.#random.unit() < duplicate ? 2 : 1
    for (let i = 0; i < copies; i++) {
      const base = wan ? 60 + this.#random.unit() * 20 : 1
      const late = this.#random.unit() < reorder ? this.#random.unit() * 1000 : 0
      this.#clock.after(Math.ceil(base + late), () => {
        // What is under way when a cut begins is lost with it.
        if (!this.isCut(from, to)) deliver(Buffer.from(bytes))
      })
    }
  }
}

const pair = (a: string, b: string): string => (a < b ? `${a} ${b}` : `${b} ${a}`)
