import type { SipResponse } from '../sip/message.ts'

/**
 * The best of the final responses that a fork's branches gave (RFC 3261 §16.7 step 6): any 6xx, else the lowest class; within 4xx those that tell the
 * caller how to do better come first. Undefined when there is none.
 */
export function bestResponse(finals: readonly SipResponse[]): SipResponse | undefined {
  let best: SipResponse | undefined
  for (const response of finals) if (best === undefined || rank(response.status) < rank(best.status)) best = response
  return best
}

/** Statuses that affect resubmission: §16.7 step 6 names these. */
const HELPFUL: readonly number[] = [401, 407, 415, 420, 484]

function rank(status: number): number {
  if (status >= 600) return 0
  const within = HELPFUL.includes(status) ? 0 : status === 408 || status === 503 ? 2 : 1
  // 503 says nothing about the other branches; a real answer of 5xx is better (§16.7: "SHOULD NOT forward 503").
  return Math.floor(status / 100) * 10 + within
}

/** §16.7 step 7: challenges of all branches go back together. */
export function gatherChallenges(best: SipResponse, finals: readonly SipResponse[]): void {
  if (best.status !== 401 && best.status !== 407) return
  for (const other of finals) {
    if (other === best || (other.status !== 401 && other.status !== 407)) continue
    for (const name of ['WWW-Authenticate', 'Proxy-Authenticate'])
      for (const line of other.headers.lines(name)) best.headers.append(name, line)
  }
}
