import { SeededRandom } from '../../../src/base/prng.ts'
import type { Flow } from '../../../src/sip/flow.ts'
import { checkMessage, type SipMessage, type SipRequest, type SipResponse } from '../../../src/sip/message.ts'
import { parseMessage } from '../../../src/sip/parse.ts'
import { makeResponse } from '../../../src/sip/respond.ts'
import { TransactionLayer, type TransactionOutput } from '../../../src/transaction/layer.ts'
import type { Machine, TransactionTimers } from '../../../src/transaction/machine.ts'

export const TIMERS: TransactionTimers = { t1Ms: 500, t2Ms: 4000, t4Ms: 5000, timerDMs: 32_000 }

export const UDP: Flow = {
  transport: 'udp',
  localAddress: '127.0.1.1',
  localPort: 5060,
  remoteAddress: '192.0.2.9',
  remotePort: 5070,
}
export const TCP: Flow = { ...UDP, transport: 'tcp', connectionId: 7 }

/** A layer on a virtual clock that starts at 0; what it puts out is kept with its time. */
export class Rig {
  nowMs = 0
  readonly layer: TransactionLayer
  #seen: { atMs: number; output: TransactionOutput }[] = []

  constructor(maxTransactions = 1000) {
    this.layer = new TransactionLayer({
      timers: TIMERS,
      sentBy: (flow) => `${flow.localAddress}:${flow.localPort}`,
      random: new SeededRandom(1),
      maxTransactions,
    })
  }

  /** Lets `ms` pass, waking the layer exactly when it asks for it. */
  pass(ms: number): void {
    this.#drain()
    const endMs = this.nowMs + ms
    for (let at = this.layer.nextTimeoutMs(); at !== undefined && at <= endMs; at = this.layer.nextTimeoutMs()) {
      this.nowMs = Math.max(this.nowMs, at)
      this.layer.handleTimeout(this.nowMs)
      this.#drain()
    }
    this.nowMs = endMs
  }

  /** Outputs since the last call. */
  take(): TransactionOutput[] {
    this.#drain()
    const taken = this.#seen.map((s) => s.output)
    this.#seen = []
    return taken
  }

  /** Outputs since the last call as `ms kind` or, where bytes go out, `ms first-line`. */
  story(): string[] {
    this.#drain()
    const lines = this.#seen.map(({ atMs, output }) => `${atMs} ${textOf(output)}`)
    this.#seen = []
    return lines
  }

  receive(text: string, flow: Flow = UDP): void {
    const message = read(text)
    if (message.kind === 'request') this.layer.handleRequest(message, flow, this.nowMs)
    else this.layer.handleResponse(message, flow, this.nowMs)
  }

  /** Gives a request in and returns what the TU got for it. */
  incoming(text: string, flow: Flow = UDP): Extract<TransactionOutput, { kind: 'request' }> {
    this.receive(text, flow)
    const found = this.take().find((o) => o.kind === 'request')
    if (found?.kind !== 'request') throw new Error('the request did not come out')
    return found
  }

  /** Starts a client transaction and returns its id, the request as sent, and its branch. */
  outgoing(method: string, flow: Flow = UDP): { id: number; request: SipRequest; text: string } {
    const request = requestOf(method)
    request.headers.remove('Via')
    const id = this.layer.request(request, flow, this.nowMs)
    const sent = this.take()[0]
    if (sent?.kind !== 'send') throw new Error('the request was not sent')
    return { id, request: read(sent.bytes.toString('latin1')) as SipRequest, text: sent.bytes.toString('latin1') }
  }

  answer(request: SipRequest, status: number, flow: Flow = UDP): void {
    this.layer.handleResponse(responseTo(request, status), flow, this.nowMs)
  }

  #drain(): void {
    for (const output of this.layer.takeOutputs()) this.#seen.push({ atMs: this.nowMs, output })
  }
}

export function textOf(output: TransactionOutput): string {
  if (output.kind === 'send')
    return `> ${output.bytes
      .toString('latin1')
      .split('\r\n')[0]!
      .replace('SIP/2.0 ', '')
      .replace(/ sip:.*/, '')}`
  if (output.kind === 'request') return `request ${output.request.method}`
  return output.kind === 'response' ? `response ${output.response.status}` : output.kind
}

export function read(text: string): SipMessage {
  const parsed = parseMessage(Buffer.from(text, 'latin1'))
  if (!parsed.ok) throw new Error(parsed.fault.detail)
  const wrong = checkMessage(parsed.value)
  if (wrong !== undefined) throw new Error(wrong.detail)
  return parsed.value
}

export const requestOf = (method: string): SipRequest => read(textRequest(method)) as SipRequest

/** What comes back: made of the request as it was sent. */
export const responseTo = (request: SipRequest, status: number): SipResponse =>
  read(
    `SIP/2.0 ${status} Text\r\n${[...makeResponse(request, status, 'Text', 'callee').headers.entries()]
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join('')}Content-Length: 0\r\n\r\n`,
  ) as SipResponse

export interface RequestText {
  readonly via?: string
  readonly toTag?: string
  readonly extra?: string
}

/** A request as a phone would send it. */
export const textRequest = (method: string, o: RequestText = {}): string =>
  `${method} sip:bob@example.net SIP/2.0\r\n` +
  `Via: ${o.via ?? 'SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKone'}\r\n` +
  `Max-Forwards: 70\r\nFrom: <sip:alice@example.net>;tag=a\r\nTo: <sip:bob@example.net>${o.toTag === undefined ? '' : `;tag=${o.toTag}`}\r\n` +
  `Call-ID: call-1\r\nCSeq: 4711 ${method}\r\n${o.extra ?? ''}Content-Length: 0\r\n\r\n`

/** Every cell that does more than stay, as `state event -> next: clear/arm, actions`; the rest must do nothing. */
export function cells<S extends string, E extends string, T extends string>(machine: Machine<S, E, T>): string[] {
  const found: string[] = []
  for (const [state, row] of Object.entries(machine.table) as [S, Record<E, Machine<S, E, T>['start']>][]) {
    for (const [event, step] of Object.entries(row) as [E, Machine<S, E, T>['start']][]) {
      if (step.to === state && step.actions.length + step.arm.length + step.clear.length === 0) continue
      const clear = step.clear.map((timer) => ` -${timer}`).join('')
      const arm = step.arm.map((timer) => ` +${timer}`).join('')
      found.push(`${state} ${event} -> ${step.to}${clear}${arm} [${step.actions.join(' ')}]`)
    }
  }
  return found
}
