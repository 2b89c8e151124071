import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { isIP, isIPv6 } from 'node:net'
import { AntipodeError } from '../base/errors.ts'
import { endpointText, listenError } from '../base/listen.ts'

export interface UdpOptions {
  readonly address: string
  /** 0: any free one. */
  readonly port: number
  /** Asked of the kernel for each direction; it may give less. */
  readonly bufferBytes: number
  /** More than this waiting for the kernel: further datagrams fail. */
  readonly maxQueueBytes: number
  onDatagram(bytes: Buffer, remoteAddress: string, remotePort: number): void
  /** An error of the socket that belongs to no `send`. */
  onError(error: Error): void
}

/** One bound UDP socket. */
export class UdpSocket {
  readonly address: string
  readonly #o: UdpOptions
  readonly #socket: Socket
  #port: number

  constructor(o: UdpOptions) {
    this.#o = o
    this.address = o.address
    this.#port = o.port
    const v6 = isIPv6(o.address)
    // `ipv6Only` on an IPv4 socket is refused by the kernel.
    this.#socket = createSocket({ type: v6 ? 'udp6' : 'udp4', ...(v6 ? { ipv6Only: true } : {}), lookup: literalOnly as never })
  }

  /** The port in use; meaningful after `start`. */
  get port(): number {
    return this.#port
  }

  /** Binds. @throws AntipodeError NET_PORT_IN_USE and the others of `listenError` */
  async start(): Promise<void> {
    const socket = this.#socket
    try {
      // Listened for first: with a lookup that takes no turn of the loop, `bind` is done when it returns.
      const listening = once(socket, 'listening')
      socket.bind({ address: this.#o.address, port: this.#o.port, exclusive: true })
      await listening
    } catch (cause) {
      socket.close()
      throw listenError(endpointText('udp', this.#o.address, this.#o.port), cause)
    }
    this.#port = socket.address().port
    // Best effort: net.core.rmem_max caps it. A burst must survive a garbage collection.
    for (const set of [socket.setRecvBufferSize, socket.setSendBufferSize]) {
      try {
        set.call(socket, this.#o.bufferBytes)
      } catch (cause) {
        this.#o.onError(cause as Error)
      }
    }
    socket.on('error', (error) => this.#o.onError(error))
    socket.on('message', (bytes, from) => this.#o.onDatagram(bytes, from.address, from.port))
  }

  /** @param done called later, with null or what went wrong; one function for all sends saves its allocation */
  send(bytes: Buffer, port: number, address: string, done: (error: Error | null) => void): void {
    if (this.#socket.getSendQueueSize() > this.#o.maxQueueBytes) {
      process.nextTick(done, new AntipodeError('NET_QUEUE_FULL', 'datagrams are not leaving this host fast enough'))
      return
    }
    try {
      this.#socket.send(bytes, port, address, done)
    } catch (cause) {
      process.nextTick(done, cause)
    }
  }

  async stop(): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()))
  }
}

/** dgram asks for a lookup even of a literal address, and node's own takes a turn of the loop for it. Names are not for this layer. */
function literalOnly(
  host: string,
  _options: unknown,
  callback: (error: Error | null, address: string, family: number) => void,
): void {
  const family = isIP(host)
  callback(family === 0 ? new AntipodeError('NET_NOT_AN_ADDRESS', `${host} is not an IP address`) : null, host, family)
}
