import { createPublicKey, type KeyObject } from 'node:crypto'
import { open, readFile } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import type { CdrPart } from '../call-record.ts'
import { decodeHeader, HEADER_BYTES, type Position, type SegmentHeader } from '../segment-header.ts'
import { type JournalError, type KnownEnd, type SegmentContext, type SegmentVerdict, verifySegment } from '../verify.ts'
import { names, readPartsOf, segmentDirectories } from './reader.ts'
import { inChainOrder, segmentNumber } from './segment-directory.ts'

export type { JournalError } from '../verify.ts'

export interface JournalReport {
  readonly segments: number
  /** Sound ones. */
  readonly records: number
  readonly commits: number
  readonly errors: readonly JournalError[]
  /** Faults in bytes that a later segment supersedes (a failed disk, damage mended from a mirror): nothing is lost by them. */
  readonly superseded: readonly JournalError[]
}

interface Found {
  readonly name: string
  readonly path: string
  readonly number: number
  readonly header: SegmentHeader
}

const LOOKS = 5
const LOOK_AGAIN_MS = 100

/**
 * Verifies every segment under a journal's directory (`<state>/cdr`, or one directory of segments), own and mirrored. Names file, offset and record of each
 * fault; never throws for what it finds in files. Safe beside a node that writes.
 */
export async function verifyDirectory(dir: string): Promise<JournalReport> {
  const report = { segments: 0, records: 0, commits: 0, errors: [] as JournalError[], superseded: [] as JournalError[] }
  for (const directory of await segmentDirectories(dir)) {
    const chains = new Map<number, Found[]>()
    const files = (await names(directory)).filter((name) => segmentNumber(name) !== undefined)
    const key = await publicKey(directory)
    const checkpoints = new Set((await names(directory)).filter((name) => name.endsWith('.checkpoint')))
    for (const file of files) {
      report.segments++
      const path = join(directory, file)
      const name = relative(dir, path)
      const number = segmentNumber(file)!
      const header = await readHeader(path)
      if (header === undefined) {
        // Perhaps one that is being made just now.
        report.errors.push(...(await look(name, path, {})).errors.slice(0, 1))
        continue
      }
      if (header.number !== number)
        report.errors.push({
          segment: name,
          offset: 16,
          record: -1,
          code: 'CDR_HEADER_DAMAGED',
          detail: `it says that it is segment ${header.number}`,
        })
      const { incarnation } = header.genesis
      chains.set(incarnation, [...(chains.get(incarnation) ?? []), { name, path, number, header }])
    }
    const knownEnds = endsNamedByLaterChains(chains)
    for (const [incarnation, { by, commits }] of knownEnds) {
      // A mirror need not have the chain before the first that it was sent.
      const owner = basename(directory) === 'own'
      if (owner && commits > 0 && !chains.has(incarnation))
        report.errors.push({
          segment: by,
          offset: 104,
          record: -1,
          code: 'CDR_CHAIN_MISSING',
          detail: `it follows chain ${incarnation} with ${commits} commits, of which there is no segment`,
        })
    }
    for (const [incarnation, segments] of chains) {
      segments.sort(inChainOrder)
      let end: Position | undefined
      const first = segments[0]!
      if (basename(directory) === 'own' && first.header.start.commits > 0)
        report.errors.push({
          segment: first.name,
          offset: 0,
          record: first.header.start.records,
          code: 'CDR_GAP',
          detail: `commits 0 to ${first.header.start.commits - 1} are in no file`,
        })
      for (const [i, segment] of segments.entries()) {
        const successor = segments[i + 1]?.header
        const note = `${basename(segment.path).slice(0, -4)}.checkpoint`
        const verdict = await look(segment.name, segment.path, {
          successor,
          predecessorEnd: end?.commits === segment.header.start.commits ? end : undefined,
          knownEnd:
            successor === undefined || inside(segment, successor, knownEnds.get(incarnation))
              ? knownEnds.get(incarnation)
              : undefined,
          key,
          checkpoint: checkpoints.has(note)
            ? { name: relative(dir, join(directory, note)), note: await readFile(join(directory, note), 'utf8') }
            : undefined,
        })
        report.records += verdict.records
        report.commits += verdict.commits
        report.errors.push(...verdict.errors)
        report.superseded.push(...verdict.superseded)
        // Where the chain broke already, the next segment is not blamed for it too.
        end = verdict.errors.length === 0 ? verdict.end : undefined
      }
    }
  }
  return report
}

/** The parts of a journal's directory, own and mirrored, newest first. For a node that is down; a running one answers by its admin API. */
export const readParts = (dir: string): Promise<CdrPart[]> => readPartsOf(dir)

/** Verifies one file; what may be a write under way is looked at again before it is called a fault. */
async function look(name: string, path: string, context: SegmentContext): Promise<SegmentVerdict> {
  let verdict: SegmentVerdict
  for (let looks = 1; ; looks++) {
    verdict = verifySegment(name, await readFile(path), context)
    if (!verdict.tailOnly || context.successor !== undefined || looks >= LOOKS) return verdict
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS))
  }
}

const inside = (segment: Found, successor: SegmentHeader, known: KnownEnd | undefined): boolean =>
  known !== undefined && known.commits >= segment.header.start.commits && known.commits <= successor.start.commits

/** For each chain what the newest header that follows it says of its end. */
function endsNamedByLaterChains(chains: ReadonlyMap<number, readonly Found[]>): Map<number, KnownEnd> {
  const ends = new Map<number, KnownEnd>()
  for (const segments of chains.values()) {
    const { previous } = segments[0]!.header.genesis
    if (previous.incarnation !== 0)
      ends.set(previous.incarnation, { by: segments[0]!.name, commits: previous.commits, hash: previous.hash })
  }
  return ends
}

async function readHeader(path: string): Promise<SegmentHeader | undefined> {
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0)
    const header = decodeHeader(buffer.subarray(0, bytesRead))
    return header.ok ? header.value : undefined
  } finally {
    await file.close()
  }
}

async function publicKey(directory: string): Promise<KeyObject | undefined> {
  try {
    return createPublicKey(await readFile(join(directory, 'checkpoint.pub')))
  } catch {
    // Checkpoints that cannot be checked are reported one by one.
    return undefined
  }
}
