import { type Logger, pino } from 'pino'

export type Log = Logger

/** A node's logger: JSON lines on standard error, a constant message with data in fields. Secrets never get here; the redaction is a second net. */
export const createLog = (fields: Record<string, unknown>, level = 'info'): Log =>
  pino(
    {
      level,
      base: fields,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: ['*.password', '*.secret', '*.authorization', '*.token'], censor: '[secret]' },
    },
    pino.destination({ dest: 2, sync: true }),
  )

export const silentLog: Log = pino({ level: 'silent' })

/**
 * At most one line per key and interval, with the number left out since: what an attacker can cause must not fill the disk. Bounded: past `maxKeys`
 * the table is cleared.
 */
export class LimitedLog {
  readonly #log: Log
  readonly #intervalMs: number
  readonly #maxKeys: number
  readonly #seen = new Map<string, { sinceMs: number; left: number }>()

  constructor(log: Log, intervalMs = 1000, maxKeys = 1000) {
    this.#log = log
    this.#intervalMs = intervalMs
    this.#maxKeys = maxKeys
  }

  warn(nowMs: number, key: string, fields: Record<string, unknown>, message: string): void {
    this.#write('warn', nowMs, key, fields, message)
  }

  error(nowMs: number, key: string, fields: Record<string, unknown>, message: string): void {
    this.#write('error', nowMs, key, fields, message)
  }

  #write(level: 'warn' | 'error', nowMs: number, key: string, fields: Record<string, unknown>, message: string): void {
    const seen = this.#seen.get(key)
    if (seen !== undefined && nowMs - seen.sinceMs < this.#intervalMs) {
      seen.left++
      return
    }
    if (this.#seen.size >= this.#maxKeys) this.#seen.clear()
    this.#seen.set(key, { sinceMs: nowMs, left: 0 })
    this.#log[level](seen?.left ? { ...fields, leftOut: seen.left } : fields, message)
  }
}
