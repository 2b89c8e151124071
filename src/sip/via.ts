import { bad, fault, good, type Result } from '../base/errors.ts'
import { classAt, DIGIT, decimal, TOKEN } from './chars.ts'
import { readHostPort } from './host.ts'
import { paramsText, readParams, skipSpace } from './params.ts'

/** One value of a Via header, RFC 3261 §20.42. */
export interface Via {
  /** Lower case: `udp`, `tcp`, `tls`, … */
  transport: string
  /** Lower case; IPv6 in brackets. */
  host: string
  port: number | undefined
  /** '' when there is none (RFC 2543). */
  branch: string
  /** All but `branch`: `received`, `rport` ('' as a request has it), … Lower-case names. */
  params: Map<string, string>
}

const viaFault = (detail: string, offset: number) => bad(fault('SIP_VIA', detail, offset))

/** @param text one value. Space may stand wherever §25.1 lets it: around `/`, `:`, `;`, `=` (RFC 4475 §3.1.1.1). */
export function parseVia(text: string): Result<Via> {
  let i: number
  let transport: string
  // As nearly everybody writes it.
  if (text.startsWith('SIP/2.0/UDP ')) {
    transport = 'udp'
    i = skipSpace(text, 12)
  } else {
    let end = endOfToken(text, 0)
    if (text.slice(0, end).toUpperCase() !== 'SIP') return viaFault('protocol is not SIP', 0)
    i = skipSpace(text, end)
    if (text.charCodeAt(i) !== 0x2f) return viaFault('/ expected', i)
    i = skipSpace(text, i + 1)
    end = endOfToken(text, i)
    if (text.slice(i, end) !== '2.0') return viaFault('version is not 2.0', i)
    i = skipSpace(text, end)
    if (text.charCodeAt(i) !== 0x2f) return viaFault('/ expected', i)
    i = skipSpace(text, i + 1)
    end = endOfToken(text, i)
    if (end === i) return viaFault('transport missing', i)
    transport = text.slice(i, end).toLowerCase()
    i = skipSpace(text, end)
    if (i === end) return viaFault('space expected after the transport', i)
  }
  const hostport = readHostPort(text, i)
  if (!hostport.ok) return hostport
  const { host, end } = hostport.value
  let { port } = hostport.value
  i = skipSpace(text, end)
  if (port === undefined && text.charCodeAt(i) === 0x3a) {
    i = skipSpace(text, i + 1)
    const digits = i
    while ((classAt(text, i) & DIGIT) !== 0) i++
    port = i - digits > 5 ? -1 : decimal(text.slice(digits, i), 65535)
    if (port < 1) return viaFault('bad port', digits)
  }
  const params = new Map<string, string>()
  const wrong = readParams(text, i, params)
  if (wrong !== undefined) return wrong
  const branch = params.get('branch') ?? ''
  params.delete('branch')
  return good({ transport, host, port, branch, params })
}

function endOfToken(text: string, start: number): number {
  let i = start
  while ((classAt(text, i) & TOKEN) !== 0) i++
  return i
}

/** The value as text: `SIP/2.0/UDP host:port;branch=…;…`. */
export function viaText(v: Via): string {
  const sentBy = v.port === undefined ? v.host : `${v.host}:${v.port}`
  return `SIP/2.0/${v.transport.toUpperCase()} ${sentBy}${v.branch === '' ? '' : `;branch=${v.branch}`}${paramsText(v.params)}`
}
