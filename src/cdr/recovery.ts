import type { Fault } from '../base/errors.ts'
import { commitsFrom, type Scan, type ScanHooks, type Stop, scan } from './segment.ts'
import { decodeHeader, HEADER_BYTES, type Position, type PreviousState, type SegmentHeader } from './segment-header.ts'

/** What a start found in the file that it has to judge. Every combination is in exactly one row of `RECOVERY_CASES`. */
export interface Findings {
  readonly header: 'sound' | 'broken'
  /** A frame that does not fit, before the zeros. */
  readonly bad: boolean
  /** Commit frames with a good CRC after the bad frame (anywhere, when the header is broken): none, only that of the bad frame's own group, or others. */
  readonly commitsAfter: 'none' | 'own' | 'later'
}

export type RecoveryAction =
  /** Cut to the last commit, which is where it ends anyway. */
  | 'seal'
  /** Keep the tail aside, cut. */
  | 'cut'
  /** As `cut`; but it may have been an acknowledged group that rotted. */
  | 'cutAndReport'
  /** Rot: committed groups follow. Nothing is touched. */
  | 'leave'
  /** Never was a segment: a crash while it was created. */
  | 'setAside'

interface RecoveryCase {
  readonly name: string
  readonly when: (f: Findings) => boolean
  readonly action: RecoveryAction
  /** What the next chain's header says of this one; undefined: the file does not count. */
  readonly state: PreviousState | undefined
}

/** FORMAT.md "Recovery", steps 2 and 3. */
export const RECOVERY_CASES: readonly RecoveryCase[] = [
  {
    name: 'crashed while being created',
    when: (f) => f.header === 'broken' && f.commitsAfter === 'none',
    action: 'setAside',
    state: undefined,
  },
  { name: 'header damaged', when: (f) => f.header === 'broken' && f.commitsAfter !== 'none', action: 'leave', state: undefined },
  { name: 'clean', when: (f) => f.header === 'sound' && !f.bad, action: 'seal', state: 'clean' },
  { name: 'torn', when: (f) => f.header === 'sound' && f.bad && f.commitsAfter === 'none', action: 'cut', state: 'cut' },
  {
    name: 'torn in the last group',
    when: (f) => f.header === 'sound' && f.bad && f.commitsAfter === 'own',
    action: 'cutAndReport',
    state: 'cut',
  },
  {
    name: 'damaged',
    when: (f) => f.header === 'sound' && f.bad && f.commitsAfter === 'later',
    action: 'leave',
    state: 'damaged',
  },
]

export interface Judgement {
  readonly name: string
  readonly action: RecoveryAction
  readonly state: PreviousState | undefined
  /** Undefined when the header is broken. */
  readonly header: SegmentHeader | undefined
  /** Where the sound groups end, and the offset there. */
  readonly end: Position | undefined
  readonly endOffset: number
  readonly stop: Stop | undefined
  readonly headerFault: Fault | undefined
  /** What the last commit frame with a good CRC claims, for the next header; equal to `end` unless damaged. */
  readonly claimed: Pick<Position, 'commits' | 'records' | 'hash'> | undefined
}

/** Judges the bytes of one whole segment file. Pure: what to do with the file is the caller's. */
export function judgeSegment(bytes: Buffer, hooks: ScanHooks = {}): Judgement {
  const header = decodeHeader(bytes)
  if (!header.ok) {
    const some = commitsFrom(bytes, Math.min(HEADER_BYTES, bytes.length)).next().value !== undefined
    const row = caseOf({ header: 'broken', bad: true, commitsAfter: some ? 'later' : 'none' })
    return {
      ...pick(row),
      header: undefined,
      end: undefined,
      endOffset: 0,
      stop: undefined,
      headerFault: header.fault,
      claimed: undefined,
    }
  }
  const found: Scan = scan(bytes, HEADER_BYTES, header.value.start, hooks)
  let commitsAfter: Findings['commitsAfter'] = 'none'
  let claimed: Judgement['claimed'] = found.end
  if (found.stop !== undefined) {
    for (const c of commitsFrom(bytes, found.endOffset)) {
      // Lower numbers would be bytes inside a payload that look like a frame.
      if (c.number < found.end.commits || c.firstRecord < found.end.records) continue
      if (c.number > found.end.commits) commitsAfter = 'later'
      else if (commitsAfter === 'none') commitsAfter = 'own'
      if (c.number + 1 > claimed.commits)
        claimed = { commits: c.number + 1, records: c.firstRecord + c.records, hash: Uint8Array.from(c.hash) }
    }
  }
  const row = caseOf({ header: 'sound', bad: found.stop !== undefined, commitsAfter })
  return {
    ...pick(row),
    header: header.value,
    end: found.end,
    endOffset: found.endOffset,
    stop: found.stop,
    headerFault: undefined,
    claimed: row.action === 'leave' ? claimed : found.end,
  }
}

const caseOf = (f: Findings): RecoveryCase => RECOVERY_CASES.find((row) => row.when(f))!
const pick = ({ name, action, state }: RecoveryCase): Pick<RecoveryCase, 'name' | 'action' | 'state'> => ({ name, action, state })
