/**
 * The one class of operational failures. `code` is stable and listed in docs/errors.md: `SIP_…`, `REG_…`, `CRDT_…`, `GEO_…`, `CDR_…`, `CFG_…`,
 * `NET_…`. Bad input from the network is never thrown: it is a value (`Fault`), counted, and answered.
 */
export class AntipodeError extends Error {
  readonly code: string

  constructor(code: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'AntipodeError'
    this.code = code
  }
}

/** Bad input as a value: what was wrong and where. */
export interface Fault {
  readonly code: string
  /** Byte offset in the input, or -1 where no single place is to blame. */
  readonly offset: number
  readonly detail: string
}

export const fault = (code: string, detail: string, offset = -1): Fault => ({ code, offset, detail })

/** A value or a fault; `ok` tells which. */
export type Result<T, F = Fault> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly fault: F }

export const good = <T>(value: T): { readonly ok: true; readonly value: T } => ({ ok: true, value })
export const bad = <F>(f: F): { readonly ok: false; readonly fault: F } => ({ ok: false, fault: f })

/** A broken invariant is our own defect: say which, and stop. */
export function invariant(condition: unknown, what: string): asserts condition {
  if (!condition) throw new AntipodeError('INVARIANT', `broken invariant: ${what}`)
}
