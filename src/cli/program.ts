import { Command, CommanderError, Option } from 'commander'
import { AntipodeError } from '../base/errors.ts'
import { VERSION } from '../version.ts'
import { EXIT, EXIT_HELP, type ExitCode, exitCodeOf, usageError } from './exit.ts'
import { type Output, standardOutput } from './output.ts'
import type { GlobalOptions } from './targets.ts'

const collect = (value: string, before: readonly string[]): string[] => [...before, value]

const rows = (value: string): number => {
  if (!/^[1-9]\d{0,5}$/.test(value)) throw usageError(`--limit ${value}: expected a whole number from 1 to 999999`)
  return Number(value)
}

/** An installed `antipode` is run by whatever `node` is on the PATH, and `engines` in package.json only warns. Commands that run no node get by with less. */
function needsNode24(): void {
  if (Number.parseInt(process.versions.node, 10) >= 24) return
  throw new AntipodeError(
    'NODE_VERSION',
    `needs Node.js 24 or newer, and ${process.execPath} is ${process.version}; \`npx antipode\` uses the one that is installed with it`,
  )
}

/** The command line. Commands are loaded when they are used: `--help` does not wait for a gateway. */
export function createProgram(done: (code: ExitCode) => void, output: Output): Command {
  const program = new Command('antipode')
  const json = () => new Option('--json', 'JSON for programs instead of a table')
  const sets = () =>
    new Option('--set <path=value>', 'override a field, as cluster.constants.windowMs=1000 (repeatable)')
      .argParser(collect)
      .default([], 'none')
  const globals = (command: Command): GlobalOptions & Record<string, unknown> => command.optsWithGlobals()
  /** Runs `action` with all options, the global ones included, and hands its exit code on. */
  const run =
    (action: (o: never, args: string[]) => Promise<ExitCode> | ExitCode) =>
    async (...given: unknown[]): Promise<void> => {
      const command = given.at(-1) as Command
      done(await action(globals(command) as never, command.args))
    }

  program
    .description('A geo-redundant SIP gateway.')
    .version(VERSION)
    .addOption(
      new Option('--config <file>', 'configuration file (repeatable)').argParser(collect).default([], 'the running demo'),
    )
    .option('--state <dir>', 'state directory of the demo', '.antipode')
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('after', EXIT_HELP)
    .exitOverride()
    .configureOutput({ writeOut: (text) => output.out(text.trimEnd()), writeErr: (text) => output.note(text.trimEnd()) })
    .showSuggestionAfterError()

  program
    .command('node')
    .description('run one node, named by --node, of the region that --config describes')
    .option('--node <name>', 'the node; may be left out where the region has only one')
    .addOption(sets())
    .action(
      run(async (o: GlobalOptions & { node?: string; set: string[] }) => {
        if (o.config.length !== 1) throw usageError('node needs one --config FILE, and --node NAME where its region has several')
        needsNode24()
        return (await import('./node.ts')).runNode(o.config[0]!, o)
      }),
    )

  program
    .command('demo')
    .description('run three regions of two nodes on this host, from config/examples, until Ctrl-C')
    .addOption(sets())
    .option(
      '--base-address <address>',
      'all nodes on this address, each with ports of its own (where only 127.0.0.1 can be bound)',
    )
    .action(
      run(async (o: GlobalOptions & { set: string[]; baseAddress?: string }) => {
        needsNode24()
        return (await import('./demo.ts')).runDemo(o, output)
      }),
    )

  program
    .command('status')
    .description('every node: is it up and ready, its links, its state')
    .addOption(json())
    .action(run(async (o: GlobalOptions) => (await import('./status.ts')).status(o, output)))

  program
    .command('locate')
    .description('where each node finds a user: contact, edge, flow, expiry')
    .argument('<aor>', 'sip:user@domain, user@domain or tel:+…')
    .addOption(json())
    .action(run(async (o: GlobalOptions, [aor]) => (await import('./status.ts')).locate(aor!, o, output)))

  program
    .command('dialogs')
    .description('calls in progress, and those that ended a short while ago')
    .addOption(json())
    .addOption(new Option('--limit <n>', 'so many at most').argParser(rows).default(1000))
    .action(run(async (o: GlobalOptions & { limit: number }) => (await import('./status.ts')).dialogs(o, output)))

  const cdr = program.command('cdr').description('call detail records')
  cdr
    .command('list')
    .description('calls, merged from the journals and mirrors of all nodes that answer')
    .addOption(json())
    .option(
      '--dir <dir>',
      'read journals from disk instead (repeatable): a journal, a state directory, or a directory of those',
      collect,
      [],
    )
    .addOption(new Option('--limit <n>', 'only the last so many').argParser(rows))
    .action(run(async (o: GlobalOptions & { dir: string[] }) => (await import('./cdr.ts')).cdrList(o, output)))
  cdr
    .command('verify')
    .description('prove journals on disk whole: chain, checksums, commits; names segment, offset and record of any damage')
    .argument('[dir...]', 'journals; default: those of the demo, or of the configured nodes on this host')
    .addOption(json())
    .action(run(async (o: GlobalOptions, dirs) => (await import('./cdr.ts')).cdrVerify(dirs, o, output)))

  const drill = program.command('drill').description('rehearse failures')
  drill
    .command('cut')
    .description('cut a region off: its nodes and all others drop everything of each other')
    .argument('<region>')
    .action(run(async (o: GlobalOptions, [region]) => (await import('./drill.ts')).cut(region!, o, output)))
  drill
    .command('heal')
    .description('heal all links of a region, or all links')
    .argument('[region]')
    .action(run(async (o: GlobalOptions, [region]) => (await import('./drill.ts')).heal(region, o, output)))
  drill
    .command('kill')
    .description('kill -9 a node of the demo')
    .argument('<node>')
    .action(run(async (o: GlobalOptions, [node]) => (await import('./drill.ts')).kill(node!, o, output)))
  drill
    .command('start')
    .description('start a dead node of the demo again')
    .argument('<node>')
    .action(run(async (o: GlobalOptions, [node]) => (await import('./drill.ts')).start(node!, o, output)))

  const config = program.command('config').description('configuration files')
  config
    .command('check')
    .description('report everything that is wrong with configuration files')
    .argument('[file...]', 'default: those of --config')
    .option('--node <name>', 'as this node would read it')
    .option('--strict', 'warnings count as well, among them secrets that are not on this host')
    .addOption(json())
    .addOption(sets())
    .action(
      run(async (o: GlobalOptions & { set: string[] }, files) => {
        const named = files.length > 0 ? files : o.config
        if (named.length === 0) throw usageError('config check needs a FILE')
        return (await import('./check.ts')).check(named, o, output)
      }),
    )

  return program
}

/** Runs one command line; resolves with the exit code. Errors are printed, as `antipode: CODE: message`. */
export async function runCommandLine(args: readonly string[], output: Output = standardOutput): Promise<ExitCode> {
  let code: ExitCode = EXIT.ok
  const program = createProgram((c) => {
    code = c
  }, output)
  try {
    await program.parseAsync(args, { from: 'user' })
    return code
  } catch (error) {
    // Commander has said what it had to say; --help and --version end here as well, with 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    const { message, stack, code: name } = error as Error & { code?: string }
    const exit = exitCodeOf(error)
    output.note(`antipode: ${name === undefined ? (stack ?? message) : `${name}: ${message}`}`)
    return exit
  }
}
