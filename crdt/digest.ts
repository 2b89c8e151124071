import type { Author, AuthorDigest } from './frames.ts'

/**
 * Digests of sets of docs: the lane-wise sum mod 2^32 of the docs' 32-byte hashes. A sum can be kept up to date doc by doc, whatever the order. A doc's hash
 * binds its name and its length, so a doc counts once and only as long as it is.
 */
export class DocSum {
  readonly #lanes = new Uint32Array(8)
  docs = 0

  add(hash: Uint8Array): void {
    for (let i = 0; i < 8; i++) this.#lanes[i] = this.#lanes[i]! + lane(hash, i)
    this.docs++
  }

  remove(hash: Uint8Array): void {
    for (let i = 0; i < 8; i++) this.#lanes[i] = this.#lanes[i]! - lane(hash, i)
    this.docs--
  }

  /** Big-endian lanes, 32 bytes. */
  bytes(): Buffer {
    const out = Buffer.allocUnsafe(32)
    for (let i = 0; i < 8; i++) out.writeUInt32BE(this.#lanes[i]!, 4 * i)
    return out
  }

  equals(docs: number, sum: Uint8Array): boolean {
    if (docs !== this.docs) return false
    for (let i = 0; i < 8; i++) if (this.#lanes[i] !== lane(sum, i)) return false
    return true
  }
}

const lane = (bytes: Uint8Array, i: number): number =>
  ((bytes[4 * i]! << 24) | (bytes[4 * i + 1]! << 16) | (bytes[4 * i + 2]! << 8) | bytes[4 * i + 3]!) >>> 0

/**
 * One digest of everything, for people to compare: over the authors in order of their names.
 *
 * @param hash SHA-256 as the replica uses it
 */
export function overallDigest(authors: readonly AuthorDigest[], hash: (bytes: Buffer) => Buffer): string {
  const line = (a: Author): string => `${a.region}/${a.node}/${a.incarnation}`
  const lines = authors
    .filter((a) => a.docs > 0)
    .map((a) => `${line(a.author)} ${a.docs} ${Buffer.from(a.sum).toString('hex')}\n`)
    .sort()
  return hash(Buffer.from(lines.join('')))
    .toString('hex')
    .slice(0, 32)
}

/** The lowest bucket that is still retained at `nowMs`: `(bucket + 1) × width + longest expiry + grace > now`. */
export const horizonAt = (
  nowMs: number,
  c: { readonly bucketWidthMs: number; readonly longestExpiryMs: number; readonly graceMs: number },
): number => Math.max(0, Math.floor((nowMs - c.longestExpiryMs - c.graceMs) / c.bucketWidthMs))

/** When the retention of `bucket` is over, absolute ms. */
export const retentionEndMs = (
  bucket: number,
  c: { readonly bucketWidthMs: number; readonly longestExpiryMs: number; readonly graceMs: number },
): number => (bucket + 1) * c.bucketWidthMs + c.longestExpiryMs + c.graceMs
