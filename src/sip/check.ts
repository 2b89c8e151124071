import { type Fault, fault } from '../base/errors.ts'
import { decimal } from './chars.ts'
import { splitValues } from './headers.ts'
import type { SipMessage, SipRequest } from './message.ts'
import { parseVia } from './uri.ts'

/** A fault and the SIP status to answer the request with; 0: drop it, as a response or an ACK. */
export type CheckFault = Fault & { readonly status: number }

const refuse = (status: number, code: string, detail: string): CheckFault => ({ code, detail, offset: -1, status })
const refuseFor = (where: string, f: Fault): CheckFault => ({ ...fault(f.code, `${where}: ${f.detail}`), status: 400 })

/** RFC 3261 §20: headers that have one value, where a second would let two elements read the same message differently. */
const SINGLE: readonly string[] = [
  ...[
    'Call-ID',
    'CSeq',
    'From',
    'To',
    'Max-Forwards',
    'Content-Length',
    'Content-Type',
    'Content-Disposition',
    'Content-Encoding',
    'Date',
    'Event',
  ],
  ...[
    'Expires',
    'Min-Expires',
    'Min-SE',
    'RAck',
    'Refer-To',
    'Referred-By',
    'Replaces',
    'Retry-After',
    'RSeq',
    'Session-Expires',
  ],
  ...['Subscription-State', 'Timestamp'],
]
const SINGLE_BITS: ReadonlyMap<string, number> = new Map(SINGLE.map((name, i) => [name, 1 << i]))

/**
 * What every element demands of a message before it looks at what it means: the mandatory headers, well formed, once, and in agreement with each
 * other (RFC 3261 §8.1.1, §8.2, §16.3). After it returned undefined the typed getters of the message do not throw, `topVia` included when Vias
 * are taken off one by one.
 */
export function checkMessage(m: SipMessage): CheckFault | undefined {
  const wrong = faultOf(m)
  // §17: nobody answers a response, or an ACK.
  return wrong !== undefined && (m.kind === 'response' || m.method === 'ACK') ? { ...wrong, status: 0 } : wrong
}

function faultOf(m: SipMessage): CheckFault | undefined {
  const { headers } = m
  let seen = 0
  let twice: string | undefined
  headers.each((name) => {
    const bit = SINGLE_BITS.get(name) ?? 0
    if ((seen & bit) !== 0) twice = name
    seen |= bit
  })
  // RFC 4475 §3.3.8, §3.3.9
  if (twice !== undefined) return refuse(400, 'SIP_HEADER_TWICE', `${twice} given twice`)

  const vias = headers.lines('Via')
  if (vias.length === 0) return refuse(400, 'SIP_HEADER_MISSING', 'Via missing')
  for (let i = 0; i < vias.length; i++) {
    if (i === 0) {
      const top = m.parsedTopVia
      if (!top.ok) return refuseFor('Via', top.fault)
      if (!vias[0]!.includes(',')) continue
    }
    const values = splitValues(vias[i]!)
    if (values.length === 0) return refuse(400, 'SIP_VIA', 'Via: empty')
    for (const value of values) {
      const via = parseVia(value)
      if (!via.ok) return refuseFor('Via', via.fault)
    }
  }

  const { parsedFrom, parsedTo, parsedCSeq } = m
  if (!parsedFrom.ok) return refuseFor('From', parsedFrom.fault)
  // §8.1.1.3: "The From field MUST contain a new 'tag' parameter"; every dialog, every CDR is named by it.
  if ((parsedFrom.value.params.get('tag') ?? '') === '') return refuse(400, 'SIP_FROM_TAG', 'From has no tag')
  if (!parsedTo.ok) return refuseFor('To', parsedTo.fault)
  if (parsedTo.value.params.get('tag') === '') return refuse(400, 'SIP_TO_TAG', 'To has an empty tag')
  if (!parsedCSeq.ok) return refuseFor('CSeq', parsedCSeq.fault)
  const callId = headers.get('Call-ID')
  if (callId === undefined) return refuse(400, 'SIP_HEADER_MISSING', 'Call-ID missing')
  if (!isCallId(callId)) return refuse(400, 'SIP_CALL_ID', 'Call-ID: not one word')
  const length = headers.get('Content-Length')
  if (length !== undefined && decimal(length, Number.MAX_SAFE_INTEGER) < 0)
    return refuse(400, 'SIP_CONTENT_LENGTH', 'Content-Length: not a number')
  return m.kind === 'request' ? checkRequest(m, parsedCSeq.value.method) : undefined
}

function checkRequest(m: SipRequest, cseqMethod: string): CheckFault | undefined {
  // §8.1.1.5; RFC 4475 §3.1.2.17
  if (cseqMethod !== m.method) return refuse(400, 'SIP_CSEQ', `CSeq is for ${cseqMethod}`)
  const forwards = m.headers.get('Max-Forwards')
  // §20.22: 0 to 255. Missing is allowed (§16.3 step 3), for elements of RFC 2543.
  if (forwards !== undefined && decimal(forwards, 255) < 0)
    return refuse(400, 'SIP_MAX_FORWARDS', 'Max-Forwards: not a number from 0 to 255')
  const uri = m.parsedUri
  if (!uri.ok) return refuseFor('Request-URI', uri.fault)
  // §8.2.2.1, §16.3 step 2; RFC 4475 §3.3.2
  if (uri.value.host === '' && uri.value.scheme !== 'tel')
    return refuse(416, 'SIP_URI_SCHEME', `Request-URI: scheme ${uri.value.scheme}`)
  // §19.1.1: headers are not allowed in a Request-URI; RFC 4475 §3.1.2.11
  if (uri.value.headers !== '') return refuse(400, 'SIP_URI', 'Request-URI: headers are not allowed')
  return undefined
}

/** word [ "@" word ] of §25.1, taken as one run of visible ASCII. */
function isCallId(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code <= 32 || code >= 127) return false
  }
  return text.length > 0
}
