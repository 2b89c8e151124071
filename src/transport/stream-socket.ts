import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { endpointText, listenError } from '../base/listen.ts'
import type { Carrier } from './streams.ts'

/** Dead peers (a NAT that lost its table, a host that was switched off) are noticed by the kernel. */
const KEEP_ALIVE_MS = 60_000

export const SOCKET_OPTIONS = { noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS } as const

/** A TCP or TLS socket as it is. */
export const socketCarrier = (socket: Socket): Carrier => ({
  get queuedBytes() {
    return socket.writableLength
  },
  get writable() {
    return socket.writable
  },
  write: (bytes, done) => void socket.write(bytes, done),
  pause: () => void socket.pause(),
  resume: () => void socket.resume(),
  end: () => void socket.end(() => socket.destroy()),
  destroy: (error) => void socket.destroy(error),
})

export interface ListenOptions {
  readonly transport: string
  readonly address: string
  readonly port: number
  onSocket(socket: Socket, port: number): void
  /** The listener could not take a connection in: out of file descriptors, most likely. It lives on. */
  onFailed(): void
}

/** Listens for stream connections at one address. @returns the port. @throws AntipodeError NET_PORT_IN_USE and the others of `listenError` */
export async function listenAt(o: ListenOptions): Promise<{ server: Server; port: number }> {
  const server = createServer({ ...SOCKET_OPTIONS, pauseOnConnect: false })
  try {
    const listening = once(server, 'listening')
    server.listen({ host: o.address, port: o.port, exclusive: true, ipv6Only: true })
    await listening
  } catch (cause) {
    throw listenError(endpointText(o.transport, o.address, o.port), cause)
  }
  const { port } = server.address() as { port: number }
  server.on('connection', (socket) => o.onSocket(socket, port))
  server.on('error', () => o.onFailed())
  return { server, port }
}
