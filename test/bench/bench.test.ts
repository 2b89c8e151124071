import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { figureLines, scenarios } from '../../bench/run.ts'

/** Benches that nothing runs rot. Here the micro scenarios run as small as they go; how fast is nobody's business in a test. */
t.test('every file of bench/ is a scenario, under its own name', async (t) => {
  const all = await scenarios()
  const files = readdirSync(join(import.meta.dirname, '../../bench')).filter((f) => f.endsWith('.ts') && f !== 'run.ts')
  t.ok(files.length >= 5)
  t.same(
    all.map((s) => `${s.name}.ts`),
    files.sort(),
  )
  for (const { name, description, kind, run } of all) {
    t.ok(description.length > 20, `${name} says what it measures`)
    t.ok(kind === 'micro' || kind === 'system', `${name} says what it needs`)
    t.type(run, 'function')
  }
})

t.test('each micro scenario runs small, without failures, and gives figures that mean something', async (t) => {
  for (const scenario of (await scenarios()).filter((s) => s.kind === 'micro')) {
    const { figures, failures } = await scenario.run({ seconds: 0 })
    t.same(failures, [], `${scenario.name} has no failures`)
    t.ok(figures.length > 0, `${scenario.name} measures something`)
    t.equal(new Set(figures.map((f) => f.what)).size, figures.length, 'no two figures have the same name')
    for (const { what, value, unit } of figures) {
      t.ok(Number.isFinite(value) && value >= 0, `${scenario.name}: ${what} is a number: ${value}`)
      t.match(unit, /^(us CPU|ms|\/s)$/, `${scenario.name}: ${what} has a unit`)
    }
    t.equal(figureLines(figures).length, figures.length, 'a line each')
  }
})
