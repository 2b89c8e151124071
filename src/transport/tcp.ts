import { connect as netConnect, type Socket } from 'node:net'
import type { Flow } from '../sip/flow.ts'
import { StreamFramer } from '../sip/framer.ts'
import { SOCKET_OPTIONS, socketCarrier } from './stream-socket.ts'
import type { Connection, Decode, Opening, Streams } from './streams.ts'

/** Messages on TCP and TLS are cut by Content-Length. */
export function framed(streams: Streams): Decode {
  const framer = new StreamFramer(streams.limits.parse)
  return (chunk) => framer.push(chunk)
}

/** TCP connections: messages to one remote share one. */
export class TcpTransport {
  readonly #streams: Streams

  constructor(streams: Streams) {
    this.#streams = streams
    streams.opens('tcp', (flow) => this.#open(flow))
  }

  accept(socket: Socket, address: string, port: number): void {
    const local = { transport: 'tcp', address, port } as const
    this.#streams.accept(socket, local, socketCarrier(socket), framed(this.#streams), undefined, (c) => this.#readFrom(c, socket))
  }

  #open(flow: Flow): Opening {
    const streams = this.#streams
    const socket = netConnect({
      host: flow.remoteAddress,
      port: flow.remotePort,
      localAddress: flow.localAddress,
      ...SOCKET_OPTIONS,
    })
    return {
      carrier: socketCarrier(socket),
      decode: framed(streams),
      attach: (c) => {
        socket.on('error', (error) => {
          c.error ??= error
        })
        socket.once('close', () => streams.closed(c))
        socket.once('connect', () => streams.ready(c, c.carrier, socket.localPort))
        this.#readFrom(c, socket)
      },
    }
  }

  #readFrom(c: Connection, socket: Socket): void {
    socket.on('data', (chunk: Buffer) => this.#streams.read(c, chunk))
  }
}
