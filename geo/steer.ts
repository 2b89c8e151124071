import { rendezvous } from '../src/base/ids.ts'
import type { Verdict } from './verdict.ts'
import type { Zone, ZoneNode, ZoneRegion } from './zone.ts'

/** What a name server knows when it answers: the shared verdict, its own node's evidence, and who is withdrawn. `HealthCore.view()` is one. */
export interface ZoneView {
  /** The region and node that answer. */
  readonly region: string
  readonly node: string
  /** 0 before the core has been told the time. */
  readonly serial: number
  /** The shared verdicts by name. */
  readonly regions: Readonly<Record<string, Verdict>>
  readonly nodes: Readonly<Record<string, Verdict>>
  /** What this node itself sees, by node name. */
  readonly evidence: Readonly<Record<string, Verdict>>
  /** Regions and nodes that get no new traffic (draining, maintenance, forced off). */
  readonly withdrawn?: ReadonlySet<string>
}

/** One asking client as the zone sees it. */
export interface Asker {
  readonly zone: Zone
  readonly view: ZoneView
  /** The asking region: by the client's address, else the one that answers. */
  readonly region: ZoneRegion
}

export function askerOf(zone: Zone, view: ZoneView, clientAddress: string): Asker {
  const name = zone.clients.regionOf(clientAddress) ?? view.region
  const region = zone.regions.get(name) ?? zone.regions.get(view.region) ?? firstOf(zone)
  return { zone, view, region }
}

const firstOf = (zone: Zone): ZoneRegion => zone.regions.values().next().value as ZoneRegion

/**
 * Whether an answer should send this client to that node.
 *
 * - Of our own region only our own evidence counts: a region that was cut off is dead to the majority, and goes on serving those who still reach it.
 * - Of other regions the shared verdict counts; and where the client is of our own region our evidence too, because what this node cannot reach its
 *   neighbours cannot reach either, most likely.
 * - Unknown is never dead.
 */
export function isUp(asker: Asker, node: ZoneNode): boolean {
  const { zone, view } = asker
  const region = zone.regionOfNode.get(node.name)?.name ?? ''
  if (view.withdrawn?.has(node.name) || view.withdrawn?.has(region)) return false
  if (node.name === view.node) return true
  const evidence = view.evidence[node.name] ?? 'unknown'
  if (region === view.region) return evidence === 'alive' || (evidence === 'unknown' && view.nodes[node.name] !== 'dead')
  if (view.nodes[node.name] === 'dead' || view.regions[region] === 'dead') return false
  return !(asker.region.name === view.region && evidence === 'dead')
}

export interface RankedRegion {
  readonly region: ZoneRegion
  /** Nodes that are up, by name; empty for a region that is down. */
  readonly up: readonly ZoneNode[]
  readonly down: readonly ZoneNode[]
}

/** All regions in the order in which this client should try them: those with a node that is up by the asking region's order, then the others. */
export function rankRegions(asker: Asker, order: readonly string[] = asker.region.order): RankedRegion[] {
  const ranked = order.flatMap((name) => {
    const region = asker.zone.regions.get(name)
    return region === undefined ? [] : [rank(asker, region)]
  })
  return [...ranked.filter((r) => r.up.length > 0), ...ranked.filter((r) => r.up.length === 0)]
}

export function rank(asker: Asker, region: ZoneRegion): RankedRegion {
  const nodes = [...region.nodes].sort((a, b) => (a.name < b.name ? -1 : 1))
  return { region, up: nodes.filter((n) => isUp(asker, n)), down: nodes.filter((n) => !isUp(asker, n)) }
}

/** Where short-lived addresses point: all nodes that are up in the first region that has one. Everything looks dead: the first region, all of it. */
export function steer(asker: Asker, order?: readonly string[]): readonly ZoneNode[] {
  const first = rankRegions(asker, order)[0]
  if (first === undefined) return []
  return first.up.length > 0 ? first.up : first.down
}

/**
 * The node whose address a node's name has: its own while it is up, else a sibling's, else one of the next region, by rendezvous so that every server
 * picks the same; its own again when nothing is up.
 */
export function standIn(asker: Asker, node: ZoneNode): ZoneNode {
  if (isUp(asker, node)) return node
  const home = asker.zone.regionOfNode.get(node.name)
  if (home === undefined) return node
  const siblings = rank(asker, home).up
  const candidates = siblings.length > 0 ? siblings : (rankRegions(asker, home.order)[0]?.up ?? [])
  return rendezvous(node.name, candidates, (n) => n.name) ?? node
}
