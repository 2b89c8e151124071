import type { KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { chainOrigin, signCheckpoint } from '../checkpoint.ts'
import { TreeHead } from '../merkle.ts'
import { encodeHeader, type Genesis, HEADER_BYTES, type Position, type SegmentKind } from '../segment-header.ts'
import { type SegmentDirectory, type SegmentFile, segmentName } from './segment-directory.ts'

export interface ChainWriterOptions {
  readonly directory: SegmentDirectory
  readonly kind: SegmentKind
  readonly genesis: Genesis
  /** Where the next group goes; its frontier must be known. */
  readonly start: Position
  readonly segmentBytes: number
  /** Signs a checkpoint at roll and close; only the owner has a key. */
  readonly key?: KeyObject
}

interface OpenSegment {
  readonly file: SegmentFile
  readonly fd: number
  readonly sizeBytes: number
  offset: number
}

const ZEROS = Buffer.alloc(1024 * 1024)

/**
 * Appends groups of one chain to preallocated segments of one directory. Any error is fatal to the segment at hand: the caller then calls
 * `abandon(synced)` and may go on, in a new segment that begins at the last synced position.
 */
export class ChainWriter {
  readonly #o: ChainWriterOptions
  #segment: OpenSegment | undefined
  #written: Position
  #synced: Position
  /** Checkpoints that could not be written; they are not worth a segment. */
  checkpointFailures = 0

  constructor(o: ChainWriterOptions) {
    this.#o = o
    this.#written = o.start
    this.#synced = o.start
  }

  get genesis(): Genesis {
    return this.#o.genesis
  }

  /** After the last group written. */
  get written(): Position {
    return this.#written
  }

  /** After the last group that a datasync covers. */
  get synced(): Position {
    return this.#synced
  }

  /** Bytes still free in the segment at hand. */
  get room(): number {
    return this.#segment === undefined ? 0 : this.#segment.sizeBytes - this.#segment.offset
  }

  /** Makes the segment that the next group goes to, header and zeros durable, name durable. */
  open(nowMs: number, atLeastBytes = 0): void {
    const { directory, kind, genesis } = this.#o
    const { disk } = directory
    const number = directory.takeNumber()
    const name = segmentName(number)
    const path = join(directory.path, name)
    const sizeBytes = Math.max(this.#o.segmentBytes, HEADER_BYTES + atLeastBytes)
    const header = { kind, number, createdMs: nowMs, sizeBytes, genesis, start: this.#written }
    let fd: number | undefined
    try {
      fd = disk.create(path)
      disk.write(fd, encodeHeader(header), 0)
      for (let at = HEADER_BYTES; at < sizeBytes; at += ZEROS.length)
        disk.write(fd, ZEROS.subarray(0, Math.min(ZEROS.length, sizeBytes - at)), at)
      disk.sync(fd)
      disk.syncDirectory(directory.path)
    } catch (error) {
      // Nothing was written to it yet: it can go, or a full disk would fill with such files.
      ignoreErrors(() => {
        if (fd !== undefined) disk.close(fd)
        disk.remove(path)
      })
      throw error
    }
    const file = { name, path, number, header }
    directory.add(file)
    this.#segment = { file, fd, sizeBytes, offset: HEADER_BYTES }
  }

  /** Writes a group that follows `written`, in a new segment where this one has no room. Durable after `sync`. */
  write(bytes: Uint8Array, end: Position, nowMs: number): void {
    if (this.#segment === undefined) this.open(nowMs, bytes.length)
    else if (this.room < bytes.length) this.#roll(nowMs, bytes.length)
    const segment = this.#segment!
    this.#o.directory.disk.write(segment.fd, bytes, segment.offset)
    segment.offset += bytes.length
    this.#written = end
  }

  sync(): void {
    if (this.#segment !== undefined && this.#synced !== this.#written) this.#o.directory.disk.datasync(this.#segment.fd)
    this.#synced = this.#written
    this.#o.directory.setEnd(this.#o.genesis.incarnation, this.#synced)
  }

  /** After an error: the segment is never written again, and only what was synced counts. */
  abandon(): void {
    const segment = this.#segment
    this.#segment = undefined
    this.#written = this.#synced
    if (segment !== undefined) ignoreErrors(() => this.#o.directory.disk.close(segment.fd))
  }

  /** Goes on behind groups that are in no segment of this directory (dropped while the disk failed). */
  skipTo(position: Position): void {
    this.#written = position
    this.#synced = position
  }

  /** Syncs, cuts the segment to its last commit and signs it off. */
  close(nowMs: number): void {
    if (this.#segment === undefined) return
    this.sync()
    this.#seal(this.#segment, nowMs)
    this.#segment = undefined
  }

  #roll(nowMs: number, bytes: number): void {
    const full = this.#segment!
    // What is in the full one must be durable before a group in the next one can be.
    this.sync()
    this.#segment = undefined
    try {
      this.open(nowMs, bytes)
    } catch (error) {
      ignoreErrors(() => this.#o.directory.disk.close(full.fd))
      throw error
    }
    this.#seal(full, nowMs)
  }

  #seal(segment: OpenSegment, nowMs: number): void {
    const { disk, path } = this.#o.directory
    // Everything in it is synced: a failure here loses nothing, the zeros just stay.
    ignoreErrors(() => {
      disk.truncate(segment.fd, segment.offset)
      disk.sync(segment.fd)
    })
    ignoreErrors(() => disk.close(segment.fd))
    if (this.#o.key === undefined) return
    const { records, frontier } = this.#synced
    const note = signCheckpoint(
      { origin: chainOrigin(this.#o.genesis), size: records, root: new TreeHead(records, frontier).root() },
      this.#o.key,
    )
    try {
      replaceFile(disk, path, segment.file.name.replace(/\.cdr$/, '.checkpoint'), Buffer.from(note, 'utf8'), nowMs)
    } catch {
      this.checkpointFailures++
    }
  }
}

/** Writes a small file whole, durably, in place of what was there. */
export function replaceFile(
  disk: SegmentDirectory['disk'],
  directory: string,
  name: string,
  bytes: Uint8Array,
  nowMs: number,
  mode = 0o640,
): void {
  const temporary = join(directory, `${name}.${nowMs}.tmp`)
  disk.remove(temporary)
  const fd = disk.create(temporary, mode)
  try {
    disk.write(fd, bytes, 0)
    disk.sync(fd)
  } finally {
    disk.close(fd)
  }
  disk.rename(temporary, join(directory, name))
  disk.syncDirectory(directory)
}

/** For clean-up after a failure that is reported already. */
function ignoreErrors(action: () => void): void {
  try {
    action()
  } catch {}
}
