import type { ClusterConstants, DialogEntry, Entry } from '../../crdt/entry.ts'
import type { DocName, Frame } from '../../crdt/frames.ts'
import { Replica } from '../../crdt/replica.ts'
import { HLC_PER_MS } from '../../src/base/hlc.ts'
import { makeBinding, makeDialog } from './model.ts'

/** What the tests of docs and of their wire have in common. */

export const CONSTANTS: ClusterConstants = {
  bucketWidthMs: 1000,
  longestExpiryMs: 10_000,
  windowMs: 4000,
  driftBoundMs: 500,
  graceMs: 5000,
  rebootGuardMs: 100,
}
export const RETENTION_MS = CONSTANTS.longestExpiryMs + CONSTANTS.graceMs

export const REGIONS: Readonly<Record<string, string>> = {
  'us-east-1': 'us-east',
  'us-east-2': 'us-east',
  'eu-west-1': 'eu-west',
  'eu-west-2': 'eu-west',
  'ap-south-1': 'ap-south',
}
export const MEMBERS = Object.entries(REGIONS).map(([node, region]) => ({ region, node }))

export const NOW = 1_760_000_000_500
export const INCARNATION = 7 * 2 ** 32 + 12345

export const identity = (node: string, incarnation = INCARNATION) => ({ region: REGIONS[node]!, node, incarnation })

export const makeReplica = (node: string, incarnation = INCARNATION): Replica =>
  new Replica({ self: identity(node, incarnation), constants: CONSTANTS, regionOf: (name) => REGIONS[name] })

/** An entry as its author `us-east-1` stamps it: `tick` orders entries of one millisecond. */
export const binding = (ms: number, tick = 0, fields: Partial<Entry> = {}): Entry =>
  makeBinding({
    incarnation: INCARNATION,
    hlc: ms * HLC_PER_MS + tick,
    expiresAtMs: ms + 5000,
    cseq: tick + 1,
    ...(fields as object),
  })

export const dialog = (ms: number, tick = 0, fields: Partial<DialogEntry> = {}): Entry =>
  makeDialog({ incarnation: INCARNATION, hlc: ms * HLC_PER_MS + tick, ...fields })

/** `us-east-1` after it has written and flushed in batches of the given sizes; and the frames of each flush. */
export function author(batches: readonly number[], ms = NOW): { replica: Replica; frames: Frame[]; entries: Entry[] } {
  const replica = makeReplica('us-east-1')
  const entries: Entry[] = []
  const frames: Frame[] = []
  for (const size of batches) {
    for (let i = 0; i < size; i++) {
      const entry = binding(ms, entries.length)
      entries.push(entry)
      replica.append(entry)
    }
    frames.push(...replica.flush())
  }
  return { replica, frames, entries }
}

/** Everything by which two replicas can differ, as text. */
export const fingerprint = (r: Replica): string =>
  `${r.docCount} ${r.recordCount} ${r
    .digests()
    .map((d) => `${d.author.node}/${d.author.incarnation} ${d.docs} ${Buffer.from(d.sum).toString('hex')}`)
    .sort()
    .join(' ')}`

export const docName = (fields: Partial<DocName> = {}): DocName => ({
  ...identity('us-east-1'),
  kind: 'binding',
  bucket: Math.floor(NOW / CONSTANTS.bucketWidthMs),
  part: 0,
  ...fields,
})
