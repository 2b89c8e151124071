import { Worker } from 'node:worker_threads'
import { AntipodeError } from '../../base/errors.ts'
import { incarnationText } from '../../base/ids.ts'
import { LimitedLog } from '../../base/log.ts'
import type { CdrPart } from '../call-record.ts'
import { decodeMessage, encodeMessage } from '../mirror-messages.ts'
import type { Outcome } from '../outcome.ts'
import { encodePart } from '../part-codec.ts'
import { Replication } from '../replication.ts'
import type { CdrJournalOptions, CdrJournalStats } from './journal-options.ts'
import type { OpenReport } from './own-log.ts'
import { type CdrFilter, readPartsOf } from './reader.ts'
import type { ThreadData, ThreadReply, ThreadRequest } from './thread-messages.ts'

export type { CdrDurability, CdrJournalOptions, CdrJournalStats } from './journal-options.ts'

interface Waiting {
  readonly part: CdrPart['part']
  readonly sinceMs: number
  readonly resolve: (result: { durable: boolean }) => void
  readonly reject: (error: AntipodeError) => void
  done: boolean
}

const TICK_MS = 50
const UNHEALTHY_AFTER_FAILURE_MS = 30_000
/** What may wait for the journal thread; a call is some 3 parts of half a KiB. */
const MAX_WAITING = 100_000

/**
 * This node's CDR journal, and what it holds of others'. Shell of `Replication`; files and fdatasync are on the journal thread. FORMAT.md.
 */
export class CdrJournal {
  readonly #o: CdrJournalOptions
  readonly #worker: Worker
  readonly #report: OpenReport
  readonly #replication: Replication
  readonly #timeoutMs: number
  readonly #limitedLog: LimitedLog
  readonly #tick: NodeJS.Timeout
  /** Appended in this turn of the event loop, not yet posted. */
  #batch: Buffer[] = []
  /** Posted or in the batch, in order; not yet in a group. */
  #ungrouped: Waiting[] = []
  readonly #groups = new Map<number, Waiting[]>()
  #waiting = 0
  #commits = 0
  #records = 0
  #atRisk = 0
  #failures = 0
  #lastFailureMs = Number.NEGATIVE_INFINITY
  #diskOk = true
  #threadGone = false
  #closing: Promise<void> | undefined
  #threadClosed: (() => void) | undefined

  private constructor(o: CdrJournalOptions, worker: Worker, report: OpenReport) {
    this.#o = o
    this.#worker = worker
    this.#report = report
    this.#timeoutMs = o.mirrorTimeoutMs ?? 500
    this.#limitedLog = new LimitedLog(o.log)
    this.#replication = new Replication({
      self: o.self.node,
      old: report.old,
      incarnation: o.self.incarnation,
      mirrors: o.durability.mirror,
      remote: o.durability.remote,
      mirrorTimeoutMs: this.#timeoutMs,
    })
    worker.on('message', (reply: ThreadReply) => this.#handleReply(reply))
    worker.on('error', (error) => this.#handleThreadGone(error))
    worker.on('exit', () => this.#handleThreadGone(undefined))
    this.#tick = setInterval(() => this.#handleTick(), TICK_MS)
    this.#tick.unref()
    this.#reportOpening()
    this.#handleTick()
  }

  /**
   * Recovers what the last start left (FORMAT.md "Recovery") and opens a new chain. When it resolves, the first segment is on disk.
   *
   * @throws AntipodeError CDR_INCARNATION_USED; CDR_OPEN_FAILED with the reason when the directory cannot be used
   */
  static open(o: CdrJournalOptions): Promise<CdrJournal> {
    const own = import.meta.url
    const workerData: ThreadData = {
      directory: o.directory,
      self: { ...o.self },
      segmentBytes: o.segmentBytes ?? 4 * 1024 * 1024,
    }
    // The same file is TypeScript in the repository and JavaScript when built.
    const worker = new Worker(new URL(`./journal-thread${own.slice(own.lastIndexOf('.'))}`, own), { workerData })
    return new Promise((resolve, reject) => {
      const fail = (code: string, message: string): void => {
        void worker.terminate()
        reject(new AntipodeError(code === 'CDR_INCARNATION_USED' ? code : 'CDR_OPEN_FAILED', `${o.directory}: ${message}`))
      }
      worker.once('error', (error) => fail('CDR_OPEN_FAILED', error.message))
      worker.once('message', (reply: ThreadReply) => {
        worker.removeAllListeners('error')
        if (reply.kind === 'opened') resolve(new CdrJournal(o, worker, reply.report))
        else if (reply.kind === 'refused') fail(reply.code, reply.message)
      })
    })
  }

  /**
   * Appends a part. Resolves with `durable: true` when it is on disk here and on as many other nodes as configured (or on those alone, when the
   * disk failed); with `durable: false` when it goes on with less (counted `at_risk`), at the latest after about twice `mirrorTimeoutMs`.
   *
   * @throws AntipodeError (as a rejection) CDR_NOT_DURABLE: policy `reject`, and it is nowhere; CDR_PART_INVALID; CDR_CLOSED
   */
  append(part: CdrPart): Promise<{ durable: boolean }> {
    return new Promise((resolve, reject) => {
      if (this.#closing !== undefined) return reject(new AntipodeError('CDR_CLOSED', 'the journal is closed'))
      const payload = encodePart(part)
      const waiting: Waiting = { part: part.part, sinceMs: this.#o.clock.monotonicMs(), resolve, reject, done: false }
      if (this.#threadGone || this.#ungrouped.length >= MAX_WAITING) {
        this.#waiting++
        return this.#finish(waiting, { kind: 'lost' }, this.#threadGone ? 'thread' : 'overload')
      }
      this.#waiting++
      this.#ungrouped.push(waiting)
      this.#batch.push(payload)
      if (this.#batch.length === 1) setImmediate(() => this.#postBatch())
    })
  }

  /** A message of channel 3 from a node that the link has authenticated: both roles of the mirror protocol. */
  handlePeerMessage(node: string, payload: Uint8Array): void {
    const message = decodeMessage(payload)
    if (!message.ok) {
      this.#o.metrics.link.refused.inc({ code: message.fault.code })
      this.#limitedLog.warn(
        this.#o.clock.nowMs(),
        `malformed ${node}`,
        { peer: node, fault: message.fault },
        'mirror message refused',
      )
      return
    }
    const { type } = message.value
    if (type === 'query' || type === 'open' || type === 'data' || type === 'pull') {
      const bytes = Uint8Array.from(payload)
      this.#post({ kind: 'peer', node, bytes }, [bytes.buffer])
      return
    }
    this.#replication.handleMessage(node, message.value, this.#o.clock.monotonicMs())
    this.#drain()
  }

  handlePeerUp(_node: string, _region: string): void {
    this.#lookAtPeers()
  }

  handlePeerDown(node: string): void {
    this.#replication.handlePeerDown(node, this.#o.clock.monotonicMs())
    this.#lookAtPeers()
  }

  /** Parts of this node's journal and of what it holds for others, newest first; each record once. Reads files. */
  parts(filter: CdrFilter = {}): Promise<CdrPart[]> {
    return readPartsOf(this.#o.directory, filter)
  }

  /** Whether new parts become durable here. Not whether old ones are sound: FORMAT.md "Recovery" step 5. */
  healthy(): boolean {
    const nowMs = this.#o.clock.monotonicMs()
    const oldest = this.#ungrouped[0]
    const stalled = oldest !== undefined && nowMs - oldest.sinceMs > 2 * this.#timeoutMs
    return !this.#threadGone && this.#diskOk && !stalled && nowMs - this.#lastFailureMs > UNHEALTHY_AFTER_FAILURE_MS
  }

  stats(): CdrJournalStats {
    return {
      healthy: this.healthy(),
      incarnation: this.#o.self.incarnation,
      commits: this.#commits,
      records: this.#records,
      waiting: this.#waiting,
      atRisk: this.#atRisk,
      failures: this.#failures,
      remoteLagCommits: this.#replication.remoteLag,
      pulling: this.#replication.pulling,
      previous: this.#report.previous,
      damage: this.#report.damage,
    }
  }

  /** Settles what was appended, cuts and signs off the segments, ends the thread. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#postBatch()
    const deadlineMs = this.#o.clock.monotonicMs() + 4 * this.#timeoutMs
    while (this.#waiting > 0 && this.#o.clock.monotonicMs() < deadlineMs) await new Promise((resolve) => setTimeout(resolve, 5))
    if (!this.#threadGone) {
      const closed = new Promise<void>((resolve) => {
        this.#threadClosed = resolve
      })
      this.#post({ kind: 'close' })
      // A disk that hangs must not keep the process from ending; what it holds then is what a crash would leave.
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, 5000)
      })
      await Promise.race([closed, late])
      clearTimeout(timer)
    }
    clearInterval(this.#tick)
    await this.#worker.terminate()
  }

  #postBatch(): void {
    const payloads = this.#batch
    if (payloads.length === 0) return
    this.#batch = []
    const bytes = new Uint8Array(payloads.reduce((sum, p) => sum + p.length, 0))
    let at = 0
    for (const payload of payloads) {
      bytes.set(payload, at)
      at += payload.length
    }
    this.#post({ kind: 'append', bytes, lengths: payloads.map((p) => p.length) }, [bytes.buffer])
  }

  #post(request: ThreadRequest, transfer: ArrayBuffer[] = []): void {
    if (!this.#threadGone) this.#worker.postMessage(request, transfer)
  }

  #handleReply(reply: ThreadReply): void {
    const nowMs = this.#o.clock.monotonicMs()
    switch (reply.kind) {
      case 'group':
        this.#groups.set(reply.commit, this.#ungrouped.splice(0, reply.records))
        this.#commits = reply.commit + 1
        this.#records += reply.records
        this.#replication.handleGroup(reply.commit, reply.bytes, nowMs)
        break
      case 'local':
        this.#diskOk = reply.ok
        this.#replication.handleLocal(reply.commit, reply.ok, nowMs)
        break
      case 'reply':
        this.#o.sendToPeer(reply.node, reply.bytes)
        break
      case 'read':
        this.#replication.handleRead(reply.node, reply.incarnation, reply.from, reply.next, reply.groups, nowMs)
        break
      case 'position':
        this.#replication.handlePosition(reply.node, reply.incarnation, reply.header, nowMs)
        break
      case 'recovered':
        this.#replication.handleRecovered(reply.incarnation, reply.commits, reply.ok, nowMs)
        if (reply.ok)
          this.#o.log.info(
            { chain: incarnationText(reply.incarnation), commits: reply.commits },
            'CDR journal: took groups back from a mirror',
          )
        break
      case 'failure':
        this.#handleFailure(reply, nowMs)
        break
      case 'closed':
        this.#threadClosed?.()
        break
    }
    this.#drain()
  }

  #handleFailure(failure: ThreadReply & { readonly kind: 'failure' }, nowMs: number): void {
    const { what, code, message } = failure
    this.#o.log.error({ what, code, detail: message }, 'CDR journal: a write or sync failed')
    if (what === 'hint') return
    this.#failures++
    this.#o.metrics.cdr.failures.inc()
    // What a mirror gave back and does not chain says nothing of this disk.
    if (what !== 'recover') this.#lastFailureMs = nowMs
  }

  #handleThreadGone(error: Error | undefined): void {
    if (this.#threadGone) return
    this.#threadGone = true
    this.#threadClosed?.()
    if (this.#closing === undefined) {
      this.#failures++
      this.#o.metrics.cdr.failures.inc()
      this.#o.log.fatal({ detail: error?.message ?? 'it ended' }, 'CDR journal: the journal thread is gone')
    }
    for (const waiting of [...this.#ungrouped, ...[...this.#groups.values()].flat()])
      this.#finish(waiting, { kind: 'lost' }, 'thread')
    this.#ungrouped = []
    this.#groups.clear()
  }

  #handleTick(): void {
    const nowMs = this.#o.clock.monotonicMs()
    this.#replication.handleTimeout(nowMs)
    this.#lookAtPeers()
    // The thread hangs in a call to the disk: nothing was grouped, so no mirror has it either.
    for (const waiting of this.#ungrouped) {
      if (nowMs - waiting.sinceMs < 2 * this.#timeoutMs) break
      this.#finish(waiting, { kind: 'lost' }, 'stalled')
    }
    this.#o.metrics.cdr.remoteLagParts.set(this.#replication.remoteLag)
  }

  #lookAtPeers(): void {
    this.#replication.handlePeers(this.#o.mirrors(), this.#o.clock.monotonicMs())
    this.#drain()
  }

  #drain(): void {
    for (let outputs = this.#replication.takeOutputs(); outputs.length > 0; outputs = this.#replication.takeOutputs()) {
      for (const output of outputs) {
        switch (output.kind) {
          case 'send':
            if (!this.#o.sendToPeer(output.node, encodeMessage(output.message)))
              this.#replication.handleSendFailed(output.node, this.#o.clock.monotonicMs())
            break
          case 'settled': {
            const group = this.#groups.get(output.commit) ?? []
            this.#groups.delete(output.commit)
            for (const waiting of group) this.#finish(waiting, output.outcome, 'lost')
            break
          }
          case 'alarm':
            this.#o.log.error(
              { peer: output.node, chain: incarnationText(output.incarnation), why: output.why },
              'CDR journal: a mirror disagrees',
            )
            break
          default:
            this.#post(output)
        }
      }
    }
  }

  /** @param nowhere why, when the outcome is `lost` */
  #finish(waiting: Waiting, outcome: Outcome, nowhere: string): void {
    if (waiting.done) return
    waiting.done = true
    this.#waiting--
    const { metrics, policy, clock } = this.#o
    const durable = outcome.kind === 'durable' || outcome.kind === 'mirrors'
    if (durable) {
      metrics.cdr.parts.inc({ part: waiting.part })
      metrics.cdr.durableSeconds.observe((clock.monotonicMs() - waiting.sinceMs) / 1000)
    }
    if (outcome.kind !== 'durable') {
      this.#atRisk++
      metrics.cdr.atRisk.inc({ why: outcome.kind === 'mirrors' ? 'disk' : outcome.kind === 'atRisk' ? outcome.why : nowhere })
    }
    if (outcome.kind === 'lost' && policy === 'reject')
      waiting.reject(new AntipodeError('CDR_NOT_DURABLE', `the part is nowhere: ${nowhere}`))
    else waiting.resolve({ durable })
  }

  #reportOpening(): void {
    const { previous, damage, setAside } = this.#report
    for (const found of damage) {
      this.#failures++
      this.#o.metrics.cdr.failures.inc()
      this.#o.log.error({ ...found }, 'CDR journal: damage in what earlier starts wrote')
    }
    if (previous === 'cut')
      this.#o.log.warn({ previous }, 'CDR journal: the last start ended within a group; its tail is kept in own/aside')
    if (setAside.length > 0) this.#o.log.warn({ files: setAside }, 'CDR journal: files that never were segments are in own/aside')
  }
}
