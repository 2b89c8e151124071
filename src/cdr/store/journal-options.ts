import type { Clock } from '../../base/clock.ts'
import type { NodeIdentity } from '../../base/ids.ts'
import type { Log } from '../../base/log.ts'
import type { Metrics } from '../../base/metrics.ts'
import type { OpenReport } from './own-log.ts'
import type { Damage } from './segment-directory.ts'

export interface CdrDurability {
  /** Copies on other nodes that make a part durable, besides the local disk. */
  readonly mirror: number
  /** `sync`: one of the copies must be in another region. */
  readonly remote: 'async' | 'sync'
}

export interface CdrJournalOptions {
  /** `<stateDirectory>/cdr`; created when it is not there. One process at a time. */
  readonly directory: string
  /** The incarnation names the chain: one that was used before is refused. */
  readonly self: NodeIdentity
  readonly log: Log
  readonly metrics: Metrics
  readonly clock: Clock
  readonly durability: CdrDurability
  /** When a part could be made durable nowhere: resolve with `durable: false`, or reject. */
  readonly policy: 'continue' | 'reject'
  /** How long mirrors, or a disk that stalls, are waited for; 500 unless given. */
  readonly mirrorTimeoutMs?: number
  /** Preallocated size of a segment; 4 MiB unless given. */
  readonly segmentBytes?: number
  /** Nodes that a cluster link is up to, now. */
  mirrors(): { siblings: string[]; remotes: string[] }
  /** Sends on channel 3 of the cluster link; false when there is no link or its queue is full. */
  sendToPeer(node: string, payload: Uint8Array): boolean
}

export interface CdrJournalStats {
  readonly healthy: boolean
  readonly incarnation: number
  /** Of this start's chain. */
  readonly commits: number
  readonly records: number
  /** Parts appended that are not settled. */
  readonly waiting: number
  readonly atRisk: number
  readonly failures: number
  readonly remoteLagCommits: number
  /** Chains being pulled back from mirrors. */
  readonly pulling: number
  readonly previous: OpenReport['previous']
  /** Damage of earlier starts; the node goes on, `cdr verify` says more. */
  readonly damage: readonly Damage[]
}
