import type { KeyObject } from 'node:crypto'
import { chainOrigin, openCheckpoint } from './checkpoint.ts'
import { TreeHead } from './merkle.ts'
import { COMMIT_BYTES, type CommitFrame, commitsFrom, type Stop, scan } from './segment.ts'
import { decodeHeader, HEADER_BYTES, type Position, type SegmentHeader } from './segment-header.ts'

/** One damaged place: which file, where in it, and which record of the chain it is about (-1 where no record is to blame). */
export interface JournalError {
  readonly segment: string
  readonly offset: number
  readonly record: number
  readonly code: string
  readonly detail: string
}

/** What is known, from elsewhere, of how far a chain was committed: a later chain's header. */
export interface KnownEnd {
  readonly by: string
  readonly commits: number
  readonly hash: Uint8Array
}

export interface SegmentContext {
  /** The segment of the same chain that comes next, if there is one: what lies past its beginning is superseded. */
  readonly successor?: SegmentHeader | undefined
  /** The position where this segment must begin, when its predecessor was sound. */
  readonly predecessorEnd?: Position | undefined
  readonly knownEnd?: KnownEnd | undefined
  readonly checkpoint?: { readonly name: string; readonly note: string } | undefined
  readonly key?: KeyObject | undefined
}

export interface SegmentVerdict {
  readonly header: SegmentHeader | undefined
  /** Sound groups and records, up to where the successor begins. */
  readonly commits: number
  readonly records: number
  readonly errors: readonly JournalError[]
  /** In bytes that no reader looks at, because a later segment has those groups. */
  readonly superseded: readonly JournalError[]
  /** Where the chain stands at the end of this segment; undefined when the header is broken. */
  readonly end: Position | undefined
  /** The only fault is a tail that may be a write under way. */
  readonly tailOnly: boolean
}

/** Verifies one segment file and how it meets what is around it. Pure over bytes; FORMAT.md "Verification". */
export function verifySegment(name: string, bytes: Buffer, context: SegmentContext = {}): SegmentVerdict {
  const decoded = decodeHeader(bytes)
  if (!decoded.ok) {
    const { code, offset, detail } = decoded.fault
    const error = { segment: name, offset, record: -1, code, detail }
    return {
      header: undefined,
      commits: 0,
      records: 0,
      errors: [error],
      superseded: [],
      end: undefined,
      tailOnly: !hasCommits(bytes),
    }
  }
  const header = decoded.value
  const errors: JournalError[] = []
  const superseded: JournalError[] = []
  const report = (offset: number, record: number, code: string, detail: string): void => {
    errors.push({ segment: name, offset, record, code, detail })
  }
  const { successor, predecessorEnd, knownEnd } = context
  if (predecessorEnd !== undefined && !meets(predecessorEnd, header.start))
    report(0, header.start.records, 'CDR_CHAIN_BROKEN', 'it does not go on where the segment before it ends')

  let commits = 0
  let records = 0
  let knownHash: Uint8Array | undefined = knownEnd?.commits === header.start.commits ? header.start.hash : undefined
  const until = successor?.start.commits
  const hooks = {
    ...(until === undefined ? {} : { until }),
    group: (end: Position) => {
      commits++
      if (end.commits === knownEnd?.commits) knownHash = end.hash
    },
    record: () => {
      records++
    },
  }
  let position = header.start
  let offset = HEADER_BYTES
  let tail: Stop | undefined
  for (;;) {
    const found = scan(bytes, offset, position, hooks)
    position = found.end
    offset = found.endOffset
    if (found.stop === undefined) break
    const next = nextCommit(bytes, found.endOffset, found.end)
    if (next === undefined) {
      tail = found.stop
      break
    }
    reportStop(found.stop, report)
    position = {
      commits: next.number + 1,
      records: next.firstRecord + next.records,
      hash: Uint8Array.from(next.hash),
      frontier: undefined,
    }
    offset = next.offset + COMMIT_BYTES
    if (position.commits === knownEnd?.commits) knownHash = position.hash
    if (until !== undefined && position.commits >= until) break
  }

  const checkpoint = readCheckpoint(context, header, report)
  const shortOf = shortage(position, context, checkpoint?.size)
  if (tail !== undefined) {
    const { code, offset: at, detail } = tail.fault
    if (shortOf === undefined) report(at, tail.record, 'CDR_TAIL_UNCOMMITTED', `after the last commit, at ${offset}: ${detail}`)
    else report(at, tail.record, code, `${detail}; ${shortOf.detail}`)
  } else if (shortOf !== undefined) report(offset, position.records, shortOf.code, shortOf.detail)
  else if (until !== undefined && successor !== undefined) {
    if (position.commits === until && !meets(position, successor.start))
      report(offset, position.records, 'CDR_CHAIN_BROKEN', 'the next segment does not go on where this one ends')
    // Not looked at by any reader; said all the same.
    const rest = scan(bytes, offset, position)
    if (rest.stop !== undefined)
      reportStop(rest.stop, (at, record, code, detail) => superseded.push({ segment: name, offset: at, record, code, detail }))
  }
  if (knownEnd !== undefined && knownHash !== undefined && Buffer.compare(knownHash, knownEnd.hash) !== 0)
    report(offset, position.records, 'CDR_CHAIN_BROKEN', `${knownEnd.by} names another hash for commit ${knownEnd.commits}`)
  if (checkpoint !== undefined && checkpoint.size === position.records && position.frontier !== undefined) {
    if (!new TreeHead(position.records, position.frontier).root().equals(checkpoint.root))
      report(offset, position.records, 'CDR_CHECKPOINT_BAD', `${context.checkpoint?.name} has another root`)
  } else if (checkpoint !== undefined && checkpoint.size < position.records)
    report(
      offset,
      position.records,
      'CDR_CHECKPOINT_BAD',
      `${context.checkpoint?.name} is for ${checkpoint.size} records, not ${position.records}`,
    )
  const tailOnly = errors.length === 1 && tail !== undefined
  return { header, commits, records, errors, superseded, end: position, tailOnly }
}

/** Whether anything in the file was ever committed; a header that is not there yet is a segment being made. */
const hasCommits = (bytes: Buffer): boolean => commitsFrom(bytes, Math.min(HEADER_BYTES, bytes.length)).next().value !== undefined

function nextCommit(bytes: Buffer, from: number, end: Position): CommitFrame | undefined {
  for (const commit of commitsFrom(bytes, from))
    if (commit.number >= end.commits && commit.firstRecord >= end.records) return commit
  return undefined
}

const reportStop = (stop: Stop, report: (offset: number, record: number, code: string, detail: string) => void): void =>
  report(stop.fault.offset, stop.record, stop.fault.code, stop.fault.detail)

/** Whether one place is the other, as far as it is known of both. */
function meets(a: Position, b: Position): boolean {
  const { frontier } = b
  if (a.commits !== b.commits || a.records !== b.records || Buffer.compare(a.hash, b.hash) !== 0) return false
  return a.frontier === undefined || frontier === undefined || a.frontier.every((h, i) => Buffer.compare(h, frontier[i]!) === 0)
}

function readCheckpoint(
  { checkpoint, key }: SegmentContext,
  header: SegmentHeader,
  report: (offset: number, record: number, code: string, detail: string) => void,
): { readonly size: number; readonly root: Uint8Array } | undefined {
  if (checkpoint === undefined) return undefined
  if (key === undefined) {
    report(0, -1, 'CDR_CHECKPOINT_BAD', `${checkpoint.name}: there is no public key to check it with`)
    return undefined
  }
  const opened = openCheckpoint(checkpoint.note, key)
  if (opened.ok && opened.value.origin === chainOrigin(header.genesis)) return opened.value
  report(0, -1, 'CDR_CHECKPOINT_BAD', `${checkpoint.name}: ${opened.ok ? 'of another chain' : opened.fault.detail}`)
  return undefined
}

/** Who says that the chain went on past `position`, if anybody does. */
function shortage(
  position: Position,
  { successor, knownEnd }: SegmentContext,
  signedRecords: number | undefined,
): { code: string; detail: string } | undefined {
  if (successor !== undefined)
    return position.commits < successor.start.commits
      ? {
          code: 'CDR_GAP',
          detail: `commits ${position.commits} to ${successor.start.commits - 1} are in no file: segment ${successor.number} begins behind them`,
        }
      : undefined
  if (knownEnd !== undefined && position.commits < knownEnd.commits)
    return {
      code: 'CDR_SEGMENT_SHORT',
      detail: `${knownEnd.by} says that the chain had ${knownEnd.commits} commits, not ${position.commits}`,
    }
  if (signedRecords !== undefined && position.records < signedRecords)
    return {
      code: 'CDR_SEGMENT_SHORT',
      detail: `its checkpoint says that there were ${signedRecords} records, not ${position.records}`,
    }
  return undefined
}
