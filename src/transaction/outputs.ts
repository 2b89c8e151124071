import type { Flow } from '../sip/flow.ts'
import type { SipRequest, SipResponse } from '../sip/message.ts'

/** A client transaction of one layer; never used twice, never 0, never equal to a `ServerId`. */
export type ClientId = number
/** A server transaction of one layer; 0 stands for "no transaction" (an ACK). */
export type ServerId = number

/**
 * What the layer wants done or known, in order. An id's last output is `terminated` (except after `drop`).
 *
 * `send`: to the transport; `id` names the transaction that a failed send is told about (`handleSendError`), 0 when none.
 * `request`: new to the TU. An ACK has id 0: it is for a 2xx, or fits nothing. A CANCEL names the INVITE that it cancels, if there is one; the TU
 * answers both.
 * `response`: every 1xx, the final one, and every 2xx to an INVITE that follows it. Our Via is still on top; the ACK to 300-699 is sent already.
 * `timeout`: Timer B or F. `transportError`: the request could not be sent. `ackTimeout`: Timer H. `serverTimeout`: the TU did not answer.
 * `serverTransportError`: a response could not be sent; the transaction goes on (RFC 6026 §7.1), the TU has nothing to do (RFC 3261 §16.9).
 * `strayResponse`: fits no client transaction; RFC 6026 §8.9 has a proxy drop it. `overload`: a request was answered 503 here.
 * `refused`: a request whose branch lacks the cookie (RFC 2543) was answered 400 here.
 */
export type TransactionOutput =
  | { readonly kind: 'send'; readonly bytes: Buffer; readonly flow: Flow; readonly id: ClientId | ServerId }
  | {
      readonly kind: 'request'
      readonly id: ServerId
      readonly request: SipRequest
      readonly flow: Flow
      readonly invite: ServerId | undefined
    }
  | { readonly kind: 'response'; readonly id: ClientId; readonly response: SipResponse; readonly flow: Flow }
  | { readonly kind: 'timeout'; readonly id: ClientId }
  | { readonly kind: 'transportError'; readonly id: ClientId }
  | { readonly kind: 'ackTimeout'; readonly id: ServerId }
  | { readonly kind: 'serverTimeout'; readonly id: ServerId }
  | { readonly kind: 'serverTransportError'; readonly id: ServerId }
  | { readonly kind: 'terminated'; readonly id: ClientId | ServerId }
  | { readonly kind: 'strayResponse'; readonly response: SipResponse; readonly flow: Flow }
  | { readonly kind: 'overload'; readonly request: SipRequest; readonly flow: Flow }
  | { readonly kind: 'refused'; readonly request: SipRequest; readonly flow: Flow }
