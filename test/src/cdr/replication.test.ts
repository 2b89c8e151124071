import t from 'tap'
import { below, SeededRandom } from '../../../src/base/prng.ts'
import type { MirrorMessage } from '../../../src/cdr/mirror-messages.ts'
import { Replication, type ReplicationOptions, type ReplicationOutput } from '../../../src/cdr/replication.ts'

const hash = new Uint8Array(32)

/** A mirror as the protocol has it, over groups that are just their numbers. */
class ModelMirror {
  readonly chains = new Map<number, number>()

  handle(m: MirrorMessage): MirrorMessage | undefined {
    switch (m.type) {
      case 'query':
        return {
          type: 'holds',
          chains: [...this.chains].map(([incarnation, commits]) => ({ incarnation, first: 0, commits, hash })),
        }
      case 'open': {
        const incarnation = m.header[0]!
        if (!this.chains.has(incarnation)) this.chains.set(incarnation, m.header[1]!)
        return { type: 'ack', incarnation, commits: this.chains.get(incarnation)!, hash }
      }
      case 'data': {
        const { incarnation } = m
        const held = this.chains.get(incarnation)
        if (held === undefined) return { type: 'refuse', why: 'unknown', incarnation, commits: 0, hash }
        if (m.from > held) return { type: 'refuse', why: 'gap', incarnation, commits: held, hash }
        this.chains.set(incarnation, Math.max(held, m.from + m.groups.length))
        return { type: 'ack', incarnation, commits: this.chains.get(incarnation)!, hash }
      }
      case 'pull': {
        const held = this.chains.get(m.incarnation) ?? 0
        const groups = new Uint8Array(Math.min(2, Math.max(0, held - m.from)))
        return { type: 'range', incarnation: m.incarnation, from: m.from, header: undefined, groups }
      }
      default:
        return undefined
    }
  }
}

/** One owner on a virtual clock, mirrors behind a network that delays, drops and cuts. */
class World {
  nowMs = 1000
  readonly mirrors = new Map<string, ModelMirror>()
  readonly settled = new Map<number, string>()
  readonly events: { atMs: number; run: () => void }[] = []
  readonly owner: Replication
  readonly recovered: number[] = []
  readonly own: Map<number, number>
  linked: { siblings: string[]; remotes: string[] } = { siblings: [], remotes: [] }
  lossPercent = 0
  readonly #random: SeededRandom

  constructor(seed: number, over: Partial<ReplicationOptions> = {}) {
    this.#random = new SeededRandom(seed)
    this.owner = new Replication({
      self: 'a1',
      old: [],
      incarnation: 9,
      mirrors: 1,
      remote: 'async',
      mirrorTimeoutMs: 100,
      ...over,
    })
    this.own = new Map((over.old ?? []).map((c) => [c.incarnation, c.commits]))
  }

  link(siblings: string[], remotes: string[]): void {
    for (const name of [...siblings, ...remotes]) if (!this.mirrors.has(name)) this.mirrors.set(name, new ModelMirror())
    this.linked = { siblings, remotes }
    this.owner.handlePeers(this.linked, this.nowMs)
    this.drain()
  }

  /** @param local what the datasync returns; 'stalls': nothing, ever */
  group(commit: number, local: boolean | 'stalls' = true): void {
    this.own.set(9, commit + 1)
    this.owner.handleGroup(commit, new Uint8Array(1), this.nowMs)
    if (local !== 'stalls') this.later(1, () => this.owner.handleLocal(commit, local, this.nowMs))
    this.drain()
  }

  later(ms: number, run: () => void): void {
    this.events.push({ atMs: this.nowMs + ms, run })
  }

  drain(): void {
    for (let outputs = this.owner.takeOutputs(); outputs.length > 0; outputs = this.owner.takeOutputs())
      for (const output of outputs) this.#act(output)
  }

  #act(o: ReplicationOutput): void {
    const wire = (): number => 1 + below(this.#random, 10)
    const lost = (): boolean => below(this.#random, 100) < this.lossPercent
    const up = (node: string): boolean => this.linked.siblings.includes(node) || this.linked.remotes.includes(node)
    if (o.kind === 'settled') {
      if (this.settled.has(o.commit)) throw new Error(`commit ${o.commit} settled twice`)
      if (o.outcome.kind === 'durable' || o.outcome.kind === 'mirrors') {
        const holders = [...this.mirrors.values()].filter((m) => (m.chains.get(9) ?? 0) > o.commit)
        if (holders.length === 0) throw new Error(`commit ${o.commit} is called durable, and no mirror has it`)
      }
      this.settled.set(o.commit, o.outcome.kind === 'atRisk' ? o.outcome.why : o.outcome.kind)
    } else if (o.kind === 'send') {
      const { node, message } = o
      if (lost()) return
      this.later(wire(), () => {
        if (!up(node)) return
        const answer = this.mirrors.get(node)!.handle(message)
        if (answer === undefined || lost()) return
        this.later(wire(), () => up(node) && this.owner.handleMessage(node, answer, this.nowMs))
      })
    } else if (o.kind === 'read') {
      const next = Math.min(this.own.get(o.incarnation) ?? 0, o.from + 3)
      this.later(1, () => this.owner.handleRead(o.node, o.incarnation, o.from, next, new Uint8Array(next - o.from), this.nowMs))
    } else if (o.kind === 'position') {
      this.later(1, () => this.owner.handlePosition(o.node, o.incarnation, Uint8Array.of(o.incarnation, o.commit), this.nowMs))
    } else if (o.kind === 'recover') {
      this.recovered.push(o.from)
      this.own.set(o.incarnation, o.from + o.groups.length)
      this.later(1, () => this.owner.handleRecovered(o.incarnation, o.from + o.groups.length, true, this.nowMs))
    } else if (o.kind === 'alarm') throw new Error(o.why)
  }

  /** Runs on to `atMs`, jumping from one event or timeout to the next. */
  runTo(atMs: number): void {
    for (;;) {
      this.events.sort((a, b) => a.atMs - b.atMs)
      const event = this.events[0]?.atMs ?? Number.POSITIVE_INFINITY
      const timeout = Math.max(this.nowMs + 1, this.owner.nextTimeoutMs() ?? Number.POSITIVE_INFINITY)
      const next = Math.min(event, timeout)
      if (next > atMs) break
      this.nowMs = next
      if (event <= timeout) this.events.shift()!.run()
      else this.owner.handleTimeout(this.nowMs)
      this.drain()
    }
    this.nowMs = atMs
  }
}

t.test('over a bad network each group settles once, durable only where a mirror has it, and all arrive in the end', (t) => {
  for (let seed = 1; seed <= 60; seed++) {
    const world = new World(seed)
    const random = new SeededRandom(seed + 1000)
    world.lossPercent = seed % 3 === 0 ? 0 : 20
    world.link(['a2'], ['b1', 'b2'])
    for (let commit = 0; commit < 60; commit++) {
      if (below(random, 10) === 0) {
        const some = (names: string[]): string[] => names.filter(() => below(random, 2) === 0)
        world.link(some(['a2', 'a3']), some(['b1', 'b2']))
      }
      world.group(commit, below(random, 20) > 0)
      world.runTo(world.nowMs + below(random, 60))
    }
    world.lossPercent = 0
    world.link(['a2'], ['b1'])
    world.runTo(world.nowMs + 20_000)
    if (world.settled.size !== 60) t.fail(`seed ${seed}: ${world.settled.size} settled`)
    if (world.owner.remoteLag !== 0) t.fail(`seed ${seed}: lag ${world.owner.remoteLag}`)
    if (world.mirrors.get('b1')?.chains.get(9) !== 60) t.fail(`seed ${seed}: b1 has ${world.mirrors.get('b1')?.chains.get(9)}`)
    world.group(60)
    world.runTo(world.nowMs + 1000)
    if (world.settled.get(60) !== 'durable') t.fail(`seed ${seed}: not well after all is well: ${world.settled.get(60)}`)
  }
  t.end()
})

t.test('without a peer a group is settled by the local disk alone, at once', (t) => {
  const world = new World(1)
  world.group(0)
  world.group(1, false)
  world.runTo(1002)
  t.same(
    [...world.settled],
    [
      [0, 'unreachable'],
      [1, 'lost'],
    ],
  )
  t.end()
})

t.test('no mirror configured: the disk alone is durable, and a peer stands in when it fails', (t) => {
  const world = new World(1, { mirrors: 0 })
  world.link(['a2'], [])
  world.runTo(1100)
  const outcomes: string[] = []
  const { owner } = world
  owner.handleGroup(0, new Uint8Array(1), world.nowMs)
  owner.handleLocal(0, true, world.nowMs)
  for (const o of owner.takeOutputs()) if (o.kind === 'settled') outcomes.push(o.outcome.kind)
  t.same(outcomes, ['durable'])
  world.own.set(9, 2)
  world.group(1, false)
  world.runTo(world.nowMs + 90)
  t.equal(world.settled.get(1), 'mirrors')
  t.end()
})

t.test('a disk that stalls is settled by the mirror when the timeout is over', (t) => {
  const world = new World(2)
  world.link(['a2'], [])
  world.runTo(1200)
  world.group(0, 'stalls')
  world.runTo(1299)
  t.equal(world.settled.size, 0)
  world.runTo(1301)
  t.same([...world.settled], [[0, 'mirrors']])
  t.end()
})

t.test('what a mirror holds of an old chain beyond ours is pulled back, range by range', (t) => {
  const world = new World(3, { old: [{ incarnation: 5, commits: 4, bytes: 100, remote: 0 }] })
  world.mirrors.set('a2', new ModelMirror())
  world.mirrors.get('a2')!.chains.set(5, 9).set(6, 3)
  world.link(['a2'], ['b1'])
  world.runTo(20_000)
  t.same(world.recovered, [4, 6, 8, 0, 2])
  t.equal(world.owner.pulling, 0)
  t.same([...world.mirrors.get('b1')!.chains].sort(), [
    [5, 9],
    [6, 3],
    [9, 0],
  ])
  t.end()
})
