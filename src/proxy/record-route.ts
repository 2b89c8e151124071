import type { TransportName } from '../sip/flow.ts'
import type { SipRequest } from '../sip/message.ts'
import { parseNameAddr, parseUri, type SipUri, type Via } from '../sip/uri.ts'

/** A node as others reach it by SIP; ports that are not given are not listened at. */
export interface RoutedNode {
  readonly name: string
  readonly region?: string
  readonly address: string
  readonly sipPort: number
  readonly tlsPort?: number | undefined
  readonly wsPort?: number | undefined
  readonly wssPort?: number | undefined
}

/** Knows our own Record-Route URIs, of this node and of every other node of the cluster: any of them may be asked with any of them. */
export class OwnRoutes {
  /** `host:port` of every node's SIP listener and `name.origin` of each; what else of our zone leads to nodes: it, its `sip` and its regions. */
  readonly #hosts = new Set<string>()
  /** `host:port` of every node, as its Via says. */
  readonly #endpoints = new Set<string>()
  readonly #self: RoutedNode
  /** Our name in our own zone, or undefined to write the address. */
  readonly #name: string | undefined

  /** @param style `address` writes this node's address, `name` its name in our own zone (whose SRV set lists the node, its siblings, other regions). */
  constructor(nodes: readonly RoutedNode[], selfName: string, origin: string, style: 'address' | 'name') {
    this.#hosts.add(origin)
    this.#hosts.add(`sip.${origin}`)
    for (const node of nodes) {
      if (node.region !== undefined) this.#hosts.add(`${node.region}.${origin}`)
      this.#hosts.add(`${node.name}.${origin}`)
      for (const port of [node.sipPort, node.tlsPort, node.wsPort, node.wssPort]) {
        if (port === undefined) continue
        this.#hosts.add(`${hostText(node.address)}:${port}`)
        this.#endpoints.add(`${hostText(node.address)}:${port}`)
        this.#hosts.add(`${node.name}.${origin}:${port}`)
      }
    }
    this.#self = nodes.find((n) => n.name === selfName)!
    this.#name = style === 'name' ? `${selfName}.${origin}` : undefined
  }

  has(uri: SipUri): boolean {
    if (uri.port !== undefined) return this.#hosts.has(`${uri.host}:${uri.port}`)
    const secure = uri.scheme === 'sips' || uri.params.get('transport')?.toLowerCase() === 'tls'
    return this.#hosts.has(uri.host) || this.#hosts.has(`${uri.host}:${defaultPort(secure ? 'tls' : 'udp')}`)
  }

  /** A node of ours has put that Via there. */
  wrote(via: Via): boolean {
    return this.#endpoints.has(`${via.host}:${via.port ?? defaultPort(via.transport)}`)
  }

  /**
   * The Record-Route values of this node for one branch, topmost first. Where the two sides speak different transports there are two (RFC 5658 §5),
   * so that each finds one on top that it can reach; whichever node gets them back takes both off, so one bears the token.
   */
  values(token: string, received: TransportName, sent: TransportName): string[] {
    const value = (transport: TransportName, rest: string): string =>
      `<sip:${this.#hostPort(transport)}${URI_TRANSPORT[transport]};lr${rest}>`
    const top = value(sent, `;tk=${token}`)
    return received === sent ? [top] : [top, value(received, '')]
  }

  #hostPort(transport: TransportName): string {
    const { address, sipPort, tlsPort, wsPort, wssPort } = this.#self
    const port = { udp: sipPort, tcp: sipPort, tls: tlsPort, ws: wsPort, wss: wssPort }[transport] ?? sipPort
    // The zone has SRV records for UDP and TCP only.
    const byName = this.#name !== undefined && (transport === 'udp' || transport === 'tcp')
    return byName ? this.#name! : `${this.#name ?? hostText(address)}:${port}`
  }

  /**
   * Takes our own Routes off the top of a request (RFC 3261 §16.4) and returns their tokens, topmost first.
   * @param domains ours as well: a phone may name its domain as its outbound proxy
   */
  pop(request: SipRequest, domains: ReadonlySet<string>): string[] {
    const tokens: string[] = []
    this.#undoStrictRouting(request, tokens)
    for (let i = 0; i < MAX_OWN_ROUTES; i++) {
      const top = request.headers.values('Route')[0]
      const uri = top === undefined ? undefined : this.#uriOf(top)
      if (uri === undefined || !(this.has(uri) || domains.has(uri.host))) break
      request.headers.removeFirstValue('Route')
      const token = uri.params.get('tk')
      if (token) tokens.push(token)
    }
    return tokens
  }

  /** §16.4: a strict router before us has put our Record-Route in the place of the Request-URI, and that behind all Routes. */
  #undoStrictRouting(request: SipRequest, tokens: string[]): void {
    const uri = request.parsedUri
    if (!uri.ok || !uri.value.params.has('lr') || !this.has(uri.value)) return
    const routes = request.headers.values('Route')
    const last = parseNameAddr(routes.pop() ?? '')
    if (!last.ok || !parseUri(last.value.uri).ok) return
    request.uri = last.value.uri
    request.headers.remove('Route')
    for (const route of routes) request.headers.append('Route', route)
    const token = uri.value.params.get('tk')
    if (token) tokens.push(token)
  }

  /** Tokens of our own Record-Routes in a request that went through us before: a spiral, or a hop from a sibling. */
  recorded(request: SipRequest): string[] {
    const tokens: string[] = []
    for (const value of request.headers.values('Record-Route').slice(0, 8)) {
      const uri = this.#uriOf(value)
      const token = uri !== undefined && this.has(uri) ? uri.params.get('tk') : undefined
      if (token) tokens.push(token)
    }
    return tokens
  }

  #uriOf(value: string): SipUri | undefined {
    const nameAddr = parseNameAddr(value)
    const uri = nameAddr.ok ? parseUri(nameAddr.value.uri) : undefined
    return uri?.ok ? uri.value : undefined
  }
}

/** As a URI says it. RFC 7118 §5.2 knows one WebSocket transport there: which of the two it is, the client's own connection says. */
const URI_TRANSPORT: Readonly<Record<TransportName, string>> = {
  udp: '',
  tcp: ';transport=tcp',
  tls: ';transport=tls',
  ws: ';transport=ws',
  wss: ';transport=ws',
}

/** RFC 3261 §18.2.2, RFC 7118 §5.3. @param transport as a Via names it, in lower case */
export const defaultPort = (transport: string): number =>
  transport === 'tls' ? 5061 : transport === 'ws' ? 80 : transport === 'wss' ? 443 : 5060

/** The edge and the ingress each leave one or two, spirals a few more; past this it is not us. */
const MAX_OWN_ROUTES = 8

const hostText = (address: string): string => (address.includes(':') ? `[${address}]` : address)
