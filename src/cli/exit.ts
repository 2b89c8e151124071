import { AntipodeError } from '../base/errors.ts'

/** What an exit code says; also in `antipode --help`. */
export const EXIT = {
  ok: 0,
  /** The question was answered, and the answer is bad: damage, not registered, a node that is down, a node that could not start. */
  negative: 1,
  /** The command line or a configuration file is wrong. */
  usage: 2,
  /** Nobody answered. */
  unreachable: 3,
} as const
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

export const EXIT_HELP = `
Exit codes:
  0  done, and nothing is wrong
  1  a negative finding: damage, not registered, a node is down or could not start
  2  the command line or the configuration is wrong
  3  no node could be reached`

export const usageError = (message: string): AntipodeError => new AntipodeError('CFG_USAGE', message)

export function exitCodeOf(error: unknown): ExitCode {
  if (!(error instanceof AntipodeError)) return EXIT.negative
  if (error.code === 'ADMIN_UNREACHABLE') return EXIT.unreachable
  return error.code.startsWith('CFG_') ? EXIT.usage : EXIT.negative
}
