import type { NodeIdentity } from '../base/ids.ts'
import type { KeyRing } from '../base/keys.ts'
import type { Metrics } from '../base/metrics.ts'
import { TimerTable } from '../base/timer-table.ts'
import type { CdrPart } from '../cdr/call-record.ts'
import { serverTag } from '../registrar/registrar.ts'
import { type Flow, flowText, type TransportName } from '../sip/flow.ts'
import type { SipRequest, SipResponse } from '../sip/message.ts'
import { makeResponse } from '../sip/respond.ts'
import type { ClientId, ServerId, TransactionLayer } from '../transaction/layer.ts'
import { aorOrRaw, type Call, callIdOf, cdrPart } from './call.ts'
import { CallBook, type DialogStore } from './call-book.ts'
import { bestResponse, gatherChallenges } from './forking.ts'
import { HOP_HEADER, makeHop } from './hop.ts'
import { type Leg, legOfFlow } from './leg.ts'
import type { OwnRoutes } from './record-route.ts'
import { literalAddress, type Neighbourhood, type Target, uriOf, type Way, waysTo } from './target-set.ts'
import { type CallToken, checkToken, type Direction, makeToken } from './token.ts'

/** `journal`: the shell makes the part durable and calls `handleJournaled(ticket, …)`; ticket 0 is not waited for. */
export type ProxyOutput = { readonly kind: 'journal'; readonly ticket: number; readonly part: CdrPart }

export interface ProxyOptions {
  readonly self: NodeIdentity
  readonly layer: TransactionLayer
  readonly hood: Neighbourhood
  readonly routes: OwnRoutes
  readonly dialogs: DialogStore
  readonly tokenKeys: KeyRing
  readonly metrics: Metrics
  /** No response at all within this: the next way (DESIGN: 2 s). */
  readonly silenceMs: number
  readonly timerCMs: number
  readonly dialogLeaseMs: number
  readonly maxForks: number
}

/** A request that is on its way through this node, from its server transaction to its final response. */
interface Context {
  readonly server: ServerId
  readonly request: SipRequest
  readonly arrivedMs: number
  /** Groups of targets not yet tried; a group goes out in parallel. */
  groups: Target[][]
  readonly branches: Map<ClientId, Branch>
  readonly finals: SipResponse[]
  /** A final response is on its way to the caller, or waits for the journal. */
  settled: boolean
  cancelled: boolean
  /** An INVITE that begins a call here: it gets CDR parts and Record-Route. */
  readonly call: Call | undefined
  /** It went through us before, where its attempt, end and dialog are written; an answered leg is written here too, or a copied token made it free. */
  readonly spiral: boolean
  /** Record-Route values for a branch that leaves by that transport, with a token of our own or the one that the ingress made. */
  readonly recordRoute: ((target: Target, transport: TransportName) => string[]) | undefined
  /** Another node is waiting, not a user agent. */
  readonly hop: boolean
  /** A BYE: what to write when it is answered. */
  readonly onFinal: ((response: SipResponse, ours: boolean, nowMs: number) => CdrPart | undefined) | undefined
  /** Every client transaction that was ever started for it. */
  readonly clients: ClientId[]
  /** Answered legs by To-tag: held until durable, then passed. */
  readonly legs: Map<string, 'held' | 'passed'>
  ringing: boolean
  earlyWritten: boolean
}

interface Branch {
  readonly client: ClientId
  readonly context: Context
  readonly target: Target
  readonly way: Way
  /** Ways not yet tried, after this one. */
  readonly rest: readonly Way[]
  /** Given up: whatever comes on it is only cancelled. */
  abandoned: boolean
  heard: boolean
}

/** Names of timers: what for, and of what. */
type TimerName = `silence:${number}` | `timerC:${number}` | `early:${number}` | `forget:${number}`

/** What a context outlives its final response by: retransmitted 2xx and late branches (64 × T1, RFC 6026 Timer L and M). */
const FORGET_MS = 33_000
/** A call that rings longer than this is shown as an early dialog; most are answered or refused before, and cost no write. */
const EARLY_AFTER_MS = 1_000
const ROUTED_METHODS: ReadonlySet<string> = new Set(['INVITE', 'SUBSCRIBE', 'REFER'])

/**
 * The stateful proxy of RFC 3261 §16 with forking, and the call's bookkeeping around it: tokens, CDR parts, dialogs. A core with four doors; the
 * transaction layer below it is shared with `SipCore`, which owns its outputs.
 *
 *   request ──▶ targets ──▶ group 1 (parallel) ──▶ group 2 … ──▶ best response ──▶ journal `end` ──▶ caller
 *                             │ 2xx: cancel the rest, journal `start`, hold ──▶ durable ──▶ caller
 *                             └ silence 2 s: next way of the same target (edge, direct)
 */
export class StatefulProxy {
  readonly #o: ProxyOptions
  readonly #contexts = new Map<ServerId, Context>()
  readonly #branches = new Map<ClientId, Branch>()
  readonly #timers = new TimerTable<TimerName>()
  readonly #tickets = new Map<number, (durable: boolean, nowMs: number) => void>()
  readonly #book: CallBook
  readonly #ours = new WeakSet<SipResponse>()
  #outputs: ProxyOutput[] = []
  #lastTicket = 0

  constructor(options: ProxyOptions) {
    this.#o = options
    this.#book = new CallBook(options.dialogs, options.dialogLeaseMs)
  }

  get contexts(): number {
    return this.#contexts.size
  }

  /** Calls that this node took and that are up. */
  get ownedDialogs(): number {
    return this.#book.size
  }

  takeOutputs(): ProxyOutput[] {
    const outputs = this.#outputs
    if (outputs.length > 0) this.#outputs = []
    return outputs
  }

  nextTimeoutMs(): number | undefined {
    const own = this.#timers.nextMs()
    const book = this.#book.nextTimeoutMs()
    return own === undefined ? book : book === undefined ? own : Math.min(own, book)
  }

  // ── Requests ───────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * A request outside any dialog, already authenticated, with its targets. An INVITE becomes a call with a CDR, unless it went through us before.
   * @param account the billing key: the authenticated user, or what the trusted source is called
   */
  forwardInitial(server: ServerId, request: SipRequest, flow: Flow, groups: Target[][], account: string, nowMs: number): void {
    const { callId, fromTag } = request
    const before = request.method === 'INVITE' ? this.#spiral(request) : undefined
    const call = request.method === 'INVITE' ? this.#book.open(request, flow, account, nowMs, before) : undefined
    const spiral = before !== undefined
    const callerLeg = this.#callerLeg(request, flow)
    const startMs = call?.startMs ?? nowMs
    const recordRoute = ROUTED_METHODS.has(request.method)
      ? (target: Target, transport: TransportName): string[] => {
          const legs = { callerLeg, calleeLeg: target.leg }
          const token = makeToken({ stamp: call?.stamp ?? '', startMs, ...legs }, callId, fromTag, this.#o.tokenKeys)
          return this.#o.routes.values(token, flow.transport, transport)
        }
      : undefined
    const context = this.#open(server, request, nowMs, { call, spiral, recordRoute })
    if (call !== undefined && !spiral) {
      this.#o.metrics.calls.attempts.inc()
      this.#journal(cdrPart(call, this.#o.self, 'attempt', nowMs))
    }
    if (request.method === 'INVITE') this.#o.layer.respond(server, makeResponse(request, 100, 'Trying'), nowMs)
    const total = groups.reduce((n, g) => n + g.length, 0)
    context.groups = total <= this.#o.maxForks ? groups : cutGroups(groups, this.#o.maxForks)
    this.#nextGroup(context, nowMs)
  }

  /** A call that cannot be placed: its final response is journaled first, as any end is. */
  refuseInitial(
    server: ServerId,
    request: SipRequest,
    flow: Flow,
    response: SipResponse,
    account: string,
    reason: string,
    nowMs: number,
  ): void {
    if (request.method !== 'INVITE' || this.#spiral(request) !== undefined) {
      this.#o.layer.respond(server, response, nowMs)
      return
    }
    const call = this.#book.open(request, flow, account, nowMs)
    this.#o.metrics.calls.attempts.inc()
    const context = this.#open(server, request, nowMs, { call })
    this.#journal(cdrPart(call, this.#o.self, 'attempt', nowMs))
    this.#settle(context, response, reason, 'system', nowMs)
  }

  /** A request that another node handed to us as the edge of its flow; `leg` comes from the verified hop header. */
  forwardHop(server: ServerId, request: SipRequest, flow: Flow, leg: Leg, nowMs: number): void {
    const ways = waysTo(leg, this.#o.hood).filter((w) => w.kind === 'flow')
    if (ways.length === 0) {
      // RFC 5626 §5.3: the flow is gone; the ingress tries another.
      this.#o.layer.respond(server, makeResponse(request, 430, 'Flow Failed', 'edge'), nowMs)
      return
    }
    // Both nodes stay on the path: the phone sends its own in-dialog requests to its edge, on the flow that it has.
    const token = ROUTED_METHODS.has(request.method) && request.toTag === '' ? this.#o.routes.recorded(request)[0] : undefined
    const recordRoute =
      token === undefined
        ? undefined
        : (_: Target, transport: TransportName): string[] => this.#o.routes.values(token, flow.transport, transport)
    const context = this.#open(server, request, nowMs, { recordRoute, hop: true })
    if (request.method === 'INVITE') this.#o.layer.respond(server, makeResponse(request, 100, 'Trying'), nowMs)
    context.groups = [[{ uri: undefined, leg, ways, path: [] }]]
    this.#nextGroup(context, nowMs)
  }

  /** Checks the tokens that an in-dialog request came with; the first that holds wins. */
  authorizeDialog(request: SipRequest, tokens: readonly string[]): { token: CallToken; direction: Direction } | undefined {
    let code = 'TOKEN_MISSING'
    for (const text of tokens) {
      const check = checkToken(text, request.callId, request.fromTag, request.toTag, this.#o.tokenKeys)
      // A SUBSCRIBE's dialog has no CDR, so no call may go on in it.
      if (check.ok && (request.method !== 'INVITE' || check.token.stamp !== '')) return check
      code = check.ok ? 'TOKEN_OF_NO_CALL' : check.code
    }
    this.#o.metrics.calls.tokensRefused.inc({ code })
    return undefined
  }

  /** A request inside a dialog, at whichever node it arrived: routed from the token alone. */
  forwardInDialog(
    server: ServerId,
    request: SipRequest,
    flow: Flow,
    token: CallToken,
    direction: Direction,
    nowMs: number,
  ): void {
    const leg = direction === 'from-caller' ? token.calleeLeg : token.callerLeg
    const target: Target = { uri: undefined, leg, ways: waysTo(leg, this.#o.hood), path: [] }
    const onFinal =
      request.method === 'BYE' && token.stamp !== '' ? this.#byeEnd(request, flow, token, direction, nowMs) : undefined
    const context = this.#open(server, request, nowMs, { onFinal })
    if (request.method === 'INVITE') this.#o.layer.respond(server, makeResponse(request, 100, 'Trying'), nowMs)
    context.groups = [[target]]
    this.#nextGroup(context, nowMs)
  }

  /** ACK to a 2xx: forwarded without a transaction (§16.11), by the token's leg or the hop's. */
  forwardAck(request: SipRequest, leg: Leg, edgeOnly: boolean, nowMs: number): void {
    const way = waysTo(leg, this.#o.hood).find((w) => !edgeOnly || w.kind === 'flow')
    if (way === undefined) return
    const forwarded = this.#prepare(request, { uri: undefined, leg, ways: [], path: [] }, way, undefined, nowMs)
    if (forwarded !== undefined) this.#o.layer.forwardAck(forwarded, way.flow)
  }

  /** CANCEL of an INVITE that this node is forwarding (§16.10); false when there is none. */
  cancel(invite: ServerId, nowMs: number): boolean {
    const context = this.#contexts.get(invite)
    if (context === undefined) return false
    if (context.settled || context.cancelled || context.legs.size > 0) return true
    context.cancelled = true
    context.groups = []
    for (const branch of context.branches.values()) {
      this.#o.layer.cancel(branch.client, nowMs)
      // A target that has said nothing gets no CANCEL (§9.1) and will not answer one: the caller is not kept waiting for it.
      if (!branch.heard) this.#abandon(branch)
    }
    this.#progress(context, nowMs)
    return true
  }

  // ── Responses ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** A response that matched one of our client transactions. Our Via is still on top. */
  handleResponse(client: ClientId, response: SipResponse, nowMs: number): void {
    const branch = this.#branches.get(client)
    if (branch === undefined) return
    const { context } = branch
    const { status } = response
    this.#hear(branch, status, nowMs)
    if (status === 100) {
      if (branch.abandoned || context.cancelled) this.#o.layer.cancel(client, nowMs)
      return
    }
    const forwarded = response.copy()
    forwarded.headers.removeFirstValue('Via')
    if (status < 200) {
      if (branch.abandoned || context.cancelled) {
        this.#o.layer.cancel(client, nowMs)
        return
      }
      if (!context.settled && context.legs.size === 0) {
        this.#o.layer.respond(context.server, forwarded, nowMs)
        if (context.call !== undefined && !context.spiral && !context.ringing) {
          context.ringing = true
          this.#timers.set(`early:${context.server}`, nowMs + EARLY_AFTER_MS)
        }
      }
      return
    }
    if (status < 300) this.#success(branch, forwarded, nowMs)
    else this.#failure(branch, forwarded, nowMs)
  }

  /** Timer B, Timer F, or a transport error: as a 408 or a 503 of that branch (§16.9, §16.8). */
  handleClientFailure(client: ClientId, why: 'timeout' | 'transportError', nowMs: number): void {
    const branch = this.#branches.get(client)
    if (branch === undefined) return
    this.#branchOver(branch)
    if (branch.abandoned) {
      this.#branches.delete(client)
      return
    }
    // RFC 5626 §5.3: a connection that is gone is no error of ours. Another node is told so, and tries another way or says 480 itself.
    const gone = branch.way.flow.connectionId === undefined ? 503 : branch.context.hop ? 430 : 480
    this.#nextWay(branch, why === 'timeout' ? 408 : gone, nowMs)
  }

  /** The shell made a part durable (or, by policy, went on without), or could not and the policy is to refuse. */
  handleJournaled(ticket: number, went: boolean, nowMs: number): void {
    const then = this.#tickets.get(ticket)
    if (then === undefined) return
    this.#tickets.delete(ticket)
    then(went, nowMs)
  }

  handleTimeout(nowMs: number): void {
    this.#book.handleTimeout(nowMs)
    for (let name = this.#timers.takeDue(nowMs); name !== undefined; name = this.#timers.takeDue(nowMs)) this.#fire(name, nowMs)
  }

  #fire(name: TimerName, nowMs: number): void {
    const colon = name.indexOf(':')
    const what = name.slice(0, colon)
    const id = Number(name.slice(colon + 1))
    if (what === 'forget') {
      this.#forget(id)
      return
    }
    if (what === 'early') {
      this.#ring(id, nowMs)
      return
    }
    const branch = this.#branches.get(id)
    if (branch === undefined) return
    if (what === 'silence') {
      // A non-INVITE may rightly be answered late (RFC 4320: no 1xx), and our 408 to a re-INVITE would end a call that a few lost packets do not
      // (RFC 3261 §12.2.1.2): as long as its edge is there, or there is no other way, it is waited for.
      const { request } = branch.context
      const newCall = request.method === 'INVITE' && request.toTag === ''
      if (!newCall && branch.rest.length === 0) return
      if (!newCall && this.#edgeStands(branch)) {
        this.#timers.set(name, nowMs + this.#o.silenceMs)
        return
      }
      this.#o.layer.cancel(branch.client, nowMs)
      this.#abandon(branch)
      this.#nextWay(branch, 408, nowMs)
    } else {
      // Timer C (§16.8): CANCEL if it rang; the answer to the caller is 408 whether or not the branch ever says another word.
      this.#o.layer.cancel(branch.client, nowMs)
      this.#abandon(branch)
      this.#branchFailed(branch.context, this.#final(branch.context.request, 408), nowMs)
    }
  }

  // ── Branches ───────────────────────────────────────────────────────────────────────────────────────────────────

  #open(
    server: ServerId,
    request: SipRequest,
    nowMs: number,
    extra: Partial<Pick<Context, 'call' | 'spiral' | 'recordRoute' | 'onFinal' | 'hop'>>,
  ): Context {
    const context: Context = {
      server,
      request,
      arrivedMs: nowMs,
      groups: [],
      branches: new Map(),
      clients: [],
      finals: [],
      settled: false,
      cancelled: false,
      call: extra.call,
      spiral: extra.spiral ?? false,
      recordRoute: extra.recordRoute,
      onFinal: extra.onFinal,
      hop: extra.hop ?? false,
      legs: new Map(),
      ringing: false,
      earlyWritten: false,
    }
    this.#contexts.set(server, context)
    return context
  }

  #nextGroup(context: Context, nowMs: number): void {
    const group = context.groups.shift()
    if (group === undefined) {
      this.#progress(context, nowMs)
      return
    }
    for (const target of group) this.#start(context, target, target.ways, nowMs)
    this.#progress(context, nowMs)
  }

  #start(context: Context, target: Target, ways: readonly Way[], nowMs: number): void {
    const way = ways[0]
    if (way === undefined) {
      context.finals.push(this.#final(context.request, 480))
      return
    }
    const forwarded = this.#prepare(context.request, target, way, context.recordRoute, nowMs)
    if (forwarded === undefined) {
      context.finals.push(this.#final(context.request, 500))
      return
    }
    const client = this.#o.layer.request(forwarded, way.flow, nowMs)
    const branch: Branch = { client, context, target, way, rest: ways.slice(1), abandoned: false, heard: false }
    this.#branches.set(client, branch)
    context.branches.set(client, branch)
    context.clients.push(client)
    // A later way gets three quarters, so that two of them are over, and the caller answered, within twice the silence.
    this.#timers.set(
      `silence:${client}`,
      nowMs + (ways.length === target.ways.length ? this.#o.silenceMs : 0.75 * this.#o.silenceMs),
    )
  }

  /** The request as it goes out on one way (§16.6): target, Max-Forwards, Record-Route, Path, hop header. The layer adds the Via. */
  #prepare(
    request: SipRequest,
    target: Target,
    way: Way,
    recordRoute: Context['recordRoute'],
    nowMs: number,
  ): SipRequest | undefined {
    const out = request.copy()
    const { headers } = out
    if (target.uri !== undefined) out.uri = target.uri
    const maxForwards = Number(headers.get('Max-Forwards') ?? '70')
    headers.set('Max-Forwards', String(Math.max(0, maxForwards - 1)))
    headers.remove(HOP_HEADER)
    for (let i = target.path.length - 1; i >= 0; i--) headers.prepend('Route', target.path[i]!)
    for (const value of recordRoute?.(target, way.flow.transport).reverse() ?? []) headers.prepend('Record-Route', value)
    if (way.kind === 'edge') {
      headers.append(HOP_HEADER, makeHop(out, { fromNode: this.#o.self.node, atMs: nowMs, leg: target.leg }, this.#o.tokenKeys))
    }
    return out
  }

  /** The branch has shown that it lives: silence is over; a 1xx above 100 starts Timer C anew (§16.7 step 2). */
  #hear(branch: Branch, status: number, nowMs: number): void {
    branch.heard = true
    this.#timers.clear(`silence:${branch.client}`)
    if (status >= 200) this.#timers.clear(`timerC:${branch.client}`)
    else if (
      branch.context.request.method === 'INVITE' &&
      !branch.abandoned &&
      (status > 100 || !this.#timers.has(`timerC:${branch.client}`))
    )
      this.#timers.set(`timerC:${branch.client}`, nowMs + this.#o.timerCMs)
  }

  #edgeStands(branch: Branch): boolean {
    const { leg } = branch.target
    return leg.edge === this.#o.self.node || (this.#o.hood.reachable(leg.edge) && this.#o.hood.verdict(leg.edge) !== 'dead')
  }

  /** Out of the fork, but still known: late responses on it must be cancelled, not forwarded. */
  #abandon(branch: Branch): void {
    branch.abandoned = true
    this.#branchOver(branch)
  }

  #branchOver(branch: Branch): void {
    branch.context.branches.delete(branch.client)
    this.#timers.clear(`silence:${branch.client}`)
    this.#timers.clear(`timerC:${branch.client}`)
  }

  /** The next way of the same target, or the branch has failed with `status`. */
  #nextWay(branch: Branch, status: number, nowMs: number): void {
    const { context } = branch
    const over = context.settled || context.cancelled || context.legs.size > 0 || context.finals.some((f) => f.status >= 600)
    if (over || branch.rest.length === 0) {
      this.#branchFailed(context, this.#final(context.request, status), nowMs)
      return
    }
    this.#start(context, branch.target, branch.rest, nowMs)
    this.#progress(context, nowMs)
  }

  #failure(branch: Branch, response: SipResponse, nowMs: number): void {
    const { context } = branch
    this.#branchOver(branch)
    this.#branches.delete(branch.client)
    if (branch.abandoned) return
    // The edge has lost the flow: another way to the same target may stand.
    if (response.status === 430 && branch.rest.length > 0) {
      this.#nextWay(branch, 480, nowMs)
      return
    }
    // 430 is between nodes; the caller is told what it means to it.
    this.#branchFailed(context, response.status === 430 ? this.#final(context.request, 480) : response, nowMs)
  }

  #branchFailed(context: Context, response: SipResponse, nowMs: number): void {
    context.finals.push(response)
    if (response.status >= 600) {
      // §16.7 step 5: a 6xx ends the search; what is under way is cancelled, and nothing new is begun.
      context.groups = []
      for (const other of context.branches.values()) this.#o.layer.cancel(other.client, nowMs)
    }
    this.#progress(context, nowMs)
  }

  /** Goes on when nothing is pending: the next group, or the best response. */
  #progress(context: Context, nowMs: number): void {
    if (context.settled || context.legs.size > 0 || context.branches.size > 0) return
    if (context.groups.length > 0) {
      this.#nextGroup(context, nowMs)
      return
    }
    const { request } = context
    if (context.cancelled) {
      this.#settle(context, this.#final(request, 487), 'cancelled', 'caller', nowMs)
      return
    }
    const best = bestResponse(context.finals) ?? this.#final(request, 480)
    gatherChallenges(best, context.finals)
    // §16.7 step 6: a 503 of one target must not make the caller believe that we are overloaded.
    const ours = this.#ours.has(best)
    const answer =
      best.status !== 503 ? best : ours ? this.#final(request, 500) : makeResponse(request, 500, undefined, serverTag(request))
    const reason = !ours ? 'rejected' : answer.status === 408 ? 'timeout' : 'unreachable'
    this.#settle(context, answer, reason, ours ? 'system' : 'callee', nowMs)
  }

  // ── Final responses and CDRs ───────────────────────────────────────────────────────────────────────────────────

  /** A final that is no 2xx of an INVITE: what has to be durable first is journaled, then it goes to the caller. */
  #settle(context: Context, response: SipResponse, reason: string, by: CdrPart['hungUpBy'], nowMs: number): void {
    context.settled = true
    this.#timers.clear(`early:${context.server}`)
    this.#timers.set(`forget:${context.server}`, nowMs + FORGET_MS)
    const { call } = context
    let part: CdrPart | undefined
    if (call !== undefined && !context.spiral) {
      part = cdrPart(call, this.#o.self, 'end', nowMs, { status: response.status, reason, hungUpBy: by })
      this.#book.end(call, '', nowMs, context.earlyWritten, nowMs)
      this.#o.metrics.calls.ended.inc({ by: by || 'system' })
    } else part = context.onFinal?.(response, this.#ours.has(response), nowMs)
    // RFC 4320 §4.1: no 408 to a non-INVITE; who sent it has given up by now, and would take our answer for a stray.
    const tooLate = context.request.method !== 'INVITE' && response.status === 408 && this.#ours.has(response)
    const respond = (atMs: number): void => {
      if (!tooLate) this.#o.layer.respond(context.server, response, atMs)
    }
    // A refused journal must not keep a final response that is no answer from the caller.
    if (part === undefined) respond(nowMs)
    else this.#journal(part, (_, laterMs) => respond(laterMs))
  }

  #success(branch: Branch, response: SipResponse, nowMs: number): void {
    const { context } = branch
    this.#branchOver(branch)
    if (context.request.method !== 'INVITE') {
      this.#branches.delete(branch.client)
      if (!context.settled) this.#settle(context, response, 'ok', '', nowMs)
      return
    }
    // Losers of the fork are cancelled at once, not when the journal is done.
    context.groups = []
    for (const other of context.branches.values()) this.#o.layer.cancel(other.client, nowMs)
    const leg = response.toTag
    const state = context.legs.get(leg)
    if (state === 'held') return
    if (state === 'passed' || context.call === undefined) {
      context.legs.set(leg, 'passed')
      this.#answered(context, nowMs)
      this.#o.layer.respond(context.server, response, nowMs)
      return
    }
    // The caller has had a final already (a 408 of ours, say): the server transaction can carry no 2xx any more.
    if (context.settled) {
      this.#o.metrics.calls.lateAnswers.inc()
      return
    }
    // A callee that answers under ever new tags must not fill the journal at the caller's cost.
    if (context.legs.size >= this.#o.maxForks) return
    const { call } = context
    context.legs.set(leg, 'held')
    this.#answered(context, nowMs)
    if (!context.spiral) this.#o.metrics.calls.answered.inc()
    this.#journal(
      cdrPart(call, this.#o.self, 'start', nowMs, { leg, answerMs: nowMs, status: response.status }),
      (went, laterMs) => {
        context.legs.set(leg, 'passed')
        if (!went) {
          this.#o.layer.respond(context.server, this.#final(context.request, 503), laterMs)
          return
        }
        this.#o.layer.respond(context.server, response, laterMs)
        if (!context.spiral) this.#book.confirm(call, leg, nowMs, laterMs)
      },
    )
  }

  #answered(context: Context, nowMs: number): void {
    this.#timers.clear(`early:${context.server}`)
    this.#timers.set(`forget:${context.server}`, nowMs + FORGET_MS)
  }

  /** What a BYE's final response writes: a 2xx or 481, or none from the far end, ends the call; another answer does not (DESIGN "CDRs"). */
  #byeEnd(
    request: SipRequest,
    flow: Flow,
    token: CallToken,
    direction: Direction,
    arrivedMs: number,
  ): NonNullable<Context['onFinal']> {
    const fromCaller = direction === 'from-caller'
    const callerTag = fromCaller ? request.fromTag : request.toTag
    const leg = fromCaller ? request.toTag : request.fromTag
    const call: Call = {
      id: callIdOf(request.callId, callerTag, token.stamp),
      stamp: token.stamp,
      callId: request.callId,
      fromTag: callerTag,
      caller: aorOrRaw((fromCaller ? request.from : request.to).uri),
      callee: aorOrRaw((fromCaller ? request.to : request.from).uri),
      account: '',
      source: flowText(flow),
      startMs: token.startMs,
      emergency: false,
    }
    return (response, ours, nowMs) => {
      // Our own final says that the far end was not to be had, which is what a time-out says: the one who hung up has hung up.
      if (!(ours || response.status < 300 || response.status === 481 || response.status === 408)) return undefined
      const by = fromCaller ? 'caller' : 'callee'
      this.#book.end(call, leg, arrivedMs, false, nowMs)
      this.#o.metrics.calls.ended.inc({ by })
      return cdrPart(call, this.#o.self, 'end', arrivedMs, { leg, status: 200, reason: 'bye', hungUpBy: by })
    }
  }

  /** @returns nothing; `then` runs when the shell says so. Without it the part is not waited for. */
  #journal(part: CdrPart, then?: (went: boolean, nowMs: number) => void): void {
    let ticket = 0
    if (then !== undefined) {
      ticket = ++this.#lastTicket
      this.#tickets.set(ticket, then)
    }
    this.#outputs.push({ kind: 'journal', ticket, part })
  }

  // ── Calls and dialogs ──────────────────────────────────────────────────────────────────────────────────────────

  /** The token of a call that went through us before and came back (§16.3 item 4's spiral); one that is over cannot come back. */
  #spiral(request: SipRequest): CallToken | undefined {
    for (const text of this.#o.routes.recorded(request)) {
      const check = checkToken(text, request.callId, request.fromTag, '', this.#o.tokenKeys)
      if (!check.ok || check.token.stamp === '') continue
      if (!this.#book.hasEnded(callIdOf(request.callId, request.fromTag, check.token.stamp))) return check.token
    }
    return undefined
  }

  /**
   * Where the caller's side is reached later: the proxy before us if it recorded itself, else the Contact where that is plainly where the request
   * came from, else the flow.
   */
  #callerLeg(request: SipRequest, flow: Flow): Leg {
    const { node, incarnation } = this.#o.self
    const via = request.topVia
    const nat = via.host !== flow.remoteAddress && via.host !== `[${flow.remoteAddress}]`
    const leg = legOfFlow(flow, node, incarnation, nat)
    if (flow.transport !== 'udp' || nat) return leg
    const recorded = request.headers.values('Record-Route')[0]
    const named = literalAddress(uriOf(recorded ?? request.headers.values('Contact')[0] ?? ''))
    return named !== undefined && named.transport === 'udp' && named.address === flow.remoteAddress
      ? { ...leg, port: named.port }
      : leg
  }

  #ring(server: ServerId, nowMs: number): void {
    const context = this.#contexts.get(server)
    if (context?.call === undefined || context.settled || context.legs.size > 0) return
    context.earlyWritten = true
    this.#book.ring(context.call, nowMs + this.#o.timerCMs, nowMs)
  }

  /** A final response that this node makes itself; the CDR tells it from the far end's. */
  #final(request: SipRequest, status: number): SipResponse {
    const response = makeResponse(request, status, undefined, serverTag(request))
    this.#ours.add(response)
    return response
  }

  #forget(server: ServerId): void {
    const context = this.#contexts.get(server)
    if (context === undefined) return
    this.#contexts.delete(server)
    for (const client of context.clients) this.#branches.delete(client)
  }
}

function cutGroups(groups: Target[][], max: number): Target[][] {
  const out: Target[][] = []
  let left = max
  for (const group of groups) {
    if (left <= 0) break
    out.push(group.slice(0, left))
    left -= group.length
  }
  return out
}
