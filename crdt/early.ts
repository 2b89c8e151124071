import type { Frame } from './frames.ts'

/**
 * Frames that came before what they build on, by doc, until the gap is closed. Bounded: what does not fit is let go, and anti-entropy brings it.
 */

export interface Early {
  readonly frame: Frame
  /** Peer that sent it. */
  readonly from: string
  /** It was an answer to a WANT, and is not passed on. */
  readonly asked: boolean
}

const PER_DOC = 32
const ALL_BYTES = 4 << 20
/** What a frame costs here beside its update: names, hash, tables. Else frames of no bytes at all would be kept without end. */
const FRAME_BYTES = 1024

const costOf = (frame: Frame): number => frame.update.length + FRAME_BYTES

export class EarlyFrames {
  /** By doc, in order of their first clock. */
  readonly #waiting = new Map<string, Early[]>()
  #bytes = 0

  /** Keeps a copy, for the frame is a view into its message. */
  put(key: string, { frame, from, asked }: Early): void {
    const waiting = this.#waiting.get(key) ?? []
    if (waiting.length >= PER_DOC || this.#bytes + costOf(frame) > ALL_BYTES) return
    if (waiting.some((w) => w.frame.from === frame.from && w.frame.to >= frame.to)) return
    const copy = { ...frame, hash: Buffer.from(frame.hash), update: Buffer.from(frame.update) }
    waiting.push({ frame: copy, from, asked })
    waiting.sort((a, b) => a.frame.from - b.frame.from)
    this.#waiting.set(key, waiting)
    this.#bytes += costOf(copy)
  }

  /** Takes out the first frame of the doc that can be applied when `clock` records are held. */
  take(key: string, clock: number): Early | undefined {
    const waiting = this.#waiting.get(key)
    const first = waiting?.[0]
    if (waiting === undefined || first === undefined || first.frame.from > clock) return undefined
    waiting.shift()
    this.#bytes -= costOf(first.frame)
    if (waiting.length === 0) this.#waiting.delete(key)
    return first
  }

  /** Forgets docs below the horizon. */
  expire(horizon: number): void {
    for (const [key, waiting] of this.#waiting) {
      if (waiting[0]!.frame.doc.bucket >= horizon) continue
      this.#bytes -= waiting.reduce((sum, w) => sum + costOf(w.frame), 0)
      this.#waiting.delete(key)
    }
  }
}
