import type { TransportName } from '../sip/flow.ts'
import type { SipRequest } from '../sip/message.ts'
import { parseNameAddr, parseUri, type SipUri } from '../sip/uri.ts'

/** Knows our own Record-Route URIs, of this node and of every other node of the cluster: any of them may be asked with any of them. */
export class OwnRoutes {
  /** `host:port` of every node's SIP listener and `name.origin` of each. */
  readonly #hosts = new Set<string>()
  readonly #self: { host: string; port: number }

  /** @param style `address` writes this node's address, `name` its name in our own zone (whose SRV set lists the node, its siblings, other regions). */
  constructor(
    nodes: readonly { name: string; address: string; sipPort: number }[],
    selfName: string,
    origin: string,
    style: 'address' | 'name',
  ) {
    for (const node of nodes) {
      this.#hosts.add(`${hostText(node.address)}:${node.sipPort}`)
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

  /** The Record-Route value of this node for one branch. */
  value(token: string, transport: TransportName): string {
    const port = this.#self.port === 0 ? '' : `:${this.#self.port}`
    return `<sip:${this.#self.host}${port}${transport === 'udp' ? '' : `;transport=${transport}`};lr;tk=${token}>`
  }

  /** Takes our own Routes off the top of a request (RFC 3261 §16.4) and returns their tokens, topmost first. */
  pop(request: SipRequest): string[] {
    const tokens: string[] = []
    for (let i = 0; i < MAX_OWN_ROUTES; i++) {
      const top = request.headers.values('Route')[0]
      const uri = top === undefined ? undefined : this.#uriOf(top)
      if (uri === undefined || !this.has(uri)) break
      request.headers.removeFirstValue('Route')
      const token = uri.params.get('tk')
      if (token) tokens.push(token)
    }
    return tokens
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

/** The edge and the ingress each leave one, spirals a few more; past this it is not us. */
const MAX_OWN_ROUTES = 8

const hostText = (address: string): string => (address.includes(':') ? `[${address}]` : address)
