import { BlockList, isIP } from 'node:net'
import { AntipodeError } from '../src/base/errors.ts'

interface Prefix {
  readonly region: string
  readonly bits: number
  readonly list: BlockList
  readonly family: 'ipv4' | 'ipv6'
}

/** Which region a client belongs to, by its address: the longest prefix wins, as in routing. */
export class ClientTable {
  readonly #prefixes: Prefix[]

  /** @throws AntipodeError GEO_ZONE_CIDR */
  constructor(regions: readonly { readonly name: string; readonly cidrs: readonly string[] }[]) {
    this.#prefixes = regions
      .flatMap((region) => region.cidrs.map((cidr) => prefixOf(cidr, region.name)))
      .sort((a, b) => b.bits - a.bits || (a.region < b.region ? -1 : 1))
  }

  /** @param address literal IP address; an IPv4 address mapped into IPv6 counts as IPv4. Undefined when no network has it. */
  regionOf(address: string): string | undefined {
    const plain = plainAddress(address)
    const family = isIP(plain) === 4 ? 'ipv4' : isIP(plain) === 6 ? 'ipv6' : undefined
    if (family === undefined) return undefined
    return this.#prefixes.find((p) => p.family === family && p.list.check(plain, family))?.region
  }
}

/** `::ffff:192.0.2.1` as `192.0.2.1`, and a zone index left off. */
export const plainAddress = (address: string): string =>
  address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '').replace(/%.*$/, '')

function prefixOf(cidr: string, region: string): Prefix {
  const [host = '', bitsText] = cidr.split('/')
  const version = isIP(host)
  const most = version === 4 ? 32 : 128
  const bits = bitsText === undefined ? most : Number(bitsText)
  if (version === 0 || !Number.isInteger(bits) || bits < 0 || bits > most)
    throw new AntipodeError('GEO_ZONE_CIDR', `${JSON.stringify(cidr)} of region ${region} is no network`)
  const family = version === 4 ? 'ipv4' : 'ipv6'
  const list = new BlockList()
  list.addSubnet(host, bits, family)
  return { region, bits, list, family }
}
