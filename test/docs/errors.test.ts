import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createMetrics } from '../../src/base/metrics.ts'

/** docs/errors.md and the source name the same codes. An operator searches the page for what a log line says; a code that is not there is a dead end. */
const root = join(import.meta.dirname, '../..')
const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const PREFIXES = 'SIP|REG|CRDT|GEO|CDR|CFG|NET|NODE|DEMO|DRILL|DNS|TOKEN|HOP|ADMIN'
const CODE = `(?:INVARIANT|(?:${PREFIXES})_[A-Z0-9_]*[A-Z0-9])`
const quoted = new RegExp(`(['"\`])(${CODE})\\1`, 'g')

const page = read('docs/errors.md')
const sources = globSync(['src/**/*.ts', 'crdt/**/*.ts', 'geo/**/*.ts', 'config/**/*.ts'], { cwd: root }).sort()

/** Comments name codes too, and an old one must not keep a row alive. */
const withoutComments = (text: string): string => text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')

const codesOf = (source: string): string[] => [...withoutComments(source).matchAll(quoted)].map((m) => m[2]!)

interface Row {
  readonly section: string
  readonly code: string
  readonly cells: readonly string[]
}

function rowsOf(text: string): Row[] {
  let section = ''
  return text.split('\n').flatMap((line): Row[] => {
    if (line.startsWith('## ')) section = line.slice(3).replaceAll('\\', '')
    const code = new RegExp(`^\\| *\`(${CODE})\` *\\|`).exec(line)?.[1]
    return code === undefined
      ? []
      : [
          {
            section,
            code,
            cells: line
              .split('|')
              .slice(1, -1)
              .map((cell) => cell.trim()),
          },
        ]
  })
}

/** What one of the two has and the other has not. */
function gaps(documentText: string, sourceTexts: readonly string[]): { undocumented: string[]; unused: string[] } {
  const documented = new Set(rowsOf(documentText).map((r) => r.code))
  const used = new Set(sourceTexts.flatMap(codesOf))
  return {
    undocumented: [...used].filter((code) => !documented.has(code)).sort(),
    unused: [...documented].filter((code) => !used.has(code)).sort(),
  }
}

t.test('every code in the source is on the page, and every code on the page is in the source', async (t) => {
  const texts = sources.map(read)
  t.ok(texts.length > 100 && new Set(texts.flatMap(codesOf)).size > 100, 'the source was read')
  t.strictSame(gaps(page, texts), { undocumented: [], unused: [] })
})

t.test('a row taken off the page, and a code taken out of the source, are missed', async (t) => {
  const texts = sources.map(read)
  for (const { code } of rowsOf(page)) {
    const shorter = page.replace(new RegExp(`^\\| *\`${code}\` .*\n`, 'm'), '')
    const renamed = texts.map((text) => text.replaceAll(new RegExp(`(['"\`])${code}\\1`, 'g'), "'gone'"))
    t.ok(gaps(shorter, texts).undocumented.includes(code) && gaps(page, renamed).unused.includes(code), code)
  }
  const added = ["throw new AntipodeError('NET_NEVER_HEARD_OF', '')", ...texts]
  t.ok(gaps(page, added).undocumented.includes('NET_NEVER_HEARD_OF'))
})

t.test('no code is put together at run time, and none has a prefix that is not looked for', async (t) => {
  for (const file of sources) {
    const text = withoutComments(read(file))
    t.notMatch(text, new RegExp(`['"\`](?:${PREFIXES})_[A-Z0-9_]*(?:\\$\\{|_['"\`])`), file)
    const given = [...text.matchAll(/\b(?:AntipodeError|fault|refusal)\(\s*(?:\d+,\s*)?(['"`])([^'"`]+)\1/g)].map((m) => m[2]!)
    t.strictSame(
      given.filter((code) => !new RegExp(`^${CODE}$`).test(code)),
      [],
      file,
    )
  }
})

t.test('the formats name no code that is not on the page', async (t) => {
  const documented = new Set(rowsOf(page).map((r) => r.code))
  for (const file of ['crdt/PROTOCOL.md', 'src/cdr/FORMAT.md']) {
    const named = [...read(file).matchAll(new RegExp(`\`(${CODE})\``, 'g'))].map((m) => m[1]!)
    t.ok(named.length >= 10, file)
    t.strictSame(
      named.filter((code) => !documented.has(code)),
      [],
      file,
    )
  }
})

t.test('each row is complete, stands once, under its prefix, and names metrics that there are', async (t) => {
  const metrics = new Set((await createMetrics().registry.getMetricsAsJSON()).map((m) => m.name))
  const seen = new Set<string>()
  for (const { section, code, cells } of rowsOf(page)) {
    t.notOk(seen.has(code), `${code} stands once`)
    seen.add(code)
    t.ok(cells.length === 4 && cells.every((cell) => cell.length > 2), `${code} has a meaning, how it shows, and what to do`)
    const prefixes = section.split(', ')
    t.ok(
      prefixes.some((prefix) => code.startsWith(prefix)),
      `${code} under ${section}`,
    )
  }
  for (const [, name] of page.matchAll(/`(antipode_[a-z_]+)/g)) t.ok(metrics.has(name!), String(name))
})
