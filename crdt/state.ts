import { type Fault, fault, invariant } from '../src/base/errors.ts'
import { HlcClock, hlcMs } from '../src/base/hlc.ts'
import type { NodeIdentity } from '../src/base/ids.ts'
import type { Random } from '../src/base/prng.ts'
import { TimerTable } from '../src/base/timer-table.ts'
import { BindingIndex } from './bindings.ts'
import { decodeEntry } from './codec.ts'
import { DialogIndex } from './dialogs.ts'
import { horizonAt, overallDigest, retentionEndMs } from './digest.ts'
import { EarlyFrames } from './early.ts'
import type { BindingEntry, ClusterConstants, DialogEntry, Entry } from './entry.ts'
import {
  type Author,
  type AuthorDigest,
  authorKey,
  type DocName,
  decodeMessage,
  docKey,
  encodeMessage,
  type Frame,
  type StateMessage,
} from './frames.ts'
import { type Outcome, Replica, sha256 } from './replica.ts'
import { Session, type SessionHost } from './session.ts'

/**
 * The replicated state of one node: the one core of `crdt/` that the gateway holds. Writes go to the index at once and leave as frames with the next flush;
 * frames of peers are checked, booked and passed on; digests make good what was lost. PROTOCOL.md says what is on the wire, DESIGN "State" why.
 *
 * Doors: `handle…(input, nowMs)`, `nextTimeoutMs()`, `handleTimeout(nowMs)`, `takeOutputs()`.
 */

/** What the state wants to know of a link that is up; `PeerInfo` of `link.ts` fits. */
export interface StatePeer {
  readonly region: string
  readonly node: string
  readonly incarnation: number
  /** This node keeps the link as its own way to that region (always true for what it dialed over the WAN); siblings: no matter. */
  readonly outbound: boolean
}

export type StateOutput =
  | { readonly kind: 'send'; readonly node: string; readonly bytes: Buffer }
  /** The peer broke the protocol: count, log, and drop its link. */
  | { readonly kind: 'violation'; readonly node: string; readonly fault: Fault }
  /** Something was not taken, by no fault of the link: count and log. */
  | { readonly kind: 'refused'; readonly node: string; readonly fault: Fault }
  /**
   * The cluster knows a higher incarnation of this node, or more of this one than we wrote, or our own stamps ran far ahead of the clock: stop, and start
   * again above it. Given once.
   */
  | { readonly kind: 'higherIncarnation'; readonly incarnation: number }
  /** The start-up pull is over. Given once. */
  | { readonly kind: 'ready' }

export interface StateCounters {
  framesIn: number
  framesOut: number
  frameBytesIn: number
  frameBytesOut: number
  framesRelayed: number
  duplicates: number
  early: number
  digestsEqual: number
  digestsDifferent: number
  /** By fault code, ignored ones included. */
  readonly refused: Map<string, number>
}

export interface StateSummary {
  /** 32 hex digits; equal on all nodes that hold the same docs. */
  readonly digest: string
  readonly docs: number
  readonly entries: number
  /** Live bindings. */
  readonly bindings: number
  /** Dialogs known. */
  readonly dialogs: number
  readonly horizon: number
  readonly perAuthor: readonly { readonly author: Author; readonly docs: number; readonly digest: string }[]
}

type Written = 'hlc' | 'region' | 'node' | 'incarnation' | 'kind'

const FLUSH_BYTES = 64 * 1024
const DROP_SLICE = 2000
const CLOCK_BACK_MS = 1000
const HELD_DOCS = 4096
const READY_PEERS = 2
const READY_ALONE_MS = 3000
const READY_QUIET_MS = 2000
const READY_AT_MOST_MS = 30_000

type TimerName = 'flush' | 'digest' | 'expire' | 'drop' | 'ready' | `session ${string}`

export class StateCore {
  readonly bindings: BindingIndex
  readonly dialogs: DialogIndex
  readonly #self: NodeIdentity
  readonly #constants: ClusterConstants
  readonly #random: Random
  readonly #flushMs: number
  readonly #digestPeriodMs: number
  readonly #regions = new Map<string, string>()
  readonly #clock: HlcClock
  readonly #replica: Replica
  readonly #host: SessionHost
  readonly #peers = new Map<string, { peer: StatePeer; session: Session }>()
  readonly #timers = new TimerTable<TimerName>()
  readonly #early = new EarlyFrames()
  /** Docs not to be asked for: key alone until the clock has come to them; `key peer` for ever after a hash that did not fit. */
  readonly #held = new Map<string, number>()
  readonly #drops: Entry[] = []
  readonly #counters: StateCounters = {
    framesIn: 0,
    framesOut: 0,
    frameBytesIn: 0,
    frameBytesOut: 0,
    framesRelayed: 0,
    duplicates: 0,
    early: 0,
    digestsEqual: 0,
    digestsDifferent: 0,
    refused: new Map(),
  }
  readonly #pulledFrom = new Set<string>()
  /** The highest stamp that another node wrote and that was taken here. */
  #othersHlc = 0
  #outputs: StateOutput[] = []
  #startMs: number | undefined
  #lastMs = 0
  #horizon = -1
  #ready = false
  #toldHigher = false

  /**
   * @param o.members every configured node of the cluster; this one may be among them
   * @param o.flushMs how long a write waits for others to share its frame
   * @param o.digestPeriodMs anti-entropy period
   */
  constructor(o: {
    self: NodeIdentity
    constants: ClusterConstants
    random: Random
    members: readonly { region: string; node: string }[]
    flushMs?: number
    digestPeriodMs?: number
  }) {
    this.#self = o.self
    this.#constants = o.constants
    this.#random = o.random
    this.#flushMs = o.flushMs ?? 10
    this.#digestPeriodMs = o.digestPeriodMs ?? 1000
    for (const m of o.members) this.#regions.set(m.node, m.region)
    this.#regions.set(o.self.node, o.self.region)
    this.#clock = new HlcClock(o.constants.driftBoundMs)
    this.#replica = new Replica({ self: o.self, constants: o.constants, regionOf: (node) => this.#regions.get(node) })
    this.bindings = new BindingIndex(o.constants)
    this.dialogs = new DialogIndex()
    this.#host = {
      replica: this.#replica,
      horizon: (nowMs) => horizonAt(nowMs, this.#constants),
      wanted: (doc, peer, nowMs) => this.#wanted(doc, peer, nowMs),
      fetching: new Map(),
      send: (node, bytes) => this.#outputs.push({ kind: 'send', node, bytes }),
      forked: (doc, peer) => this.#forked(doc, peer),
      compared: (equal) => this.#counters[equal ? 'digestsEqual' : 'digestsDifferent']++,
    }
  }

  /**
   * Stamps a statement about a binding, and indexes it at once. On return it is in this node's memory only; it leaves for the peers within `flushMs`.
   *
   * @throws AntipodeError when a field is longer than `codec.ts` allows
   */
  writeBinding(w: Omit<BindingEntry, Written>, nowMs: number): BindingEntry {
    const entry = this.#own('binding', this.#append({ ...w, kind: 'binding', ...this.#stamp(nowMs) }, nowMs))
    this.bindings.add(entry)
    return entry
  }

  /** As `writeBinding`, about a dialog. */
  writeDialog(w: Omit<DialogEntry, Written>, nowMs: number): DialogEntry {
    const entry = this.#own('dialog', this.#append({ ...w, kind: 'dialog', ...this.#stamp(nowMs) }, nowMs))
    this.dialogs.add(entry)
    return entry
  }

  /** A link is up, or `outbound` of one that is up has changed. The first exchange of digests starts at once. */
  handlePeerUp(peer: StatePeer, nowMs: number): void {
    this.#begin(nowMs)
    const known = this.#peers.get(peer.node)
    if (known !== undefined && known.peer.incarnation === peer.incarnation && known.peer.outbound !== peer.outbound) {
      known.peer = peer
      return
    }
    known?.session.close()
    this.#peers.set(peer.node, { peer, session: new Session(peer.node, this.#host, nowMs) })
    this.#sendDigest([peer.node], nowMs)
    this.#timers.set('ready', nowMs + READY_QUIET_MS)
  }

  handlePeerDown(peer: { readonly node: string }, nowMs: number): void {
    this.#begin(nowMs)
    this.#peers.get(peer.node)?.session.close()
    this.#peers.delete(peer.node)
    this.#timers.clear(`session ${peer.node}`)
  }

  /** One message of channel 1 from a peer whose link is up. */
  handleMessage(node: string, bytes: Uint8Array, nowMs: number): void {
    this.#begin(nowMs)
    const known = this.#peers.get(node)
    if (known === undefined) return
    const decoded = decodeMessage(bytes)
    const wrong = decoded.ok ? this.#dispatch(known.peer, known.session, decoded.value, nowMs) : decoded.fault
    if (wrong !== undefined) this.#violation(node, wrong)
    this.#afterSession(node, known.session, nowMs)
  }

  /** Hands a message on; a fault costs the peer its link. */
  #dispatch(peer: StatePeer, session: Session, m: StateMessage, nowMs: number): Fault | undefined {
    if (m.type === 'digest') return session.handle({ ...m, authors: this.#known(peer.node, m.authors) }, nowMs)
    if (m.type !== 'frames') return session.handle(m, nowMs)
    this.#frames(peer, session, m, nowMs)
    return undefined
  }

  /** Absolute ms; undefined when nothing is to come. */
  nextTimeoutMs(): number | undefined {
    // Before the first door has been opened the core does not know what time it is.
    return this.#startMs === undefined ? 0 : this.#timers.nextMs()
  }

  handleTimeout(nowMs: number): void {
    this.#begin(nowMs)
    for (let due = this.#timers.takeDue(nowMs); due !== undefined; due = this.#timers.takeDue(nowMs)) {
      if (due === 'flush') this.#flush()
      else if (due === 'digest') this.#digestRound(nowMs)
      else if (due === 'expire') this.#expire(nowMs)
      else if (due === 'drop') this.#dropSlice(nowMs)
      else if (due === 'ready') this.#checkReady(nowMs)
      else this.#sessionDue(due.slice('session '.length), nowMs)
      // What is due again at this very moment waits for the shell's next turn.
      if (due === 'drop') break
    }
  }

  takeOutputs(): StateOutput[] {
    const outputs = this.#outputs
    this.#outputs = []
    return outputs
  }

  /** Whether this node may say that a user does not exist: what two peers hold has been pulled, or waiting longer would not help. Stays true. */
  ready(nowMs: number): boolean {
    this.#begin(nowMs)
    this.#checkReady(nowMs)
    return this.#ready
  }

  /** What is held, for people and for comparison. What was written and not flushed yet is not in the digest. */
  summary(nowMs: number): StateSummary {
    this.#begin(nowMs)
    this.#expire(nowMs)
    const authors = this.#replica.digests()
    return {
      digest: overallDigest(authors, sha256),
      docs: this.#replica.docCount,
      entries: this.#replica.recordCount,
      bindings: this.bindings.liveCount(nowMs),
      dialogs: this.dialogs.size,
      horizon: horizonAt(nowMs, this.#constants),
      perAuthor: authors.map((a) => ({
        author: a.author,
        docs: a.docs,
        digest: Buffer.from(a.sum).toString('hex').slice(0, 16),
      })),
    }
  }

  counters(): Readonly<StateCounters> {
    return this.#counters
  }

  #stamp(nowMs: number) {
    const { region, node, incarnation } = this.#self
    return { hlc: this.#clock.tick(nowMs), region, node, incarnation }
  }

  #append(entry: Entry, nowMs: number): Uint8Array {
    this.#begin(nowMs)
    const bytes = this.#replica.append(entry)
    if (this.#replica.pendingBytes >= FLUSH_BYTES) this.#flush()
    else if (!this.#timers.has('flush')) this.#timers.set('flush', nowMs + this.#flushMs)
    return bytes
  }

  /**
   * The entry as its own bytes give it. What a caller hands in is cut from a SIP message, and a piece of a string keeps the whole of it alive: an index
   * of such pieces would hold every REGISTER that it ever saw.
   */
  #own<K extends Entry['kind']>(kind: K, bytes: Uint8Array): Extract<Entry, { kind: K }> {
    const decoded = decodeEntry(kind, bytes)
    invariant(decoded.ok, 'an entry of our own can be read back')
    return decoded.value as Extract<Entry, { kind: K }>
  }

  /** The first door that is opened tells the time; every later one may find that the wall clock was set back. */
  #begin(nowMs: number): void {
    if (this.#startMs !== undefined) {
      if (nowMs < this.#lastMs - CLOCK_BACK_MS) this.#rearm(nowMs)
      this.#lastMs = nowMs
      return
    }
    this.#lastMs = nowMs
    this.#startMs = nowMs
    // Nodes that start together do not speak together.
    this.#timers.set('digest', nowMs + Math.ceil(this.#digestPeriodMs * (0.5 + this.#random.unit() / 2)))
    this.#timers.set('ready', nowMs + READY_ALONE_MS)
    this.#expire(nowMs)
    this.#checkReady(nowMs)
  }

  /** Timers are absolute: after a step back of an hour they would sleep for an hour. */
  #rearm(nowMs: number): void {
    this.#timers.set('digest', nowMs)
    if (this.#replica.pendingBytes > 0) this.#timers.set('flush', nowMs)
    if (this.#drops.length > 0) this.#timers.set('drop', nowMs)
    if (!this.#ready) this.#timers.set('ready', nowMs)
    for (const { peer } of this.#peers.values()) {
      this.#peers.get(peer.node)!.session.close()
      this.#peers.set(peer.node, { peer, session: new Session(peer.node, this.#host, nowMs) })
      this.#timers.clear(`session ${peer.node}`)
    }
    this.#startMs = nowMs
  }

  #flush(): void {
    this.#timers.clear('flush')
    const frames = this.#replica.flush()
    if (frames.length === 0) return
    const targets = [...this.#peers.values()].filter(({ peer }) => peer.region === this.#self.region || peer.outbound)
    this.#push(
      frames,
      targets.map(({ peer }) => peer.node),
    )
  }

  #push(frames: readonly Frame[], nodes: readonly string[]): void {
    if (nodes.length === 0) return
    const bytes = encodeMessage({ type: 'frames', asked: false, frames })
    for (const node of nodes) {
      this.#outputs.push({ kind: 'send', node, bytes })
      this.#counters.framesOut += frames.length
      this.#counters.frameBytesOut += bytes.length
    }
  }

  #frames(peer: StatePeer, session: Session, m: StateMessage & { type: 'frames' }, nowMs: number): void {
    if (m.asked) session.fed(nowMs)
    const relay: Frame[] = []
    for (const frame of m.frames) {
      this.#counters.framesIn++
      this.#counters.frameBytesIn += frame.update.length
      if (!this.#take(frame, peer.node, m.asked, relay, nowMs)) break
    }
    // What was early is asked for once a message, not once a frame.
    if (!m.asked) session.handleTimeout(nowMs)
    if (relay.length > 0) {
      const siblings = [...this.#peers.values()].filter((p) => p.peer.region === this.#self.region)
      this.#counters.framesRelayed += relay.length
      this.#push(
        relay,
        siblings.map((p) => p.peer.node),
      )
    }
  }

  /** Takes one frame, and the early ones that it lets in; false when its sender broke the protocol. */
  #take(frame: Frame, from: string, asked: boolean, relay: Frame[], nowMs: number): boolean {
    const key = docKey(frame.doc)
    if (this.#held.has(`${key} ${from}`)) {
      this.#refused(from, fault('CRDT_QUARANTINED', `doc ${key}`))
      return true
    }
    const outcome = this.#replica.apply(frame, nowMs)
    if (!this.#settle(outcome, frame, key, from, asked, relay, nowMs)) return false
    if (outcome.kind === 'applied') this.#takeEarly(key, relay, nowMs)
    return true
  }

  #settle(outcome: Outcome, frame: Frame, key: string, from: string, asked: boolean, relay: Frame[], nowMs: number): boolean {
    switch (outcome.kind) {
      case 'applied': {
        for (const entry of outcome.entries) this.#index(entry)
        this.#clock.observe(outcome.lastHlc, nowMs)
        if (frame.doc.node !== this.#self.node) this.#othersHlc = Math.max(this.#othersHlc, outcome.lastHlc)
        const fromRegion = this.#regions.get(from)
        if (!asked && fromRegion !== this.#self.region && frame.doc.region !== this.#self.region) relay.push(frame)
        return true
      }
      case 'duplicate':
        this.#counters.duplicates++
        return true
      case 'early':
        this.#counters.early++
        this.#early.put(key, { frame, from, asked })
        if (!asked) this.#peers.get(from)?.session.lack(frame.doc, frame.from, nowMs)
        return true
      case 'own':
        this.#higher(this.#self.incarnation)
        return true
      case 'ignored':
        if (outcome.retryAtMs !== undefined) this.#hold(key, outcome.retryAtMs)
        this.#refused(from, outcome.fault)
        return true
      case 'refused':
        if (outcome.fault.code === 'CRDT_HASH') this.#hold(`${key} ${from}`, Number.POSITIVE_INFINITY)
        this.#violation(from, outcome.fault)
        return false
    }
  }

  #index(entry: Entry): void {
    if (entry.kind === 'binding') this.bindings.add(entry)
    else this.dialogs.add(entry)
  }

  #takeEarly(key: string, relay: Frame[], nowMs: number): void {
    for (
      let e = this.#early.take(key, this.#replica.clock(key));
      e !== undefined;
      e = this.#early.take(key, this.#replica.clock(key))
    )
      this.#settle(this.#replica.apply(e.frame, nowMs), e.frame, key, e.from, e.asked, relay, nowMs)
  }

  /** The authors of a digest that are configured here; looks for ourselves among them on the way. */
  #known(node: string, authors: readonly AuthorDigest[]): AuthorDigest[] {
    return authors.filter(({ author }) => {
      if (this.#regions.get(author.node) !== author.region) {
        this.#refused(node, fault('CRDT_UNKNOWN_AUTHOR', `author ${authorKey(author)}`))
        return false
      }
      if (author.node === this.#self.node && author.incarnation > this.#self.incarnation) this.#higher(author.incarnation)
      return true
    })
  }

  #higher(incarnation: number): void {
    if (this.#toldHigher) return
    this.#toldHigher = true
    this.#outputs.push({ kind: 'higherIncarnation', incarnation })
  }

  #wanted(doc: DocName, peer: string, nowMs: number): boolean {
    const key = docKey(doc)
    if (this.#regions.get(doc.node) !== doc.region || doc.bucket < horizonAt(nowMs, this.#constants)) return false
    if (this.#replica.isOwn(doc)) {
      this.#higher(doc.incarnation)
      return false
    }
    return (this.#held.get(key) ?? 0) <= nowMs && !this.#held.has(`${key} ${peer}`)
  }

  /** Bounded: past the limit the oldest is forgotten, which costs another refusal. */
  #hold(key: string, untilMs: number): void {
    if (this.#held.size >= HELD_DOCS) this.#held.delete(this.#held.keys().next().value!)
    this.#held.set(key, untilMs)
  }

  #forked(doc: DocName, peer: string): void {
    // Nobody but this process writes it: so there are two of this process (a machine that was copied while it ran).
    if (this.#replica.isOwn(doc)) this.#higher(doc.incarnation)
    this.#refused(peer, fault('CRDT_FORK', `doc ${docKey(doc)}`))
  }

  #refused(node: string, f: Fault): void {
    this.#counters.refused.set(f.code, (this.#counters.refused.get(f.code) ?? 0) + 1)
    this.#outputs.push({ kind: 'refused', node, fault: f })
  }

  #violation(node: string, f: Fault): void {
    this.#counters.refused.set(f.code, (this.#counters.refused.get(f.code) ?? 0) + 1)
    this.#outputs.push({ kind: 'violation', node, fault: f })
  }

  /**
   * The clock ran ahead and was set right: for as long as it ran ahead nobody would take what we write, and here it would hide what others write later. A new
   * incarnation begins with the right time (DESIGN State 10). Within the reorder window it comes right by itself. Where others' stamps are as far ahead
   * it is the clock of now that is wrong, and a new incarnation would be worse.
   */
  #checkClock(nowMs: number): void {
    const { driftBoundMs, windowMs } = this.#constants
    if (this.#toldHigher || this.#clock.aheadMs(nowMs) <= windowMs || hlcMs(this.#othersHlc) > nowMs + driftBoundMs) return
    this.#refused(
      this.#self.node,
      fault('CRDT_CLOCK_RAN_AHEAD', `own stamps ${this.#clock.aheadMs(nowMs)} ms ahead of the clock`),
    )
    this.#higher(this.#self.incarnation)
  }

  #digestRound(nowMs: number): void {
    this.#checkClock(nowMs)
    this.#sendDigest([...this.#peers.keys()], nowMs)
    const jitter = 0.9 + this.#random.unit() / 5
    this.#timers.set('digest', nowMs + Math.max(1, Math.round(this.#digestPeriodMs * jitter)))
  }

  #sendDigest(nodes: readonly string[], nowMs: number): void {
    if (nodes.length === 0) return
    this.#expire(nowMs)
    const bytes = encodeMessage({
      type: 'digest',
      horizon: horizonAt(nowMs, this.#constants),
      authors: this.#replica.digests(),
    })
    for (const node of nodes) this.#outputs.push({ kind: 'send', node, bytes })
  }

  #sessionDue(node: string, nowMs: number): void {
    const known = this.#peers.get(node)
    if (known === undefined) return
    known.session.handleTimeout(nowMs)
    this.#afterSession(node, known.session, nowMs)
  }

  #afterSession(node: string, session: Session, nowMs: number): void {
    const next = session.nextTimeoutMs()
    if (next === undefined) this.#timers.clear(`session ${node}`)
    else this.#timers.set(`session ${node}`, next)
    if (session.pulled) this.#pulledFrom.add(node)
    if (!this.#ready) this.#checkReady(nowMs)
  }

  /** Drops docs whose retention is over; the indexes forget their entries in slices, which changes no answer: they have all died before. */
  #expire(nowMs: number): void {
    const horizon = horizonAt(nowMs, this.#constants)
    if (horizon === this.#horizon) return
    this.#horizon = horizon
    this.#timers.set('expire', retentionEndMs(horizon, this.#constants))
    // After a sleep longer than the retention what waits for its flush belongs to docs that go now.
    this.#flush()
    const dropped = this.#replica.expire(nowMs)
    for (const entries of dropped) for (const entry of entries) this.#drops.push(entry)
    if (this.#drops.length > 0) this.#timers.set('drop', nowMs)
    this.#early.expire(horizon)
  }

  #dropSlice(nowMs: number): void {
    for (const entry of this.#drops.splice(-DROP_SLICE)) {
      if (entry.kind === 'binding') this.bindings.drop(entry)
      else this.dialogs.drop(entry)
    }
    if (this.#drops.length > 0) this.#timers.set('drop', nowMs + 1)
  }

  #checkReady(nowMs: number): void {
    if (this.#ready) return
    const others = this.#regions.size - 1
    const start = this.#startMs!
    const progress = [...this.#peers.values()].map(({ session }) => session.progressMs)
    const endMs =
      progress.length === 0 ? start + READY_ALONE_MS : Math.min(Math.max(...progress) + READY_QUIET_MS, start + READY_AT_MOST_MS)
    if (this.#pulledFrom.size < Math.min(READY_PEERS, others) && nowMs < endMs) {
      this.#timers.set('ready', endMs)
      return
    }
    this.#ready = true
    this.#timers.clear('ready')
    this.#outputs.push({ kind: 'ready' })
  }
}
