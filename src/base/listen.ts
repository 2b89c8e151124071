import { AntipodeError } from './errors.ts'

/** What became of a bind that failed, named so that the operator knows what to change. @param what transport and `address:port` */
export function listenError(what: string, cause: unknown): AntipodeError {
  const code = (cause as NodeJS.ErrnoException).code
  switch (code) {
    case 'EADDRINUSE':
      return new AntipodeError('NET_PORT_IN_USE', `${what} is in use by another process`, cause)
    case 'EADDRNOTAVAIL':
      return new AntipodeError('NET_ADDRESS_UNAVAILABLE', `${what}: this host does not have that address`, cause)
    case 'EACCES':
      return new AntipodeError('NET_PERMISSION', `${what}: no permission to listen there`, cause)
    default:
      return new AntipodeError('NET_LISTEN_FAILED', `${what}: ${(cause as Error).message}`, cause)
  }
}

/** `udp 127.0.1.1:5060`, `tcp [::1]:5060`. */
export const endpointText = (transport: string, address: string, port: number): string =>
  `${transport} ${endpoint(address, port)}`

/** `127.0.1.1:5060`, `[::1]:5060`. */
export const endpoint = (address: string, port: number): string => `${address.includes(':') ? `[${address}]` : address}:${port}`
