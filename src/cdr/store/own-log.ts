import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { AntipodeError } from '../../base/errors.ts'
import type { NodeIdentity } from '../../base/ids.ts'
import type { OwnChain } from '../replication.ts'
import { buildGroup, type Group, scan } from '../segment.ts'
import { chainStart, decodeHeader, type Genesis, noPrevious, type Position, type PreviousState } from '../segment-header.ts'
import { ChainWriter, replaceFile } from './chain-writer.ts'
import type { Disk } from './disk.ts'
import { type Damage, SegmentDirectory } from './segment-directory.ts'

export interface OpenReport {
  /** How the chain of the last start was found. */
  readonly previous: PreviousState
  readonly damage: readonly Damage[]
  readonly setAside: readonly string[]
  readonly old: readonly OwnChain[]
}

interface Unsynced extends Group {
  readonly start: Position
}

const RETRY_MS = 1000
const BACKLOG_BYTES = 16 * 1024 * 1024
const MAX_OLD_CHAINS = 16
const KEY = 'checkpoint.key'
const REMOTE = 'remote.json'

/** This node's own chains: recovery at the start, then one new chain, which outlives failures of the disk. FORMAT.md "Writing". */
export class OwnLog {
  readonly report: OpenReport
  readonly directory: SegmentDirectory
  readonly #self: NodeIdentity
  readonly #segmentBytes: number
  readonly #genesis: Genesis
  readonly #writer: ChainWriter
  readonly #remote = new Map<number, number>()
  readonly #recovering = new Map<number, ChainWriter>()
  /** After the last group formed. */
  #end: Position
  /** Formed, but no datasync covers them. */
  #unsynced: Unsynced[] = []
  #failing = false
  #retryAtMs = 0
  /** Failures since the last look, for the alarm. */
  #failures: unknown[] = []

  /** @throws AntipodeError CDR_INCARNATION_USED, and what the disk throws: a node that cannot make its first segment must not start. */
  constructor(disk: Disk, path: string, self: NodeIdentity, segmentBytes: number, nowMs: number) {
    this.directory = new SegmentDirectory(disk, path)
    this.#self = self
    this.#segmentBytes = segmentBytes
    if (this.directory.files(self.incarnation).length > 0)
      throw new AntipodeError('CDR_INCARNATION_USED', `${path} has a chain of incarnation ${self.incarnation} already`)
    this.#readRemote()
    const previous = this.#previous()
    this.#genesis = { region: self.region, node: self.node, incarnation: self.incarnation, createdMs: nowMs, previous }
    const old = this.directory.chains().slice(0, MAX_OLD_CHAINS).reverse()
    this.report = {
      previous: previous.state,
      damage: this.directory.damage,
      setAside: this.directory.setAside,
      old: old.map((incarnation) => ({
        incarnation,
        commits: this.directory.end(incarnation)?.commits ?? 0,
        bytes: this.directory.bytes(incarnation),
        remote: this.#remote.get(incarnation) ?? 0,
      })),
    }
    this.#end = chainStart(this.#genesis)
    this.#writer = new ChainWriter({
      directory: this.directory,
      kind: 'own',
      genesis: this.#genesis,
      start: this.#end,
      segmentBytes,
      key: signingKey(disk, path, nowMs),
    })
    this.#writer.open(nowMs)
  }

  get failing(): boolean {
    return this.#failing
  }

  /** Forms the next group and writes it; whether that worked shows in `commit`. */
  append(payloads: readonly Uint8Array[], nowMs: number): { commit: number; bytes: Buffer } {
    const group: Unsynced = { ...buildGroup(this.#end, payloads, nowMs), start: this.#end }
    this.#end = group.end
    this.#unsynced.push(group)
    if (!this.#failing) {
      try {
        this.#writer.write(group.bytes, group.end, nowMs)
      } catch (error) {
        this.#fail(error, nowMs)
      }
    }
    return { commit: group.end.commits - 1, bytes: group.bytes }
  }

  /** Makes all that was appended durable; false when the disk does not let us. Then mirrors are all there is, and a later call tries again. */
  commit(nowMs: number): boolean {
    if (!this.#failing) {
      try {
        this.#writer.sync()
        this.#unsynced = []
        return true
      } catch (error) {
        this.#fail(error, nowMs)
      }
    }
    return nowMs >= this.#retryAtMs && this.#writeAgain(nowMs)
  }

  takeFailures(): unknown[] {
    const failures = this.#failures
    this.#failures = []
    return failures
  }

  /** Own groups from `from` on, of any chain; those that are not on disk too. */
  readRange(incarnation: number, from: number): { groups: Buffer; next: number } {
    if (incarnation === this.#self.incarnation) {
      const kept = this.#unsynced.find((g) => g.start.commits === from)
      if (kept !== undefined) return { groups: kept.bytes, next: from + 1 }
    }
    return this.directory.readRange(incarnation, from)
  }

  headerAt(incarnation: number, commit: number, nowMs: number): Buffer | undefined {
    return this.directory.headerAt(incarnation, commit, nowMs)
  }

  /**
   * Takes groups of an old chain back from a mirror, durably, into a `recovered` segment. Returns where the chain ends then.
   *
   * @throws AntipodeError CDR_RECOVERED_REFUSED when they do not chain, and what the disk throws
   */
  recover(incarnation: number, from: number, header: Uint8Array | undefined, groups: Buffer, nowMs: number): number {
    const refuse = (why: string): AntipodeError =>
      new AntipodeError('CDR_RECOVERED_REFUSED', `groups that a mirror gave back: ${why}`)
    if (incarnation === this.#self.incarnation) throw refuse('they are of the chain that is being written')
    let writer = this.#recovering.get(incarnation)
    if (writer === undefined || writer.written.commits !== from) {
      writer?.close(nowMs)
      this.#recovering.delete(incarnation)
      const end = this.directory.end(incarnation)
      let genesis = this.directory.genesis(incarnation)
      let start = end?.commits === from ? end : undefined
      if (start === undefined) {
        const given = header === undefined ? undefined : decodeHeader(header)
        if (given === undefined || !given.ok) throw refuse(`they begin at commit ${from}, which is not where the chain ends here`)
        if (given.value.genesis.node !== this.#self.node || given.value.genesis.incarnation !== incarnation)
          throw refuse('another chain')
        if (from < (end?.commits ?? 0) || given.value.start.commits !== from) throw refuse('their header is for another place')
        genesis ??= given.value.genesis
        start = given.value.start
        if (from === 0 && Buffer.compare(start.hash, chainStart(genesis).hash) !== 0)
          throw refuse('their chain begins with another hash')
      }
      if (genesis === undefined) throw refuse('their chain is not known')
      writer = new ChainWriter({ directory: this.directory, kind: 'recovered', genesis, start, segmentBytes: this.#segmentBytes })
      this.#recovering.set(incarnation, writer)
    }
    const found = scan(groups, 0, writer.written)
    if (found.stop !== undefined || found.endOffset !== groups.length) throw refuse(found.stop?.fault.detail ?? 'bytes left over')
    try {
      writer.write(groups, found.end, nowMs)
      writer.sync()
    } catch (error) {
      writer.abandon()
      this.#recovering.delete(incarnation)
      throw error
    }
    return found.end.commits
  }

  /** Remembers how far another region holds a chain; a hint, so neither synced nor missed. */
  noteRemote(incarnation: number, commits: number, nowMs: number): void {
    this.#remote.set(incarnation, commits)
    const known = new Set([...this.directory.chains().slice(0, 2 * MAX_OLD_CHAINS), incarnation])
    for (const chain of this.#remote.keys()) if (!known.has(chain)) this.#remote.delete(chain)
    const text = JSON.stringify({ version: 1, chains: Object.fromEntries(this.#remote) })
    const { disk, path } = this.directory
    const temporary = join(path, `${REMOTE}.${nowMs}.tmp`)
    disk.remove(temporary)
    const fd = disk.create(temporary)
    try {
      disk.write(fd, Buffer.from(text), 0)
    } finally {
      disk.close(fd)
    }
    disk.rename(temporary, join(path, REMOTE))
  }

  close(nowMs: number): void {
    for (const writer of this.#recovering.values()) writer.close(nowMs)
    if (!this.#failing || this.#writeAgain(nowMs)) this.#writer.close(nowMs)
  }

  #fail(error: unknown, nowMs: number): void {
    this.#failures.push(error)
    this.#failing = true
    this.#retryAtMs = nowMs
    this.#writer.abandon()
  }

  /** Writes what no datasync covers to a new segment. */
  #writeAgain(nowMs: number): boolean {
    try {
      // A roll may have synced some of it before it failed.
      this.#unsynced = this.#unsynced.filter((g) => g.end.commits > this.#writer.synced.commits)
      const first = this.#unsynced[0]
      if (first !== undefined && first.start.commits > this.#writer.written.commits) this.#writer.skipTo(first.start)
      for (const group of this.#unsynced) this.#writer.write(group.bytes, group.end, nowMs)
      this.#writer.sync()
      this.#unsynced = []
      this.#failing = false
      return true
    } catch (error) {
      this.#failures.push(error)
      this.#writer.abandon()
      this.#retryAtMs = nowMs + RETRY_MS
      let bytes = this.#unsynced.reduce((sum, g) => sum + g.bytes.length, 0)
      while (bytes > BACKLOG_BYTES) bytes -= this.#unsynced.shift()!.bytes.length
      return false
    }
  }

  /** The chain of the last start, judged; what its successor's header says of it. */
  #previous(): Genesis['previous'] {
    const files = this.directory.chains().flatMap((incarnation) => this.directory.files(incarnation))
    const last = files.filter((f) => f.header.kind === 'own').reduce((a, f) => Math.max(a, f.number), 0)
    const file = files.find((f) => f.number === last)
    if (file === undefined) return noPrevious
    const { incarnation } = file.header.genesis
    const judged = this.directory.recover(incarnation)
    if (judged?.claimed === undefined || judged.state === undefined) return noPrevious
    const headerless = this.directory.damage.some((d) => d.code === 'CDR_HEADER_DAMAGED' && d.segment > file.path)
    const { commits, records, hash } = judged.claimed
    return { state: headerless ? 'damaged' : judged.state, incarnation, commits, records, hash }
  }

  #readRemote(): void {
    const { disk, path } = this.directory
    try {
      const stored = JSON.parse(disk.read(join(path, REMOTE)).toString('utf8')) as { chains?: Record<string, unknown> }
      for (const [incarnation, commits] of Object.entries(stored.chains ?? {}))
        if (Number.isSafeInteger(commits)) this.#remote.set(Number(incarnation), commits as number)
    } catch {
      // A hint: without it, more is sent than is needed.
    }
  }
}

/** The key that signs checkpoints, made at the first start. */
function signingKey(disk: Disk, path: string, nowMs: number): KeyObject {
  if (disk.list(path).includes(KEY)) return createPrivateKey(disk.read(join(path, KEY)))
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  replaceFile(disk, path, KEY, Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' })), nowMs, 0o600)
  replaceFile(disk, path, 'checkpoint.pub', Buffer.from(publicKey.export({ type: 'spki', format: 'pem' })), nowMs)
  return privateKey
}
