import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs'
import { dirname, extname, resolve } from 'node:path'
import type { PlannedNode } from './demo-plan.ts'
import type { NodeReport } from './node.ts'

/** The command line's own file, in the sources or compiled. */
const MAIN = resolve(import.meta.dirname, `../main${extname(import.meta.filename)}`)
const LOG_TAIL_BYTES = 4096

export interface ChildOptions {
  readonly plan: PlannedNode
  /** Configuration file of its region. */
  readonly config: string
  readonly overrides: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly log: string
  /** It ended after it had listened, and nobody asked it to. */
  onDeath(child: DemoChild, how: string): void
}

/** One node of the demo: a process, its log file, and what it has reported. */
export class DemoChild {
  readonly plan: PlannedNode
  readonly log: string
  readonly #o: ChildOptions
  #process: ChildProcess | undefined
  #ended: Promise<void> = Promise.resolve()
  #stopping = false

  constructor(o: ChildOptions) {
    this.#o = o
    this.plan = o.plan
    this.log = o.log
  }

  /** 0 while it does not run. */
  get pid(): number {
    return this.#process?.pid ?? 0
  }

  /** Resolves once it listens, with nothing; or with why it could not. */
  start(): Promise<string | undefined> {
    mkdirSync(dirname(this.log), { recursive: true })
    const log = openSync(this.log, 'a', 0o600)
    const sets = this.#o.overrides.flatMap((set) => ['--set', set])
    const child = spawn(process.execPath, [MAIN, 'node', '--config', this.#o.config, '--node', this.plan.node, ...sets], {
      stdio: ['ignore', log, log, 'ipc'],
      env: this.#o.env,
    })
    const from = fstatSync(log).size
    closeSync(log)
    this.#process = child
    this.#stopping = false
    const ended = Promise.withResolvers<void>()
    this.#ended = ended.promise
    return new Promise((resolveStart) => {
      let listening = false
      child.on('message', (report: NodeReport) => {
        if (report.kind === 'failed') resolveStart(report.message)
        else {
          listening = true
          resolveStart(undefined)
        }
      })
      const end = (how: string): void => {
        this.#process = undefined
        ended.resolve()
        if (listening && !this.#stopping) this.#o.onDeath(this, how)
        // Once it listened the promise is resolved, and the log may be gone with its disk.
        if (!listening) resolveStart(`${how}${tail(this.log, from)}`)
      }
      child.on('error', (error) => end(error.message))
      child.on('exit', (code, signal) => end(signal === null ? `ended with exit code ${code}` : `killed by ${signal}`))
    })
  }

  /** SIGTERM, and SIGKILL when that does not help in time. */
  async stop(limitMs: number): Promise<void> {
    this.#stopping = true
    const child = this.#process
    if (child === undefined) return
    child.kill('SIGTERM')
    const late = setTimeout(() => child.kill('SIGKILL'), limitMs)
    await this.#ended
    clearTimeout(late)
  }

  kill(): void {
    this.#stopping = true
    this.#process?.kill('SIGKILL')
  }
}

/** The end of what a node wrote since it started: why it died, as far as it could say. */
function tail(file: string, from: number): string {
  if (!existsSync(file)) return ''
  const log = openSync(file, 'r')
  try {
    const start = Math.max(from, fstatSync(log).size - LOG_TAIL_BYTES)
    const buffer = Buffer.alloc(LOG_TAIL_BYTES)
    const text = buffer.toString('utf8', 0, readSync(log, buffer, 0, LOG_TAIL_BYTES, start)).trim()
    return text === '' ? `; its log is ${file}` : `; the end of ${file}:\n${text.replace(/^/gm, '    ')}`
  } finally {
    closeSync(log)
  }
}
