/**
 * Timers of one core, by name, as data: nothing fires by itself. A core arms and clears names, tells its shell `nextMs()`, and is handed the
 * names that are due by `takeDue(nowMs)`. A spurious call is harmless; a name armed again moves.
 *
 * A binary heap with lazy deletion: arming and clearing are O(log n) and O(1), and a cleared timer costs one comparison when it surfaces.
 */
export class TimerTable<Name> {
  readonly #dueMs = new Map<Name, number>()
  #heap: { atMs: number; order: number; name: Name }[] = []
  #order = 0

  get size(): number {
    return this.#dueMs.size
  }

  /** Arms `name` for `atMs` (absolute), in place of what it was armed for. */
  set(name: Name, atMs: number): void {
    if (this.#dueMs.get(name) === atMs) return
    this.#dueMs.set(name, atMs)
    this.#push({ atMs, order: this.#order++, name })
    if (this.#heap.length > 64 && this.#heap.length > 4 * this.#dueMs.size) this.#rebuild()
  }

  clear(name: Name): void {
    this.#dueMs.delete(name)
  }

  has(name: Name): boolean {
    return this.#dueMs.has(name)
  }

  /** When the earliest armed timer is due (absolute ms), or undefined when none is armed. */
  nextMs(): number | undefined {
    this.#prune()
    return this.#heap[0]?.atMs
  }

  /** Disarms and returns one due name at a time, earliest first, in arming order among equals; undefined when none is due. */
  takeDue(nowMs: number): Name | undefined {
    this.#prune()
    const top = this.#heap[0]
    if (top === undefined || top.atMs > nowMs) return undefined
    this.#pop()
    this.#dueMs.delete(top.name)
    return top.name
  }

  #prune(): void {
    for (let top = this.#heap[0]; top !== undefined && this.#dueMs.get(top.name) !== top.atMs; top = this.#heap[0]) this.#pop()
  }

  #rebuild(): void {
    const live = this.#heap.filter((t) => this.#dueMs.get(t.name) === t.atMs)
    const seen = new Set<Name>()
    this.#heap = []
    for (const t of live) {
      if (seen.has(t.name)) continue
      seen.add(t.name)
      this.#push(t)
    }
  }

  #push(t: { atMs: number; order: number; name: Name }): void {
    const heap = this.#heap
    let i = heap.length
    heap.push(t)
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(t, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = t
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    const n = heap.length
    if (n === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= n) break
      if (child + 1 < n && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
  }
}

const before = (a: { atMs: number; order: number }, b: { atMs: number; order: number }): boolean =>
  a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
