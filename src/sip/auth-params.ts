import { classAt, endOfQuoted, TOKEN, unquote } from './chars.ts'
import { skipSpace } from './params.ts'

const MAX_PARAMS = 32

/**
 * `Digest name=value, …` of RFC 7616 §3.3 to 3.5, challenge and credentials alike: names in lower case, values unquoted.
 * @returns undefined for another scheme, a name given twice, or anything else that is not that
 */
export function parseAuthParams(text: string): Map<string, string> | undefined {
  if (text.slice(0, 6).toLowerCase() !== 'digest') return undefined
  let i = skipSpace(text, 6)
  if (i === 6) return undefined
  const params = new Map<string, string>()
  for (;;) {
    const from = i
    while ((classAt(text, i) & TOKEN) !== 0) i++
    const name = text.slice(from, i).toLowerCase()
    i = skipSpace(text, i)
    if (name === '' || params.has(name) || params.size === MAX_PARAMS || text.charCodeAt(i) !== 0x3d) return undefined
    i = skipSpace(text, i + 1)
    const valueStart = i
    if (text.charCodeAt(i) === 0x22) {
      i = endOfQuoted(text, i)
      if (i < 0) return undefined
      params.set(name, unquote(text.slice(valueStart, i)))
    } else {
      while ((classAt(text, i) & TOKEN) !== 0) i++
      if (i === valueStart) return undefined
      params.set(name, text.slice(valueStart, i))
    }
    i = skipSpace(text, i)
    if (i === text.length) return params
    if (text.charCodeAt(i) !== 0x2c) return undefined
    i = skipSpace(text, i + 1)
  }
}
