import { createSocket } from 'node:dgram'
import { readFileSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { addressOf, type Demo, type NodeName, registration, sleep, until } from './demo.ts'

/** A node before and after somebody did something bad to it, seen as its operator sees it: metrics, log, status. */

const MIB = 1 << 20

export interface Siege {
  readonly what: string
  /** Series that must have risen, by at least so much: `antipode_sip_refused_total{code="SIP_START_LINE"}`. */
  readonly counters: Readonly<Record<string, number>>
  /** Log lines at most. */
  readonly lines: number
  readonly attack: () => Promise<void>
}

export class Besieged {
  readonly node: NodeName
  readonly #demo: Demo
  /** Nodes that live; their state must not change. */
  readonly #alive: readonly NodeName[]
  readonly #pid: number
  #user = 0
  #restBytes = 0
  #digest: string | undefined

  private constructor(demo: Demo, node: NodeName, alive: readonly NodeName[], pid: number) {
    this.#demo = demo
    this.node = node
    this.#alive = alive
    this.#pid = pid
  }

  static async of(demo: Demo, node: NodeName, alive: readonly NodeName[]): Promise<Besieged> {
    const besieged = new Besieged(demo, node, alive, (await demo.status(node)).pid)
    await besieged.#quiet()
    besieged.#restBytes = (await demo.status(node)).memoryBytes
    return besieged
  }

  /** Attacks, and asserts what must be true afterwards: counted, few lines, the same process, the same state everywhere. */
  async stand(t: Test, { what, counters, lines, attack }: Siege): Promise<void> {
    const digest = (await this.#still()) ?? (await this.#quiet())
    const before = await this.metrics()
    const log = this.#logSize()
    await attack()
    const rise = (after: ReadonlyMap<string, number>, series: string): number =>
      (after.get(series) ?? 0) - (before.get(series) ?? 0)
    let after = before
    try {
      await until('the counters have risen', 5000, async () => {
        after = await this.metrics()
        return Object.entries(counters).every(([series, least]) => rise(after, series) >= least)
      })
    } catch {
      // The assertions below say which have not.
    }
    for (const [series, least] of Object.entries(counters)) {
      const by = rise(after, series)
      if (by < least) t.comment(`what did rise: ${risen(before, after)}`)
      t.ok(by >= least, `${what}: ${series.replace('antipode_', '')} +${by}`)
    }
    const written = this.#linesSince(log)
    if (written.length > lines) t.comment(written.slice(0, 20).join('\n'))
    t.ok(written.length <= lines, `${what}: ${written.length} log lines, at most ${lines}`)
    t.equal((await this.#demo.status(this.node)).pid, this.#pid, `${what}: the process goes on`)
    t.equal(await this.#quiet(), digest, `${what}: the state is as it was, on every node`)
  }

  /** A phone can register and be called. */
  async serves(t: Test): Promise<void> {
    const user = `g${this.#user++}`
    const registered = await this.#demo.sipp('register.xml', this.node, [registration(user)])
    t.equal(registered.code, 0, registered.code === 0 ? 'a phone registers' : registered.output)
    const called = await this.#demo.sipp('call.xml', this.node, [user], { holdMs: 100 })
    t.equal(called.code, 0, called.code === 0 ? 'and is called' : called.output)
  }

  /** Resident memory has not grown by more than that since the first attack. */
  async memory(t: Test, mostMiB: number): Promise<void> {
    const { memoryBytes } = await this.#demo.status(this.node)
    const grown = (memoryBytes - this.#restBytes) / MIB
    t.ok(
      grown < mostMiB,
      `resident memory: ${Math.round(memoryBytes / MIB)} MiB, ${grown.toFixed(1)} more than at the beginning, allowed ${mostMiB}`,
    )
  }

  async metrics(): Promise<Map<string, number>> {
    const response = await fetch(`http://${addressOf(this.node)}:8060/metrics`, { signal: AbortSignal.timeout(5000) })
    const series = new Map<string, number>()
    for (const line of (await response.text()).split('\n')) {
      const m = /^([a-z_]+(?:\{.*\})?) (\S+)$/.exec(line)
      if (m !== null) series.set(m[1]!, Number(m[2]))
    }
    return series
  }

  /** The digest that all had after the last attack, if all have it still. */
  async #still(): Promise<string | undefined> {
    const digests = await this.#demo.digests(this.#alive)
    return digests.every((d) => d === this.#digest) ? this.#digest : undefined
  }

  /** The one digest of all nodes, once it has stood still for half a second. */
  async #quiet(): Promise<string> {
    let last = ''
    let sinceMs = 0
    this.#digest = await until('all nodes have the same state, and it stands still', 10_000, async () => {
      const digests = await this.#demo.digests(this.#alive)
      const same = digests.every((d) => d === digests[0])
      if (!same || digests[0] !== last) {
        last = same ? digests[0]! : ''
        sinceMs = Date.now()
        return false
      }
      return Date.now() - sinceMs > 500 && last
    })
    return this.#digest
  }

  get #log(): string {
    return join(this.#demo.nodeDirectory(this.node), 'log')
  }

  #logSize(): number {
    return statSync(this.#log).size
  }

  #linesSince(size: number): string[] {
    return readFileSync(this.#log).subarray(size).toString('utf8').split('\n').filter(Boolean)
  }
}

const risen = (before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): string =>
  [...after]
    .filter(([series, value]) => /refused|events|frames_total/.test(series) && value > (before.get(series) ?? 0))
    .map(([series, value]) => `${series} +${value - (before.get(series) ?? 0)}`)
    .join(', ')

/** Sends datagrams as fast as a socket buffer can take them; none of them is waited for. */
export async function datagrams(to: string, port: number, all: readonly Uint8Array[], from = '127.0.0.66'): Promise<void> {
  const socket = createSocket('udp4')
  await new Promise<void>((resolve) => socket.bind({ address: from }, resolve))
  let bytes = 0
  for (const datagram of all) {
    await new Promise<void>((resolve, reject) =>
      socket.send(datagram, port, to, (error) => (error === null ? resolve() : reject(error))),
    )
    bytes += datagram.length + 500
    // A receive buffer holds 200 KiB where the system's limit was never raised.
    if (bytes > 100_000) {
      await sleep(10)
      bytes = 0
    }
  }
  // Answers, ICMP errors: not our concern.
  await sleep(50)
  socket.close()
}

/** Writes to a TCP connection and waits until the other end closes it, or for `ms`; gives what came back. */
export function stream(to: string, port: number, bytes: Uint8Array | string, ms = 3000): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    const socket = connect({ host: to, port, localAddress: '127.0.0.66' }, () => socket.write(bytes))
    const late = setTimeout(() => socket.destroy(), ms)
    socket.setEncoding('latin1')
    socket.on('data', (chunk: string) => {
      answer = (answer + chunk).slice(0, 10_000)
    })
    // A reset is an answer too.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      clearTimeout(late)
      resolve(answer)
    })
  })
}

// Names of series

export const sipRefused = (code: string): string => `antipode_sip_refused_total{code="${code}"}`
export const dnsRefused = (code: string): string => `antipode_dns_refused_total{code="${code}"}`
export const linkRefused = (code: string): string => `antipode_link_refused_total{code="${code}"}`
export const crdtRefused = (code: string): string => `antipode_crdt_refused_total{code="${code}"}`

export const repeat = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i))
export const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')
