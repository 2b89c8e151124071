import { isIPv4, isIPv6, SocketAddress } from 'node:net'
import { bad, fault, good, type Result } from '../base/errors.ts'
import { classAt, DIGIT, decimal, HOST } from './chars.ts'

const hostFault = (detail: string, offset: number) => bad(fault('SIP_HOST', detail, offset))

/**
 * hostport of §25.1 at `text[start…]`.
 * @returns host in lower case, port, and the offset of what follows
 */
export function readHostPort(text: string, start: number): Result<{ host: string; port: number | undefined; end: number }> {
  let i = start
  let host: string
  if (text.charCodeAt(i) === 0x5b) {
    const close = text.indexOf(']', i)
    // RFC 5118 §4.10: by the letter of RFC 3261's grammar some write a third colon before an IPv4 tail.
    const address = close < 0 || close - i > 46 ? '' : text.slice(i + 1, close).replace(/:::(?=\d+\.[\d.]+$)/, '::')
    if (!isIPv6(address) || address.includes('%')) return hostFault('bad IPv6 reference', i)
    host = `[${canonicalIpv6(address)}]`
    i = close + 1
  } else {
    let letters = 0
    for (; (classAt(text, i) & HOST) !== 0; i++) {
      const code = text.charCodeAt(i)
      if ((code < 48 || code > 57) && code !== 0x2e) letters++
    }
    const from = text.charCodeAt(i - 1) === 0x2e && i - 1 > start ? i - 1 : i
    host = text.slice(start, from).toLowerCase()
    if (host === '' || i - start > 255) return hostFault('bad host', start)
    if (host.charCodeAt(0) === 0x2e || host.includes('..')) return hostFault('empty label in the host', start)
    // §25.1: the last label of a hostname starts with a letter, so digits and dots alone must be an IPv4 address.
    if (letters === 0 && (from !== i || !isIPv4(host))) return hostFault('bad IPv4 address', start)
  }
  if (text.charCodeAt(i) !== 0x3a) return good({ host, port: undefined, end: i })
  const portStart = ++i
  while ((classAt(text, i) & DIGIT) !== 0) i++
  const port = i - portStart > 5 ? -1 : decimal(text.slice(portStart, i), 65535)
  if (port < 1) return hostFault('bad port', portStart)
  return good({ host, port, end: i })
}

function canonicalIpv6(address: string): string {
  return new SocketAddress({ address, family: 'ipv6' }).address
}
