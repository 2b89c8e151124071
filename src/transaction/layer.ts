import { hash32 } from '../base/ids.ts'
import type { Random } from '../base/prng.ts'
import { TimerTable } from '../base/timer-table.ts'
import { type Flow, isStream } from '../sip/flow.ts'
import type { SipMessage, SipRequest, SipResponse } from '../sip/message.ts'
import { makeResponse } from '../sip/respond.ts'
import { serialize } from '../sip/serialize.ts'
import type { Via } from '../sip/via.ts'
import { MAGIC_COOKIE, makeAck, makeCancel, newBranch, ownVia } from './derive.ts'
import { inviteClient } from './invite-client.ts'
import { inviteServer } from './invite-server.ts'
import type { Action, Machine, Step, TransactionTimers } from './machine.ts'
import { nonInviteClient } from './non-invite-client.ts'
import { nonInviteServer } from './non-invite-server.ts'
import type { ClientId, ServerId, TransactionOutput } from './outputs.ts'
import { markSource, reconnectFlow, responseFlow } from './source.ts'

export type { ClientId, ServerId, TransactionOutput } from './outputs.ts'

export interface TransactionOptions {
  readonly timers: TransactionTimers
  /** `host:port` for our Via on that flow's transport. */
  readonly sentBy: (flow: Flow) => string
  readonly random: Random
  /**
   * Past this many transactions new requests are answered 503. Requests inside a dialog (To tag) and CANCELs of a known INVITE have an eighth
   * more: a call in progress may hang up.
   */
  readonly maxTransactions: number
}

export interface TransactionCounts {
  readonly inviteClient: number
  readonly inviteServer: number
  readonly nonInviteClient: number
  readonly nonInviteServer: number
}

/** The machines with their types erased; a cell is looked up by strings, and every cell exists. */
interface AnyMachine extends Omit<Machine<string, string, string>, 'table'> {
  readonly table: Readonly<Record<string, Readonly<Record<string, Step<string, string>>>>>
}

interface Transaction {
  readonly id: number
  readonly machine: AnyMachine
  /** Where it is found by `key`. */
  readonly table: Map<string, Transaction>
  readonly key: string
  readonly reliable: boolean
  state: string
  /** Where to. Servers: where responses go. */
  flow: Flow
  /** Servers on a stream: where responses go when the connection is gone; used once. */
  secondFlow: Flow | undefined
  /** What was sent last: a request, or the last response. */
  bytes: Buffer | undefined
  ackBytes: Buffer | undefined
  /** The backoff timer's last interval. */
  intervalMs: number
  /** INVITE clients until their final response: what ACK and CANCEL are made of. */
  invite: SipRequest | undefined
  cancel: 'none' | 'wanted' | 'sent'
  cancelReason: string | undefined
  /** Our own CANCEL: the TU knows nothing of it. */
  readonly silent: boolean
}

const TIMER_SLOTS = 8
const NO_OUTPUTS: readonly TransactionOutput[] = []

/**
 * Transactions of one node: RFC 3261 §17 with RFC 6026, no I/O. Messages given in have passed `checkMessage`. What comes out is the TU's; an INVITE
 * given to `request` is kept for its ACK and CANCEL, and the TU does not change it any more.
 *
 * After each call drain `takeOutputs`, and wake the layer by `handleTimeout` at `nextTimeoutMs`.
 */
export class TransactionLayer {
  readonly #timerBase: TransactionTimers
  readonly #sentBy: (flow: Flow) => string
  readonly #random: Random
  readonly #max: number
  readonly #tagSeed: number
  /** Two tables: a stranger's response with a branch like `x|host:5060` must not find a server transaction. */
  readonly #clients = new Map<string, Transaction>()
  readonly #servers = new Map<string, Transaction>()
  readonly #byId = new Map<number, Transaction>()
  readonly #timers = new TimerTable<number>()
  readonly #counts = { inviteClient: 0, inviteServer: 0, nonInviteClient: 0, nonInviteServer: 0 }
  #nextId = 1
  #outputs: TransactionOutput[] = []

  constructor(o: TransactionOptions) {
    this.#timerBase = o.timers
    this.#sentBy = o.sentBy
    this.#random = o.random
    this.#max = o.maxTransactions
    this.#tagSeed = o.random.u32()
  }

  /** A request from the network. Marks its source in the top Via, absorbs retransmissions; a new one comes out as `request`. */
  handleRequest(request: SipRequest, flow: Flow, nowMs: number): void {
    const via = markSource(request, flow)
    const { method } = request
    // The fallback of §17.2.3 for RFC 2543 clients is not offered: matching by headers lets strangers' requests collide.
    // The cookie alone names no transaction (RFC 4475 §3.2.1): all who send it would share one.
    if (!via.branch.startsWith(MAGIC_COOKIE) || via.branch.length === MAGIC_COOKIE.length) {
      const reason = via.branch === MAGIC_COOKIE ? 'Branch Is Magic Cookie Alone' : 'Branch Lacks Magic Cookie'
      this.respondStateless(request, 400, flow, reason)
      this.#outputs.push({ kind: 'refused', request, flow })
      return
    }
    if (method === 'ACK') {
      this.#handleAck(request, via, flow, nowMs)
      return
    }
    const key = serverKey(via, method)
    const known = this.#servers.get(key)
    if (known !== undefined) {
      this.#apply(known, 'request', nowMs, request)
      return
    }
    // §9.2: a CANCEL fits the transaction that its branch and sent-by would fit under the method it cancels; only INVITEs are cancelled.
    const invite = method === 'CANCEL' ? this.#servers.get(serverKey(via, 'INVITE'))?.id : undefined
    const privileged = invite !== undefined || request.toTag !== ''
    if (this.#byId.size >= (privileged ? this.#max + (this.#max >> 3) : this.#max)) {
      this.respondStateless(request, 503, flow)
      this.#outputs.push({ kind: 'overload', request, flow })
      return
    }
    const machine: AnyMachine = method === 'INVITE' ? inviteServer : nonInviteServer
    const t = this.#create(machine, this.#servers, key, responseFlow(via, flow), false)
    if (t.reliable && flow.connectionId !== undefined) t.secondFlow = reconnectFlow(via, flow)
    this.#outputs.push({ kind: 'request', id: t.id, request, flow, invite })
    this.#run(t, machine.start, nowMs)
  }

  /** A response from the network (§17.1.3: branch of the top Via and method of CSeq). */
  handleResponse(response: SipResponse, flow: Flow, nowMs: number): void {
    const t = this.#clients.get(clientKey(response.topVia.branch, response.cseq.method))
    if (t === undefined) {
      this.#outputs.push({ kind: 'strayResponse', response, flow })
      return
    }
    this.#apply(t, responseEvent(t.machine, response.status), nowMs, response, flow)
  }

  /**
   * The transport could not send. A client transaction that still waits ends with `transportError`; a response goes a second way if there is one
   * (§18.2.2), and else the transaction lives on.
   * @param which the `id` of the `send`; or its flow, which costs a walk over all transactions and stands for every one that sends there
   */
  handleSendError(which: ClientId | ServerId | Flow, nowMs: number): void {
    if (typeof which === 'number') {
      const t = this.#byId.get(which)
      if (t !== undefined) this.#sendFailed(t, nowMs)
      return
    }
    for (const t of [...this.#byId.values()]) if (sameFlow(t.flow, which)) this.#sendFailed(t, nowMs)
  }

  /**
   * Starts a client transaction: pushes our Via and sends.
   * @param branch the whole branch, with cookie; random when left out
   */
  request(request: SipRequest, flow: Flow, nowMs: number, branch = newBranch(this.#random)): ClientId {
    request.headers.prepend('Via', ownVia(flow.transport, this.#sentBy(flow), branch))
    const machine: AnyMachine = request.method === 'INVITE' ? inviteClient : nonInviteClient
    return this.#startClient(machine, request, flow, branch, false, nowMs)
  }

  /**
   * Cancels an INVITE client transaction (§9.1): at once when a provisional response is here, else when the first one comes, and never after a
   * final one. Its own answers stay inside; the INVITE ends with its final response, or by `timeout` 64*T1 after the CANCEL.
   * @param reason value of a Reason header (RFC 3326)
   */
  cancel(client: ClientId, nowMs: number, reason?: string): void {
    const t = this.#byId.get(client)
    if (t === undefined || t.invite === undefined || t.cancel !== 'none') return
    t.cancel = 'wanted'
    t.cancelReason = reason
    if (t.state === 'proceeding') this.#sendCancel(t, nowMs)
  }

  /**
   * Sends a response in a server transaction. `response` carries the Vias of the request: `makeResponse`, or a forwarded one without our own.
   * After the transaction has ended, or where its state forbids the response, nothing is sent.
   */
  respond(server: ServerId, response: SipResponse, nowMs: number): void {
    const t = this.#byId.get(server)
    if (t !== undefined) this.#apply(t, responseEvent(t.machine, response.status), nowMs, response)
  }

  /** Sends the ACK to a 2xx on, under our own Via with a fresh branch, without a transaction (§16.6, §13.2.2.4). */
  forwardAck(ack: SipRequest, flow: Flow): void {
    ack.headers.prepend('Via', ownVia(flow.transport, this.#sentBy(flow), newBranch(this.#random)))
    this.#outputs.push({ kind: 'send', bytes: serialize(ack), flow, id: 0 })
  }

  /**
   * Answers a request without a transaction (§8.2.7): one that is malformed, or one too many. A 503 bears Retry-After. The ACK that comes back is
   * absorbed. Nothing is sent to an ACK. Where the top Via is malformed itself (RFC 4475 §3.1.2.1, §3.1.2.16) the answer goes to the source.
   * @param request as it came in on `flow`
   */
  respondStateless(request: SipRequest, status: number, flow: Flow, reason?: string): void {
    if (request.method === 'ACK' || !request.headers.has('Via')) return
    const via = request.parsedTopVia.ok ? markSource(request, flow) : undefined
    const response = makeResponse(request, status, reason, this.#statelessTag(via?.branch ?? ''))
    // §20.33; spread, so that those refused together do not come back together.
    if (status === 503) response.headers.set('Retry-After', String(5 + (this.#random.u32() % 6)))
    this.#outputs.push({
      kind: 'send',
      bytes: serialize(response),
      flow: via === undefined ? flow : responseFlow(via, flow),
      id: 0,
    })
  }

  /** Sends a message as it is, without a transaction. For a response `flow` is the one that its request came in on; the top Via says the rest. */
  sendStateless(message: SipMessage, flow: Flow): void {
    const to = message.kind === 'response' ? responseFlow(message.topVia, flow) : flow
    this.#outputs.push({ kind: 'send', bytes: serialize(message), flow: to, id: 0 })
  }

  /** Forgets a server transaction without an answer, and without a `terminated`: its retransmissions are new requests again. */
  drop(server: ServerId): void {
    const t = this.#byId.get(server)
    if (t !== undefined) this.#forget(t)
  }

  nextTimeoutMs(): number | undefined {
    return this.#timers.nextMs()
  }

  handleTimeout(nowMs: number): void {
    for (let name = this.#timers.takeDue(nowMs); name !== undefined; name = this.#timers.takeDue(nowMs)) {
      const slot = name % TIMER_SLOTS
      const t = this.#byId.get((name - slot) / TIMER_SLOTS)
      if (t !== undefined) this.#apply(t, t.machine.timerEvents[slot]!, nowMs)
    }
  }

  /** Everything since the last call, in order. */
  takeOutputs(): readonly TransactionOutput[] {
    if (this.#outputs.length === 0) return NO_OUTPUTS
    const taken = this.#outputs
    this.#outputs = []
    return taken
  }

  /** Transactions held, by machine. */
  counts(): TransactionCounts {
    return { ...this.#counts }
  }

  #sendFailed(t: Transaction, nowMs: number): void {
    if (t.secondFlow !== undefined && t.bytes !== undefined) {
      t.flow = t.secondFlow
      t.secondFlow = undefined
      this.#emitSend(t, t.bytes)
      return
    }
    this.#apply(t, 'transportError', nowMs)
  }

  #handleAck(ack: SipRequest, via: Via, flow: Flow, nowMs: number): void {
    const t = this.#servers.get(serverKey(via, 'INVITE'))
    if (t !== undefined) this.#apply(t, 'ack', nowMs, ack, flow)
    // Our tag: the ACK to a final response that this layer sent without a transaction.
    else if (ack.toTag !== this.#statelessTag(via.branch)) {
      this.#outputs.push({ kind: 'request', id: 0, request: ack, flow, invite: undefined })
    }
  }

  #startClient(machine: AnyMachine, request: SipRequest, flow: Flow, branch: string, silent: boolean, nowMs: number): ClientId {
    const t = this.#create(machine, this.#clients, clientKey(branch, request.method), flow, silent)
    if (request.method === 'INVITE') t.invite = request
    this.#run(t, machine.start, nowMs, request)
    return t.id
  }

  #sendCancel(t: Transaction, nowMs: number): void {
    t.cancel = 'sent'
    const cancel = makeCancel(t.invite!, t.cancelReason)
    this.#startClient(nonInviteClient, cancel, t.flow, cancel.topVia.branch, true, nowMs)
    this.#apply(t, 'cancelSent', nowMs)
  }

  #create(machine: AnyMachine, table: Map<string, Transaction>, key: string, flow: Flow, silent: boolean): Transaction {
    const t: Transaction = {
      id: this.#nextId++,
      machine,
      table,
      key,
      reliable: isStream(flow.transport),
      state: machine.start.to,
      flow,
      secondFlow: undefined,
      bytes: undefined,
      ackBytes: undefined,
      intervalMs: 0,
      invite: undefined,
      cancel: 'none',
      cancelReason: undefined,
      silent,
    }
    table.set(key, t)
    this.#byId.set(t.id, t)
    this.#counts[machine.name]++
    return t
  }

  #apply(t: Transaction, event: string, nowMs: number, message?: SipMessage, flow?: Flow): void {
    this.#run(t, t.machine.table[t.state]![event]!, nowMs, message, flow)
  }

  #run(t: Transaction, step: Step<string, string>, nowMs: number, message?: SipMessage, flow?: Flow): void {
    t.state = step.to
    // Cleared first: an action may arm (a CANCEL that is let go arms Timer B).
    for (const timer of step.clear) this.#timers.clear(t.id * TIMER_SLOTS + t.machine.timers.indexOf(timer))
    for (const action of step.actions) this.#act(t, action, nowMs, message, flow)
    if (step.to === 'terminated') {
      this.#forget(t)
      if (!t.silent) this.#outputs.push({ kind: 'terminated', id: t.id })
      return
    }
    for (const timer of step.arm) this.#arm(t, timer, nowMs)
  }

  #arm(t: Transaction, timer: string, nowMs: number): void {
    const { machine } = t
    const ms = machine.duration(timer, t.state, t.intervalMs, t.reliable, this.#timerBase)
    if (ms === undefined) return
    if (timer === machine.backoff) t.intervalMs = ms
    const slot = machine.timers.indexOf(timer)
    // A reliable transport passes through the state: no timer, no wake-up.
    if (ms === 0) this.#apply(t, machine.timerEvents[slot]!, nowMs)
    else this.#timers.set(t.id * TIMER_SLOTS + slot, nowMs + ms)
  }

  #act(t: Transaction, action: Action, nowMs: number, message?: SipMessage, flow?: Flow): void {
    switch (action) {
      case 'send':
        t.bytes = serialize(message!)
        this.#emitSend(t, t.bytes)
        return
      case 'resend':
        if (t.bytes !== undefined) this.#emitSend(t, t.bytes)
        return
      case 'ack':
        t.ackBytes = serialize(makeAck(t.invite!, message as SipResponse))
        this.#emitSend(t, t.ackBytes)
        t.bytes = undefined
        return
      case 'resendAck':
        this.#emitSend(t, t.ackBytes!)
        return
      case 'pass':
        this.#pass(t, message!, flow!)
        return
      case 'releaseCancel':
        if (t.cancel === 'wanted') this.#sendCancel(t, nowMs)
        return
      default:
        if (!t.silent) this.#outputs.push({ kind: action, id: t.id })
    }
  }

  #pass(t: Transaction, message: SipMessage, flow: Flow): void {
    if (message.kind === 'request') this.#outputs.push({ kind: 'request', id: 0, request: message, flow, invite: undefined })
    else {
      // ACK and CANCEL are out of question now; what is left waits for retransmissions only.
      if (message.status >= 200) t.invite = undefined
      if (!t.silent) this.#outputs.push({ kind: 'response', id: t.id, response: message, flow })
    }
  }

  #emitSend(t: Transaction, bytes: Buffer): void {
    this.#outputs.push({ kind: 'send', bytes, flow: t.flow, id: t.id })
  }

  #forget(t: Transaction): void {
    t.state = 'terminated'
    const first = t.id * TIMER_SLOTS
    for (let slot = 0; slot < t.machine.timers.length; slot++) this.#timers.clear(first + slot)
    t.table.delete(t.key)
    this.#byId.delete(t.id)
    this.#counts[t.machine.name]--
  }

  /** The same for each retransmission of a request and for its ACK, and nobody else's (§8.2.7). */
  #statelessTag(branch: string): string {
    return `sl${hash32(branch, this.#tagSeed).toString(36)}`
  }
}

/** §17.2.3: branch, sent-by, method; an ACK asks for INVITE. A port left out is not the same as 5060: the comparison is of sent-by as written. */
const serverKey = (via: Via, method: string): string => `${via.branch}|${via.host}:${via.port ?? ''}|${method}`

const clientKey = (branch: string, method: string): string => `${branch}|${method}`

const sameFlow = (a: Flow, b: Flow): boolean =>
  a.remotePort === b.remotePort &&
  a.remoteAddress === b.remoteAddress &&
  a.transport === b.transport &&
  a.connectionId === b.connectionId

const responseEvent = (machine: AnyMachine, status: number): string => {
  if (status < 200) return 'provisional'
  if (machine === nonInviteClient || machine === nonInviteServer) return 'final'
  return status < 300 ? 'success' : 'failure'
}
