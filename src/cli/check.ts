import { problemText, readConfig } from '../../config/load.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { type Output, printJson } from './output.ts'

export interface CheckOptions {
  readonly node?: string
  readonly json?: boolean
  /** Warnings count as problems; secrets that are not on this host are among them. */
  readonly strict?: boolean
  readonly set: readonly string[]
}

/** 0: the file can be used. 1: it cannot; every problem is printed, with its path, what was expected, line and column. */
export function check(files: readonly string[], o: CheckOptions, output: Output): ExitCode {
  const results = files.map((name) => {
    const { problems, warnings } = readConfig(name, { node: o.node, overrides: o.set, secretsMayBeAbsent: true })
    return { file: name, problems, warnings }
  })
  const failed = results.filter((r) => r.problems.length > 0 || (o.strict === true && r.warnings.length > 0))
  if (o.json) {
    printJson(
      output,
      results.map(({ file, problems, warnings }) => ({ file, ok: problems.length === 0, problems, warnings })),
    )
  } else {
    for (const { file, problems, warnings } of results) {
      for (const p of problems) output.out(problemText(file, p))
      for (const w of warnings) output.out(problemText(file, { ...w, message: `warning: ${w.message}` }))
      const counts = [count(problems.length, 'problem'), count(warnings.length, 'warning')].filter((t) => t !== '').join(', ')
      output.out(`${file}: ${counts === '' ? 'ok' : problems.length === 0 ? `ok, ${counts}` : counts}`)
    }
  }
  return failed.length === 0 ? EXIT.ok : EXIT.negative
}

const count = (n: number, what: string): string => (n === 0 ? '' : `${n} ${what}${n === 1 ? '' : 's'}`)
