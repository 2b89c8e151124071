import { createHmac, timingSafeEqual } from 'node:crypto'
import { AntipodeError } from '../base/errors.ts'
import { type KeyRing, keyObject } from '../base/keys.ts'
import type { Random } from '../base/prng.ts'

/**
 * Nonces that are signed, not stored, so that a challenge from one node is answered at any other, in any region, for as long as the signing key is
 * listed. Base64url over
 *
 *     version (1 byte) | length of key id (1) | key id | issued, ms since the epoch (6, big-endian) | random (8) | HMAC-SHA-256 cut to 16 bytes
 *
 * The MAC covers all before it, the realm, and the algorithm: a nonce that was given out for SHA-256 cannot be answered with MD5.
 */
const VERSION = 1
const RANDOM_BYTES = 8
const MAC_BYTES = 16
const MAX_KEY_ID_BYTES = 32
const MAX_NONCE_CHARS = Math.ceil(((2 + MAX_KEY_ID_BYTES + 6 + RANDOM_BYTES + MAC_BYTES) * 4) / 3)

export interface NonceScope {
  readonly ring: KeyRing
  readonly realm: string
  readonly algorithm: string
}

export function makeNonce(o: NonceScope & { readonly nowMs: number; readonly random: Random }): string {
  const key = o.ring.keys.get(o.ring.current)
  const id = Buffer.from(o.ring.current, 'latin1')
  if (key === undefined || id.length > MAX_KEY_ID_BYTES)
    throw new AntipodeError('SIP_NONCE_KEY', 'no current nonce key, or its id is too long')
  const signedBytes = 2 + id.length + 6 + RANDOM_BYTES
  const bytes = Buffer.alloc(signedBytes + MAC_BYTES)
  bytes[0] = VERSION
  bytes[1] = id.length
  id.copy(bytes, 2)
  bytes.writeUIntBE(Math.floor(o.nowMs), 2 + id.length, 6)
  bytes.set(o.random.bytes(RANDOM_BYTES), 2 + id.length + 6)
  mac(key, o, bytes.subarray(0, signedBytes)).copy(bytes, signedBytes, 0, MAC_BYTES)
  return bytes.toString('base64url')
}

/** @returns when a nonce of ours was issued, ms since the epoch; undefined when it is none: forged, of a retired key, realm or algorithm. */
export function checkNonce(nonce: string, o: NonceScope): number | undefined {
  if (nonce.length > MAX_NONCE_CHARS) return undefined
  const bytes = Buffer.from(nonce, 'base64url')
  const idBytes = bytes[1] ?? 0
  const signedBytes = 2 + idBytes + 6 + RANDOM_BYTES
  if (bytes[0] !== VERSION || bytes.length !== signedBytes + MAC_BYTES) return undefined
  // Decoding is lenient; one nonce must have one spelling, or the replay table would not know it again.
  if (bytes.toString('base64url') !== nonce) return undefined
  const key = o.ring.keys.get(bytes.toString('latin1', 2, 2 + idBytes))
  if (key === undefined) return undefined
  const expected = mac(key, o, bytes.subarray(0, signedBytes)).subarray(0, MAC_BYTES)
  return timingSafeEqual(expected, bytes.subarray(signedBytes)) ? bytes.readUIntBE(2 + idBytes, 6) : undefined
}

const mac = (key: Buffer, o: NonceScope, signed: Buffer): Buffer =>
  createHmac('sha256', keyObject(key))
    .update(`nonce:${o.algorithm}:${Buffer.byteLength(o.realm)}:${o.realm}:`)
    .update(signed)
    .digest()
