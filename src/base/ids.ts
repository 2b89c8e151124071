import { createHash } from 'node:crypto'
import type { Random } from './prng.ts'

/**
 * One process start of one node. `incarnation` is a safe integer: a counter that is fsynced before it is used × 2^32 + 32 random bits, so a
 * later start always compares higher and two starts that lost the counter still differ.
 */
export interface NodeIdentity {
  readonly region: string
  /** Unique in the cluster, for example `us-east-1`. */
  readonly node: string
  readonly incarnation: number
}

export const INCARNATION_RANDOM = 2 ** 32
export const makeIncarnation = (counter: number, random: Random): number => counter * INCARNATION_RANDOM + random.u32()
export const incarnationCounter = (incarnation: number): number => Math.floor(incarnation / INCARNATION_RANDOM)
/** Short form for people and logs: counter and random bits. */
export const incarnationText = (incarnation: number): string =>
  `${incarnationCounter(incarnation)}-${(incarnation % INCARNATION_RANDOM).toString(16).padStart(8, '0')}`

/** FNV-1a over UTF-16 units, 32 bits: for tables and rendezvous weights, never against an adversary. */
export function hash32(text: string, seed = 0x811c9dc5): number {
  let h = seed
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** Rendezvous hashing (Thaler and Ravishankar 1998): the candidate with the highest weight for `key`; removing one moves only its own share. */
export function rendezvous<T>(key: string, candidates: readonly T[], name: (candidate: T) => string): T | undefined {
  let best: T | undefined
  let bestWeight = -1
  let bestName = ''
  for (const candidate of candidates) {
    const n = name(candidate)
    const weight = hash32(n, hash32(key))
    if (weight > bestWeight || (weight === bestWeight && n < bestName)) {
      best = candidate
      bestWeight = weight
      bestName = n
    }
  }
  return best
}

/** The first 16 bytes of SHA-256 over the parts, length-prefixed so that no two lists collide by concatenation; hex. */
export function hashId(...parts: string[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${part.length}:`).update(part)
  return hash.digest('hex').slice(0, 32)
}
