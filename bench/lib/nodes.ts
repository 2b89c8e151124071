import { readdirSync, readFileSync } from 'node:fs'
import { addressOf, type Demo, NODES, type NodeName } from '../../test/interop/demo.ts'

/** What six nodes have used up, and what they say of themselves, at one moment. */
export interface Reading {
  readonly atMs: number
  /** CPU of all threads of all nodes, user and system, since they started. */
  readonly cpuSeconds: number
  /** The same by thread: `main`, `journal` (and other workers), `v8 and libuv` (garbage collection, compilation, file system). */
  readonly byThread: Readonly<Record<string, ThreadSeconds>>
  /** Resident. */
  readonly memoryBytes: number
  readonly samples: ReadonlyMap<NodeName, Samples>
}

export interface ThreadSeconds {
  readonly all: number
  /** Of it in the kernel. */
  readonly system: number
}

/** Prometheus samples by name with labels, as `/metrics` prints them. */
export type Samples = ReadonlyMap<string, number>

export async function readNodes(demo: Demo): Promise<Reading> {
  const each = await Promise.all(
    NODES.map(async (node) => ({ node, status: await demo.status(node), samples: await samplesOf(node) })),
  )
  const byThread: Record<string, ThreadSeconds> = {}
  for (const { status } of each) addThreads(byThread, status.pid)
  return {
    atMs: performance.now(),
    cpuSeconds: each.reduce((sum, { status }) => sum + status.cpuSeconds, 0),
    byThread,
    memoryBytes: each.reduce((sum, { status }) => sum + status.memoryBytes, 0),
    samples: new Map(each.map(({ node, samples }) => [node, samples])),
  }
}

async function samplesOf(node: NodeName): Promise<Samples> {
  const response = await fetch(`http://${addressOf(node)}:8060/metrics`)
  if (!response.ok) throw new Error(`${node} /metrics: ${response.status}`)
  const samples = new Map<string, number>()
  for (const line of (await response.text()).split('\n')) {
    const space = line.lastIndexOf(' ')
    if (!line.startsWith('#') && space > 0) samples.set(line.slice(0, space), Number(line.slice(space + 1)))
  }
  return samples
}

/** By how much a sample grew, all nodes together; all label sets of the name. */
export function growth(from: Reading, to: Reading, name: string): number {
  let sum = 0
  for (const [node, after] of to.samples) {
    for (const [key, value] of after) {
      if (key === name || key.startsWith(`${name}{`)) sum += value - (from.samples.get(node)?.get(key) ?? 0)
    }
  }
  return sum
}

/** Quantile of a histogram between two readings: the upper bound of its bucket, in seconds. All nodes together. */
export function histogramQuantile(from: Reading, to: Reading, name: string, q: number): number {
  const buckets = new Map<number, number>()
  for (const [node, after] of to.samples) {
    for (const [key, value] of after) {
      const le = key.startsWith(`${name}_bucket{`) ? /le="([^"]+)"/.exec(key)?.[1] : undefined
      if (le === undefined) continue
      const bound = le === '+Inf' ? Number.POSITIVE_INFINITY : Number(le)
      buckets.set(bound, (buckets.get(bound) ?? 0) + value - (from.samples.get(node)?.get(key) ?? 0))
    }
  }
  const sorted = [...buckets].sort(([a], [b]) => a - b)
  const total = sorted.at(-1)?.[1] ?? 0
  return sorted.find(([, count]) => count >= q * total)?.[0] ?? Number.NaN
}

/** Linux: clock ticks (10 ms) of each thread, by what the thread is for. */
function addThreads(to: Record<string, ThreadSeconds>, pid: number): void {
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    let stat: string
    try {
      stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1')
    } catch {
      // A thread that has ended since.
      continue
    }
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'))
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const [user, system] = [Number(fields[11]) / 100, Number(fields[12]) / 100]
    const kind =
      Number(tid) === pid ? 'main' : /^(libuv|V8|DelayedTask|node$|SignalInspector)/i.test(name) ? 'v8 and libuv' : 'journal'
    const sum = to[kind] ?? { all: 0, system: 0 }
    to[kind] = { all: sum.all + user + system, system: sum.system + system }
  }
}

/** Linux: datagrams that the kernel threw away because a socket's buffer was full, by socket; of loopback sockets with one of these ports. */
export function kernelDrops(ports: readonly number[]): Map<string, number> {
  const drops = new Map<string, number>()
  for (const row of readFileSync('/proc/net/udp', 'latin1').trim().split('\n').slice(1)) {
    const columns = row.trim().split(/\s+/)
    const [address, port] = columns[1]!.split(':') as [string, string]
    if (!address.endsWith('7F') || !ports.includes(Number.parseInt(port, 16))) continue
    const dotted = [6, 4, 2, 0].map((at) => Number.parseInt(address.slice(at, at + 2), 16)).join('.')
    drops.set(`${dotted}:${Number.parseInt(port, 16)}`, Number(columns.at(-1)))
  }
  return drops
}
