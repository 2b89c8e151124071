import { AntipodeError, bad, type Fault, fault, good, type Result } from '../base/errors.ts'
import type { CdrPart } from './call-record.ts'

/** Longest string of a part in bytes of UTF-8; longer ones are cut when written (a SIP line is bounded to as much). */
export const MAX_STRING_BYTES = 8192

const VERSION = 1
const FIXED_BYTES = 1 + 1 + 1 + 2 + 16 + 4 * 8
const PARTS = ['attempt', 'start', 'interim', 'end'] as const
const HUNG_UP = ['', 'caller', 'callee', 'system'] as const
const STRINGS = ['leg', 'callId', 'fromTag', 'region', 'node', 'caller', 'callee', 'account', 'source', 'reason'] as const
// A byte-order mark is a character like any other here, or decoding would lose it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * A part in the one canonical form of FORMAT.md "Payload".
 *
 * @throws AntipodeError CDR_PART_INVALID for an id that is not 32 hex digits or a number out of range: our own defect, never the network's.
 */
export function encodePart(part: CdrPart): Buffer {
  const strings = STRINGS.map((name) => clip(part[name]))
  const out = Buffer.alloc(strings.reduce((sum, s) => sum + 2 + s.length, FIXED_BYTES))
  const kind = PARTS.indexOf(part.part)
  const hungUp = HUNG_UP.indexOf(part.hungUpBy)
  if (kind < 0 || hungUp < 0) throw invalid(`part ${part.part}, hung up by ${part.hungUpBy}`)
  if (!/^[0-9a-f]{32}$/.test(part.id)) throw invalid('id is not 32 lower-case hex digits')
  if (!Number.isInteger(part.status) || part.status < 0 || part.status > 65535) throw invalid(`status ${part.status}`)
  out[0] = VERSION
  out[1] = kind + 1
  out[2] = (part.observed ? 1 : 0) | (part.emergency ? 2 : 0) | (hungUp << 2)
  out.writeUInt16BE(part.status, 3)
  out.write(part.id, 5, 'hex')
  let at = 21
  for (const n of [part.atMs, part.startMs, part.answerMs, part.incarnation]) {
    if (!Number.isSafeInteger(n) || n < 0) throw invalid(`a time or incarnation of ${n}`)
    at = out.writeBigUInt64BE(BigInt(n), at)
  }
  for (const s of strings) {
    at = out.writeUInt16BE(s.length, at)
    at += s.copy(out, at)
  }
  return out
}

/** The part that `encodePart` gave these bytes for; a fault for any other bytes. */
export function decodePart(bytes: Uint8Array): Result<CdrPart> {
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (b.length < FIXED_BYTES) return bad(wrong('shorter than a part', b.length))
  if (b[0] !== VERSION) return bad(wrong(`version ${b[0]}`, 0))
  const part = PARTS[b[1]! - 1]
  if (part === undefined) return bad(wrong(`kind ${b[1]}`, 1))
  const flags = b[2]!
  if (flags > 15) return bad(wrong(`flags ${flags}`, 2))
  const numbers: number[] = []
  let at = 21
  for (let i = 0; i < 4; i++, at += 8) {
    const n = Number(b.readBigUInt64BE(at))
    if (!Number.isSafeInteger(n)) return bad(wrong('number out of range', at))
    numbers.push(n)
  }
  const strings = {} as Record<(typeof STRINGS)[number], string>
  for (const name of STRINGS) {
    if (at + 2 > b.length) return bad(wrong(`${name} is missing`, at))
    const length = b.readUInt16BE(at)
    at += 2
    if (length > MAX_STRING_BYTES || at + length > b.length) return bad(wrong(`${name} has ${length} bytes`, at - 2))
    try {
      strings[name] = utf8.decode(b.subarray(at, at + length))
    } catch {
      return bad(wrong(`${name} is not UTF-8`, at))
    }
    at += length
  }
  if (at !== b.length) return bad(wrong('bytes left over', at))
  return good({
    part,
    id: b.toString('hex', 5, 21),
    atMs: numbers[0]!,
    startMs: numbers[1]!,
    answerMs: numbers[2]!,
    incarnation: numbers[3]!,
    status: b.readUInt16BE(3),
    observed: (flags & 1) !== 0,
    emergency: (flags & 2) !== 0,
    hungUpBy: HUNG_UP[flags >> 2]!,
    ...strings,
  })
}

/** UTF-8, cut before the character that would exceed the bound. */
function clip(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8')
  if (bytes.length <= MAX_STRING_BYTES) return bytes
  let end = MAX_STRING_BYTES
  while ((bytes[end]! & 0xc0) === 0x80) end--
  return bytes.subarray(0, end)
}

const invalid = (what: string): AntipodeError => new AntipodeError('CDR_PART_INVALID', `not a part: ${what}`)
const wrong = (detail: string, offset: number): Fault => fault('CDR_PART_MALFORMED', detail, offset)
