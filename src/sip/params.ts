import { bad, type Fault, fault } from '../base/errors.ts'
import { allOf, classAt, endOfQuoted, GEN_VALUE, isSpaceCode, quote, TOKEN, unquote } from './chars.ts'

/** The offset of the first char at or after `i` that is no space. */
export function skipSpace(text: string, i: number): number {
  let at = i
  while (isSpaceCode(text.charCodeAt(at))) at++
  return at
}

/**
 * `*(SEMI generic-param)` of RFC 3261 §25.1 from `start` to the end of `text`, into `params`: names in lower case, values unquoted, '' when there
 * is none. Space may stand around `;` and `=`.
 * @returns what is wrong, or undefined
 */
export function readParams(
  text: string,
  start: number,
  params: Map<string, string>,
): { readonly ok: false; readonly fault: Fault } | undefined {
  let i = skipSpace(text, start)
  while (i < text.length) {
    if (text.charCodeAt(i) !== 0x3b) return bad(fault('SIP_PARAM', '; expected', i))
    const from = skipSpace(text, i + 1)
    i = from
    while ((classAt(text, i) & TOKEN) !== 0) i++
    if (i === from) return bad(fault('SIP_PARAM', 'parameter without a name', from))
    const name = text.slice(from, i).toLowerCase()
    if (params.has(name)) return bad(fault('SIP_PARAM', 'parameter given twice', from))
    i = skipSpace(text, i)
    if (text.charCodeAt(i) !== 0x3d) {
      params.set(name, '')
      continue
    }
    i = skipSpace(text, i + 1)
    const valueStart = i
    if (text.charCodeAt(i) === 0x22) {
      i = endOfQuoted(text, i)
      if (i < 0) return bad(fault('SIP_PARAM', 'quote that does not close', valueStart))
      params.set(name, unquote(text.slice(valueStart, i)))
    } else {
      while ((classAt(text, i) & GEN_VALUE) !== 0) i++
      if (i === valueStart) return bad(fault('SIP_PARAM', 'parameter value missing', valueStart))
      params.set(name, text.slice(valueStart, i))
    }
    i = skipSpace(text, i)
  }
  return undefined
}

/** Parameters as text, each with its `;`; values that need it are quoted. */
export function paramsText(params: ReadonlyMap<string, string>): string {
  let text = ''
  for (const [name, value] of params) {
    if (value === '') text += `;${name}`
    else text += allOf(value, GEN_VALUE) ? `;${name}=${value}` : `;${name}=${quote(value)}`
  }
  return text
}
