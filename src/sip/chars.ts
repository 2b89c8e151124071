/**
 * Character classes of RFC 3261 §25.1 as one table of bits: every scanner of this folder asks it, so each is a single linear pass without regular
 * expressions. Indexed by byte; text in this folder is latin1, one char per byte.
 */
export const TOKEN = 1
/** Allowed raw in the user part: unreserved, user-unreserved, and `#`, which phones send unescaped in feature codes. */
export const USER = 2
export const PASSWORD = 4
/** Allowed raw in a URI parameter: unreserved, param-unreserved, and `=`, which base64 in the field leaves behind. */
export const URI_PARAM = 8
export const URI_HEADER = 16
export const HOST = 32
export const DIGIT = 64
export const HEX = 128
/** unreserved = alphanum / mark */
export const UNRESERVED = 256
/** Allowed in an unquoted value of a header parameter: token, host, and what IPv6 addresses and Via need. */
export const GEN_VALUE = 512
/** The space of LWS once folding is undone. */
export const SPACE = 1024

export const CLASS = new Uint16Array(256)

const mark = (chars: string, bits: number): void => {
  for (let i = 0; i < chars.length; i++) CLASS[chars.charCodeAt(i)]! |= bits
}
const DIGITS = '0123456789'
const ALPHA = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'
mark(DIGITS, DIGIT | HEX)
mark('abcdefABCDEF', HEX)
mark(`${ALPHA}${DIGITS}`, TOKEN | USER | PASSWORD | URI_PARAM | URI_HEADER | HOST | UNRESERVED | GEN_VALUE)
mark("-_.!~*'()", USER | PASSWORD | URI_PARAM | URI_HEADER | UNRESERVED)
mark('-_.', HOST)
mark("-.!%*_+`'~", TOKEN | GEN_VALUE)
mark('[]:/()@&$=', GEN_VALUE)
mark('&=+$,;?/#', USER)
mark('&=+$,', PASSWORD)
mark('[]/:&+$=', URI_PARAM)
mark('[]/?:+$=&', URI_HEADER)
mark(' \t', SPACE)

/** The bits of the char at `i`; 0 past the end and for anything that is not a byte. */
export const classAt = (text: string, i: number): number => CLASS[text.charCodeAt(i)] ?? 0

export const isSpaceCode = (code: number): boolean => code === 32 || code === 9

/** Every char has one of `bits`, and there is one. */
export function allOf(text: string, bits: number): boolean {
  for (let i = 0; i < text.length; i++) if ((classAt(text, i) & bits) === 0) return false
  return text.length > 0
}

/** 1*token of §25.1. */
export const isToken = (text: string): boolean => allOf(text, TOKEN)

/** A whole number of at most `max` from digits alone; -1 for anything else. Leading zeros are fine (RFC 4475 §3.1.1.1). */
export function decimal(text: string, max: number): number {
  if (text.length === 0 || text.length > 64) return -1
  let value = 0
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48
    if (digit < 0 || digit > 9) return -1
    value = value * 10 + digit
    if (value > max) return -1
  }
  return value
}

/** `text[start, end)` without spaces and tabs at both ends. */
export function trimmed(text: string, start: number, end: number): string {
  let from = start
  let to = end
  while (from < to && isSpaceCode(text.charCodeAt(from))) from++
  while (to > from && isSpaceCode(text.charCodeAt(to - 1))) to--
  return text.slice(from, to)
}

/** From the `"` at `open` to one past its closing `"`, escapes respected; -1 when it never closes. */
export function endOfQuoted(text: string, open: number): number {
  for (let i = open + 1; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x5c) i++
    else if (code === 0x22) return i + 1
  }
  return -1
}

/** What a quoted string (quotes included) says. */
export function unquote(text: string): string {
  const inner = text.slice(1, -1)
  if (!inner.includes('\\')) return inner
  let out = ''
  let from = 0
  for (let i = 0; i < inner.length; i++) {
    if (inner.charCodeAt(i) !== 0x5c) continue
    out += inner.slice(from, i)
    from = ++i
  }
  return out + inner.slice(from)
}

/** As a quoted string: `"` and `\` escaped, and controls other than CR and LF, which no quoted string can hold and which become spaces. */
export function quote(text: string): string {
  let out = ''
  let from = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x0d || code === 0x0a) out += `${text.slice(from, i)} `
    else if (code === 0x22 || code === 0x5c || code === 0x7f || (code < 0x20 && code !== 9))
      out += `${text.slice(from, i)}\\${text[i]}`
    else continue
    from = i + 1
  }
  return `"${out}${text.slice(from)}"`
}

/**
 * A copy that does not hold on to the message it was cut from. Slices of a message keep its whole text alive: copy what outlives the
 * transaction (V8 slices strings of 13 chars and more without copying).
 */
export const detached = (text: string): string => (text.length < 13 ? text : Buffer.from(text, 'latin1').toString('latin1'))
