import { createHmac, timingSafeEqual } from 'node:crypto'
import { WireReader, WireWriter } from '../base/bytes.ts'
import { type KeyRing, keyObject } from '../base/keys.ts'
import { type Leg, readLeg, writeLeg } from './leg.ts'

/**
 * The signed token that travels in our Record-Route (`;tk=`) and comes back in the Route of every in-dialog request. With it any node of any
 * region routes the request, and knows which call it belongs to, before a single replicated byte has arrived.
 *
 * The MAC covers the Call-ID and the caller's From-tag, so a token of one call carries no other; the next hop is the token's leg, never the
 * Request-URI alone, so a valid token cannot be pointed at a stranger. DESIGN "Calls".
 *
 * `keyId.base64url(payload, MAC)`; payload: version, stamp, start, caller's leg, callee's leg; MAC: HMAC-SHA-256 cut to 16 bytes.
 */
export interface CallToken {
  /** What tells this call from another with the same Call-ID and From-tag: 16 hex digits. */
  readonly stamp: string
  /** The INVITE's arrival, ms since the epoch. */
  readonly startMs: number
  readonly callerLeg: Leg
  readonly calleeLeg: Leg
}

/** Who sent the in-dialog request that bears the token. */
export type Direction = 'from-caller' | 'from-callee'

export type TokenCheck =
  | { readonly ok: true; readonly token: CallToken; readonly direction: Direction }
  | { readonly ok: false; readonly code: 'TOKEN_MALFORMED' | 'TOKEN_KEY_UNKNOWN' | 'TOKEN_FORGED' }

const VERSION = 1
const MAC_BYTES = 16
const MAX_TOKEN_CHARS = 512

/** The token's text for one branch of a call. `fromTag` is the caller's tag. */
export function makeToken(token: CallToken, callId: string, fromTag: string, ring: KeyRing): string {
  const out = new WireWriter()
  out.u8(VERSION)
  out.text(token.stamp)
  out.uint(token.startMs)
  writeLeg(out, token.callerLeg)
  writeLeg(out, token.calleeLeg)
  const payload = out.done()
  const key = ring.keys.get(ring.current)
  if (key === undefined) throw new Error(`key ring has no key ${ring.current}`)
  return `${ring.current}.${Buffer.concat([payload, mac(key, payload, callId, fromTag)]).toString('base64url')}`
}

/** Checks a token against the dialog that bears it. The tag that the MAC fits is the caller's; so it also tells the direction. */
export function checkToken(text: string, callId: string, fromTag: string, toTag: string, ring: KeyRing): TokenCheck {
  const dot = text.indexOf('.')
  if (dot < 1 || text.length > MAX_TOKEN_CHARS) return { ok: false, code: 'TOKEN_MALFORMED' }
  const key = ring.keys.get(text.slice(0, dot))
  if (key === undefined) return { ok: false, code: 'TOKEN_KEY_UNKNOWN' }
  const bytes = Buffer.from(text.slice(dot + 1), 'base64url')
  if (bytes.length <= MAC_BYTES) return { ok: false, code: 'TOKEN_MALFORMED' }
  const payload = bytes.subarray(0, -MAC_BYTES)
  const given = bytes.subarray(-MAC_BYTES)
  const direction: Direction | undefined = timingSafeEqual(given, mac(key, payload, callId, fromTag))
    ? 'from-caller'
    : toTag !== '' && timingSafeEqual(given, mac(key, payload, callId, toTag))
      ? 'from-callee'
      : undefined
  if (direction === undefined) return { ok: false, code: 'TOKEN_FORGED' }
  const input = new WireReader(payload)
  if (input.u8() !== VERSION) return { ok: false, code: 'TOKEN_MALFORMED' }
  const stamp = input.name(true)
  const startMs = input.uint()
  const callerLeg = readLeg(input)
  const calleeLeg = readLeg(input)
  if (input.failed || input.left > 0 || callerLeg === undefined || calleeLeg === undefined)
    return { ok: false, code: 'TOKEN_MALFORMED' }
  return { ok: true, token: { stamp, startMs, callerLeg, calleeLeg }, direction }
}

function mac(key: Buffer, payload: Buffer, callId: string, callerTag: string): Buffer {
  // Lengths first: no two (Call-ID, tag) pairs give the same bytes.
  return createHmac('sha256', keyObject(key))
    .update(`token:${callId.length}:${callerTag.length}:${callId}${callerTag}`, 'latin1')
    .update(payload)
    .digest()
    .subarray(0, MAC_BYTES)
}
