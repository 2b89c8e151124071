import { bad, type Fault, fault, good, type Result } from '../base/errors.ts'
import { CLASS, classAt, HEX, PASSWORD, UNRESERVED, URI_HEADER, URI_PARAM, USER } from './chars.ts'
import { readHostPort } from './host.ts'

export { type NameAddr, nameAddrText, parseNameAddr } from './name-addr.ts'
export { parseVia, type Via, viaText } from './via.ts'

/**
 * A URI, RFC 3261 §19.1 and §25.1; tel: after RFC 3966. Of any other scheme only the scheme is known: what follows the colon is in `user`.
 * `uriText` gives it back.
 */
export interface SipUri {
  /** Lower case. */
  scheme: 'sip' | 'sips' | 'tel' | (string & {})
  /** As given, escapes included; the number of a tel: URI. */
  user: string | undefined
  password?: string
  /** Lower case, no dot at the end; IPv6 in brackets, in its one canonical form; '' where the scheme has no host. */
  host: string
  port: number | undefined
  /** Lower-case names; values as given, '' when there is none. */
  params: Map<string, string>
  /** What follows `?`, as given; '' when nothing does. */
  headers: string
}

const uriFault = (detail: string, offset: number): { readonly ok: false; readonly fault: Fault } =>
  bad(fault('SIP_URI', detail, offset))

/** @returns the URI, or `SIP_URI` with the offset in `text`. The whole text must be one URI: no space, no `<>`. */
export function parseUri(text: string): Result<SipUri> {
  const colon = text.indexOf(':')
  if (colon < 1) return uriFault('no scheme', 0)
  const scheme = schemeOf(text, colon)
  if (scheme === '') return uriFault('bad scheme', 0)
  if (scheme === 'sip' || scheme === 'sips') return parseSip(text, scheme, colon + 1)
  if (scheme === 'tel') return parseTel(text, colon + 1)
  for (let i = colon + 1; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code <= 32 || code >= 127 || code === 0x3c || code === 0x3e || code === 0x22)
      return uriFault('char not allowed in a URI', i)
  }
  if (colon + 1 === text.length) return uriFault('nothing after the scheme', colon + 1)
  return good({ scheme, user: text.slice(colon + 1), host: '', port: undefined, params: new Map(), headers: '' })
}

function schemeOf(text: string, colon: number): string {
  if (colon === 3 && text.startsWith('sip')) return 'sip'
  if (colon === 4 && text.startsWith('sips')) return 'sips'
  for (let i = 0; i < colon; i++) {
    const code = text.charCodeAt(i)
    const letter = (code | 32) >= 97 && (code | 32) <= 122
    // scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )
    if (!letter && (i === 0 || !((code >= 48 && code <= 57) || code === 0x2b || code === 0x2d || code === 0x2e))) return ''
  }
  return text.slice(0, colon).toLowerCase()
}

function parseSip(text: string, scheme: string, start: number): Result<SipUri> {
  // `@` is allowed raw nowhere but after the user part.
  const at = text.indexOf('@', start)
  let user: string | undefined
  let password: string | undefined
  let i = start
  if (at >= 0) {
    if (text.indexOf('@', at + 1) >= 0) return uriFault('more than one @', text.indexOf('@', at + 1))
    const colon = text.indexOf(':', start)
    const userEnd = colon >= 0 && colon < at ? colon : at
    if (userEnd === start) return uriFault('empty user', start)
    const wrong = firstNotIn(text, start, userEnd, USER)
    if (wrong >= 0) return uriFault('char not allowed in the user part', wrong)
    user = text.slice(start, userEnd)
    if (userEnd < at) {
      const wrongPassword = firstNotIn(text, userEnd + 1, at, PASSWORD)
      if (wrongPassword >= 0) return uriFault('char not allowed in the password', wrongPassword)
      password = text.slice(userEnd + 1, at)
    }
    i = at + 1
  }
  const hostport = readHostPort(text, i)
  if (!hostport.ok) return hostport
  const { host, port, end } = hostport.value
  const params = new Map<string, string>()
  i = end
  while (text.charCodeAt(i) === 0x3b) {
    const from = i + 1
    let to = from
    let equals = -1
    for (; to < text.length; to++) {
      const code = text.charCodeAt(to)
      if (code === 0x3b || code === 0x3f) break
      if (code === 0x3d && equals < 0) equals = to
    }
    const wrong = firstNotIn(text, from, to, URI_PARAM)
    if (wrong >= 0) return uriFault('char not allowed in a parameter', wrong)
    const nameEnd = equals < 0 ? to : equals
    if (nameEnd === from) return uriFault('parameter without a name', from)
    const name = text.slice(from, nameEnd).toLowerCase()
    // §19.1.1: "any given parameter-name MUST NOT appear more than once"
    if (params.has(name)) return uriFault('parameter given twice', from)
    params.set(name, equals < 0 ? '' : text.slice(equals + 1, to))
    i = to
  }
  let headers = ''
  if (text.charCodeAt(i) === 0x3f) {
    const wrong = firstNotIn(text, i + 1, text.length, URI_HEADER)
    if (wrong >= 0) return uriFault('char not allowed in a URI header', wrong)
    headers = text.slice(i + 1)
    i = text.length
  }
  if (i < text.length) return uriFault('char not allowed after the host', i)
  const uri: SipUri = { scheme, user, host, port, params, headers }
  if (password !== undefined) uri.password = password
  return good(uri)
}

function parseTel(text: string, start: number): Result<SipUri> {
  let end = text.indexOf(';', start)
  if (end < 0) end = text.length
  let digits = 0
  for (let i = start; i < end; i++) {
    const code = text.charCodeAt(i)
    const separator = code === 0x2d || code === 0x2e || code === 0x28 || code === 0x29
    // RFC 3966 §3: global numbers are + and digits, local ones may have hex digits, * and #.
    if (separator || (i === start && code === 0x2b)) continue
    if ((classAt(text, i) & HEX) === 0 && code !== 0x2a && code !== 0x23) return uriFault('char not allowed in a number', i)
    digits++
  }
  if (digits === 0) return uriFault('no digits in a number', start)
  const params = new Map<string, string>()
  for (let i = end; i < text.length; ) {
    let to = text.indexOf(';', i + 1)
    if (to < 0) to = text.length
    const wrong = firstNotIn(text, i + 1, to, URI_PARAM)
    if (wrong >= 0) return uriFault('char not allowed in a parameter', wrong)
    let equals = text.indexOf('=', i + 1)
    if (equals < 0 || equals > to) equals = to
    if (equals === i + 1) return uriFault('parameter without a name', i + 1)
    const name = text.slice(i + 1, equals).toLowerCase()
    if (params.has(name)) return uriFault('parameter given twice', i + 1)
    params.set(name, text.slice(equals + 1, to))
    i = to
  }
  return good({ scheme: 'tel', user: text.slice(start, end), host: '', port: undefined, params, headers: '' })
}

/** The first char of `text[from, to)` that is neither of the class nor part of an escape; -1 when all is well. */
function firstNotIn(text: string, from: number, to: number, bits: number): number {
  for (let i = from; i < to; i++) {
    if ((classAt(text, i) & bits) !== 0) continue
    if (text.charCodeAt(i) !== 0x25 || i + 2 >= to || !isHexPair(text, i + 1)) return i
    i += 2
  }
  return -1
}

/** The URI as text; `parseUri(uriText(u))` is `u`. */
export function uriText(u: SipUri): string {
  let text = `${u.scheme}:`
  if (u.user !== undefined) {
    text += u.user
    if (u.password !== undefined) text += `:${u.password}`
    if (u.host !== '') text += '@'
  }
  text += u.host
  if (u.port !== undefined) text += `:${u.port}`
  for (const [name, value] of u.params) text += value === '' ? `;${name}` : `;${name}=${value}`
  return u.headers === '' ? text : `${text}?${u.headers}`
}

/** Equality of RFC 3261 §19.1.4; it is not transitive. tel: after RFC 3966 §5. */
export function sameUri(a: SipUri, b: SipUri): boolean {
  if (a.scheme !== b.scheme) return false
  if (a.scheme === 'tel') return telIdentity(a) === telIdentity(b)
  if (a.host === '' || b.host === '') return a.user === b.user
  if (a.host !== b.host || a.port !== b.port) return false
  if (escaped(a.user, USER) !== escaped(b.user, USER) || escaped(a.password, PASSWORD) !== escaped(b.password, PASSWORD))
    return false
  for (const [name, value] of a.params) {
    const other = b.params.get(name)
    if (other === undefined ? NEVER_IGNORED.has(name) : canonicalParam(other) !== canonicalParam(value)) return false
  }
  for (const name of NEVER_IGNORED) if (b.params.has(name) && !a.params.has(name)) return false
  return canonicalHeaders(a.headers) === canonicalHeaders(b.headers)
}

/** Parameters that never match when only one URI has them; `transport` because without it RFC 3263 may choose another. */
const NEVER_IGNORED: ReadonlySet<string> = new Set(['user', 'ttl', 'method', 'maddr', 'transport'])

/**
 * The address-of-record as the one key that every node computes (RFC 3261 §10.3 step 5): `sip:user@host`, without password, port and parameters;
 * sips: counts as sip:; escapes in their one form, case of the user kept, host in lower case. tel: numbers lose their visual separators and keep
 * `phone-context`, `ext` and `isub`.
 * @returns `SIP_URI` for what is no URI, `SIP_AOR_SCHEME` for a scheme that has no AoR
 */
export function canonicalAor(uri: SipUri | string): Result<string> {
  let u: SipUri
  if (typeof uri === 'string') {
    const parsed = parseUri(uri)
    if (!parsed.ok) return parsed
    u = parsed.value
  } else u = uri
  if (u.scheme === 'tel') return good(telIdentity(u))
  if (u.scheme !== 'sip' && u.scheme !== 'sips')
    return bad(fault('SIP_AOR_SCHEME', `no address-of-record in scheme ${u.scheme}`, 0))
  return good(u.user === undefined ? `sip:${u.host}` : `sip:${canonicalEscapes(u.user, USER)}@${u.host}`)
}

/**
 * A contact as one string, so that equality is transitive (§19.1.4's is not: `a` = `a;x=1`, `a` = `a;x=2`). Where the RFC leaves a choice, two
 * strings are different rather than the same: a contact counted twice rings twice and expires, two counted as one lose a phone. So: sip: and sips:
 * differ, an explicit 5060 differs from no port, every parameter counts (lower case, sorted), URI headers count (sorted). tel: as in
 * `canonicalAor`; other schemes as given.
 */
export function canonicalContact(uri: SipUri | string): Result<string> {
  let u: SipUri
  if (typeof uri === 'string') {
    const parsed = parseUri(uri)
    if (!parsed.ok) return parsed
    u = parsed.value
  } else u = uri
  if (u.scheme === 'tel') return good(telIdentity(u))
  if (u.host === '') return good(uriText(u))
  let text = `${u.scheme}:`
  if (u.user !== undefined) {
    text += canonicalEscapes(u.user, USER)
    if (u.password !== undefined) text += `:${canonicalEscapes(u.password, PASSWORD)}`
    text += '@'
  }
  text += u.port === undefined ? u.host : `${u.host}:${u.port}`
  if (u.params.size > 0) {
    const params: string[] = []
    for (const [name, value] of u.params)
      params.push(value === '' ? `;${canonicalParam(name)}` : `;${canonicalParam(name)}=${canonicalParam(value)}`)
    text += params.sort().join('')
  }
  return good(u.headers === '' ? text : `${text}?${canonicalHeaders(u.headers)}`)
}

const canonicalParam = (text: string): string => canonicalEscapes(text, URI_PARAM).toLowerCase()

/** Header components in any order are equal; names without case, values with it. */
function canonicalHeaders(headers: string): string {
  if (headers === '') return ''
  const pairs = headers.split('&').map((pair) => {
    const equals = pair.indexOf('=')
    const name = equals < 0 ? pair : pair.slice(0, equals)
    return `${canonicalEscapes(name, URI_HEADER).toLowerCase()}${equals < 0 ? '' : canonicalEscapes(pair.slice(equals), URI_HEADER)}`
  })
  return pairs.sort().join('&')
}

/** RFC 3966 §5: visual separators do not count, hex digits have no case; §4: these three parameters tell numbers apart. */
function telIdentity(u: SipUri): string {
  let number = ''
  for (const char of u.user ?? '') if (!'-.()'.includes(char)) number += char
  let text = `tel:${number.toLowerCase()}`
  for (const name of ['ext', 'isub', 'phone-context']) {
    const value = u.params.get(name)
    if (value !== undefined) text += `;${name}=${canonicalParam(value)}`
  }
  return text
}

const escaped = (text: string | undefined, bits: number): string | undefined =>
  text === undefined ? undefined : canonicalEscapes(text, bits)

/**
 * Text with every escape in one form: what need not be escaped is not, the rest is `%HH` in upper case. Reserved chars stay as they were given,
 * because by RFC 3261 §19.1.4 `%2B` and `+` differ.
 * @param bits the class of chars that may stand raw; `#` never does
 */
function canonicalEscapes(text: string, bits: number): string {
  let out = ''
  let from = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x25 && isHexPair(text, i + 1)) {
      const byte = Number.parseInt(text.slice(i + 1, i + 3), 16)
      out += text.slice(from, i) + ((CLASS[byte]! & UNRESERVED) !== 0 ? String.fromCharCode(byte) : hex(byte))
      i += 2
    } else if ((classAt(text, i) & bits) === 0 || code === 0x23) out += text.slice(from, i) + hex(code)
    else continue
    from = i + 1
  }
  return from === 0 ? text : out + text.slice(from)
}

const isHexPair = (text: string, i: number): boolean => (classAt(text, i) & HEX) !== 0 && (classAt(text, i + 1) & HEX) !== 0
const hex = (byte: number): string => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
