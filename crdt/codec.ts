import { AntipodeError, bad, type Fault, fault, good, type Result } from '../src/base/errors.ts'
import type { BindingEntry, DialogEntry, DialogPhase, Entry, EntryBase, EntryKind } from './entry.ts'
import { checkEntry, ENTRY_LIMITS, MAX_CSEQ, MAX_NUMBER, MAX_PORT } from './entry-check.ts'

export { ENTRY_LIMITS }

/**
 * Entries as bytes: one canonical form each, so that a hash over bytes is a hash over meaning. PROTOCOL.md says how
 * they travel; this is the layout, by kind (fields in brackets are left out where the flags say so):
 *
 *   binding  flags  hlc  incarnation  region  node  aor  [key]  callId  cseq  [expiresAtMs]  contact  contactParams  q
 *            count path…  transport  localAddress  localPort  remoteAddress  remotePort  connectionId+1  userAgent
 *            flags: bits 0–1 op (0 set, 1 remove, 2 clear), 2 reset, 3 nat, 4 key is the contact (key left out). expiresAtMs only on `set`.
 *   dialog   flags  hlc  incarnation  region  node  id  callId  fromTag  toTag  caller  callee  startMs  answerMs  [leaseUntilMs]  [endMs]
 *            flags: bits 0–1 phase (0 early, 1 confirmed, 2 ended), 2 observed, 3 id ends with `/` and the To-tag (left out).
 *            leaseUntilMs unless ended, endMs only when ended.
 *
 * Numbers are varints: seven bits a byte, least first, the high bit on all but the last, no byte more than needed, at most 2^53 - 1. A string is the varint
 * length × 2 + wide, then its units: one byte each (as SIP's bytes are held inside), or two, least first, where some unit needs it.
 */

/** Bytes of an encoded entry. */
export const MAX_ENTRY_BYTES = 4096

const OPS = ['set', 'remove', 'clear'] as const
const PHASES = ['early', 'confirmed', 'ended'] as const satisfies readonly DialogPhase[]

const FLAG_KIND = 0b11
const FLAG_RESET = 0b100
const FLAG_NAT = 0b1000
const FLAG_KEY_IS_CONTACT = 0b10000
const FLAG_OBSERVED = 0b100
const FLAG_ID_HAS_TAG = 0b1000

/** Room for every field at its limit and wide, so that writing never needs a bound check; the total is judged at the end. */
const scratch = Buffer.allocUnsafe(32 * 1024)
let at = 0

function writeVarint(value: number): void {
  let v = value
  while (v >= 0x80) {
    scratch[at++] = (v % 0x80) | 0x80
    v = Math.floor(v / 0x80)
  }
  scratch[at++] = v
}

function writeText(text: string): void {
  const start = at
  const n = text.length
  writeVarint(n * 2)
  for (let i = 0; i < n; i++) {
    const unit = text.charCodeAt(i)
    if (unit > 0xff) {
      at = start
      writeWide(text)
      return
    }
    scratch[at++] = unit
  }
}

function writeWide(text: string): void {
  writeVarint(text.length * 2 + 1)
  at += scratch.write(text, at, 'utf16le')
}

function writeBase(flags: number, e: Entry): void {
  at = 0
  scratch[at++] = flags
  writeVarint(e.hlc)
  writeVarint(e.incarnation)
  writeText(e.region)
  writeText(e.node)
}

function writeBinding(e: BindingEntry): void {
  const isKeyContact = e.key === e.contact && e.op !== 'clear'
  const flags =
    OPS.indexOf(e.op) | (e.reset ? FLAG_RESET : 0) | (e.flow.nat ? FLAG_NAT : 0) | (isKeyContact ? FLAG_KEY_IS_CONTACT : 0)
  writeBase(flags, e)
  writeText(e.aor)
  if (!isKeyContact && e.op !== 'clear') writeText(e.key)
  writeText(e.callId)
  writeVarint(e.cseq)
  if (e.op === 'set') writeVarint(e.expiresAtMs)
  writeText(e.contact)
  writeText(e.contactParams)
  writeVarint(e.q)
  writeVarint(e.path.length)
  for (const value of e.path) writeText(value)
  writeText(e.flow.transport)
  writeText(e.flow.localAddress)
  writeVarint(e.flow.localPort)
  writeText(e.flow.remoteAddress)
  writeVarint(e.flow.remotePort)
  writeVarint(e.flow.connectionId + 1)
  writeText(e.userAgent)
}

const idHasTag = (e: { readonly id: string; readonly toTag: string }): boolean => e.id.endsWith(`/${e.toTag}`)

function writeDialog(e: DialogEntry): void {
  const hasTag = idHasTag(e)
  writeBase(PHASES.indexOf(e.phase) | (e.observed ? FLAG_OBSERVED : 0) | (hasTag ? FLAG_ID_HAS_TAG : 0), e)
  writeText(hasTag ? e.id.slice(0, e.id.length - e.toTag.length - 1) : e.id)
  writeText(e.callId)
  writeText(e.fromTag)
  writeText(e.toTag)
  writeText(e.caller)
  writeText(e.callee)
  writeVarint(e.startMs)
  writeVarint(e.answerMs)
  writeVarint(e.phase === 'ended' ? e.endMs : e.leaseUntilMs)
}

/** The entry's canonical bytes, or what keeps it from being one: `CRDT_ENTRY_FIELD` names the field, `CRDT_ENTRY_TOO_LARGE` is the sum. */
export function tryEncodeEntry(e: Entry): Result<Uint8Array> {
  const problem = checkEntry(e)
  if (problem !== undefined) return bad(problem)
  if (e.kind === 'binding') writeBinding(e)
  else writeDialog(e)
  if (at > MAX_ENTRY_BYTES) return bad(fault('CRDT_ENTRY_TOO_LARGE', `${at} bytes, at most ${MAX_ENTRY_BYTES}`))
  const bytes = new Uint8Array(at)
  bytes.set(scratch.subarray(0, at))
  return good(bytes)
}

/**
 * The entry's canonical bytes, at most `MAX_ENTRY_BYTES`.
 *
 * @throws AntipodeError with `tryEncodeEntry`'s code: the caller should have checked what came from a phone.
 */
export function encodeEntry(e: Entry): Uint8Array {
  const encoded = tryEncodeEntry(e)
  if (!encoded.ok) throw new AntipodeError(encoded.fault.code, encoded.fault.detail)
  return encoded.value
}

/**
 * Why a binding with these fields could not be written at whatever node, or undefined: what a registrar asks before it writes the first of a
 * REGISTER's contacts, for a field or their sum may be longer than an entry holds.
 */
export function bindingFault(w: Omit<BindingEntry, 'kind' | keyof EntryBase>): Fault | undefined {
  const encoded = tryEncodeEntry({ ...w, ...LONGEST_STAMP, kind: 'binding' })
  return encoded.ok ? undefined : encoded.fault
}

const LONGEST_STAMP: EntryBase = {
  hlc: MAX_NUMBER,
  region: 'x'.repeat(ENTRY_LIMITS.region),
  node: 'x'.repeat(ENTRY_LIMITS.node),
  incarnation: MAX_NUMBER,
}

/** Order of two entries' canonical bytes; 0 where they are verbatim copies. */
export const compareEncoded = (a: Entry, b: Entry): number => Buffer.compare(encodeEntry(a), encodeEntry(b))

/**
 * Few texts recur in very many entries (nodes, addresses, a phone's model): one string for all of them. A slot is overwritten, never grown, so what an
 * attacker sends costs others' sharing at most.
 */
const INTERN_SLOTS = 1024
const interned: string[] = new Array(INTERN_SLOTS).fill('')

/** Reads with one sticky fault: after it every read gives 0 or '', so the decoder needs one check at its end. */
class Reader {
  readonly #bytes: Buffer
  #at = 0
  problem: Fault | undefined

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get at(): number {
    return this.#at
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  fail(code: string, detail: string): void {
    this.problem ??= fault(code, detail, this.#at)
  }

  byte(): number {
    if (this.problem !== undefined) return 0
    if (this.left < 1) {
      this.fail('CRDT_ENTRY_SHORT', 'ends within a field')
      return 0
    }
    return this.#bytes[this.#at++]!
  }

  varint(field: string, max: number): number {
    let value = 0
    let unit = 1
    for (;;) {
      const b = this.byte()
      if (this.problem !== undefined) return 0
      value += (b & 0x7f) * unit
      // Eight bytes carry 56 bits: the sum is exact as long as it is safe, and past that it is refused here whatever it was rounded to.
      if (value > max) {
        this.fail('CRDT_ENTRY_FIELD', `${field} over ${max}`)
        return 0
      }
      if (b < 0x80) {
        if (b === 0 && unit > 1) this.fail('CRDT_ENTRY_NOT_CANONICAL', `${field}: a byte more than needed`)
        return value
      }
      unit *= 0x80
      if (unit > 2 ** 49) {
        this.fail('CRDT_ENTRY_FIELD', `${field}: over eight bytes`)
        return 0
      }
    }
  }

  text(field: string, limit: number, isShared = false): string {
    const head = this.varint(field, limit * 2 + 1)
    const isWide = head % 2 === 1
    const size = isWide ? head - 1 : head / 2
    if (this.problem !== undefined || size === 0) {
      if (isWide) this.fail('CRDT_ENTRY_NOT_CANONICAL', `${field}: wide without need`)
      return ''
    }
    if (this.left < size) {
      this.fail('CRDT_ENTRY_SHORT', 'ends within a field')
      return ''
    }
    const start = this.#at
    this.#at += size
    if (!isWide) return isShared ? this.#shared(start, size) : this.#bytes.toString('latin1', start, this.#at)
    const text = this.#bytes.toString('utf16le', start, this.#at)
    if (!isWideText(text)) this.fail('CRDT_ENTRY_NOT_CANONICAL', `${field}: wide without need`)
    return text
  }

  #shared(start: number, size: number): string {
    const bytes = this.#bytes
    let hash = size
    for (let i = start; i < start + size; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
    const slot = (hash ^ (hash >>> 15)) & (INTERN_SLOTS - 1)
    const known = interned[slot]!
    if (known.length === size) {
      let i = 0
      while (i < size && known.charCodeAt(i) === bytes[start + i]) i++
      if (i === size) return known
    }
    const text = bytes.toString('latin1', start, start + size)
    interned[slot] = text
    return text
  }
}

function isWideText(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0xff) return true
  return false
}

function readBinding(r: Reader): BindingEntry | undefined {
  const flags = r.byte()
  const op = OPS[flags & FLAG_KIND]
  if (op === undefined || flags > (FLAG_KIND | FLAG_RESET | FLAG_NAT | FLAG_KEY_IS_CONTACT)) {
    r.fail('CRDT_ENTRY_FIELD', `flags ${flags}`)
    return undefined
  }
  const isKeyContact = (flags & FLAG_KEY_IS_CONTACT) !== 0
  const hlc = r.varint('hlc', MAX_NUMBER)
  const incarnation = r.varint('incarnation', MAX_NUMBER)
  const region = r.text('region', ENTRY_LIMITS.region, true)
  const node = r.text('node', ENTRY_LIMITS.node, true)
  const aor = r.text('aor', ENTRY_LIMITS.aor)
  const ownKey = isKeyContact || op === 'clear' ? '' : r.text('key', ENTRY_LIMITS.key)
  const callId = r.text('callId', ENTRY_LIMITS.callId)
  const cseq = r.varint('cseq', MAX_CSEQ)
  const expiresAtMs = op === 'set' ? r.varint('expiresAtMs', MAX_NUMBER) : 0
  const contact = r.text('contact', ENTRY_LIMITS.contact)
  const contactParams = r.text('contactParams', ENTRY_LIMITS.contactParams)
  const q = r.varint('q', 1000)
  const pathCount = r.varint('path', ENTRY_LIMITS.pathValues)
  const path: string[] = pathCount === 0 ? NO_PATH : []
  for (let i = 0; i < pathCount; i++) path.push(r.text('path', ENTRY_LIMITS.pathValue, true))
  const flow = {
    transport: r.text('flow.transport', ENTRY_LIMITS.transport, true),
    localAddress: r.text('flow.localAddress', ENTRY_LIMITS.address, true),
    localPort: r.varint('flow.localPort', MAX_PORT),
    remoteAddress: r.text('flow.remoteAddress', ENTRY_LIMITS.address),
    remotePort: r.varint('flow.remotePort', MAX_PORT),
    connectionId: r.varint('flow.connectionId', MAX_NUMBER) - 1,
    nat: (flags & FLAG_NAT) !== 0,
  }
  const userAgent = r.text('userAgent', ENTRY_LIMITS.userAgent, true)
  if (!isKeyContact && op !== 'clear' && ownKey === contact) r.fail('CRDT_ENTRY_NOT_CANONICAL', 'key repeats the contact')
  if (isKeyContact && op === 'clear') r.fail('CRDT_ENTRY_NOT_CANONICAL', 'a clear has no key')
  const key = isKeyContact ? contact : ownKey
  const reset = (flags & FLAG_RESET) !== 0
  return {
    kind: 'binding',
    hlc,
    region,
    node,
    incarnation,
    op,
    aor,
    key,
    callId,
    cseq,
    reset,
    expiresAtMs,
    contact,
    contactParams,
    q,
    path,
    flow,
    userAgent,
  }
}

/** Most phones have no Path: one empty array for all, frozen because it is shared. */
const NO_PATH: string[] = Object.freeze([] as string[]) as string[]

function readDialog(r: Reader): DialogEntry | undefined {
  const flags = r.byte()
  const phase = PHASES[flags & FLAG_KIND]
  if (phase === undefined || flags > (FLAG_KIND | FLAG_OBSERVED | FLAG_ID_HAS_TAG)) {
    r.fail('CRDT_ENTRY_FIELD', `flags ${flags}`)
    return undefined
  }
  const hlc = r.varint('hlc', MAX_NUMBER)
  const incarnation = r.varint('incarnation', MAX_NUMBER)
  const region = r.text('region', ENTRY_LIMITS.region, true)
  const node = r.text('node', ENTRY_LIMITS.node, true)
  const ownId = r.text('id', ENTRY_LIMITS.id)
  const callId = r.text('callId', ENTRY_LIMITS.callId)
  const fromTag = r.text('fromTag', ENTRY_LIMITS.tag)
  const toTag = r.text('toTag', ENTRY_LIMITS.tag)
  const caller = r.text('caller', ENTRY_LIMITS.aor)
  const callee = r.text('callee', ENTRY_LIMITS.aor)
  const startMs = r.varint('startMs', MAX_NUMBER)
  const answerMs = r.varint('answerMs', MAX_NUMBER)
  const lastMs = r.varint('leaseUntilMs or endMs', MAX_NUMBER)
  const hasTag = (flags & FLAG_ID_HAS_TAG) !== 0
  const id = hasTag ? `${ownId}/${toTag}` : ownId
  if (!hasTag && idHasTag({ id, toTag })) r.fail('CRDT_ENTRY_NOT_CANONICAL', 'id repeats the To-tag')
  return {
    kind: 'dialog',
    hlc,
    region,
    node,
    incarnation,
    id,
    phase,
    callId,
    fromTag,
    toTag,
    caller,
    callee,
    startMs,
    answerMs,
    leaseUntilMs: phase === 'ended' ? 0 : lastMs,
    endMs: phase === 'ended' ? lastMs : 0,
    observed: (flags & FLAG_OBSERVED) !== 0,
  }
}

/**
 * The entry in `bytes`, which may be hostile. Whatever is accepted encodes to the same bytes again; anything else is a fault (`CRDT_ENTRY_…`, with
 * the offset where reading stopped), never an exception.
 */
export function decodeEntry(kind: 'binding', bytes: Uint8Array): Result<BindingEntry>
export function decodeEntry(kind: 'dialog', bytes: Uint8Array): Result<DialogEntry>
export function decodeEntry(kind: EntryKind, bytes: Uint8Array): Result<Entry>
export function decodeEntry(kind: EntryKind, bytes: Uint8Array): Result<Entry> {
  if (bytes.length > MAX_ENTRY_BYTES)
    return bad(fault('CRDT_ENTRY_TOO_LARGE', `${bytes.length} bytes, at most ${MAX_ENTRY_BYTES}`))
  const r = new Reader(bytes)
  const entry = kind === 'binding' ? readBinding(r) : readDialog(r)
  if (r.problem === undefined && r.left > 0) r.fail('CRDT_ENTRY_NOT_CANONICAL', `${r.left} bytes after the last field`)
  if (r.problem !== undefined || entry === undefined) return bad(r.problem ?? fault('CRDT_ENTRY_FIELD', 'no entry'))
  const problem = checkEntry(entry)
  return problem === undefined ? good(entry) : bad(problem)
}
