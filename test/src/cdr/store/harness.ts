import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../../../src/base/clock.ts'
import { silentLog } from '../../../../src/base/log.ts'
import { createMetrics } from '../../../../src/base/metrics.ts'
import { CdrJournal, type CdrJournalOptions } from '../../../../src/cdr/store/journal.ts'

/** A directory of the test's own, removed at its end. */
export function scratch(t: { teardown(action: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'antipode-cdr-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

let incarnations = 0
export const nextIncarnation = (): number => ++incarnations * 2 ** 32 + 99

/** A journal by itself: no mirrors. */
export const openAlone = (directory: string, over: Partial<CdrJournalOptions> = {}): Promise<CdrJournal> =>
  CdrJournal.open({
    directory,
    self: { region: 'us-east', node: 'us-east-1', incarnation: nextIncarnation() },
    log: silentLog,
    metrics: createMetrics(),
    clock: systemClock,
    durability: { mirror: 0, remote: 'async' },
    policy: 'continue',
    segmentBytes: 64 * 1024,
    mirrors: () => ({ siblings: [], remotes: [] }),
    sendToPeer: () => false,
    ...over,
  })

export interface TestNode {
  readonly name: string
  readonly region: string
  readonly directory: string
}

/**
 * Journals that are joined by what a cluster link promises on a channel: whole messages, in order, between linked nodes. `cut` takes links away,
 * and what is on its way with them.
 */
export class TestCluster {
  readonly #journals = new Map<string, CdrJournal>()
  readonly #nodes = new Map<string, TestNode>()
  readonly #cut = new Set<string>()
  readonly #stamps = new Map<string, number>()
  /** Per direction: messages handed on, for a test that wants to see or drop some. */
  onMessage: (from: string, to: string, bytes: Uint8Array) => boolean = () => true

  journal(name: string): CdrJournal {
    return this.#journals.get(name)!
  }

  async open(node: TestNode, over: Partial<CdrJournalOptions> = {}): Promise<CdrJournal> {
    const journal = await openAlone(node.directory, {
      self: { region: node.region, node: node.name, incarnation: nextIncarnation() },
      durability: { mirror: 1, remote: 'async' },
      mirrors: () => this.#linked(node.name),
      sendToPeer: (to, payload) => this.#send(node.name, to, payload),
      ...over,
    })
    this.#nodes.set(node.name, node)
    this.#journals.set(node.name, journal)
    this.#changed(node.name)
    return journal
  }

  async close(name: string): Promise<void> {
    const journal = this.#journals.get(name)
    this.#journals.delete(name)
    this.#changed(name)
    await journal?.close()
  }

  async closeAll(): Promise<void> {
    for (const name of [...this.#journals.keys()]) await this.close(name)
  }

  cut(a: string, b: string): void {
    this.#cut.add(pair(a, b))
    this.#changed(a, b)
  }

  heal(a: string, b: string): void {
    this.#cut.delete(pair(a, b))
    this.#changed(a, b)
  }

  #up(a: string, b: string): boolean {
    return a !== b && this.#journals.has(a) && this.#journals.has(b) && !this.#cut.has(pair(a, b))
  }

  #linked(name: string): { siblings: string[]; remotes: string[] } {
    const region = this.#nodes.get(name)?.region
    const linked = [...this.#nodes.values()].filter((n) => this.#up(name, n.name))
    return {
      siblings: linked.filter((n) => n.region === region).map((n) => n.name),
      remotes: linked.filter((n) => n.region !== region).map((n) => n.name),
    }
  }

  #send(from: string, to: string, payload: Uint8Array): boolean {
    if (!this.#up(from, to)) return false
    const bytes = Uint8Array.from(payload)
    const stamp = this.#stamps.get(pair(from, to))
    setImmediate(() => {
      if (!this.#up(from, to) || this.#stamps.get(pair(from, to)) !== stamp) return
      if (this.onMessage(from, to, bytes)) this.#journals.get(to)!.handlePeerMessage(from, bytes)
    })
    return true
  }

  /** Tells both ends of the link (of each link of `name`) that it changed; what was on its way is lost. */
  #changed(name: string, only?: string): void {
    for (const other of this.#nodes.values()) {
      if (other.name === name || (only !== undefined && other.name !== only)) continue
      this.#stamps.set(pair(name, other.name), (this.#stamps.get(pair(name, other.name)) ?? 0) + 1)
      for (const [a, b] of [
        [name, other.name],
        [other.name, name],
      ] as const) {
        const journal = this.#journals.get(a)
        if (this.#up(a, b)) journal?.handlePeerUp(b, this.#nodes.get(b)!.region)
        else journal?.handlePeerDown(b)
      }
    }
  }
}

const pair = (a: string, b: string): string => [a, b].sort().join(' ')

/** Waits until `condition` holds; a test that waits in vain fails by tap's timeout, not by this. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 10))
}
