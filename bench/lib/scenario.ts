/** One number that a scenario measured. */
export interface Figure {
  readonly what: string
  readonly value: number
  /** `us CPU`, `/s`, `ms`, … */
  readonly unit: string
  /** How it came about: how many operations, what is in it. */
  readonly detail?: string
}

export interface BenchResult {
  readonly figures: readonly Figure[]
  /** What must not have happened, one line each. Empty: the run counts. */
  readonly failures: readonly string[]
}

export interface BenchOptions {
  /** How long each measurement lasts, about; the scenario's own default unless given. Small is allowed: a test runs micro scenarios with 0. */
  readonly seconds?: number | undefined
  /** Progress for people. */
  readonly note?: ((line: string) => void) | undefined
  /** Scenarios with node processes: take a CPU profile of one node into this file. */
  readonly profile?: string | undefined
  /** Scenarios with several parts: the main one alone. */
  readonly brief?: boolean | undefined
}

/** A file of bench/ is one of these. */
export interface Scenario {
  readonly name: string
  readonly description: string
  /** `micro`: in this process, within seconds, whatever the machine. `system`: real processes and SIPp; Linux. */
  readonly kind: 'micro' | 'system'
  run(options: BenchOptions): Promise<BenchResult>
}
