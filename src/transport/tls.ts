import type { Socket, TcpNetConnectOpts } from 'node:net'
import { type ConnectionOptions, createServer, type TLSSocket, type Server as TlsServer, connect as tlsConnect } from 'node:tls'
import { AntipodeError } from '../base/errors.ts'
import type { Flow } from '../sip/flow.ts'
import type { Certificates } from './certificates.ts'
import { SOCKET_OPTIONS, socketCarrier } from './stream-socket.ts'
import type { Connection, Opening, Streams } from './streams.ts'
import { framed } from './tcp.ts'

/**
 * The server's side of TLS handshakes, on sockets that are in the table of connections already: a client that dawdles or sends junk is bounded like
 * any other.
 */
export class TlsHandshakes {
  readonly #streams: Streams
  readonly #certificates: Certificates
  readonly #server: TlsServer
  readonly #onSecure: (c: Connection, socket: TLSSocket) => void
  readonly #pending = new Map<string, Connection>()

  constructor(streams: Streams, certificates: Certificates, onSecure: (c: Connection, socket: TLSSocket) => void) {
    this.#streams = streams
    this.#certificates = certificates
    this.#onSecure = onSecure
    this.#server = createServer({
      ...certificates.own,
      ...SOCKET_OPTIONS,
      SNICallback: (name, done) => done(null, certificates.contextFor(name)),
      requestCert: certificates.settings.requireClientCert,
      // `#secured` refuses them: only there it is known who it was and what was wrong.
      rejectUnauthorized: false,
    })
    this.#server.on('secureConnection', (socket) => this.#secured(socket))
    this.#server.on('tlsClientError', (error, socket) => {
      const c = this.#pending.get(keyOf(socket))
      if (c !== undefined) c.error ??= error
    })
  }

  /** New connections meet the certificates as they are now; those that are up stay. */
  reload(): void {
    this.#server.setSecureContext(this.#certificates.own)
  }

  begin(c: Connection, socket: Socket): void {
    const key = keyOf(socket)
    this.#pending.set(key, c)
    socket.once('close', () => {
      if (this.#pending.get(key) === c) this.#pending.delete(key)
    })
    this.#server.emit('connection', socket)
  }

  #secured(socket: TLSSocket): void {
    const c = this.#pending.get(keyOf(socket))
    if (c === undefined) {
      socket.destroy()
      return
    }
    this.#pending.delete(keyOf(socket))
    socket.on('error', (error) => {
      c.error ??= error
    })
    if (this.#certificates.settings.requireClientCert) {
      // A resumed TLS 1.3 session passes for authorized even if it never had a certificate: so that is looked for as well.
      const shown = socket.getPeerX509Certificate() !== undefined
      if (!socket.authorized || !shown) {
        // By then it is an Error or its code, whatever the types say.
        const why: unknown = socket.authorizationError
        this.#streams.refuse(c, 'NET_TLS_CLIENT_CERT', shown ? String(why ?? 'not authorized') : 'no certificate')
        return
      }
    }
    this.#onSecure(c, socket)
  }
}

/** SIP over TLS (RFC 3261 §26.2.1). Messages to one remote share a connection that we opened, and whose other end has proven who it is. */
export class TlsTransport {
  readonly #streams: Streams
  readonly #certificates: Certificates
  readonly #handshakes: TlsHandshakes

  constructor(streams: Streams, certificates: Certificates) {
    this.#streams = streams
    this.#certificates = certificates
    this.#handshakes = new TlsHandshakes(streams, certificates, (c, socket) => {
      streams.ready(c, socketCarrier(socket))
      socket.on('data', (chunk: Buffer) => streams.read(c, chunk))
    })
    streams.opens('tls', (flow) => this.#open(flow))
  }

  accept(socket: Socket, address: string, port: number): void {
    const local = { transport: 'tls', address, port } as const
    this.#streams.accept(socket, local, socketCarrier(socket), framed(this.#streams), 'NET_TLS_HANDSHAKE', (c) =>
      this.#handshakes.begin(c, socket),
    )
  }

  reload(): void {
    this.#handshakes.reload()
  }

  #open(flow: Flow): Opening {
    const streams = this.#streams
    const { settings, own } = this.#certificates
    const name = settings.peerNames[flow.remoteAddress]
    const options: ConnectionOptions & TcpNetConnectOpts = {
      ...own,
      ...SOCKET_OPTIONS,
      host: flow.remoteAddress,
      port: flow.remotePort,
      localAddress: flow.localAddress,
      // RFC 5922 §7: the name that was looked for; without one `checkServerIdentity` compares the address.
      ...(name === undefined ? {} : { servername: name }),
      rejectUnauthorized: settings.verify,
    }
    const socket = tlsConnect(options)
    return {
      carrier: socketCarrier(socket),
      decode: framed(streams),
      attach: (c) => {
        let connected = false
        socket.once('connect', () => {
          connected = true
        })
        socket.on('error', (error) => {
          c.error ??= connected && !c.ready ? new AntipodeError('NET_TLS_HANDSHAKE', error.message, error) : error
        })
        socket.once('close', () => streams.closed(c))
        socket.once('secureConnect', () => streams.ready(c, c.carrier, socket.localPort))
        socket.on('data', (chunk: Buffer) => streams.read(c, chunk))
      },
    }
  }
}

const keyOf = (socket: Socket): string => `${socket.remoteAddress} ${socket.remotePort} ${socket.localPort}`
