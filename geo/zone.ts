import { AntipodeError } from '../src/base/errors.ts'
import { ClientTable } from './clients.ts'

/** The `geo.dns` part of the configuration. */
export interface ZoneSettings {
  /** For example `example.net`; lower case, no dot at the end. */
  readonly origin: string
  /** `hostmaster.example.net`, or `hostmaster@example.net`. */
  readonly hostmaster: string
  /** SRV, NAPTR, NS: they list everything, in order, so they may live long. */
  readonly ttlSrvS: number
  /** A and AAAA: they steer, so they must be short. */
  readonly ttlAddressS: number
}

export interface ZoneNode {
  readonly name: string
  readonly address: string
  readonly sipPort: number
}

export interface ZoneRegionSettings {
  readonly name: string
  readonly cidrs: readonly string[]
  /** Names of other regions, nearest first; those left out follow by name. */
  readonly order?: readonly string[]
  readonly nodes: readonly ZoneNode[]
}

export interface ZoneRegion {
  readonly name: string
  /** All regions in the order in which this region's clients should try them, itself first. */
  readonly order: readonly string[]
  readonly nodes: readonly ZoneNode[]
}

export type Service = 'udp' | 'tcp'

/** What a name of the zone is. Names that only lie between others (`_udp`) exist too: they have no records, but are no NXDOMAIN (RFC 8020). */
export type ZoneName =
  | { readonly kind: 'apex' }
  | { readonly kind: 'steer' }
  | { readonly kind: 'service'; readonly service: Service }
  | { readonly kind: 'region'; readonly region: ZoneRegion }
  | { readonly kind: 'node'; readonly node: ZoneNode; readonly region: ZoneRegion }
  | { readonly kind: 'nodeService'; readonly node: ZoneNode; readonly region: ZoneRegion; readonly service: Service }
  | { readonly kind: 'nameServer'; readonly address: string }
  | { readonly kind: 'between' }

export interface Zone {
  readonly origin: string
  readonly settings: ZoneSettings
  readonly regions: ReadonlyMap<string, ZoneRegion>
  readonly regionOfNode: ReadonlyMap<string, ZoneRegion>
  /** Absolute names in lower case without a dot at the end. */
  readonly names: ReadonlyMap<string, ZoneName>
  readonly nameServers: readonly string[]
  readonly clients: ClientTable
}

const SERVICES: readonly Service[] = ['udp', 'tcp']
/** RFC 1035 §2.3.1 in lower case. */
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
/** More would not fit into a datagram beside what was asked for. */
const MAX_NAME_SERVERS = 8

/**
 * The zone as a table of names, from configuration. Every node is a name server; ns1 to ns8 are taken from the regions in turn, so that the first
 * ones lie apart.
 *
 * @throws AntipodeError GEO_ZONE_NAME (a name is no DNS label, or stands for two things), GEO_ZONE_REGION (an order names an unknown region, or no
 *   region is there), GEO_ZONE_CIDR.
 */
export function buildZone(settings: ZoneSettings, regionSettings: readonly ZoneRegionSettings[]): Zone {
  if (regionSettings.length === 0) throw new AntipodeError('GEO_ZONE_REGION', 'a zone needs a region')
  const origin = settings.origin.toLowerCase().replace(/\.$/, '')
  const at = (relative: string): string => (relative === '' ? origin : `${relative}.${origin}`)
  const regions = new Map(regionSettings.map((r) => [r.name, regionOf(r, regionSettings)]))
  const regionOfNode = new Map<string, ZoneRegion>()
  const names = new Map<string, ZoneName>()
  const put = (relative: string, name: ZoneName): void => {
    const full = at(relative)
    if (full.length > 253 || !relative.split('.').every((label) => LABEL.test(label.replace(/^_/, '')) || relative === ''))
      throw new AntipodeError(
        'GEO_ZONE_NAME',
        `${JSON.stringify(relative)} cannot be a name of ${origin}: letters, digits, hyphens`,
      )
    if (names.has(full)) throw new AntipodeError('GEO_ZONE_NAME', `${full} would stand for two things`)
    names.set(full, name)
  }

  put('', { kind: 'apex' })
  put('sip', { kind: 'steer' })
  for (const service of SERVICES) {
    put(`_${service}`, { kind: 'between' })
    put(`_sip._${service}`, { kind: 'service', service })
  }
  for (const region of regions.values()) {
    put(region.name, { kind: 'region', region })
    for (const node of region.nodes) {
      put(node.name, { kind: 'node', node, region })
      regionOfNode.set(node.name, region)
      for (const service of SERVICES) {
        put(`_${service}.${node.name}`, { kind: 'between' })
        put(`_sip._${service}.${node.name}`, { kind: 'nodeService', node, region, service })
      }
    }
  }
  const nameServers: string[] = []
  for (const node of inTurn([...regions.values()].map((r) => r.nodes)).slice(0, MAX_NAME_SERVERS)) {
    const relative = `ns${nameServers.length + 1}`
    put(relative, { kind: 'nameServer', address: node.address })
    nameServers.push(at(relative))
  }
  return { origin, settings, regions, regionOfNode, names, nameServers, clients: new ClientTable(regionSettings) }
}

function regionOf(settings: ZoneRegionSettings, all: readonly ZoneRegionSettings[]): ZoneRegion {
  const names = all.map((r) => r.name)
  const given = settings.order ?? []
  const stranger = given.find((name) => !names.includes(name))
  if (stranger !== undefined)
    throw new AntipodeError('GEO_ZONE_REGION', `the order of ${settings.name} names ${stranger}, which is no region`)
  return {
    name: settings.name,
    order: [...new Set([settings.name, ...given, ...names.sort()])],
    nodes: settings.nodes.map(({ name, address, sipPort }) => ({ name, address, sipPort })),
  }
}

/** First of each list, then second of each, and so on. */
function inTurn<T>(lists: readonly (readonly T[])[]): T[] {
  const longest = Math.max(0, ...lists.map((list) => list.length))
  return Array.from({ length: longest }, (_, i) => lists.flatMap((list) => list.slice(i, i + 1))).flat()
}
