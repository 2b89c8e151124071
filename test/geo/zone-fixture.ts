import type { ZoneView } from '../../geo/steer.ts'
import type { Verdict } from '../../geo/verdict.ts'
import { buildZone, type Zone, type ZoneRegionSettings } from '../../geo/zone.ts'

/** The zone of the demo: three regions of two nodes, addresses 127.0.region.node. */
export const REGIONS: readonly ZoneRegionSettings[] = ['us-east', 'eu-west', 'ap-south'].map((name, r) => ({
  name,
  cidrs: [`127.0.${r + 1}.0/24`],
  nodes: [1, 2].map((n) => ({ name: `${name}-${n}`, address: `127.0.${r + 1}.${n}`, sipPort: 5060 })),
}))

export const SETTINGS = { origin: 'example.net', hostmaster: 'hostmaster.example.net', ttlSrvS: 3600, ttlAddressS: 5 }

export const demoZone = (): Zone => buildZone(SETTINGS, REGIONS)

export interface ViewOptions {
  readonly at?: string
  /** Names that are dead by verdict. */
  readonly dead?: readonly string[]
  /** Nodes that this one cannot reach. */
  readonly unreachable?: readonly string[]
  readonly withdrawn?: readonly string[]
  /** Everything is unknown: a start. */
  readonly cold?: boolean
}

/** What a node of the demo knows; `at` is the node that answers. */
export function viewOf(options: ViewOptions = {}): ZoneView {
  const node = options.at ?? 'us-east-1'
  const verdict = (name: string): Verdict => (options.dead?.includes(name) ? 'dead' : options.cold ? 'unknown' : 'alive')
  const nodes = REGIONS.flatMap((r) => r.nodes.map((n) => n.name))
  return {
    region: node.slice(0, -2),
    node,
    serial: 4711,
    regions: Object.fromEntries(REGIONS.map((r) => [r.name, verdict(r.name)])),
    nodes: Object.fromEntries(nodes.map((n) => [n, verdict(n)])),
    evidence: Object.fromEntries(
      nodes.map((n) => [n, options.unreachable?.includes(n) ? 'dead' : options.cold && n !== node ? 'unknown' : 'alive']),
    ),
    ...(options.withdrawn === undefined ? {} : { withdrawn: new Set(options.withdrawn) }),
  }
}
