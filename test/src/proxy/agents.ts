import type { SipMessage, SipRequest, SipResponse } from '../../../src/sip/message.ts'
import { makeResponse } from '../../../src/sip/respond.ts'
import { serialize } from '../../../src/sip/serialize.ts'
import type { World } from './world.ts'

export const CALLER = '127.0.0.1:6060'
export const NODES = ['us-east-1', 'us-east-2', 'eu-west-1']

export function register(world: World, node: string, user: string, at: string, extra = '', transport = 'UDP'): void {
  world.agent(at, () => {})
  world.send(
    at,
    node,
    `REGISTER sip:example.net SIP/2.0
Via: SIP/2.0/${transport} ${at};branch=z9hG4bKreg${user}${at.replace(/\W/g, '')}
Max-Forwards: 70
From: <sip:${user}@example.net>;tag=r
To: <sip:${user}@example.net>
Call-ID: reg-${user}-${at}
CSeq: 1 REGISTER
Contact: <sip:${user}@${at}>${extra}
Expires: 3600
Content-Length: 0

`,
  )
}

export const invite = (
  user: string,
  o: {
    branch?: string
    callId?: string
    tag?: string
    headers?: string
    via?: string
    contact?: string
    transport?: string
  } = {},
): string => `INVITE sip:${user}@example.net SIP/2.0
Via: SIP/2.0/${o.transport ?? 'UDP'} ${o.via ?? CALLER};branch=${o.branch ?? 'z9hG4bKinv1'}
Max-Forwards: 70
From: <sip:alice@example.net>;tag=${o.tag ?? 'a1'}
To: <sip:${user}@example.net>
Call-ID: ${o.callId ?? 'call-1'}
CSeq: 1 INVITE
Contact: <sip:alice@${o.contact ?? CALLER}>
${o.headers ?? ''}Content-Length: 0

`

/** A phone that answers INVITE as told and keeps what it got. */
export function phone(world: World, at: string, answer: (request: SipRequest) => number[]): SipRequest[] {
  const got: SipRequest[] = []
  world.agent(at, (message, from) => {
    if (message.kind !== 'request') return
    got.push(message)
    for (const status of answer(message)) {
      const response = makeResponse(message, status, undefined, `tag${at.slice(-4)}`)
      for (const line of message.headers.lines('Record-Route')) response.headers.append('Record-Route', line)
      if (message.method === 'INVITE') response.headers.set('Contact', `<sip:callee@${at}>`)
      world.send(at, `${from.remoteAddress}:${from.remotePort}`, serialize(response).toString('latin1'))
    }
  })
  return got
}

export function caller(world: World): SipMessage[] {
  const got: SipMessage[] = []
  world.agent(CALLER, (message) => got.push(message))
  return got
}
export const statuses = (messages: readonly SipMessage[]): number[] =>
  messages.flatMap((m) => (m.kind === 'response' ? [m.status] : []))

export function inDialog(
  method: string,
  answer: SipResponse,
  o: { cseq?: number; routes?: string[]; branch?: string; callId?: string; via?: string; transport?: string } = {},
): string {
  const routes = o.routes ?? answer.headers.values('Record-Route').reverse()
  return `${method} ${answer.headers.get('Contact')!.replace(/[<>]/g, '')} SIP/2.0
Via: SIP/2.0/${o.transport ?? 'UDP'} ${o.via ?? CALLER};branch=${o.branch ?? `z9hG4bK${method}${o.cseq ?? 2}`}
Max-Forwards: 70
${routes.map((r) => `Route: ${r}\n`).join('')}From: ${answer.headers.get('From')}
To: ${answer.headers.get('To')}
Call-ID: ${o.callId ?? answer.callId}
CSeq: ${o.cseq ?? 2} ${method}
Content-Length: 0

`
}

export const normal = (r: SipRequest): number[] => (r.method === 'INVITE' ? [180, 200] : r.method === 'ACK' ? [] : [200])
