import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { NodeStatus, RegistrationView } from '../../src/admin/api.ts'
import type { Cdr, CdrPart } from '../../src/cdr/call-record.ts'

/** The demo, as `npm start` runs it, and the programs that a person would try on it. Real processes on the demo's addresses: one such test at a time. */
const root = fileURLToPath(new URL('../..', import.meta.url))
const scenarios = fileURLToPath(new URL('./scenarios/', import.meta.url))
const exec = promisify(execFile)

export const NODES = ['us-east-1', 'us-east-2', 'eu-west-1', 'eu-west-2', 'ap-south-1', 'ap-south-2'] as const
export type NodeName = (typeof NODES)[number]
const REGIONS = ['us-east', 'eu-west', 'ap-south']

export const addressOf = (node: NodeName): string => `127.0.${REGIONS.indexOf(node.slice(0, -2)) + 1}.${node.slice(-1)}`
export const regionOf = (node: NodeName): string => node.slice(0, -2)

/** Why interop tests cannot run here, or undefined. */
export function missing(...programs: string[]): string | undefined {
  const path = (process.env.PATH ?? '').split(':')
  const gone = programs.filter((p) => !path.some((dir) => existsSync(join(dir, p))))
  return gone.length === 0 ? undefined : `not installed: ${gone.join(', ')}`
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Waits until `check` gives something; fails with `what` and the last answer after `limitMs`. */
export async function until<T>(what: string, limitMs: number, check: () => Promise<T | undefined | false>): Promise<T> {
  const deadline = Date.now() + limitMs
  let last: unknown
  for (;;) {
    try {
      const value = await check()
      if (value !== undefined && value !== false) return value
      last = value
    } catch (error) {
      last = error
    }
    if (Date.now() > deadline) throw new Error(`not within ${limitMs} ms: ${what}; last: ${String(last)}`)
    await sleep(50)
  }
}

/** There is one set of demo addresses on a machine: whoever runs a demo in a test holds this, and others wait. */
const lock = join(tmpdir(), 'antipode-demo.lock')

async function takeAddresses(): Promise<void> {
  await until('no other test runs a demo', 600_000, async () => {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' })
      return true
    } catch {
      const holder = Number(readFileSync(lock, 'utf8'))
      // Left behind by a test that was killed.
      if (!existsSync(`/proc/${holder}`)) rmSync(lock, { force: true })
      return false
    }
  })
}

const releaseAddresses = (): void => rmSync(lock, { force: true })

export interface SippResult {
  readonly code: number
  readonly successful: number
  readonly failed: number
  /** What the scenario logged: `answer CALL-ID …`, `bye CALL-ID …`, `ended CALL-ID …`, with ms since the epoch. */
  readonly log: { what: string; callId: string; atMs: number }[]
  readonly output: string
}

export class Demo {
  readonly state: string
  readonly #child: ChildProcess
  #output = ''
  readonly #background: ChildProcess[] = []

  private constructor(state: string, child: ChildProcess) {
    this.state = state
    this.#child = child
    child.stdout!.on('data', (d) => {
      this.#output += d
    })
    child.stderr!.on('data', (d) => {
      this.#output += d
    })
  }

  /** @param sets `path=value` overrides of the configuration, as `--set` takes them */
  static async start(sets: readonly string[] = []): Promise<Demo> {
    await takeAddresses()
    const state = mkdtempSync(join(tmpdir(), 'antipode-'))
    const child = spawn(process.execPath, ['src/main.ts', 'demo', '--state', state, ...sets.flatMap((s) => ['--set', s])], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const demo = new Demo(state, child)
    try {
      await until('the demo is ready', 40_000, async () => {
        if (child.exitCode !== null) throw new Error(`the demo ended with ${child.exitCode}: ${demo.#output}`)
        return demo.#output.includes('Ctrl-C')
      })
    } catch (error) {
      child.kill('SIGKILL')
      releaseAddresses()
      throw new Error(`${String(error)}\n${demo.#output}`)
    }
    return demo
  }

  get output(): string {
    return this.#output
  }

  async stop(): Promise<void> {
    for (const p of this.#background) p.kill('SIGKILL')
    if (this.#child.exitCode === null) {
      const gone = once(this.#child, 'exit')
      this.#child.kill('SIGINT')
      await gone
    }
    if (process.env.ANTIPODE_KEEP_STATE === undefined) rmSync(this.state, { recursive: true, force: true })
    releaseAddresses()
  }

  /** The command line, as a user types it. */
  async cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    try {
      const { stdout, stderr } = await exec(process.execPath, ['src/main.ts', ...args, '--state', this.state], {
        cwd: root,
        maxBuffer: 64 << 20,
      })
      return { code: 0, stdout, stderr }
    } catch (error) {
      const e = error as { code?: number; stdout?: string; stderr?: string }
      return { code: e.code ?? -1, stdout: e.stdout ?? '', stderr: e.stderr ?? String(error) }
    }
  }

  async get<T>(node: NodeName, path: string): Promise<T> {
    const response = await fetch(`http://${addressOf(node)}:8060${path}`, { signal: AbortSignal.timeout(5000) })
    if (!response.ok) throw new Error(`${node} ${path}: ${response.status} ${await response.text()}`)
    return (await response.json()) as T
  }

  status(node: NodeName): Promise<NodeStatus> {
    return this.get<NodeStatus>(node, '/v1/status')
  }

  registrations(node: NodeName, user: string): Promise<RegistrationView> {
    return this.get<RegistrationView>(node, `/v1/registrations/${encodeURIComponent(`sip:${user}@example.net`)}`)
  }

  async cdrs(): Promise<Cdr[]> {
    const { code, stdout, stderr } = await this.cli('cdr', 'list', '--json')
    if (code !== 0) throw new Error(`cdr list: ${code} ${stderr}`)
    return JSON.parse(stdout) as Cdr[]
  }

  async parts(node: NodeName): Promise<CdrPart[]> {
    return (await this.get<{ parts: CdrPart[] }>(node, '/v1/cdrs?parts=1')).parts
  }

  /** kill -9 of the node's process. */
  async kill(...nodes: NodeName[]): Promise<void> {
    const pids = await Promise.all(nodes.map(async (n) => (await this.status(n)).pid))
    for (const pid of pids) process.kill(pid, 'SIGKILL')
  }

  nodeDirectory(node: NodeName): string {
    return join(this.state, node)
  }

  /** Equal digests on all of the given nodes. */
  async digests(nodes: readonly NodeName[] = NODES): Promise<string[]> {
    return Promise.all(nodes.map(async (n) => (await this.status(n)).state.digest))
  }

  /** Runs a SIPp scenario to its end. `lines` become the injection file, one per call. */
  async sipp(scenario: string, to: NodeName | string, lines: readonly string[], options: SippOptions = {}): Promise<SippResult> {
    return this.#sipp(scenario, to, lines, options).done
  }

  /** Starts a SIPp that answers on `port` until the demo stops. */
  uas(scenario: string, port: number, args: readonly string[] = []): ChildProcess {
    const dir = mkdtempSync(join(this.state, 'sipp-'))
    const p = spawn(
      'sipp',
      ['-sf', join(scenarios, scenario), '-i', '127.0.0.1', '-p', String(port), '-nostdin', '-l', '100000', ...args],
      {
        cwd: dir,
        stdio: 'ignore',
      },
    )
    this.#background.push(p)
    return p
  }

  startSipp(scenario: string, to: NodeName | string, lines: readonly string[], options: SippOptions = {}): Promise<SippResult> {
    return this.#sipp(scenario, to, lines, options).done
  }

  #sipp(scenario: string, to: NodeName | string, lines: readonly string[], o: SippOptions): { done: Promise<SippResult> } {
    const dir = mkdtempSync(join(this.state, 'sipp-'))
    writeFileSync(join(dir, 'lines.csv'), `SEQUENTIAL\n${lines.map((l) => `${l};\n`).join('')}`)
    let file = join(scenarios, scenario)
    if (o.replace !== undefined) {
      let text = readFileSync(file, 'utf8')
      for (const [from, with_] of Object.entries(o.replace)) text = text.replaceAll(from, with_)
      file = join(dir, scenario)
      writeFileSync(file, text)
    }
    const host = NODES.includes(to as NodeName) ? `${addressOf(to as NodeName)}:5060` : to
    const count = o.count ?? lines.length
    const args = [host, '-sf', file, '-inf', 'lines.csv', '-m', String(count), '-r', String(o.rate ?? 100), '-l', '100000']
    args.push(
      '-i',
      '127.0.0.1',
      '-p',
      String(o.port ?? 6060),
      '-nostdin',
      '-trace_logs',
      '-trace_err',
      '-timeout',
      `${o.timeoutS ?? 60}s`,
    )
    if (o.holdMs !== undefined) args.push('-d', String(o.holdMs))
    if (o.callId !== undefined) args.push('-cid_str', o.callId)
    const child = spawn('sipp', [...args, ...(o.args ?? [])], { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#background.push(child)
    let output = ''
    child.stdout.on('data', (d) => {
      output = (output + d).slice(-20_000)
    })
    child.stderr.on('data', (d) => {
      output = (output + d).slice(-20_000)
    })
    const done = once(child, 'close').then(([code]) => {
      const log: SippResult['log'] = []
      let errors = ''
      for (const name of readdirSync(dir)) {
        if (name.endsWith('_errors.log')) errors = readFileSync(join(dir, name), 'utf8').slice(0, 4000)
        if (!name.endsWith('_logs.log')) continue
        for (const line of readFileSync(join(dir, name), 'latin1').split('\n')) {
          const m = /^(answer|bye|ended) (\S+) .*?(\d{10})\.(\d{6})/.exec(line)
          if (m !== null) log.push({ what: m[1]!, callId: m[2]!, atMs: Number(m[3]) * 1000 + Number(m[4]) / 1000 })
        }
      }
      const successful = Number(
        /Successful call\s*\|\s*\d+\s*\|\s*(\d+)/.exec(output.slice(output.lastIndexOf('Successful call') - 200))?.[1] ?? -1,
      )
      const failed = Number(
        /Failed call\s*\|\s*\d+\s*\|\s*(\d+)/.exec(output.slice(output.lastIndexOf('Failed call') - 200))?.[1] ?? -1,
      )
      return {
        code: (code as number | null) ?? -1,
        successful,
        failed,
        log,
        output: `sipp ${scenario} → ${to} ended with ${code}\n${errors.slice(0, 1500) || output.slice(-1500)}`,
      }
    })
    return { done }
  }
}

export interface SippOptions {
  readonly rate?: number
  readonly count?: number
  readonly port?: number
  readonly holdMs?: number
  readonly timeoutS?: number
  readonly args?: readonly string[]
  /** For a run of one call: its Call-ID. */
  readonly callId?: string
  /** Text to replace in the scenario. */
  readonly replace?: Readonly<Record<string, string>>
}

/** A line for register.xml. */
export const registration = (user: string, o: { port?: number; expires?: number; cseq?: number } = {}): string =>
  [user, o.port ?? 6070, o.expires ?? 3600, o.cseq ?? 1].join(';')
