import { type Answer, encode } from 'dns-packet'
import { bad, fault, good, type Result } from '../src/base/errors.ts'
import type { QueryType, ZoneAnswer } from './answer.ts'

/**
 * Queries in and answers out, as bytes. A query is read by our own checks alone (one question, no compression anywhere it would have to be followed,
 * nothing allocated by a count from the wire); dns-packet encodes the records of the answer. The question goes back byte for byte, so the case that
 * a resolver mixed into the name (0x20) stays.
 */
export interface Query {
  readonly id: number
  readonly recursionDesired: boolean
  /** The question's bytes: name, type, class. */
  readonly question: Uint8Array
  /** As spelled, without the dot at the end; `''` is the root. */
  readonly name: string
  readonly type: QueryType
  readonly typeNumber: number
  /** Undefined without EDNS (RFC 6891). */
  readonly edns: { readonly payloadBytes: number; readonly dnssecOk: boolean } | undefined
}

export const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5, BADVERS: 16 } as const

/** Why a packet is not a query that we answer from the zone. `reply` is what to send, or undefined: say nothing. */
export interface QueryFault {
  readonly code: string
  readonly offset: number
  readonly detail: string
  readonly reply: Uint8Array | undefined
}

export const MAX_QUERY_BYTES = 4096
/** What IPv6's least MTU leaves: never fragmented (DNS flag day 2020). */
export const MAX_UDP_ANSWER_BYTES = 1232
/** RFC 1035 §2.3.4: for clients without EDNS. */
export const PLAIN_UDP_ANSWER_BYTES = 512

const HEADER_BYTES = 12
const MAX_ADDITIONALS = 8
const TYPE_OPT = 41
const CLASS_IN = 1
const CLASS_ANY = 255
const FLAG_QR = 0x8000
const FLAG_AA = 0x0400
const FLAG_TC = 0x0200
const FLAG_RD = 0x0100

const TYPES: ReadonlyMap<number, QueryType> = new Map([
  [1, 'A'],
  [2, 'NS'],
  [6, 'SOA'],
  [28, 'AAAA'],
  [33, 'SRV'],
  [35, 'NAPTR'],
  [255, 'ANY'],
])
/** IXFR, AXFR, MAILB, MAILA: meta queries that this server does not serve (transfers come with `transfer`). */
const REFUSED_TYPES: ReadonlySet<number> = new Set([251, 252, 253, 254])

/** Reads one query: a datagram, or a TCP message without its length. Never throws. */
export function readQuery(bytes: Uint8Array): Result<Query, QueryFault> {
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const silent = (code: string, detail: string): Result<Query, QueryFault> => bad({ ...fault(code, detail), reply: undefined })
  if (b.length < HEADER_BYTES) return silent('DNS_SHORT', `${b.length} bytes`)
  const flags = b.readUInt16BE(2)
  // An answer to an answer would let two servers talk for ever.
  if ((flags & FLAG_QR) !== 0) return silent('DNS_NOT_A_QUERY', 'QR is set')
  const refuse = (code: string, rcode: number, detail: string, offset = -1): Result<Query, QueryFault> =>
    bad({ ...fault(code, detail, offset), reply: headerOnly(b, rcode) })

  if (b.length > MAX_QUERY_BYTES) return refuse('DNS_LONG', RCODE.FORMERR, `${b.length} bytes`)
  if (((flags >> 11) & 15) !== 0) return refuse('DNS_OPCODE', RCODE.NOTIMP, `opcode ${(flags >> 11) & 15}`, 2)
  const [questions, answers, authorities, additionals] = [4, 6, 8, 10].map((at) => b.readUInt16BE(at)) as [
    number,
    number,
    number,
    number,
  ]
  // RFC 9619: exactly one question.
  if (questions !== 1) return refuse('DNS_COUNTS', RCODE.FORMERR, `${questions} questions`, 4)
  if (answers !== 0 || authorities !== 0) return refuse('DNS_COUNTS', RCODE.FORMERR, 'records in a query', 6)
  if (additionals > MAX_ADDITIONALS) return refuse('DNS_COUNTS', RCODE.FORMERR, `${additionals} additional records`, 10)

  const name = readName(b, HEADER_BYTES)
  if (name === undefined) return refuse('DNS_NAME', RCODE.FORMERR, 'the name of the question', HEADER_BYTES)
  if (name.next + 4 > b.length) return refuse('DNS_SHORT', RCODE.FORMERR, 'the question ends early', name.next)
  const typeNumber = b.readUInt16BE(name.next)
  const klass = b.readUInt16BE(name.next + 2)
  const end = name.next + 4

  const query = {
    id: b.readUInt16BE(0),
    recursionDesired: (flags & FLAG_RD) !== 0,
    question: b.subarray(HEADER_BYTES, end),
    name: name.text,
    type: TYPES.get(typeNumber) ?? 'OTHER',
    typeNumber,
  } as const
  let edns: Query['edns']
  let at = end
  for (let i = 0; i < additionals; i++) {
    const owner = skipName(b, at)
    if (owner === undefined || owner + 10 > b.length) return refuse('DNS_SHORT', RCODE.FORMERR, 'an additional record', at)
    const dataBytes = b.readUInt16BE(owner + 8)
    const next = owner + 10 + dataBytes
    if (next > b.length) return refuse('DNS_SHORT', RCODE.FORMERR, 'an additional record', owner)
    if (b.readUInt16BE(owner) === TYPE_OPT) {
      // RFC 6891 §6.1.1: one OPT, at the root.
      if (edns !== undefined || owner !== at + 1)
        return refuse('DNS_EDNS', RCODE.FORMERR, 'a second OPT, or one not at the root', at)
      edns = { payloadBytes: b.readUInt16BE(owner + 2), dnssecOk: (b.readUInt16BE(owner + 6) & 0x8000) !== 0 }
      const version = b.readUInt8(owner + 5)
      if (version !== 0) {
        const reply = encodeReply({ ...query, edns }, RCODE.BADVERS, EMPTY, PLAIN_UDP_ANSWER_BYTES)
        return bad({ ...fault('DNS_EDNS', `EDNS version ${version}`, owner + 5), reply })
      }
    }
    at = next
  }
  if (at !== b.length) return refuse('DNS_TRAILING', RCODE.FORMERR, `${b.length - at} bytes after the last record`, at)
  const complete: Query = { ...query, edns }
  if (REFUSED_TYPES.has(typeNumber) || (klass !== CLASS_IN && klass !== CLASS_ANY)) {
    const reply = encodeReply(complete, RCODE.REFUSED, EMPTY, PLAIN_UDP_ANSWER_BYTES)
    return bad({ ...fault('DNS_REFUSED', `type ${typeNumber}, class ${klass}`, name.next), reply })
  }
  return good(complete)
}

/** FORMERR and NOTIMP echo the header alone: what follows could not be trusted. */
function headerOnly(query: Buffer, rcode: number): Uint8Array {
  const reply = Buffer.alloc(HEADER_BYTES)
  reply.writeUInt16BE(query.readUInt16BE(0), 0)
  reply.writeUInt16BE(FLAG_QR | (query.readUInt16BE(2) & (0x7800 | FLAG_RD)) | rcode, 2)
  return reply
}

/** The question's name. Nothing lies before it that a compression pointer could mean, so a pointer is a fault and no loop can be. */
function readName(b: Buffer, start: number): { text: string; next: number } | undefined {
  const labels: string[] = []
  let at = start
  for (;;) {
    const length = b[at]
    if (length === undefined || length > 63 || at - start > 254) return undefined
    at++
    if (length === 0) return { text: labels.join('.'), next: at }
    if (at + length > b.length) return undefined
    // A dot inside a label would make another name of it.
    const label = b.toString('latin1', at, at + length)
    labels.push(label.replaceAll('.', '\\.'))
    at += length
  }
}

/** Where a record's owner name ends. A pointer ends a name, and is not followed. */
function skipName(b: Buffer, start: number): number | undefined {
  let at = start
  for (;;) {
    const length = b[at]
    if (length === undefined || at - start > 254) return undefined
    if (length === 0) return at + 1
    if (length >= 192) return at + 2
    if (length > 63) return undefined
    at += 1 + length
  }
}

const EMPTY: ZoneAnswer = { rcode: 'NOERROR', authoritative: false, answers: [], authorities: [], additionals: [] }

/** How large an answer to this query may be over UDP. */
export const udpLimit = (query: Query): number =>
  query.edns === undefined
    ? PLAIN_UDP_ANSWER_BYTES
    : Math.min(MAX_UDP_ANSWER_BYTES, Math.max(PLAIN_UDP_ANSWER_BYTES, query.edns.payloadBytes))

/** The answer as bytes, at most `limitBytes`. Additional records are left out from the end where they do not fit; if the rest does not, TC. */
export const encodeAnswer = (query: Query, answer: ZoneAnswer, limitBytes: number): Uint8Array =>
  encodeReply(query, RCODE[answer.rcode], answer, limitBytes)

function encodeReply(query: Query, rcode: number, answer: ZoneAnswer, limitBytes: number): Uint8Array {
  const { answers, authorities } = answer
  for (let kept = answer.additionals.length; kept >= 0; kept = smaller(kept)) {
    const reply = assemble(query, rcode, { ...answer, additionals: answer.additionals.slice(0, kept) }, false)
    if (reply.length <= limitBytes) return reply
    if (kept === 0) break
  }
  const truncated = answers.length + authorities.length > 0
  return assemble(query, rcode, { ...answer, answers: [], authorities: [], additionals: [] }, truncated)
}

/** Halving: a few tries however many there are. */
const smaller = (kept: number): number => Math.floor(kept / 2)

function assemble(query: Query, rcode: number, answer: ZoneAnswer, truncated: boolean): Buffer {
  const opt: Answer[] =
    query.edns === undefined
      ? []
      : [
          {
            type: 'OPT',
            name: '.',
            udpPayloadSize: MAX_UDP_ANSWER_BYTES,
            extendedRcode: rcode >> 4,
            ednsVersion: 0,
            flags: query.edns.dnssecOk ? 0x8000 : 0,
            flag_do: query.edns.dnssecOk,
            options: [],
          },
        ]
  const flags =
    (answer.authoritative ? FLAG_AA : 0) | (truncated ? FLAG_TC : 0) | (query.recursionDesired ? FLAG_RD : 0) | (rcode & 15)
  const records = encode({
    type: 'response',
    id: query.id,
    flags,
    questions: [],
    answers: [...answer.answers],
    authorities: [...answer.authorities],
    additionals: [...answer.additionals, ...opt],
  })
  // dns-packet writes no compression pointers, so nothing moves when the question is put in.
  const reply = Buffer.concat([records.subarray(0, HEADER_BYTES), query.question, records.subarray(HEADER_BYTES)])
  reply.writeUInt16BE(1, 4)
  return reply
}
