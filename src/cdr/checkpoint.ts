import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { bad, fault, good, type Result } from '../base/errors.ts'
import { HASH_BYTES, sha256 } from './merkle.ts'
import type { Genesis } from './segment-header.ts'

/** A tree head of one chain. */
export interface Checkpoint {
  readonly origin: string
  readonly size: number
  readonly root: Uint8Array
}

/** The log's name, and the name of the key that signs it, as C2SP tlog-checkpoint asks. */
export const chainOrigin = (g: Pick<Genesis, 'region' | 'node' | 'incarnation'>): string =>
  `antipode/${g.region}/${g.node}/${g.incarnation}`

const ED25519 = Buffer.from([1])
const KEY_ID_BYTES = 4
const SIGNATURE_BYTES = 64

/** The signed note: origin, size, root, an empty line, one signature line. C2SP tlog-checkpoint and signed-note. */
export function signCheckpoint(c: Checkpoint, key: KeyObject): string {
  const body = bodyOf(c)
  const signature = sign(null, Buffer.from(body, 'utf8'), key)
  return noteOf(c, Buffer.concat([keyId(c.origin, createPublicKey(key)), signature]))
}

/** Reads a note and checks its signature. A note in any other spelling than ours is refused, so that no byte of it can differ unseen. */
export function openCheckpoint(note: string, key: KeyObject): Result<Checkpoint> {
  const lines = note.split('\n')
  const [origin, size, root, , signatureLine] = lines
  if (lines.length !== 6 || origin === undefined || size === undefined || root === undefined || signatureLine === undefined)
    return refuse('not a checkpoint')
  if (!/^(0|[1-9][0-9]{0,15})$/.test(size)) return refuse('the size is not a number')
  const checkpoint: Checkpoint = { origin, size: Number(size), root: Buffer.from(root, 'base64') }
  const signature = Buffer.from(signatureLine.split(' ').at(-1)!, 'base64')
  if (
    checkpoint.root.length !== HASH_BYTES ||
    signature.length !== KEY_ID_BYTES + SIGNATURE_BYTES ||
    noteOf(checkpoint, signature) !== note
  )
    return refuse('not in canonical form')
  if (!signature.subarray(0, KEY_ID_BYTES).equals(keyId(origin, key))) return refuse('signed by another key')
  if (!verify(null, Buffer.from(bodyOf(checkpoint), 'utf8'), key, signature.subarray(KEY_ID_BYTES)))
    return refuse('the signature does not fit')
  return good(checkpoint)
}

/** The verifier key in C2SP form, for witnesses and tools: `name+keyid+base64`. */
export const verifierKey = (origin: string, key: KeyObject): string =>
  `${origin}+${keyId(origin, key).toString('hex')}+${Buffer.concat([ED25519, rawKey(key)]).toString('base64')}`

const bodyOf = (c: Checkpoint): string => `${c.origin}\n${c.size}\n${Buffer.from(c.root).toString('base64')}\n`
const noteOf = (c: Checkpoint, signature: Buffer): string => `${bodyOf(c)}\n\u2014 ${c.origin} ${signature.toString('base64')}\n`
const rawKey = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' }).subarray(-32)
const keyId = (origin: string, key: KeyObject): Buffer =>
  sha256(Buffer.from(`${origin}\n`, 'utf8'), ED25519, rawKey(key)).subarray(0, KEY_ID_BYTES)
const refuse = (detail: string): Result<never> => bad(fault('CDR_CHECKPOINT_BAD', detail))
