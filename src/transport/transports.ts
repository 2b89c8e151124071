import { isIPv6 } from 'node:net'
import { type Clock, systemClock } from '../base/clock.ts'
import { AntipodeError } from '../base/errors.ts'
import { LimitedLog, type Log } from '../base/log.ts'
import type { Metrics } from '../base/metrics.ts'
import { type Flow, isStream } from '../sip/flow.ts'
import type { SipMessage } from '../sip/message.ts'
import { DEFAULT_LIMITS, type ParseFault, parseMessage } from '../sip/parse.ts'
import { endpointText } from './listen.ts'
import { type StreamLimits, TcpTransport } from './tcp.ts'
import { UdpSocket } from './udp.ts'

export interface Listener {
  readonly transport: 'udp' | 'tcp'
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
  maxQueueBytes: 1_048_576,
  udpBufferBytes: 4_194_304,
  maxUdpQueueBytes: 16_777_216,
}

export interface TransportsOptions {
  readonly listeners: readonly Listener[]
  readonly limits?: Partial<TransportLimits>
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
  readonly #tcp: TcpTransport
  #udp: UdpSocket[] = []
  #bound: Listener[] = []
  /** prom-client hashes labels on each `inc`; children that are kept do not. */
  readonly #sentUdp: { inc(): void }
  readonly #sentStream: { inc(): void }

  constructor(o: TransportsOptions) {
    this.#o = o
    this.#limits = { ...DEFAULT_TRANSPORT_LIMITS, ...o.limits }
    this.#log = new LimitedLog(o.log)
    this.#clock = o.clock ?? systemClock
    this.#sentUdp = o.metrics.sip.sent.labels('udp')
    this.#sentStream = o.metrics.sip.sent.labels('tcp')
    this.#tcp = new TcpTransport({
      limits: this.#limits,
      clock: this.#clock,
      isBlocked: (address) => o.isBlocked(address),
      onMessage: (bytes, flow) => this.#receive(bytes, flow),
      onFault: (fault, flow) => o.onFault(fault, flow),
      onClosed: (flow) => o.onClosed?.(flow),
      onRefused: (code, remoteAddress) => this.#refused(code, remoteAddress),
    })
  }

  /** Binds every listener, or none. @throws AntipodeError NET_PORT_IN_USE (naming transport, address and port), NET_ADDRESS_UNAVAILABLE, … */
  async start(): Promise<void> {
    try {
      for (const { transport, address, port } of this.#o.listeners) {
        if (transport === 'tcp') this.#bound.push({ transport, address, port: await this.#tcp.listen(address, port) })
        else {
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
    this.#udp = []
    this.#bound = []
    await Promise.all([...sockets.map((socket) => socket.stop()), this.#tcp.stop()])
  }

  /** What is listened at, with the real ports. */
  get listeners(): readonly Listener[] {
    return this.#bound
  }

  /** Open stream connections. */
  get connections(): number {
    return this.#tcp.connections
  }

  /**
   * Sends, and returns at once. UDP: from the socket that `flow` names as local, else from one of the remote's address family. Streams: on the
   * connection that `connectionId` names, without one on a connection to the remote, opened if need be.
   * @param ref handed to `onSendError`, which is called later, never from within
   */
  send(flow: Flow, bytes: Buffer, ref = 0): void {
    if (this.#o.isBlocked(flow.remoteAddress)) return
    if (isStream(flow.transport)) {
      this.#sentStream.inc()
      this.#tcp.send(bytes, flow, (error) => this.#sendFailed(flow, bytes, error, ref))
      return
    }
    this.#sentUdp.inc()
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
  localFor(transport: 'udp' | 'tcp', remoteAddress: string): { address: string; port: number } {
    const v6 = isIPv6(remoteAddress)
    const found = this.#bound.find((l) => l.transport === transport && isIPv6(l.address) === v6)
    if (found === undefined) throw new AntipodeError('NET_NO_LISTENER', `no ${transport} listener for ${remoteAddress}`)
    return { address: found.address, port: found.port }
  }

  /** To be called when what `isBlocked` says has changed; without it connections notice within a second. */
  refreshBlocked(): void {
    this.#tcp.refreshBlocked()
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

  #refused(code: string, remoteAddress: string): void {
    this.#o.metrics.sip.refused.inc({ code })
    this.#log.warn(this.#clock.nowMs(), code, { code, remoteAddress }, 'connection refused or closed')
  }
}

/** What phones send to keep a NAT's binding open: nothing, line ends, or zeros. */
function isKeepAlive(bytes: Buffer): boolean {
  if (bytes.length > 4) return false
  for (const b of bytes) if (b !== 13 && b !== 10 && b !== 0) return false
  return true
}
