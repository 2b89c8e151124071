import { globSync, readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'

/**
 * The house as DESIGN draws it. A room is the first whose pattern matches a file; `reads` are the rooms that it may import from, besides itself. Types
 * count like values: what is known to a lower room is known to it.
 */
interface Room {
  readonly name: string
  readonly files: RegExp
  readonly reads: readonly string[]
  /** Cores take time, randomness and stores as arguments. */
  readonly core?: true
}

const PROTOCOL = ['base', 'config', 'sip', 'transaction']
const FIELD_CORES = ['crdt', 'geo', 'cdr', 'guard', 'dispatch', 'registrar', 'proxy']
const SHELLS = ['transport', 'admin', 'cdr-store', 'crdt-link', 'geo-shells']
const rooms: readonly Room[] = [
  { name: 'base', files: /^src\/base\//, reads: [] },
  { name: 'config', files: /^config\//, reads: ['base'] },

  // Shells that live in the folder of their core come before it.
  { name: 'crdt-link', files: /^crdt\/link\.ts$/, reads: ['base', 'config', 'crdt'] },
  { name: 'geo-shells', files: /^geo\/(dns-server|probe)\.ts$/, reads: ['base', 'config', 'geo'] },
  { name: 'cdr-store', files: /^src\/cdr\/(store\/|audit\.ts$)/, reads: ['base', 'config', 'cdr'] },
  { name: 'transport', files: /^src\/transport\//, reads: PROTOCOL },
  { name: 'admin', files: /^src\/admin\//, reads: [...PROTOCOL, ...FIELD_CORES] },

  { name: 'sip', files: /^src\/sip\//, reads: ['base', 'config'], core: true },
  { name: 'transaction', files: /^src\/transaction\//, reads: ['base', 'config', 'sip'], core: true },
  // Neither knows SIP, nor the other.
  { name: 'crdt', files: /^crdt\//, reads: ['base', 'config'], core: true },
  { name: 'geo', files: /^geo\//, reads: ['base', 'config'], core: true },
  ...FIELD_CORES.slice(2).map(
    (name, i): Room => ({
      name,
      files: new RegExp(`^src/${name}/`),
      reads: [...PROTOCOL, ...FIELD_CORES.slice(0, i + 2)],
      core: true,
    }),
  ),

  // Helpers of the gateway lie beside it.
  { name: 'top', files: /^src\/(main\.ts$|cli\/)/, reads: ['base', 'config', 'cdr', 'admin', 'cdr-store', 'gateway'] },
  { name: 'gateway', files: /^src\/[a-z-]+\.ts$/, reads: [...PROTOCOL, ...FIELD_CORES, ...SHELLS] },
]

/** Packages → the only files that may import them. */
const packages: Readonly<Record<string, RegExp>> = {
  yjs: /^crdt\/replica\.ts$/,
  lib0: /^crdt\/replica\.ts$/,
  ws: /^(crdt\/link|src\/transport\/ws)\.ts$/,
  undici: /^(geo\/probe|src\/admin\/client)\.ts$/,
  'dns-packet': /^geo\//,
  pino: /^src\/base\/log\.ts$/,
  'prom-client': /^src\/base\/metrics\.ts$/,
  zod: /^config\//,
  yaml: /^config\//,
  commander: /^src\/cli\//,
}

/** Of Node.js, cores use what only computes. */
const PURE_BUILTINS = ['node:crypto', 'node:buffer', 'node:net', 'node:util', 'node:zlib', 'node:assert']
const PURE_OF_NET = /^(isIP|isIPv4|isIPv6|BlockList|SocketAddress)$/

const root = join(import.meta.dirname, '..')
const files = globSync(['src/**/*.ts', 'crdt/**/*.ts', 'geo/**/*.ts', 'config/**/*.ts'], { cwd: root }).sort()
const roomOf = (file: string): Room | undefined => rooms.find((room) => room.files.test(file))
const sourceOf = (file: string): string => readFileSync(join(root, file), 'utf8')
/** Comments may name anything; strings do not hold `//` followed by one of the names that are looked for. */
const withoutComments = (source: string): string => source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1')

interface Import {
  readonly specifier: string
  /** Text between `import` and `from`; empty for a bare or dynamic one. */
  readonly names: string
}

function importsOf(source: string): Import[] {
  const code = withoutComments(source)
  const statements = [...code.matchAll(/^\s*(?:import|export)\b([^'"`;]*?)\bfrom\s*['"]([^'"]+)['"]/gm)].map((m) => ({
    names: m[1]!,
    specifier: m[2]!,
  }))
  const bare = [...code.matchAll(/^\s*import\s*['"]([^'"]+)['"]/gm)].map((m) => ({ names: '', specifier: m[1]! }))
  const dynamic = [...code.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)].map((m) => ({ names: '', specifier: m[1]! }))
  return [...statements, ...bare, ...dynamic]
}

const packageOf = (specifier: string): string => specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')

t.test('every source file belongs to a room of the house', async (t) => {
  t.ok(files.length > 20, 'the sources are found')
  t.same(
    files.filter((file) => roomOf(file) === undefined),
    [],
  )
})

t.test('imports point down only, and among cores only to the left', async (t) => {
  const wrong: string[] = []
  for (const file of files) {
    const room = roomOf(file)!
    for (const { specifier } of importsOf(sourceOf(file)).filter((i) => i.specifier.startsWith('.'))) {
      const target = normalize(join(dirname(file), specifier))
      const into = roomOf(target)
      if (into === undefined || (into !== room && !room.reads.includes(into.name))) {
        wrong.push(`${file} (${room.name}) imports ${target} (${into?.name ?? 'no room'})`)
      }
      if (!specifier.endsWith('.ts')) wrong.push(`${file} imports ${specifier} without its extension`)
    }
  }
  t.same(wrong, [])
})

t.test('each package is imported in its own place alone', async (t) => {
  const wrong: string[] = []
  for (const file of files) {
    for (const { specifier } of importsOf(sourceOf(file)).filter((i) => !i.specifier.startsWith('.'))) {
      if (isBuiltin(specifier)) {
        if (!specifier.startsWith('node:')) wrong.push(`${file} imports ${specifier} without node:`)
      } else if (!packages[packageOf(specifier)]?.test(file)) wrong.push(`${file} imports ${specifier}`)
    }
  }
  t.same(wrong, [])
})

t.test('cores do no I/O, read no clock, draw no randomness, and set no timers', async (t) => {
  const wrong: string[] = []
  for (const file of files.filter((f) => roomOf(f)!.core)) {
    const source = sourceOf(file)
    for (const { specifier, names } of importsOf(source)) {
      if (!isBuiltin(specifier)) continue
      if (!PURE_BUILTINS.includes(specifier)) wrong.push(`${file} imports ${specifier}`)
      if (specifier !== 'node:net') continue
      const used = names
        .replace(/[{}]/g, '')
        .split(',')
        .map((n) => n.replace(/\btype\b/, '').trim())
      for (const name of used) if (name !== '' && !PURE_OF_NET.test(name)) wrong.push(`${file} imports ${name} from node:net`)
    }
    const code = withoutComments(source)
    for (const [found] of code.matchAll(
      /\b(?:Date\.now\(|new Date\(\)|performance\.now\(|Math\.random\(|setTimeout\(|setInterval\(|setImmediate\(|randomBytes\(|randomUUID\(|process\.(?:env|hrtime|stdout|stderr|cwd)\b)|(?<![.#\w])fetch\(/g,
    )) {
      wrong.push(`${file} uses ${found}`)
    }
  }
  t.same(wrong, [])
})

t.test('the rules are able to fail', async (t) => {
  t.equal(roomOf('crdt/link.ts')?.name, 'crdt-link')
  t.equal(roomOf('src/cdr/store/journal.ts')?.name, 'cdr-store')
  t.equal(roomOf('src/gateway.ts')?.name, 'gateway')
  t.notOk(roomOf('crdt/replica.ts')?.reads.includes('sip'), 'crdt does not know SIP')
  t.notOk(roomOf('src/registrar/registrar.ts')?.reads.includes('proxy'), 'the registrar does not know the proxy')
  t.same(
    importsOf(
      "import a, { type B } from './x.ts'\n// import c from 'c'\nexport * from './y.ts'\nimport 'z'\nconst q = await import('./w.ts')\n",
    ).map((i) => i.specifier),
    ['./x.ts', './y.ts', 'z', './w.ts'],
  )
})
