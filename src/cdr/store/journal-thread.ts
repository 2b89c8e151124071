import { join } from 'node:path'
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { systemClock } from '../../base/clock.ts'
import { AntipodeError, invariant } from '../../base/errors.ts'
import { decodeMessage, encodeMessage } from '../mirror-messages.ts'
import { COMMIT_BYTES, MAX_GROUP_BYTES, MAX_GROUP_RECORDS, recordBytes } from '../segment.ts'
import { realDisk } from './disk.ts'
import { MirrorStore } from './mirror-store.ts'
import { OwnLog } from './own-log.ts'
import type { ThreadData, ThreadReply, ThreadRequest } from './thread-messages.ts'

/**
 * The journal thread: all that arrived while the last cycle wrote and synced is done in the next one, so a group grows with the load. In a
 * cycle the own groups come first, then what is held for others, then reads.
 */
class JournalThread {
  readonly #port: MessagePort
  readonly #own: OwnLog
  readonly #mirrors: MirrorStore
  #queue: ThreadRequest[] = []
  #scheduled = false
  #retry: NodeJS.Timeout | undefined

  constructor(port: MessagePort, data: ThreadData) {
    const nowMs = systemClock.nowMs()
    this.#port = port
    this.#own = new OwnLog(realDisk, join(data.directory, 'own'), data.self, data.segmentBytes, nowMs)
    this.#mirrors = new MirrorStore(realDisk, join(data.directory, 'mirror'), data.segmentBytes)
    port.on('message', (request: ThreadRequest) => {
      this.#queue.push(request)
      this.#schedule()
    })
    const { report } = this.#own
    this.#post({ kind: 'opened', report: { ...report, damage: [...report.damage, ...this.#mirrors.damage()] } })
    this.#tellFailures('mirror', this.#mirrors.takeFailures())
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    // After all messages that are there: they make one group.
    setImmediate(() => {
      this.#scheduled = false
      this.#cycle()
    })
  }

  #cycle(): void {
    const requests = this.#queue
    this.#queue = []
    this.#append(requests)
    for (const request of requests) if (request.kind === 'peer') this.#peer(request.node, request.bytes)
    for (const { node, message } of this.#mirrors.flush()) this.#reply(node, encodeMessage(message))
    this.#tellFailures('mirror', this.#mirrors.takeFailures())
    for (const request of requests) this.#other(request)
  }

  #append(requests: readonly ThreadRequest[]): void {
    let payloads: Uint8Array[] = []
    let bytes = COMMIT_BYTES
    for (const request of requests) {
      if (request.kind !== 'append') continue
      let at = 0
      for (const length of request.lengths) {
        const payload = request.bytes.subarray(at, at + length)
        at += length
        if (bytes + recordBytes(payload) > MAX_GROUP_BYTES || payloads.length === MAX_GROUP_RECORDS) {
          this.#group(payloads)
          payloads = []
          bytes = COMMIT_BYTES
        }
        payloads.push(payload)
        bytes += recordBytes(payload)
      }
    }
    if (payloads.length > 0) this.#group(payloads)
  }

  /** The mirrors get the group before the datasync begins, so that theirs runs beside ours. */
  #group(payloads: readonly Uint8Array[]): void {
    const nowMs = systemClock.nowMs()
    const { commit, bytes } = this.#own.append(payloads, nowMs)
    this.#post({ kind: 'group', commit, records: payloads.length, bytes })
    this.#commit(commit)
  }

  #commit(commit: number): void {
    const ok = this.#own.commit(systemClock.nowMs())
    this.#tellFailures('own', this.#own.takeFailures())
    this.#post({ kind: 'local', commit, ok })
    if (!ok && this.#retry === undefined) {
      this.#retry = setTimeout(() => {
        this.#retry = undefined
        if (this.#own.failing) this.#commit(commit)
      }, 1000)
    }
  }

  #peer(node: string, bytes: Uint8Array): void {
    const message = decodeMessage(bytes)
    // The other side of this port has decoded it before.
    invariant(message.ok, 'the journal thread is handed sound messages')
    for (const reply of this.#mirrors.handle(node, message.value, systemClock.nowMs())) this.#reply(node, encodeMessage(reply))
  }

  #other(request: ThreadRequest): void {
    const nowMs = systemClock.nowMs()
    switch (request.kind) {
      case 'read': {
        const { node, incarnation, from } = request
        const read = this.#guarded('own', () => this.#own.readRange(incarnation, from))
        this.#post({ kind: 'read', node, incarnation, from, next: read?.next ?? from, groups: read?.groups ?? new Uint8Array(0) })
        break
      }
      case 'position': {
        const { node, incarnation, commit } = request
        const header = this.#guarded('own', () => this.#own.headerAt(incarnation, commit, nowMs))
        this.#post({ kind: 'position', node, incarnation, header })
        break
      }
      case 'recover': {
        const { incarnation, from, header } = request
        const groups = Buffer.from(request.groups.buffer, request.groups.byteOffset, request.groups.byteLength)
        const commits = this.#guarded('recover', () => this.#own.recover(incarnation, from, header, groups, nowMs))
        this.#post({ kind: 'recovered', incarnation, commits: commits ?? from, ok: commits !== undefined })
        break
      }
      case 'remoteHeld':
        this.#guarded('hint', () => this.#own.noteRemote(request.incarnation, request.commits, nowMs))
        break
      case 'close':
        clearTimeout(this.#retry)
        this.#guarded('own', () => this.#own.close(nowMs))
        this.#mirrors.close(nowMs)
        this.#tellFailures('own', this.#own.takeFailures())
        this.#tellFailures('mirror', this.#mirrors.takeFailures())
        this.#post({ kind: 'closed' })
        this.#port.close()
        break
    }
  }

  #guarded<T>(what: 'own' | 'recover' | 'hint', action: () => T): T | undefined {
    try {
      return action()
    } catch (error) {
      this.#tellFailures(what, [error])
      return undefined
    }
  }

  #tellFailures(what: 'own' | 'mirror' | 'recover' | 'hint', failures: readonly unknown[]): void {
    for (const error of failures) this.#post({ kind: 'failure', what, ...described(error) })
  }

  #reply(node: string, bytes: Uint8Array): void {
    this.#post({ kind: 'reply', node, bytes: unpooled(bytes) })
  }

  #post(reply: ThreadReply): void {
    this.#port.postMessage(reply)
  }
}

/** A view of a larger buffer (node's pool, a whole segment) would be sent with all of that. */
const unpooled = (bytes: Uint8Array): Uint8Array =>
  bytes.byteLength === bytes.buffer.byteLength ? bytes : Uint8Array.from(bytes)

const described = (error: unknown): { code: string; message: string } => ({
  code: error instanceof AntipodeError ? error.code : ((error as NodeJS.ErrnoException).code ?? 'UNKNOWN'),
  message: error instanceof Error ? error.message : String(error),
})

invariant(parentPort !== null, 'the journal thread is started as a worker')
try {
  new JournalThread(parentPort, workerData as ThreadData)
} catch (error) {
  parentPort.postMessage({ kind: 'refused', ...described(error) } satisfies ThreadReply)
}
