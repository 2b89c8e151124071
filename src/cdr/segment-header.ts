import { bad, type Fault, fault, good, type Result } from '../base/errors.ts'
import { bitsSet, HASH_BYTES, sha256 } from './merkle.ts'

export const HEADER_BYTES = 4096

export type SegmentKind = 'own' | 'mirror' | 'recovered'
/** How the previous chain was found when this one was opened; FORMAT.md "Recovery". */
export type PreviousState = 'none' | 'clean' | 'cut' | 'damaged'

/** What is equal in every segment of a chain, and what the chain's first hash is made of. */
export interface Genesis {
  readonly region: string
  readonly node: string
  readonly incarnation: number
  readonly createdMs: number
  readonly previous: {
    readonly state: PreviousState
    /** 0 when there is none; the rest then is 0 too. */
    readonly incarnation: number
    readonly commits: number
    readonly records: number
    readonly hash: Uint8Array
  }
}

/** A place between two groups of a chain. */
export interface Position {
  /** Number of groups before it, which is the number of the next one. */
  readonly commits: number
  readonly records: number
  readonly hash: Uint8Array
  /** Merkle frontier (`TreeHead`); undefined past damage, where it is not known. */
  readonly frontier: readonly Uint8Array[] | undefined
}

export interface SegmentHeader {
  readonly kind: SegmentKind
  readonly number: number
  readonly createdMs: number
  /** Preallocated size in bytes. */
  readonly sizeBytes: number
  readonly genesis: Genesis
  readonly start: Position
}

const MAGIC = 'ACDRSEG1'
const VERSION = 1
const KINDS: readonly SegmentKind[] = ['own', 'mirror', 'recovered']
const STATES: readonly PreviousState[] = ['none', 'clean', 'cut', 'damaged']
const FRONTIER_AT = 352
const SUM_AT = HEADER_BYTES - HASH_BYTES
const MAX_FRONTIER = 53
const NO_HASH = new Uint8Array(HASH_BYTES)

export const noPrevious: Genesis['previous'] = { state: 'none', incarnation: 0, commits: 0, records: 0, hash: NO_HASH }

/** The 4096 bytes that a segment begins with. FORMAT.md "Header". */
export function encodeHeader(h: SegmentHeader): Buffer {
  const out = Buffer.alloc(HEADER_BYTES)
  const frontier = h.start.frontier ?? []
  if (frontier.length !== bitsSet(h.start.records)) throw new RangeError('a segment cannot begin where the frontier is not known')
  out.write(MAGIC, 0, 'latin1')
  out.writeUInt16BE(VERSION, 8)
  out[10] = KINDS.indexOf(h.kind) + 1
  out.writeUInt32BE(frontier.length, 12)
  putNumbers(out, 16, [h.number, h.createdMs, h.sizeBytes, h.start.commits, h.start.records])
  out.set(h.start.hash, 56)
  putGenesis(out, h.genesis)
  frontier.forEach((hash, i) => {
    out.set(hash, FRONTIER_AT + i * HASH_BYTES)
  })
  out.set(sha256(out.subarray(0, SUM_AT)), SUM_AT)
  return out
}

/** What `encodeHeader` wrote, or why these bytes are not a header. */
export function decodeHeader(bytes: Uint8Array): Result<SegmentHeader> {
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (b.length < HEADER_BYTES) return bad(damaged(`the file has ${b.length} bytes, less than a header`))
  if (b.toString('latin1', 0, 8) !== MAGIC) return bad(damaged('no segment begins like this'))
  if (!sha256(b.subarray(0, SUM_AT)).equals(b.subarray(SUM_AT, HEADER_BYTES)))
    return bad(damaged("the header's hash does not fit"))
  // Past the hash only a writer of another version, or a hostile one, is left.
  if (b.readUInt16BE(8) !== VERSION) return bad(damaged(`version ${b.readUInt16BE(8)} is not known`))
  const kind = KINDS[b[10]! - 1]
  const state = STATES[b[11]!]
  const count = b.readUInt32BE(12)
  const numbers = [16, 24, 32, 40, 48, 88, 96, 104, 112, 120].map((at) => Number(b.readBigUInt64BE(at)))
  const region = takeName(b, 160, 64)
  const node = takeName(b, 224, 128)
  if (
    kind === undefined ||
    state === undefined ||
    region === undefined ||
    node === undefined ||
    !numbers.every(Number.isSafeInteger)
  )
    return bad(damaged('a field is out of range'))
  const [number, createdMs, sizeBytes, commits, records, incarnation, chainMs, previous, previousCommits, previousRecords] =
    numbers as [number, number, number, number, number, number, number, number, number, number]
  if (count > MAX_FRONTIER || count !== bitsSet(records)) return bad(damaged(`${count} frontier hashes for ${records} records`))
  const frontier: Uint8Array[] = []
  for (let i = 0; i < count; i++) frontier.push(slice(b, FRONTIER_AT + i * HASH_BYTES))
  return good({
    kind,
    number,
    createdMs,
    sizeBytes,
    genesis: {
      region,
      node,
      incarnation,
      createdMs: chainMs,
      previous: { state, incarnation: previous, commits: previousCommits, records: previousRecords, hash: slice(b, 128) },
    },
    start: { commits, records, hash: slice(b, 56), frontier },
  })
}

/** Where a chain begins: its hash there vouches for the genesis. */
export function chainStart(genesis: Genesis): Position {
  const block = Buffer.alloc(FRONTIER_AT)
  putGenesis(block, genesis)
  const hash = sha256(Buffer.from('antipode cdr chain 1\n', 'latin1'), block.subarray(11, 12), block.subarray(88))
  return { commits: 0, records: 0, hash, frontier: [] }
}

function putGenesis(out: Buffer, g: Genesis): void {
  out[11] = STATES.indexOf(g.previous.state)
  putNumbers(out, 88, [g.incarnation, g.createdMs, g.previous.incarnation, g.previous.commits, g.previous.records])
  out.set(g.previous.hash, 128)
  putName(out, 160, 64, g.region)
  putName(out, 224, 128, g.node)
}

function putNumbers(out: Buffer, at: number, numbers: readonly number[]): void {
  for (const n of numbers) at = out.writeBigUInt64BE(BigInt(n), at)
}

function putName(out: Buffer, at: number, room: number, name: string): void {
  const bytes = Buffer.from(name, 'utf8')
  if (bytes.length >= room) throw new RangeError(`the name ${name} has more than ${room - 1} bytes`)
  out[at] = bytes.length
  out.set(bytes, at + 1)
}

function takeName(b: Buffer, at: number, room: number): string | undefined {
  const length = b[at]!
  return length < room ? b.toString('utf8', at + 1, at + 1 + length) : undefined
}

const slice = (b: Buffer, at: number): Uint8Array => Uint8Array.from(b.subarray(at, at + HASH_BYTES))
const damaged = (detail: string): Fault => fault('CDR_HEADER_DAMAGED', detail, 0)
