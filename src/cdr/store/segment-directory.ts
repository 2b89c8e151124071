import { join } from 'node:path'
import type { Fault } from '../../base/errors.ts'
import { type Judgement, judgeSegment } from '../recovery.ts'
import { COMMIT_BYTES, commitAt, MAX_GROUP_BYTES, recordAt, scan } from '../segment.ts'
import { decodeHeader, encodeHeader, type Genesis, HEADER_BYTES, type Position, type SegmentHeader } from '../segment-header.ts'
import type { Disk } from './disk.ts'

export interface SegmentFile {
  readonly name: string
  readonly path: string
  readonly number: number
  readonly header: SegmentHeader
}

/** Something of earlier starts that is not as it should be. */
export interface Damage {
  readonly segment: string
  readonly offset: number
  readonly record: number
  readonly code: string
  readonly detail: string
}

const NAME = /^([0-9]{8,15})\.cdr$/

export const segmentName = (number: number): string => `${String(number).padStart(8, '0')}.cdr`
export const segmentNumber = (name: string): number | undefined => {
  const match = NAME.exec(name)
  return match === null ? undefined : Number(match[1])
}

/** In the order of the groups; of two that begin at one place the later made supersedes the earlier. */
export const inChainOrder = (a: SegmentFile, b: SegmentFile): number =>
  a.header.start.commits - b.header.start.commits || a.number - b.number

/**
 * The segments of one directory: `own/`, or `mirror/<node>/`. Knows which chains are there and where each ends, reads ranges of groups, gives out
 * numbers. Headers are read once, at construction; segments made later are told by `add`.
 */
export class SegmentDirectory {
  readonly path: string
  readonly disk: Disk
  /** Found at construction; files with a broken header that hold groups are left alone. */
  readonly damage: Damage[] = []
  readonly setAside: string[] = []
  readonly #chains = new Map<number, SegmentFile[]>()
  readonly #ends = new Map<number, Position>()
  readonly #cursors = new Map<number, { commit: number; file: SegmentFile; offset: number }>()
  #next = 1

  constructor(disk: Disk, path: string) {
    this.disk = disk
    this.path = path
    disk.makeDirectory(path)
    for (const name of disk.list(path)) {
      const number = segmentNumber(name)
      if (number === undefined) continue
      this.#next = Math.max(this.#next, number + 1)
      const file = join(path, name)
      const header = decodeHeader(disk.readAt(file, 0, HEADER_BYTES))
      if (header.ok && header.value.number === number) this.add({ name, path: file, number, header: header.value })
      else this.#judgeHeaderless(name, file, header.ok ? undefined : header.fault)
    }
  }

  /** Chains by their newest segment, newest first. */
  chains(): number[] {
    const newest = (files: SegmentFile[]): number => files.reduce((max, f) => Math.max(max, f.number), 0)
    return [...this.#chains.entries()].sort((a, b) => newest(b[1]) - newest(a[1])).map(([incarnation]) => incarnation)
  }

  files(incarnation: number): readonly SegmentFile[] {
    return this.#chains.get(incarnation) ?? []
  }

  genesis(incarnation: number): Genesis | undefined {
    return this.#chains.get(incarnation)?.[0]?.header.genesis
  }

  bytes(incarnation: number): number {
    return this.files(incarnation).reduce((sum, f) => sum + this.disk.size(f.path), 0)
  }

  takeNumber(): number {
    return this.#next++
  }

  add(file: SegmentFile): void {
    const files = this.#chains.get(file.header.genesis.incarnation)
    if (files === undefined) this.#chains.set(file.header.genesis.incarnation, [file])
    else files.push(file)
    files?.sort(inChainOrder)
  }

  /** Where the sound groups of a chain end; reads its last segment the first time, and acts on what it finds there. */
  end(incarnation: number): Position | undefined {
    const known = this.#ends.get(incarnation)
    if (known !== undefined) return known
    const judged = this.recover(incarnation)
    return judged?.end
  }

  setEnd(incarnation: number, end: Position): void {
    this.#ends.set(incarnation, end)
  }

  /** Judges the last segment of a chain and does what FORMAT.md "Recovery" step 3 says; idempotent. */
  recover(incarnation: number): Judgement | undefined {
    const last = this.files(incarnation).at(-1)
    if (last === undefined) return undefined
    const bytes = this.disk.read(last.path)
    const judged = judgeSegment(bytes)
    if (judged.action === 'cut' || judged.action === 'cutAndReport') this.#cut(last, bytes, judged.endOffset)
    if (judged.action === 'seal' && bytes.length > judged.endOffset) this.#seal(last, judged.endOffset)
    if (judged.stop !== undefined && (judged.action === 'leave' || judged.action === 'cutAndReport')) {
      const { code, offset, detail } = judged.stop.fault
      this.damage.push({ segment: last.path, offset, record: judged.stop.record, code, detail: `${judged.name}: ${detail}` })
    }
    if (judged.end !== undefined) this.#ends.set(incarnation, judged.end)
    return judged
  }

  /**
   * Whole groups from commit `from` on, of one segment, at most `MAX_GROUP_BYTES`; empty when there are none. Framing is looked at, hashes are
   * not: who takes the groups verifies them.
   */
  readRange(incarnation: number, from: number): { groups: Buffer; next: number } {
    const nothing = { groups: Buffer.alloc(0), next: from }
    const place = this.#find(incarnation, from)
    if (place === undefined) return nothing
    const until = this.#supersededFrom(place.file)
    const bytes = this.disk.readAt(place.file.path, place.offset, MAX_GROUP_BYTES)
    let at = 0
    let next = from
    while (next < until) {
      const size = groupBytes(bytes, at, next)
      if (size === 0) break
      at += size
      next++
    }
    if (next === from) return nothing
    this.#cursors.set(incarnation, { commit: next, file: place.file, offset: place.offset + at })
    return { groups: bytes.subarray(0, at), next }
  }

  /** A header of kind own that begins at commit `commit`: what an OPEN or a RANGE carries. Undefined when that place is not here, or not sound. */
  headerAt(incarnation: number, commit: number, nowMs: number): Buffer | undefined {
    const file = this.#fileOf(incarnation, commit)
    if (file === undefined) return undefined
    const { genesis, sizeBytes, start } = file.header
    let position = start
    if (start.commits < commit) {
      const found = scan(this.disk.read(file.path), HEADER_BYTES, start, { until: commit })
      position = found.end
    }
    if (position.commits !== commit || position.frontier === undefined) return undefined
    return encodeHeader({ kind: 'own', number: file.number, createdMs: nowMs, sizeBytes, genesis, start: position })
  }

  #find(incarnation: number, commit: number): { file: SegmentFile; offset: number } | undefined {
    const file = this.#fileOf(incarnation, commit)
    if (file === undefined) return undefined
    const cursor = this.#cursors.get(incarnation)
    let offset = HEADER_BYTES
    let number = file.header.start.commits
    if (cursor !== undefined && cursor.file === file && cursor.commit <= commit) {
      offset = cursor.offset
      number = cursor.commit
    }
    if (number === commit) return { file, offset }
    const bytes = this.disk.read(file.path)
    for (; number < commit; number++) {
      const size = groupBytes(bytes, offset, number)
      if (size === 0) return undefined
      offset += size
    }
    return { file, offset }
  }

  /** The segment in which a commit is to be looked for: the last that begins at or before it. */
  #fileOf(incarnation: number, commit: number): SegmentFile | undefined {
    return this.files(incarnation).findLast((f) => f.header.start.commits <= commit)
  }

  #supersededFrom(file: SegmentFile): number {
    const next = this.files(file.header.genesis.incarnation).find((f) => f.header.start.commits > file.header.start.commits)
    return next?.header.start.commits ?? Number.POSITIVE_INFINITY
  }

  #judgeHeaderless(name: string, path: string, found: Fault | undefined): void {
    const judged = found === undefined ? undefined : judgeSegment(this.disk.read(path))
    if (judged?.action === 'setAside') {
      const aside = this.#aside()
      this.disk.rename(path, join(aside, name))
      this.disk.syncDirectory(aside)
      this.disk.syncDirectory(this.path)
      this.setAside.push(name)
      return
    }
    const detail = found?.detail ?? 'the number in the header is not that of the name'
    this.damage.push({ segment: path, offset: 0, record: -1, code: 'CDR_HEADER_DAMAGED', detail })
  }

  /** Copies the tail, durably, before it is cut: nothing that anyone might want back is destroyed. */
  #cut(file: SegmentFile, bytes: Buffer, endOffset: number): void {
    const aside = this.#aside()
    const path = join(aside, `${file.name.slice(0, -4)}-${endOffset}.tail`)
    this.disk.remove(path)
    const fd = this.disk.create(path)
    try {
      let end = bytes.length
      while (end > endOffset && bytes[end - 1] === 0) end--
      this.disk.write(fd, bytes.subarray(endOffset, end), 0)
      this.disk.sync(fd)
    } finally {
      this.disk.close(fd)
    }
    this.disk.syncDirectory(aside)
    this.#seal(file, endOffset)
  }

  #seal(file: SegmentFile, endOffset: number): void {
    const fd = this.disk.open(file.path)
    try {
      this.disk.truncate(fd, endOffset)
      this.disk.sync(fd)
    } finally {
      this.disk.close(fd)
    }
  }

  #aside(): string {
    const aside = join(this.path, 'aside')
    this.disk.makeDirectory(aside)
    return aside
  }
}

/** Bytes of the group with that commit number at `at`, or 0 when it is not whole there. */
export function groupBytes(b: Buffer, at: number, commit: number): number {
  let end = at
  for (let record = recordAt(b, end); record !== undefined; record = recordAt(b, end)) end += record.bytes
  const frame = end > at ? commitAt(b, end) : undefined
  return frame?.number === commit ? end + COMMIT_BYTES - at : 0
}
