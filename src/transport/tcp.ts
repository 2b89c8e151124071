import { once } from 'node:events'
import { createServer, connect as netConnect, type Server, type Socket } from 'node:net'
import type { Clock } from '../base/clock.ts'
import { AntipodeError } from '../base/errors.ts'
import type { Flow } from '../sip/flow.ts'
import { StreamFramer } from '../sip/framer.ts'
import type { ParseFault, ParseLimits } from '../sip/parse.ts'
import { ConnectionTable, type TableEntry, type TableLimits } from './flows.ts'
import { endpointText, listenError } from './listen.ts'

export interface StreamLimits extends TableLimits {
  /** A connection of ours that is not up by then has failed. */
  readonly connectMs: number
  /** More than this waiting for one peer: it is too slow, and disconnected. */
  readonly maxQueueBytes: number
  readonly parse: ParseLimits
}

export interface TcpOptions {
  readonly limits: StreamLimits
  readonly clock: Clock
  /** Drill: a connection with such an address stands still in both directions, as if the packets were lost. */
  isBlocked(address: string): boolean
  onMessage(bytes: Buffer, flow: Flow): void
  /** The stream cannot be read on; after this call what was sent in it still goes out, then the connection is closed. */
  onFault(fault: ParseFault, flow: Flow): void
  onClosed(flow: Flow): void
  /** A connection that was not taken in, or was closed by us: a code for the counter. */
  onRefused(code: string, remoteAddress: string): void
}

interface Connection extends TableEntry {
  readonly socket: Socket
  readonly framer: StreamFramer
  flow: Flow
  connected: boolean
  /** Read, but not looked at, because the address is blocked. */
  held: Buffer | undefined
}

const PONG = Buffer.from('\r\n')
const SWEEP_MS = 1000
/** Dead peers (a NAT that lost its table, a host that was switched off) are noticed by the kernel. */
const KEEP_ALIVE_MS = 60_000

/** TCP listeners and connections. Each connection has a number that is never used again; messages to one remote share one connection. */
export class TcpTransport {
  readonly #o: TcpOptions
  readonly #table: ConnectionTable<Connection>
  readonly #servers: Server[] = []
  #lastId = 0
  #sweep: NodeJS.Timeout | undefined

  constructor(o: TcpOptions) {
    this.#o = o
    this.#table = new ConnectionTable(o.limits)
  }

  get connections(): number {
    return this.#table.size
  }

  /** Listens at one more address. @returns the port. @throws AntipodeError NET_PORT_IN_USE and the others of `listenError` */
  async listen(address: string, port: number): Promise<number> {
    const server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS, pauseOnConnect: false })
    try {
      const listening = once(server, 'listening')
      server.listen({ host: address, port, exclusive: true, ipv6Only: true })
      await listening
    } catch (cause) {
      throw listenError(endpointText('tcp', address, port), cause)
    }
    const own = (server.address() as { port: number }).port
    server.on('connection', (socket) => this.#accept(socket, address, own))
    // Out of file descriptors, most likely: the listener lives on.
    server.on('error', () => this.#o.onRefused('NET_ACCEPT_FAILED', address))
    this.#servers.push(server)
    this.#sweep ??= setInterval(() => this.#tidy(), SWEEP_MS).unref()
    return own
  }

  /**
   * Sends on the connection that `flow` names, else on one to its remote, opened if there is none.
   * @param failed called later when the bytes could not be handed to the kernel
   */
  send(bytes: Buffer, flow: Flow, failed: (error: Error) => void): void {
    const connection = this.#connectionFor(flow)
    if (connection instanceof AntipodeError) {
      process.nextTick(failed, connection)
      return
    }
    const { socket } = connection
    if (socket.writableLength + bytes.length > this.#o.limits.maxQueueBytes) {
      const error = new AntipodeError('NET_SLOW_PEER', `${socket.writableLength} bytes are waiting for one peer`)
      this.#o.onRefused(error.code, connection.remoteAddress)
      process.nextTick(failed, error)
      socket.destroy()
      return
    }
    socket.write(bytes, (error) => {
      if (error) failed(error)
    })
  }

  /** Lets connections go on that stood still for an address which is no longer blocked. */
  refreshBlocked(): void {
    for (const c of [...this.#table.values()]) {
      if (!c.socket.isPaused() || this.#o.isBlocked(c.remoteAddress)) continue
      const { held } = c
      c.held = undefined
      c.socket.resume()
      if (held !== undefined) this.#read(c, held)
    }
  }

  async stop(): Promise<void> {
    clearInterval(this.#sweep)
    const closed = this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
    for (const c of [...this.#table.values()]) c.socket.destroy()
    await Promise.all(closed)
  }

  #connectionFor(flow: Flow): Connection | AntipodeError {
    const known =
      flow.connectionId === undefined
        ? this.#table.byRemote(flow.transport, flow.remoteAddress, flow.remotePort)
        : this.#table.byId(flow.connectionId)
    if (known?.socket.writable) return known
    // Its number is never used again: the flow is gone for good.
    if (flow.connectionId !== undefined)
      return new AntipodeError('NET_CONNECTION_GONE', `connection ${flow.connectionId} is closed`)
    const admission = this.#table.admits(flow.remoteAddress)
    if (admission !== 'yes') return new AntipodeError(admission, `no more connections to ${flow.remoteAddress}`)
    let socket: Socket
    try {
      socket = netConnect({
        host: flow.remoteAddress,
        port: flow.remotePort,
        localAddress: flow.localAddress,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_MS,
      })
    } catch (cause) {
      return new AntipodeError('NET_CONNECT_FAILED', (cause as Error).message, cause)
    }
    const connection = this.#add(socket, flow, true)
    socket.once('connect', () => {
      connection.connected = true
      connection.flow = { ...connection.flow, localPort: socket.localPort ?? flow.localPort }
    })
    return connection
  }

  #accept(socket: Socket, localAddress: string, localPort: number): void {
    const { remoteAddress, remotePort } = socket
    // Gone again already.
    if (remoteAddress === undefined || remotePort === undefined) {
      socket.destroy()
      return
    }
    const admission = this.#table.admits(remoteAddress)
    if (admission !== 'yes') {
      this.#o.onRefused(admission, remoteAddress)
      socket.resetAndDestroy()
      return
    }
    const c = this.#add(socket, { transport: 'tcp', localAddress, localPort, remoteAddress, remotePort }, false)
    if (this.#o.isBlocked(remoteAddress)) c.socket.pause()
  }

  #add(socket: Socket, flow: Flow, ours: boolean): Connection {
    const nowMs = this.#o.clock.monotonicMs()
    const id = ++this.#lastId
    const c: Connection = {
      id,
      transport: flow.transport,
      remoteAddress: flow.remoteAddress,
      remotePort: flow.remotePort,
      openedMs: nowMs,
      activeMs: nowMs,
      proven: ours,
      socket,
      framer: new StreamFramer(this.#o.limits.parse),
      flow: { ...flow, connectionId: id },
      connected: !ours,
      held: undefined,
    }
    this.#table.add(c)
    socket.on('data', (chunk: Buffer) => this.#read(c, chunk))
    // 'close' follows, and the sends that were lost hear of it by their own callbacks.
    socket.on('error', () => {})
    socket.once('close', () => {
      this.#table.delete(c)
      this.#o.onClosed(c.flow)
    })
    return c
  }

  #read(c: Connection, chunk: Buffer): void {
    if (this.#o.isBlocked(c.remoteAddress)) {
      c.held = c.held === undefined ? chunk : Buffer.concat([c.held, chunk])
      c.socket.pause()
      return
    }
    for (const item of c.framer.push(chunk)) {
      if (c.socket.destroyed) return
      if (item.kind === 'fault') {
        this.#o.onFault(item.fault, c.flow)
        // What follows in the stream has no beginning that could be found.
        c.socket.removeAllListeners('data')
        // Who does not read our last words is cut off like one that never said anything.
        c.proven = false
        c.activeMs = this.#o.clock.monotonicMs()
        c.socket.resume()
        c.socket.end(() => c.socket.destroy())
        return
      }
      c.activeMs = this.#o.clock.monotonicMs()
      c.proven = true
      if (item.kind === 'message') this.#o.onMessage(item.bytes, c.flow)
      // RFC 5626 §4.4.1: a double CRLF is answered by a single one.
      else if (item.kind === 'ping') this.send(PONG, c.flow, () => {})
    }
  }

  #tidy(): void {
    const nowMs = this.#o.clock.monotonicMs()
    this.refreshBlocked()
    for (const c of this.#table.overdue(nowMs)) {
      this.#o.onRefused(c.proven ? 'NET_IDLE' : 'NET_NO_MESSAGE', c.remoteAddress)
      c.socket.destroy()
    }
    for (const c of this.#table.values()) {
      if (c.connected || nowMs - c.openedMs < this.#o.limits.connectMs) continue
      c.socket.destroy(new AntipodeError('NET_CONNECT_TIMEOUT', `${c.remoteAddress}:${c.remotePort} does not answer`))
    }
  }
}
