import { BlockList } from 'node:net'
import { ENTRY_LIMITS } from '../../crdt/codec.ts'
import type { NodeIdentity } from '../base/ids.ts'
import type { KeyRing } from '../base/keys.ts'
import type { Metrics } from '../base/metrics.ts'
import type { Random } from '../base/prng.ts'
import type { CdrPart } from '../cdr/call-record.ts'
import { type BindingStore, Registrar, type RegistrarOptions, serverTag } from '../registrar/registrar.ts'
import { parseAuthParams } from '../sip/auth-params.ts'
import { makeChallenge, type NonceReplay, verifyAuthorization } from '../sip/digest.ts'
import { type Flow, isStream } from '../sip/flow.ts'
import { checkMessage, type SipMessage, type SipRequest, type SipResponse } from '../sip/message.ts'
import { makeResponse } from '../sip/respond.ts'
import { canonicalAor, parseUri, type SipUri } from '../sip/uri.ts'
import { type ServerId, TransactionLayer, type TransactionOutput } from '../transaction/layer.ts'
import type { DialogStore } from './call-book.ts'
import { checkHop, HOP_HEADER } from './hop.ts'
import { legOfFlow } from './leg.ts'
import { StatefulProxy } from './proxy.ts'
import type { OwnRoutes } from './record-route.ts'
import { literalAddress, type Neighbourhood, type Target, targetsOf, uriOf, waysTo } from './target-set.ts'

/** Where requests for a domain or a number prefix go that are not for our own users: PBXs and carriers. */
export interface Destination {
  readonly name: string
  readonly match: { readonly domain?: string | undefined; readonly prefix?: string | undefined }
  readonly uri: string
}

export interface SipCoreOptions {
  readonly self: NodeIdentity
  readonly domains: ReadonlySet<string>
  readonly realm: string
  /** CIDR blocks whose requests need no digest. */
  readonly trusted: readonly string[]
  readonly timers: {
    readonly t1Ms: number
    readonly t2Ms: number
    readonly t4Ms: number
    readonly timerDMs: number
    readonly timerCMs: number
  }
  readonly silenceMs: number
  readonly dialogLeaseMs: number
  readonly maxForks: number
  readonly maxTransactions: number
  readonly nonceLifetimeMs: number
  readonly digestAlgorithms: readonly ('SHA-256' | 'MD5')[]
  readonly registrar: Omit<RegistrarOptions, 'domains' | 'store'>
  readonly destinations: readonly Destination[]
  readonly tokenKeys: KeyRing
  readonly nonceKeys: KeyRing
  readonly nonceReplay: NonceReplay
  readonly bindings: BindingStore
  readonly dialogs: DialogStore
  readonly hood: Neighbourhood
  readonly routes: OwnRoutes
  /** HA1 of a subscriber of that domain (as the request claims it, ours or not), or undefined for nobody. */
  readonly ha1: (username: string, algorithm: string, domain: string) => string | undefined
  readonly isSubscriber: (username: string, domain: string) => boolean
  /** New calls are refused while the journal is known bad and the policy says so. */
  readonly admitCalls: () => boolean
  readonly random: Random
  readonly metrics: Metrics
}

export type SipOutput =
  /** `ref` comes back with `handleSendError`. */
  | { readonly kind: 'send'; readonly bytes: Buffer; readonly flow: Flow; readonly ref: number }
  | { readonly kind: 'journal'; readonly ticket: number; readonly part: CdrPart }

/** RFC 3261 §20.5 */
const ALLOW = 'INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, PRACK, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER, MESSAGE, PUBLISH'

/** What this node itself does, as against what it passes on. */
const OWN_METHODS = 'OPTIONS, REGISTER'
/** Option tags that a request to this node itself may require. */
const OWN_OPTIONS: ReadonlySet<string> = new Set(['path', 'outbound'])

/**
 * The transaction user of a node: takes parsed messages in, decides who may do what (ACL, digest, token, hop), and hands each request to the
 * registrar or the proxy. A core with four doors: `handleMessage`, `handleJournaled`/`handleSendError`, `nextTimeoutMs`/`handleTimeout`,
 * `takeOutputs`.
 */
export class SipCore {
  readonly #o: SipCoreOptions
  readonly #layer: TransactionLayer
  readonly #registrar: Registrar
  readonly #proxy: StatefulProxy
  readonly #trusted = new BlockList()
  readonly #trustedCache = new Map<string, boolean>()
  #outputs: SipOutput[] = []

  constructor(options: SipCoreOptions) {
    this.#o = options
    for (const block of options.trusted) {
      const [address, bits] = block.split('/') as [string, string | undefined]
      const family = address.includes(':') ? 'ipv6' : 'ipv4'
      this.#trusted.addSubnet(address, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family)
    }
    const { timers } = options
    this.#layer = new TransactionLayer({
      timers,
      sentBy: (flow) => `${flow.localAddress.includes(':') ? `[${flow.localAddress}]` : flow.localAddress}:${flow.localPort}`,
      random: options.random,
      maxTransactions: options.maxTransactions,
    })
    this.#registrar = new Registrar({ ...options.registrar, domains: options.domains, store: options.bindings })
    this.#proxy = new StatefulProxy({
      self: options.self,
      layer: this.#layer,
      hood: options.hood,
      routes: options.routes,
      dialogs: options.dialogs,
      tokenKeys: options.tokenKeys,
      metrics: options.metrics,
      silenceMs: options.silenceMs,
      timerCMs: timers.timerCMs,
      dialogLeaseMs: options.dialogLeaseMs,
      maxForks: options.maxForks,
    })
  }

  /** A message that parsed. What is wrong with a request is answered without a transaction; a response that is wrong is dropped. */
  handleMessage(message: SipMessage, flow: Flow, nowMs: number): void {
    const wrong = checkMessage(message)
    if (wrong !== undefined) {
      this.#o.metrics.sip.refused.inc({ code: wrong.code })
      if (message.kind === 'request') this.refuseStateless(message, flow, wrong.status, wrong.detail, nowMs)
      return
    }
    if (message.kind === 'request') this.#layer.handleRequest(message, flow, nowMs)
    else this.#layer.handleResponse(message, flow, nowMs)
    this.#pump(nowMs)
  }

  /** For a request that is too broken for a transaction: an answer if it has enough of a Via to find its way back, else nothing. */
  refuseStateless(request: SipRequest, flow: Flow, status: number, reason: string, nowMs: number): void {
    if (status === 0) return
    this.#layer.respondStateless(request, status, flow, reason)
    this.#pump(nowMs)
  }

  /** @param ref as the output `send` gave it */
  handleSendError(ref: number, nowMs: number): void {
    if (ref !== 0) this.#layer.handleSendError(ref, nowMs)
    this.#pump(nowMs)
  }

  /** @param went the part is durable, or the policy lets the call go on without. */
  handleJournaled(ticket: number, went: boolean, nowMs: number): void {
    this.#proxy.handleJournaled(ticket, went, nowMs)
    this.#pump(nowMs)
  }

  nextTimeoutMs(): number | undefined {
    const a = this.#layer.nextTimeoutMs()
    const b = this.#proxy.nextTimeoutMs()
    return a === undefined ? b : b === undefined ? a : Math.min(a, b)
  }

  handleTimeout(nowMs: number): void {
    this.#layer.handleTimeout(nowMs)
    this.#pump(nowMs)
    this.#proxy.handleTimeout(nowMs)
    this.#pump(nowMs)
  }

  takeOutputs(): SipOutput[] {
    const outputs = this.#outputs
    if (outputs.length > 0) this.#outputs = []
    return outputs
  }

  counts(): { transactions: ReturnType<TransactionLayer['counts']>; contexts: number; ownedDialogs: number } {
    return { transactions: this.#layer.counts(), contexts: this.#proxy.contexts, ownedDialogs: this.#proxy.ownedDialogs }
  }

  /** Runs what the layer has to say through the proxy until neither has anything left. */
  #pump(nowMs: number): void {
    for (let outputs = this.#layer.takeOutputs(); outputs.length > 0; outputs = this.#layer.takeOutputs()) {
      for (const output of outputs) this.#handle(output, nowMs)
    }
    for (const output of this.#proxy.takeOutputs()) this.#outputs.push(output)
  }

  #handle(output: TransactionOutput, nowMs: number): void {
    switch (output.kind) {
      case 'send':
        this.#outputs.push({ kind: 'send', bytes: output.bytes, flow: output.flow, ref: output.id })
        return
      case 'request':
        this.#request(output.id, output.request, output.flow, output.invite, nowMs)
        return
      case 'response':
        this.#proxy.handleResponse(output.id, output.response, nowMs)
        return
      case 'timeout':
      case 'transportError':
        this.#proxy.handleClientFailure(output.id, output.kind, nowMs)
        return
      default:
        // strayResponse, ackTimeout, overload, terminated: counted by the layer's owner, nothing to route.
        this.#o.metrics.sip.layerEvents.inc({ kind: output.kind })
    }
  }

  // ── Requests ───────────────────────────────────────────────────────────────────────────────────────────────────

  #request(id: ServerId, request: SipRequest, flow: Flow, invite: ServerId | undefined, nowMs: number): void {
    const { method } = request
    if (method === 'CANCEL') {
      const known = invite !== undefined && this.#proxy.cancel(invite, nowMs)
      this.#respond(id, makeResponse(request, known ? 200 : 481, undefined, serverTag(request)), nowMs)
      return
    }
    // RFC 3261 §16.3 item 3
    const maxForwards = request.headers.get('Max-Forwards')
    if (
      maxForwards !== undefined &&
      Number(maxForwards) <= 0 &&
      method !== 'ACK' &&
      !(method === 'OPTIONS' && this.#isForUs(request))
    ) {
      this.#respond(id, makeResponse(request, 483, undefined, serverTag(request)), nowMs)
      return
    }
    // §16.3 item 5: we support no extension that a proxy would have to know of.
    const proxyRequire = request.headers.values('Proxy-Require')
    if (proxyRequire.length > 0 && method !== 'ACK') {
      const response = makeResponse(request, 420, undefined, serverTag(request))
      response.headers.set('Unsupported', proxyRequire.join(', '))
      this.#respond(id, response, nowMs)
      return
    }
    const tokens = this.#o.routes.pop(request, this.#o.domains)

    const hopText = request.headers.get(HOP_HEADER)
    if (hopText !== undefined) {
      this.#hop(id, request, flow, hopText, nowMs)
      return
    }
    if (request.toTag !== '' && method !== 'REGISTER') {
      this.#inDialog(id, request, flow, tokens, nowMs)
      return
    }
    // An ACK without a To-tag acknowledges nothing of ours.
    if (method === 'ACK') return
    // §16.3 item 4, RFC 5393: nodes always send each other a hop header, so a contact or destination points at us, and each round would fork again.
    if (this.#o.routes.wrote(request.topVia)) {
      this.#respond(id, makeResponse(request, 482, undefined, serverTag(request)), nowMs)
      return
    }
    if (isTooLong(request)) {
      this.#respond(id, makeResponse(request, 400, 'Call-ID, tag or address too long', serverTag(request)), nowMs)
      return
    }
    if (method === 'REGISTER') this.#register(id, request, flow, nowMs)
    else this.#initial(id, request, flow, nowMs)
  }

  #hop(id: ServerId, request: SipRequest, flow: Flow, text: string, nowMs: number): void {
    const check = checkHop(text, request, this.#o.tokenKeys, nowMs)
    if (!check.ok) {
      this.#o.metrics.calls.tokensRefused.inc({ code: check.code })
      if (request.method !== 'ACK') this.#respond(id, makeResponse(request, 403, undefined, serverTag(request)), nowMs)
      return
    }
    if (request.method === 'ACK') this.#proxy.forwardAck(request, check.hop.leg, true, nowMs)
    else this.#proxy.forwardHop(id, request, flow, check.hop.leg, nowMs)
  }

  #inDialog(id: ServerId, request: SipRequest, flow: Flow, tokens: readonly string[], nowMs: number): void {
    const authorized = this.#proxy.authorizeDialog(request, tokens)
    if (authorized === undefined) {
      if (request.method !== 'ACK') this.#respond(id, makeResponse(request, 481, undefined, serverTag(request)), nowMs)
      return
    }
    this.#dropOwnCredentials(request)
    const { token, direction } = authorized
    if (request.method === 'ACK')
      this.#proxy.forwardAck(request, direction === 'from-caller' ? token.calleeLeg : token.callerLeg, false, nowMs)
    else this.#proxy.forwardInDialog(id, request, flow, token, direction, nowMs)
  }

  /** §8.2.2.3: who is the request's end says what it does not support of Require. */
  #requiresTooMuch(id: ServerId, request: SipRequest, nowMs: number): boolean {
    const unknown = request.headers.values('Require').filter((tag) => !OWN_OPTIONS.has(tag.toLowerCase()))
    if (unknown.length === 0) return false
    const response = makeResponse(request, 420, undefined, serverTag(request))
    response.headers.set('Unsupported', unknown.join(', '))
    this.#respond(id, response, nowMs)
    return true
  }

  #register(id: ServerId, request: SipRequest, flow: Flow, nowMs: number): void {
    // §10.3 step 2
    if (this.#requiresTooMuch(id, request, nowMs)) return
    const trusted = this.#isTrusted(flow.remoteAddress)
    let account: string | undefined
    if (!trusted) {
      account = this.#authenticate(id, request, 'Authorization', nowMs)
      if (account === undefined) return
    }
    const answer = this.#registrar.handleRegister(request, flow, account, this.#behindNat(request, flow, trusted), nowMs)
    this.#o.metrics.registrar.registrations.inc({ outcome: answer.outcome })
    this.#respond(id, answer.response, nowMs)
  }

  #initial(id: ServerId, request: SipRequest, flow: Flow, nowMs: number): void {
    const forUs = this.#isForUs(request)
    if (request.method === 'OPTIONS' && forUs) {
      if (this.#requiresTooMuch(id, request, nowMs)) return
      const response = makeResponse(request, 200, undefined, serverTag(request))
      response.headers.set('Allow', ALLOW)
      response.headers.set('Accept', 'application/sdp')
      this.#respond(id, response, nowMs)
      return
    }
    let account: string | undefined
    if (!this.#isTrusted(flow.remoteAddress)) {
      account = this.#authenticate(id, request, 'Proxy-Authorization', nowMs)
      if (account === undefined) return
    }
    // §8.2.1, §21.5.2: a domain is no user, and serves these alone. A call to it is refused below, as a call.
    if (forUs && request.method !== 'INVITE') {
      const response = makeResponse(request, METHODS.has(request.method) ? 405 : 501, undefined, serverTag(request))
      response.headers.set('Allow', OWN_METHODS)
      this.#respond(id, response, nowMs)
      return
    }
    this.#dropOwnCredentials(request)
    const billing = account ?? this.#sourceName(flow)
    const refuse = (status: number, reason: string): void =>
      this.#proxy.refuseInitial(
        id,
        request,
        flow,
        makeResponse(request, status, undefined, serverTag(request)),
        billing,
        reason,
        nowMs,
      )

    if (request.method === 'INVITE' && !this.#o.admitCalls()) {
      const response = makeResponse(request, 503, undefined, serverTag(request))
      response.headers.set('Retry-After', String(1 + (this.#o.random.u32() % 10)))
      this.#respond(id, response, nowMs)
      return
    }
    const uri = parseUri(request.uri)
    if (!uri.ok) {
      refuse(416, 'bad-uri')
      return
    }
    // A preloaded route to somewhere else (§16.6 item 6): followed for those who may relay through us at all, which are trusted sources.
    const route = request.headers.values('Route')[0]
    if (route !== undefined) {
      const target = account === undefined ? this.#literalTarget(undefined, uriOf(route)) : undefined
      if (target === undefined) refuse(403, 'relay-denied')
      else this.#proxy.forwardInitial(id, request, flow, [[target]], billing, nowMs)
      return
    }
    const found = this.#locate(request, uri.value, nowMs)
    if (typeof found === 'number') refuse(found, found === 404 ? 'unknown' : found === 403 ? 'relay-denied' : 'unreachable')
    else this.#proxy.forwardInitial(id, request, flow, found, billing, nowMs)
  }

  /** The target set (§16.5): our users by their bindings, else a destination by domain or prefix; or the status to refuse with. */
  #locate(request: SipRequest, uri: SipUri, nowMs: number): Target[][] | number {
    const destination = this.#o.destinations.find(
      ({ match }) =>
        (match.domain === undefined || match.domain === uri.host) &&
        (match.prefix === undefined || (uri.user ?? '').startsWith(match.prefix)),
    )
    if (!this.#isOurHost(uri)) {
      if (destination?.match.domain === undefined) return 403
      const target = this.#literalTarget(undefined, destination.uri)
      return target === undefined ? 502 : [[target]]
    }
    // A phone may be asked for at a node's address instead of its domain: the user is the same in the first of our domains.
    const host = this.#o.domains.has(uri.host) ? uri.host : this.#o.domains.values().next().value!
    const aor = canonicalAor(`sip:${uri.user ?? ''}@${host}`)
    if (uri.user === undefined || !aor.ok) return 404
    const bindings = this.#o.bindings.lookup(aor.value, nowMs)
    if (bindings.length > 0) {
      const groups = targetsOf(bindings, this.#o.hood)
      return groups.length > 0 ? groups : 480
    }
    if (destination !== undefined) {
      const target = this.#literalTarget(rehosted(request.uri, destination.uri), destination.uri)
      if (target !== undefined) return [[target]]
    }
    // Known but not registered is another thing than unknown (§16.5, RFC 3261 §21.4.18).
    return this.#o.isSubscriber(uri.user, host) || this.#o.bindings.keys(aor.value).length > 0 ? 480 : 404
  }

  #literalTarget(requestUri: string | undefined, uri: string): Target | undefined {
    const address = literalAddress(uri)
    if (address === undefined) return undefined
    const flow: Flow = {
      transport: address.transport,
      localAddress: '',
      localPort: 0,
      remoteAddress: address.address,
      remotePort: address.port,
    }
    const leg = legOfFlow(flow, this.#o.self.node, this.#o.self.incarnation, false)
    return { uri: requestUri, leg, ways: waysTo(leg, this.#o.hood), path: [] }
  }

  // ── Who may ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The authenticated user; or undefined, and then the challenge or refusal has been sent. */
  #authenticate(
    id: ServerId,
    request: SipRequest,
    header: 'Authorization' | 'Proxy-Authorization',
    nowMs: number,
  ): string | undefined {
    const { realm } = this.#o
    // A REGISTER is for its To, any other request is of its From; a subscriber of one of our domains is nobody in another.
    const claimed = parseUri((request.method === 'REGISTER' ? request.to : request.from).uri)
    const domain = claimed.ok ? claimed.value.host : ''
    let stale = false
    for (const line of request.headers.lines(header)) {
      const verdict = verifyAuthorization(line, {
        method: request.method,
        uri: request.uri,
        realm,
        ring: this.#o.nonceKeys,
        nowMs,
        lifetimeMs: this.#o.nonceLifetimeMs,
        ha1: (username, algorithm) => this.#o.ha1(username, algorithm, domain),
        replay: this.#o.nonceReplay,
      })
      if (verdict.ok) return verdict.username
      this.#o.metrics.sip.authFailures.inc({ why: verdict.why })
      if (verdict.why === 'stale') stale = true
    }
    const own = header === 'Authorization'
    const response = makeResponse(request, own ? 401 : 407, undefined, serverTag(request))
    for (const algorithm of this.#o.digestAlgorithms) {
      const challenge = makeChallenge({ realm, ring: this.#o.nonceKeys, nowMs, random: this.#o.random, algorithm, stale })
      response.headers.append(own ? 'WWW-Authenticate' : 'Proxy-Authenticate', challenge)
    }
    this.#respond(id, response, nowMs)
    return undefined
  }

  /** The next hop must not see what was meant for us; an ACK repeats the INVITE's. Credentials for proxies further on go on (RFC 3261 §22.3). */
  #dropOwnCredentials(request: SipRequest): void {
    const lines = request.headers.lines('Proxy-Authorization')
    if (lines.length === 0) return
    request.headers.remove('Proxy-Authorization')
    for (const line of lines) {
      const realm = Buffer.from(parseAuthParams(line)?.get('realm') ?? '', 'latin1').toString('utf8')
      if (realm !== this.#o.realm) request.headers.append('Proxy-Authorization', line)
    }
  }

  #isTrusted(address: string): boolean {
    let trusted = this.#trustedCache.get(address)
    if (trusted === undefined) {
      trusted = this.#trusted.check(address, address.includes(':') ? 'ipv6' : 'ipv4')
      if (this.#trustedCache.size >= 10_000) this.#trustedCache.clear()
      this.#trustedCache.set(address, trusted)
    }
    return trusted
  }

  /** The request is for this node itself: no user, and our address or domain. */
  #isForUs(request: SipRequest): boolean {
    const uri = parseUri(request.uri)
    return uri.ok && uri.value.user === undefined && this.#isOurHost(uri.value)
  }

  #isOurHost(uri: SipUri): boolean {
    return this.#o.domains.has(uri.host) || this.#o.routes.has(uri)
  }

  /**
   * Streams are always reached on their flow. On UDP the Via tells of a NAT; a Contact, or the Path that stands for all of them, at another address
   * than the source tells of one too: else a subscriber could aim his calls at any host, a carrier that trusts us above all. A trusted source may
   * register others.
   */
  #behindNat(request: SipRequest, flow: Flow, trusted: boolean): boolean {
    if (isStream(flow.transport)) return false
    const via = request.topVia
    const viaHost = via.host.startsWith('[') ? via.host.slice(1, -1) : via.host
    if (viaHost !== flow.remoteAddress || (via.port ?? 5060) !== flow.remotePort) return true
    if (trusted) return false
    const hops = [...request.headers.values('Contact'), ...request.headers.values('Path').slice(0, 1)]
    return hops.some((hop) => {
      const named = literalAddress(uriOf(hop))
      return named !== undefined && named.address !== flow.remoteAddress
    })
  }

  #sourceName(flow: Flow): string {
    const named = this.#o.destinations.find((d) => {
      const known = literalAddress(d.uri)
      // A stream comes from any port; a datagram from another port is somebody else on that host.
      return known?.address === flow.remoteAddress && (isStream(flow.transport) || known.port === flow.remotePort)
    })
    return named?.name ?? `ip:${flow.remoteAddress}`
  }

  #respond(id: ServerId, response: SipResponse, nowMs: number): void {
    this.#o.metrics.sip.responses.inc({
      method: methodLabel(response.cseq.method),
      class: `${Math.floor(response.status / 100)}xx`,
    })
    this.#layer.respond(id, response, nowMs)
  }
}

const METHODS: ReadonlySet<string> = new Set(ALLOW.split(', '))
/** A label from a fixed set: what a stranger sends must not make a time series. */
export const methodLabel = (method: string): string => (METHODS.has(method) ? method : 'other')

/** What replicated entries and CDRs hold of a request is bounded; a request that goes past it is refused before anything depends on it. */
const isTooLong = (r: SipRequest): boolean =>
  r.callId.length > ENTRY_LIMITS.callId ||
  r.fromTag.length > ENTRY_LIMITS.tag ||
  r.uri.length > ENTRY_LIMITS.aor ||
  r.from.uri.length > ENTRY_LIMITS.aor ||
  r.to.uri.length > ENTRY_LIMITS.aor

/** The dialled user at the destination's host. */
function rehosted(requestUri: string, destinationUri: string): string | undefined {
  const from = parseUri(requestUri)
  const to = parseUri(destinationUri)
  if (!from.ok || !to.ok) return undefined
  const user = from.value.user === undefined ? '' : `${from.value.user}@`
  return `sip:${user}${to.value.host}${to.value.port === undefined ? '' : `:${to.value.port}`}`
}
