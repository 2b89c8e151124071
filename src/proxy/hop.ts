import { createHmac, timingSafeEqual } from 'node:crypto'
import { WireReader, WireWriter } from '../base/bytes.ts'
import { type KeyRing, keyObject } from '../base/keys.ts'
import type { SipRequest } from '../sip/message.ts'
import { type Leg, readLeg, writeLeg } from './leg.ts'

/**
 * The header by which one node hands a request to the edge that holds its next flow. A node is never believed by its address: the MAC covers the
 * request's identity (method, Call-ID, CSeq, tags, Request-URI), the leg, the sender and the time, under the cluster's token key.
 */
export const HOP_HEADER = 'Antipode-Hop'

export interface Hop {
  readonly fromNode: string
  readonly atMs: number
  readonly leg: Leg
}

/** A hop older or newer than this by our clock is refused: the life of a transaction (64 × T1). */
export const HOP_LIFETIME_MS = 32_000

export type HopCheck =
  | { readonly ok: true; readonly hop: Hop }
  | { readonly ok: false; readonly code: 'HOP_MALFORMED' | 'HOP_KEY_UNKNOWN' | 'HOP_FORGED' | 'HOP_EXPIRED' }

export function makeHop(request: SipRequest, hop: Hop, ring: KeyRing): string {
  const out = new WireWriter()
  out.text(hop.fromNode)
  out.uint(hop.atMs)
  writeLeg(out, hop.leg)
  const payload = out.done()
  return `${ring.current}.${Buffer.concat([payload, mac(ring.keys.get(ring.current)!, payload, request)]).toString('base64url')}`
}

export function checkHop(text: string, request: SipRequest, ring: KeyRing, nowMs: number): HopCheck {
  const dot = text.indexOf('.')
  if (dot < 1 || text.length > 512) return { ok: false, code: 'HOP_MALFORMED' }
  const key = ring.keys.get(text.slice(0, dot))
  if (key === undefined) return { ok: false, code: 'HOP_KEY_UNKNOWN' }
  const bytes = Buffer.from(text.slice(dot + 1), 'base64url')
  if (bytes.length <= 16) return { ok: false, code: 'HOP_MALFORMED' }
  const payload = bytes.subarray(0, -16)
  if (!timingSafeEqual(bytes.subarray(-16), mac(key, payload, request))) return { ok: false, code: 'HOP_FORGED' }
  const input = new WireReader(payload)
  const fromNode = input.name()
  const atMs = input.uint()
  const leg = readLeg(input)
  if (input.failed || input.left > 0 || leg === undefined) return { ok: false, code: 'HOP_MALFORMED' }
  if (Math.abs(nowMs - atMs) > HOP_LIFETIME_MS) return { ok: false, code: 'HOP_EXPIRED' }
  return { ok: true, hop: { fromNode, atMs, leg } }
}

function mac(key: Buffer, payload: Buffer, r: SipRequest): Buffer {
  const identity = [r.method, r.callId, String(r.cseq.seq), r.fromTag, r.toTag, r.uri]
  return createHmac('sha256', keyObject(key))
    .update(`hop:${identity.map((part) => `${part.length}:${part}`).join('')}`, 'latin1')
    .update(payload)
    .digest()
    .subarray(0, 16)
}
