import { createServer, type Server } from 'node:http'
import type { AddressInfo, Socket as NetSocket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type WebSocket as Socket, WebSocket, WebSocketServer } from 'ws'
import { WireReader, WireWriter } from '../src/base/bytes.ts'
import type { Clock } from '../src/base/clock.ts'
import { bad, type Fault, fault, good, invariant, type Result } from '../src/base/errors.ts'
import { incarnationText, type NodeIdentity } from '../src/base/ids.ts'
import type { KeyRing } from '../src/base/keys.ts'
import { endpoint, listenError } from '../src/base/listen.ts'
import { LimitedLog, type Log } from '../src/base/log.ts'
import type { Metrics } from '../src/base/metrics.ts'
import type { Random } from '../src/base/prng.ts'
import { DialPlan, type PeerAddress } from './dial-plan.ts'
import type { ClusterConstants } from './entry.ts'
import { LIMITS } from './frames.ts'
import {
  CHANNELS,
  chooseKey,
  constantsOf,
  decodeHello,
  encodeHello,
  HELLO_MAX_BYTES,
  type Hello,
  helloFault,
  LINK_FEATURES,
  LINK_VERSION,
  LinkKeys,
  MESSAGE_MAX_BYTES,
  type MessageSeal,
  NONCE_BYTES,
  PROOF_BYTES,
  type Role,
} from './hello.ts'

/**
 * The links of one node to its peers: WebSockets with mutual authentication, heartbeats, redial, and bounded queues. PROTOCOL.md "Links".
 *
 *   dialer    dialed ── open: HELLO ──▶ hello ── HELLO ‖ proof: proof ──▶ welcome ── WELCOME ──▶ up ──▶ closed
 *   listener  accepted ────────────────▶ hello ── HELLO: HELLO ‖ proof ──▶ proof ── proof: WELCOME ──▶ up ──▶ closed
 */

export const CHANNEL = { control: 0, state: 1, health: 2, cdr: 3, spare: 4 } as const
const CONTROL = { ping: 1, pong: 2, welcome: 3 } as const

const PATH = '/cluster'
const SUBPROTOCOL = 'antipode.link.1'
const TICK_MS = 100
const PING_MS = 1000
const DEAD_MS = 3000
/** A link that has been this silent makes way for a new one of the same pair. */
const DOUBTFUL_MS = 1500
const HANDSHAKE_MS = 2000
const QUEUE_BYTES = 8 << 20
/** Node looks for connections past their time every 30 s by default: too few attackers would need too little to take all the places. */
const SERVER_LIMITS = { headersTimeout: HANDSHAKE_MS, requestTimeout: HANDSHAKE_MS, connectionsCheckingInterval: 500 }
const BAD_REQUEST = 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n'
const UNPROVED = 64
const CONNECTIONS = 256
const TERMINATE_MS = 500

const CLOSE = { going: 1001, hello: 4001, timeout: 4002, message: 4003, duplicate: 4004, silent: 4005, violation: 4006 } as const

export type { PeerAddress }

export interface PeerInfo {
  readonly region: string
  readonly node: string
  readonly incarnation: number
  /** Siblings: this node dialed. Other regions: this is the node that we chose as our way there. */
  readonly outbound: boolean
  /** Wall clock. */
  readonly sinceMs: number
  /** Of the last heartbeat; -1 before the first. */
  readonly rttMs: number
  readonly queueBytes: number
}

interface LinkEvents {
  /** `payload` is the receiver's to keep, and may be a view into a larger message. */
  message: (node: string, channel: number, payload: Buffer) => void
  /** A link is up. Given again, without a `down` before it, when only `outbound` has changed. */
  up: (peer: PeerInfo) => void
  /** A link is gone, and with it what was under way. A link that is replaced by another one of the same pair is down, then up. */
  down: (peer: PeerInfo) => void
}

export interface ClusterLinkOptions {
  readonly self: NodeIdentity
  readonly cluster: string
  readonly listen: { readonly address: string; readonly port: number }
  readonly peers: readonly PeerAddress[]
  readonly ring: KeyRing
  readonly constants: ClusterConstants
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  readonly isBlocked: (address: string) => boolean
}

type Stage = 'dialed' | 'hello' | 'proof' | 'welcome' | 'up' | 'closed'

interface Connection {
  readonly socket: Socket
  readonly role: Role
  readonly remoteAddress: string
  /** Dialer: whom it dialed. Listener: known once the hello was read. */
  peer: PeerAddress | undefined
  incarnation: number
  stage: Stage
  /** Monotonic. */
  readonly startedMs: number
  heardMs: number
  pingedMs: number
  sinceMs: number
  rttMs: number
  /** Our hello as sent. */
  hello: Buffer
  keys: LinkKeys | undefined
  outgoing: MessageSeal | undefined
  incoming: MessageSeal | undefined
  /** Set when closing has begun: when to stop waiting for the other end. */
  terminateMs: number
  outboundTold: boolean
}

export class ClusterLink {
  readonly #o: ClusterLinkOptions
  readonly #log: LimitedLog
  readonly #listeners: { [E in keyof LinkEvents]: LinkEvents[E][] } = { message: [], up: [], down: [] }
  readonly #plan: DialPlan
  readonly #connections = new Set<Connection>()
  readonly #up = new Map<string, Connection>()
  #server: Server | undefined
  #sockets: WebSocketServer | undefined
  #tick: NodeJS.Timeout | undefined
  #stopped = false

  constructor(o: ClusterLinkOptions) {
    this.#o = o
    this.#log = new LimitedLog(o.log)
    this.#plan = new DialPlan(o.self, o.random)
    this.#plan.setPeers(o.peers)
  }

  on<E extends keyof LinkEvents>(event: E, listener: LinkEvents[E]): void {
    this.#listeners[event].push(listener)
  }

  /**
   * Listens and begins to dial; does not wait for any peer.
   *
   * @throws AntipodeError NET_PORT_IN_USE, NET_ADDRESS_UNAVAILABLE, … naming address and port
   */
  async start(): Promise<void> {
    const { address, port } = this.#o.listen
    const notUpgraded = (why: string, socket: Duplex): void =>
      this.#refused(fault('CRDT_LINK_UPGRADE', why), { remote: plainAddress((socket as NetSocket).remoteAddress) })
    const server = createServer(SERVER_LIMITS, (request, response) => {
      notUpgraded('not an upgrade', request.socket)
      response.writeHead(426, { connection: 'close' }).end()
    })
    server.maxConnections = CONNECTIONS
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      if (error.code !== 'ECONNRESET') notUpgraded(error.message, socket)
      if (socket.writable) socket.end(BAD_REQUEST, () => socket.destroy())
      else socket.destroy()
    })
    server.on('connection', (socket) => {
      if (this.#stopped || this.#o.isBlocked(plainAddress(socket.remoteAddress))) socket.destroy()
    })
    const sockets = new WebSocketServer({
      server,
      path: PATH,
      maxPayload: MESSAGE_MAX_BYTES,
      perMessageDeflate: false,
      handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
    })
    sockets.on('connection', (socket, request) => this.#accept(socket, plainAddress(request.socket.remoteAddress)))
    // ws leaves the answer to who listens for this.
    sockets.on('wsClientError', (error, socket) => {
      notUpgraded(error.message, socket)
      socket.end(BAD_REQUEST, () => socket.destroy())
    })
    server.on('upgrade', (request, socket) => {
      if (!sockets.shouldHandle(request)) notUpgraded('another path', socket)
    })
    await new Promise<void>((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => {
        reject(listenError(`cluster link on ${endpoint(address, port)}`, error))
      }
      // ws passes the errors of the HTTP server on as its own.
      sockets.once('error', failed)
      server.listen(port, address, () => {
        sockets.off('error', failed)
        sockets.on('error', (error) => this.#o.log.error({ err: error }, 'cluster link listener failed'))
        resolve()
      })
    })
    this.#server = server
    this.#sockets = sockets
    this.#tick = setInterval(() => this.#onTick(), TICK_MS)
    this.#onTick()
  }

  /** Closes every link and the listener. No event is given any more. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#tick)
    for (const c of this.#connections) {
      if (c.stage === 'up') c.socket.close(CLOSE.going)
      else c.socket.terminate()
    }
    const server = this.#server
    if (server === undefined) return
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    this.#sockets?.close()
    // The close frames get a moment to leave; then nothing is waited for.
    const timer = setTimeout(() => {
      for (const c of this.#connections) c.socket.terminate()
      server.closeAllConnections()
    }, 200)
    await closed
    clearTimeout(timer)
    for (const c of this.#connections) c.socket.terminate()
  }

  /** Port that is listened on (the configured one, or what the system gave for 0). */
  get port(): number {
    return (this.#server?.address() as AddressInfo | null)?.port ?? this.#o.listen.port
  }

  /**
   * Queues one message. Returns false when there is no link to that node or its queue is full: the message is dropped, and made good by the protocol above.
   *
   * @param channel 1 to 4
   * @param payload at most 1 MiB
   */
  send(node: string, channel: number, payload: Uint8Array): boolean {
    invariant(channel > CHANNEL.control && channel < CHANNELS, `channel ${channel}`)
    invariant(payload.length <= LIMITS.messageBytes, `a message of ${payload.length} bytes`)
    const c = this.#up.get(node)
    if (c === undefined || this.#stopped) return false
    if (c.socket.bufferedAmount + payload.length > QUEUE_BYTES) {
      this.#o.metrics.link.dropped.inc({ channel: String(channel) })
      return false
    }
    this.#transmit(c, channel, payload)
    return true
  }

  /** Drops the link after a violation; it is dialed again later. */
  dropPeer(node: string, code: string): void {
    const c = this.#up.get(node)
    if (c === undefined) return
    this.#plan.violated(node)
    this.#close(c, CLOSE.violation, code)
  }

  /** Links that are up. */
  peers(): PeerInfo[] {
    return [...this.#up.values()].map((c) => this.#info(c))
  }

  /** Replaces the configured peers; links to those no longer listed are closed. */
  setPeers(peers: readonly PeerAddress[]): void {
    this.#plan.setPeers(peers)
    for (const c of [...this.#connections])
      if (c.peer !== undefined && this.#plan.peer(c.peer.node) === undefined) this.#close(c, CLOSE.hello, 'CRDT_HELLO_NODE')
  }

  /** Closes the links to addresses that are blocked now. */
  refreshBlocked(): void {
    for (const c of [...this.#connections]) if (this.#isBlocked(c)) this.#abort(c)
  }

  #isBlocked(c: Connection): boolean {
    return this.#o.isBlocked(c.remoteAddress) || (c.peer !== undefined && this.#o.isBlocked(c.peer.address))
  }

  #info(c: Connection): PeerInfo {
    return {
      region: c.peer!.region,
      node: c.peer!.node,
      incarnation: c.incarnation,
      outbound: this.#isOutbound(c),
      sinceMs: c.sinceMs,
      rttMs: c.rttMs,
      queueBytes: c.socket.bufferedAmount,
    }
  }

  #isOutbound(c: Connection): boolean {
    return c.peer!.region === this.#o.self.region ? c.role === 'dialer' : this.#plan.isTarget(c.peer!)
  }

  #emit<E extends keyof LinkEvents>(event: E, ...args: Parameters<LinkEvents[E]>): void {
    if (this.#stopped) return
    for (const listener of this.#listeners[event]) (listener as (...args: Parameters<LinkEvents[E]>) => void)(...args)
  }

  // Dialing

  #dial(peer: PeerAddress, nowMs: number): void {
    const host = peer.address.includes(':') ? `[${peer.address}]` : peer.address
    const { address } = this.#o.listen
    const socket = new WebSocket(`ws://${host}:${peer.port}${PATH}`, [SUBPROTOCOL], {
      perMessageDeflate: false,
      maxPayload: MESSAGE_MAX_BYTES,
      handshakeTimeout: HANDSHAKE_MS,
      // The other end knows us by the address that we listen on.
      ...(isWildcard(address) ? {} : { localAddress: address }),
    })
    const c = this.#connection(socket, 'dialer', peer.address, 'dialed', peer, nowMs)
    this.#plan.began(peer.node)
    socket.on('open', () => {
      if (c.stage !== 'dialed') return
      c.hello = encodeHello(this.#hello('dialer', peer.node, [this.#o.ring.current, ...otherKeys(this.#o.ring)]))
      socket.send(c.hello)
      c.stage = 'hello'
    })
  }

  #hello(role: Role, to: string, keyIds: readonly string[]): Hello {
    const { self, cluster, constants, random } = this.#o
    return {
      ...{ region: self.region, node: self.node, incarnation: self.incarnation },
      ...{ version: LINK_VERSION, features: LINK_FEATURES, role, cluster, to },
      nonce: random.bytes(NONCE_BYTES),
      constants: constantsOf(constants),
      keyIds,
    }
  }

  // Listening

  #accept(socket: Socket, remoteAddress: string): void {
    const unproved = [...this.#connections].filter((c) => c.role === 'listener' && c.stage !== 'up').length
    if (this.#stopped || unproved >= UNPROVED) {
      socket.on('error', () => socket.terminate())
      socket.terminate()
      return
    }
    this.#connection(socket, 'listener', remoteAddress, 'hello', undefined, this.#o.clock.monotonicMs())
  }

  #connection(
    socket: Socket,
    role: Role,
    remoteAddress: string,
    stage: Stage,
    peer: PeerAddress | undefined,
    nowMs: number,
  ): Connection {
    const c: Connection = {
      ...{ socket, role, remoteAddress, stage, peer, startedMs: nowMs, heardMs: nowMs, pingedMs: nowMs },
      ...{
        incarnation: 0,
        sinceMs: 0,
        rttMs: -1,
        hello: Buffer.alloc(0),
        keys: undefined,
        outgoing: undefined,
        incoming: undefined,
      },
      ...{ terminateMs: Number.POSITIVE_INFINITY, outboundTold: false },
    }
    this.#connections.add(c)
    socket.on('message', (data, isBinary) => {
      if (c.stage !== 'closed') this.#onMessage(c, data as Buffer, isBinary)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // Errors of the network are the redial's matter; those of the WebSocket protocol are the peer's doing.
      if (error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') this.#refused(fault('CRDT_LINK_SIZE', error.message), this.#who(c))
      else if (error.code?.startsWith('WS_ERR_')) this.#refused(fault('CRDT_LINK_FRAMING', error.message), this.#who(c))
      else this.#o.log.debug({ ...this.#who(c), error: error.message }, 'cluster link socket error')
    })
    socket.on('close', (code, reason) => {
      if (code >= CLOSE.hello && code !== CLOSE.duplicate && c.stage !== 'closed')
        this.#log.warn(
          this.#o.clock.nowMs(),
          `closed ${c.peer?.node}`,
          { ...this.#who(c), code, reason: printable(reason) },
          'peer closed the cluster link',
        )
      this.#connections.delete(c)
      this.#gone(c)
    })
    return c
  }

  // Messages

  #onMessage(c: Connection, data: Buffer, isBinary: boolean): void {
    c.heardMs = this.#o.clock.monotonicMs()
    if (!isBinary) {
      this.#refuse(c, CLOSE.message, fault('CRDT_LINK_TEXT', 'a text message'))
      return
    }
    if (c.stage !== 'up' && c.stage !== 'welcome') {
      const wrong = c.role === 'listener' ? this.#handshakeAsListener(c, data) : this.#handshakeAsDialer(c, data)
      if (wrong !== undefined) this.#refuse(c, CLOSE.hello, wrong)
      return
    }
    const opened = c.incoming!.open(data)
    if (!opened.ok) {
      this.#refuse(c, CLOSE.message, opened.fault)
      return
    }
    const { channel, payload } = opened.value
    if (channel === CHANNEL.control) this.#control(c, payload)
    else if (c.stage === 'up') this.#emit('message', c.peer!.node, channel, payload)
    else this.#refuse(c, CLOSE.message, fault('CRDT_LINK_CONTROL', 'a message before WELCOME'))
  }

  #handshakeAsListener(c: Connection, data: Buffer): Fault | undefined {
    if (c.stage === 'proof') {
      if (!c.keys!.proves('dialer', data)) return fault('CRDT_HELLO_PROOF', 'the dialer does not hold the key')
      return this.#settle(c)
    }
    const theirs = this.#readHello(c, data)
    if (!theirs.ok) return theirs.fault
    if (theirs.value.size !== data.length) return fault('CRDT_HELLO_MALFORMED', 'bytes left over', theirs.value.size)
    const keyId = chooseKey(theirs.value.hello.keyIds, this.#o.ring)
    if (keyId === undefined)
      return fault('CRDT_HELLO_KEY', `none of the keys ${theirs.value.hello.keyIds.join(' ')} is known here`)
    c.hello = encodeHello(this.#hello('listener', theirs.value.hello.node, [keyId]))
    c.keys = new LinkKeys(this.#o.ring.keys.get(keyId)!, data, c.hello)
    c.socket.send(Buffer.concat([c.hello, c.keys.proof('listener')]))
    c.stage = 'proof'
    return undefined
  }

  #handshakeAsDialer(c: Connection, data: Buffer): Fault | undefined {
    const theirs = this.#readHello(c, data)
    if (!theirs.ok) return theirs.fault
    const { hello, size } = theirs.value
    if (size + PROOF_BYTES !== data.length) return fault('CRDT_HELLO_MALFORMED', 'no proof after the hello', size)
    const key = this.#o.ring.keys.get(hello.keyIds[0] ?? '')
    if (key === undefined || hello.keyIds.length !== 1)
      return fault('CRDT_HELLO_KEY', `key ${hello.keyIds.join(' ')} is not known here`)
    c.keys = new LinkKeys(key, c.hello, data.subarray(0, size))
    if (!c.keys.proves('listener', data.subarray(size))) return fault('CRDT_HELLO_PROOF', 'the listener does not hold the key')
    c.incoming = c.keys.channel('listener')
    c.outgoing = c.keys.channel('dialer')
    c.socket.send(c.keys.proof('dialer'))
    c.stage = 'welcome'
    return undefined
  }

  /** Reads the other end's hello, checks it against ours and the configuration, and books who it is (still to be proved). */
  #readHello(c: Connection, data: Buffer): Result<{ hello: Hello; size: number }> {
    if (c.stage !== 'hello' || data.length > HELLO_MAX_BYTES)
      return bad(fault('CRDT_HELLO_MALFORMED', 'out of order, or too long'))
    const decoded = decodeHello(data)
    if (!decoded.ok) return decoded
    const { hello } = decoded.value
    const { cluster, constants, self } = this.#o
    const wrong = helloFault(hello, { cluster, constants, node: self.node, role: c.role })
    if (wrong !== undefined) return bad(wrong)
    const peer = this.#plan.peer(hello.node)
    if (peer === undefined || peer.region !== hello.region || (c.peer !== undefined && c.peer.node !== hello.node))
      return bad(fault('CRDT_HELLO_NODE', `${hello.region}/${hello.node} is not ${c.peer?.node ?? 'a configured peer'}`))
    c.peer = peer
    c.incarnation = hello.incarnation
    return good(decoded.value)
  }

  #control(c: Connection, payload: Buffer): void {
    const r = new WireReader(payload)
    const type = r.u8()
    if (type === CONTROL.ping || type === CONTROL.pong) {
      const stamp = r.u64()
      if (!r.failed && r.left === 0 && c.stage === 'up') {
        if (type === CONTROL.ping) this.#transmit(c, CHANNEL.control, new WireWriter(9).u8(CONTROL.pong).u64(stamp).done())
        else c.rttMs = Math.max(0, Math.floor(this.#o.clock.monotonicMs()) - stamp)
        return
      }
    } else if (type === CONTROL.welcome && c.stage === 'welcome' && r.left === 0) {
      const wrong = this.#settle(c)
      if (wrong !== undefined) this.#refuse(c, CLOSE.hello, wrong)
      return
    }
    this.#refuse(c, CLOSE.message, fault('CRDT_LINK_CONTROL', `control message ${type}`))
  }

  /** The other end is proved. One connection of the pair stays: PROTOCOL.md "Who dials"; both ends come to the same choice. */
  #settle(c: Connection): Fault | undefined {
    if (this.#isBlocked(c)) {
      this.#abort(c)
      return undefined
    }
    const { node } = c.peer!
    const other = this.#up.get(node)
    if (other !== undefined) {
      if (c.incarnation < other.incarnation)
        return fault('CRDT_HELLO_INCARNATION', `${incarnationText(c.incarnation)} after ${incarnationText(other.incarnation)}`)
      const doubtful = this.#o.clock.monotonicMs() - other.heardMs > DOUBTFUL_MS
      const lower = this.#o.self.node < node ? 'dialer' : 'listener'
      if (c.incarnation === other.incarnation && !doubtful && c.role !== other.role && c.role !== lower) {
        this.#close(c, CLOSE.duplicate, 'CRDT_LINK_DUPLICATE')
        return undefined
      }
      this.#close(other, CLOSE.duplicate, 'CRDT_LINK_DUPLICATE')
    }
    // Both ends dial at the same time: the lower name's dial goes on once it has got through, any other gives way. So neither end sees the link
    // up, down and up again.
    const dialing = c.role === 'listener' ? this.#dialing(node) : undefined
    if (dialing !== undefined && dialing.stage !== 'dialed' && this.#o.self.node < node) {
      this.#close(c, CLOSE.duplicate, 'CRDT_LINK_DUPLICATE')
      return undefined
    }
    if (c.role === 'listener') {
      c.incoming = c.keys!.channel('dialer')
      c.outgoing = c.keys!.channel('listener')
    }
    c.keys = undefined
    c.stage = 'up'
    c.sinceMs = this.#o.clock.nowMs()
    if (c.role === 'listener') this.#transmit(c, CHANNEL.control, new WireWriter(1).u8(CONTROL.welcome).done())
    this.#plan.up(node)
    this.#up.set(node, c)
    if (dialing !== undefined) this.#close(dialing, CLOSE.duplicate, 'CRDT_LINK_DUPLICATE')
    this.#gauge()
    this.#ping(c)
    c.outboundTold = this.#isOutbound(c)
    this.#o.log.info({ ...this.#who(c), incarnation: incarnationText(c.incarnation), role: c.role }, 'cluster link up')
    this.#emit('up', this.#info(c))
    return undefined
  }

  /** Our own dial to a node that is not up yet. */
  #dialing(node: string): Connection | undefined {
    for (const c of this.#connections)
      if (c.role === 'dialer' && c.peer?.node === node && c.stage !== 'up' && c.stage !== 'closed') return c
    return undefined
  }

  #transmit(c: Connection, channel: number, payload: Uint8Array): void {
    // A failed send ends in 'close'.
    c.socket.send(c.outgoing!.seal(channel, payload), { binary: true, compress: false }, () => undefined)
  }

  #ping(c: Connection): void {
    c.pingedMs = this.#o.clock.monotonicMs()
    this.#transmit(c, CHANNEL.control, new WireWriter(9).u8(CONTROL.ping).u64(Math.floor(c.pingedMs)).done())
  }

  // The end of a connection

  #refuse(c: Connection, code: number, f: Fault): void {
    this.#refused(f, this.#who(c))
    // A stranger is told the code, and of constants the name; never a value.
    this.#close(c, code, f.code === 'CRDT_HELLO_CONSTANT' ? `${f.code} ${f.detail.split(':')[0]}` : f.code)
  }

  #refused(f: Fault, who: Record<string, unknown>): void {
    if (this.#stopped) return
    this.#o.metrics.link.refused.inc({ code: f.code })
    this.#log.warn(this.#o.clock.nowMs(), f.code, { ...who, code: f.code, detail: f.detail }, 'cluster link refused')
  }

  #close(c: Connection, code: number, reason: string): void {
    if (c.terminateMs !== Number.POSITIVE_INFINITY) return
    c.terminateMs = this.#o.clock.monotonicMs() + TERMINATE_MS
    c.socket.close(code, reason.slice(0, 120))
    this.#gone(c)
  }

  /** As a cut would: nothing is said to the other end. */
  #abort(c: Connection): void {
    this.#gone(c)
    c.socket.terminate()
  }

  /** The connection is of no use any more: tells those who used it, and lets the dialer try again. Once. */
  #gone(c: Connection): void {
    if (c.stage === 'closed') return
    const wasUp = c.stage === 'up'
    const info = wasUp ? this.#info(c) : undefined
    c.stage = 'closed'
    const nowMs = this.#o.clock.monotonicMs()
    // Only what we dialed, or had proved, moves the plan: a stranger can say that it is anyone.
    if (c.role === 'dialer') this.#plan.ended(c.peer!.node, wasUp || this.#up.has(c.peer!.node), nowMs)
    else if (info !== undefined) this.#plan.down(info.node, nowMs)
    if (info !== undefined && this.#up.get(info.node) === c) {
      this.#up.delete(info.node)
      this.#gauge()
      if (!this.#stopped) this.#o.log.info(this.#who(c), 'cluster link down')
      this.#emit('down', info)
    }
  }

  // Time

  #onTick(): void {
    const nowMs = this.#o.clock.monotonicMs()
    for (const c of [...this.#connections]) {
      if (nowMs >= c.terminateMs) c.socket.terminate()
      else if (c.stage === 'closed') continue
      else if (c.stage !== 'up') {
        if (nowMs - c.startedMs >= HANDSHAKE_MS) {
          // A dial that nobody answers is not a refusal.
          if (c.stage === 'dialed') this.#abort(c)
          else this.#refuse(c, CLOSE.timeout, fault('CRDT_HELLO_TIMEOUT', `in stage ${c.stage}`))
        }
      } else if (nowMs - c.heardMs >= DEAD_MS) {
        this.#o.log.info(this.#who(c), 'cluster link silent')
        this.#close(c, CLOSE.silent, 'CRDT_LINK_SILENT')
      } else if (nowMs - c.pingedMs >= PING_MS - TICK_MS / 2) this.#ping(c)
    }
    if (this.#stopped) return
    for (const peer of this.#plan.due(nowMs, (node) => this.#up.has(node))) {
      if (this.#o.isBlocked(peer.address)) this.#plan.blocked(peer, nowMs)
      else this.#dial(peer, nowMs)
    }
    for (const c of this.#up.values()) {
      if (c.outboundTold === this.#isOutbound(c)) continue
      c.outboundTold = !c.outboundTold
      this.#emit('up', this.#info(c))
    }
  }

  #gauge(): void {
    const regions = [...this.#up.values()].map((c) => c.peer!.region === this.#o.self.region)
    this.#o.metrics.link.peers.set({ scope: 'region' }, regions.filter(Boolean).length)
    this.#o.metrics.link.peers.set({ scope: 'wan' }, regions.filter((own) => !own).length)
  }

  #who(c: Connection): Record<string, unknown> {
    return { peer: c.peer?.node ?? '', remote: c.remoteAddress }
  }
}

const otherKeys = (ring: KeyRing): string[] => [...ring.keys.keys()].filter((id) => id !== ring.current)
const isWildcard = (address: string): boolean => ['', '0.0.0.0', '::'].includes(address)
/** An IPv4 address as such where the socket is an IPv6 one. */
const plainAddress = (address: string | undefined): string => (address ?? '').replace(/^::ffff:(?=\d+\.)/, '')
/** A close reason is the other end's text. */
const printable = (reason: Buffer): string => reason.toString('latin1').replace(/[^\x20-\x7e]/g, '?')
