import type { TransportName } from '../sip/flow.ts'
import type { SipRequest } from '../sip/message.ts'
import { parseNameAddr, parseUri, type SipUri, type Via } from '../sip/uri.ts'

/** Knows our own Record-Route URIs, of this node and of every other node of the cluster: any of them may be asked with any of them. */
export class OwnRoutes {
  /** `host:port` of every node's SIP listener and `name.origin` of each; what else of our zone leads to nodes: it, its `sip` and its regions. */
  readonly #hosts = new Set<string>()
  /** `host:port` of every node, as its Via says. */
  readonly #endpoints = new Set<string>()
  readonly #self: { host: string; port: number }

  /** @param style `address` writes this node's address, `name` its name in our own zone (whose SRV set lists the node, its siblings, other regions). */
  constructor(
    nodes: readonly { name: string; region?: string; address: string; sipPort: number }[],
    selfName: string,
    origin: string,
    style: 'address' | 'name',
  ) {
    this.#hosts.add(origin)
    this.#hosts.add(`sip.${origin}`)
    for (const node of nodes) {
      if (node.region !== undefined) this.#hosts.add(`${node.region}.${origin}`)
      this.#hosts.add(`${hostText(node.address)}:${node.sipPort}`)
      this.#endpoints.add(`${hostText(node.address)}:${node.sipPort}`)
      this.#hosts.add(`${node.name}.${origin}`)
      this.#hosts.add(`${node.name}.${origin}:${node.sipPort}`)
    }
    const self = nodes.find((n) => n.name === selfName)!
    this.#self =
      style === 'name' ? { host: `${selfName}.${origin}`, port: 0 } : { host: hostText(self.address), port: self.sipPort }
  }

  has(uri: SipUri): boolean {
    return (
      this.#hosts.has(uri.port === undefined ? uri.host : `${uri.host}:${uri.port}`) ||
      (uri.port === undefined && this.#hosts.has(`${uri.host}:5060`))
    )
  }

  /** A node of ours has put that Via there. */
  wrote(via: Via): boolean {
    return this.#endpoints.has(`${via.host}:${via.port ?? 5060}`)
  }

  /**
   * The Record-Route values of this node for one branch, topmost first. Where the two sides speak different transports there are two (RFC 5658 §5),
   * so that each finds one on top that it can reach; whichever node gets them back takes both off, so one bears the token.
   */
  values(token: string, received: TransportName, sent: TransportName): string[] {
    const port = this.#self.port === 0 ? '' : `:${this.#self.port}`
    const value = (transport: TransportName, rest: string): string =>
      `<sip:${this.#self.host}${port}${transport === 'udp' ? '' : `;transport=${transport}`};lr${rest}>`
    const top = value(sent, `;tk=${token}`)
    return received === sent ? [top] : [top, value(received, '')]
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

/** The edge and the ingress each leave one or two, spirals a few more; past this it is not us. */
const MAX_OWN_ROUTES = 8

const hostText = (address: string): string => (address.includes(':') ? `[${address}]` : address)
