import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CdrPart } from '../call-record.ts'
import { decodePart } from '../part-codec.ts'
import { COMMIT_BYTES, commitAt, commitsFrom, type RecordFrame, recordAt, recordHash } from '../segment.ts'
import { decodeHeader, HEADER_BYTES } from '../segment-header.ts'
import { segmentNumber } from './segment-directory.ts'

export interface CdrFilter {
  /** At most so many parts, the newest; 100,000 unless given. */
  readonly limit?: number
  /** Parts that happened before this are left out. */
  readonly sinceMs?: number
  /** Of this call only. */
  readonly id?: string
}

const DEFAULT_LIMIT = 100_000
const SLICE = 500

/** The directories with segments under `dir`: itself, or `own` and `mirror/*` of a journal's directory. */
export async function segmentDirectories(dir: string): Promise<string[]> {
  if ((await names(dir)).some((name) => segmentNumber(name) !== undefined)) return [dir]
  const mirrors = (await names(join(dir, 'mirror'))).map((node) => join(dir, 'mirror', node))
  const found: string[] = []
  for (const candidate of [join(dir, 'own'), ...mirrors])
    if ((await names(candidate)).some((name) => segmentNumber(name) !== undefined)) found.push(candidate)
  return found
}

/** Names in a directory, sorted; none when it is not there. */
export async function names(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw error
  }
}

/**
 * The parts of all segments under a journal's directory, newest segments first; each record of a chain once, wherever copies of it lie. Reads what is
 * committed, by framing alone (hashes are `verifyDirectory`'s), also past damage and while a journal thread writes. Yields to the event loop.
 */
export async function readPartsOf(dir: string, filter: CdrFilter = {}): Promise<CdrPart[]> {
  const limit = filter.limit ?? DEFAULT_LIMIT
  const files: { path: string; createdMs: number }[] = []
  for (const directory of await segmentDirectories(dir)) {
    for (const name of await names(directory)) {
      if (segmentNumber(name) === undefined) continue
      const path = join(directory, name)
      files.push({ path, createdMs: await createdMs(path) })
    }
  }
  files.sort((a, b) => b.createdMs - a.createdMs || (a.path < b.path ? 1 : -1))
  const seen = new Set<string>()
  const parts: CdrPart[] = []
  for (const { path } of files) {
    if (parts.length >= limit) break
    // Gone between listing and reading, or unreadable: the other copies are read all the same.
    const bytes = await readFile(path).catch(() => undefined)
    if (bytes === undefined) continue
    const chain = chainKey(bytes, path)
    const records = committedRecords(bytes)
    for (let i = records.length - 1; i >= 0 && parts.length < limit; i--) {
      if (i % SLICE === 0) await new Promise((resolve) => setImmediate(resolve))
      const key = `${chain}:${records[i]!.number}`
      if (seen.has(key)) continue
      const part = decodePart(records[i]!.payload)
      if (!part.ok) continue
      seen.add(key)
      if (filter.sinceMs !== undefined && part.value.atMs < filter.sinceMs) continue
      if (filter.id !== undefined && part.value.id !== filter.id) continue
      parts.push(part.value)
    }
  }
  return parts.sort((a, b) => b.atMs - a.atMs)
}

async function createdMs(path: string): Promise<number> {
  try {
    const file = await open(path)
    try {
      const { buffer } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0)
      const header = decodeHeader(buffer)
      return header.ok ? header.value.createdMs : 0
    } finally {
      await file.close()
    }
  } catch {
    return 0
  }
}

function chainKey(bytes: Buffer, path: string): string {
  const header = decodeHeader(bytes)
  return header.ok ? `${header.value.genesis.node}/${header.value.genesis.incarnation}` : path
}

/**
 * Records of whole groups in the order of the file, those whose own hash fits: a record that rotted is no statement of anybody. After a bad
 * frame it goes on behind the next commit frame.
 */
export function committedRecords(b: Buffer): RecordFrame[] {
  const header = decodeHeader(b)
  const out: RecordFrame[] = []
  let before: Uint8Array | undefined = header.ok ? header.value.start.hash : undefined
  let at = HEADER_BYTES
  let group: RecordFrame[] = []
  while (at < b.length) {
    const record = recordAt(b, at)
    if (record !== undefined) {
      if (before !== undefined && Buffer.compare(recordHash(before, b, record), record.hash) === 0) group.push(record)
      before = record.hash
      at += record.bytes
      continue
    }
    const commit = commitAt(b, at) ?? commitsFrom(b, at).next().value
    if (commit === undefined) break
    // Of a group with a bad frame the records before that frame are still whole.
    for (const r of group) if (r.number >= commit.firstRecord && r.number < commit.firstRecord + commit.records) out.push(r)
    group = []
    before = commit.hash
    at = commit.offset + COMMIT_BYTES
  }
  return out
}
