import type { TransportName } from '../sip/flow.ts'

/** What the table needs to know of a connection. */
export interface TableEntry {
  /** Unique in this process, from 1. */
  readonly id: number
  readonly transport: TransportName
  readonly remoteAddress: string
  readonly remotePort: number
  readonly openedMs: number
  /** When the last complete message or keep-alive came in; `openedMs` until the first. Dripped bytes do not count. */
  activeMs: number
  /** Whether a complete message or keep-alive ever came in, or the connection is our own. */
  proven: boolean
}

export interface TableLimits {
  readonly maxConnections: number
  /** From one remote address; a NAT is one address, so not too few. */
  readonly maxConnectionsPerSource: number
  /** Without a complete message for this long a connection is closed. Longer than the longest registration, or phones without keep-alives are cut off. */
  readonly idleMs: number
  /** A connection that was opened to us and has not brought one complete message by then is closed. */
  readonly firstMessageMs: number
}

export type Admission = 'yes' | 'NET_CONNECTIONS_FULL' | 'NET_SOURCE_FULL'

/** The open connections of this process, bounded as a whole and per source; found by id, or by remote for reuse. No I/O. */
export class ConnectionTable<C extends TableEntry> {
  readonly #limits: TableLimits
  readonly #byId = new Map<number, C>()
  readonly #byRemote = new Map<string, C>()
  readonly #perSource = new Map<string, number>()

  constructor(limits: TableLimits) {
    this.#limits = limits
  }

  get size(): number {
    return this.#byId.size
  }

  /** May one more connection with that address be held? */
  admits(remoteAddress: string): Admission {
    if (this.#byId.size >= this.#limits.maxConnections) return 'NET_CONNECTIONS_FULL'
    return (this.#perSource.get(remoteAddress) ?? 0) >= this.#limits.maxConnectionsPerSource ? 'NET_SOURCE_FULL' : 'yes'
  }

  /** A later connection with the same remote takes the earlier one's place in `byRemote`. */
  add(c: C): void {
    this.#byId.set(c.id, c)
    this.#byRemote.set(remoteKey(c.transport, c.remoteAddress, c.remotePort), c)
    this.#perSource.set(c.remoteAddress, (this.#perSource.get(c.remoteAddress) ?? 0) + 1)
  }

  /** @returns whether it was there */
  delete(c: C): boolean {
    if (!this.#byId.delete(c.id)) return false
    const key = remoteKey(c.transport, c.remoteAddress, c.remotePort)
    if (this.#byRemote.get(key) === c) this.#byRemote.delete(key)
    const left = this.#perSource.get(c.remoteAddress)! - 1
    if (left === 0) this.#perSource.delete(c.remoteAddress)
    else this.#perSource.set(c.remoteAddress, left)
    return true
  }

  byId(id: number): C | undefined {
    return this.#byId.get(id)
  }

  byRemote(transport: TransportName, address: string, port: number): C | undefined {
    return this.#byRemote.get(remoteKey(transport, address, port))
  }

  /** Those whose time without a message is over. */
  overdue(nowMs: number): C[] {
    const { idleMs, firstMessageMs } = this.#limits
    const found: C[] = []
    for (const c of this.#byId.values()) if (nowMs - c.activeMs >= (c.proven ? idleMs : firstMessageMs)) found.push(c)
    return found
  }

  values(): IterableIterator<C> {
    return this.#byId.values()
  }
}

const remoteKey = (transport: TransportName, address: string, port: number): string => `${transport}:${address}:${port}`
