import { bad, fault, good, type Result } from '../base/errors.ts'
import { HASH_BYTES } from './merkle.ts'
import { MAX_GROUP_BYTES } from './segment.ts'
import { decodeHeader, HEADER_BYTES } from './segment-header.ts'

/** What a holder has of one chain: groups `first` to `commits` - 1, and the chain hash after them. */
export interface Held {
  readonly incarnation: number
  readonly first: number
  readonly commits: number
  readonly hash: Uint8Array
}

export type RefuseReason = 'unknown' | 'gap' | 'broken' | 'disk'

/** FORMAT.md "Mirror protocol". */
export type MirrorMessage =
  | { readonly type: 'query' }
  | { readonly type: 'holds'; readonly chains: readonly Held[] }
  /** A whole segment header of kind own. */
  | { readonly type: 'open'; readonly header: Uint8Array }
  | { readonly type: 'data'; readonly incarnation: number; readonly from: number; readonly groups: Uint8Array }
  | { readonly type: 'ack'; readonly incarnation: number; readonly commits: number; readonly hash: Uint8Array }
  | {
      readonly type: 'refuse'
      readonly why: RefuseReason
      readonly incarnation: number
      readonly commits: number
      readonly hash: Uint8Array
    }
  | { readonly type: 'pull'; readonly incarnation: number; readonly from: number; readonly withHeader: boolean }
  | {
      readonly type: 'range'
      readonly incarnation: number
      readonly from: number
      readonly header: Uint8Array | undefined
      readonly groups: Uint8Array
    }

const TYPES = ['query', 'holds', 'open', 'data', 'ack', 'refuse', 'pull', 'range'] as const
const REASONS: readonly RefuseReason[] = ['unknown', 'gap', 'broken', 'disk']
export const MAX_CHAINS_HELD = 64
/** Most group bytes in one message; one group always fits. */
export const MAX_DATA_BYTES = MAX_GROUP_BYTES
const HELD_BYTES = 24 + HASH_BYTES

export function encodeMessage(m: MirrorMessage): Buffer {
  const type = Buffer.from([TYPES.indexOf(m.type) + 1])
  switch (m.type) {
    case 'query':
      return type
    case 'holds': {
      const chains = m.chains.slice(0, MAX_CHAINS_HELD)
      const count = Buffer.alloc(2)
      count.writeUInt16BE(chains.length)
      return Buffer.concat([type, count, ...chains.flatMap((c) => [numbers(c.incarnation, c.first, c.commits), c.hash])])
    }
    case 'open':
      return Buffer.concat([type, m.header])
    case 'data':
      return Buffer.concat([type, numbers(m.incarnation, m.from), m.groups])
    case 'ack':
      return Buffer.concat([type, numbers(m.incarnation, m.commits), m.hash])
    case 'refuse':
      return Buffer.concat([type, Buffer.from([REASONS.indexOf(m.why) + 1]), numbers(m.incarnation, m.commits), m.hash])
    case 'pull':
      return Buffer.concat([type, numbers(m.incarnation, m.from), Buffer.from([m.withHeader ? 1 : 0])])
    case 'range': {
      const header = m.header ?? new Uint8Array(0)
      const length = Buffer.alloc(4)
      length.writeUInt32BE(header.length)
      return Buffer.concat([type, numbers(m.incarnation, m.from), length, header, m.groups])
    }
  }
}

/** A peer's message, bounded; groups and hashes are not verified here. The result shares memory with `bytes`. */
export function decodeMessage(bytes: Uint8Array): Result<MirrorMessage> {
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const type = TYPES[(b[0] ?? 0) - 1]
  const wrong = (detail: string, at = 1): Result<never> =>
    bad(fault('CDR_MIRROR_MALFORMED', `${type ?? 'message'}: ${detail}`, at))
  const exactly = (length: number): boolean => b.length === length
  let at = 1
  let inRange = true
  const number = (): number => {
    const n = Number(b.readBigUInt64BE(at))
    inRange &&= Number.isSafeInteger(n)
    at += 8
    return n
  }
  const hash = (): Uint8Array => {
    at += HASH_BYTES
    return b.subarray(at - HASH_BYTES, at)
  }
  const checked = (m: MirrorMessage): Result<MirrorMessage> => (inRange ? good(m) : wrong('number out of range'))
  if (type === undefined) return wrong(`type ${b[0]} is not known`, 0)
  switch (type) {
    case 'query':
      return exactly(1) ? good({ type }) : wrong('length')
    case 'holds': {
      const count = b.length < 3 ? -1 : b.readUInt16BE(1)
      if (count < 0 || count > MAX_CHAINS_HELD || !exactly(3 + count * HELD_BYTES)) return wrong('length')
      at = 3
      const chains: Held[] = []
      for (let i = 0; i < count; i++) chains.push({ incarnation: number(), first: number(), commits: number(), hash: hash() })
      return checked({ type, chains })
    }
    case 'open': {
      if (!exactly(1 + HEADER_BYTES)) return wrong('length')
      const header = decodeHeader(b.subarray(1))
      return header.ok ? good({ type, header: b.subarray(1) }) : wrong(header.fault.detail)
    }
    case 'data': {
      if (b.length <= 17 || b.length > 17 + MAX_DATA_BYTES) return wrong('length')
      return checked({ type, incarnation: number(), from: number(), groups: b.subarray(17) })
    }
    case 'ack':
      return exactly(17 + HASH_BYTES)
        ? checked({ type, incarnation: number(), commits: number(), hash: hash() })
        : wrong('length')
    case 'refuse': {
      const why = REASONS[(b[1] ?? 0) - 1]
      if (!exactly(18 + HASH_BYTES) || why === undefined) return wrong('length or reason')
      at = 2
      return checked({ type, why, incarnation: number(), commits: number(), hash: hash() })
    }
    case 'pull':
      if (!exactly(18) || b[17]! > 1) return wrong('length or flags')
      return checked({ type, incarnation: number(), from: number(), withHeader: b[17] === 1 })
    case 'range': {
      if (b.length < 21 || b.length > 21 + HEADER_BYTES + MAX_DATA_BYTES) return wrong('length')
      const length = b.readUInt32BE(17)
      if ((length !== 0 && length !== HEADER_BYTES) || b.length < 21 + length) return wrong('header length', 17)
      const header = length === 0 ? undefined : b.subarray(21, 21 + length)
      if (header !== undefined && !decodeHeader(header).ok) return wrong('header', 21)
      return checked({ type, incarnation: number(), from: number(), header, groups: b.subarray(21 + length) })
    }
  }
}

function numbers(...values: number[]): Buffer {
  const out = Buffer.alloc(values.length * 8)
  values.forEach((n, i) => {
    out.writeBigUInt64BE(BigInt(n), i * 8)
  })
  return out
}
