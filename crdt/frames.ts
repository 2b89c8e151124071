import { NAME_BYTES, WireReader, WireWriter } from '../src/base/bytes.ts'
import { bad, type Fault, fault, good, type Result } from '../src/base/errors.ts'
import type { EntryKind } from './entry.ts'

/** The bytes of channel 1: doc names, frames and the messages of the anti-entropy. PROTOCOL.md is the reference; every limit here stands there. */

export const LIMITS = {
  messageBytes: 1 << 20,
  updateBytes: 1 << 18,
  recordBytes: 1 << 16,
  nameBytes: NAME_BYTES,
  /** The author opens the next part here. */
  partRecords: 16_384,
  /** Header and seal of a later version included. */
  docRecords: 16_386,
  digestAuthors: 4096,
  tips: 4096,
  wantRanges: 256,
  frames: 1024,
  wantBudgetBytes: 1 << 20,
  docs: 262_144,
} as const

export const HASH_BYTES = 32
/** `below` of an ASK for every bucket. */
export const ALL_BUCKETS = Number.MAX_SAFE_INTEGER

export interface Author {
  readonly region: string
  readonly node: string
  readonly incarnation: number
}

export interface DocName extends Author {
  readonly kind: EntryKind
  readonly bucket: number
  readonly part: number
}

export const authorKey = (a: Author): string => `${a.region}/${a.node}/${a.incarnation}`
export const docKey = (d: DocName): string => `${d.region}/${d.node}/${d.incarnation}/${d.kind}/${d.bucket}/${d.part}`

/** Records `from` to `to` (exclusive) of one doc; `hash` is the doc's hash at `to`, `update` a yjs V1 update. */
export interface Frame {
  readonly doc: DocName
  readonly from: number
  readonly to: number
  readonly hash: Uint8Array
  readonly update: Uint8Array
}

export interface AuthorDigest {
  readonly author: Author
  readonly docs: number
  readonly sum: Uint8Array
}

export interface Tip {
  readonly kind: EntryKind
  readonly bucket: number
  readonly part: number
  readonly clock: number
  readonly hash: Uint8Array
}

export interface Range {
  readonly doc: DocName
  readonly from: number
  readonly to: number
}

export type StateMessage =
  | { readonly type: 'digest'; readonly horizon: number; readonly authors: readonly AuthorDigest[] }
  | { readonly type: 'ask'; readonly author: Author; readonly horizon: number; readonly below: number; readonly limit: number }
  | {
      readonly type: 'tips'
      readonly author: Author
      readonly horizon: number
      readonly below: number
      readonly floor: number
      readonly tips: readonly Tip[]
      readonly restDocs: number
      readonly restSum: Uint8Array
    }
  | { readonly type: 'want'; readonly id: number; readonly budgetBytes: number; readonly ranges: readonly Range[] }
  | { readonly type: 'frames'; readonly asked: boolean; readonly frames: readonly Frame[] }
  | { readonly type: 'done'; readonly id: number; readonly complete: boolean }

const TYPE = { digest: 1, ask: 2, tips: 3, want: 4, frames: 5, done: 6 } as const
const KIND_CODE: Record<EntryKind, number> = { binding: 1, dialog: 2 }
const KIND_OF_CODE: readonly (EntryKind | undefined)[] = [undefined, 'binding', 'dialog']

const writeAuthor = (w: WireWriter, a: Author): WireWriter => w.text(a.region).text(a.node).uint(a.incarnation)
const readAuthor = (r: WireReader): Author => ({ region: r.name(), node: r.name(), incarnation: r.uint() })

export const writeDocName = (w: WireWriter, d: DocName): WireWriter =>
  writeAuthor(w, d).u8(KIND_CODE[d.kind]).uint(d.bucket).uint(d.part)

function readKind(r: WireReader): EntryKind {
  const kind = KIND_OF_CODE[r.u8()]
  if (kind === undefined) r.fail()
  return kind ?? 'binding'
}

function readDocName(r: WireReader): DocName {
  const author = readAuthor(r)
  return { ...author, kind: readKind(r), bucket: r.uint(), part: r.uint() }
}

function writeFrame(w: WireWriter, f: Frame): void {
  writeDocName(w, f.doc).uint(f.from).uint(f.to).raw(f.hash).uint(f.update.length).raw(f.update)
}

/** One frame; faults of its own are given back through `r.fail()` or `frameFault`. */
function readFrame(r: WireReader): Frame {
  const doc = readDocName(r)
  const from = r.uint()
  const to = r.uint()
  const hash = r.raw(HASH_BYTES)
  const length = r.uint()
  return { doc, from, to, hash, update: r.raw(length) }
}

/** Clocks and lengths that no honest frame has. */
function frameFault(f: Frame): Fault | undefined {
  if (f.from >= f.to || f.to > LIMITS.docRecords) return fault('CRDT_FRAME_RANGE', `records ${f.from} to ${f.to}`)
  if (f.update.length > LIMITS.updateBytes) return fault('CRDT_FRAME_RANGE', `update of ${f.update.length} bytes`)
  return undefined
}

/** Bytes that `frame` takes in a FRAMES message, at most. */
export const frameSize = (f: Frame): number => f.update.length + HASH_BYTES + f.doc.region.length + f.doc.node.length + 40

export function encodeMessage(m: StateMessage): Buffer {
  const w = new WireWriter(m.type === 'frames' ? m.frames.reduce((sum, f) => sum + frameSize(f), 16) : 256)
  w.u8(TYPE[m.type])
  switch (m.type) {
    case 'digest':
      w.uint(m.horizon).uint(m.authors.length)
      for (const a of m.authors) writeAuthor(w, a.author).uint(a.docs).raw(a.sum)
      break
    case 'ask':
      writeAuthor(w, m.author).uint(m.horizon).uint(m.below).uint(m.limit)
      break
    case 'tips':
      writeAuthor(w, m.author).uint(m.horizon).uint(m.below).uint(m.floor).uint(m.tips.length)
      for (const t of m.tips) w.u8(KIND_CODE[t.kind]).uint(t.bucket).uint(t.part).uint(t.clock).raw(t.hash)
      w.uint(m.restDocs).raw(m.restSum)
      break
    case 'want':
      w.uint(m.id).uint(m.budgetBytes).uint(m.ranges.length)
      for (const range of m.ranges) writeDocName(w, range.doc).uint(range.from).uint(range.to)
      break
    case 'frames':
      w.u8(m.asked ? 1 : 0).uint(m.frames.length)
      for (const f of m.frames) writeFrame(w, f)
      break
    case 'done':
      w.uint(m.id).u8(m.complete ? 1 : 0)
      break
  }
  return w.done()
}

/** Reads `count` things; the count is checked against its limit and against the bytes that are there, at `least` bytes each, first. */
function list<T>(r: WireReader, limit: number, least: number, read: (r: WireReader) => T): T[] | Fault {
  const at = r.at
  const count = r.uint()
  if (count > limit) return fault('CRDT_MESSAGE_LIMIT', `a count of ${count}, at most ${limit}`, at)
  if (count * least > r.left) {
    r.fail()
    return []
  }
  const items: T[] = []
  for (let i = 0; i < count && !r.failed; i++) items.push(read(r))
  return items
}

/** Seven bits of the eight are reserved. */
function flag(r: WireReader): boolean {
  const value = r.u8()
  if (value > 1) r.fail()
  return value === 1
}

const isFault = (value: unknown[] | Fault): value is Fault => !Array.isArray(value)

/** One message of channel 1, or why it was refused. Byte fields are views into `bytes`. */
export function decodeMessage(bytes: Uint8Array): Result<StateMessage> {
  const r = new WireReader(bytes)
  const type = r.u8()
  let message: StateMessage | Fault
  if (type === TYPE.digest) message = readDigest(r)
  else if (type === TYPE.ask)
    message = { type: 'ask', author: readAuthor(r), horizon: r.uint(), below: r.uint(), limit: r.uint() }
  else if (type === TYPE.tips) message = readTips(r)
  else if (type === TYPE.want) message = readWant(r)
  else if (type === TYPE.frames) message = readFrames(r)
  else if (type === TYPE.done) message = { type: 'done', id: r.uint(), complete: flag(r) }
  else return bad(fault('CRDT_MESSAGE_TYPE', `message type ${type}`, 0))
  if (r.failed)
    return bad(
      fault(type === TYPE.frames ? 'CRDT_FRAME_MALFORMED' : 'CRDT_MESSAGE_MALFORMED', `message type ${type}`, r.failedAt),
    )
  if ('code' in message) return bad(message)
  if (r.left > 0) return bad(fault('CRDT_MESSAGE_MALFORMED', `${r.left} bytes left over in message type ${type}`, r.at))
  return good(message)
}

function readDigest(r: WireReader): StateMessage | Fault {
  const horizon = r.uint()
  const authors = list(r, LIMITS.digestAuthors, 38, (r) => ({ author: readAuthor(r), docs: r.uint(), sum: r.raw(HASH_BYTES) }))
  return isFault(authors) ? authors : { type: 'digest', horizon, authors }
}

function readTips(r: WireReader): StateMessage | Fault {
  const author = readAuthor(r)
  const horizon = r.uint()
  const below = r.uint()
  const floor = r.uint()
  const tips = list(r, LIMITS.tips, 36, (r) => ({
    kind: readKind(r),
    bucket: r.uint(),
    part: r.uint(),
    clock: r.uint(),
    hash: r.raw(HASH_BYTES),
  }))
  if (isFault(tips)) return tips
  return { type: 'tips', author, horizon, below, floor, tips, restDocs: r.uint(), restSum: r.raw(HASH_BYTES) }
}

function readWant(r: WireReader): StateMessage | Fault {
  const id = r.uint()
  const budgetBytes = r.uint()
  const ranges = list(r, LIMITS.wantRanges, 10, (r) => ({ doc: readDocName(r), from: r.uint(), to: r.uint() }))
  return isFault(ranges) ? ranges : { type: 'want', id, budgetBytes, ranges }
}

function readFrames(r: WireReader): StateMessage | Fault {
  const asked = flag(r)
  const frames = list(r, LIMITS.frames, 50, readFrame)
  if (isFault(frames)) return frames
  if (!r.failed)
    for (const f of frames) {
      const wrong = frameFault(f)
      if (wrong !== undefined) return wrong
    }
  return { type: 'frames', asked, frames }
}
