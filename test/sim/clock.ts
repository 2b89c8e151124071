/** Virtual time: events in order of their time, and of their arrival among equals. Nothing happens between two events. */
export class SimClock {
  nowMs: number
  #events: { readonly atMs: number; readonly order: number; readonly run: () => void }[] = []
  #order = 0

  constructor(startMs: number) {
    this.nowMs = startMs
  }

  at(atMs: number, run: () => void): void {
    const event = { atMs: Math.max(atMs, this.nowMs), order: this.#order++, run }
    // A binary heap: simulations have hundreds of thousands of events.
    const heap = this.#events
    let i = heap.push(event) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(event, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = event
  }

  after(delayMs: number, run: () => void): void {
    this.at(this.nowMs + delayMs, run)
  }

  /** Runs everything up to `untilMs`, and leaves the clock there. */
  runUntil(untilMs: number): void {
    for (let next = this.#events[0]; next !== undefined && next.atMs <= untilMs; next = this.#events[0]) {
      this.#pop()
      this.nowMs = next.atMs
      next.run()
    }
    this.nowMs = untilMs
  }

  #pop(): void {
    const heap = this.#events
    const last = heap.pop()!
    if (heap.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
  }
}

const before = (a: { atMs: number; order: number }, b: { atMs: number; order: number }): boolean =>
  a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
