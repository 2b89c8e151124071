import { hash as oneShotHash } from 'node:crypto'
import * as Y from 'yjs'
import { WireWriter } from '../src/base/bytes.ts'
import { bad, type Fault, fault, good, invariant, type Result } from '../src/base/errors.ts'
import { type Hlc, hlcMs } from '../src/base/hlc.ts'
import type { NodeIdentity } from '../src/base/ids.ts'
import { decodeEntry, encodeEntry } from './codec.ts'
import { DocSum, horizonAt } from './digest.ts'
import type { ClusterConstants, Entry, EntryKind } from './entry.ts'
import {
  type Author,
  type AuthorDigest,
  authorKey,
  type DocName,
  docKey,
  type Frame,
  LIMITS,
  type Tip,
  writeDocName,
} from './frames.ts'
import { encodeUpdate, parseUpdate, ROOT } from './update.ts'

/**
 * The docs that this node holds, its own and others'. PROTOCOL.md "Documents" and "Frames"; DESIGN "State" 1, 2, 7, 8.
 *
 * A doc is one `Y.Map` in which the key of a record is its clock; only its author appends. What comes from the wire is compared byte by byte with the one
 * form that such an update can have before yjs sees it, so yjs never holds anything pending, deleted or unknown.
 */

const TAG_ENTRY = 1
/** The hash is remembered every so many records, so that a range that ends anywhere can be served without hashing the whole doc. */
const CHECKPOINT = 64

interface Doc {
  readonly name: DocName
  readonly key: string
  readonly y: Y.Doc
  readonly map: Y.Map<Uint8Array>
  /** By clock; the very arrays that the `Y.Map` holds. */
  readonly records: Uint8Array[]
  readonly entries: Entry[]
  /** Hash at `records.length`. */
  hash: Buffer
  /** Hash at 0, 64, 128, … */
  readonly checkpoints: Buffer[]
  lastHlc: Hlc
  /** Own docs: appended, not yet in the `Y.Map`. */
  pending: { readonly record: Uint8Array<ArrayBuffer>; readonly entry: Entry }[]
}

interface AuthorDocs {
  readonly author: Author
  readonly docs: Map<string, Doc>
  readonly sum: DocSum
}

export type Outcome =
  | { readonly kind: 'applied'; readonly entries: readonly Entry[]; readonly lastHlc: Hlc }
  | { readonly kind: 'duplicate' }
  /** Records before it are lacking. */
  | { readonly kind: 'early'; readonly have: number }
  | { readonly kind: 'ignored'; readonly fault: Fault; readonly retryAtMs?: number }
  | { readonly kind: 'refused'; readonly fault: Fault }
  /** A doc of this very incarnation that is longer than we wrote. */
  | { readonly kind: 'own' }

export class Replica {
  readonly #self: NodeIdentity
  readonly #constants: ClusterConstants
  readonly #regionOf: (node: string) => string | undefined
  readonly #authors = new Map<string, AuthorDocs>()
  readonly #docs = new Map<string, Doc>()
  readonly #open = new Map<EntryKind, Doc>()
  /** The newest doc of each kind that was ever opened here: no name is used again, even after a clock that ran ahead had its doc dropped. */
  readonly #opened = new Map<EntryKind, DocName>()
  readonly #dirty = new Set<Doc>()
  /** Own docs of buckets below this have been dropped here. */
  #ownDroppedBelow = 0
  #pendingBytes = 0
  #records = 0

  /** @param o.regionOf region of a configured node, undefined of any other: only configured nodes are taken as authors. */
  constructor(o: { self: NodeIdentity; constants: ClusterConstants; regionOf: (node: string) => string | undefined }) {
    this.#self = o.self
    this.#constants = o.constants
    this.#regionOf = o.regionOf
  }

  get docCount(): number {
    return this.#docs.size
  }

  get recordCount(): number {
    return this.#records
  }

  /** Bytes appended since the last flush. */
  get pendingBytes(): number {
    return this.#pendingBytes
  }

  /** Records held of a doc; 0 when it is not held. */
  clock(key: string): number {
    return this.#docs.get(key)?.records.length ?? 0
  }

  /** Hash of a held doc at its clock. */
  hash(key: string): Buffer | undefined {
    return this.#docs.get(key)?.hash
  }

  /**
   * Appends to this node's newest doc of that kind. The entry bears this node's identity and an HLC above every earlier one. It is on no wire and in no digest
   * before `flush`.
   *
   * @throws AntipodeError INVARIANT when the entry is longer than a record may be: the writer has to bound its fields
   */
  append(entry: Entry): Uint8Array {
    const body = encodeEntry(entry)
    const record = new Uint8Array(1 + body.length)
    record[0] = TAG_ENTRY
    record.set(body, 1)
    invariant(record.length <= LIMITS.recordBytes, `an entry of ${body.length} bytes`)
    const bucket = this.#bucketOf(entry.hlc)
    let doc = this.#open.get(entry.kind)
    if (doc?.name.bucket !== bucket || doc.records.length + doc.pending.length >= LIMITS.partRecords)
      doc = this.#openDoc(entry.kind, bucket)
    doc.pending.push({ record, entry })
    this.#dirty.add(doc)
    this.#pendingBytes += record.length
    return body
  }

  /** Puts what was appended into the docs, one transaction each, and returns one frame per doc (more where one would be too long). */
  flush(): Frame[] {
    const frames: Frame[] = []
    for (const doc of this.#dirty) {
      const from = doc.records.length
      const records = doc.pending.map((p) => p.record)
      doc.y.transact(() => {
        for (const [i, record] of records.entries()) doc.map.set(String(from + i), record)
      })
      this.#commit(
        doc,
        records,
        doc.pending.map((p) => p.entry),
        chainAll(doc.hash, records),
      )
      doc.pending = []
      for (let at = from; at < doc.records.length; ) {
        const frame = this.serve(doc.name, at, doc.records.length, LIMITS.updateBytes)!
        frames.push(frame)
        at = frame.to
      }
    }
    this.#dirty.clear()
    this.#pendingBytes = 0
    return frames
  }

  /**
   * Whether what we hold of this doc is all that can be, for it is this process that writes it. Not so of one that was dropped: when the clock is set back to
   * before its retention was over, peers give it back as any other.
   */
  isOwn(name: DocName): boolean {
    const { node, incarnation } = this.#self
    if (name.node !== node || name.incarnation !== incarnation) return false
    return name.bucket >= this.#ownDroppedBelow || this.#docs.get(docKey(name))?.y.clientID === incarnation
  }

  /** Takes a frame in, or says why not; what is not `applied` leaves the state as it was. The checks of `decodeMessage` have been passed. */
  apply(frame: Frame, nowMs: number): Outcome {
    const { doc: name } = frame
    if (this.#regionOf(name.node) !== name.region)
      return { kind: 'ignored', fault: fault('CRDT_UNKNOWN_AUTHOR', `author ${authorKey(name)}`) }
    const key = docKey(name)
    const held = this.#docs.get(key)
    const have = held?.records.length ?? 0
    if (this.isOwn(name)) return frame.to <= have ? { kind: 'duplicate' } : { kind: 'own' }
    if (name.bucket < horizonAt(nowMs, this.#constants)) return { kind: 'ignored', fault: fault('CRDT_EXPIRED', `doc ${key}`) }
    const latestMs = nowMs + this.#constants.driftBoundMs
    const startMs = name.bucket * this.#constants.bucketWidthMs
    if (startMs > latestMs) return ahead(key, startMs, this.#constants)
    if (frame.to <= have) return { kind: 'duplicate' }
    if (frame.from > have) return { kind: 'early', have }
    if (held === undefined && (this.#docs.size >= LIMITS.docs || this.#tooManyAuthors(name)))
      return { kind: 'ignored', fault: fault('CRDT_DOCS', `${this.#docs.size} docs held`) }

    const parsed = parseUpdate(frame)
    if (!parsed.ok) return { kind: 'refused', fault: parsed.fault }
    const skip = have - frame.from
    const records = skip === 0 ? parsed.value : parsed.value.slice(skip)
    const decoded = this.#decode(name, records, held?.lastHlc ?? -1)
    if (!decoded.ok) return { kind: 'refused', fault: decoded.fault }
    const entries = decoded.value
    const lastHlc = entries[entries.length - 1]!.hlc
    if (hlcMs(lastHlc) > latestMs) return ahead(key, hlcMs(lastHlc), this.#constants)

    const hashes = chainAll(held?.hash ?? nameHash(name), records)
    if (!hashes[hashes.length - 1]!.equals(frame.hash))
      return { kind: 'refused', fault: fault('CRDT_HASH', `doc ${key} at ${frame.to}`) }

    const doc = held ?? makeDoc(name, 0)
    Y.applyUpdate(doc.y, skip === 0 ? frame.update : encodeUpdate(name, have, records))
    invariant(
      doc.y.store.pendingStructs === null &&
        doc.y.store.pendingDs === null &&
        Y.getState(doc.y.store, name.incarnation) === frame.to,
      `yjs took update of ${key} otherwise than as parsed`,
    )
    // The records that are kept are the copies in the Y.Map; the parsed ones are views into the message.
    this.#commit(
      doc,
      records.map((_, i) => doc.map.get(String(have + i))!),
      entries,
      hashes,
    )
    return { kind: 'applied', entries, lastHlc }
  }

  /** Records from `from` on, up to `to` and about `maxBytes` (one record at least); undefined when none is held. */
  serve(name: DocName, from: number, to: number, maxBytes: number): Frame | undefined {
    const doc = this.#docs.get(docKey(name))
    if (doc === undefined || from >= Math.min(to, doc.records.length)) return undefined
    const limit = Math.min(to, doc.records.length)
    const budget = Math.min(maxBytes, LIMITS.updateBytes - LIMITS.recordBytes - 64)
    let end = from
    for (let bytes = 0; end < limit && (end === from || bytes < budget); end++) bytes += doc.records[end]!.length + 16
    return {
      doc: doc.name,
      from,
      to: end,
      hash: hashAt(doc, end),
      update: encodeUpdate(doc.name, from, doc.records.slice(from, end)),
    }
  }

  /** Drops every doc whose retention is over and returns their entries, for the indexes to forget. */
  expire(nowMs: number): (readonly Entry[])[] {
    const horizon = horizonAt(nowMs, this.#constants)
    const dropped: (readonly Entry[])[] = []
    for (const doc of this.#docs.values()) {
      if (doc.name.bucket >= horizon) continue
      const key = authorKey(doc.name)
      const author = this.#authors.get(key)!
      author.sum.remove(doc.hash)
      author.docs.delete(doc.key)
      if (author.docs.size === 0) this.#authors.delete(key)
      this.#docs.delete(doc.key)
      this.#records -= doc.records.length
      if (this.#open.get(doc.name.kind) === doc) this.#open.delete(doc.name.kind)
      if (this.isOwn(doc.name)) this.#ownDroppedBelow = Math.max(this.#ownDroppedBelow, doc.name.bucket + 1)
      doc.y.destroy()
      dropped.push(doc.entries)
    }
    return dropped
  }

  /** One digest per author of which docs are held. Call `expire` first. */
  digests(): AuthorDigest[] {
    return [...this.#authors.values()].map((a) => ({ author: a.author, docs: a.sum.docs, sum: a.sum.bytes() }))
  }

  /** Whether what we hold of an author at or above `horizon` and below `below` has this sum. */
  matches(author: Author, horizon: number, below: number, docs: number, sum: Uint8Array): boolean {
    return this.#sumOf(author, horizon, below).equals(docs, sum)
  }

  /** Tips of an author, newest bucket first, whole buckets, until `limit` is reached; and the sum of the rest. */
  tips(author: Author, horizon: number, below: number, limit: number): { tips: Tip[]; floor: number; rest: DocSum } {
    const docs = [...(this.#authors.get(authorKey(author))?.docs.values() ?? [])]
      .filter((d) => d.name.bucket >= horizon && d.name.bucket < below)
      .sort((a, b) => b.name.bucket - a.name.bucket)
    const tips: Tip[] = []
    let floor = horizon
    for (const [i, d] of docs.entries()) {
      const { kind, bucket, part } = d.name
      if (i >= limit && docs[i - 1]!.name.bucket !== bucket) {
        floor = bucket + 1
        break
      }
      if (i >= LIMITS.tips) break
      tips.push({ kind, bucket, part, clock: d.records.length, hash: d.hash })
    }
    return { tips, floor, rest: this.#sumOf(author, horizon, floor) }
  }

  #sumOf(author: Author, horizon: number, below: number): DocSum {
    const sum = new DocSum()
    for (const d of this.#authors.get(authorKey(author))?.docs.values() ?? [])
      if (d.name.bucket >= horizon && d.name.bucket < below) sum.add(d.hash)
    return sum
  }

  #tooManyAuthors(author: Author): boolean {
    // One is left for ourselves: a digest of more would be refused.
    return this.#authors.size >= LIMITS.digestAuthors - 1 && !this.#authors.has(authorKey(author))
  }

  #bucketOf(hlc: Hlc): number {
    return Math.floor(hlcMs(hlc) / this.#constants.bucketWidthMs)
  }

  #openDoc(kind: EntryKind, bucket: number): Doc {
    const { region, node, incarnation } = this.#self
    const last = this.#opened.get(kind)
    const part = last?.bucket === bucket ? last.part + 1 : 0
    const doc = makeDoc({ region, node, incarnation, kind, bucket, part }, incarnation)
    this.#opened.set(kind, doc.name)
    this.#open.set(kind, doc)
    return doc
  }

  /** Decodes records and checks what their doc's name says of them. */
  #decode(name: DocName, records: readonly Uint8Array[], afterHlc: Hlc): Result<Entry[]> {
    const entries: Entry[] = []
    let last = afterHlc
    for (const record of records) {
      if (record[0] !== TAG_ENTRY) return bad(fault('CRDT_RECORD_TAG', `record tag ${record[0]}`))
      const decoded = decodeEntry(name.kind, record.subarray(1))
      if (!decoded.ok) return decoded
      const entry = decoded.value
      if (entry.region !== name.region || entry.node !== name.node || entry.incarnation !== name.incarnation)
        return bad(fault('CRDT_ENTRY_AUTHOR', `entry of ${authorKey(entry)} in a doc of ${authorKey(name)}`))
      if (this.#bucketOf(entry.hlc) !== name.bucket)
        return bad(fault('CRDT_ENTRY_BUCKET', `entry of bucket ${this.#bucketOf(entry.hlc)} in bucket ${name.bucket}`))
      if (entry.hlc <= last) return bad(fault('CRDT_ENTRY_ORDER', `HLC ${entry.hlc} after ${last}`))
      last = entry.hlc
      entries.push(entry)
    }
    return good(entries)
  }

  /** Books records that the `Y.Map` holds already. */
  #commit(doc: Doc, records: readonly Uint8Array[], entries: readonly Entry[], hashes: readonly Buffer[]): void {
    const key = authorKey(doc.name)
    let author = this.#authors.get(key)
    if (author === undefined) {
      const { region, node, incarnation } = doc.name
      author = { author: { region, node, incarnation }, docs: new Map(), sum: new DocSum() }
      this.#authors.set(key, author)
    }
    if (doc.records.length > 0) author.sum.remove(doc.hash)
    else {
      author.docs.set(doc.key, doc)
      this.#docs.set(doc.key, doc)
    }
    for (const [i, record] of records.entries()) {
      doc.records.push(record)
      doc.entries.push(entries[i]!)
      doc.hash = hashes[i]!
      if (doc.records.length % CHECKPOINT === 0) doc.checkpoints.push(doc.hash)
    }
    doc.lastHlc = entries[entries.length - 1]!.hlc
    author.sum.add(doc.hash)
    this.#records += records.length
  }
}

/** The author's clock is wrong, or ours: held back until the stamp is within the bound. */
const ahead = (key: string, ms: number, c: ClusterConstants): Outcome => ({
  kind: 'ignored',
  fault: fault('CRDT_CLOCK_AHEAD', `doc ${key} at ${ms}`),
  retryAtMs: ms - c.driftBoundMs,
})

/** @param client the author's own docs: its incarnation; others': 0, which writes nothing */
function makeDoc(name: DocName, client: number): Doc {
  const key = docKey(name)
  const y = new Y.Doc({ gc: false, guid: key })
  y.clientID = client
  const hash = nameHash(name)
  return {
    name,
    key,
    y,
    map: y.getMap<Uint8Array>(ROOT),
    records: [],
    entries: [],
    hash,
    checkpoints: [hash],
    lastHlc: -1,
    pending: [],
  }
}

export const sha256 = (bytes: Uint8Array): Buffer => oneShotHash('sha256', bytes, 'buffer')

const nameHash = (name: DocName): Buffer => sha256(writeDocName(new WireWriter(96), name).done())

const chainInput = Buffer.alloc(32 + LIMITS.recordBytes)
/** h(n + 1) = SHA-256(h(n) ‖ record) */
function chain(hash: Buffer, record: Uint8Array): Buffer {
  chainInput.set(hash, 0)
  chainInput.set(record, 32)
  return sha256(chainInput.subarray(0, 32 + record.length))
}

/** The doc's hash after each of the records. */
function chainAll(start: Buffer, records: readonly Uint8Array[]): Buffer[] {
  let hash = start
  return records.map((record) => {
    hash = chain(hash, record)
    return hash
  })
}

function hashAt(doc: Doc, clock: number): Buffer {
  if (clock === doc.records.length) return doc.hash
  const start = Math.floor(clock / CHECKPOINT)
  let hash = doc.checkpoints[start]!
  for (let i = start * CHECKPOINT; i < clock; i++) hash = chain(hash, doc.records[i]!)
  return hash
}
