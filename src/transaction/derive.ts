import type { Random } from '../base/prng.ts'
import type { TransportName } from '../sip/flow.ts'
import { Headers } from '../sip/headers.ts'
import { SipRequest, type SipResponse } from '../sip/message.ts'

/** What a branch must begin with to identify a transaction (RFC 3261 §8.1.1.7). */
export const MAGIC_COOKIE = 'z9hG4bK'

/** A branch of our own: the cookie and 64 random bits, so no two are alike and no stranger can answer in a server's place. */
export const newBranch = (random: Random): string => `${MAGIC_COOKIE}${random.u32().toString(36)}.${random.u32().toString(36)}`

const PROTOCOL: Readonly<Record<TransportName, string>> = {
  udp: 'SIP/2.0/UDP ',
  tcp: 'SIP/2.0/TCP ',
  tls: 'SIP/2.0/TLS ',
  ws: 'SIP/2.0/WS ',
  wss: 'SIP/2.0/WSS ',
}

/** Our Via. On UDP it asks for `rport` (RFC 3581 §3), so that answers find back through a NAT in front of us. */
export const ownVia = (transport: TransportName, sentBy: string, branch: string): string =>
  `${PROTOCOL[transport]}${sentBy}${transport === 'udp' ? ';rport' : ''};branch=${branch}`

/**
 * The ACK to a 300-699 (RFC 3261 §17.1.1.3): the INVITE's Request-URI, Call-ID, From, CSeq number, Route and single top Via; the response's To.
 */
export function makeAck(invite: SipRequest, response: SipResponse): SipRequest {
  const headers = derived(invite, 'ACK')
  headers.set('To', response.headers.get('To')!)
  return new SipRequest('ACK', invite.uri, headers)
}

/** The CANCEL of an INVITE that this element sent (RFC 3261 §9.1). @param reason value of a Reason header (RFC 3326) */
export function makeCancel(invite: SipRequest, reason?: string): SipRequest {
  const headers = derived(invite, 'CANCEL')
  headers.set('To', invite.headers.get('To')!)
  if (reason !== undefined) headers.append('Reason', reason)
  return new SipRequest('CANCEL', invite.uri, headers)
}

function derived(invite: SipRequest, method: string): Headers {
  const headers = new Headers()
  const from = invite.headers
  headers.append('Via', from.get('Via')!)
  for (const route of from.lines('Route')) headers.append('Route', route)
  headers.append('Max-Forwards', '70')
  headers.append('From', from.get('From')!)
  headers.append('To', '')
  headers.append('Call-ID', from.get('Call-ID')!)
  headers.append('CSeq', `${invite.cseq.seq} ${method}`)
  return headers
}
