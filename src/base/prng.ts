import { randomBytes } from 'node:crypto'

/** Randomness as an argument: real in production, seeded in simulation. */
export interface Random {
  /** A whole number from 0 to 2^32 - 1. */
  u32(): number
  /** A number from 0 up to, not including, 1. */
  unit(): number
  bytes(count: number): Uint8Array
}

/** Cryptographic randomness, drawn in blocks of 4 KiB because each call into the kernel costs a microsecond. */
export class SystemRandom implements Random {
  #block = randomBytes(4096)
  #at = 0

  u32(): number {
    if (this.#at + 4 > this.#block.length) this.#refill()
    const value = this.#block.readUInt32LE(this.#at)
    this.#at += 4
    return value
  }

  unit(): number {
    return this.u32() / 4294967296
  }

  bytes(count: number): Uint8Array {
    if (count > 4096) return randomBytes(count)
    if (this.#at + count > this.#block.length) this.#refill()
    const out = this.#block.subarray(this.#at, this.#at + count)
    this.#at += count
    return out
  }

  #refill(): void {
    this.#block = randomBytes(4096)
    this.#at = 0
  }
}

/** xoshiro128** (Blackman and Vigna): a seed gives the same run on every machine. Not for secrets. */
export class SeededRandom implements Random {
  #s: [number, number, number, number]

  constructor(seed: number) {
    let x = seed >>> 0
    const splitmix = (): number => {
      x = (x + 0x9e3779b9) >>> 0
      let z = x
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
      return (z ^ (z >>> 16)) >>> 0
    }
    this.#s = [splitmix(), splitmix(), splitmix(), splitmix() | 1]
  }

  u32(): number {
    const s = this.#s
    const product = Math.imul(s[1], 5)
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0
    const t = s[1] << 9
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = (s[3] << 11) | (s[3] >>> 21)
    return result
  }

  unit(): number {
    return this.u32() / 4294967296
  }

  bytes(count: number): Uint8Array {
    const out = new Uint8Array(count)
    for (let i = 0; i < count; i++) out[i] = this.u32() & 255
    return out
  }
}

/** A whole number from 0 to `bound` - 1. */
export const below = (random: Random, bound: number): number => Math.floor(random.unit() * bound)
