import t from 'tap'
import { answer, type QueryType } from '../../geo/answer.ts'
import { buildZone, type ZoneRegionSettings } from '../../geo/zone.ts'
import { demoZone, REGIONS, SETTINGS, type ViewOptions, viewOf } from './zone-fixture.ts'

const zone = demoZone()
const OUTSIDE = '192.0.2.1'
const CLIENT = { us: '127.0.1.77', eu: '127.0.2.77', ap: '127.0.3.77', outside: OUTSIDE } as const

/** An answer as short text: addresses as `us1`, SRV as `10 us1`, others as their data. */
const short = (name: string): string => name.replace(/-(east|west|south)-/, '').replace(/\.example\.net$/, '')
const byAddress = (address: string): string =>
  address.replace(/^127\.0\.(\d)\.(\d)$/, (_, r, n) => `${['us', 'eu', 'ap'][Number(r) - 1]}${n}`)

function ask(name: string, type: QueryType, client: keyof typeof CLIENT, view: ViewOptions = {}): string {
  const result = answer({ name, type }, CLIENT[client], zone, viewOf(view))
  if (result.answers.length === 0) return `${result.rcode}${result.authorities.length > 0 ? ' soa' : ''}`
  return result.answers
    .map((a) => {
      if (a.type === 'A') return byAddress(a.data)
      if (a.type === 'SRV') return `${a.data.priority} ${short(a.data.target)}`
      if (a.type === 'NAPTR') return `${a.data.preference} ${a.data.services} ${a.data.replacement}`
      if (a.type === 'NS') return short(a.data)
      return a.type === 'SOA' ? `${a.data.mname} ${a.data.rname} ${a.data.serial}` : a.type
    })
    .join(' ')
}

const US = ['us-east', 'us-east-1', 'us-east-2']
const EU = ['eu-west', 'eu-west-1', 'eu-west-2']
const AP = ['ap-south', 'ap-south-1', 'ap-south-2']
/** us-east is cut off: what its nodes know. */
const CUT: ViewOptions = { at: 'us-east-1', unreachable: [...EU, ...AP] }

type Row = readonly [string, string, QueryType, keyof typeof CLIENT, ViewOptions, string]

const TABLE: readonly Row[] = [
  // Addresses that steer
  ['the asking region by the client', 'sip.example.net', 'A', 'eu', {}, 'eu1 eu2'],
  ['a stranger gets the region that answers', 'sip.example.net', 'A', 'outside', { at: 'ap-south-2' }, 'ap1 ap2'],
  ['the domain itself steers too', 'example.net', 'A', 'ap', {}, 'ap1 ap2'],
  ['a dead node is left out', 'sip.example.net', 'A', 'eu', { dead: ['eu-west-1'] }, 'eu2'],
  ['a dead region is left out: the next by order', 'sip.example.net', 'A', 'us', { at: 'eu-west-1', dead: US }, 'ap1 ap2'],
  ['of its own region a node believes itself', 'sip.example.net', 'A', 'us', { dead: US }, 'us1 us2'],
  ['a sibling that it cannot reach is left out', 'sip.example.net', 'A', 'us', { unreachable: ['us-east-2'] }, 'us1'],
  ['a region that is cut off answers its clients with itself', 'sip.example.net', 'A', 'us', CUT, 'us1 us2'],
  ['and strangers too', 'sip.example.net', 'A', 'outside', CUT, 'us1 us2'],
  ['at a start nobody is dead', 'sip.example.net', 'A', 'eu', { cold: true }, 'eu1 eu2'],
  ['two regions dead', 'sip.example.net', 'A', 'us', { at: 'ap-south-1', dead: [...US, ...EU] }, 'ap1 ap2'],
  ['a region that is drained gets nothing new', 'sip.example.net', 'A', 'us', { withdrawn: ['us-east'] }, 'ap1 ap2'],
  ['a node that is drained', 'sip.example.net', 'A', 'us', { withdrawn: ['us-east-1'] }, 'us2'],
  [
    'everything withdrawn: the asking region all the same, never an empty answer',
    'sip.example.net',
    'A',
    'eu',
    { withdrawn: ['us-east', 'eu-west', 'ap-south'] },
    'eu1 eu2',
  ],
  ['no IPv6 here', 'sip.example.net', 'AAAA', 'us', {}, 'NOERROR soa'],

  // A region's name
  ['a region by name, whoever asks', 'us-east.example.net', 'A', 'ap', { at: 'ap-south-1' }, 'us1 us2'],
  ['a dead region by name: the next from there', 'us-east.example.net', 'A', 'eu', { at: 'eu-west-1', dead: US }, 'ap1 ap2'],
  ['one of its nodes dead', 'us-east.example.net', 'A', 'eu', { at: 'eu-west-1', dead: ['us-east-1'] }, 'us2'],

  // A node's name
  ['a node', 'us-east-1.example.net', 'A', 'eu', { at: 'eu-west-1' }, 'us1'],
  ['a dead node has its sibling’s address', 'us-east-1.example.net', 'A', 'eu', { at: 'eu-west-1', dead: ['us-east-1'] }, 'us2'],
  ['of our own region by our own evidence', 'us-east-2.example.net', 'A', 'us', { unreachable: ['us-east-2'] }, 'us1'],
  ['what we cannot reach, for our own clients: something that we can', 'eu-west-1.example.net', 'A', 'us', CUT, 'us1'],
  ['for others the verdict alone counts', 'eu-west-1.example.net', 'A', 'eu', CUT, 'eu1'],
  ['a name server’s address never moves', 'ns1.example.net', 'A', 'us', { dead: [...US, ...EU, ...AP] }, 'us1'],

  // SRV
  [
    'every region, the client’s first, then by name',
    '_sip._udp.example.net',
    'SRV',
    'eu',
    {},
    '10 eu1 10 eu2 20 ap1 20 ap2 30 us1 30 us2',
  ],
  ['TCP as well', '_sip._tcp.example.net', 'SRV', 'us', {}, '10 us1 10 us2 20 ap1 20 ap2 30 eu1 30 eu2'],
  [
    'a dead region last',
    '_sip._udp.example.net',
    'SRV',
    'us',
    { at: 'eu-west-1', dead: US },
    '10 ap1 10 ap2 20 eu1 20 eu2 31 us1 31 us2',
  ],
  [
    'a dead node after its siblings',
    '_sip._udp.example.net',
    'SRV',
    'us',
    { at: 'eu-west-1', dead: ['us-east-1'] },
    '10 us2 11 us1 20 ap1 20 ap2 30 eu1 30 eu2',
  ],
  [
    'a region that is cut off: itself first, nothing lost',
    '_sip._udp.example.net',
    'SRV',
    'us',
    CUT,
    '10 us1 10 us2 21 ap1 21 ap2 31 eu1 31 eu2',
  ],
  [
    'a node’s set: the node, its siblings, the other regions from there',
    '_sip._udp.us-east-2.example.net',
    'SRV',
    'eu',
    { at: 'eu-west-1' },
    '10 us2 20 us1 30 ap1 30 ap2 40 eu1 40 eu2',
  ],
  [
    'a dead node’s set',
    '_sip._tcp.us-east-2.example.net',
    'SRV',
    'eu',
    { at: 'eu-west-1', dead: ['us-east-2', 'ap-south-1'] },
    '10 us1 20 ap2 30 eu1 30 eu2 40 us2 50 ap1',
  ],
  [
    'a dead region’s node',
    '_sip._udp.us-east-2.example.net',
    'SRV',
    'eu',
    { at: 'eu-west-1', dead: US },
    '10 ap1 10 ap2 20 eu1 20 eu2 30 us2 40 us1',
  ],

  // The rest of the apex
  ['NAPTR', 'example.net', 'NAPTR', 'us', {}, '10 SIP+D2U _sip._udp.example.net 20 SIP+D2T _sip._tcp.example.net'],
  ['NS, the regions in turn', 'example.net', 'NS', 'us', {}, 'ns1 ns2 ns3 ns4 ns5 ns6'],
  ['SOA', 'example.net', 'SOA', 'us', {}, 'ns1.example.net hostmaster.example.net 4711'],
  ['ANY is answered with one set', 'example.net', 'ANY', 'us', {}, 'ns1.example.net hostmaster.example.net 4711'],
  ['ANY of a service', '_sip._udp.us-east-1.example.net', 'ANY', 'us', {}, '10 us1 20 us2 30 ap1 30 ap2 40 eu1 40 eu2'],
  ['ANY of a node', 'us-east-1.example.net', 'ANY', 'us', {}, 'us1'],

  // What is not there
  ['a name that is not there', 'nobody.example.net', 'A', 'us', {}, 'NXDOMAIN soa'],
  ['below a name that is there', 'x.us-east-1.example.net', 'A', 'us', {}, 'NXDOMAIN soa'],
  ['a type that a name lacks', 'sip.example.net', 'SRV', 'us', {}, 'NOERROR soa'],
  ['a type that the zone lacks', 'example.net', 'OTHER', 'us', {}, 'NOERROR soa'],
  ['a name that only lies between', '_udp.example.net', 'A', 'us', {}, 'NOERROR soa'],
  ['between, below a node', '_tcp.eu-west-1.example.net', 'SRV', 'us', {}, 'NOERROR soa'],
  ['another zone', 'example.org', 'A', 'us', {}, 'REFUSED'],
  ['a name that only ends alike', 'notexample.net', 'A', 'us', {}, 'REFUSED'],
  ['above our zone', 'net', 'NS', 'us', {}, 'REFUSED'],
  ['the root', '', 'NS', 'us', {}, 'REFUSED'],
]

for (const [what, name, type, client, view, expected] of TABLE) {
  t.test(`${what} (${name} ${type})`, (t) => {
    t.equal(ask(name, type, client, view), expected)
    t.end()
  })
}

t.test('the owner name keeps the case of the question', (t) => {
  const { answers } = answer({ name: 'SiP.eXample.NET', type: 'A' }, CLIENT.us, zone, viewOf())
  t.same(
    answers.map((a) => a.name),
    ['SiP.eXample.NET', 'SiP.eXample.NET'],
  )
  t.end()
})

t.test('short lives for addresses, long ones for sets, and for absence as long as for addresses', (t) => {
  const ttl = (name: string, type: QueryType): unknown[] => {
    const { answers, additionals, authorities } = answer({ name, type }, CLIENT.us, zone, viewOf())
    return [...answers, ...authorities, ...additionals].map((a) => `${a.type} ${'ttl' in a ? a.ttl : ''}`)
  }
  t.same(new Set(ttl('sip.example.net', 'A')), new Set(['A 5']))
  t.same(new Set(ttl('_sip._udp.example.net', 'SRV')), new Set(['SRV 3600', 'A 5']))
  t.same(ttl('nobody.example.net', 'A'), ['SOA 5'])
  t.end()
})

t.test('SRV brings the addresses that the targets have now', (t) => {
  const { answers, additionals } = answer(
    { name: '_sip._udp.example.net', type: 'SRV' },
    CLIENT.eu,
    zone,
    viewOf({ at: 'eu-west-1', dead: ['us-east-1'] }),
  )
  t.same(
    answers.map((a) => (a.type === 'SRV' ? [a.data.port, a.data.weight] : [])),
    Array(6).fill([5060, 100]),
  )
  const glue = new Map(additionals.map((a) => [a.name, a.type === 'A' ? a.data : a.type]))
  t.equal(glue.size, 6)
  t.equal(glue.get('eu-west-1.example.net'), '127.0.2.1')
  t.equal(glue.get('us-east-1.example.net'), '127.0.1.2', 'a dead node’s is its sibling’s')
  t.end()
})

t.test('NAPTR brings the SRV sets in the client’s order', (t) => {
  const { additionals } = answer({ name: 'example.net', type: 'NAPTR' }, CLIENT.ap, zone, viewOf())
  const [first] = additionals
  t.match(first, { type: 'SRV', name: '_sip._udp.example.net', data: { target: 'ap-south-1.example.net', priority: 10 } })
  t.equal(additionals.filter((a) => a.type === 'SRV').length, 12)
  t.equal(additionals.filter((a) => a.type === 'A').length, 6, 'each address once')
  t.end()
})

t.test('a configured order beats names, and what it leaves out follows', (t) => {
  const ordered = buildZone(
    SETTINGS,
    REGIONS.map((r) => (r.name === 'us-east' ? { ...r, order: ['eu-west'] } : r)),
  )
  const { answers } = answer({ name: '_sip._udp.example.net', type: 'SRV' }, CLIENT.us, ordered, viewOf())
  t.same(
    answers.map((a) => (a.type === 'SRV' ? short(a.data.target) : '')),
    ['us1', 'us2', 'eu1', 'eu2', 'ap1', 'ap2'],
  )
  t.end()
})

t.test('every name of every kind has an answer whatever is dead, withdrawn or unreachable', (t) => {
  const names = [...US, ...EU, ...AP]
  for (let mask = 0; mask < 512; mask++) {
    const some = names.filter((_, i) => (mask & (1 << i)) !== 0)
    for (const view of [
      { dead: some },
      { unreachable: some },
      { withdrawn: some },
      { dead: some, unreachable: some, withdrawn: some },
    ]) {
      for (const [name, type] of [
        ['sip.example.net', 'A'],
        ['eu-west.example.net', 'A'],
        ['ap-south-2.example.net', 'A'],
        ['_sip._udp.example.net', 'SRV'],
        ['_sip._tcp.us-east-1.example.net', 'SRV'],
      ] as const) {
        const result = answer({ name, type }, CLIENT.eu, zone, viewOf(view))
        if (result.answers.length === 0) t.fail(`${name} ${type} with ${JSON.stringify(view)}`)
        if (type === 'SRV' && result.answers.length !== 6) t.fail(`${name} lost a target with ${JSON.stringify(view)}`)
      }
    }
  }
  t.end()
})

t.test('IPv6 nodes have AAAA, and clients are matched by the longest prefix', (t) => {
  const regions: ZoneRegionSettings[] = [
    { name: 'a', cidrs: ['2001:db8::/32', '10.0.0.0/8'], nodes: [{ name: 'a-1', address: '2001:db8::1', sipPort: 5060 }] },
    {
      name: 'b',
      cidrs: ['2001:db8:b::/48', '10.9.0.0/16', '10.9.9.9'],
      nodes: [{ name: 'b-1', address: '192.0.2.9', sipPort: 5062 }],
    },
  ]
  const mixed = buildZone(SETTINGS, regions)
  for (const [client, region] of [
    ['2001:db8:b::5', 'b'],
    ['2001:db8:c::5', 'a'],
    ['10.9.1.1', 'b'],
    ['10.8.1.1', 'a'],
    ['::ffff:10.9.1.1', 'b'],
    ['fe80::1%eth0', undefined],
    ['nonsense', undefined],
  ] as const)
    t.equal(mixed.clients.regionOf(client), region, client)
  const view = { region: 'a', node: 'a-1', serial: 1, regions: {}, nodes: {}, evidence: {} }
  t.match(answer({ name: 'a.example.net', type: 'AAAA' }, '10.1.1.1', mixed, view).answers, [
    { type: 'AAAA', data: '2001:db8::1' },
  ])
  t.same(answer({ name: 'a.example.net', type: 'A' }, '10.1.1.1', mixed, view).answers, [])
  t.match(answer({ name: 'b-1.example.net', type: 'A' }, '10.1.1.1', mixed, view).answers, [{ type: 'A', data: '192.0.2.9' }])
  t.end()
})

t.test('what cannot be a zone is refused by name', (t) => {
  const region = (o: Partial<ZoneRegionSettings>): ZoneRegionSettings => ({
    name: 'a',
    cidrs: [],
    nodes: [{ name: 'a-1', address: '192.0.2.1', sipPort: 5060 }],
    ...o,
  })
  t.throws(() => buildZone(SETTINGS, []), { code: 'GEO_ZONE_REGION' })
  t.throws(() => buildZone(SETTINGS, [region({ order: ['b'] })]), { code: 'GEO_ZONE_REGION' })
  t.throws(() => buildZone(SETTINGS, [region({ cidrs: ['10.0.0.0/33'] })]), { code: 'GEO_ZONE_CIDR' })
  t.throws(() => buildZone(SETTINGS, [region({ cidrs: ['example'] })]), { code: 'GEO_ZONE_CIDR' })
  for (const name of ['sip', 'ns1', 'a-1', 'a_b', 'A', '', '-a', 'x'.repeat(64)])
    t.throws(() => buildZone(SETTINGS, [region({ name })]), { code: 'GEO_ZONE_NAME' }, JSON.stringify(name))
  t.end()
})
