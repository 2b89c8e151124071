import { isIP } from 'node:net'
import type { BindingEntry } from '../../crdt/entry.ts'
import { type Flow, isStream, type TransportName } from '../sip/flow.ts'
import { parseNameAddr, parseUri, uriText } from '../sip/uri.ts'
import { type Leg, legOfBinding, needsEdge } from './leg.ts'

/** One place that a request may go to, with the ways to get there in the order in which they are tried. */
export interface Target {
  /** What becomes the Request-URI; undefined leaves it as it is. */
  readonly uri: string | undefined
  readonly leg: Leg
  readonly ways: readonly Way[]
  /** Path of the binding (RFC 3327), put in front as Route. */
  readonly path: readonly string[]
}

/** `flow`: from this node's own socket. `edge`: handed to the node that holds the flow, with a hop header. */
export interface Way {
  readonly kind: 'flow' | 'edge'
  readonly flow: Flow
  readonly node: string
}

/** What this node knows of the cluster when it looks for a way. */
export interface Neighbourhood {
  readonly self: { readonly node: string; readonly incarnation: number }
  /** SIP address of a node of the cluster, by name. */
  nodeAddress(node: string): { address: string; port: number } | undefined
  /** The shared verdict: decides ownership, and that an edge is gone. */
  verdict(node: string): 'alive' | 'dead' | 'unknown'
  /** This node's own evidence: decides which way is tried first. */
  reachable(node: string): boolean
  /** Where we send from. */
  local(transport: TransportName, remoteAddress: string): { address: string; port: number } | undefined
}

/**
 * The ways to a leg, best first; none means the flow is gone, or that only a dead edge could reach it (DESIGN "Calls": stream flows of a dead
 * incarnation are withheld at once; UDP is tried from elsewhere only where no NAT lies between).
 */
export function waysTo(leg: Leg, hood: Neighbourhood): Way[] {
  const ways: Way[] = []
  if (leg.edge === hood.self.node) {
    if (isStream(leg.transport) && leg.connectionId >= 0 && leg.incarnation !== hood.self.incarnation) return ways
    const flow = flowTo(leg, hood)
    if (flow !== undefined) ways.push({ kind: 'flow', flow, node: hood.self.node })
    return ways
  }
  const edge = edgeWay(leg.edge, hood)
  const usable = edge !== undefined && hood.verdict(leg.edge) !== 'dead'
  const reachable = hood.reachable(leg.edge)
  if (usable && reachable) ways.push(edge)
  if (!needsEdge(leg)) {
    const flow = flowTo({ ...leg, connectionId: -1 }, hood)
    if (flow !== undefined) ways.push({ kind: 'flow', flow, node: hood.self.node })
  }
  // Own evidence can be wrong and the verdict has not spoken: the edge is still the last resort.
  if (usable && !reachable) ways.push(edge)
  return ways
}

function edgeWay(node: string, hood: Neighbourhood): Way | undefined {
  const address = hood.nodeAddress(node)
  const local = address && hood.local('udp', address.address)
  if (address === undefined || local === undefined) return undefined
  const flow: Flow = {
    transport: 'udp',
    localAddress: local.address,
    localPort: local.port,
    remoteAddress: address.address,
    remotePort: address.port,
  }
  return { kind: 'edge', flow, node }
}

function flowTo(leg: Leg, hood: Neighbourhood): Flow | undefined {
  const local = hood.local(leg.transport, leg.address)
  if (local === undefined) return undefined
  const flow: Flow = {
    transport: leg.transport,
    localAddress: local.address,
    localPort: local.port,
    remoteAddress: leg.address,
    remotePort: leg.port,
  }
  return leg.connectionId < 0 ? flow : { ...flow, connectionId: leg.connectionId }
}

/** The URI in one value of a Contact, Route, Record-Route or Path header; empty, which points nowhere, where there is none. */
export function uriOf(value: string): string {
  const parsed = parseNameAddr(value)
  return parsed.ok ? parsed.value.uri : ''
}

/** Where a URI with a literal address points; undefined for a host name (RFC 3263 location is the transport's work) or another scheme. */
export function literalAddress(uriText: string): { address: string; port: number; transport: TransportName } | undefined {
  const uri = parseUri(uriText)
  if (!uri.ok || (uri.value.scheme !== 'sip' && uri.value.scheme !== 'sips')) return undefined
  const host = uri.value.params.get('maddr') || uri.value.host
  const address = host.startsWith('[') ? host.slice(1, -1) : host
  if (isIP(address) === 0) return undefined
  const named = uri.value.params.get('transport')?.toLowerCase()
  // RFC 3261 §26.2.2: sips is TLS, whatever else the URI says of a stream; over UDP and WebSocket there is no way out.
  const transport = uri.value.scheme === 'sips' && (named === undefined || named === 'tcp') ? 'tls' : (named ?? 'udp')
  if (transport === 'tls') return { address, port: uri.value.port ?? 5061, transport }
  if (uri.value.scheme === 'sips' || (transport !== 'udp' && transport !== 'tcp')) return undefined
  return { address, port: uri.value.port ?? 5060, transport }
}

/** A contact as a Request-URI: without what RFC 3261 §16.6 item 2 and §19.1.1 table 1 allow in a Contact alone, headers and `method` (RFC 4475 §3.3.14). */
export function asRequestUri(contact: string): string {
  if (!/\?|;method/i.test(contact)) return contact
  const uri = parseUri(contact)
  if (!uri.ok || uri.value.host === '') return contact
  const params = new Map(uri.value.params)
  params.delete('method')
  return uriText({ ...uri.value, params, headers: '' })
}

/** Bindings as targets in groups: equal q in parallel, groups one after the other, highest q first (RFC 3261 §16.6). */
export function targetsOf(bindings: readonly BindingEntry[], hood: Neighbourhood): Target[][] {
  const groups = new Map<number, Target[]>()
  for (const binding of bindings) {
    // RFC 3261 §10.2.1 lets mailto: and the like be registered; a request cannot be sent there.
    if (!/^(?:sips?|tel):/i.test(binding.contact)) continue
    const nextHop = binding.path[0] === undefined ? binding.contact : uriOf(binding.path[0])
    const leg = legOfBinding(binding, literalAddress(nextHop))
    const ways = waysTo(leg, hood)
    if (ways.length === 0) continue
    const group = groups.get(binding.q)
    const target: Target = { uri: asRequestUri(binding.contact), leg, ways, path: binding.path }
    if (group === undefined) groups.set(binding.q, [target])
    else group.push(target)
  }
  return [...groups.keys()].sort((a, b) => b - a).map((q) => groups.get(q)!)
}
