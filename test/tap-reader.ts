/** One assertion that failed: the names of the subtests around it and its own, and what the diagnostics say. */
export interface TapFailure {
  readonly path: readonly string[]
  readonly detail: string
}

export interface TapSummary {
  /** Assertions, not subtests. */
  readonly passed: number
  readonly failures: readonly TapFailure[]
  /** Names, with the reason where one is given; `todo` counts as skipped. */
  readonly skipped: readonly string[]
  /** The outermost plan was met and nothing bailed out. */
  readonly complete: boolean
}

interface Level {
  readonly name: string
  tests: number
  plan: number | undefined
}

const INDENT = 4

/**
 * Reads one file's TAP 14 as `tap` writes it: subtests indented by four, each closed by a test line one level further out (`# Subtest: name` before
 * them, or a `{` block after that line). Only leaves are counted: a subtest's own line repeats what its assertions said. A subtest that failed though
 * none of its assertions did (its plan was not met, it threw) counts itself.
 */
export function readTap(text: string): TapSummary {
  let passed = 0
  let bailed = false
  const failures: TapFailure[] = []
  const skipped: string[] = []
  const levels: Level[] = [{ name: '', tests: 0, plan: undefined }]
  /** Subtests that a buffered test line `ok 1 - name {` opened; their verdict came first. */
  const blocks: { depth: number; ok: boolean; failuresBefore: number }[] = []
  /** Announced by `# Subtest: name`, not closed yet: how many failures there were before. */
  const announced = new Map<number, number>()
  const lines = text.split('\n')

  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!
    const depth = Math.floor((line.length - line.trimStart().length) / INDENT)
    const body = line.trimStart()
    // Diagnostics may quote anything, TAP included.
    if (body === '---') {
      const end = lines.indexOf(line.replace('---', '...'), i)
      if (end > i) i = end
      continue
    }
    if (body.startsWith('Bail out!')) {
      bailed = true
      failures.push({ path: [body], detail: '' })
      continue
    }
    const subtest = /^# Subtest: (.*)$/.exec(body)
    if (subtest !== null) {
      // tap announces a subtest inside its indentation or just before it; either way the level is the one whose lines follow.
      const inner = (/^ *1\.\.|^ *(not )?ok /.test(lines[i + 1] ?? '') ? depthOf(lines[i + 1]!) : depth + 1) || 1
      levels.length = inner
      levels[inner] = { name: subtest[1]!, tests: 0, plan: undefined }
      announced.set(inner, failures.length)
      continue
    }
    const plan = /^1\.\.(\d+)(\s|$)/.exec(body)
    if (plan !== null && levels[depth] !== undefined) {
      levels[depth].plan = Number(plan[1])
      if (Number(plan[1]) === 0 && depth === 0) skipped.push(body.replace(/^1\.\.0\s*#?\s*/, '') || 'the whole file')
      continue
    }
    const closing = blocks.at(-1)
    if (body === '}' && closing !== undefined && closing.depth === depth) {
      blocks.pop()
      if (!closing.ok && failures.length === closing.failuresBefore)
        failures.push({ path: pathOf(levels, depth + 1), detail: '' })
      levels.length = depth + 1
      continue
    }
    const test = /^(not )?ok\b(?: (\d+))?(?: - )?(.*)$/.exec(body)
    if (test === null || levels[depth] === undefined) continue
    const ok = test[1] === undefined
    const opens = test[3]!.endsWith('{')
    const { name, directive } = describe(test[3]!.replace(/\s*\{$/, ''))
    levels[depth].tests++
    if (opens) {
      blocks.push({ depth, ok, failuresBefore: failures.length })
      levels.length = depth + 1
      levels[depth + 1] = { name, tests: 0, plan: undefined }
      continue
    }
    const before = announced.get(depth + 1)
    const inner = levels[depth + 1]
    if (before !== undefined && inner !== undefined) {
      // The line that closes a subtest: its assertions have been counted.
      announced.delete(depth + 1)
      if (!ok && failures.length === before)
        failures.push({ path: [...pathOf(levels, depth), name], detail: diagnostics(lines, i + 1) })
      else if (directive !== '' && inner.tests === 0)
        skipped.push([...pathOf(levels, depth), `${name} (${directive})`].join(' › '))
      levels.length = depth + 1
    } else if (directive !== '') skipped.push([...pathOf(levels, depth), `${name} (${directive})`].join(' › '))
    else if (ok) passed++
    else failures.push({ path: [...pathOf(levels, depth), name], detail: diagnostics(lines, i + 1) })
  }
  const outer = levels[0]!
  return { passed, failures, skipped, complete: !bailed && outer.plan !== undefined && outer.plan === outer.tests }
}

const depthOf = (line: string): number => Math.floor((line.length - line.trimStart().length) / INDENT)

const pathOf = (levels: readonly (Level | undefined)[], depth: number): string[] =>
  levels.slice(1, depth + 1).flatMap((level) => (level === undefined ? [] : [level.name]))

function describe(text: string): { name: string; directive: string } {
  const directive = /\s+#\s*((?:skip|todo)\b.*)$/i.exec(text)
  const name = (directive === null ? text : text.slice(0, directive.index)).replace(/\s+# time=[\d.]+m?s$/, '')
  return { name: name.trim(), directive: directive?.[1]?.trim() ?? '' }
}

/** The YAML block after a test line, without its fences and indentation. */
function diagnostics(lines: readonly string[], from: number): string {
  const open = /^( *)---$/.exec(lines[from] ?? '')
  if (open === null) return ''
  const block: string[] = []
  for (let i = from + 1; i < lines.length && lines[i] !== `${open[1]}...`; i++) block.push(lines[i]!.slice(open[1]!.length))
  return block.join('\n').trimEnd()
}
