import type { ClusterConstants } from '../../crdt/entry.ts'

/** The cluster constants of config/examples. */
export const CONSTANTS: ClusterConstants = {
  bucketWidthMs: 600_000,
  longestExpiryMs: 7_200_000,
  windowMs: 64_000,
  driftBoundMs: 500,
  graceMs: 90_000,
  rebootGuardMs: 5000,
}
