import { readFileSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { AntipodeError } from '../src/base/errors.ts'
import type { KeyRing } from '../src/base/keys.ts'
import { ConfigDocument, type Path, type Problem } from './document.ts'
import { checkSubscribers, relationProblems } from './relations.ts'
import {
  type Config,
  type ConfigFile,
  fileSchema,
  type NodeAddress,
  type SecretSource,
  type Subscriber,
  type SubscriberEntry,
  subscriberListSchema,
} from './schema.ts'
import { nearest, rawAt, schemaAt, shapeProblems } from './validate.ts'

export type Environment = Readonly<Record<string, string | undefined>>
export type { Problem } from './document.ts'

/** A configuration that cannot be used; `problems` is all that is wrong with it. */
export class ConfigError extends AntipodeError {
  readonly file: string
  readonly problems: readonly Problem[]

  constructor(file: string, problems: readonly Problem[]) {
    super('CFG_INVALID', problems.map((p) => problemText(file, p)).join('\n'))
    this.file = file
    this.problems = problems
  }
}

/** `config.yaml:12:5: cluster.constants.graceMs: expected …` */
export const problemText = (file: string, p: Problem): string =>
  `${p.file ?? file}${p.line === undefined ? '' : `:${p.line}:${p.column}`}: ${p.path === '' ? '' : `${p.path}: `}${p.message}`

export interface LoadOptions {
  /** Node of the file's region; may be left out where the region has one. */
  readonly node?: string | undefined
  readonly env?: Environment
  /** `path=value`, applied in order before anything is checked. */
  readonly overrides?: readonly string[]
  /** A secret that is not on this host is then a warning: `config check` also runs elsewhere. */
  readonly secretsMayBeAbsent?: boolean
}

export interface Loaded {
  /** Absent where there are problems, and where no node was named and the region has several. */
  readonly config?: Config
  /** The file as it is checked, defaults filled in; absent where there are problems. */
  readonly file?: ConfigFile
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
}

/**
 * Reads one node's configuration. The only reader of files and environment: secrets are resolved here, relative paths are taken from the folder
 * that the file is in.
 *
 * @throws ConfigError with every problem at once
 */
export async function loadConfig(
  file: string,
  nodeName?: string,
  env: Environment = process.env,
  overrides: readonly string[] = [],
): Promise<Config> {
  const loaded = readConfig(file, { node: nodeName, env, overrides })
  if (loaded.config !== undefined) return loaded.config
  if (loaded.problems.length > 0) throw new ConfigError(file, loaded.problems)
  const names = nodesOf(loaded.file!, loaded.file!.region).map((n) => n.name)
  throw new ConfigError(file, [{ path: '', message: `which node? name one of ${names.join(', ')} with --node` }])
}

/** Like `loadConfig`, but what is wrong is returned, together with warnings. */
export function readConfig(file: string, options: LoadOptions = {}): Loaded {
  let source: string
  try {
    source = readFileSync(file, 'utf8')
  } catch (error) {
    return { problems: [{ path: '', message: `cannot be read: ${reason(error)}` }], warnings: [] }
  }
  const document = new ConfigDocument(source, options.overrides)
  if (document.value === undefined || document.problems.length > 0) return { problems: document.problems, warnings: [] }
  const shape = shapeProblems(fileSchema, document)
  const relations = relationProblems(document)
  const problems = [...shape, ...relations.problems]
  const warnings = [...relations.warnings]
  const secrets = new Secrets(dirname(resolve(file)), options.env ?? process.env)

  // Secrets and the subscribers' file are looked at even when something else is wrong, so that one run shows all of it.
  const report = (path: Path, message: string, absent: boolean) =>
    (absent && options.secretsMayBeAbsent ? warnings : problems).push(document.problem(path, message))
  const section = <T>(path: Path): T | undefined => {
    const result = schemaAt(fileSchema, path)?.safeParse(rawAt(document.value, path))
    return result?.success ? (result.data as T) : undefined
  }
  const ring = (name: 'link' | 'token' | 'nonce'): KeyRing => {
    const path = ['cluster', 'keys', name]
    const given = section<RingSource>(path)
    return given === undefined ? { current: '', keys: new Map() } : secrets.ring(given, path, report)
  }
  const keys = { link: ring('link'), token: ring('token'), nonce: ring('nonce') }
  const tokenSource = section<SecretSource>(['admin', 'token'])
  const token = tokenSource === undefined ? undefined : secrets.text(tokenSource, ['admin', 'token'], report)
  if (token !== undefined && !/^[A-Za-z0-9._~+/=-]{16,}$/.test(token)) {
    report(['admin', 'token'], 'expected 16 or more of letters, digits and . _ ~ + / = - (RFC 6750)', false)
  }
  const subscriberSource = section<ConfigFile['subscribers']>(['subscribers'])
  const subscribers =
    subscriberSource === undefined ? [] : readSubscribers(subscriberSource, secrets, report, (p) => problems.push(p))
  const tlsSource = section<TlsSource>(['sip', 'tls'])
  const tls = tlsSource === undefined ? undefined : tlsFiles(tlsSource, secrets, report)
  for (const [path, message] of secrets.warnings) warnings.push(document.problem(path, message))
  const parsed = fileSchema.safeParse(document.value)
  if (!parsed.success) return { problems, warnings }
  const value = parsed.data
  const node = pickNode(value, options.node)
  if (typeof node === 'string') problems.push({ path: '', message: node })
  if (problems.length > 0) return { problems, warnings }
  if (node === undefined || typeof node === 'string') return { file: value, problems, warnings }

  const base = dirname(resolve(file))
  const stateDirectory = resolve(base, value.stateDirectory, node.name)
  const { region: _region, ...rest } = value
  // The default asks for one mirror; a cluster of one node has none. What was asked for by name and cannot be had is a problem (relations.ts).
  const others = value.cluster.regions.reduce((sum, r) => sum + r.nodes.length, 0) - 1
  const config: Config = {
    ...rest,
    cluster: { ...value.cluster, keys },
    self: { region: value.region, node: node.name, address: node },
    sip: { ...value.sip, tls },
    subscribers,
    destinations: value.destinations as Config['destinations'],
    cdr: {
      ...value.cdr,
      durability: { ...value.cdr.durability, mirror: Math.min(value.cdr.durability.mirror, others) },
      directory:
        value.cdr.directory === undefined ? resolve(stateDirectory, 'cdr') : resolve(base, value.cdr.directory, node.name),
    },
    admin: { trustLoopback: value.admin.trustLoopback, ...(token === undefined ? {} : { token }) },
    stateDirectory,
  }
  return { config: deepFreeze(config), file: value, problems, warnings }
}

/** Every node that a file knows of, and what a client of their admin APIs needs. Secrets of the cluster are not looked at. */
export interface ClusterTargets {
  readonly nodes: readonly { readonly region: string; readonly node: NodeAddress }[]
  readonly token?: string
  /** Journals of the file's own region that would lie on this host: node → directory. */
  readonly journals: Readonly<Record<string, string>>
}

/** @throws ConfigError */
export function readTargets(file: string, env: Environment = process.env, overrides: readonly string[] = []): ClusterTargets {
  const loaded = readConfig(file, { env, overrides, secretsMayBeAbsent: true })
  if (loaded.file === undefined) throw new ConfigError(file, loaded.problems)
  const { cluster, admin, region, stateDirectory, cdr } = loaded.file
  const base = dirname(resolve(file))
  const token = admin.token === undefined ? undefined : new Secrets(base, env).text(admin.token, [], () => undefined)
  const journal = (node: string) =>
    cdr.directory === undefined ? resolve(base, stateDirectory, node, 'cdr') : resolve(base, cdr.directory, node)
  return {
    nodes: cluster.regions.flatMap((r) => r.nodes.map((node) => ({ region: r.name, node }))),
    ...(token === undefined ? {} : { token }),
    journals: Object.fromEntries(nodesOf(loaded.file, region).map((n) => [n.name, journal(n.name)])),
  }
}

const nodesOf = (file: ConfigFile, region: string): readonly NodeAddress[] =>
  file.cluster.regions.find((r) => r.name === region)?.nodes ?? []

function pickNode(file: ConfigFile, wanted: string | undefined): NodeAddress | string | undefined {
  const nodes = nodesOf(file, file.region)
  if (wanted === undefined) return nodes.length === 1 ? nodes[0] : undefined
  const names = nodes.map((n) => n.name)
  const near = nearest(wanted, names)
  return (
    nodes.find((n) => n.name === wanted) ??
    `no node ${wanted} in ${file.region}; ${near === undefined ? `it has ${names.join(', ')}` : `did you mean ${near}?`}`
  )
}

type TlsSource = NonNullable<ConfigFile['sip']['tls']>
type RingSource = ConfigFile['cluster']['keys']['link']
type Report = (path: Path, message: string, absent: boolean) => unknown

/** With absolute paths. What is in the files is the transport's matter: they are read again while the node runs. */
function tlsFiles(tls: TlsSource, secrets: Secrets, report: Report): TlsSource {
  const path: Path = ['sip', 'tls']
  const pair = <T extends { certificate: string; key: string }>(files: T, at: Path): T => ({
    ...files,
    certificate: secrets.readable(files.certificate, [...at, 'certificate'], report),
    key: secrets.readable(files.key, [...at, 'key'], report, true),
  })
  return {
    ...pair(tls, path),
    names: tls.names.map((named, i) => pair(named, [...path, 'names', i])),
    ...(tls.ca === undefined ? {} : { ca: secrets.readable(tls.ca, [...path, 'ca'], report) }),
  }
}

function readSubscribers(
  source: ConfigFile['subscribers'],
  secrets: Secrets,
  report: Report,
  fromList: (p: Problem) => unknown,
): Subscriber[] {
  if (Array.isArray(source)) return source.map((entry, i) => secrets.subscriber(entry, ['subscribers', i], report))
  const path: Path = ['subscribers', 'file']
  const list = secrets.path(source.file)
  let text: string
  try {
    text = readFileSync(list, 'utf8')
  } catch (error) {
    report(path, `cannot be read: ${reason(error)}`, true)
    return []
  }
  // Its problems bear its own name and lines.
  const document = new ConfigDocument(text)
  const inList = (p: Problem) => fromList({ ...p, file: list })
  document.problems.forEach(inList)
  if (document.problems.length > 0) return []
  shapeProblems(subscriberListSchema, document).forEach(inList)
  const elements: Path[] = Array.isArray(document.value) ? document.value.map((_, i) => [i]) : []
  checkSubscribers(
    elements,
    (p) => (document.value as Record<string | number, unknown>)[p[0]!],
    (p, message) => inList(document.problem(p, message)),
  )
  const parsed = subscriberListSchema.safeParse(document.value)
  if (!parsed.success) return []
  return parsed.data.map((entry, i) => secrets.subscriber(entry, [i], (p, message) => inList(document.problem(p, message))))
}

/** Resolves secret sources; what is wrong is reported without the secret. */
class Secrets {
  readonly warnings: [Path, string][] = []
  readonly #base: string
  readonly #env: Environment

  constructor(base: string, env: Environment) {
    this.#base = base
    this.#env = env
  }

  path(file: string): string {
    return resolve(this.#base, file)
  }

  /** The absolute path of a file that there must be. */
  readable(file: string, path: Path, report: Report, secret = false): string {
    const full = this.path(file)
    try {
      readFileSync(full)
      if (secret) this.#warnIfOpen(full, path)
    } catch (error) {
      report(path, `cannot be read: ${reason(error)}`, true)
    }
    return full
  }

  #warnIfOpen(file: string, path: Path): void {
    if (process.platform !== 'win32' && (statSync(file).mode & 0o077) !== 0)
      this.warnings.push([path, `${file} can be read by others; chmod 600`])
  }

  text(source: SecretSource, path: Path, report: Report): string | undefined {
    if ('value' in source) return source.value
    if ('env' in source) {
      const value = this.#env[source.env]
      if (value === undefined || value === '') report([...path, 'env'], `environment variable ${source.env} is not set`, true)
      return value === '' ? undefined : value
    }
    const file = this.path(source.file)
    try {
      this.#warnIfOpen(file, [...path, 'file'])
      const value = readFileSync(file, 'utf8').trim()
      if (value === '') report([...path, 'file'], `${file} is empty`, false)
      return value === '' ? undefined : value
    } catch (error) {
      report([...path, 'file'], `cannot be read: ${reason(error)}`, true)
      return undefined
    }
  }

  ring(ring: RingSource, path: Path, report: Report): KeyRing {
    const keys = new Map<string, Buffer>()
    for (const [id, source] of Object.entries(ring.keys)) {
      const text = this.text(source, [...path, 'keys', id], report)
      if (text === undefined) continue
      const key = keyOf(text)
      if (key === undefined)
        report([...path, 'keys', id], 'expected 32 bytes or more in hex or base64 (openssl rand -hex 32)', false)
      else keys.set(id, key)
    }
    return { current: ring.current, keys }
  }

  subscriber(entry: SubscriberEntry, path: Path, report: Report): Subscriber {
    const password = entry.password === undefined ? undefined : this.text(entry.password, [...path, 'password'], report)
    const { md5, sha256 } = entry.ha1 ?? {}
    return {
      username: entry.username,
      ...(entry.domain === undefined ? {} : { domain: entry.domain }),
      ...(password === undefined ? {} : { password }),
      ...(entry.ha1 === undefined
        ? {}
        : { ha1: { ...(md5 === undefined ? {} : { md5 }), ...(sha256 === undefined ? {} : { sha256 }) } }),
    }
  }
}

/** Hex first: 64 hex digits are base64 as well, and mean hex. */
function keyOf(text: string): Buffer | undefined {
  const bytes = /^([0-9a-fA-F]{2})+$/.test(text)
    ? Buffer.from(text, 'hex')
    : /^[A-Za-z0-9+/_-]+={0,2}$/.test(text)
      ? Buffer.from(text, 'base64')
      : undefined
  return bytes !== undefined && bytes.length >= 32 ? bytes : undefined
}

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Buffers and the maps of key rings cannot be frozen; their types are read-only. */
function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value
  for (const inner of Object.values(value)) deepFreeze(inner)
  return Object.freeze(value)
}
