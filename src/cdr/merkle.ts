import { createHash, hash } from 'node:crypto'

/** Bytes of a hash; SHA-256 throughout. */
export const HASH_BYTES = 32

export const sha256 = (...parts: readonly Uint8Array[]): Buffer => {
  if (parts.length === 1) return hash('sha256', parts[0]!, 'buffer')
  const h = createHash('sha256')
  for (const part of parts) h.update(part)
  return h.digest()
}

const LEAF = Buffer.from([0])
const NODE = Buffer.from([1])

/** RFC 6962 §2.1: the prefixes keep a leaf from being taken for an inner node. */
export const leafHash = (entry: Uint8Array): Buffer => sha256(LEAF, entry)
export const nodeHash = (left: Uint8Array, right: Uint8Array): Buffer => sha256(NODE, left, right)

/**
 * A growing RFC 6962 tree, reduced to what its next root needs: the roots of the perfect subtrees that make it up, largest first, one for each
 * bit set in `size`. Appending costs two hashes on average, a root at most log2(size).
 */
export class TreeHead {
  #size: number
  readonly #hashes: Uint8Array[]

  /** @param hashes as `frontier()` gave it for that size. */
  constructor(size = 0, hashes: readonly Uint8Array[] = []) {
    if (hashes.length !== bitsSet(size))
      throw new RangeError(`a tree of ${size} leaves has ${bitsSet(size)} subtrees, not ${hashes.length}`)
    this.#size = size
    this.#hashes = [...hashes]
  }

  get size(): number {
    return this.#size
  }

  append(leaf: Uint8Array): void {
    let carry = leaf
    // Each trailing 1 bit of the size is a perfect subtree as large as what is carried: they join.
    for (let n = this.#size; n % 2 === 1; n = Math.floor(n / 2)) carry = nodeHash(this.#hashes.pop()!, carry)
    this.#hashes.push(carry)
    this.#size++
  }

  frontier(): readonly Uint8Array[] {
    return [...this.#hashes]
  }

  /** MTH of RFC 6962 §2.1; of no leaves it is the hash of nothing. */
  root(): Buffer {
    const hashes = this.#hashes
    if (hashes.length === 0) return sha256(Buffer.alloc(0))
    let root = hashes[hashes.length - 1]!
    for (let i = hashes.length - 2; i >= 0; i--) root = nodeHash(hashes[i]!, root)
    return Buffer.from(root)
  }

  copy(): TreeHead {
    return new TreeHead(this.#size, this.#hashes)
  }
}

/** Number of bits set in a whole number up to 2^53. */
export function bitsSet(n: number): number {
  let count = 0
  for (; n > 0; n = Math.floor(n / 2)) count += n % 2
  return count
}
