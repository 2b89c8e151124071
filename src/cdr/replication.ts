import { hash32 } from '../base/ids.ts'
import { type Cursor, inFlightBytes, newCursor, type OwnChain, rewind } from './mirror-cursor.ts'
import type { Held, MirrorMessage } from './mirror-messages.ts'
import { type Outcome, outcomeOf } from './outcome.ts'
import { PullBack, type PullOutput } from './pull-back.ts'

export type { OwnChain } from './mirror-cursor.ts'

export type ReplicationOutput =
  /** Read own groups from `from` on; answered by `handleRead`. */
  | { readonly kind: 'read'; readonly node: string; readonly incarnation: number; readonly from: number }
  /** Make a header for that position; answered by `handlePosition`. */
  | { readonly kind: 'position'; readonly node: string; readonly incarnation: number; readonly commit: number }
  | { readonly kind: 'settled'; readonly commit: number; readonly outcome: Outcome }
  | PullOutput
  | { readonly kind: 'remoteHeld'; readonly incarnation: number; readonly commits: number }
  | { readonly kind: 'alarm'; readonly node: string; readonly incarnation: number; readonly why: string }

export interface ReplicationOptions {
  readonly self: string
  /** Chains of earlier starts, newest last. */
  readonly old: readonly OwnChain[]
  readonly incarnation: number
  /** Copies on other nodes that make a group durable. */
  readonly mirrors: number
  readonly remote: 'async' | 'sync'
  readonly mirrorTimeoutMs: number
}

interface Peer {
  readonly node: string
  readonly remote: boolean
  /** It told what it holds. */
  known: boolean
  queriedMs: number
  /** Let the timeout pass, or its disk failed: fed, but not waited for until it is in step. */
  lagging: boolean
  retryAtMs: number
  readonly cursors: Map<number, Cursor>
}

const TICK_MS = 200
const WINDOW_BYTES = 4 * 1024 * 1024
const NO_PROGRESS_MS = 2000
const RETRY_MS = 1000
/** A chain up to this size is copied whole to a peer that has nothing of it. */
const WHOLE_CHAIN_BYTES = 64 * 1024 * 1024
const MAX_OLD_CHAINS = 64

/**
 * Who is sent which groups, what is waited for, and what is pulled back: the owner's side of FORMAT.md "Mirror protocol". Knows no files and no
 * sockets; a spurious timeout is harmless.
 */
export class Replication {
  readonly #self: string
  readonly #mirrors: number
  readonly #remote: 'async' | 'sync'
  readonly #timeoutMs: number
  readonly #chains = new Map<number, OwnChain>()
  readonly #current: OwnChain
  readonly #peers = new Map<string, Peer>()
  /** Acks for the current chain, of peers that are gone too: what was synced stays synced. */
  readonly #acked = new Map<string, { commits: number; remote: boolean }>()
  readonly #pending = new Map<number, { atMs: number; local: boolean | undefined }>()
  readonly #pulls = new PullBack()
  readonly #remoteTold = new Map<number, number>()
  #remoteTarget: string | undefined
  #diskFailed = false
  #tickMs = 0
  #outputs: ReplicationOutput[] = []

  constructor(o: ReplicationOptions) {
    this.#self = o.self
    this.#mirrors = o.mirrors
    this.#remote = o.remote
    this.#timeoutMs = o.mirrorTimeoutMs
    for (const chain of o.old.slice(-MAX_OLD_CHAINS)) this.#chains.set(chain.incarnation, { ...chain })
    this.#current = { incarnation: o.incarnation, commits: 0, bytes: 0, remote: 0 }
    this.#chains.set(o.incarnation, this.#current)
  }

  /** Commits, over all chains, that no node of another region is known to hold. */
  get remoteLag(): number {
    let lag = 0
    for (const chain of this.#chains.values()) lag += Math.max(0, chain.commits - chain.remote)
    return lag
  }

  get pulling(): number {
    return this.#pulls.size
  }

  /** The nodes that are linked now. */
  handlePeers(linked: { readonly siblings: readonly string[]; readonly remotes: readonly string[] }, nowMs: number): void {
    const now = new Map<string, boolean>()
    for (const node of linked.remotes) now.set(node, true)
    for (const node of linked.siblings) now.set(node, false)
    now.delete(this.#self)
    let changed = false
    for (const [node, peer] of this.#peers) {
      if (now.get(node) === peer.remote) continue
      this.#peers.delete(node)
      this.#pulls.handlePeerDown(node, nowMs)
      changed = true
    }
    for (const [node, remote] of now) {
      if (this.#peers.has(node)) continue
      const peer: Peer = { node, remote, known: false, queriedMs: nowMs, lagging: false, retryAtMs: 0, cursors: new Map() }
      this.#peers.set(node, peer)
      this.#send(node, { type: 'query' })
      changed = true
    }
    if (changed) this.#settle(nowMs)
  }

  /** A link that went down and came up again between two looks: what was under way is gone. */
  handlePeerDown(node: string, nowMs: number): void {
    if (!this.#peers.delete(node)) return
    this.#pulls.handlePeerDown(node, nowMs)
    this.#settle(nowMs)
  }

  /** A group of the current chain was formed and written; its fdatasync goes on meanwhile. */
  handleGroup(commit: number, bytes: Uint8Array, nowMs: number): void {
    this.#current.commits = commit + 1
    this.#current.bytes += bytes.length
    this.#pending.set(commit, { atMs: nowMs, local: undefined })
    for (const peer of this.#direct()) {
      const cursor = this.#cursor(peer, this.#current)
      const room = inFlightBytes(cursor) + bytes.length <= WINDOW_BYTES
      if (
        peer.known &&
        cursor.opened &&
        !cursor.reading &&
        !cursor.broken &&
        cursor.sent === commit &&
        room &&
        nowMs >= peer.retryAtMs
      )
        this.#sendGroups(peer, cursor, commit, commit + 1, bytes, nowMs)
      else this.#pump(peer, cursor, nowMs)
    }
  }

  /** The local fdatasync of a group returned, or failed for good. */
  handleLocal(commit: number, ok: boolean, nowMs: number): void {
    const pending = this.#pending.get(commit)
    if (pending !== undefined) pending.local = ok
    const failedBefore = this.#diskFailed
    this.#diskFailed = !ok
    // With nobody else to hold it, a peer is needed now even where none is configured.
    if (this.#diskFailed && !failedBefore)
      for (const peer of this.#direct()) this.#pump(peer, this.#cursor(peer, this.#current), nowMs)
    this.#settle(nowMs)
  }

  handleRead(node: string, incarnation: number, from: number, next: number, groups: Uint8Array, nowMs: number): void {
    const peer = this.#peers.get(node)
    const cursor = peer?.cursors.get(incarnation)
    if (peer === undefined || cursor === undefined) return
    cursor.reading = false
    // Nothing there: a gap of ours, or a group that is in memory no more. The next tick looks again.
    if (cursor.sent === from && next <= from) return
    if (cursor.sent === from) this.#sendGroups(peer, cursor, from, next, groups, nowMs)
    this.#pump(peer, cursor, nowMs)
  }

  handlePosition(node: string, incarnation: number, header: Uint8Array | undefined, nowMs: number): void {
    const cursor = this.#peers.get(node)?.cursors.get(incarnation)
    if (cursor === undefined || cursor.opened) return
    if (header === undefined) {
      cursor.opening = false
      return
    }
    cursor.progressMs = nowMs
    this.#send(node, { type: 'open', header })
  }

  /** Of the messages of the protocol those that go to an owner; the others are the mirror's. */
  handleMessage(node: string, m: MirrorMessage, nowMs: number): void {
    const peer = this.#peers.get(node)
    if (peer === undefined) return
    switch (m.type) {
      case 'holds':
        this.#handleHolds(peer, m.chains, nowMs)
        break
      case 'ack':
        this.#handleAck(peer, m.incarnation, m.commits, nowMs)
        break
      case 'refuse':
        this.#handleRefuse(peer, m, nowMs)
        break
      case 'range':
        this.#pulls.handleRange(node, m, nowMs)
        break
    }
    this.#settle(nowMs)
  }

  /** What was recovered is on disk, or is not. */
  handleRecovered(incarnation: number, commits: number, ok: boolean, nowMs: number): void {
    const chain = this.#chains.get(incarnation)
    if (chain !== undefined) chain.commits = Math.max(chain.commits, commits)
    else if (ok) this.#chains.set(incarnation, { incarnation, commits, bytes: 0, remote: 0 })
    this.#pulls.handleRecovered(incarnation, commits, ok, nowMs)
  }

  /** The link would not take a message: what was sent since the last ack may be lost with it. */
  handleSendFailed(node: string, nowMs: number): void {
    const peer = this.#peers.get(node)
    if (peer === undefined) return
    peer.retryAtMs = nowMs + TICK_MS
    for (const cursor of peer.cursors.values()) rewind(cursor, nowMs)
  }

  nextTimeoutMs(): number | undefined {
    let next = this.#peers.size > 0 ? this.#tickMs : undefined
    for (const { atMs } of this.#pending.values()) {
      next = Math.min(next ?? Number.POSITIVE_INFINITY, atMs + this.#timeoutMs)
      break
    }
    return next
  }

  handleTimeout(nowMs: number): void {
    this.#settle(nowMs)
    if (nowMs < this.#tickMs) return
    this.#tickMs = nowMs + TICK_MS
    this.#chooseRemote()
    const direct = new Set(this.#direct())
    for (const peer of this.#peers.values()) {
      if (!peer.known) {
        if (nowMs - peer.queriedMs < NO_PROGRESS_MS) continue
        peer.queriedMs = nowMs
        this.#send(peer.node, { type: 'query' })
        continue
      }
      if (direct.has(peer) || peer.node === this.#remoteTarget) this.#cursor(peer, this.#current)
      if (peer.node === this.#remoteTarget)
        for (const chain of this.#chains.values()) if (chain.remote < chain.commits) this.#cursor(peer, chain)
      for (const cursor of peer.cursors.values()) {
        const stuck = cursor.inFlight.length > 0 || cursor.opening
        if (stuck && nowMs - cursor.progressMs >= NO_PROGRESS_MS) rewind(cursor, nowMs)
        if (cursor.chain !== this.#current || direct.has(peer) || peer.node === this.#remoteTarget)
          this.#pump(peer, cursor, nowMs)
        // An old chain that the peer has in full needs no cursor any more.
        if (cursor.chain !== this.#current && cursor.opened && cursor.acked >= cursor.chain.commits)
          peer.cursors.delete(cursor.chain.incarnation)
      }
    }
    this.#pulls.handleTimeout(nowMs)
    for (const chain of this.#chains.values()) {
      if (chain.remote === (this.#remoteTold.get(chain.incarnation) ?? 0)) continue
      this.#remoteTold.set(chain.incarnation, chain.remote)
      this.#outputs.push({ kind: 'remoteHeld', incarnation: chain.incarnation, commits: chain.remote })
    }
  }

  takeOutputs(): ReplicationOutput[] {
    const out = [...this.#outputs, ...this.#pulls.takeOutputs()]
    this.#outputs = []
    return out
  }

  #handleHolds(peer: Peer, chains: readonly Held[], nowMs: number): void {
    peer.known = true
    this.#chooseRemote()
    for (const held of chains) {
      const own = this.#chains.get(held.incarnation)
      if (own !== this.#current) this.#pulls.start(peer.node, held, own?.commits, nowMs)
      if (own === undefined || held.commits > own.commits) continue
      if (peer.remote && held.first <= own.remote) own.remote = Math.max(own.remote, held.commits)
      if (own !== this.#current && held.commits === own.commits) continue
      const cursor = this.#cursor(peer, own)
      cursor.opened = true
      cursor.sent = cursor.acked = held.commits
    }
    const current = this.#cursor(peer, this.#current)
    if (current.opened) this.#noteAck(peer, current.acked)
    if (this.#direct().includes(peer)) this.#pump(peer, current, nowMs)
  }

  #handleAck(peer: Peer, incarnation: number, commits: number, nowMs: number): void {
    const cursor = peer.cursors.get(incarnation)
    if (cursor === undefined) return
    if (commits > cursor.chain.commits) {
      cursor.broken = true
      peer.lagging = true
      this.#outputs.push({ kind: 'alarm', node: peer.node, incarnation, why: 'it acknowledges groups that we never sent' })
      return
    }
    cursor.opened = true
    cursor.opening = false
    cursor.progressMs = nowMs
    cursor.acked = Math.max(cursor.acked, commits)
    cursor.sent = Math.max(cursor.sent, cursor.acked)
    cursor.inFlight = cursor.inFlight.filter((f) => f.end > cursor.acked)
    if (peer.remote) cursor.chain.remote = Math.max(cursor.chain.remote, commits)
    if (cursor.chain === this.#current) {
      this.#noteAck(peer, commits)
      const oldest = cursor.inFlight[0]
      if (cursor.sent === this.#current.commits && (oldest === undefined || nowMs - oldest.sentMs < this.#timeoutMs / 2))
        peer.lagging = false
    }
    if (cursor.sent < cursor.chain.commits) this.#pump(peer, cursor, nowMs)
  }

  #handleRefuse(peer: Peer, m: MirrorMessage & { readonly type: 'refuse' }, nowMs: number): void {
    const cursor = peer.cursors.get(m.incarnation)
    if (cursor === undefined) return
    cursor.progressMs = nowMs
    cursor.inFlight = []
    cursor.opening = false
    if (m.why === 'broken' || m.commits > cursor.chain.commits) {
      cursor.broken = true
      peer.lagging = true
      this.#outputs.push({
        kind: 'alarm',
        node: peer.node,
        incarnation: m.incarnation,
        why: 'it says that our groups do not chain',
      })
    } else if (m.why === 'disk') {
      peer.lagging = true
      peer.retryAtMs = nowMs + RETRY_MS
      cursor.sent = cursor.acked
    } else if (m.why === 'gap') {
      cursor.opened = true
      cursor.sent = cursor.acked = m.commits
      this.#pump(peer, cursor, nowMs)
    } else {
      // Its disk was emptied while the link stood, or it never had the chain.
      cursor.opened = false
      cursor.acked = cursor.sent = 0
      this.#pump(peer, cursor, nowMs)
    }
  }

  #noteAck(peer: Peer, commits: number): void {
    const before = this.#acked.get(peer.node)?.commits ?? 0
    this.#acked.set(peer.node, { commits: Math.max(before, commits), remote: peer.remote })
  }

  #cursor(peer: Peer, chain: OwnChain): Cursor {
    let cursor = peer.cursors.get(chain.incarnation)
    if (cursor === undefined) {
      cursor = newCursor(chain)
      peer.cursors.set(chain.incarnation, cursor)
    }
    return cursor
  }

  /** Sends what the peer lacks, as far as the window lets. */
  #pump(peer: Peer, cursor: Cursor, nowMs: number): void {
    if (!peer.known || cursor.broken || nowMs < peer.retryAtMs) return
    const { incarnation, commits } = cursor.chain
    if (!cursor.opened) {
      if (cursor.opening) return
      cursor.opening = true
      cursor.progressMs = nowMs
      this.#outputs.push({ kind: 'position', node: peer.node, incarnation, commit: this.#openAt(peer, cursor.chain) })
      return
    }
    if (cursor.sent >= commits || cursor.reading || inFlightBytes(cursor) >= WINDOW_BYTES) return
    cursor.reading = true
    this.#outputs.push({ kind: 'read', node: peer.node, incarnation, from: cursor.sent })
  }

  #openAt(peer: Peer, chain: OwnChain): number {
    if (chain.bytes <= WHOLE_CHAIN_BYTES) return 0
    if (peer.remote) return chain.remote
    for (const commit of this.#pending.keys()) return commit
    return chain.commits
  }

  #sendGroups(peer: Peer, cursor: Cursor, from: number, next: number, groups: Uint8Array, nowMs: number): void {
    if (cursor.inFlight.length === 0) cursor.progressMs = nowMs
    cursor.sent = next
    cursor.inFlight.push({ end: next, bytes: groups.length, sentMs: nowMs })
    this.#send(peer.node, { type: 'data', incarnation: cursor.chain.incarnation, from, groups })
  }

  #send(node: string, message: MirrorMessage): void {
    this.#outputs.push({ kind: 'send', node, message })
  }

  /** Copies that a group needs now. */
  get #needed(): number {
    return this.#diskFailed ? Math.max(1, this.#mirrors) : this.#mirrors
  }

  /** Siblings first, then other regions, each by rendezvous hash: so a node's mirrors stay the same from start to start. */
  #ranked(): Peer[] {
    const seed = hash32(this.#self)
    const weight = (p: Peer): number => hash32(p.node, seed)
    return [...this.#peers.values()].sort(
      (a, b) => Number(a.remote) - Number(b.remote) || weight(b) - weight(a) || (a.node < b.node ? -1 : 1),
    )
  }

  /** Those whose acks are waited for. */
  #awaited(): Peer[] {
    return this.#ranked()
      .filter((p) => !p.lagging)
      .slice(0, this.#needed)
  }

  /** Those who get each group at once: the awaited ones, and the laggards in whose place they stand. */
  #direct(): Peer[] {
    const direct = new Set([...this.#ranked().slice(0, this.#needed), ...this.#awaited()])
    const target = this.#remoteTarget === undefined ? undefined : this.#peers.get(this.#remoteTarget)
    if (this.#remote === 'sync' && target !== undefined) direct.add(target)
    return [...direct]
  }

  #chooseRemote(): void {
    if (this.#remoteTarget !== undefined && this.#peers.has(this.#remoteTarget)) return
    this.#remoteTarget = this.#ranked().find((p) => p.remote)?.node
  }

  /** Settles, in order of commits, all that can be; what a peer let time out marks it as lagging. */
  #settle(nowMs: number): void {
    for (const [commit, pending] of this.#pending) {
      const outcome = this.#outcome(commit, pending, nowMs)
      if (outcome === undefined) continue
      this.#pending.delete(commit)
      this.#outputs.push({ kind: 'settled', commit, outcome })
    }
  }

  #outcome(commit: number, pending: { atMs: number; local: boolean | undefined }, nowMs: number): Outcome | undefined {
    let acks = 0
    let remoteAck = false
    for (const { commits, remote } of this.#acked.values()) {
      if (commits <= commit) continue
      acks++
      remoteAck ||= remote
    }
    const { local } = pending
    const needed = local === true ? this.#mirrors : Math.max(1, this.#mirrors)
    const remoteOk = this.#remote === 'async' || remoteAck
    const behind = (p: Peer | undefined): p is Peer =>
      p !== undefined && !p.lagging && (this.#acked.get(p.node)?.commits ?? 0) <= commit
    const target = this.#remoteTarget === undefined ? undefined : this.#peers.get(this.#remoteTarget)
    const laggards = [...(acks < needed ? this.#awaited() : []), ...(remoteOk ? [] : [target])].filter(behind)
    const expired = nowMs >= pending.atMs + this.#timeoutMs
    const outcome = outcomeOf({ local, acks, needed, remoteOk, hope: laggards.length > 0, expired })
    if (expired && outcome?.kind !== 'durable' && outcome?.kind !== 'mirrors') for (const peer of laggards) peer.lagging = true
    return outcome
  }
}
