import type { Verdict } from './verdict.ts'

/** What survives a restart: a cold start uses it until a majority is heard. JSON as it is. */
export interface SavedView {
  readonly version: 1
  readonly serial: number
  readonly regions: Readonly<Record<string, Verdict>>
  readonly nodes: Readonly<Record<string, Verdict>>
}

const isVerdict = (value: unknown): value is Verdict => value === 'alive' || value === 'dead' || value === 'unknown'
const isVerdictTable = (value: unknown): value is Record<string, Verdict> =>
  typeof value === 'object' && value !== null && Object.values(value).every(isVerdict)

/** A saved view from parsed JSON, or undefined when it is not one (a damaged file is a cold start without a view, not a failure). */
export function readSavedView(value: unknown): SavedView | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { version, serial, regions, nodes } = value as Record<string, unknown>
  if (version !== 1 || !isVerdictTable(regions) || !isVerdictTable(nodes)) return undefined
  if (!Number.isSafeInteger(serial) || (serial as number) < 0 || (serial as number) >= 2 ** 32) return undefined
  return { version, serial: serial as number, regions, nodes }
}
