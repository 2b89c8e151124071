import type { BindingEntry } from '../../crdt/entry.ts'
import type { WireReader, WireWriter } from '../base/bytes.ts'
import { type Flow, isStream, type TransportName } from '../sip/flow.ts'

/**
 * One side of a call as the rest of the cluster can reach it: the edge that holds the flow, and the flow. It travels in tokens (Record-Route)
 * and between nodes (hop header), so any node of any region can route to it before any replication.
 */
export interface Leg {
  /** The node that holds the flow. */
  readonly edge: string
  /** Incarnation of the edge; a stream flow dies with it. */
  readonly incarnation: number
  readonly transport: TransportName
  /** Literal IP address and port of the other end. */
  readonly address: string
  readonly port: number
  /** Streams only, else -1. */
  readonly connectionId: number
  /** Only the edge can reach it: a NAT lies between. */
  readonly nat: boolean
}

/** Streams and flows behind a NAT are reached through their edge and in no other way. */
export const needsEdge = (leg: Leg): boolean => leg.nat || isStream(leg.transport)

export const legOfFlow = (flow: Flow, edge: string, incarnation: number, nat: boolean): Leg => ({
  edge,
  incarnation,
  transport: flow.transport,
  address: flow.remoteAddress,
  port: flow.remotePort,
  connectionId: flow.connectionId ?? -1,
  nat,
})

/** The leg of a binding: its flow where that is the only way in, else the address that the contact names (`contactAddress`). */
export function legOfBinding(
  entry: BindingEntry,
  contactAddress: { address: string; port: number; transport: TransportName } | undefined,
): Leg {
  const { flow } = entry
  const transport = flow.transport as TransportName
  const byFlow = flow.nat || isStream(transport) || contactAddress === undefined
  return {
    edge: entry.node,
    incarnation: entry.incarnation,
    transport: byFlow ? transport : contactAddress.transport,
    address: byFlow ? flow.remoteAddress : contactAddress.address,
    port: byFlow ? flow.remotePort : contactAddress.port,
    connectionId: byFlow ? flow.connectionId : -1,
    nat: flow.nat,
  }
}

/** The leg as bytes; the inverse of `readLeg`. */
export function writeLeg(out: WireWriter, leg: Leg): void {
  out.u8(TRANSPORTS.indexOf(leg.transport) | (leg.nat ? 0x80 : 0))
  out.text(leg.edge)
  out.uint(leg.incarnation)
  out.text(leg.address)
  out.uint(leg.port)
  out.uint(leg.connectionId + 1)
}

export function readLeg(input: WireReader): Leg | undefined {
  const head = input.u8()
  const transport = TRANSPORTS[head & 0x7f]
  const edge = input.name()
  const incarnation = input.uint()
  const address = input.name()
  const port = input.uint()
  const connectionId = input.uint() - 1
  if (input.failed || transport === undefined || port > 65535) return undefined
  return { edge, incarnation, transport, address, port, connectionId, nat: (head & 0x80) !== 0 }
}

const TRANSPORTS: readonly TransportName[] = ['udp', 'tcp', 'tls', 'ws', 'wss']
