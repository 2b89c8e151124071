import { detached } from './chars.ts'

interface Use {
  readonly issuedMs: number
  highest: number
  /** Bit n: count `highest - n` was used. */
  bits: number
}

/** Counts that may still come out of order below the highest. */
const WINDOW = 32

/**
 * Which nonce counts were used at this node (RFC 7616 §3.4, `nc`). Bounded: when the table is full the oldest nonce is forgotten, and from then on every
 * unknown nonce issued no later than it counts as stale, so that forgetting costs a client one more round and never lets a replay through.
 * Other nodes have tables of their own: credentials seen on the wire may be used once at each node within the nonce lifetime. TLS is what
 * prevents that.
 */
export class NonceReplay {
  readonly #maxNonces: number
  readonly #uses = new Map<string, Use>()
  /** Unknown nonces issued up to this moment may have been forgotten. */
  #forgottenMs = -1

  constructor(maxNonces = 50_000) {
    this.#maxNonces = maxNonces
  }

  get size(): number {
    return this.#uses.size
  }

  /** Uses up a count of a nonce. The nonce is one of ours, its signature checked; `count` is at least 1. */
  use(nonce: string, issuedMs: number, count: number): 'fresh' | 'replay' | 'stale' {
    const known = this.#uses.get(nonce)
    if (known === undefined) {
      if (issuedMs <= this.#forgottenMs) return 'stale'
      this.#makeRoom()
      this.#uses.set(detached(nonce), { issuedMs, highest: count, bits: 1 })
      return 'fresh'
    }
    const above = count - known.highest
    if (above > 0) {
      known.bits = above >= WINDOW ? 1 : ((known.bits << above) | 1) >>> 0
      known.highest = count
      return 'fresh'
    }
    const below = -above
    if (below >= WINDOW || (known.bits & (1 << below)) !== 0) return 'replay'
    known.bits = (known.bits | (1 << below)) >>> 0
    return 'fresh'
  }

  /** The map keeps the order of first use, which is about the order of issue. */
  #makeRoom(): void {
    if (this.#uses.size < this.#maxNonces) return
    for (const [nonce, use] of this.#uses) {
      this.#uses.delete(nonce)
      this.#forgottenMs = Math.max(this.#forgottenMs, use.issuedMs)
      return
    }
  }
}
