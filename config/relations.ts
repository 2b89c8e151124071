import type { z } from 'zod'
import type { ConfigDocument, Path, Problem } from './document.ts'
import { fileSchema } from './schema.ts'
import { rawAt, schemaAt } from './validate.ts'

/**
 * What one field demands of others. Each relation reads the fields it needs by path, with defaults filled in, and is left out where one of
 * them is itself at fault: so relations are reported together with faults of shape, and never because of them.
 */
export function relationProblems(document: ConfigDocument): { problems: Problem[]; warnings: Problem[] } {
  const problems: Problem[] = []
  const warnings: Problem[] = []
  if (typeof document.value !== 'object' || document.value === null || Array.isArray(document.value))
    return { problems, warnings }
  const read = new Reader(document)
  const problem = (path: Path, message: string) => problems.push(document.problem(path, message))
  const warning = (path: Path, message: string) => warnings.push(document.problem(path, message))

  const atLeast = (path: string, least: number | undefined, why: string) => {
    const value = read.number(path)
    if (value !== undefined && least !== undefined && value < least)
      problem(path.split('.'), `expected at least ${least} (${why}); found ${value}`)
  }
  const sum = (...values: (number | undefined)[]): number | undefined =>
    values.some((v) => v === undefined) ? undefined : values.reduce<number>((total, v) => total + v!, 0)
  const constant = (name: string) => read.number(`cluster.constants.${name}`)
  const inMs = (s: number | undefined) => (s === undefined ? undefined : s * 1000)

  // DESIGN "State" 2: what an entry hides must have died before the entry does.
  atLeast('cluster.constants.graceMs', sum(constant('windowMs'), constant('driftBoundMs')), 'windowMs + driftBoundMs')
  atLeast('cluster.constants.longestExpiryMs', inMs(read.number('registrar.maxExpiresS')), 'registrar.maxExpiresS')
  atLeast('registrar.defaultExpiresS', read.number('registrar.minExpiresS'), 'minExpiresS')
  atLeast('registrar.maxExpiresS', read.number('registrar.defaultExpiresS'), 'defaultExpiresS')
  atLeast('sip.timers.t2Ms', read.number('sip.timers.t1Ms'), 't1Ms')

  regions(read, problem, warning)
  tls(read, problem)
  origins(read, warning)
  rings(read, problem, warning)
  subscribers(read, problem)
  destinations(read, problem)
  admin(read, warning)

  const origin = read.text('geo.dns.origin')
  const domains = read.elements(['domains']).map((path) => read.at(path))
  if (origin !== undefined && domains.length > 0 && !domains.includes(origin)) {
    warning(['geo', 'dns', 'origin'], `${origin} is not among the domains that are served`)
  }
  return { problems, warnings }
}

type Report = (path: Path, message: string) => unknown

function regions(read: Reader, problem: Report, warning: Report): void {
  const list: Path = ['cluster', 'regions']
  const names: string[] = []
  const nodes = new Map<string, string>()
  const sockets = new Map<string, string>()
  for (const region of read.elements(list)) {
    const name = read.at([...region, 'name'])
    if (typeof name === 'string') {
      if (names.includes(name)) problem([...region, 'name'], `a second region of the name ${name}`)
      names.push(name)
    }
    for (const path of read.elements([...region, 'nodes'])) {
      const node = read.at([...path, 'name'])
      if (typeof node === 'string') {
        if (nodes.has(node)) problem([...path, 'name'], `a second node of the name ${node}; names are unique in the cluster`)
        nodes.set(node, String(name))
      }
      const address = read.at([...path, 'address'])
      if (typeof address !== 'string') continue
      for (const field of ['sipPort', 'tlsPort', 'wsPort', 'wssPort', 'adminPort', 'dnsPort', 'linkPort']) {
        const number = read.at([...path, field])
        if (typeof number !== 'number') continue
        const socket = `${address} port ${number}`
        const other = sockets.get(socket)
        const mine = `${String(node)}.${field}`
        if (other !== undefined) problem([...path, field], `${socket} is already that of ${other}`)
        else sockets.set(socket, mine)
      }
    }
  }
  if (names.length === 0) return
  const own = read.text('region')
  if (own !== undefined && !names.includes(own))
    problem(['region'], `expected one of cluster.regions (${names.join(', ')}); found ${own}`)
  const seen = new Set<string>()
  for (const path of read.elements(['cluster', 'electorate'])) {
    const voter = read.at(path)
    if (typeof voter !== 'string') continue
    if (!names.includes(voter)) problem(path, `expected one of cluster.regions (${names.join(', ')}); found ${voter}`)
    if (seen.has(voter)) problem(path, `${voter} votes twice`)
    seen.add(voter)
  }
  if (seen.size === 2) {
    warning(
      ['cluster', 'electorate'],
      'two regions cannot outvote each other: when one is cut off no verdict is reached; add a third',
    )
  }
  for (const name of names) {
    if (seen.size > 0 && !seen.has(name)) warning(['cluster', 'electorate'], `${name} carries calls but has no vote`)
  }
  const mirrors = read.raw(['cdr', 'durability', 'mirror'])
  if (typeof mirrors === 'number' && mirrors > nodes.size - 1 && nodes.size > 0) {
    problem(
      ['cdr', 'durability', 'mirror'],
      `expected at most ${nodes.size - 1} (the other nodes of the cluster); found ${mirrors}`,
    )
  }
}

function tls(read: Reader, problem: Report): void {
  const settings: Path = ['sip', 'tls']
  if (read.raw(settings) === undefined) {
    // The other regions' nodes have certificates of their own.
    const own = read.elements(['cluster', 'regions']).filter((path) => read.at([...path, 'name']) === read.text('region'))
    for (const node of own.flatMap((path) => read.elements([...path, 'nodes']))) {
      for (const field of ['tlsPort', 'wssPort'])
        if (read.raw([...node, field]) !== undefined) problem([...node, field], 'expected sip.tls, which has the certificate')
    }
    return
  }
  if (read.raw([...settings, 'requireClientCert']) === true && read.raw([...settings, 'ca']) === undefined)
    problem([...settings, 'requireClientCert'], 'expected sip.tls.ca, which says whose certificates are good')
  const names = new Set<unknown>()
  for (const path of read.elements([...settings, 'names'])) {
    const name = read.at([...path, 'name'])
    if (name !== undefined && names.has(name)) problem([...path, 'name'], `a second certificate for ${String(name)}`)
    names.add(name)
  }
}

/** A browser sends what any page tells it to, from where it stands: an address that is trusted needs no password. */
function origins(read: Reader, warning: Report): void {
  const path: Path = ['sip', 'webSocket', 'origins']
  const listens = read
    .elements(['cluster', 'regions'])
    .flatMap((region) => read.elements([...region, 'nodes']))
    .some((node) => read.raw([...node, 'wsPort']) !== undefined || read.raw([...node, 'wssPort']) !== undefined)
  if (listens && read.elements(path).length === 0 && read.elements(['sip', 'trusted']).length > 0)
    warning(path, 'every web page that is opened in a trusted network may place calls; name the pages that may')
}

function rings(read: Reader, problem: Report, warning: Report): void {
  const values = new Map<string, string>()
  for (const ring of ['link', 'token', 'nonce']) {
    const path: Path = ['cluster', 'keys', ring]
    const current = read.at([...path, 'current'])
    const keys = read.raw([...path, 'keys'])
    if (typeof keys !== 'object' || keys === null || Array.isArray(keys)) continue
    const ids = Object.keys(keys)
    if (typeof current === 'string' && !ids.includes(current)) {
      problem([...path, 'current'], `expected one of the keys (${ids.join(', ')}); found ${current}`)
    }
    for (const id of ids) {
      const source = JSON.stringify(read.raw([...path, 'keys', id]))
      const other = values.get(source)
      const isInline = rawAt(read.raw([...path, 'keys', id]), ['value']) !== undefined
      if (other !== undefined && other !== ring)
        warning([...path, 'keys', id], `the same key as in ${other}: one leak opens both`)
      if (isInline) warning([...path, 'keys', id], 'a key written into the file; { file } or { env } keep it out')
      values.set(source, ring)
    }
  }
}

function subscribers(read: Reader, problem: Report): void {
  checkSubscribers(read.elements(['subscribers']), (path) => read.raw(path), problem)
}

/** Shared with the file that `subscribers: { file }` names. */
export function checkSubscribers(elements: readonly Path[], raw: (path: Path) => unknown, problem: Report): void {
  const seen = new Set<string>()
  for (const path of elements) {
    const entry = raw(path)
    if (typeof entry !== 'object' || entry === null) continue
    const { username, domain, password, ha1 } = entry as Record<string, unknown>
    if ((password === undefined) === (ha1 === undefined)) problem(path, 'expected either password or ha1')
    else if (ha1 !== undefined && typeof ha1 === 'object' && ha1 !== null && Object.keys(ha1).length === 0) {
      problem([...path, 'ha1'], 'expected md5, sha256 or both')
    }
    if (typeof username !== 'string') continue
    const id = `${username}@${typeof domain === 'string' ? domain : ''}`
    if (seen.has(id))
      problem([...path, 'username'], `a second subscriber ${username}${typeof domain === 'string' ? ` in ${domain}` : ''}`)
    seen.add(id)
  }
}

function destinations(read: Reader, problem: Report): void {
  const seen = new Set<unknown>()
  for (const path of read.elements(['destinations'])) {
    const name = read.at([...path, 'name'])
    if (name !== undefined && seen.has(name)) problem([...path, 'name'], `a second destination of the name ${String(name)}`)
    seen.add(name)
    const match = read.raw([...path, 'match'])
    if (typeof match === 'object' && match !== null && Object.keys(match).length === 0) {
      problem([...path, 'match'], 'expected domain, prefix or both')
    }
  }
}

function admin(read: Reader, warning: Report): void {
  const trusts = read.at(['admin', 'trustLoopback'])
  const token = read.raw(['admin', 'token'])
  if (trusts === false && token === undefined) {
    warning(['admin'], 'neither a token nor trustLoopback: only /healthz and /readyz will be answered')
  }
}

class Reader {
  readonly #document: ConfigDocument
  constructor(document: ConfigDocument) {
    this.#document = document
  }

  raw(path: Path): unknown {
    return rawAt(this.#document.value, path)
  }

  /** Paths of the elements of the list at `path`; none where there is no list. */
  elements(path: Path): Path[] {
    const list = this.raw(path)
    return Array.isArray(list) ? list.map((_, i) => [...path, i]) : []
  }

  /** The value at `path` as the schema makes it, defaults included; undefined where it is at fault or missing. */
  at(path: Path): unknown {
    const schema: z.ZodType | undefined = schemaAt(fileSchema, path)
    const result = schema?.safeParse(this.raw(path))
    return result?.success ? result.data : undefined
  }

  number(path: string): number | undefined {
    const value = this.at(path.split('.'))
    return typeof value === 'number' ? value : undefined
  }

  text(path: string): string | undefined {
    const value = this.at(path.split('.'))
    return typeof value === 'string' ? value : undefined
  }
}
