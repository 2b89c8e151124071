import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../src/base/clock.ts'
import { silentLog } from '../src/base/log.ts'
import { createMetrics } from '../src/base/metrics.ts'
import type { CdrPart } from '../src/cdr/call-record.ts'
import { CdrJournal } from '../src/cdr/store/journal.ts'
import { numbered } from '../test/src/cdr/parts.ts'
import { measured, quantile, whole } from './lib/measure.ts'
import type { BenchOptions, BenchResult, Figure } from './lib/scenario.ts'

export const name = 'journal'
export const description =
  'durable appends of CDR parts: journal thread, group commit and fdatasync in a directory of $TMPDIR; no mirrors'
export const kind = 'micro'

const SECONDS = 3
/** Appends under way at the same time: a lone call, and bursts that a group commit can share. */
const IN_FLIGHT = [1, 16, 256]

export async function run({ seconds = SECONDS }: BenchOptions): Promise<BenchResult> {
  const directory = mkdtempSync(join(tmpdir(), 'antipode-bench-'))
  const figures: Figure[] = []
  const failures: string[] = []
  try {
    for (const [i, inFlight] of IN_FLIGHT.entries()) {
      const journal = await CdrJournal.open({
        directory: join(directory, String(inFlight)),
        self: { region: 'us-east', node: 'us-east-1', incarnation: (i + 1) * 2 ** 32 + 99 },
        log: silentLog,
        metrics: createMetrics(),
        clock: systemClock,
        durability: { mirror: 0, remote: 'async' },
        policy: 'reject',
        mirrors: () => ({ siblings: [], remotes: [] }),
        sendToPeer: () => false,
      })
      try {
        await appendFor(journal, seconds * 0.2, inFlight)
        const before = journal.stats()
        const cpu = process.cpuUsage()
        const began = performance.now()
        const { latencies, notDurable } = await appendFor(journal, seconds, inFlight)
        const m = measured(latencies.length, cpu, performance.now() - began)
        const groups = journal.stats().commits - before.commits
        latencies.sort((a, b) => a - b)
        const label = `${inFlight} in flight`
        figures.push(
          {
            what: `durable appends, ${label}`,
            value: m.perSecond,
            unit: '/s',
            detail: `${whole(m.operations)} in ${whole(groups)} groups, ${m.cpuUs.toFixed(1)} us CPU each (both threads)`,
          },
          { what: `append to durable, ${label}, p50`, value: quantile(latencies, 0.5), unit: 'ms' },
          { what: `append to durable, ${label}, p99`, value: quantile(latencies, 0.99), unit: 'ms' },
        )
        if (notDurable > 0) failures.push(`${notDurable} appends were not durable`)
      } finally {
        await journal.close()
      }
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  return { figures, failures }
}

/** Each of `inFlight` chains appends its next part when its last one is durable; at least one each. */
async function appendFor(
  journal: CdrJournal,
  seconds: number,
  inFlight: number,
): Promise<{ latencies: number[]; notDurable: number }> {
  const until = performance.now() + seconds * 1000
  const latencies: number[] = []
  let notDurable = 0
  let serial = 0
  const chain = async (): Promise<void> => {
    do {
      const began = performance.now()
      const { durable } = await journal.append(startPart(serial++))
      latencies.push(performance.now() - began)
      if (!durable) notDurable++
    } while (performance.now() < until)
  }
  await Promise.all(Array.from({ length: inFlight }, chain))
  return { latencies, notDurable }
}

/** An answer's part, the one that a 200 OK waits for. */
const startPart = (i: number): CdrPart =>
  numbered(i, { part: 'start', leg: `as7d8f${i}`, startMs: 1_700_000_000_000, answerMs: 1_700_000_003_000 })
