import { isUtf8 } from 'node:buffer'
import { createServer, type IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import type { Framed } from '../sip/framer.ts'
import type { Certificates } from './certificates.ts'
import { socketCarrier } from './stream-socket.ts'
import type { Carrier, Connection, Streams } from './streams.ts'
import { TlsHandshakes } from './tls.ts'

export interface WebSocketSettings {
  /** Pages from these origins may connect, and clients that are no browsers and name none; empty: all. */
  readonly origins: readonly string[]
}

const SUBPROTOCOL = 'sip'
const MAX_UPGRADE_BYTES = 8192
/** RFC 6455 §7.4.1: going away from a protocol error. */
const PROTOCOL_ERROR = 1002

/**
 * SIP over WebSocket (RFC 7118), plain and over TLS: one SIP message in each WebSocket message. Clients open the connections, we never do; so all
 * that is for a client goes out on the connection that it opened, whatever its Via and Contact say (they say `….invalid`, mostly).
 */
export class WebSocketTransport {
  readonly #streams: Streams
  readonly #origins: ReadonlySet<string>
  /** Neither of the two listens: sockets come to them when they are counted, and through TLS. */
  readonly #http = createServer({ maxHeaderSize: MAX_UPGRADE_BYTES })
  readonly #sockets: WebSocketServer
  readonly #upgrading = new WeakMap<Duplex, Connection>()
  readonly #handshakes: TlsHandshakes | undefined

  constructor(streams: Streams, settings: WebSocketSettings, certificates?: Certificates) {
    this.#streams = streams
    this.#origins = new Set(settings.origins.map((origin) => origin.toLowerCase()))
    this.#sockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      // Compression would let a peer make much of little, and SIP messages are small.
      perMessageDeflate: false,
      maxPayload: streams.limits.parse.maxMessageBytes,
      handleProtocols: () => SUBPROTOCOL,
    })
    this.#http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head))
    this.#http.on('request', (_request, response) => {
      response.writeHead(426, { Connection: 'close, Upgrade', Upgrade: 'websocket', 'Content-Length': 0 }).end()
    })
    // `Streams.closed` counts it.
    this.#http.on('clientError', (error, socket) => {
      const c = this.#upgrading.get(socket)
      if (c !== undefined) c.error ??= error
      socket.destroy()
    })
    this.#handshakes =
      certificates &&
      new TlsHandshakes(streams, certificates, (c, socket) => {
        c.carrier = socketCarrier(socket)
        this.#expectUpgrade(c, socket)
      })
  }

  accept(transport: 'ws' | 'wss', socket: Socket, address: string, port: number): void {
    const handshakes = transport === 'wss' ? this.#handshakes : undefined
    const first = handshakes === undefined ? 'NET_WS_HANDSHAKE' : 'NET_TLS_HANDSHAKE'
    this.#streams.accept(socket, { transport, address, port }, socketCarrier(socket), decodeMessage, first, (c) => {
      if (handshakes === undefined) this.#expectUpgrade(c, socket)
      else handshakes.begin(c, socket)
    })
  }

  reload(): void {
    this.#handshakes?.reload()
  }

  #expectUpgrade(c: Connection, socket: Socket): void {
    c.handshake = 'NET_WS_HANDSHAKE'
    this.#upgrading.set(socket, c)
    this.#http.emit('connection', socket)
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const c = this.#upgrading.get(socket)
    if (c === undefined) {
      socket.destroy()
      return
    }
    const { origin } = request.headers
    if (this.#origins.size > 0 && origin !== undefined && !this.#origins.has(origin.toLowerCase())) {
      this.#deny(c, socket, '403 Forbidden', `origin ${origin.slice(0, 200)} is not allowed`)
      return
    }
    // RFC 7118 §4.1: whoever does not offer it speaks something else.
    const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim().toLowerCase())
    if (!offered.includes(SUBPROTOCOL)) {
      this.#deny(c, socket, '400 Bad Request', 'the subprotocol sip is not offered')
      return
    }
    this.#sockets.handleUpgrade(request, socket, head, (ws) => this.#open(c, ws))
  }

  #deny(c: Connection, socket: Duplex, status: string, why: string): void {
    c.error ??= new Error(why)
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => socket.destroy())
  }

  #open(c: Connection, ws: WebSocket): void {
    const streams = this.#streams
    ws.on('message', (data) => streams.read(c, data as Buffer))
    ws.on('ping', () => streams.pong(c))
    ws.on('pong', () => streams.pong(c))
    // Of the protocol: too long, not UTF-8, frames that make no sense. `ws` closes it.
    ws.on('error', (error) => streams.refuse(c, 'NET_WS_PROTOCOL', error.message))
    ws.on('close', () => streams.closed(c))
    streams.ready(c, webSocketCarrier(ws))
  }
}

const webSocketCarrier = (ws: WebSocket): Carrier => ({
  get queuedBytes() {
    return ws.bufferedAmount
  },
  get writable() {
    return ws.readyState === ws.OPEN
  },
  // Text, as clients send it, unless it is none.
  write: (bytes, done) => ws.send(bytes, { binary: !isUtf8(bytes), compress: false }, done),
  pause: () => ws.pause(),
  resume: () => ws.resume(),
  end: () => ws.close(PROTOCOL_ERROR),
  destroy: () => ws.terminate(),
  ping: () => ws.ping(),
})

/** A WebSocket message is a SIP message or a keep-alive of line ends (RFC 7118 §6, RFC 5626 §4.4.1). */
function decodeMessage(bytes: Buffer): readonly Framed[] {
  if (bytes.length === 0) return []
  for (const byte of bytes) if (byte !== 13 && byte !== 10) return [{ kind: 'message', bytes }]
  return [{ kind: bytes.length >= 4 ? 'ping' : 'pong' }]
}
