import { join } from 'node:path'
import type { Held, MirrorMessage, RefuseReason } from '../mirror-messages.ts'
import { scan } from '../segment.ts'
import { chainStart, decodeHeader, type Position } from '../segment-header.ts'
import { ChainWriter } from './chain-writer.ts'
import type { Disk } from './disk.ts'
import { type Damage, groupBytes, SegmentDirectory } from './segment-directory.ts'

export interface MirrorReply {
  readonly node: string
  readonly message: MirrorMessage
}

/** Names that are safe as a file name; what the configuration allows is narrower. */
const NODE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/
/** Of each node's chains the newest: each costs the reading of a segment at the start. */
const CHAINS_TOLD = 16
const OPEN_WRITERS_PER_NODE = 2
const NO_HASH = new Uint8Array(32)

interface MirroredNode {
  readonly directory: SegmentDirectory
  /** Least recently used first. */
  readonly writers: Map<number, ChainWriter>
}

/** What this node holds for others: the mirror's side of FORMAT.md "Mirror protocol". Messages of one cycle share a datasync, in `flush`. */
export class MirrorStore {
  readonly #disk: Disk
  readonly #path: string
  readonly #segmentBytes: number
  readonly #nodes = new Map<string, MirroredNode>()
  #dirty = new Map<ChainWriter, string>()
  #failures: unknown[] = []

  constructor(disk: Disk, path: string, segmentBytes: number) {
    this.#disk = disk
    this.#path = path
    this.#segmentBytes = segmentBytes
    // Read now what the first QUERY of each node would: later it would hold up our own groups.
    for (const node of disk.list(path)) {
      if (!NODE_NAME.test(node)) continue
      try {
        this.#holds(node)
      } catch (error) {
        this.#failures.push(error)
      }
    }
  }

  takeFailures(): unknown[] {
    const failures = this.#failures
    this.#failures = []
    return failures
  }

  /** Damage found in what is held, as far as it was looked at. */
  damage(): Damage[] {
    return [...this.#nodes.values()].flatMap((n) => n.directory.damage)
  }

  /** Replies that need no datasync; the acks for data come from `flush`. `node` is who the link says has sent it. */
  handle(node: string, m: MirrorMessage, nowMs: number): MirrorMessage[] {
    if (!NODE_NAME.test(node)) return []
    try {
      switch (m.type) {
        case 'query':
          return [{ type: 'holds', chains: this.#holds(node) }]
        case 'open':
          return [this.#open(node, m.header, nowMs)]
        case 'data':
          return this.#data(node, m, nowMs)
        case 'pull':
          return [this.#range(node, m, nowMs)]
        default:
          return []
      }
    } catch (error) {
      this.#failures.push(error)
      if (m.type !== 'data') return []
      this.#drop(node, m.incarnation)
      return [refuse('disk', m.incarnation, undefined)]
    }
  }

  /** One datasync for each segment written to since the last call, then the acks. */
  flush(): MirrorReply[] {
    const replies: MirrorReply[] = []
    const dirty = this.#dirty
    this.#dirty = new Map()
    for (const [writer, node] of dirty) {
      const { incarnation } = writer.genesis
      try {
        writer.sync()
        replies.push({ node, message: ack(incarnation, writer.synced) })
      } catch (error) {
        this.#failures.push(error)
        this.#drop(node, incarnation)
        replies.push({ node, message: refuse('disk', incarnation, undefined) })
      }
    }
    return replies
  }

  close(nowMs: number): void {
    for (const { writers } of this.#nodes.values()) {
      for (const writer of writers.values()) {
        try {
          writer.close(nowMs)
        } catch (error) {
          this.#failures.push(error)
        }
      }
    }
  }

  #holds(node: string): Held[] {
    const { directory } = this.#of(node)
    const held: Held[] = []
    for (const incarnation of directory.chains().slice(0, CHAINS_TOLD)) {
      const end = directory.end(incarnation)
      const first = directory.files(incarnation)[0]?.header.start.commits
      if (end !== undefined && first !== undefined) held.push({ incarnation, first, commits: end.commits, hash: end.hash })
    }
    return held
  }

  #open(node: string, bytes: Uint8Array, nowMs: number): MirrorMessage {
    const header = decodeHeader(bytes)
    if (!header.ok) return refuse('broken', 0, undefined)
    const { genesis, start } = header.value
    const { incarnation } = genesis
    const mirrored = this.#of(node)
    const end = mirrored.directory.end(incarnation)
    if (end !== undefined) return ack(incarnation, end)
    const begins = start.commits > 0 || Buffer.compare(start.hash, chainStart(genesis).hash) === 0
    if (genesis.node !== node || !begins) return refuse('broken', incarnation, undefined)
    const writer = new ChainWriter({
      directory: mirrored.directory,
      kind: 'mirror',
      genesis,
      start,
      segmentBytes: this.#segmentBytes,
    })
    writer.open(nowMs)
    mirrored.directory.setEnd(incarnation, start)
    this.#keep(mirrored, incarnation, writer, nowMs)
    return ack(incarnation, start)
  }

  #data(node: string, m: MirrorMessage & { readonly type: 'data' }, nowMs: number): MirrorMessage[] {
    const mirrored = this.#of(node)
    const { incarnation } = m
    const end = mirrored.writers.get(incarnation)?.written ?? mirrored.directory.end(incarnation)
    const genesis = mirrored.directory.genesis(incarnation)
    if (end === undefined || genesis === undefined) return [refuse('unknown', incarnation, undefined)]
    if (m.from > end.commits) return [refuse('gap', incarnation, end)]
    const groups = Buffer.from(m.groups.buffer, m.groups.byteOffset, m.groups.byteLength)
    let at = 0
    for (let commit = m.from; commit < end.commits && at < groups.length; commit++) {
      const size = groupBytes(groups, at, commit)
      if (size === 0) return [refuse('broken', incarnation, end)]
      at += size
    }
    let writer = mirrored.writers.get(incarnation)
    if (at < groups.length) {
      const found = scan(groups, at, end)
      if (found.stop !== undefined || found.endOffset !== groups.length) return [refuse('broken', incarnation, end)]
      if (writer === undefined) {
        writer = new ChainWriter({
          directory: mirrored.directory,
          kind: 'mirror',
          genesis,
          start: end,
          segmentBytes: this.#segmentBytes,
        })
      }
      this.#keep(mirrored, incarnation, writer, nowMs)
      writer.write(groups.subarray(at), found.end, nowMs)
    }
    // Old groups only, and nothing under way: what is held is synced.
    if (writer === undefined) return [ack(incarnation, end)]
    this.#dirty.set(writer, node)
    return []
  }

  #range(node: string, m: MirrorMessage & { readonly type: 'pull' }, nowMs: number): MirrorMessage {
    const { directory } = this.#of(node)
    const { incarnation, from } = m
    const header = m.withHeader ? directory.headerAt(incarnation, from, nowMs) : undefined
    const end = directory.end(incarnation)?.commits ?? 0
    const { groups } =
      from < end && (header !== undefined || !m.withHeader) ? directory.readRange(incarnation, from) : { groups: Buffer.alloc(0) }
    return { type: 'range', incarnation, from, header, groups }
  }

  #of(node: string): MirroredNode {
    let mirrored = this.#nodes.get(node)
    if (mirrored === undefined) {
      mirrored = { directory: new SegmentDirectory(this.#disk, join(this.#path, node)), writers: new Map() }
      this.#nodes.set(node, mirrored)
    }
    return mirrored
  }

  /** The writer becomes the most recently used; the one that was not used longest is closed when there are too many. */
  #keep(mirrored: MirroredNode, incarnation: number, writer: ChainWriter, nowMs: number): void {
    mirrored.writers.delete(incarnation)
    mirrored.writers.set(incarnation, writer)
    if (mirrored.writers.size <= OPEN_WRITERS_PER_NODE) return
    const [oldest, idle] = mirrored.writers.entries().next().value!
    mirrored.writers.delete(oldest)
    try {
      idle.close(nowMs)
    } catch (error) {
      this.#failures.push(error)
      idle.abandon()
      this.#dirty.delete(idle)
    }
  }

  /** After an error nothing is known of what was written since the last sync: the next DATA begins a new segment at what was synced. */
  #drop(node: string, incarnation: number): void {
    const mirrored = this.#nodes.get(node)
    const writer = mirrored?.writers.get(incarnation)
    if (writer === undefined) return
    writer.abandon()
    this.#dirty.delete(writer)
    mirrored?.writers.delete(incarnation)
  }
}

const ack = (incarnation: number, end: Position): MirrorMessage => ({
  type: 'ack',
  incarnation,
  commits: end.commits,
  hash: end.hash,
})
const refuse = (why: RefuseReason, incarnation: number, end: Position | undefined): MirrorMessage => ({
  type: 'refuse',
  why,
  incarnation,
  commits: end?.commits ?? 0,
  hash: end?.hash ?? NO_HASH,
})
