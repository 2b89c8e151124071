/** A chain of this node's own, as far as its sound groups go. */
export interface OwnChain {
  readonly incarnation: number
  commits: number
  bytes: number
  /** Commits known to be held in another region. */
  remote: number
}

/** One peer's progress in one chain of ours. */
export interface Cursor {
  readonly chain: OwnChain
  /** The peer holds the chain, at least its header. */
  opened: boolean
  opening: boolean
  reading: boolean
  /** It says that what we sent does not chain: not fed until it links anew. */
  broken: boolean
  sent: number
  acked: number
  inFlight: { end: number; bytes: number; sentMs: number }[]
  progressMs: number
}

export const newCursor = (chain: OwnChain): Cursor => ({
  chain,
  opened: false,
  opening: false,
  reading: false,
  broken: false,
  sent: 0,
  acked: 0,
  inFlight: [],
  progressMs: 0,
})

/** Sends again from what was acked. */
export function rewind(cursor: Cursor, nowMs: number): void {
  cursor.sent = cursor.acked
  cursor.inFlight = []
  cursor.opening = false
  cursor.reading = false
  cursor.progressMs = nowMs
}

export const inFlightBytes = (cursor: Cursor): number => cursor.inFlight.reduce((sum, f) => sum + f.bytes, 0)
