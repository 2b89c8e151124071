#!/usr/bin/env node
import { runCommandLine } from './cli/program.ts'

// A reader that has seen enough (`| head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

const code = await runCommandLine(process.argv.slice(2))
// A connection that a command left open must not hold the process; what it has written must be out before it goes.
process.stdout.write('', () => process.stderr.write('', () => process.exit(code)))
