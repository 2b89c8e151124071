import { answerable, DEFAULT_LIMITS, type ParseFault, type ParseLimits, parseHead } from './parse.ts'

export type Framed =
  | { readonly kind: 'message'; readonly bytes: Buffer }
  /** A CRLF that followed another between messages: RFC 5626 §4.4.1 wants one CRLF in answer. */
  | { readonly kind: 'ping' }
  /** One CRLF between messages: the answer to a ping of ours, if we sent one, else nothing. */
  | { readonly kind: 'pong' }
  /** The stream cannot be cut any further: answer what can be answered, then close the connection. Nothing follows it. */
  | { readonly kind: 'fault'; readonly fault: ParseFault }

const CR = 13
const LF = 10

/**
 * Cuts a stream into messages by Content-Length (RFC 3261 §18.3) and finds CRLF keep-alives between them. What comes out does not depend on how the
 * stream was cut into chunks; so a double CRLF is a `pong` and then a `ping`, because the first CRLF may be all there is.
 *
 * Holds at most one unfinished message of `maxMessageBytes`. A message that is whole in one chunk is a view of that chunk, not a copy.
 */
export class StreamFramer {
  readonly #limits: ParseLimits
  /** What is unfinished: `#held[0, #heldBytes)`. The buffer grows by doubling, so many small chunks cost linear time. */
  #held: Buffer = EMPTY
  #heldBytes = 0
  /** No empty line begins before this offset of the unfinished message. */
  #searchedTo = 0
  /** Bytes of the unfinished message, once its head is there; 0 before. */
  #messageBytes = 0
  #afterCrlf = false
  #broken = false

  constructor(limits: ParseLimits = DEFAULT_LIMITS) {
    this.#limits = limits
  }

  /** A fault came out; nothing more will. */
  get broken(): boolean {
    return this.#broken
  }

  /** Bytes that wait for the rest of their message. */
  get heldBytes(): number {
    return this.#heldBytes
  }

  push(chunk: Buffer): Framed[] {
    const out: Framed[] = []
    if (this.#broken) return out
    const owned = this.#heldBytes > 0
    if (owned) this.#append(chunk)
    const data = owned ? this.#held.subarray(0, this.#heldBytes) : chunk
    let at = 0
    while (at < data.length) {
      if (data[at] === CR && this.#messageBytes === 0) {
        if (at + 1 === data.length) break
        if (data[at + 1] === LF) {
          out.push({ kind: this.#afterCrlf ? 'ping' : 'pong' })
          this.#afterCrlf = !this.#afterCrlf
          at += 2
          continue
        }
      }
      this.#afterCrlf = false
      if (this.#messageBytes === 0) {
        const measured = this.#measure(data.subarray(at))
        if (typeof measured !== 'number') {
          out.push({ kind: 'fault', fault: measured })
          this.#broken = true
          this.#held = EMPTY
          this.#heldBytes = 0
          return out
        }
        this.#messageBytes = measured
      }
      if (this.#messageBytes === 0 || at + this.#messageBytes > data.length) break
      const bytes = data.subarray(at, at + this.#messageBytes)
      out.push({ kind: 'message', bytes: owned ? Buffer.from(bytes) : bytes })
      at += this.#messageBytes
      this.#messageBytes = 0
      this.#searchedTo = 0
    }
    this.#keep(data, at, owned)
    return out
  }

  /** Bytes of the message that `bytes` begins with; 0 while its head is not complete. */
  #measure(bytes: Buffer): number | ParseFault {
    const { maxHeaderBytes, maxMessageBytes } = this.#limits
    const within = bytes.length > maxHeaderBytes ? bytes.subarray(0, maxHeaderBytes) : bytes
    const blank = within.indexOf('\r\n\r\n', this.#searchedTo, 'latin1')
    if (blank < 0 && bytes.length <= maxHeaderBytes) {
      this.#searchedTo = Math.max(0, bytes.length - 3)
      return 0
    }
    const head = parseHead(bytes, this.#limits)
    if (!head.ok) return head.fault
    const { message, bodyAt, contentLength } = head.value
    // §20.14: a stream has no other end of a message.
    if (contentLength < 0) return answerable(message, 400, 'SIP_CONTENT_LENGTH', 'no Content-Length on a stream', bodyAt)
    if (bodyAt + contentLength > maxMessageBytes) {
      return answerable(message, 513, 'SIP_TOO_LARGE', `more than ${maxMessageBytes} bytes`, maxMessageBytes)
    }
    return bodyAt + contentLength
  }

  #append(chunk: Buffer): void {
    this.#reserve(this.#heldBytes + chunk.length)
    chunk.copy(this.#held, this.#heldBytes)
    this.#heldBytes += chunk.length
  }

  /** Holds `data[at…]` for the next chunk. */
  #keep(data: Buffer, at: number, owned: boolean): void {
    const left = data.length - at
    if (left === 0) this.#held = EMPTY
    else if (!owned) {
      this.#reserve(left)
      data.copy(this.#held, 0, at)
    } else if (at > 0) this.#held.copyWithin(0, at, data.length)
    this.#heldBytes = left
  }

  #reserve(bytes: number): void {
    if (this.#held.length >= bytes) return
    const grown = Buffer.allocUnsafeSlow(Math.max(bytes, this.#messageBytes, this.#held.length * 2))
    this.#held.copy(grown, 0, 0, this.#heldBytes)
    this.#held = grown
  }
}

const EMPTY: Buffer = Buffer.alloc(0)
