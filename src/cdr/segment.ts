import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { type Fault, fault } from '../base/errors.ts'
import { HASH_BYTES, leafHash, TreeHead } from './merkle.ts'
import type { Position } from './segment-header.ts'

export const RECORD_HEAD_BYTES = 48
export const COMMIT_BYTES = 112
export const MAX_PAYLOAD_BYTES = 131_072
export const MAX_GROUP_BYTES = 262_144
export const MAX_GROUP_RECORDS = 4096

const RECORD_MAGIC = 0x43445272 // CDRr
const COMMIT_MAGIC = 0x43445263 // CDRc

const padded = (bytes: number): number => (bytes + 7) & ~7
/** Bytes that a payload takes in a group. */
export const recordBytes = (payload: Uint8Array): number => padded(RECORD_HEAD_BYTES + payload.length)

export interface Group {
  readonly bytes: Buffer
  /** Where the chain stands after it. */
  readonly end: Position
}

/**
 * Closes `payloads` into one group that follows `start`. The caller keeps to the bounds: 1 to `MAX_GROUP_RECORDS` payloads of 1 to
 * `MAX_PAYLOAD_BYTES`, together at most `MAX_GROUP_BYTES` with the commit frame.
 */
export function buildGroup(start: Position, payloads: readonly Uint8Array[], nowMs: number): Group {
  if (start.frontier === undefined || payloads.length === 0) throw new RangeError('a group needs records and a known frontier')
  const recordsBytes = payloads.reduce((sum, p) => sum + recordBytes(p), 0)
  const out = Buffer.alloc(recordsBytes + COMMIT_BYTES)
  const tree = new TreeHead(start.records, start.frontier)
  let at = 0
  let hash = start.hash
  for (const payload of payloads) {
    out.writeUInt32BE(RECORD_MAGIC, at)
    out.writeUInt32BE(payload.length, at + 4)
    out.writeBigUInt64BE(BigInt(tree.size), at + 8)
    hash = chained(hash, out.subarray(at, at + 16), payload)
    out.set(hash, at + 16)
    out.set(payload, at + RECORD_HEAD_BYTES)
    tree.append(leafHash(payload))
    at += recordBytes(payload)
  }
  const commit = out.subarray(at)
  commit.writeUInt32BE(COMMIT_MAGIC, 0)
  commit.writeUInt32BE(payloads.length, 4)
  commit.writeBigUInt64BE(BigInt(start.commits), 8)
  commit.writeBigUInt64BE(BigInt(start.records), 16)
  commit.writeBigUInt64BE(BigInt(recordsBytes), 24)
  commit.writeBigUInt64BE(BigInt(nowMs), 32)
  commit.set(tree.root(), 40)
  hash = chained(hash, commit.subarray(0, 72))
  commit.set(hash, 72)
  commit.writeUInt32BE(crc32(commit.subarray(0, 104)), 104)
  return { bytes: out, end: { commits: start.commits + 1, records: tree.size, hash, frontier: tree.frontier() } }
}

/** What a commit frame says of itself; its CRC fits, nothing else is proven. */
export interface CommitFrame {
  readonly offset: number
  readonly records: number
  readonly number: number
  readonly firstRecord: number
  readonly recordsBytes: number
  readonly atMs: number
  readonly root: Uint8Array
  readonly hash: Uint8Array
}

/** The commit frame at `at`, or undefined when there is none with a good CRC. */
export function commitAt(b: Buffer, at: number): CommitFrame | undefined {
  if (at + COMMIT_BYTES > b.length || b.readUInt32BE(at) !== COMMIT_MAGIC) return undefined
  if (crc32(b.subarray(at, at + 104)) !== b.readUInt32BE(at + 104) || b.readUInt32BE(at + 108) !== 0) return undefined
  const [number, firstRecord, recordsBytes, atMs] = [8, 16, 24, 32].map((o) => Number(b.readBigUInt64BE(at + o))) as [
    number,
    number,
    number,
    number,
  ]
  return {
    offset: at,
    records: b.readUInt32BE(at + 4),
    number,
    firstRecord,
    recordsBytes,
    atMs,
    root: b.subarray(at + 40, at + 72),
    hash: b.subarray(at + 72, at + 104),
  }
}

/** Commit frames with a good CRC from `from` (a multiple of 8) on, whatever lies between them. */
export function* commitsFrom(b: Buffer, from: number): Generator<CommitFrame> {
  for (let at = padded(from); at + COMMIT_BYTES <= b.length; at += 8) {
    const commit = commitAt(b, at)
    if (commit !== undefined) yield commit
  }
}

export interface RecordFrame {
  readonly number: number
  readonly offset: number
  readonly bytes: number
  readonly payload: Buffer
  readonly hash: Buffer
}

/** The record frame at `at` as far as its form goes (hash and number are not looked at), or undefined when there is none. */
export function recordAt(b: Buffer, at: number): RecordFrame | undefined {
  if (at + RECORD_HEAD_BYTES > b.length || b.readUInt32BE(at) !== RECORD_MAGIC) return undefined
  const length = b.readUInt32BE(at + 4)
  const bytes = padded(RECORD_HEAD_BYTES + length)
  if (length === 0 || length > MAX_PAYLOAD_BYTES || at + bytes > b.length) return undefined
  for (let i = at + RECORD_HEAD_BYTES + length; i < at + bytes; i++) if (b[i] !== 0) return undefined
  return {
    number: Number(b.readBigUInt64BE(at + 8)),
    offset: at,
    bytes,
    payload: b.subarray(at + RECORD_HEAD_BYTES, at + RECORD_HEAD_BYTES + length),
    hash: b.subarray(at + 16, at + 16 + HASH_BYTES),
  }
}

/** What a record's hash must be behind a frame with the hash `before`. */
export const recordHash = (before: Uint8Array, b: Buffer, r: RecordFrame): Buffer =>
  chained(before, b.subarray(r.offset, r.offset + 16), r.payload)

/** The first frame that does not fit: `fault` has its code, offset and what is wrong; `record` the number of the record to blame. */
export interface Stop {
  readonly record: number
  readonly fault: Fault
}

export interface Scan {
  /** After the last group that is sound. */
  readonly end: Position
  /** Offset after that group. */
  readonly endOffset: number
  readonly stop: Stop | undefined
}

export interface ScanHooks {
  /** Called after each sound group with its own offsets. */
  group?(end: Position, from: number, to: number): void
  /** Called for each record of a sound group, in order. */
  record?(record: RecordFrame): void
  /** Groups from this commit number on are not looked at. */
  until?: number
}

/**
 * Verifies groups from `from` on against `start`: framing, numbers, chain hash, Merkle root (where the frontier is known) and zeros. Ends without
 * a `stop` at the end of the bytes, or where only zeros follow.
 */
export function scan(b: Buffer, from: number, start: Position, hooks: ScanHooks = {}): Scan {
  let end = start
  let endOffset = from
  const done = (code?: string, offset = 0, record = -1, detail = ''): Scan => ({
    end,
    endOffset,
    stop: code === undefined ? undefined : { record, fault: fault(code, detail, offset) },
  })
  while (endOffset < b.length && end.commits < (hooks.until ?? Number.POSITIVE_INFINITY)) {
    const tree = end.frontier === undefined ? undefined : new TreeHead(end.records, end.frontier)
    const records: RecordFrame[] = []
    let at = endOffset
    let hash = end.hash
    let number = end.records
    for (;;) {
      const record = recordAt(b, at)
      if (record === undefined) break
      if (record.number !== number)
        return done('CDR_RECORD_DAMAGED', at, number, `record ${number} was to come, not ${record.number}`)
      hash = recordHash(hash, b, record)
      if (!record.hash.equals(hash)) return done('CDR_RECORD_DAMAGED', at, number, 'the chain hash does not fit')
      tree?.append(leafHash(record.payload))
      records.push(record)
      at += record.bytes
      number++
    }
    if (records.length === 0) {
      const dirt = firstNonZero(b, at)
      if (dirt < 0) return done()
      // A frame begins with its magic: bytes past four zeros are dirt in the preallocated room.
      if (dirt >= at + 4) return done('CDR_TAIL_UNCOMMITTED', dirt, number, 'not zero, after the last commit')
    }
    const commit = commitAt(b, at)
    if (commit === undefined) return done(...notAFrame(b, at, number, { start: end, from: endOffset }))
    const last = number - 1
    if (
      records.length === 0 ||
      commit.records !== records.length ||
      commit.number !== end.commits ||
      commit.firstRecord !== end.records ||
      commit.recordsBytes !== at - endOffset
    )
      return done('CDR_COMMIT_DAMAGED', at, last, `commit ${commit.number} does not close these ${records.length} records`)
    hash = chained(hash, b.subarray(at, at + 72))
    if (Buffer.compare(hash, commit.hash) !== 0)
      return done('CDR_COMMIT_DAMAGED', at, last, `the chain hash of commit ${commit.number} does not fit`)
    if (tree !== undefined && !tree.root().equals(commit.root))
      return done('CDR_ROOT_WRONG', at, last, `the Merkle root of commit ${commit.number} is not that of the records`)
    const groupOffset = endOffset
    endOffset = at + COMMIT_BYTES
    end = { commits: end.commits + 1, records: number, hash, frontier: tree?.frontier() }
    if (hooks.record !== undefined) for (const record of records) hooks.record(record)
    hooks.group?.(end, groupOffset, endOffset)
  }
  return done()
}

/**
 * Neither a sound record nor a sound commit is at `at`: which of the two was it to be? The magic may be what is damaged, so a commit is told by the
 * fields that its group determines: one flipped byte leaves four of the five.
 */
function notAFrame(
  b: Buffer,
  at: number,
  number: number,
  group: { readonly start: Position; readonly from: number },
): [string, number, number, string] {
  const { start, from } = group
  let fits = 0
  if (number > start.records && at + COMMIT_BYTES <= b.length) {
    if (b.readUInt32BE(at + 4) === number - start.records) fits++
    if (b.readBigUInt64BE(at + 8) === BigInt(start.commits)) fits++
    if (b.readBigUInt64BE(at + 16) === BigInt(start.records)) fits++
    if (b.readBigUInt64BE(at + 24) === BigInt(at - from)) fits++
    if (b.readUInt32BE(at + 108) === 0) fits++
  }
  return fits >= 3
    ? ['CDR_COMMIT_DAMAGED', at, number - 1, 'a commit frame was to be here; its form or CRC does not fit']
    : ['CDR_RECORD_DAMAGED', at, number, 'a record frame was to be here; its form does not fit']
}

/** Offset of the first byte from `from` on that is not zero, or -1. */
export function firstNonZero(b: Buffer, from: number): number {
  for (let at = from; at < b.length; at += ZEROS.length) {
    const length = Math.min(ZEROS.length, b.length - at)
    if (b.compare(ZEROS, 0, length, at, at + length) !== 0) {
      for (let i = at; ; i++) if (b[i] !== 0) return i
    }
  }
  return -1
}

const ZEROS = Buffer.alloc(65_536)

function chained(before: Uint8Array, ...parts: readonly Uint8Array[]): Buffer {
  const h = createHash('sha256').update(before)
  for (const part of parts) h.update(part)
  return h.digest()
}
