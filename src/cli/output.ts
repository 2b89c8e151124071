import { extname, relative } from 'node:path'

/** Where a command writes; tests hand in their own. */
export interface Output {
  /** Results: standard output. */
  out(text: string): void
  /** What is not a result: standard error. */
  note(text: string): void
}

export const standardOutput: Output = {
  out: (text) => void process.stdout.write(`${text}\n`),
  note: (text) => void process.stderr.write(`${text}\n`),
}

export const printJson = (output: Output, value: unknown): void => output.out(JSON.stringify(value, null, 2))

/** Columns for people: as wide as their widest cell, two spaces between, no trailing blanks. Control characters from the network never get to a terminal. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const text = [head, ...rows].map((row) => row.map((cell) => clean(String(cell))))
  const widths = head.map((_, column) => Math.max(...text.map((row) => (row[column] ?? '').length)))
  return text
    .map((row) =>
      row
        .map((cell, column) =>
          typeof rows[0]?.[column] === 'number' ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
export const clean = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?')

/** `2h 5m`, `41s`, `310ms`: two units at most. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`
  const s = Math.floor(ms / 1000)
  if (s < 60) return `${s}s`
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`
  if (s < 86_400) return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`
  return `${Math.floor(s / 86_400)}d ${Math.floor((s % 86_400) / 3600)}h`
}

export const timeText = (ms: number): string => (ms > 0 ? new Date(ms).toISOString() : '-')
export const megabytes = (bytes: number): string => `${(bytes / 1_048_576).toFixed(0)} MB`

/** By npm in the sources, which brings the Node.js that is needed; by its name where it is installed. */
const ANTIPODE = extname(import.meta.filename) === '.ts' ? 'npm run -s antipode --' : 'antipode'

/** A command as it can be pasted into a terminal. @param state state directory of the demo, named where it is not the usual one */
export const commandText = (command: string, state: string): string =>
  `${ANTIPODE} ${command}${relative(process.cwd(), state) === '.antipode' ? '' : ` --state ${state}`}`
