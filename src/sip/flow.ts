/** Transports by the names that a Via header gives them, in lower case. */
export type TransportName = 'udp' | 'tcp' | 'tls' | 'ws' | 'wss'

/**
 * A connection or 5-tuple: where a message came from, or the way by which one goes out. `connectionId` is given for streams only: it numbers the
 * connections of this incarnation and is never used twice, so a flow whose connection is gone is known to be gone.
 */
export interface Flow {
  readonly transport: TransportName
  readonly localAddress: string
  readonly localPort: number
  /** A literal IP address. */
  readonly remoteAddress: string
  readonly remotePort: number
  readonly connectionId?: number
}

export const isStream = (transport: TransportName): boolean => transport !== 'udp'

/** `udp:192.0.2.1:5060`, `tcp:[2001:db8::1]:5060#7`: for tables and for people. */
export const flowText = (flow: Flow): string => {
  const host = flow.remoteAddress.includes(':') ? `[${flow.remoteAddress}]` : flow.remoteAddress
  return `${flow.transport}:${host}:${flow.remotePort}${flow.connectionId === undefined ? '' : `#${flow.connectionId}`}`
}
