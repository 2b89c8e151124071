import { isIP } from 'node:net'
import type { Answer } from 'dns-packet'
import { type Asker, askerOf, rank, rankRegions, standIn, steer, type ZoneView } from './steer.ts'
import type { Service, Zone, ZoneName, ZoneNode, ZoneRegion } from './zone.ts'

/** `OTHER`: any type that the zone never has. */
export type QueryType = 'A' | 'AAAA' | 'NS' | 'SOA' | 'SRV' | 'NAPTR' | 'ANY' | 'OTHER'

export interface ZoneQuery {
  /** As the client spelled it (0x20), without a dot at the end; the answer's owner name keeps that. */
  readonly name: string
  readonly type: QueryType
}

export interface ZoneAnswer {
  readonly rcode: 'NOERROR' | 'NXDOMAIN' | 'REFUSED'
  /** Authoritative: the name lies in our zone. */
  readonly authoritative: boolean
  readonly answers: readonly Answer[]
  readonly authorities: readonly Answer[]
  /** Saves a round trip; may be left out where it does not fit, from the end. */
  readonly additionals: readonly Answer[]
}

const REFUSED: ZoneAnswer = { rcode: 'REFUSED', authoritative: false, answers: [], authorities: [], additionals: [] }

/** Secondaries: look every minute, retry after 15 s, give up after a week. */
const REFRESH_S = 60
const RETRY_S = 15
const EXPIRE_S = 604_800

/** SRV priorities: ten for each region, and within a region the nodes that are down right after those that are up. */
const PRIORITY_STEP = 10
const WEIGHT = 100

/**
 * The zone's answer to one query of one client. Pure: the same zone, view and client give the same records in the same order.
 *
 * @param clientAddress literal IP address; it decides the asking region.
 */
export function answer(query: ZoneQuery, clientAddress: string, zone: Zone, view: ZoneView): ZoneAnswer {
  const lower = query.name.toLowerCase()
  if (lower !== zone.origin && !lower.endsWith(`.${zone.origin}`)) return REFUSED
  const name = zone.names.get(lower)
  if (name === undefined) return negative('NXDOMAIN', zone, view)
  const asker = askerOf(zone, view, clientAddress)
  const { answers, additionals } = records(asker, name, query)
  return answers.length === 0
    ? negative('NOERROR', zone, view)
    : { rcode: 'NOERROR', authoritative: true, answers, authorities: [], additionals }
}

/** RFC 2308 §3: the SOA, with the time for which the absence may be remembered. */
const negative = (rcode: 'NOERROR' | 'NXDOMAIN', zone: Zone, view: ZoneView): ZoneAnswer => ({
  rcode,
  authoritative: true,
  answers: [],
  authorities: [soa(zone.origin, zone, view, zone.settings.ttlAddressS)],
  additionals: [],
})

interface Records {
  readonly answers: readonly Answer[]
  readonly additionals: readonly Answer[]
}

const only = (answers: readonly Answer[]): Records => ({ answers, additionals: [] })
const NONE: Records = { answers: [], additionals: [] }

function records(asker: Asker, name: ZoneName, query: ZoneQuery): Records {
  // RFC 8482: one RRset is answer enough to ANY, and no amplifier.
  const type = query.type === 'ANY' ? plainTypeOf(asker, name) : query.type
  switch (name.kind) {
    case 'apex':
      return apexRecords(asker, query.name, type)
    case 'steer':
      return only(addresses(query.name, type, steer(asker), asker))
    case 'region':
      return only(addresses(query.name, type, steer(asker, name.region.order), asker))
    case 'node':
      return only(addresses(query.name, type, [standIn(asker, name.node)], asker))
    case 'nameServer':
      return only(address(query.name, type, name.address, asker.zone.settings.ttlSrvS))
    case 'service':
      return type === 'SRV' ? withGlue(asker, serviceSet(asker, query.name, name.service)) : NONE
    case 'nodeService':
      return type === 'SRV' ? withGlue(asker, nodeServiceSet(asker, query.name, name.node, name.region, name.service)) : NONE
    case 'between':
      return NONE
  }
}

function plainTypeOf(asker: Asker, name: ZoneName): QueryType {
  switch (name.kind) {
    case 'apex':
      return 'SOA'
    case 'service':
    case 'nodeService':
      return 'SRV'
    default: {
      const sample = name.kind === 'nameServer' ? name.address : steer(asker)[0]?.address
      return isIP(sample ?? '') === 6 ? 'AAAA' : 'A'
    }
  }
}

function apexRecords(asker: Asker, owner: string, type: QueryType): Records {
  const { zone, view } = asker
  switch (type) {
    case 'SOA':
      return only([soa(owner, zone, view, zone.settings.ttlSrvS)])
    case 'NS':
      return {
        answers: zone.nameServers.map((target) => ({ type: 'NS', name: owner, ttl: zone.settings.ttlSrvS, data: target })),
        additionals: zone.nameServers.flatMap((target) => {
          const known = zone.names.get(target)
          return known?.kind === 'nameServer' ? anyAddress(target, known.address, zone.settings.ttlSrvS) : []
        }),
      }
    case 'NAPTR':
      return naptr(asker, owner)
    case 'A':
    case 'AAAA':
      // RFC 3263 §4.2: a client that finds no SRV asks for the domain's own address.
      return only(addresses(owner, type, steer(asker), asker))
    default:
      return NONE
  }
}

/** RFC 3263 §4.1, RFC 3404: services in order of preference. The SRV sets that come along give the regions in the client's order. */
function naptr(asker: Asker, owner: string): Records {
  const { zone } = asker
  const services: readonly { service: Service; code: string }[] = [
    { service: 'udp', code: 'SIP+D2U' },
    { service: 'tcp', code: 'SIP+D2T' },
  ]
  const target = (service: Service): string => `_sip._${service}.${zone.origin}`
  const sets = services.map(({ service }) => withGlue(asker, serviceSet(asker, target(service), service)))
  const glue = new Map(sets.flatMap((set) => set.additionals.map((a) => [`${a.name} ${a.type}`, a] as const)))
  return {
    answers: services.map(({ service, code }, i) => ({
      type: 'NAPTR',
      name: owner,
      ttl: zone.settings.ttlSrvS,
      data: { order: 10, preference: 10 * (i + 1), flags: 's', services: code, regexp: '', replacement: target(service) },
    })),
    additionals: [...sets.flatMap((set) => set.answers), ...glue.values()],
  }
}

/** Every region in the client's order, the dead ones last: the set may live long, so nothing is left out. */
function serviceSet(asker: Asker, owner: string, service: Service): Answer[] {
  return rankRegions(asker).flatMap(({ up, down }, i) => [
    ...up.map((node) => srv(asker, owner, service, node, PRIORITY_STEP * (i + 1))),
    ...down.map((node) => srv(asker, owner, service, node, PRIORITY_STEP * (i + 1) + 1)),
  ])
}

/** One node's set, for Record-Route by name: the node, its siblings, the other regions by nearness to it; whatever is down after all that is up. */
function nodeServiceSet(asker: Asker, owner: string, node: ZoneNode, region: ZoneRegion, service: Service): Answer[] {
  const home = rank(asker, region)
  const others = rankRegions(
    asker,
    region.order.filter((name) => name !== region.name),
  )
  const groups: (readonly ZoneNode[])[] = [
    home.up.filter((n) => n.name === node.name),
    home.up.filter((n) => n.name !== node.name),
    ...others.map((r) => r.up),
    home.down.filter((n) => n.name === node.name),
    [...home.down.filter((n) => n.name !== node.name), ...others.flatMap((r) => r.down)],
  ]
  return groups
    .filter((group) => group.length > 0)
    .flatMap((group, i) => group.map((n) => srv(asker, owner, service, n, PRIORITY_STEP * (i + 1))))
}

const nodeName = (zone: Zone, node: ZoneNode): string => `${node.name}.${zone.origin}`

const srv = (asker: Asker, name: string, _service: Service, node: ZoneNode, priority: number): Answer => ({
  type: 'SRV',
  name,
  ttl: asker.zone.settings.ttlSrvS,
  data: { priority, weight: WEIGHT, port: node.sipPort, target: nodeName(asker.zone, node) },
})

/** The targets' addresses, as a query for each would be answered. */
function withGlue(asker: Asker, answers: readonly Answer[]): Records {
  const additionals = answers.flatMap((record) => {
    if (record.type !== 'SRV') return []
    const target = asker.zone.names.get(record.data.target)
    return target?.kind === 'node'
      ? anyAddress(record.data.target, standIn(asker, target.node).address, asker.zone.settings.ttlAddressS)
      : []
  })
  return { answers, additionals }
}

const addresses = (owner: string, type: QueryType, nodes: readonly ZoneNode[], asker: Asker): Answer[] =>
  nodes.flatMap((node) => address(owner, type, node.address, asker.zone.settings.ttlAddressS))

function address(owner: string, type: QueryType, text: string, ttl: number): Answer[] {
  const [record] = anyAddress(owner, text, ttl)
  return record?.type === type ? [record] : []
}

const anyAddress = (name: string, text: string, ttl: number): Answer[] =>
  isIP(text) === 0 ? [] : [{ type: isIP(text) === 6 ? 'AAAA' : 'A', name, ttl, data: text }]

const soa = (name: string, zone: Zone, view: ZoneView, ttl: number): Answer => ({
  type: 'SOA',
  name,
  ttl,
  data: {
    mname: zone.nameServers[0] ?? zone.origin,
    rname: zone.settings.hostmaster.replace('@', '.'),
    serial: view.serial,
    refresh: REFRESH_S,
    retry: RETRY_S,
    expire: EXPIRE_S,
    minimum: zone.settings.ttlAddressS,
  },
})
