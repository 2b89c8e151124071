import { AntipodeError, bad, fault, type Result } from '../base/errors.ts'
import { type CSeq, parseCSeq } from './cseq.ts'
import { Headers } from './headers.ts'
import { type NameAddr, parseNameAddr, parseUri, parseVia, type SipUri, type Via } from './uri.ts'

export { checkMessage } from './check.ts'
export type { CSeq } from './cseq.ts'

export const EMPTY_BODY: Buffer = Buffer.alloc(0)

/** A parsed form and the text that it was made from. */
interface Memo<T> {
  readonly text: string | undefined
  readonly result: Result<T>
}

/**
 * What requests and responses share: headers, body, and the parsed forms of the headers that every element needs. A parsed form is made when it is
 * first asked for and kept as long as the header's text stays the same. It belongs to the message: change the header's text, not the parsed form.
 *
 * `parsedX` gives the result or what is wrong; `x` throws `SIP_HEADER_MALFORMED` where the header is missing or malformed, which it cannot be
 * after `checkMessage` returned undefined.
 */
abstract class MessageBase {
  readonly headers: Headers
  body: Buffer
  #cseq: Memo<CSeq> | undefined
  #from: Memo<NameAddr> | undefined
  #to: Memo<NameAddr> | undefined
  #via: Memo<Via> | undefined

  constructor(headers: Headers, body: Buffer) {
    this.headers = headers
    this.body = body
  }

  get callId(): string {
    const text = this.headers.get('Call-ID')
    if (text === undefined) throw new AntipodeError('SIP_HEADER_MALFORMED', 'Call-ID missing')
    return text
  }

  get parsedCSeq(): Result<CSeq> {
    const text = this.headers.get('CSeq')
    if (this.#cseq === undefined || this.#cseq.text !== text) this.#cseq = memo('CSeq', text, parseCSeq)
    return this.#cseq.result
  }

  get parsedFrom(): Result<NameAddr> {
    const text = this.headers.get('From')
    if (this.#from === undefined || this.#from.text !== text) this.#from = memo('From', text, parseNameAddr)
    return this.#from.result
  }

  get parsedTo(): Result<NameAddr> {
    const text = this.headers.get('To')
    if (this.#to === undefined || this.#to.text !== text) this.#to = memo('To', text, parseNameAddr)
    return this.#to.result
  }

  get parsedTopVia(): Result<Via> {
    const text = this.headers.firstValue('Via')
    if (this.#via === undefined || this.#via.text !== text) this.#via = memo('Via', text, parseVia)
    return this.#via.result
  }

  get cseq(): CSeq {
    return unwrap('CSeq', this.parsedCSeq)
  }

  get from(): NameAddr {
    return unwrap('From', this.parsedFrom)
  }

  get to(): NameAddr {
    return unwrap('To', this.parsedTo)
  }

  /** '' when there is none. */
  get fromTag(): string {
    return this.from.params.get('tag') ?? ''
  }

  /** '' when there is none. */
  get toTag(): string {
    return this.to.params.get('tag') ?? ''
  }

  get topVia(): Via {
    return unwrap('Via', this.parsedTopVia)
  }
}

export class SipRequest extends MessageBase {
  readonly kind = 'request' as const
  method: string
  /** The Request-URI as text. */
  uri: string
  #uri: Memo<SipUri> | undefined

  constructor(method: string, uri: string, headers: Headers = new Headers(), body: Buffer = EMPTY_BODY) {
    super(headers, body)
    this.method = method
    this.uri = uri
  }

  /** The Request-URI, parsed once. */
  get parsedUri(): Result<SipUri> {
    if (this.#uri === undefined || this.#uri.text !== this.uri) this.#uri = memo('Request-URI', this.uri, parseUri)
    return this.#uri.result
  }

  /** Headers of its own, the same body bytes. */
  copy(): SipRequest {
    return new SipRequest(this.method, this.uri, this.headers.copy(), this.body)
  }
}

export class SipResponse extends MessageBase {
  readonly kind = 'response' as const
  status: number
  reason: string

  constructor(status: number, reason: string, headers: Headers = new Headers(), body: Buffer = EMPTY_BODY) {
    super(headers, body)
    this.status = status
    this.reason = reason
  }

  /** Headers of its own, the same body bytes. */
  copy(): SipResponse {
    return new SipResponse(this.status, this.reason, this.headers.copy(), this.body)
  }
}

export type SipMessage = SipRequest | SipResponse

const memo = <T>(name: string, text: string | undefined, parse: (text: string) => Result<T>): Memo<T> => ({
  text,
  result: text === undefined ? bad(fault('SIP_HEADER_MISSING', `${name} missing`)) : parse(text),
})

function unwrap<T>(name: string, result: Result<T>): T {
  if (result.ok) return result.value
  throw new AntipodeError('SIP_HEADER_MALFORMED', `${name}: ${result.fault.detail}`)
}
