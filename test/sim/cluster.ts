import type { BindingEntry, ClusterConstants, Entry } from '../../crdt/entry.ts'
import { StateCore, type StateOutput } from '../../crdt/state.ts'
import { incarnationCounter, makeIncarnation, rendezvous } from '../../src/base/ids.ts'
import { below, type Random, SeededRandom } from '../../src/base/prng.ts'
import { SimClock } from './clock.ts'
import { type NetOptions, SimNet } from './net.ts'

/** Retention of a bucket is over after width + longest expiry + grace = 35 s. */
export const SIM_CONSTANTS: ClusterConstants = {
  bucketWidthMs: 5000,
  longestExpiryMs: 20_000,
  windowMs: 8000,
  driftBoundMs: 500,
  graceMs: 10_000,
  rebootGuardMs: 1000,
}

/** When a silent link is given up, and how long a dial takes at most (link.ts). */
const DEAD_MS = 3000
const REDIAL_MS = 1500
const CHECK_MS = 100

interface SimNode {
  readonly name: string
  readonly region: string
  /** Wall clock minus true time. */
  skewMs: number
  core: StateCore
  incarnation: number
  starts: number
  alive: boolean
  wakeAtMs: number
}

interface SimLink {
  readonly a: SimNode
  readonly b: SimNode
  up: boolean
  /** Told apart so that what an old link still delivers does not reach a new one. */
  generation: number
  silentSinceMs: number
  redialAtMs: number
}

export interface SimClusterOptions {
  readonly seed: number
  /** Nodes per region. */
  readonly sizes: readonly number[]
  readonly net?: NetOptions
  readonly constants?: ClusterConstants
}

/**
 * Several StateCores on a virtual clock and a simulated network. Links as `link.ts` keeps them: a full mesh inside a region, from each node one to one node of
 * every other region; a link whose other end has been silent for 3 s is down, and up again within 1.5 s when the way is free.
 */
export class SimCluster {
  readonly clock = new SimClock(1_760_000_000_000)
  readonly random: Random
  readonly net: SimNet
  readonly constants: ClusterConstants
  readonly nodes: SimNode[] = []
  readonly violations: string[] = []
  readonly refused = new Map<string, number>()
  readonly higher: { node: string; incarnation: number }[] = []
  /** Every entry that any node ever wrote. */
  readonly written: Entry[] = []
  readonly #links: SimLink[] = []
  readonly #members: { region: string; node: string }[]

  constructor(o: SimClusterOptions) {
    this.random = new SeededRandom(o.seed)
    this.constants = o.constants ?? SIM_CONSTANTS
    this.#members = o.sizes.flatMap((size, r) =>
      Array.from({ length: size }, (_, n) => ({ region: `r${r}`, node: `r${r}-${n}` })),
    )
    this.net = new SimNet(this.clock, this.random, (node) => node.slice(0, node.indexOf('-')), o.net ?? {})
    for (const { region, node } of this.#members) {
      const sim: SimNode = {
        ...{ name: node, region, skewMs: 0, incarnation: 0, starts: 0, alive: false, wakeAtMs: Number.POSITIVE_INFINITY },
        core: undefined as unknown as StateCore,
      }
      this.nodes.push(sim)
      this.#boot(sim)
    }
    for (const a of this.nodes)
      for (const b of this.nodes) {
        const target = rendezvous(
          a.name,
          this.nodes.filter((n) => n.region === b.region),
          (n) => n.name,
        )
        const wanted = a.region === b.region ? a.name < b.name : target === b
        if (!wanted || this.#links.some((l) => (l.a === a && l.b === b) || (l.a === b && l.b === a))) continue
        const redialAtMs = this.clock.nowMs + below(this.random, 300)
        this.#links.push({ a, b, up: false, generation: 0, silentSinceMs: 0, redialAtMs })
      }
    this.#checkLinks()
  }

  node(name: string): SimNode {
    return this.nodes.find((n) => n.name === name)!
  }

  run(ms: number): void {
    this.clock.runUntil(this.clock.nowMs + ms)
  }

  /** Cuts one region from all others. */
  isolate(region: string): void {
    for (const n of this.nodes) if (n.region !== region) this.net.cut(region, n.region)
  }

  /** A kill -9: what was not flushed is lost. */
  kill(name: string): void {
    this.node(name).alive = false
    for (const l of this.#links) if (l.up && (l.a.name === name || l.b.name === name)) this.#down(l)
  }

  /** Starts a killed node again, empty, as a new incarnation. */
  start(name: string): void {
    this.#boot(this.node(name))
  }

  write(name: string, fields: Partial<BindingEntry>): BindingEntry {
    const n = this.node(name)
    const nowMs = this.#nowOf(n)
    const entry = n.core.writeBinding(
      { ...BINDING, expiresAtMs: fields.op === undefined || fields.op === 'set' ? nowMs + 15_000 : 0, ...fields },
      nowMs,
    )
    this.written.push(entry)
    this.#drain(n)
    return entry
  }

  /** Digest of every living node. */
  digests(): string[] {
    return this.living().map((n) => n.core.summary(this.#nowOf(n)).digest)
  }

  living(): SimNode[] {
    return this.nodes.filter((n) => n.alive)
  }

  /** What a node would answer for an AoR, as text that can be compared. */
  answer(n: SimNode, aor: string): string {
    return n.core.bindings
      .lookup(aor, this.#nowOf(n))
      .map((b) => `${b.key} ${b.callId} ${b.cseq} ${b.hlc} ${b.node}`)
      .join('\n')
  }

  #nowOf(n: SimNode): number {
    return this.clock.nowMs + n.skewMs
  }

  #boot(n: SimNode): void {
    n.starts++
    n.incarnation = makeIncarnation(n.starts, this.random)
    n.alive = true
    n.core = new StateCore({
      self: { region: n.region, node: n.name, incarnation: n.incarnation },
      constants: this.constants,
      random: this.random,
      members: this.#members,
    })
    n.wakeAtMs = Number.POSITIVE_INFINITY
    this.#drain(n)
  }

  #drain(n: SimNode): void {
    for (const output of n.core.takeOutputs()) this.#output(n, output)
    const next = n.core.nextTimeoutMs()
    if (next === undefined) return
    const atMs = Math.max(this.clock.nowMs, next - n.skewMs)
    if (atMs >= n.wakeAtMs) return
    n.wakeAtMs = atMs
    const { core } = n
    this.clock.at(atMs, () => {
      if (n.core !== core || !n.alive || n.wakeAtMs !== atMs) return
      n.wakeAtMs = Number.POSITIVE_INFINITY
      core.handleTimeout(this.#nowOf(n))
      this.#drain(n)
    })
  }

  #output(n: SimNode, output: StateOutput): void {
    if (output.kind === 'violation')
      this.violations.push(`${n.name} of ${output.node}: ${output.fault.code} ${output.fault.detail}`)
    else if (output.kind === 'refused') this.refused.set(output.fault.code, (this.refused.get(output.fault.code) ?? 0) + 1)
    else if (output.kind === 'higherIncarnation') this.#startAgain(n, output.incarnation)
    else if (output.kind === 'send') this.#send(n, this.node(output.node), output.bytes)
  }

  /** As the gateway does: stops, and is there again shortly after, above the incarnation that was met. */
  #startAgain(n: SimNode, incarnation: number): void {
    this.higher.push({ node: n.name, incarnation })
    n.starts = Math.max(n.starts, incarnationCounter(incarnation))
    const { core } = n
    this.clock.after(1, () => {
      if (n.core !== core || !n.alive) return
      this.kill(n.name)
      this.clock.after(500, () => {
        if (n.core === core && !n.alive) this.start(n.name)
      })
    })
  }

  #send(from: SimNode, to: SimNode, bytes: Buffer): void {
    const link = this.#links.find((l) => (l.a === from && l.b === to) || (l.a === to && l.b === from))
    if (link === undefined || !link.up) return
    const { generation } = link
    this.net.send(from.name, to.name, bytes, (arrived) => {
      if (!link.up || link.generation !== generation || !to.alive) return
      to.core.handleMessage(from.name, arrived, this.#nowOf(to))
      this.#drain(to)
    })
  }

  #checkLinks(): void {
    const nowMs = this.clock.nowMs
    for (const l of this.#links) {
      const free = l.a.alive && l.b.alive && !this.net.isCut(l.a.name, l.b.name)
      if (free) l.silentSinceMs = nowMs
      if (l.up && nowMs - l.silentSinceMs >= DEAD_MS) this.#down(l)
      else if (!l.up && free && nowMs >= l.redialAtMs) this.#up(l)
    }
    this.clock.after(CHECK_MS, () => this.#checkLinks())
  }

  #up(l: SimLink): void {
    l.up = true
    l.generation++
    l.silentSinceMs = this.clock.nowMs
    for (const [n, peer] of [
      [l.a, l.b],
      [l.b, l.a],
    ] as const) {
      const sameRegion = n.region === peer.region
      const target = rendezvous(
        n.name,
        this.nodes.filter((m) => m.region === peer.region),
        (m) => m.name,
      )
      n.core.handlePeerUp(
        {
          region: peer.region,
          node: peer.name,
          incarnation: peer.incarnation,
          outbound: sameRegion ? n === l.a : target === peer,
        },
        this.#nowOf(n),
      )
      this.#drain(n)
    }
  }

  #down(l: SimLink): void {
    l.up = false
    l.redialAtMs = this.clock.nowMs + 100 + below(this.random, REDIAL_MS - 100)
    for (const [n, peer] of [
      [l.a, l.b],
      [l.b, l.a],
    ] as const) {
      if (!n.alive) continue
      n.core.handlePeerDown({ node: peer.name }, this.#nowOf(n))
      this.#drain(n)
    }
  }
}

const BINDING: Omit<BindingEntry, 'hlc' | 'region' | 'node' | 'incarnation' | 'kind'> = {
  op: 'set',
  aor: 'sip:u1@example.net',
  key: 'sip:u1@192.0.2.1',
  callId: 'c1',
  cseq: 1,
  reset: false,
  expiresAtMs: 0,
  contact: 'sip:u1@192.0.2.1',
  contactParams: '',
  q: 1000,
  path: [],
  flow: {
    ...{ transport: 'udp', localAddress: '192.0.2.10', localPort: 5060, remoteAddress: '192.0.2.1', remotePort: 5060 },
    ...{ connectionId: -1, nat: false },
  },
  userAgent: 'sim',
}
