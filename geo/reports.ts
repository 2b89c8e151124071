import { bad, type Fault, fault, good, type Result } from '../src/base/errors.ts'
import type { Verdict } from './verdict.ts'

/**
 * The message of channel 2: a node's own report and the newest ones that it knows of others, so that they cross a WAN where only some pairs of nodes
 * are linked. JSON, because it is small and people read it in a capture:
 *
 *   {"v":1, "serial":u32, "names":[node, …], "reports":[[observer, incarnation, seq, ageMs, "adu…"], …]}
 *
 * `observer` is an index into `names`; the last string has one letter for each name, in order: what the observer says of it (a alive, d dead,
 * u unknown). `ageMs` is how long the sender has known of that seq, plus the age it came with: a duration, so wall clocks are never compared.
 */
export interface Report {
  readonly node: string
  readonly incarnation: number
  readonly seq: number
  readonly ageMs: number
  readonly evidence: ReadonlyMap<string, Verdict>
}

export interface ReportMessage {
  /** Highest zone serial that the sender knows; 0 for none. */
  readonly serial: number
  readonly reports: readonly Report[]
}

export const REPORT_VERSION = 1
export const MAX_REPORT_BYTES = 262_144
export const MAX_REPORT_NAMES = 512
const MAX_NAME_LENGTH = 253

const LETTER: Readonly<Record<Verdict, string>> = { alive: 'a', dead: 'd', unknown: 'u' }
const MEANING: Readonly<Record<string, Verdict>> = { a: 'alive', d: 'dead', u: 'unknown' }

/** Names that `names` lacks are left out of a report. */
export function encodeReports(message: ReportMessage, names: readonly string[]): Uint8Array {
  const index = new Map(names.map((name, i) => [name, i]))
  const reports = message.reports
    .filter((report) => index.has(report.node))
    .map((r) => [
      index.get(r.node),
      r.incarnation,
      r.seq,
      Math.max(0, Math.round(r.ageMs)),
      names.map((name) => LETTER[r.evidence.get(name) ?? 'unknown']).join(''),
    ])
  return Buffer.from(JSON.stringify({ v: REPORT_VERSION, serial: message.serial, names, reports }), 'utf8')
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

/** @returns the message, or a fault: GEO_REPORT_SIZE, GEO_REPORT_VERSION, GEO_REPORT_MALFORMED. */
export function decodeReports(bytes: Uint8Array): Result<ReportMessage> {
  if (bytes.byteLength > MAX_REPORT_BYTES) return bad(fault('GEO_REPORT_SIZE', `${bytes.byteLength} bytes`))
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'))
  } catch (error) {
    return bad(malformed(error instanceof Error ? error.message : 'not JSON'))
  }
  if (typeof value !== 'object' || value === null) return bad(malformed('not an object'))
  const { v, serial, names, reports } = value as Record<string, unknown>
  if (v !== REPORT_VERSION)
    return bad(fault('GEO_REPORT_VERSION', `version ${typeof v === 'number' ? v : typeof v}, ours is ${REPORT_VERSION}`))
  if (!isCount(serial) || serial >= 2 ** 32) return bad(malformed('serial'))
  if (!Array.isArray(names) || names.length > MAX_REPORT_NAMES) return bad(malformed('names'))
  if (!names.every((name) => typeof name === 'string' && name.length > 0 && name.length <= MAX_NAME_LENGTH))
    return bad(malformed('a name'))
  if (new Set(names).size !== names.length) return bad(malformed('a name twice'))
  if (!Array.isArray(reports) || reports.length > names.length) return bad(malformed('reports'))
  const decoded: Report[] = []
  for (const item of reports) {
    const report = decodeReport(item, names)
    if (report === undefined) return bad(malformed(`report ${decoded.length}`))
    decoded.push(report)
  }
  return good({ serial, reports: decoded })
}

const malformed = (detail: string): Fault => fault('GEO_REPORT_MALFORMED', detail.slice(0, 200))

function decodeReport(item: unknown, names: readonly string[]): Report | undefined {
  if (!Array.isArray(item) || item.length !== 5) return undefined
  const [observer, incarnation, seq, ageMs, letters] = item as unknown[]
  if (!isCount(observer) || !isCount(incarnation) || !isCount(seq) || !isCount(ageMs)) return undefined
  const node = names[observer]
  if (node === undefined || typeof letters !== 'string' || letters.length !== names.length) return undefined
  const evidence = new Map<string, Verdict>()
  for (const [i, name] of names.entries()) {
    const meaning = MEANING[letters[i] as string]
    if (meaning === undefined) return undefined
    evidence.set(name, meaning)
  }
  return { node, incarnation, seq, ageMs, evidence }
}
