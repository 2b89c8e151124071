import { rendezvous } from '../src/base/ids.ts'
import type { Random } from '../src/base/prng.ts'

/**
 * Whom a node dials, and when: every sibling, and of each other region the one node that is its way there. PROTOCOL.md "Who dials". Pure: `nowMs` is
 * monotonic, and the caller says what became of each dial.
 */

export const REDIAL_LEAST_MS = 200
export const REDIAL_MOST_MS = 1500
/** A WAN peer that could not be reached is tried last for this long. */
const SUSPECT_MS = 10_000
/** After a violation the peer is dialed as if so many dials had failed. */
const VIOLATION_FAILURES = 3

export interface PeerAddress {
  readonly region: string
  readonly node: string
  readonly address: string
  readonly port: number
}

interface Dialer {
  failures: number
  nextMs: number
  dialing: boolean
  suspectUntilMs: number
}

export class DialPlan {
  readonly #region: string
  readonly #node: string
  readonly #random: Random
  #peers = new Map<string, PeerAddress>()
  readonly #dialers = new Map<string, Dialer>()
  /** Other region → the node there that we keep a link to. */
  readonly #targets = new Map<string, string>()

  constructor(self: { readonly region: string; readonly node: string }, random: Random) {
    this.#region = self.region
    this.#node = self.node
    this.#random = random
  }

  setPeers(peers: readonly PeerAddress[]): void {
    this.#peers = new Map(peers.filter((p) => p.node !== this.#node).map((p) => [p.node, p]))
    for (const node of this.#dialers.keys()) if (!this.#peers.has(node)) this.#dialers.delete(node)
    for (const [region, node] of this.#targets) if (this.#peers.get(node)?.region !== region) this.#targets.delete(region)
  }

  peer(node: string): PeerAddress | undefined {
    return this.#peers.get(node)
  }

  /** The peer is this node's chosen way to its region. */
  isTarget(peer: PeerAddress): boolean {
    return this.#targets.get(peer.region) === peer.node
  }

  /** Whom to dial now, given which links are up. */
  due(nowMs: number, isUp: (node: string) => boolean): PeerAddress[] {
    return this.#wanted(nowMs, isUp).filter((p) => {
      const dialer = this.#dialer(p.node)
      return !isUp(p.node) && !dialer.dialing && nowMs >= dialer.nextMs
    })
  }

  began(node: string): void {
    this.#dialer(node).dialing = true
  }

  /** A link to the node is up, whoever dialed. */
  up(node: string): void {
    const dialer = this.#dialer(node)
    dialer.failures = 0
    dialer.suspectUntilMs = 0
  }

  /** Our dial ended; `reached`: the node has a link with us, by this dial or another. */
  ended(node: string, reached: boolean, nowMs: number): void {
    const dialer = this.#dialers.get(node)
    if (dialer === undefined) return
    dialer.dialing = false
    if (!reached) {
      dialer.failures++
      if (this.#peers.get(node)?.region !== this.#region) dialer.suspectUntilMs = nowMs + SUSPECT_MS
    }
    this.down(node, nowMs)
  }

  /** A link that was up is gone. */
  down(node: string, nowMs: number): void {
    const dialer = this.#dialer(node)
    const most = Math.min(REDIAL_MOST_MS, REDIAL_LEAST_MS * 2 ** Math.min(dialer.failures, 8))
    dialer.nextMs = nowMs + most * (0.5 + this.#random.unit() / 2)
  }

  violated(node: string): void {
    const dialer = this.#dialer(node)
    dialer.failures = Math.max(dialer.failures, VIOLATION_FAILURES)
  }

  /** The address is blocked: as a dial that nobody answers, without the wait. */
  blocked(peer: PeerAddress, nowMs: number): void {
    const dialer = this.#dialer(peer.node)
    dialer.nextMs = nowMs + REDIAL_LEAST_MS
    if (peer.region !== this.#region) dialer.suspectUntilMs = nowMs + SUSPECT_MS
  }

  #wanted(nowMs: number, isUp: (node: string) => boolean): PeerAddress[] {
    const wanted: PeerAddress[] = []
    for (const [region, peers] of Map.groupBy(this.#peers.values(), (p) => p.region)) {
      if (region === this.#region) wanted.push(...peers)
      else wanted.push(this.#target(region, peers, nowMs, isUp))
    }
    return wanted
  }

  /** The chosen one stays until it cannot be reached; then the next by rendezvous, and when all are suspect the one that has been so longest. */
  #target(region: string, peers: readonly PeerAddress[], nowMs: number, isUp: (node: string) => boolean): PeerAddress {
    const suspectUntilMs = (p: PeerAddress): number => this.#dialer(p.node).suspectUntilMs
    const current = this.#peers.get(this.#targets.get(region) ?? '')
    if (current !== undefined && (isUp(current.node) || suspectUntilMs(current) <= nowMs)) return current
    const hopeful = peers.filter((p) => isUp(p.node) || suspectUntilMs(p) <= nowMs)
    const target =
      rendezvous(this.#node, hopeful, (p) => p.node) ?? peers.toSorted((a, b) => suspectUntilMs(a) - suspectUntilMs(b))[0]!
    this.#targets.set(region, target.node)
    return target
  }

  #dialer(node: string): Dialer {
    let dialer = this.#dialers.get(node)
    if (dialer === undefined) {
      dialer = { failures: 0, nextMs: 0, dialing: false, suspectUntilMs: 0 }
      this.#dialers.set(node, dialer)
    }
    return dialer
  }
}
