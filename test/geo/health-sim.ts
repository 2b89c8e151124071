import { HealthCore, type HealthOutput, type SavedView } from '../../geo/health.ts'
import type { Verdict } from '../../geo/verdict.ts'
import { makeIncarnation } from '../../src/base/ids.ts'
import { below, SeededRandom } from '../../src/base/prng.ts'

/**
 * A cluster of HealthCores on a virtual clock and a simulated network: regions that are cut from each other, nodes that die and come back, messages
 * and probes that are lost. Links as in production: a full mesh inside a region, and from each node one to one node of every other region.
 */
export interface SimOptions {
  readonly seed: number
  readonly sizes: readonly number[]
  readonly electorate?: readonly string[]
  /** Of messages and of probes, 0 to 1. */
  readonly loss?: number
}

export interface Change {
  readonly atMs: number
  readonly by: string
  readonly output: Extract<HealthOutput, { kind: 'changed' }>
}

interface SimNode {
  readonly name: string
  readonly region: string
  core: HealthCore
  up: boolean
  /** Runs, and /healthz does not say 200: it is starting, or its disk is full. */
  unwell: boolean
  /** A killed process refuses at once; a vanished machine says nothing. */
  silent: boolean
  starts: number
  saved: SavedView | undefined
}

const PROBE = { intervalMs: 1000, timeoutMs: 1000, rise: 2, fall: 3 }
const START_MS = 1_760_000_000_000
/** When a link whose other end fell silent is given up (its heartbeat). */
const LINK_TIMEOUT_MS = 3000

export class HealthSim {
  nowMs = START_MS
  readonly regions: { name: string; nodes: string[] }[]
  readonly electorate: readonly string[]
  readonly nodes = new Map<string, SimNode>()
  readonly changes: Change[] = []
  messages = 0
  readonly #random: SeededRandom
  readonly #loss: number
  #group = new Map<string, number>()
  #queue: { atMs: number; order: number; run: () => void }[] = []
  #order = 0
  readonly #links = new Map<string, { a: SimNode; b: SimNode; up: boolean }>()

  constructor(options: SimOptions) {
    this.#random = new SeededRandom(options.seed)
    this.#loss = options.loss ?? 0
    this.regions = options.sizes.map((size, r) => ({
      name: `r${r}`,
      nodes: Array.from({ length: size }, (_, n) => `r${r}n${n}`),
    }))
    this.electorate = options.electorate ?? this.regions.map((r) => r.name)
    for (const region of this.regions) {
      this.#group.set(region.name, 0)
      for (const name of region.nodes) {
        const node = { name, region: region.name, up: true, unwell: false, silent: false, starts: 1, saved: undefined }
        this.nodes.set(name, { ...node, core: this.#coreOf(name, region.name, 1, undefined) })
      }
    }
    this.#layLinks()
  }

  core(name: string): HealthCore {
    return this.#node(name).core
  }

  verdicts(name: string): Readonly<Record<string, Verdict>> {
    const view = this.core(name).view()
    return { ...view.regions, ...view.nodes }
  }

  connected(a: string, b: string): boolean {
    return this.#group.get(this.#node(a).region) === this.#group.get(this.#node(b).region)
  }

  /** Regions by group; groups cannot talk to each other. Those not named are in group 0. */
  cut(groups: Readonly<Record<string, number>>): void {
    this.#group = new Map(this.regions.map((r) => [r.name, groups[r.name] ?? 0]))
  }

  kill(name: string, how: 'process' | 'machine' = 'process'): void {
    const node = this.#node(name)
    node.up = false
    node.silent = how === 'machine'
  }

  unwell(name: string, unwell: boolean): void {
    this.#node(name).unwell = unwell
  }

  start(name: string): void {
    const node = this.#node(name)
    if (node.up) return
    node.up = true
    node.starts++
    node.core = this.#coreOf(name, node.region, node.starts, node.saved)
  }

  run(durationMs: number, every?: () => void): void {
    const endMs = this.nowMs + durationMs
    while (this.nowMs < endMs) {
      this.#tendLinks()
      for (const node of this.nodes.values()) {
        if (!node.up) continue
        const next = node.core.nextTimeoutMs()
        if (next !== undefined && next <= this.nowMs) {
          node.core.handleTimeout(this.nowMs)
          this.#drain(node)
        }
      }
      this.nowMs += 20
      this.#queue.sort((x, y) => x.atMs - y.atMs || x.order - y.order)
      while (this.#queue[0] !== undefined && this.#queue[0].atMs <= this.nowMs) this.#queue.shift()?.run()
      every?.()
    }
  }

  #node(name: string): SimNode {
    const node = this.nodes.get(name)
    if (node === undefined) throw new Error(`no node ${name}`)
    return node
  }

  #coreOf(node: string, region: string, starts: number, last: SavedView | undefined): HealthCore {
    return new HealthCore({
      self: { region, node, incarnation: makeIncarnation(starts, this.#random) },
      regions: this.regions,
      electorate: this.electorate,
      probe: PROBE,
      ...(last === undefined ? {} : { last }),
    })
  }

  #layLinks(): void {
    const lay = (a: string, b: string): void => {
      const [x, y] = [a, b].sort() as [string, string]
      if (x !== y) this.#links.set(`${x} ${y}`, { a: this.#node(x), b: this.#node(y), up: false })
    }
    for (const region of this.regions) {
      for (const [i, node] of region.nodes.entries()) {
        for (const sibling of region.nodes) lay(node, sibling)
        for (const other of this.regions) if (other !== region) lay(node, other.nodes[i % other.nodes.length] as string)
      }
    }
  }

  /** Links come up soon after they can, end at once when a process dies, and after a heartbeat's time when the other end falls silent. */
  #tendLinks(): void {
    for (const link of this.#links.values()) {
      const can = link.a.up && link.b.up && this.connected(link.a.name, link.b.name)
      if (can === link.up) continue
      link.up = can
      const told = (node: SimNode, peer: SimNode): void => {
        const starts = node.starts
        const tell = (): void => {
          if (!node.up || node.starts !== starts || link.up !== can) return
          if (can) node.core.handlePeerUp(peer.name, this.nowMs)
          else node.core.handlePeerDown(peer.name, this.nowMs)
          this.#drain(node)
        }
        const silent = !can && (peer.up || peer.silent)
        this.#later(silent ? LINK_TIMEOUT_MS : 5 + below(this.#random, can ? 300 : 20), tell)
      }
      told(link.a, link.b)
      told(link.b, link.a)
    }
  }

  #later(delayMs: number, run: () => void): void {
    this.#queue.push({ atMs: this.nowMs + delayMs, order: this.#order++, run })
  }

  #delayMs(a: string, b: string): number {
    return this.#node(a).region === this.#node(b).region ? 1 + below(this.#random, 3) : 40 + below(this.#random, 120)
  }

  #lost(): boolean {
    return this.#random.unit() < this.#loss
  }

  #drain(node: SimNode): void {
    for (const output of node.core.takeOutputs()) {
      if (output.kind === 'changed') this.changes.push({ atMs: this.nowMs, by: node.name, output })
      else if (output.kind === 'persist') node.saved = output.view
      else if (output.kind === 'send') this.#send(node, this.#node(output.node), output.bytes)
      else this.#probe(node, this.#node(output.node))
    }
  }

  #send(from: SimNode, to: SimNode, bytes: Uint8Array): void {
    if (this.#lost()) return
    const { starts } = to
    this.#later(this.#delayMs(from.name, to.name), () => {
      if (!to.up || to.starts !== starts || !this.connected(from.name, to.name)) return
      const refused = to.core.handleMessage(from.name, bytes, this.nowMs)
      if (refused !== undefined) throw new Error(`our own message was refused: ${refused.code} ${refused.detail}`)
      this.messages++
      this.#drain(to)
    })
  }

  #probe(from: SimNode, to: SimNode): void {
    const { starts } = from
    const result = (ok: boolean) => (): void => {
      if (!from.up || from.starts !== starts) return
      from.core.handleProbeResult(to.name, ok, this.nowMs, ok ? 1 : undefined)
      this.#drain(from)
    }
    const rttMs = this.#delayMs(from.name, to.name) + this.#delayMs(to.name, from.name)
    const there = this.connected(from.name, to.name)
    if (this.#lost() || !there || (!to.up && to.silent)) this.#later(PROBE.timeoutMs + below(this.#random, 20), result(false))
    else this.#later(rttMs, result(to.up && !to.unwell))
  }
}
