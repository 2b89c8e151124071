import { isIPv6, type Server, type Socket } from 'node:net'
import { type Clock, systemClock } from '../base/clock.ts'
import { AntipodeError } from '../base/errors.ts'
import { endpointText } from '../base/listen.ts'
import { LimitedLog, type Log } from '../base/log.ts'
import type { Metrics } from '../base/metrics.ts'
import { type Flow, isStream, type TransportName } from '../sip/flow.ts'
import type { SipMessage } from '../sip/message.ts'
import { DEFAULT_LIMITS, type ParseFault, parseMessage } from '../sip/parse.ts'
import { Certificates, type TlsSettings } from './certificates.ts'
import { listenAt } from './stream-socket.ts'
import { type StreamLimits, Streams } from './streams.ts'
import { TcpTransport } from './tcp.ts'
import { TlsTransport } from './tls.ts'
import { UdpSocket } from './udp.ts'
import { type WebSocketSettings, WebSocketTransport } from './ws.ts'

export interface Listener {
  readonly transport: TransportName
  /** A literal address of this host. */
  readonly address: string
  /** 0: any free one; see `localFor`. */
  readonly port: number
}

export interface TransportLimits extends StreamLimits {
  /** Kernel buffers of a UDP socket, each direction. */
  readonly udpBufferBytes: number
  readonly maxUdpQueueBytes: number
}

export const DEFAULT_TRANSPORT_LIMITS: TransportLimits = {
  parse: DEFAULT_LIMITS,
  maxConnections: 20_000,
  maxConnectionsPerSource: 1000,
  // Above registrar.maxExpiresS of 7200 s: a phone that only refreshes keeps its connection.
  idleMs: 7_500_000,
  firstMessageMs: 30_000,
  connectMs: 4000,
  handshakeMs: 5000,
  pingMs: 30_000,
  maxQueueBytes: 1_048_576,
  udpBufferBytes: 4_194_304,
  maxUdpQueueBytes: 16_777_216,
}

export interface TransportsOptions {
  readonly listeners: readonly Listener[]
  readonly limits?: Partial<TransportLimits>
  /** Without it there is no TLS and no secure WebSocket, neither in nor out. */
  readonly tls?: TlsSettings | undefined
  readonly webSocket?: WebSocketSettings
  readonly log: Log
  readonly metrics: Metrics
  readonly clock?: Clock
  /** A message that parsed; `checkMessage` and counting are the receiver's. */
  onMessage(message: SipMessage, flow: Flow): void
  /** Input that did not: `status` 0 is to be dropped, else `partial` may be answered. Counting is the receiver's. */
  onFault(fault: ParseFault, flow: Flow): void
  /** @param ref as given to `send` */
  onSendError(flow: Flow, bytes: Buffer, error: Error, ref: number): void
  /** A stream connection is gone, and its number with it. */
  onClosed?(flow: Flow): void
  /** Drill: whatever comes from or goes to such an address is dropped in silence. */
  isBlocked(address: string): boolean
}

/** All SIP sockets of a node. Bytes in, parsed messages out. */
export class Transports {
  readonly #o: TransportsOptions
  readonly #limits: TransportLimits
  readonly #log: LimitedLog
  readonly #clock: Clock
  readonly #streams: Streams
  readonly #tcp: TcpTransport
  #certificates: Certificates | undefined
  #tls: TlsTransport | undefined
  #ws: WebSocketTransport | undefined
  #servers: Server[] = []
  #udp: UdpSocket[] = []
  #bound: Listener[] = []
  /** prom-client hashes labels on each `inc`; children that are kept do not. */
  readonly #sent: Readonly<Record<TransportName, { inc(): void }>>

  constructor(o: TransportsOptions) {
    this.#o = o
    this.#limits = { ...DEFAULT_TRANSPORT_LIMITS, ...o.limits }
    this.#log = new LimitedLog(o.log)
    this.#clock = o.clock ?? systemClock
    const sent = (transport: TransportName): { inc(): void } => o.metrics.sip.sent.labels(transport)
    this.#sent = { udp: sent('udp'), tcp: sent('tcp'), tls: sent('tls'), ws: sent('ws'), wss: sent('wss') }
    this.#streams = new Streams({
      limits: this.#limits,
      clock: this.#clock,
      isBlocked: (address) => o.isBlocked(address),
      onMessage: (bytes, flow) => this.#receive(bytes, flow),
      onFault: (fault, flow) => o.onFault(fault, flow),
      onClosed: (flow) => o.onClosed?.(flow),
      onRefused: (code, remoteAddress, detail) => this.#refused(code, remoteAddress, detail),
    })
    this.#tcp = new TcpTransport(this.#streams)
  }

  /**
   * Reads the certificates, and binds every listener, or none.
   * @throws AntipodeError NET_TLS_FILES, NET_PORT_IN_USE (naming transport, address and port), NET_ADDRESS_UNAVAILABLE, …
   */
  async start(): Promise<void> {
    const { tls, webSocket } = this.#o
    this.#certificates = tls && new Certificates(tls)
    this.#tls = this.#certificates && new TlsTransport(this.#streams, this.#certificates)
    this.#ws = new WebSocketTransport(this.#streams, webSocket ?? { origins: [] }, this.#certificates)
    this.#streams.start()
    try {
      for (const { transport, address, port } of this.#o.listeners) {
        if (transport !== 'udp') {
          const accept = this.#acceptor(transport)
          const listening = await listenAt({
            transport,
            address,
            port,
            onSocket: (socket, own) => accept(socket, address, own),
            onFailed: () => this.#refused('NET_ACCEPT_FAILED', address),
          })
          this.#servers.push(listening.server)
          this.#bound.push({ transport, address, port: listening.port })
        } else {
          const socket = this.#udpSocket(address, port)
          await socket.start()
          this.#udp.push(socket)
          this.#bound.push({ transport, address, port: socket.port })
        }
      }
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  async stop(): Promise<void> {
    const sockets = this.#udp
    const servers = this.#servers
    this.#udp = []
    this.#servers = []
    this.#bound = []
    const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
    this.#streams.stop()
    await Promise.all([...sockets.map((socket) => socket.stop()), ...closed])
  }

  /**
   * Reads certificates and keys again, for the connections to come; those that are up stay. What cannot be read or used stays as it was, and is logged.
   */
  reloadCertificates(): void {
    if (this.#certificates === undefined) return
    const faults = this.#certificates.reload()
    for (const fault of faults)
      this.#o.log.error({ code: fault.code, err: fault }, 'a certificate could not be reloaded; the old one stays')
    this.#tls?.reload()
    this.#ws?.reload()
    this.#o.log.info({ failed: faults.length }, 'certificates are reloaded')
  }

  /** What is listened at, with the real ports. */
  get listeners(): readonly Listener[] {
    return this.#bound
  }

  /** Open stream connections. */
  get connections(): number {
    return this.#streams.connections
  }

  /**
   * Sends, and returns at once. UDP: from the socket that `flow` names as local, else from one of the remote's address family. Streams: on the
   * connection that `connectionId` names, without one on a connection to the remote, opened if need be.
   * @param ref handed to `onSendError`, which is called later, never from within
   */
  send(flow: Flow, bytes: Buffer, ref = 0): void {
    if (this.#o.isBlocked(flow.remoteAddress)) return
    this.#sent[flow.transport].inc()
    if (isStream(flow.transport)) {
      this.#streams.send(bytes, flow, (error) => this.#sendFailed(flow, bytes, error, ref))
      return
    }
    const socket = this.#udpFor(flow)
    if (socket === undefined) {
      const error = new AntipodeError('NET_NO_LISTENER', `no UDP socket for ${flow.remoteAddress}`)
      process.nextTick(() => this.#sendFailed(flow, bytes, error, ref))
      return
    }
    socket.send(bytes, flow.remotePort, flow.remoteAddress, (error) => {
      if (error) this.#sendFailed(flow, bytes, error, ref)
    })
  }

  /** Our end for a new flow to that address: the first listener of the transport and the address family. @throws AntipodeError NET_NO_LISTENER */
  localFor(transport: TransportName, remoteAddress: string): { address: string; port: number } {
    const v6 = isIPv6(remoteAddress)
    const found = this.#bound.find((l) => l.transport === transport && isIPv6(l.address) === v6)
    if (found === undefined) throw new AntipodeError('NET_NO_LISTENER', `no ${transport} listener for ${remoteAddress}`)
    return { address: found.address, port: found.port }
  }

  /** To be called when what `isBlocked` says has changed; without it connections notice within a second. */
  refreshBlocked(): void {
    this.#streams.refreshBlocked()
  }

  #acceptor(transport: Exclude<TransportName, 'udp'>): (socket: Socket, address: string, port: number) => void {
    if (transport === 'tcp') return (socket, address, port) => this.#tcp.accept(socket, address, port)
    if (this.#certificates === undefined && transport !== 'ws')
      throw new AntipodeError('NET_TLS_FILES', `a ${transport} listener without a certificate`)
    if (transport === 'tls') return (socket, address, port) => this.#tls!.accept(socket, address, port)
    return (socket, address, port) => this.#ws!.accept(transport, socket, address, port)
  }

  #udpSocket(address: string, port: number): UdpSocket {
    const socket: UdpSocket = new UdpSocket({
      address,
      port,
      bufferBytes: this.#limits.udpBufferBytes,
      maxQueueBytes: this.#limits.maxUdpQueueBytes,
      onDatagram: (bytes, remoteAddress, remotePort) => {
        if (this.#o.isBlocked(remoteAddress) || isKeepAlive(bytes)) return
        this.#receive(bytes, { transport: 'udp', localAddress: address, localPort: socket.port, remoteAddress, remotePort })
      },
      onError: (error) =>
        this.#log.warn(
          this.#clock.nowMs(),
          `udp ${address}`,
          { socket: endpointText('udp', address, port), err: error },
          'UDP socket error',
        ),
    })
    return socket
  }

  #udpFor(flow: Flow): UdpSocket | undefined {
    for (const s of this.#udp) if (s.address === flow.localAddress && s.port === flow.localPort) return s
    const v6 = isIPv6(flow.remoteAddress)
    return this.#udp.find((s) => s.address === flow.localAddress) ?? this.#udp.find((s) => isIPv6(s.address) === v6)
  }

  #receive(bytes: Buffer, flow: Flow): void {
    const parsed = parseMessage(bytes, this.#limits.parse)
    if (!parsed.ok) {
      this.#o.onFault(parsed.fault, flow)
      return
    }
    this.#o.onMessage(parsed.value, flow)
  }

  #sendFailed(flow: Flow, bytes: Buffer, error: Error, ref: number): void {
    this.#o.metrics.sip.sendErrors.inc({ transport: flow.transport })
    this.#log.warn(
      this.#clock.nowMs(),
      `send ${flow.transport}`,
      { remoteAddress: flow.remoteAddress, err: error },
      'could not send',
    )
    this.#o.onSendError(flow, bytes, error, ref)
  }

  #refused(code: string, remoteAddress: string, detail?: string): void {
    this.#o.metrics.sip.refused.inc({ code })
    this.#log.warn(this.#clock.nowMs(), code, { code, remoteAddress, detail }, 'connection refused or closed')
  }
}

/** What phones send to keep a NAT's binding open: nothing, line ends, or zeros. */
function isKeepAlive(bytes: Buffer): boolean {
  if (bytes.length > 4) return false
  for (const b of bytes) if (b !== 13 && b !== 10 && b !== 0) return false
  return true
}
