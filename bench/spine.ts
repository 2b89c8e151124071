import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { addressOf, Demo, missing, NODES, type NodeName, sleep, until } from '../test/interop/demo.ts'
import { quantile, whole } from './lib/measure.ts'
import { growth, histogramQuantile, kernelDrops, type Reading, readNodes } from './lib/nodes.ts'
import { Profiler } from './lib/profile.ts'
import type { BenchOptions, BenchResult, Figure } from './lib/scenario.ts'
import { answerer, load, type SippRun } from './lib/sipp.ts'

export const name = 'spine'
export const description =
  '1,000 registrations/s and 50 calls/s over the six nodes of the demo, SIPp as the load, and each alone; none may fail'
export const kind = 'system'

const SECONDS = 60
const REGISTRATIONS_PER_S = 1000
const CALLS_PER_S = 50
const HOLD_MS = 1000
const CALLEES_PER_NODE = 20
const PORT = { register: 6060, call: 6061, phone: 6070 }
/** After the load: what is still on its way between nodes counts too. */
const TAIL_MS = 2000
/** SIPp gives a request up after 32 s. */
const PATIENCE_S = 45
/** Log lines of a node that are shown after a failure. */
const COMPLAINTS = 20
const uas = fileURLToPath(new URL('../test/interop/scenarios/uas.xml', import.meta.url))

/** The load of one phase, and what the nodes spent on it. */
interface Phase {
  readonly registrations: SippRun | undefined
  readonly calls: SippRun | undefined
  readonly before: Reading
  readonly after: Reading
}

export async function run(o: BenchOptions): Promise<BenchResult> {
  const gone = missing('sipp')
  if (gone !== undefined) return { figures: [], failures: [gone] }
  const seconds = o.seconds ?? SECONDS
  const demo = await Demo.start()
  const phones = answerer(uas, PORT.phone, join(demo.state, 'phones'))
  try {
    const result = await new Spine(demo, seconds, o).run()
    if (result.failures.length > 0) for (const line of complaints(demo.state)) o.note?.(line)
    return result
  } finally {
    phones.kill('SIGKILL')
    await demo.stop()
  }
}

class Spine {
  readonly #demo: Demo
  readonly #seconds: number
  readonly #o: BenchOptions
  readonly #figures: Figure[] = []
  readonly #failures: string[] = []
  #phases = 0
  #registered = 0
  #called = 0

  constructor(demo: Demo, seconds: number, o: BenchOptions) {
    this.#demo = demo
    this.#seconds = seconds
    this.#o = o
  }

  async run(): Promise<BenchResult> {
    await this.#registerCallees()
    const idle = await this.#idle('before the load')
    const mixed = await this.#phase('registrations and calls', this.#seconds, REGISTRATIONS_PER_S, CALLS_PER_S, this.#o.profile)
    this.#response('registration, request to 200', mixed.registrations, 1)
    this.#response('call, INVITE to 200', mixed.calls, 1)
    this.#response('call, BYE to 200', mixed.calls, 2)
    this.#both(mixed, idle)
    if (this.#o.brief !== true) {
      const third = this.#seconds / 3
      const idleAfter = await this.#idle('after it, with what it left in memory')
      this.#alone('registration', await this.#phase('registrations alone', third, REGISTRATIONS_PER_S, 0), idleAfter)
      this.#alone('call', await this.#phase('calls alone', third, 0, CALLS_PER_S), idleAfter)
    }
    await this.#checkState()
    await this.#checkCdrs()
    return { figures: this.#figures, failures: this.#failures }
  }

  /** Who is called: so many at each node, answered by one SIPp. */
  async #registerCallees(): Promise<void> {
    const lines = NODES.flatMap((node) =>
      Array.from({ length: CALLEES_PER_NODE }, (_, i) => `${callee(node, i)};${PORT.phone};${addressOf(node)}`),
    )
    const result = await this.#load('register.xml', lines, 200, PORT.register)
    this.#expect('registration of the callees', result, lines.length)
    this.#registered += lines.length
    await until('all callees are known at all nodes', 10_000, async () => {
      const known = await Promise.all(NODES.map((n) => this.#demo.status(n)))
      return known.every((s) => s.state.bindings >= lines.length)
    })
  }

  /** @returns CPU seconds per second of all nodes with nothing to do: probes, gossip, digests, timers. */
  async #idle(when: string): Promise<number> {
    const seconds = Math.max(2, this.#seconds / 6)
    this.#o.note?.(`idle for ${seconds.toFixed(0)} s`)
    const before = await readNodes(this.#demo)
    await sleep(seconds * 1000)
    const after = await readNodes(this.#demo)
    const share = (after.cpuSeconds - before.cpuSeconds) / ((after.atMs - before.atMs) / 1000)
    this.#figures.push({
      what: `idle, ${when}`,
      value: 100 * share,
      unit: '% of a core',
      detail: 'all six nodes: probes, gossip, digests, timers',
    })
    return share
  }

  async #phase(what: string, seconds: number, registrationsPerS: number, callsPerS: number, profile?: string): Promise<Phase> {
    this.#o.note?.(`${what} for ${seconds.toFixed(0)} s`)
    const registrations = Array.from({ length: Math.round(seconds * registrationsPerS) }, (_, i) =>
      this.#registration(this.#registered + i),
    )
    const calls = Array.from({ length: Math.round(seconds * callsPerS) }, (_, i) => call(this.#called + i))
    const drops = kernelDrops([5060, ...Object.values(PORT)])
    const before = await readNodes(this.#demo)
    const profiler = profile === undefined ? undefined : await Profiler.start((await this.#demo.status('us-east-1')).pid)
    const [registered, called] = await Promise.all([
      registrations.length === 0 ? undefined : this.#load('register.xml', registrations, registrationsPerS, PORT.register),
      calls.length === 0 ? undefined : this.#load('call.xml', calls, callsPerS, PORT.call),
    ])
    if (profiler !== undefined) {
      for (const { where, share } of (await profiler.stop(profile!)).slice(0, 25))
        this.#o.note?.(`${(100 * share).toFixed(1).padStart(5)} %  ${where}`)
    }
    await sleep(TAIL_MS)
    const after = await readNodes(this.#demo)
    if (registered !== undefined) this.#expect(`${what}: registrations`, registered, registrations.length)
    if (called !== undefined) this.#expect(`${what}: calls`, called, calls.length)
    this.#registered += registrations.length
    this.#called += calls.length
    for (const [socket, count] of kernelDrops([5060, ...Object.values(PORT)])) {
      const dropped = count - (drops.get(socket) ?? 0)
      if (dropped > 0) this.#o.note?.(`${what}: the kernel dropped ${dropped} datagrams at ${socket}`)
    }
    this.#anomalies(what, before, after)
    return { registrations: registered, calls: called, before, after }
  }

  /** Users are new each time, as in the peer's measurement, and go to the nodes in turn. */
  #registration(i: number): string {
    return `u${i};${PORT.phone};${addressOf(NODES[i % NODES.length]!)}`
  }

  #load(scenario: string, lines: readonly string[], rate: number, port: number): Promise<SippRun> {
    const directory = join(this.#demo.state, `load-${++this.#phases}-${port}`)
    mkdirSync(directory)
    return load({
      scenario,
      directory,
      lines,
      rate,
      port,
      holdMs: HOLD_MS,
      timeoutS: Math.ceil(lines.length / rate) + PATIENCE_S,
    })
  }

  #expect(what: string, run: SippRun, count: number): void {
    if (run.successful === count && run.failed === 0 && run.exitCode === 0) return
    const reasons = Object.entries(run.reasons).map(([why, n]) => `${why} ${n}`)
    this.#failures.push(
      `${what}: ${run.successful} of ${count} succeeded, ${run.failed} failed (${reasons.join(', ')}); SIPp ended with ${run.exitCode}\n${run.errors}`,
    )
  }

  /** Nothing of this should happen at this load; none of it is a failed call. */
  #anomalies(what: string, before: Reading, after: Reading): void {
    for (const counter of [
      'antipode_sip_refused_total',
      'antipode_sip_send_errors_total',
      'antipode_calls_tokens_refused_total',
      'antipode_crdt_refused_total',
      'antipode_link_refused_total',
      'antipode_link_dropped_total',
      'antipode_cdr_at_risk_total',
      'antipode_cdr_failures_total',
      'antipode_geo_verdict_changes_total',
    ]) {
      const count = growth(before, after, counter)
      if (count > 0) this.#o.note?.(`${what}: ${counter} grew by ${count}`)
    }
  }

  #response(what: string, run: SippRun | undefined, timer: number): void {
    const times = run?.times.get(timer) ?? []
    if (run === undefined || times.length === 0) return
    const detail = `${whole(times.length)} measured by SIPp; longest ${times.at(-1)!.toFixed(1)} ms; ${run.retransmissions} retransmissions of its requests`
    this.#figures.push({ what: `${what}, p50`, value: quantile(times, 0.5), unit: 'ms' })
    this.#figures.push({ what: `${what}, p99`, value: quantile(times, 0.99), unit: 'ms', detail })
  }

  #both(phase: Phase, idle: number): void {
    const { before, after, registrations, calls } = phase
    const cpu = after.cpuSeconds - before.cpuSeconds
    const wall = (after.atMs - before.atMs) / 1000
    const threads = Object.entries(after.byThread).map(([thread, now]) => {
      const then = before.byThread[thread] ?? { all: 0, system: 0 }
      return `${thread} ${(now.all - then.all).toFixed(1)} s (kernel ${(now.system - then.system).toFixed(1)})`
    })
    const count = `${whole(registrations?.successful ?? 0)} registrations, ${whole(calls?.successful ?? 0)} calls in ${wall.toFixed(1)} s`
    this.#figures.push(
      { what: 'CPU, all six nodes', value: cpu, unit: 's', detail: `${count}; by thread: ${threads.join(', ')}` },
      {
        what: 'CPU, all six nodes',
        value: (100 * cpu) / wall,
        unit: '% of a core',
        detail: `idle: ${(100 * idle).toFixed(1)} %`,
      },
    )
    for (const q of [0.5, 0.99]) {
      const le = histogramQuantile(before, after, 'antipode_process_event_loop_delay_seconds', q)
      this.#figures.push({
        what: `event loop delay, p${100 * q}`,
        value: 1000 * le,
        unit: 'ms',
        detail: 'or less: bucket of /metrics',
      })
    }
    const durable = histogramQuantile(before, after, 'antipode_cdr_durable_seconds', 0.99)
    this.#figures.push(
      {
        what: 'CDR append to durable, p99',
        value: 1000 * durable,
        unit: 'ms',
        detail: 'or less: bucket of /metrics; disk and one mirror',
      },
      { what: 'memory before, all six nodes', value: before.memoryBytes / 1e6, unit: 'MB resident' },
      {
        what: 'memory after, all six nodes',
        value: after.memoryBytes / 1e6,
        unit: 'MB resident',
        detail: `${whole(growthOfEntries(before, after))} entries more, at each node`,
      },
    )
  }

  #alone(operation: 'registration' | 'call', phase: Phase, idle: number): void {
    const done = (phase.registrations ?? phase.calls)?.successful ?? 0
    const cpu = phase.after.cpuSeconds - phase.before.cpuSeconds
    const wall = (phase.after.atMs - phase.before.atMs) / 1000
    const detail = `alone, ${whole(done)} in ${wall.toFixed(1)} s; without what six idle nodes use: ${whole((1e6 * (cpu - idle * wall)) / done)} us`
    this.#figures.push({ what: `CPU per ${operation}, all six nodes`, value: (1e6 * cpu) / done, unit: 'us CPU', detail })
  }

  /** Replication has kept up: every node has every binding, and all have the same. */
  async #checkState(): Promise<void> {
    try {
      await until('all digests are equal and every binding is everywhere', 10_000, async () => {
        const all = await Promise.all(NODES.map((n) => this.#demo.status(n)))
        return all.every((s) => s.state.digest === all[0]!.state.digest && s.state.bindings === this.#registered)
      })
    } catch (error) {
      const all = await Promise.all(NODES.map((n) => this.#demo.status(n)))
      this.#failures.push(
        `${String(error)}: ${all.map((s) => `${s.node} ${s.state.bindings} ${s.state.digest.slice(0, 8)}`).join(', ')}; ${this.#registered} registered`,
      )
    }
  }

  /** Exactly one CDR of each call, complete. */
  async #checkCdrs(): Promise<void> {
    const cdrs = await this.#demo.cdrs()
    const complete = cdrs.filter((c) => c.state === 'complete' && c.status === 200).length
    if (cdrs.length !== this.#called || complete !== this.#called)
      this.#failures.push(`${this.#called} calls, ${cdrs.length} CDRs, ${complete} of them complete`)
  }
}

const callee = (node: NodeName, i: number): string => `callee-${node}-${i}`

/** Callers at all nodes in turn; every other call to a user of the same node, the rest to the other nodes in turn. */
function call(i: number): string {
  const caller = i % NODES.length
  const round = Math.floor(i / NODES.length)
  const away = round % 2 === 0 ? 0 : 1 + (Math.floor(round / 2) % (NODES.length - 1))
  const edge = NODES[(caller + away) % NODES.length]!
  return `${callee(edge, round % CALLEES_PER_NODE)};${addressOf(NODES[caller]!)}`
}

const growthOfEntries = (before: Reading, after: Reading): number =>
  growth(before, after, 'antipode_crdt_entries{kind="all"}') / NODES.length

/** What the nodes themselves logged as a warning or worse: their state, logs included, is removed at the end. */
function complaints(state: string): string[] {
  return NODES.flatMap((node) =>
    readFileSync(join(state, node, 'log'), 'utf8')
      .split('\n')
      .filter((line) => /"level":[456]0/.test(line))
      .slice(-COMPLAINTS)
      .map((line) => `${node}: ${line}`),
  )
}
