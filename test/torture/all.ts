import type { TortureMessage } from './message.ts'
import { INVALID } from './rfc4475-invalid.ts'
import { SEMANTICS } from './rfc4475-semantics.ts'
import { VALID } from './rfc4475-valid.ts'
import { IPV6 } from './rfc5118.ts'

export const RFC4475: readonly TortureMessage[] = [...VALID, ...INVALID, ...SEMANTICS]
export const RFC5118: readonly TortureMessage[] = IPV6
export const ALL: readonly TortureMessage[] = [...RFC4475, ...RFC5118]

export function torture(name: string): TortureMessage {
  const found = ALL.find((m) => m.name === name)
  if (found === undefined) throw new Error(`no torture message ${name}`)
  return found
}
