import type { Clock } from './base/clock.ts'

/** What every timed core offers to its shell. */
export interface TimedCore<Output> {
  nextTimeoutMs(): number | undefined
  handleTimeout(nowMs: number): void
  takeOutputs(): readonly Output[]
}

/**
 * Runs a timed core on the real clock: after each input the shell calls `settle()`, which hands out what the core has to say and arms one timer for
 * the next. A timer that fires early is harmless, so it is moved only when it would fire too late: a busy core re-arms nothing.
 */
export class Driver<Output> {
  readonly #core: TimedCore<Output>
  readonly #clock: Clock
  readonly #handle: (output: Output) => void
  readonly #onDefect: (error: unknown) => void
  #timer: NodeJS.Timeout | undefined
  #armedForMs = Number.POSITIVE_INFINITY
  #settling = false
  #stopped = false

  /** @param onDefect told of a throw on a timer; the core goes on, a little later, with what it has left */
  constructor(core: TimedCore<Output>, clock: Clock, handle: (output: Output) => void, onDefect: (error: unknown) => void) {
    this.#onDefect = onDefect
    this.#core = core
    this.#clock = clock
    this.#handle = handle
  }

  settle(): void {
    // An output's handler may feed the core again; the loop below picks up what comes of it.
    if (this.#settling || this.#stopped) return
    this.#settling = true
    try {
      for (let outputs = this.#core.takeOutputs(); outputs.length > 0; outputs = this.#core.takeOutputs()) {
        for (const output of outputs) this.#handle(output)
      }
    } finally {
      this.#settling = false
    }
    this.#arm()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  #arm(): void {
    const nextMs = this.#core.nextTimeoutMs()
    if (nextMs === undefined || nextMs >= this.#armedForMs) return
    clearTimeout(this.#timer)
    this.#armedForMs = nextMs
    this.#timer = setTimeout(() => this.#fire(), Math.max(0, Math.min(nextMs - this.#clock.nowMs(), MAX_SLEEP_MS)))
  }

  #fire(): void {
    this.#armedForMs = Number.POSITIVE_INFINITY
    if (this.#stopped) return
    try {
      this.#core.handleTimeout(this.#clock.nowMs())
      this.settle()
    } catch (error) {
      this.#onDefect(error)
      // Not at once: a timer that throws each time it fires must not take the loop.
      this.#armedForMs = this.#clock.nowMs() + DEFECT_PAUSE_MS
      this.#timer = setTimeout(() => this.#fire(), DEFECT_PAUSE_MS)
    }
  }
}

const DEFECT_PAUSE_MS = 100
/** Wall clocks jump; nothing sleeps through one. */
const MAX_SLEEP_MS = 1000
