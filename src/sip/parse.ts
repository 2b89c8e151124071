import { bad, type Fault, good, type Result } from '../base/errors.ts'
import { CLASS, decimal, isSpaceCode, isToken, TOKEN } from './chars.ts'
import { knownNameInBytes } from './header-names.ts'
import { type SipMessage, SipRequest, SipResponse } from './message.ts'

/** Bounds on what one message may be. */
export interface ParseLimits {
  readonly maxMessageBytes: number
  /** Start line and headers, with the empty line. */
  readonly maxHeaderBytes: number
  /** Header lines. */
  readonly maxHeaders: number
  /** One line, start line included, its folded parts together. */
  readonly maxLineBytes: number
}

export const DEFAULT_LIMITS: ParseLimits = {
  maxMessageBytes: 65_535,
  maxHeaderBytes: 32_768,
  maxHeaders: 200,
  maxLineBytes: 8192,
}

export interface ParseFault extends Fault {
  /** SIP status to answer `partial` with; 0: drop silently (a response, an ACK, or nothing that could be answered). */
  readonly status: number
  /** The request as far as it could be read: enough of it to make a response. */
  readonly partial?: SipRequest
}

/** Start line and headers as read from bytes that may hold more. */
export interface Head {
  readonly message: SipMessage
  /** Offset of the body. */
  readonly bodyAt: number
  /** -1 when there is no Content-Length. */
  readonly contentLength: number
}

const CR = 13
const LF = 10

/**
 * Reads one message: start line, headers, folding, body by Content-Length.
 * @param bytes a datagram, or one message as the framer cut it; the body is a view of it, not a copy. Empty lines before the start line are skipped
 *   (RFC 3261 §7.5); bytes after the body are ignored (§18.3); a body that is shorter than Content-Length is answered 400; without Content-Length the
 *   body is what is left.
 * @returns the message, or what is wrong and how to answer it. Only syntax is judged here; `checkMessage` judges the rest.
 */
export function parseMessage(bytes: Buffer, limits: ParseLimits = DEFAULT_LIMITS): Result<SipMessage, ParseFault> {
  const head = parseHead(bytes, limits)
  if (!head.ok) return head
  const { message, bodyAt, contentLength } = head.value
  const left = bytes.length - bodyAt
  // §18.3; RFC 4475 §3.1.2.2
  if (contentLength > left)
    return bad(answerable(message, 400, 'SIP_BODY_SHORT', `body has ${left} of ${contentLength} bytes`, bodyAt))
  if (bytes.length > limits.maxMessageBytes) {
    return bad(answerable(message, 513, 'SIP_TOO_LARGE', `more than ${limits.maxMessageBytes} bytes`, limits.maxMessageBytes))
  }
  const bodyBytes = contentLength < 0 ? left : contentLength
  if (bodyBytes > 0) message.body = bytes.subarray(bodyAt, bodyAt + bodyBytes)
  return good(message)
}

/** Reads start line and headers of the message at the start of `bytes`; used by the framer too. */
export function parseHead(bytes: Buffer, limits: ParseLimits): Result<Head, ParseFault> {
  let start = 0
  while (bytes[start] === CR && bytes[start + 1] === LF) start += 2
  if (start === bytes.length) return bad({ code: 'SIP_EMPTY', detail: 'nothing but empty lines', offset: 0, status: 0 })
  const limit = Math.min(bytes.length, start + limits.maxHeaderBytes)
  const within = limit === bytes.length ? bytes : bytes.subarray(0, limit)
  const blank = within.indexOf('\r\n\r\n', start, 'latin1')
  // Every line in [start, end) ends with CRLF. Where the empty line is missing, what there is may still do for an answer.
  const end = blank < 0 ? within.lastIndexOf('\r\n', undefined, 'latin1') + 2 : blank + 2
  if (end <= start + 2) return bad({ code: 'SIP_START_LINE', detail: 'no start line', offset: start, status: 0 })
  const text = bytes.toString('latin1', start, end)
  const lineEnd = text.indexOf('\r\n')
  const line = startLine(text, lineEnd, limits)
  if (!line.ok) {
    if (line.fault.partial !== undefined) readHeaders(bytes, text, start, start + lineEnd + 2, end, limits, line.fault.partial)
    return bad(
      line.fault.partial === undefined
        ? line.fault
        : answerable(line.fault.partial, line.fault.status, line.fault.code, line.fault.detail, start),
    )
  }
  const message = line.value
  const lengthOrFault = readHeaders(bytes, text, start, start + lineEnd + 2, end, limits, message)
  if (blank < 0) {
    return limit < bytes.length
      ? bad(answerable(message, 513, 'SIP_HEAD_TOO_LARGE', `headers of more than ${limits.maxHeaderBytes} bytes`, limit))
      : bad(answerable(message, 400, 'SIP_TRUNCATED', 'no empty line after the headers', bytes.length))
  }
  if (typeof lengthOrFault !== 'number') {
    return bad(answerable(message, lengthOrFault.status, lengthOrFault.code, lengthOrFault.detail, lengthOrFault.offset))
  }
  return good({ message, bodyAt: blank + 4, contentLength: lengthOrFault })
}

/** Request-Line and Status-Line of §25.1, by the letter: one space, no more (RFC 4475 §3.1.2.8 to 10). */
function startLine(text: string, lineEnd: number, limits: ParseLimits): Result<SipMessage, ParseFault> {
  const wrong = (detail: string): { readonly ok: false; readonly fault: ParseFault } =>
    bad({ code: 'SIP_START_LINE', detail, offset: 0, status: 0 })
  const space = text.indexOf(' ')
  if (space < 1 || space >= lineEnd) return wrong('no start line')
  if (text.charCodeAt(3) === 0x2f && text.slice(0, 4).toUpperCase() === 'SIP/') {
    if (text.slice(4, space) !== '2.0') return wrong('version is not 2.0')
    const status = decimal(text.slice(space + 1, space + 4), 699)
    const after = text.charCodeAt(space + 4)
    if (status < 100 || (after !== 32 && space + 4 !== lineEnd)) return wrong('status is not a number from 100 to 699')
    const reason = text.slice(space + 5, lineEnd)
    if (lineEnd > limits.maxLineBytes || hasControl(reason, 32)) return wrong('reason phrase too long, or with controls')
    return good(new SipResponse(status, space + 5 > lineEnd ? '' : reason))
  }
  const lastSpace = text.lastIndexOf(' ', lineEnd - 1)
  const version = text.slice(lastSpace + 1, lineEnd)
  const method = text.slice(0, space)
  // Something that does not even claim to be SIP gets no answer.
  const claim = text.lastIndexOf('SIP/', lineEnd)
  if (!isToken(method) || (claim < 0 && version.slice(0, 4).toUpperCase() !== 'SIP/')) return wrong('not SIP')
  const refuse = (status: number, code: string, detail: string): { readonly ok: false; readonly fault: ParseFault } =>
    bad({ code, detail, offset: 0, status, partial: new SipRequest(method, '') })
  if (lineEnd > limits.maxLineBytes) return refuse(414, 'SIP_LINE_TOO_LONG', `start line of ${lineEnd} bytes`)
  if (version.toUpperCase() !== 'SIP/2.0') {
    // §21.5.6; RFC 4475 §3.1.2.16
    if (isVersion(version)) return refuse(505, 'SIP_VERSION', 'version is not 2.0')
    return refuse(400, 'SIP_START_LINE', 'no version at the end of the start line')
  }
  const uri = text.slice(space + 1, lastSpace)
  if (lastSpace <= space + 1 || hasControl(uri, 33)) return refuse(400, 'SIP_START_LINE', 'space or control in the Request-URI')
  return good(new SipRequest(method, uri))
}

/** `SIP/` and two numbers. */
function isVersion(text: string): boolean {
  const dot = text.indexOf('.')
  return (
    text.slice(0, 4).toUpperCase() === 'SIP/' && decimal(text.slice(4, dot), 1e9) >= 0 && decimal(text.slice(dot + 1), 1e9) >= 0
  )
}

/** Controls, other than a tab where `lowest` is 32; space too where it is 33. */
function hasControl(text: string, lowest: 32 | 33): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if ((code < lowest && (code !== 9 || lowest === 33)) || code === 127) return true
  }
  return false
}

/**
 * Reads the header lines in `bytes[at, end)` into `message`, in one pass. It goes on after a line that is wrong, so that the message can be answered.
 * @param text the same bytes from `base` on; values are slices of it
 * @returns the Content-Length (-1: none), or the first thing that was wrong
 */
function readHeaders(
  bytes: Buffer,
  text: string,
  base: number,
  at: number,
  end: number,
  limits: ParseLimits,
  message: SipMessage,
): number | (Fault & { status: number }) {
  const { headers } = message
  let wrong: (Fault & { status: number }) | undefined
  let contentLength = -1
  let i = at
  while (i < end) {
    const lineStart = i
    if (headers.size >= limits.maxHeaders) {
      return wrong ?? { code: 'SIP_TOO_MANY_HEADERS', detail: `more than ${limits.maxHeaders} headers`, offset: i, status: 400 }
    }
    while ((CLASS[bytes[i]!]! & TOKEN) !== 0) i++
    const nameEnd = i
    while (isSpaceCode(bytes[i]!)) i++
    const colon = bytes[i] === 0x3a && nameEnd > lineStart
    if (colon) i++
    while (isSpaceCode(bytes[i]!)) i++
    const valueStart = i
    let folded = false
    let controlAt = -1
    for (; ; i++) {
      const byte = bytes[i]!
      if (byte >= 32 && byte !== 127) continue
      if (byte === CR && bytes[i + 1] === LF) {
        if (i + 2 >= end || !isSpaceCode(bytes[i + 2]!)) break
        // §7.3.1: a line that starts with space goes on with the one before.
        folded = true
        i += 2
      } else if (byte !== 9 && (byte === CR || byte === LF || bytes[i - 1] !== 0x5c)) {
        // Controls are allowed in a quoted pair alone (RFC 4475 §3.1.1.2), CR and LF nowhere.
        if (controlAt < 0) controlAt = i
      }
    }
    const lineEnd = i
    i += 2
    if (!colon || controlAt >= 0 || lineEnd - lineStart > limits.maxLineBytes) {
      wrong ??= !colon
        ? { code: 'SIP_HEADER_LINE', detail: 'header without a name or colon', offset: lineStart, status: 400 }
        : controlAt >= 0
          ? { code: 'SIP_CONTROL', detail: 'control character in a header', offset: controlAt, status: 400 }
          : { code: 'SIP_LINE_TOO_LONG', detail: `header of ${lineEnd - lineStart} bytes`, offset: lineStart, status: 400 }
      continue
    }
    let valueEnd = lineEnd
    while (valueEnd > valueStart && isSpaceCode(bytes[valueEnd - 1]!)) valueEnd--
    let value = text.slice(valueStart - base, valueEnd - base)
    if (folded) value = unfold(value)
    const known = knownNameInBytes(bytes, lineStart, nameEnd)
    headers.push(known ?? text.slice(lineStart - base, nameEnd - base), value, known !== undefined)
    if (known === 'Content-Length') {
      // §18.3, §20.14. Two of them, or something that is no number, would let two elements cut the stream in different places (RFC 4475 §3.3.9).
      const length = contentLength < 0 ? decimal(value, Number.MAX_SAFE_INTEGER) : -1
      if (length < 0)
        wrong ??= { code: 'SIP_CONTENT_LENGTH', detail: 'Content-Length: not one number', offset: lineStart, status: 400 }
      contentLength = Math.max(length, 0)
    }
  }
  return wrong ?? contentLength
}

/** A folded value as one line. */
function unfold(value: string): string {
  const parts = value.split('\r\n')
  let line = ''
  for (const part of parts) {
    const words = part.trim()
    if (words !== '') line += line === '' ? words : ` ${words}`
  }
  return line
}

/** The fault with the request to answer where there is one, and an answer is due: ACK never gets one, nor does what lacks the headers of a response. */
export function answerable(message: SipMessage, status: number, code: string, detail: string, offset: number): ParseFault {
  if (message.kind === 'response' || message.method === 'ACK' || !ANSWER_NEEDS.every((name) => message.headers.has(name))) {
    return { code, detail, offset, status: 0 }
  }
  return { code, detail, offset, status, partial: message }
}
const ANSWER_NEEDS: readonly string[] = ['Via', 'From', 'To', 'Call-ID', 'CSeq']
