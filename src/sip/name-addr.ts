import { bad, fault, good, type Result } from '../base/errors.ts'
import { allOf, classAt, endOfQuoted, quote, SPACE, TOKEN, trimmed, unquote } from './chars.ts'
import { paramsText, readParams, skipSpace } from './params.ts'

/** One value of From, To, Contact, Route, Record-Route, …: RFC 3261 §20.10. */
export interface NameAddr {
  /** Unquoted; '' when there is none. */
  display: string
  /** The URI as given, without `<>`. Not parsed: `parseUri` does that. */
  uri: string
  /** Parameters of the header, not of the URI. Lower-case names, unquoted values. */
  params: Map<string, string>
}

const addrFault = (detail: string, offset: number) => bad(fault('SIP_NAME_ADDR', detail, offset))

/** @param text one value, and nothing but one; `*` of a Contact is not one */
export function parseNameAddr(text: string): Result<NameAddr> {
  let i = skipSpace(text, 0)
  let display = ''
  if (text.charCodeAt(i) === 0x22) {
    const end = endOfQuoted(text, i)
    if (end < 0) return addrFault('quote that does not close', i)
    display = unquote(text.slice(i, end))
    i = skipSpace(text, end)
    if (text.charCodeAt(i) !== 0x3c) return addrFault('< expected', i)
  } else {
    const angle = text.indexOf('<', i)
    if (angle < 0) return parseAddrSpec(text, i)
    if (angle > i) {
      // display-name = *(token LWS); a comma or a dot-less special here is RFC 4475's baddn.
      for (let at = i; at < angle; at++)
        if ((classAt(text, at) & (TOKEN | SPACE)) === 0) return addrFault('display name needs quotes', at)
      display = trimmed(text, i, angle)
    }
    i = angle
  }
  const close = text.indexOf('>', i)
  if (close < 0) return addrFault('> missing', i)
  const uri = text.slice(i + 1, close)
  const space = unfitForUri(uri)
  if (space >= 0) return addrFault('char not allowed in <>', i + 1 + space)
  const params = new Map<string, string>()
  return readParams(text, close + 1, params) ?? good({ display, uri, params })
}

/** addr-spec without `<>`: what follows `;` belongs to the header, and `?` and `,` are not allowed (RFC 3261 §20). */
function parseAddrSpec(text: string, start: number): Result<NameAddr> {
  let end = text.indexOf(';', start)
  if (end < 0) end = text.length
  const uri = trimmed(text, start, end)
  for (let i = 0; i < uri.length; i++) {
    const code = uri.charCodeAt(i)
    if (code === 0x2c || code === 0x3f) return addrFault('URI needs <>', start + i)
  }
  const wrong = unfitForUri(uri)
  if (wrong >= 0) return addrFault('char not allowed in a URI', start + wrong)
  const params = new Map<string, string>()
  return readParams(text, end, params) ?? good({ display: '', uri, params })
}

/** The first char that no URI has (space, control, quote, angle, not ASCII), or 0 where there is no `scheme:`; -1 when it may be one. */
function unfitForUri(uri: string): number {
  for (let i = 0; i < uri.length; i++) {
    const code = uri.charCodeAt(i)
    if (code <= 32 || code >= 127 || code === 0x22 || code === 0x3c || code === 0x3e) return i
  }
  return uri.indexOf(':') < 1 ? 0 : -1
}

/** The value as text, always with `<>`. */
export function nameAddrText(a: NameAddr): string {
  const display = a.display === '' ? '' : allOf(a.display, TOKEN) ? `${a.display} ` : `${quote(a.display)} `
  return `${display}<${a.uri}>${paramsText(a.params)}`
}
