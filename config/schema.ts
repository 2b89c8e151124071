import { isIP } from 'node:net'
import { z } from 'zod'
import type { KeyRing } from '../src/base/keys.ts'

/**
 * What a configuration file may say: names, units, ranges and defaults, in one place. Units stand at the end of a name (`Ms`, `S`). Unknown keys
 * are errors. What one field demands of another is in `relations.ts`; what a node makes of it is `Config` below.
 */

/** The words that an error message uses for what a field expects; `load.ts` reads them from the schema. */
const say = <T extends z.ZodType>(expected: string, schema: T): T => schema.meta({ expected }) as T
const whole = (unit: string, min: number, max: number) =>
  say(`a whole number of ${unit} from ${min} to ${max}`, z.int().min(min).max(max))
const ms = (min: number, max: number) => whole('milliseconds', min, max)
const seconds = (min: number, max: number) => whole('seconds', min, max)
const portNumber = () => say('a port number from 1 to 65535', z.int().min(1).max(65535))
const port = (usual: number) => portNumber().default(usual)
const choice = <const T extends readonly [string, ...string[]]>(...words: T) => say(`one of ${words.join(', ')}`, z.enum(words))
const flag = () => say('true or false', z.boolean())
const text = (expected: string) => say(expected, z.string().min(1).max(4096))

const name = say(
  'a name: lower-case letters, digits and hyphens, at most 63',
  z.string().regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/),
)
const DNS_NAME = /^(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const dnsName = say('a domain name in lower case, without a dot at the end', z.string().regex(DNS_NAME))
const address = say(
  'an IPv4 or IPv6 address',
  z.string().refine((value) => isIP(value) !== 0),
)
const cidr = say(
  'a network as address/bits, for example 192.0.2.0/24, or one address',
  z.string().refine(isCidr).transform(asCidr),
)

function isCidr(value: string): boolean {
  const [host = '', bits, rest] = value.split('/')
  const family = isIP(host)
  if (family === 0 || rest !== undefined) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))
}

function asCidr(value: string): string {
  if (value.includes('/')) return value
  return `${value}/${isIP(value) === 4 ? 32 : 128}`
}

/** Where a secret is read from. It is never printed, by any command. */
export const secretSchema = say(
  '{ file: PATH }, { env: NAME } or { value: TEXT }',
  z.union([
    z.strictObject({ file: z.string().min(1) }),
    z.strictObject({ env: z.string().min(1) }),
    z.strictObject({ value: z.string().min(1) }),
  ]),
)
export type SecretSource = z.infer<typeof secretSchema>

const keyId = say('a key id: letters, digits, hyphens, at most 16', z.string().regex(/^[A-Za-z0-9-]{1,16}$/))
const ringSchema = say(
  'a key ring: { current: ID, keys: { ID: secret } }',
  z.strictObject({
    current: keyId,
    keys: say(
      'one to eight keys as ID: secret',
      z.record(keyId, secretSchema).refine((keys) => Object.keys(keys).length >= 1 && Object.keys(keys).length <= 8),
    ),
  }),
)

const nodeSchema = say(
  'a node: { name, address }',
  z.strictObject({
    name,
    address,
    sipPort: port(5060),
    /** SIP over TLS, over WebSocket and over secure WebSocket: off unless given. */
    tlsPort: portNumber().optional(),
    wsPort: portNumber().optional(),
    wssPort: portNumber().optional(),
    adminPort: port(8060),
    dnsPort: port(5353),
    linkPort: port(7060),
  }),
)

const regionSchema = say(
  'a region: { name, cidrs, nodes }',
  z.strictObject({
    name,
    /** Clients from here are answered with this region first. */
    cidrs: say('a list of networks', z.array(cidr)).default([]),
    nodes: say('a list of one node or more', z.array(nodeSchema).min(1)),
  }),
)

const constantsSchema = say(
  'the cluster constants',
  z.strictObject({
    bucketWidthMs: ms(1000, 86_400_000).default(600_000),
    longestExpiryMs: ms(1000, 604_800_000).default(7_200_000),
    windowMs: ms(0, 3_600_000).default(64_000),
    driftBoundMs: ms(1, 60_000).default(500),
    graceMs: ms(0, 86_400_000).default(90_000),
    rebootGuardMs: ms(0, 3_600_000).default(5000),
  }),
)

const subscriberSchema = say(
  'a subscriber: { username, password } or { username, ha1 }',
  z.strictObject({
    username: text('a user name'),
    /** Where the same user name exists in several domains; otherwise every domain that is served. */
    domain: dnsName.optional(),
    password: secretSchema.optional(),
    /** hex(hash(username:realm:password)), RFC 8760, so that no password lies here. */
    ha1: say(
      'hashes: { md5, sha256 } in hex',
      z.strictObject({
        md5: say('32 hex digits', z.string().regex(/^[0-9a-f]{32}$/)).optional(),
        sha256: say('64 hex digits', z.string().regex(/^[0-9a-f]{64}$/)).optional(),
      }),
    ).optional(),
  }),
)
export const subscriberListSchema = say('a list of subscribers', z.array(subscriberSchema).max(1_000_000))
export type SubscriberEntry = z.infer<typeof subscriberSchema>

const certificateFiles = { certificate: text('a PEM file: own certificate first'), key: text('a PEM file: its private key') }
const tlsSchema = say(
  'TLS settings: { certificate, key }',
  z.strictObject({
    ...certificateFiles,
    /** Who signs the certificates of our peers; without it the authorities that Node.js comes with. */
    ca: text('a PEM file of certificates').optional(),
    requireClientCert: flag().default(false),
    minVersion: choice('TLSv1.2', 'TLSv1.3').default('TLSv1.2'),
    /** Other certificates, for clients that ask for these names (SNI). */
    names: say(
      'a list of { name, certificate, key }',
      z
        .array(
          say(
            'a certificate: { name, certificate, key }',
            z.strictObject({
              name: say('a host name in lower case, or *. and a domain', z.string().regex(/^(\*\.)?[a-z0-9.-]{1,251}$/)),
              ...certificateFiles,
            }),
          ),
        )
        .max(1000),
    ).default([]),
    /** Whether those that we connect to must prove who they are. */
    verify: flag().default(true),
    /** Address → the name that its certificate must bear. Without one it must bear the address. */
    peerNames: say('names by address', z.record(address, dnsName)).default({}),
  }),
)

const destinationSchema = say(
  'a destination: { name, match, uri }',
  z.strictObject({
    name,
    /** Both must hold where both are given. */
    match: say(
      'a match: { domain } or { prefix }',
      z.strictObject({
        domain: dnsName.optional(),
        prefix: say('the first characters of the user part', z.string().regex(/^[+0-9A-Za-z*#._-]{1,64}$/)).optional(),
      }),
    ),
    uri: say('a SIP URI: sip:HOST or sip:HOST:PORT', z.string().regex(/^sips?:[^\s<>"]+$/)),
  }),
)

export const fileSchema = say(
  'a configuration: region, cluster, domains, sip, …',
  z.strictObject({
    /** The region that this file is for. The node is named on the command line. */
    region: name,
    cluster: say(
      'the cluster: { name, electorate, regions, keys }',
      z.strictObject({
        name,
        electorate: say('a list of region names', z.array(name).min(1)),
        regions: say('a list of one region or more', z.array(regionSchema).min(1)),
        constants: constantsSchema.prefault({}),
        keys: say(
          'three key rings: link, token and nonce',
          z.strictObject({ link: ringSchema, token: ringSchema, nonce: ringSchema }),
        ),
      }),
    ),
    domains: say('a list of the domains that are served', z.array(dnsName).min(1)),
    sip: say(
      'SIP settings',
      z.strictObject({
        realm: text('the digest realm'),
        /** Requests from here are not challenged. */
        trusted: say('a list of networks', z.array(cidr)).default([]),
        timers: say(
          'RFC 3261 timers',
          z.strictObject({
            t1Ms: ms(10, 10_000).default(500),
            t2Ms: ms(10, 60_000).default(4000),
            t4Ms: ms(10, 60_000).default(5000),
            timerDMs: ms(10, 120_000).default(32_000),
            timerCMs: ms(1000, 3_600_000).default(180_000),
          }),
        ).prefault({}),
        /** No 1xx within this: the next target is tried. */
        silenceMs: ms(10, 60_000).default(2000),
        recordRoute: choice('address', 'name').default('address'),
        /** Challenges in this order (RFC 8760 §2.4: the first that a phone knows is the one that it answers). Some phones look at the first alone. */
        digestAlgorithms: say(
          'a list of MD5 and SHA-256, without repeats',
          z
            .array(z.enum(['SHA-256', 'MD5']))
            .min(1)
            .refine((list) => new Set(list).size === list.length),
        ).default(['SHA-256', 'MD5']),
        nonceLifetimeMs: ms(1000, 86_400_000).default(300_000),
        /** Of one INVITE, at once. */
        maxForks: whole('branches', 1, 100).default(10),
        maxTransactions: whole('transactions', 100, 10_000_000).default(100_000),
        maxConnections: whole('stream connections', 1, 1_000_000).default(10_000),
        connectionIdleMs: ms(1000, 86_400_000).default(600_000),
        /** TLS and the WebSocket upgrade must be through within this. */
        handshakeMs: ms(100, 60_000).default(5000),
        tls: tlsSchema.optional(),
        webSocket: say(
          'WebSocket settings',
          z.strictObject({
            /** Pages from elsewhere are refused; empty: none is. */
            origins: say(
              'a list of origins, for example https://phone.example.net',
              z.array(z.string().regex(/^[a-z][a-z0-9+.-]*:\/\/[^/\s]+$/)).max(1000),
            ).default([]),
            pingMs: ms(1000, 3_600_000).default(30_000),
          }),
        ).prefault({}),
      }),
    ),
    registrar: say(
      'registrar settings',
      z.strictObject({
        minExpiresS: seconds(1, 86_400).default(60),
        defaultExpiresS: seconds(1, 604_800).default(3600),
        maxExpiresS: seconds(1, 604_800).default(7200),
        maxContactsPerAor: whole('contacts', 1, 100).default(10),
        cseq: choice('strict', 'lenient').default('strict'),
      }),
    ).prefault({}),
    subscribers: say(
      'a list of subscribers or { file: PATH } of one',
      z.union([z.strictObject({ file: z.string().min(1) }), subscriberListSchema]),
    ).default([]),
    /** PBXs and carriers; the first that matches takes the call of a user who is not registered here. */
    destinations: say('a list of destinations', z.array(destinationSchema)).default([]),
    cdr: say(
      'CDR settings',
      z.strictObject({
        /** Each node has a folder of its own in it; without it, the journal lies in the node's state directory. */
        directory: text('a directory').optional(),
        durability: say(
          'durability: { mirror, remote }',
          z.strictObject({
            /** So many other nodes have fsynced a part before the answer that depends on it goes out. */
            mirror: whole('mirrors', 0, 8).default(1), // load.ts: fewer where the cluster has fewer
            remote: choice('async', 'sync').default('async'),
          }),
        ).prefault({}),
        mirrorTimeoutMs: ms(10, 60_000).default(1000),
        onFailure: choice('continue', 'reject').default('continue'),
      }),
    ).prefault({}),
    geo: say(
      'geo settings',
      z.strictObject({
        probe: say(
          'probe settings',
          z.strictObject({
            intervalMs: ms(50, 600_000).default(1000),
            timeoutMs: ms(10, 600_000).default(1000),
            rise: whole('probes', 1, 100).default(2),
            fall: whole('probes', 1, 100).default(3),
          }),
        ).prefault({}),
        dns: say(
          'the zone',
          z.strictObject({
            origin: dnsName,
            hostmaster: say('a mail address as a domain name, for example hostmaster.example.net', z.string().regex(DNS_NAME)),
            ttlSrvS: seconds(1, 604_800).default(3600),
            ttlAddressS: seconds(0, 86_400).default(5),
          }),
        ),
      }),
    ),
    admin: say(
      'admin settings',
      z.strictObject({
        /** Requests from loopback need no token. For a demo; on a shared host every user is on loopback. */
        trustLoopback: flag().default(false),
        token: secretSchema.optional(),
      }),
    ).prefault({}),
    stateDirectory: text('a directory'),
    logLevel: choice('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent').default('info'),
  }),
)
export type ConfigFile = z.infer<typeof fileSchema>

export type NodeAddress = Readonly<ConfigFile['cluster']['regions'][number]['nodes'][number]>
export interface RegionConfig {
  readonly name: string
  readonly cidrs: readonly string[]
  readonly nodes: readonly NodeAddress[]
}
export interface Subscriber {
  readonly username: string
  /** Absent: every domain that is served. */
  readonly domain?: string
  readonly password?: string
  readonly ha1?: { readonly md5?: string; readonly sha256?: string }
}
export interface Destination {
  readonly name: string
  readonly match: { readonly domain?: string; readonly prefix?: string }
  readonly uri: string
}

type Frozen<T> = T extends readonly (infer E)[]
  ? readonly Frozen<E>[]
  : T extends object
    ? { readonly [K in keyof T]: Frozen<T[K]> }
    : T

/** One node's configuration: checked, complete, frozen, with its secrets read. Never log it whole. */
export interface Config {
  readonly cluster: {
    readonly name: string
    /** Regions that vote on verdicts. */
    readonly electorate: readonly string[]
    /** All regions, own included. */
    readonly regions: readonly RegionConfig[]
    readonly constants: Readonly<ConfigFile['cluster']['constants']>
    readonly keys: { readonly link: KeyRing; readonly token: KeyRing; readonly nonce: KeyRing }
  }
  /** This node. */
  readonly self: { readonly region: string; readonly node: string; readonly address: NodeAddress }
  readonly domains: readonly string[]
  readonly sip: Frozen<ConfigFile['sip']>
  readonly registrar: Frozen<ConfigFile['registrar']>
  readonly subscribers: readonly Subscriber[]
  readonly destinations: readonly Destination[]
  readonly cdr: Frozen<Omit<ConfigFile['cdr'], 'directory'>> & {
    /** This node's own: `own/` and `mirror/<node>/` lie in it. Absolute. */
    readonly directory: string
  }
  readonly geo: Frozen<ConfigFile['geo']>
  readonly admin: { readonly trustLoopback: boolean; readonly token?: string }
  /** This node's own. Absolute. */
  readonly stateDirectory: string
  readonly logLevel: ConfigFile['logLevel']
}
