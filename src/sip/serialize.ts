import { AntipodeError } from '../base/errors.ts'
import type { SipMessage } from './message.ts'

/**
 * A message as bytes: full header forms, one line per header line, Content-Length from the body (in its old place, else last; RFC 3261 §20.14).
 * The headers cannot hold line breaks (`Headers` sees to it); a start line that does is our own defect and throws `SIP_START_LINE_UNFIT`.
 */
export function serialize(m: SipMessage): Buffer {
  const start = m.kind === 'request' ? `${m.method} ${m.uri} SIP/2.0` : `SIP/2.0 ${m.status} ${m.reason}`
  if (UNFIT.test(start))
    throw new AntipodeError('SIP_START_LINE_UNFIT', `start line is not one latin1 line: ${JSON.stringify(start.slice(0, 200))}`)
  const length = m.body.length
  let text = start
  let hasLength = false
  m.headers.each((name, value) => {
    if (name !== 'Content-Length') text += `\r\n${name}: ${value}`
    else if (!hasLength) {
      hasLength = true
      text += `\r\nContent-Length: ${length}`
    }
  })
  text += hasLength ? '\r\n\r\n' : `\r\nContent-Length: ${length}\r\n\r\n`
  if (length === 0) return Buffer.from(text, 'latin1')
  const bytes = Buffer.allocUnsafe(text.length + length)
  bytes.write(text, 0, 'latin1')
  m.body.copy(bytes, text.length)
  return bytes
}

const UNFIT = /[\r\n\u0100-\uffff]/
