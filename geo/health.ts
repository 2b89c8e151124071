import type { Fault } from '../src/base/errors.ts'
import { type NodeIdentity, rendezvous } from '../src/base/ids.ts'
import { type Observation, observe, type RiseFall, UNOBSERVED } from './observe.ts'
import { decodeReports, encodeReports, type Report } from './reports.ts'
import type { SavedView } from './saved-view.ts'
import { nextSerial, serialAfter, serialAheadS } from './serial.ts'
import type { ZoneView } from './steer.ts'
import { hearsMajority, judge, type Layout, regionsHeard, regionVotes, type Verdict, type Verdicts } from './verdict.ts'

export { readSavedView, type SavedView } from './saved-view.ts'

export interface HealthOptions {
  readonly self: NodeIdentity
  /** All regions of the cluster with the names of their nodes, our own included. */
  readonly regions: readonly { readonly name: string; readonly nodes: readonly string[] }[]
  /** Names of the regions that vote. */
  readonly electorate: readonly string[]
  readonly probe: RiseFall & { readonly intervalMs: number; readonly timeoutMs: number }
  readonly last?: SavedView
}

export type HealthOutput =
  /** Probe that node's /healthz now; answer with `handleProbeResult`. One at a time per node. */
  | { readonly kind: 'probe'; readonly node: string }
  /** Channel 2, to that link peer. Loss is harmless: the next interval brings newer. */
  | { readonly kind: 'send'; readonly node: string; readonly bytes: Uint8Array }
  | {
      readonly kind: 'changed'
      readonly scope: 'region' | 'node'
      readonly target: string
      readonly from: Verdict
      readonly to: Verdict
    }
  /** Write this to disk; only the newest matters. */
  | { readonly kind: 'persist'; readonly view: SavedView }

/** What DNS needs, and what people ask for. */
export interface HealthView extends ZoneView {
  readonly electorate: readonly string[]
  readonly inMajority: boolean
  /** Electorate regions of which a fresh report is here. */
  readonly heard: readonly string[]
  /** Target region → electorate region → its vote, as heard here. */
  readonly votes: Readonly<Record<string, Readonly<Record<string, Verdict>>>>
  /** Round trip of the last answered probe, ms. */
  readonly rttMs: Readonly<Record<string, number>>
}

interface Target {
  observation: Observation
  /** When the probe under way was asked for; undefined when none is. */
  askedMs: number | undefined
  /** When the next probe starts. */
  dueMs: number
  lastAskedMs: number
  rttMs: number | undefined
}

interface Heard {
  readonly incarnation: number
  readonly seq: number
  /** Our own clock's time at which that seq was news, less the age that it came with. */
  readonly sinceMs: number
  readonly evidence: ReadonlyMap<string, Verdict>
}

/** News leaves at once, but not more often than this. */
const MIN_GOSSIP_MS = 100
const MIN_PROBE_MS = 100
/**
 * For so long after its start a node calls nobody dead that it has never seen alive: clusters start together, and a node that still opens its journal or pulls
 * its state is not dead. Past it a node that never came is dead, for an operator wants to know, and DNS has to drop it.
 */
const START_GRACE_MS = 15_000
/** A serial further ahead of our clock than this is a broken clock somewhere, and is not followed. */
const MAX_SERIAL_AHEAD_S = 86_400

/**
 * Health as one node knows it: probes out, reports in and on, verdicts by vote. A timed core: no I/O and no clock; `nowMs` is any clock that runs in
 * milliseconds near the epoch (a step backwards is treated as no time at all, a step forwards makes reports stale for one interval; only the zone's
 * serial looks at the date).
 *
 * Detection: a target that falls silent is found by its prober within fall × max(interval, timeout) + interval, the news leaves and is relayed at
 * once; so with 3 probes of 1 s the verdict falls within 5 s. A link that ends counts as a first failure and asks for a probe at once,
 * which saves an interval.
 *
 * The shell calls `handleTimeout` when `nextTimeoutMs` says so, and after every door takes the outputs and looks at `nextTimeoutMs` again.
 */
export class HealthCore {
  readonly #self: NodeIdentity
  readonly #layout: Layout
  readonly #probe: HealthOptions['probe']
  readonly #regionOf = new Map<string, string>()
  readonly #regionNumber: number
  readonly #names: string[]
  readonly #staleMs: number
  readonly #targets = new Map<string, Target>()
  readonly #heard = new Map<string, Heard>()
  readonly #peers = new Set<string>()
  #outputs: HealthOutput[] = []
  #verdicts: Verdicts
  #fresh: ReadonlyMap<string, ReadonlyMap<string, Verdict>> = new Map()
  #serial: number
  #seq = 0
  #gossipMs = 0
  #gossipedMs = Number.NEGATIVE_INFINITY
  #lastNowMs: number | undefined
  #graceEndMs = 0
  /** Added to the caller's clock so that ours never goes back. */
  #offsetMs = 0
  #view: HealthView | undefined

  constructor(options: HealthOptions) {
    this.#self = options.self
    this.#layout = { regions: options.regions, electorate: options.electorate }
    this.#probe = options.probe
    this.#staleMs = Math.max(3, options.probe.fall + 1) * options.probe.intervalMs
    for (const region of options.regions) for (const node of region.nodes) this.#regionOf.set(node, region.name)
    this.#regionNumber = options.regions
      .map((r) => r.name)
      .sort()
      .indexOf(options.self.region)
    this.#names = [...this.#regionOf.keys()].sort()
    for (const node of this.#names) {
      if (node === options.self.node) continue
      this.#targets.set(node, {
        observation: UNOBSERVED,
        askedMs: undefined,
        dueMs: 0,
        lastAskedMs: Number.NEGATIVE_INFINITY,
        rttMs: undefined,
      })
    }
    const last = options.last
    this.#serial = last?.serial ?? 0
    this.#verdicts = {
      regions: new Map(options.regions.map((r) => [r.name, last?.regions[r.name] ?? 'unknown'])),
      nodes: new Map(this.#names.map((n) => [n, last?.nodes[n] ?? 'unknown'])),
    }
    // Whatever was agreed when we were down: this process runs now, and waits for a majority to say more.
    const forget = (verdicts: ReadonlyMap<string, Verdict>, name: string): ReadonlyMap<string, Verdict> =>
      verdicts.get(name) === 'dead' ? new Map([...verdicts, [name, 'unknown']]) : verdicts
    this.#verdicts = {
      regions: forget(this.#verdicts.regions, options.self.region),
      nodes: forget(this.#verdicts.nodes, options.self.node),
    }
  }

  /** The answer to a `probe` output: `ok` when the node's /healthz said 200 in time. One that nobody asked for is ignored. */
  handleProbeResult(node: string, ok: boolean, nowMs: number, rttMs?: number): void {
    const t = this.#advance(nowMs)
    const target = this.#targets.get(node)
    if (target?.askedMs === undefined) return
    this.#conclude(target, ok, t)
    if (ok && rttMs !== undefined) target.rttMs = rttMs
    this.#judge(nowMs)
  }

  /** A channel-2 message from a link peer. Returns the fault when it is refused (nothing was taken from it). */
  handleMessage(fromNode: string, bytes: Uint8Array, nowMs: number): Fault | undefined {
    const t = this.#advance(nowMs)
    const decoded = decodeReports(bytes)
    if (!decoded.ok) return decoded.fault
    for (const report of decoded.value.reports) this.#take(report, t)
    const { serial } = decoded.value
    if (serial !== 0 && (this.#serial === 0 || serialAfter(serial, this.#serial))) {
      if (serialAheadS(serial, nowMs) <= MAX_SERIAL_AHEAD_S) this.#serial = serial
    }
    // A message shows that the node lives, not that it is well: it asks for a probe, and the probe decides.
    if (this.evidence(fromNode) !== 'alive') this.#probeSoon(fromNode, t)
    this.#judge(nowMs)
    return undefined
  }

  /** A cluster link to that node is up: it gets our reports at once, and a probe. */
  handlePeerUp(node: string, nowMs: number): void {
    const t = this.#advance(nowMs)
    this.#peers.add(node)
    if (this.evidence(node) !== 'alive') this.#probeSoon(node, t)
    this.#gossipSoon(t)
    this.#judge(nowMs)
  }

  /** The link to that node ended. That is a first failure, never a later one: links end for many reasons, and only probes prove a death. */
  handlePeerDown(node: string, nowMs: number): void {
    const t = this.#advance(nowMs)
    this.#peers.delete(node)
    const target = this.#targets.get(node)
    if (target === undefined) return
    if (target.observation.state === 'alive' && target.observation.streak > 0 && this.#probe.fall > 1) {
      target.observation = observe(target.observation, false, this.#probe)
    }
    this.#probeSoon(node, t)
    this.#judge(nowMs)
  }

  /** When `handleTimeout` is due, on the caller's clock, ms; 0 (now) before the first call of any door. */
  nextTimeoutMs(): number | undefined {
    if (this.#lastNowMs === undefined) return 0
    let next = this.#gossipMs
    for (const target of this.#targets.values()) {
      const at = target.askedMs === undefined ? target.dueMs : target.askedMs + this.#overdueMs()
      if (at < next) next = at
    }
    return next - this.#offsetMs
  }

  handleTimeout(nowMs: number): void {
    const t = this.#advance(nowMs)
    for (const [node, target] of this.#targets) {
      // A probe whose result never came back is a failed one: a shell that loses results must not stop the judging.
      if (target.askedMs !== undefined && t >= target.askedMs + this.#overdueMs()) this.#conclude(target, false, t)
      if (target.askedMs === undefined && t >= target.dueMs) {
        target.askedMs = t
        target.lastAskedMs = t
        // On a fixed beat, so that detection takes fall × interval however long each probe takes.
        target.dueMs = t + this.#probe.intervalMs
        this.#outputs.push({ kind: 'probe', node })
      }
    }
    this.#judge(nowMs)
    if (t >= this.#gossipMs) this.#gossip(t)
  }

  takeOutputs(): HealthOutput[] {
    const outputs = this.#outputs
    this.#outputs = []
    return outputs
  }

  /** The shared verdict; `unknown` before any majority was heard, and for names that the configuration lacks. */
  nodeVerdict(node: string): Verdict {
    return this.#verdicts.nodes.get(node) ?? 'unknown'
  }

  regionVerdict(region: string): Verdict {
    return this.#verdicts.regions.get(region) ?? 'unknown'
  }

  /** This node's own evidence, whatever the others say. */
  evidence(node: string): Verdict {
    if (node === this.#self.node) return 'alive'
    return this.#targets.get(node)?.observation.state ?? 'unknown'
  }

  /** Whether this node itself should try that one: false only when its own probes say dead, or the name is not configured. */
  reachable(node: string): boolean {
    return this.#regionOf.has(node) && this.evidence(node) !== 'dead'
  }

  /** Whether a majority of the electorate's regions is heard. Ownership, timers and the closing of CDRs need it; steering does not. */
  inMajority(): boolean {
    return hearsMajority(this.#layout, this.#fresh)
  }

  /**
   * The node responsible for what `original` took: itself unless it is dead by verdict, then the alive node of its region, or else of the others,
   * that rendezvous hashing names for `key`. Unknown is not dead, and is no survivor either; with no survivor it stays the original's.
   */
  owner(original: { readonly region: string; readonly node: string }, key: string): string {
    if (this.nodeVerdict(original.node) !== 'dead') return original.node
    const alive = this.#names.filter((node) => this.nodeVerdict(node) === 'alive')
    const siblings = alive.filter((node) => this.#regionOf.get(node) === original.region)
    return rendezvous(key, siblings.length > 0 ? siblings : alive, (node) => node) ?? original.node
  }

  view(): HealthView {
    this.#view ??= {
      region: this.#self.region,
      node: this.#self.node,
      serial: this.#serial,
      regions: Object.fromEntries(this.#verdicts.regions),
      nodes: Object.fromEntries(this.#verdicts.nodes),
      evidence: Object.fromEntries(this.#names.map((node) => [node, this.evidence(node)])),
      electorate: this.#layout.electorate,
      inMajority: this.inMajority(),
      heard: regionsHeard(this.#layout, this.#fresh),
      votes: Object.fromEntries(
        [...regionVotes(this.#layout, this.#fresh)].map(([target, votes]) => [target, Object.fromEntries(votes)]),
      ),
      rttMs: Object.fromEntries(
        [...this.#targets].flatMap(([node, target]) => (target.rttMs === undefined ? [] : [[node, target.rttMs]])),
      ),
    }
    return this.#view
  }

  #overdueMs(): number {
    return this.#probe.timeoutMs + this.#probe.intervalMs
  }

  #advance(nowMs: number): number {
    if (this.#lastNowMs === undefined) {
      this.#gossipMs = nowMs
      this.#graceEndMs = nowMs + START_GRACE_MS
      // Where the disk knows none: a serial of 0 would be newer than half of all others, and lower than the next (RFC 1982).
      if (this.#serial === 0) this.#serial = nextSerial(0, nowMs, this.#regionNumber)
      for (const target of this.#targets.values()) target.dueMs = nowMs
    } else if (nowMs < this.#lastNowMs) {
      this.#offsetMs += this.#lastNowMs - nowMs
    }
    this.#lastNowMs = nowMs
    this.#view = undefined
    return nowMs + this.#offsetMs
  }

  #conclude(target: Target, ok: boolean, t: number): void {
    target.askedMs = undefined
    const before = target.observation.state
    const fall = before === 'unknown' && t < this.#graceEndMs ? Number.POSITIVE_INFINITY : this.#probe.fall
    target.observation = observe(target.observation, ok, { rise: this.#probe.rise, fall })
    if (target.observation.state !== before) this.#gossipSoon(t)
  }

  #probeSoon(node: string, t: number): void {
    const target = this.#targets.get(node)
    if (target !== undefined) target.dueMs = Math.min(target.dueMs, Math.max(t, target.lastAskedMs + MIN_PROBE_MS))
  }

  #gossipSoon(t: number): void {
    this.#gossipMs = Math.min(this.#gossipMs, Math.max(t, this.#gossipedMs + MIN_GOSSIP_MS))
  }

  #take(report: Report, t: number): void {
    if (!this.#targets.has(report.node) || report.ageMs >= this.#staleMs) return
    const known = this.#heard.get(report.node)
    if (known !== undefined) {
      // A higher incarnation that has gone stale hides nothing: a node that lost its disk counts from the beginning.
      if (report.incarnation < known.incarnation && t - known.sinceMs < this.#staleMs) return
      if (report.incarnation === known.incarnation && report.seq <= known.seq) return
    }
    // Names that we do not know (a configuration being rolled out) are not kept: the table stays as large as our own configuration.
    const evidence = new Map(this.#names.map((name) => [name, report.evidence.get(name) ?? 'unknown']))
    this.#heard.set(report.node, {
      incarnation: report.incarnation,
      seq: report.seq,
      sinceMs: t - report.ageMs,
      evidence,
    })
    if (known === undefined || this.#names.some((name) => known.evidence.get(name) !== evidence.get(name))) this.#gossipSoon(t)
  }

  #own(): Map<string, Verdict> {
    return new Map(this.#names.map((name) => [name, this.evidence(name)]))
  }

  #gossip(t: number): void {
    this.#gossipedMs = t
    this.#gossipMs = t + this.#probe.intervalMs
    this.#seq++
    const reports: Report[] = [
      { node: this.#self.node, incarnation: this.#self.incarnation, seq: this.#seq, ageMs: 0, evidence: this.#own() },
    ]
    for (const [node, heard] of this.#heard) {
      const ageMs = t - heard.sinceMs
      if (ageMs < this.#staleMs)
        reports.push({ node, incarnation: heard.incarnation, seq: heard.seq, ageMs, evidence: heard.evidence })
    }
    if (this.#peers.size === 0) return
    const bytes = encodeReports({ serial: this.#serial, reports }, this.#names)
    for (const node of this.#peers) this.#outputs.push({ kind: 'send', node, bytes })
  }

  #judge(nowMs: number): void {
    const t = nowMs + this.#offsetMs
    const fresh = new Map<string, ReadonlyMap<string, Verdict>>([[this.#self.node, this.#own()]])
    for (const [node, heard] of this.#heard) if (t - heard.sinceMs < this.#staleMs) fresh.set(node, heard.evidence)
    this.#fresh = fresh
    const before = this.#verdicts
    this.#verdicts = judge(this.#layout, fresh, before)
    const changes = [
      ...changesOf('region', before.regions, this.#verdicts.regions),
      ...changesOf('node', before.nodes, this.#verdicts.nodes),
    ]
    if (changes.length === 0) return
    this.#serial = nextSerial(this.#serial, nowMs, this.#regionNumber)
    this.#outputs.push(...changes, { kind: 'persist', view: this.#saved() })
  }

  #saved(): SavedView {
    return {
      version: 1,
      serial: this.#serial,
      regions: Object.fromEntries(this.#verdicts.regions),
      nodes: Object.fromEntries(this.#verdicts.nodes),
    }
  }
}

function changesOf(
  scope: 'region' | 'node',
  before: ReadonlyMap<string, Verdict>,
  after: ReadonlyMap<string, Verdict>,
): HealthOutput[] {
  const changes: HealthOutput[] = []
  for (const [target, to] of after) {
    const from = before.get(target) ?? 'unknown'
    if (from !== to) changes.push({ kind: 'changed', scope, target, from, to })
  }
  return changes
}
