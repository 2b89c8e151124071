import type { ClusterTargets } from '../../config/load.ts'

/** Where the nodes of the demo listen, and what of their configuration that changes. */
export interface PlannedNode {
  readonly region: string
  readonly node: string
  readonly address: string
  readonly sipPort: number
  readonly adminPort: number
  readonly dnsPort: number
  readonly linkPort: number
}
export interface DemoPlan {
  readonly nodes: readonly PlannedNode[]
  /** `path=value` for every node, so that all agree. */
  readonly overrides: readonly string[]
}

/** Node n takes its usual ports + 100 n; no two of 5060, 5353, 7060 and 8060 meet for up to 15 nodes. */
export const PORT_STEP = 100
const PORTS = ['sipPort', 'adminPort', 'dnsPort', 'linkPort'] as const

/**
 * @param single all nodes on this one address, each with ports of its own, because a host (macOS) has no other loopback address; undefined: as
 * the configuration has them
 */
export function planDemo(nodes: ClusterTargets['nodes'], single: string | undefined): DemoPlan {
  const overrides: string[] = []
  const planned = nodes.map(({ region, node }, i): PlannedNode => {
    const { name, ...rest } = node
    if (single === undefined) return { region, node: name, ...rest }
    const path = `cluster.regions.${region}.nodes.${name}`
    overrides.push(`${path}.address="${single}"`)
    const ports = { sipPort: 0, adminPort: 0, dnsPort: 0, linkPort: 0 }
    for (const port of PORTS) {
      ports[port] = rest[port] + PORT_STEP * i
      overrides.push(`${path}.${port}=${ports[port]}`)
    }
    return { region, node: name, address: single, ...ports }
  })
  return { nodes: planned, overrides }
}
