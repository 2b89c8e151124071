import { type Flow, isStream } from '../sip/flow.ts'
import type { SipRequest } from '../sip/message.ts'
import { type Via, viaText } from '../sip/via.ts'

const DEFAULT_PORT = 5060
const DEFAULT_TLS_PORT = 5061

/**
 * Writes where a request came from into its top Via: `received` where the sent-by host is another or the client asked by `rport` (RFC 3261
 * §18.2.1, RFC 3581 §4). What the client claimed there itself is overwritten: it decides where answers go.
 * @returns the top Via as it stands now
 */
export function markSource(request: SipRequest, flow: Flow): Via {
  const via = request.topVia
  const asks = via.params.has('rport')
  const other = bare(via.host) !== flow.remoteAddress
  if (!asks && !other && !via.params.has('received')) return via
  const params = new Map(via.params)
  if (asks) params.set('rport', String(flow.remotePort))
  if (asks || other) params.set('received', flow.remoteAddress)
  else params.delete('received')
  const marked = { ...via, params }
  request.headers.replaceFirstValue('Via', viaText(marked))
  return marked
}

/**
 * Where the response to a request goes (RFC 3261 §18.2.2, RFC 3581 §4): streams, the same connection; UDP, the source address at `rport`, or at
 * the port of sent-by where the client did not ask; from the same local socket. `maddr` is not honoured: it would let anyone aim our answers.
 * @param flow the flow that the request came in on
 */
export function responseFlow(via: Via, flow: Flow): Flow {
  if (isStream(flow.transport)) return flow
  const remotePort = via.params.has('rport') ? flow.remotePort : (via.port ?? DEFAULT_PORT)
  return remotePort === flow.remotePort ? flow : { ...flow, remotePort }
}

/** The second way for a response whose connection is gone: a new one to the source address, at the port of sent-by (§18.2.2). */
export const reconnectFlow = (via: Via, flow: Flow): Flow => ({
  transport: flow.transport,
  localAddress: flow.localAddress,
  localPort: flow.localPort,
  remoteAddress: flow.remoteAddress,
  remotePort: via.port ?? (flow.transport === 'tls' ? DEFAULT_TLS_PORT : DEFAULT_PORT),
})

const bare = (host: string): string => (host.startsWith('[') ? host.slice(1, -1) : host)
