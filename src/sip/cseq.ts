import { bad, fault, good, type Result } from '../base/errors.ts'
import { decimal, isSpaceCode, isToken } from './chars.ts'

export interface CSeq {
  seq: number
  method: string
}

/** RFC 3261 §8.1.1.5: "MUST be less than 2**31". */
const MAX_CSEQ = 2 ** 31 - 1

/** `CSeq: 1*DIGIT LWS Method`; `SIP_CSEQ` when it is not that or out of range. */
export function parseCSeq(text: string): Result<CSeq> {
  let i = 0
  while (i < text.length && !isSpaceCode(text.charCodeAt(i))) i++
  const seq = decimal(text.slice(0, i), MAX_CSEQ)
  if (seq < 0) return bad(fault('SIP_CSEQ', 'not a number below 2^31', 0))
  while (isSpaceCode(text.charCodeAt(i))) i++
  const method = text.slice(i)
  if (!isToken(method)) return bad(fault('SIP_CSEQ', 'no method', i))
  return good({ seq, method })
}
