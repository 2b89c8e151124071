import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { createServer, type Server, type Socket } from 'node:net'
import type { AntipodeError } from '../src/base/errors.ts'
import { endpointText, listenError } from '../src/base/listen.ts'
import { LimitedLog, type Log } from '../src/base/log.ts'
import type { Metrics } from '../src/base/metrics.ts'
import { answer } from './answer.ts'
import { plainAddress } from './clients.ts'
import { encodeAnswer, MAX_QUERY_BYTES, readQuery, udpLimit } from './dns-message.ts'
import type { ZoneView } from './steer.ts'
import type { Zone } from './zone.ts'

export interface DnsServerOptions {
  /** Port 0 takes any free port, the same for UDP and TCP. */
  readonly listen: { readonly address: string; readonly port: number }
  readonly zone: Zone
  /** Asked for each query; `() => health.view()`. */
  readonly view: () => ZoneView
  readonly log: Log
  readonly metrics: Metrics
  /** Drill: what comes from there is dropped without a word. */
  readonly isBlocked?: (address: string) => boolean
  readonly limits?: Partial<DnsLimits>
}

export interface DnsLimits {
  readonly tcpConnections: number
  readonly tcpConnectionsPerAddress: number
  /** A connection that sent no whole query for so long is closed. */
  readonly tcpIdleMs: number
  /** A client that asks and does not read is closed. */
  readonly tcpUnreadBytes: number
}

const DEFAULT_LIMITS: DnsLimits = {
  tcpConnections: 256,
  tcpConnectionsPerAddress: 32,
  tcpIdleMs: 10_000,
  tcpUnreadBytes: 262_144,
}

/** RFC 6891: the largest a TCP answer can be. */
const MAX_TCP_ANSWER_BYTES = 65_535

/** The authoritative name server of one node: UDP and TCP on one port. It has no state of its own; every answer comes from zone and view. */
export class DnsServer {
  readonly #options: DnsServerOptions
  readonly #limits: DnsLimits
  readonly #log: LimitedLog
  readonly #connections = new Map<Socket, string>()
  #udp: UdpSocket | undefined
  #tcp: Server | undefined

  constructor(options: DnsServerOptions) {
    this.#options = options
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.#log = new LimitedLog(options.log)
  }

  /** @throws AntipodeError NET_PORT_IN_USE, NET_ADDRESS_UNAVAILABLE, … naming address and port. Nothing is left open then. */
  async start(): Promise<void> {
    try {
      const tcp = await this.#listenTcp()
      await this.#bindUdp(tcp)
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  /** The port that is served; 0 before `start`. */
  get port(): number {
    const bound = this.#tcp?.address()
    return typeof bound === 'object' && bound !== null ? bound.port : 0
  }

  async stop(): Promise<void> {
    const udp = this.#udp
    const tcp = this.#tcp
    this.#udp = undefined
    this.#tcp = undefined
    for (const socket of this.#connections.keys()) socket.destroy()
    await Promise.all([
      udp && new Promise<void>((resolve) => udp.close(() => resolve())),
      tcp?.listening && new Promise<void>((resolve) => tcp.close(() => resolve())),
    ])
  }

  async #listenTcp(): Promise<number> {
    const server = createServer((socket) => this.#accept(socket))
    server.maxConnections = this.#limits.tcpConnections
    this.#tcp = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(this.#listenError(error, 'TCP')))
      server.listen({ host: this.#options.listen.address, port: this.#options.listen.port, exclusive: true }, resolve)
    })
    server.on('error', (error) => this.#warn('tcp', { err: error }, 'DNS listener failed'))
    return this.port
  }

  async #bindUdp(port: number): Promise<void> {
    const socket = createSocket({ type: this.#options.listen.address.includes(':') ? 'udp6' : 'udp4' })
    await new Promise<void>((resolve, reject) => {
      socket.once('error', (error) => {
        socket.close()
        reject(this.#listenError(error, 'UDP'))
      })
      socket.bind({ address: this.#options.listen.address, port, exclusive: true }, resolve)
    })
    socket.removeAllListeners('error')
    socket.on('error', (error) => this.#warn('udp', { err: error }, 'DNS socket failed'))
    socket.on('message', (bytes, from) => {
      const reply = this.#reply(bytes, from.address, 'udp')
      if (reply === undefined) return
      socket.send(reply, from.port, from.address, (error) => {
        if (error !== null) this.#warn('send', { err: error }, 'DNS answer could not be sent')
      })
    })
    this.#udp = socket
  }

  #accept(socket: Socket): void {
    const from = socket.remoteAddress ?? ''
    const held = [...this.#connections.values()].filter((address) => address === from).length
    if (this.#blocked(from) || held >= this.#limits.tcpConnectionsPerAddress) {
      if (held >= this.#limits.tcpConnectionsPerAddress) this.#refused('DNS_TCP_CONNECTIONS', from)
      socket.destroy()
      return
    }
    this.#connections.set(socket, from)
    socket.setNoDelay(true)
    let pending: Buffer = Buffer.alloc(0)
    // Not the socket's own timeout: a byte now and then must not keep a connection.
    const idle = setTimeout(() => socket.destroy(), this.#limits.tcpIdleMs)
    idle.unref()
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      clearTimeout(idle)
      this.#connections.delete(socket)
    })
    socket.on('data', (chunk) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
      // RFC 7766: several queries may come in a row; they are answered in order.
      while (pending.length >= 2) {
        const length = pending.readUInt16BE(0)
        if (length > MAX_QUERY_BYTES) {
          this.#refused('DNS_LONG', from)
          socket.destroy()
          return
        }
        if (pending.length < 2 + length) break
        idle.refresh()
        const reply = this.#reply(pending.subarray(2, 2 + length), from, 'tcp')
        pending = pending.subarray(2 + length)
        if (reply === undefined || socket.writableLength > this.#limits.tcpUnreadBytes) {
          socket.destroy()
          return
        }
        const prefix = Buffer.alloc(2)
        prefix.writeUInt16BE(reply.length)
        socket.write(Buffer.concat([prefix, reply]))
      }
    })
  }

  #reply(bytes: Uint8Array, from: string, transport: 'udp' | 'tcp'): Uint8Array | undefined {
    if (this.#blocked(from)) return undefined
    const query = readQuery(bytes)
    if (!query.ok) {
      this.#refused(query.fault.code, from, query.fault.detail)
      return query.fault.reply
    }
    this.#options.metrics.geo.dnsQueries.inc({ type: query.value.type })
    const reply = answer(query.value, from, this.#options.zone, this.#options.view())
    if (reply.rcode === 'REFUSED') this.#refused('DNS_NOT_OUR_ZONE', from)
    return encodeAnswer(query.value, reply, transport === 'udp' ? udpLimit(query.value) : MAX_TCP_ANSWER_BYTES)
  }

  #blocked(address: string): boolean {
    return this.#options.isBlocked?.(plainAddress(address)) ?? false
  }

  #refused(code: string, from: string, detail = ''): void {
    this.#options.metrics.geo.dnsRefused.inc({ code })
    this.#warn(code, { code, from, detail }, 'DNS packet refused')
  }

  #warn(key: string, fields: Record<string, unknown>, message: string): void {
    this.#log.warn(performance.now(), key, fields, message)
  }

  #listenError(error: Error, transport: string): AntipodeError {
    const { address, port } = this.#options.listen
    return listenError(`DNS on ${endpointText(transport, address, port)}`, error)
  }
}
