// npm run bench [-- NAME…] [--seconds N] [--json]: lists and runs the scenarios of this folder. See README.md.
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { BenchResult, Figure, Scenario } from './lib/scenario.ts'

/** Every file beside this one is a scenario; what they share lies in lib/. */
export async function scenarios(): Promise<Scenario[]> {
  const files = readdirSync(import.meta.dirname).filter(
    (f) => f.endsWith('.ts') && join(import.meta.dirname, f) !== import.meta.filename,
  )
  return Promise.all(files.sort().map(async (file) => (await import(`./${file}`)) as Scenario))
}

/** Where and of what: figures without these mean little. */
function surroundings(): Record<string, string | number> {
  let commit = 'unknown'
  try {
    commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      cwd: import.meta.dirname,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    // Not a checkout.
  }
  return {
    date: new Date().toISOString().slice(0, 16),
    commit,
    node: process.version,
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
  }
}

export const valueText = (value: number): string =>
  value >= 1000 ? Math.round(value).toLocaleString('en-US') : value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2)

export function figureLines(figures: readonly Figure[]): string[] {
  const rows = figures.map((f) => [f.what, valueText(f.value), f.unit, f.detail ?? ''] as const)
  const width = (column: 0 | 1 | 2): number => Math.max(0, ...rows.map((r) => r[column].length))
  return rows.map((r) => `  ${r[0].padEnd(width(0))}  ${r[1].padStart(width(1))} ${r[2].padEnd(width(2))}  ${r[3]}`.trimEnd())
}

const print = (line: string): void => void process.stdout.write(`${line}\n`)
const note = (line: string): void => void process.stderr.write(`${line}\n`)

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: 'string' },
      json: { type: 'boolean', default: false },
      all: { type: 'boolean', default: false },
      brief: { type: 'boolean', default: false },
      profile: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const known = await scenarios()
  const seconds = values.seconds === undefined ? undefined : Number(values.seconds)
  const strangers = positionals.filter((name) => !known.some((s) => s.name === name))
  if (strangers.length > 0 || (seconds !== undefined && !(seconds >= 0))) {
    note(
      strangers.length > 0
        ? `no scenario ${strangers.join(', ')}; there are: ${known.map((s) => s.name).join(', ')}`
        : '--seconds takes a number',
    )
    return 2
  }
  const chosen = values.all ? known : known.filter((s) => positionals.includes(s.name))
  if (chosen.length === 0 || values.help) {
    print('npm run bench -- NAME… [--all] [--seconds N] [--brief] [--profile FILE] [--json]\n')
    for (const { name, kind, description } of known) print(`  ${name.padEnd(8)} ${kind.padEnd(6)}  ${description}`)
    return 0
  }
  const where = surroundings()
  if (!values.json)
    print(
      Object.entries(where)
        .map(([key, value]) => `${key} ${value}`)
        .join(', '),
    )
  const results: ({ name: string } & BenchResult)[] = []
  for (const scenario of chosen) {
    const result = await scenario.run({ seconds, brief: values.brief, profile: values.profile, note })
    results.push({ name: scenario.name, ...result })
    if (values.json) continue
    print(`\n${scenario.name}: ${scenario.description}`)
    for (const line of figureLines(result.figures)) print(line)
    for (const failure of result.failures) print(`  FAILED: ${failure}`)
  }
  if (values.json) print(JSON.stringify({ ...where, results }, null, 2))
  return results.some((r) => r.failures.length > 0) ? 1 : 0
}

if (process.argv[1] === import.meta.filename) process.exitCode = await main()
