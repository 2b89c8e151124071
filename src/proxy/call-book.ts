import type { DialogEntry } from '../../crdt/entry.ts'
import { TimerTable } from '../base/timer-table.ts'
import { type Flow, flowText } from '../sip/flow.ts'
import type { SipRequest } from '../sip/message.ts'
import { aorOrRaw, type Call, callIdOf, EndedCalls, stampOf } from './call.ts'
import type { CallToken } from './token.ts'

export type DialogWrite = Omit<DialogEntry, 'kind' | 'hlc' | 'region' | 'node' | 'incarnation'>

/** Dialog state, as the proxy needs it; in production the CRDT. */
export interface DialogStore {
  write(entry: DialogWrite, nowMs: number): void
  /** A node of any region has recorded the end of this call. */
  callEnded(id: string): boolean
  /** The same of one leg: the call's id, `/`, the To-tag. */
  dialogEnded(id: string): boolean
}

/** A call whose BYE never came is not kept alive for ever: its lease runs out, and what became of it is unknown. */
const LONGEST_CALL_MS = 24 * 3_600_000

/**
 * What a node knows of calls beside their transactions: which it took and are up (it renews their leases: DESIGN "Calls", timers have one owner),
 * which have ended, and what the rest of the cluster is told of each. A timed core inside the proxy's.
 */
export class CallBook {
  readonly #dialogs: DialogStore
  readonly #leaseMs: number
  readonly #ended = new EndedCalls()
  /** Confirmed dialogs by id, as they were written. */
  readonly #owned = new Map<string, DialogWrite>()
  /** By dialog id: when its lease is renewed. */
  readonly #leases = new TimerTable<string>()

  constructor(dialogs: DialogStore, leaseMs: number) {
    this.#dialogs = dialogs
    this.#leaseMs = leaseMs
  }

  /** Calls that this node took and that are up. */
  get size(): number {
    return this.#owned.size
  }

  nextTimeoutMs(): number | undefined {
    return this.#leases.nextMs()
  }

  handleTimeout(nowMs: number): void {
    for (let id = this.#leases.takeDue(nowMs); id !== undefined; id = this.#leases.takeDue(nowMs)) this.#renew(id, nowMs)
  }

  /** @param before the token of the call that this INVITE is part of already */
  open(request: SipRequest, flow: Flow, account: string, nowMs: number, before?: CallToken): Call {
    const { callId, fromTag } = request
    let stamp = before?.stamp ?? stampOf(request, '')
    if (before === undefined && this.hasEnded(callIdOf(callId, fromTag, stamp))) stamp = stampOf(request, String(nowMs))
    const id = callIdOf(callId, fromTag, stamp)
    const caller = aorOrRaw(request.from.uri)
    const callee = aorOrRaw(request.uri)
    const startMs = before?.startMs ?? nowMs
    return { id, stamp, callId, fromTag, caller, callee, account, source: flowText(flow), startMs, emergency: false }
  }

  /** The call with this id is known to have ended, here or by a node of any region. */
  hasEnded(id: string): boolean {
    return this.#ended.has(id) || this.#dialogs.callEnded(id)
  }

  /** The call rings: an early dialog, until `ringLimitMs` (absolute) at the latest. */
  ring(call: Call, ringLimitMs: number, nowMs: number): void {
    this.#dialogs.write(dialogOf(call, '', 'early', { leaseUntilMs: ringLimitMs }), nowMs)
  }

  confirm(call: Call, leg: string, answerMs: number, nowMs: number): void {
    const write = dialogOf(call, leg, 'confirmed', { answerMs, leaseUntilMs: nowMs + this.#leaseMs })
    this.#dialogs.write(write, nowMs)
    this.#owned.set(write.id, write)
    this.#leases.set(write.id, nowMs + this.#leaseMs / 2)
  }

  /**
   * Remembers the end and replicates it.
   * @param leg empty for a call that nobody answered; that one has a dialog only where it was written as ringing (`rang`)
   */
  end(call: Call, leg: string, endMs: number, rang: boolean, nowMs: number): void {
    this.#ended.add(call.id, endMs)
    if (leg === '' && !rang) return
    const write = dialogOf(call, leg, 'ended', { endMs, observed: true })
    this.#owned.delete(write.id)
    this.#leases.clear(write.id)
    this.#dialogs.write(write, nowMs)
  }

  #renew(id: string, nowMs: number): void {
    const owned = this.#owned.get(id)
    if (owned === undefined) return
    if (this.#dialogs.dialogEnded(id) || nowMs - owned.answerMs > LONGEST_CALL_MS) {
      this.#owned.delete(id)
      return
    }
    this.#dialogs.write({ ...owned, leaseUntilMs: nowMs + this.#leaseMs }, nowMs)
    this.#leases.set(id, nowMs + this.#leaseMs / 2)
  }
}

function dialogOf(call: Call, leg: string, phase: DialogWrite['phase'], rest: Partial<DialogWrite>): DialogWrite {
  return {
    id: `${call.id}/${leg}`,
    phase,
    callId: call.callId,
    fromTag: call.fromTag,
    toTag: leg,
    caller: call.caller,
    callee: call.callee,
    startMs: call.startMs,
    answerMs: 0,
    leaseUntilMs: 0,
    endMs: 0,
    observed: false,
    ...rest,
  }
}
