import type { Socket } from 'node:net'
import type { Clock } from '../base/clock.ts'
import { AntipodeError } from '../base/errors.ts'
import { type Flow, isStream, type TransportName } from '../sip/flow.ts'
import type { Framed } from '../sip/framer.ts'
import type { ParseFault, ParseLimits } from '../sip/parse.ts'
import { ConnectionTable, type TableEntry, type TableLimits } from './flows.ts'

export interface StreamLimits extends TableLimits {
  /** A connection of ours that is not up by then has failed. */
  readonly connectMs: number
  /** One that was opened to us and is not through TLS and the WebSocket upgrade by then is closed. */
  readonly handshakeMs: number
  /** A WebSocket is asked for a sign of life this often; who has not answered by the next time is gone. */
  readonly pingMs: number
  /** More than this waiting for one peer: it is too slow, and disconnected. */
  readonly maxQueueBytes: number
  readonly parse: ParseLimits
}

export interface StreamsOptions {
  readonly limits: StreamLimits
  readonly clock: Clock
  /** Drill: a connection with such an address stands still in both directions, as if the packets were lost. */
  isBlocked(address: string): boolean
  onMessage(bytes: Buffer, flow: Flow): void
  /** The stream cannot be read on; after this call what was sent in it still goes out, then the connection is closed. */
  onFault(fault: ParseFault, flow: Flow): void
  onClosed(flow: Flow): void
  /** A connection that was not taken in, or was closed by us: a code for the counter, and for the log what is known besides. */
  onRefused(code: string, remoteAddress: string, detail?: string): void
}

/** What carries the bytes of a connection: a TCP or TLS socket, or a WebSocket. */
export interface Carrier {
  /** Bytes that wait for the peer to take them. */
  readonly queuedBytes: number
  readonly writable: boolean
  write(bytes: Buffer, done: (error?: Error | null) => void): void
  pause(): void
  resume(): void
  /** Closes once what was written has gone out. */
  end(): void
  destroy(error?: Error): void
  /** Asks the peer for a sign of life, where the protocol has a frame for that; `Streams.pong` is the answer. */
  ping?(): void
}

export type Decode = (chunk: Buffer) => readonly Framed[]
type Handshake = 'NET_TLS_HANDSHAKE' | 'NET_WS_HANDSHAKE'

export interface Connection extends TableEntry {
  carrier: Carrier
  flow: Flow
  /** We opened it. */
  readonly ours: boolean
  /** Messages may pass: connected, and through its handshakes. */
  ready: boolean
  /** What has failed if it closes before it is ready. */
  handshake: Handshake | undefined
  /** Why it failed, as far as is known. */
  error: Error | undefined
  readonly decode: Decode
  /** Sent before it was ready. */
  waiting: { readonly bytes: Buffer; readonly failed: (error: Error) => void }[]
  waitingBytes: number
  /** Read, but not looked at, because the address is blocked. */
  held: Buffer[]
  /** Set while nothing has been read at all, because the address is blocked. */
  begin: (() => void) | undefined
  paused: boolean
  /** The stream has a fault, or we have refused it: nothing more is read. */
  closing: boolean
  pingedMs: number
  /** Asked and not yet answered. */
  pinging: boolean
}

/** A connection of ours, being opened. */
export interface Opening {
  readonly carrier: Carrier
  readonly decode: Decode
  /** Its events lead to `ready`, `read`, `closed`. */
  attach(c: Connection): void
}

const PONG = Buffer.from('\r\n')
const SWEEP_MS = 1000

/**
 * What all stream transports share: one table of connections with its bounds, sending on the right one, queues, keep-alives, idle limits, and
 * the drill's standstill. Each connection has a number that is never used again. How a connection comes to be, and how bytes become messages, is
 * tcp.ts, tls.ts and ws.ts.
 */
export class Streams {
  readonly limits: StreamLimits
  readonly #o: StreamsOptions
  readonly #table: ConnectionTable<Connection>
  readonly #openers = new Map<TransportName, (flow: Flow) => Opening>()
  #lastId = 0
  #sweep: NodeJS.Timeout | undefined

  constructor(o: StreamsOptions) {
    this.#o = o
    this.limits = o.limits
    this.#table = new ConnectionTable(o.limits)
  }

  get connections(): number {
    return this.#table.size
  }

  /** How a connection of that transport is opened; without it there are only those that others open. */
  opens(transport: TransportName, open: (flow: Flow) => Opening): void {
    this.#openers.set(transport, open)
  }

  start(): void {
    this.#sweep ??= setInterval(() => this.#tidy(), SWEEP_MS).unref()
  }

  /** Closes every connection. Listeners are closed before. */
  stop(): void {
    clearInterval(this.#sweep)
    this.#sweep = undefined
    for (const c of [...this.#table.values()]) c.carrier.destroy()
  }

  /**
   * Takes in a socket that was opened to us, or refuses it.
   * @param handshake what has to succeed before messages pass; undefined: nothing
   * @param begin starts reading; called later if the address is blocked
   */
  accept(
    socket: Socket,
    local: { readonly transport: TransportName; readonly address: string; readonly port: number },
    carrier: Carrier,
    decode: Decode,
    handshake: Handshake | undefined,
    begin: (c: Connection) => void,
  ): void {
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
    const flow = { transport: local.transport, localAddress: local.address, localPort: local.port, remoteAddress, remotePort }
    const c = this.#add(flow, carrier, decode, false)
    c.handshake = handshake
    c.ready = handshake === undefined
    // 'close' follows, and the sends that were lost hear of it by their own callbacks.
    socket.on('error', (error) => {
      c.error ??= error
    })
    socket.once('close', () => this.closed(c))
    if (!this.#o.isBlocked(remoteAddress)) begin(c)
    else {
      // Nobody reads it yet, so there is nothing to pause.
      c.paused = true
      c.begin = () => begin(c)
    }
  }

  /** The connection is up and through its handshakes: what waited is sent. @param carrier where the messages pass from now on */
  ready(c: Connection, carrier: Carrier = c.carrier, localPort: number = c.flow.localPort): void {
    c.carrier = carrier
    if (localPort !== c.flow.localPort) c.flow = { ...c.flow, localPort }
    c.ready = true
    c.activeMs = this.#o.clock.monotonicMs()
    c.pingedMs = c.activeMs
    const { waiting } = c
    c.waiting = []
    c.waitingBytes = 0
    for (const { bytes, failed } of waiting) this.#write(c, bytes, failed)
  }

  closed(c: Connection): void {
    if (!this.#table.delete(c)) return
    if (!c.ready && !c.ours && !c.closing && c.handshake !== undefined)
      this.#o.onRefused(c.handshake, c.remoteAddress, c.error?.message)
    const error = c.error ?? new AntipodeError('NET_CONNECT_FAILED', `${c.remoteAddress}:${c.remotePort} closed the connection`)
    for (const { failed } of c.waiting.splice(0)) failed(error)
    this.#o.onClosed(c.flow)
  }

  /** Counts it under `code` and closes it. */
  refuse(c: Connection, code: string, detail?: string): void {
    if (c.closing) return
    c.closing = true
    this.#o.onRefused(code, c.remoteAddress, detail)
    c.carrier.destroy()
  }

  /**
   * Sends on the connection that `flow` names, else on one to its remote, opened if there is none.
   * @param failed called later when the bytes could not be handed to the kernel
   */
  send(bytes: Buffer, flow: Flow, failed: (error: Error) => void): void {
    const c = this.#connectionFor(flow)
    if (c instanceof AntipodeError) {
      process.nextTick(failed, c)
      return
    }
    const queued = c.carrier.queuedBytes + c.waitingBytes
    if (queued + bytes.length > this.limits.maxQueueBytes) {
      const error = new AntipodeError('NET_SLOW_PEER', `${queued} bytes are waiting for one peer`)
      process.nextTick(failed, error)
      c.error ??= error
      this.refuse(c, error.code)
      return
    }
    if (c.ready) this.#write(c, bytes, failed)
    else {
      // Not even into the socket's own buffer: nothing may go out before the peer's certificate is known to be good.
      c.waiting.push({ bytes, failed })
      c.waitingBytes += bytes.length
    }
  }

  read(c: Connection, chunk: Buffer): void {
    if (c.closing) return
    if (this.#o.isBlocked(c.remoteAddress)) {
      c.held.push(chunk)
      this.#pause(c)
      return
    }
    for (const item of c.decode(chunk)) {
      if (c.closing) return
      c.activeMs = this.#o.clock.monotonicMs()
      if (item.kind === 'fault') {
        this.#o.onFault(item.fault, c.flow)
        // What follows in the stream has no beginning that could be found.
        c.closing = true
        // Who does not read our last words is cut off like one that never said anything.
        c.proven = false
        c.carrier.resume()
        c.carrier.end()
        return
      }
      c.proven = true
      if (item.kind === 'message') this.#o.onMessage(item.bytes, c.flow)
      // RFC 5626 §4.4.1: a double CRLF is answered by a single one.
      else if (item.kind === 'ping') this.send(PONG, c.flow, () => {})
    }
  }

  /** A sign of life that is not SIP: it keeps a connection that has brought a message, and no other. */
  pong(c: Connection): void {
    c.pinging = false
    if (c.proven) c.activeMs = this.#o.clock.monotonicMs()
  }

  /** Lets connections go on that stood still for an address which is no longer blocked. */
  refreshBlocked(): void {
    for (const c of [...this.#table.values()]) {
      if (!c.paused || this.#o.isBlocked(c.remoteAddress)) continue
      const { held, begin } = c
      c.paused = false
      c.held = []
      c.begin = undefined
      if (begin === undefined) c.carrier.resume()
      else begin()
      for (const chunk of held) this.read(c, chunk)
    }
  }

  #connectionFor(flow: Flow): Connection | AntipodeError {
    const known =
      flow.connectionId === undefined
        ? this.#table.byRemote(flow.transport, flow.remoteAddress, flow.remotePort)
        : this.#table.byId(flow.connectionId)
    // Whom a stranger's TLS connection leads to nobody has verified: it serves who knows its number.
    const usable = flow.connectionId !== undefined || flow.transport === 'tcp' || known?.ours === true
    if (known !== undefined && usable && known.carrier.writable && !known.closing) return known
    // Its number is never used again: the flow is gone for good.
    if (flow.connectionId !== undefined)
      return new AntipodeError('NET_CONNECTION_GONE', `connection ${flow.connectionId} is closed`)
    const open = isStream(flow.transport) ? this.#openers.get(flow.transport) : undefined
    // RFC 7118 §5: a server cannot open a connection to a browser.
    if (open === undefined)
      return new AntipodeError('NET_CONNECTION_GONE', `no ${flow.transport} connection can be opened from here`)
    const admission = this.#table.admits(flow.remoteAddress)
    if (admission !== 'yes') return new AntipodeError(admission, `no more connections to ${flow.remoteAddress}`)
    let opening: Opening
    try {
      opening = open(flow)
    } catch (cause) {
      return new AntipodeError('NET_CONNECT_FAILED', (cause as Error).message, cause)
    }
    const c = this.#add(flow, opening.carrier, opening.decode, true)
    opening.attach(c)
    return c
  }

  #add(flow: Flow, carrier: Carrier, decode: Decode, ours: boolean): Connection {
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
      carrier,
      flow: { ...flow, connectionId: id },
      ours,
      ready: false,
      handshake: undefined,
      error: undefined,
      decode,
      waiting: [],
      waitingBytes: 0,
      held: [],
      begin: undefined,
      paused: false,
      closing: false,
      pingedMs: nowMs,
      pinging: false,
    }
    this.#table.add(c)
    return c
  }

  #write(c: Connection, bytes: Buffer, failed: (error: Error) => void): void {
    c.carrier.write(bytes, (error) => {
      if (error) failed(error)
    })
  }

  #pause(c: Connection): void {
    c.paused = true
    c.carrier.pause()
  }

  #tidy(): void {
    const nowMs = this.#o.clock.monotonicMs()
    this.refreshBlocked()
    for (const c of this.#table.overdue(nowMs)) {
      if (c.closing) c.carrier.destroy()
      else this.refuse(c, c.proven ? 'NET_IDLE' : 'NET_NO_MESSAGE')
    }
    for (const c of [...this.#table.values()]) {
      if (c.ready) this.#ping(c, nowMs)
      else if (c.ours && nowMs - c.openedMs >= this.limits.connectMs) {
        c.error = new AntipodeError('NET_CONNECT_TIMEOUT', `${c.remoteAddress}:${c.remotePort} does not answer`)
        c.carrier.destroy(c.error)
      } else if (!c.ours && nowMs - c.openedMs >= this.limits.handshakeMs) this.refuse(c, 'NET_HANDSHAKE_TIMEOUT')
    }
  }

  #ping(c: Connection, nowMs: number): void {
    if (c.carrier.ping === undefined || nowMs - c.pingedMs < this.limits.pingMs || this.#o.isBlocked(c.remoteAddress)) return
    if (c.pinging) {
      this.refuse(c, 'NET_NO_PONG')
      return
    }
    c.pinging = true
    c.pingedMs = nowMs
    c.carrier.ping()
  }
}
