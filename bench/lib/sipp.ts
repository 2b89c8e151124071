import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('../load/', import.meta.url))
/** A burst must survive while the load waits for a core; net.core.rmem_max caps it. */
const BUFFER_BYTES = '4194304'

export interface SippRun {
  readonly exitCode: number
  readonly successful: number
  readonly failed: number
  readonly retransmissions: number
  /** Failed calls by SIPp's own reasons: `UnexpectedMessage`, `MaxUDPRetrans`, … */
  readonly reasons: Readonly<Record<string, number>>
  /** Response times by SIPp's timer number, ms, ascending. */
  readonly times: ReadonlyMap<number, readonly number[]>
  /** The beginning of its error log. */
  readonly errors: string
}

export interface SippOptions {
  /** File in bench/load/. */
  readonly scenario: string
  /** A new folder for what it writes. */
  readonly directory: string
  readonly lines: readonly string[]
  readonly rate: number
  readonly port: number
  readonly holdMs?: number
  readonly timeoutS: number
}

/** SIPp that calls: one call per line, at `rate` a second. The node that a line goes to stands in the line. */
export async function load(o: SippOptions): Promise<SippRun> {
  mkdirSync(o.directory, { recursive: true })
  writeFileSync(join(o.directory, 'lines.csv'), `SEQUENTIAL\n${o.lines.map((l) => `${l};\n`).join('')}`)
  // The address is a formality: each call sets its own.
  const args = [
    '127.0.1.1:5060',
    '-sf',
    join(folder, o.scenario),
    '-inf',
    'lines.csv',
    '-m',
    String(o.lines.length),
    '-r',
    String(o.rate),
  ]
  args.push(
    '-l',
    '1000000',
    '-i',
    '127.0.0.1',
    '-p',
    String(o.port),
    '-d',
    String(o.holdMs ?? 0),
    '-nostdin',
    '-buff_size',
    BUFFER_BYTES,
  )
  args.push(
    '-timeout',
    `${o.timeoutS}s`,
    '-trace_err',
    '-trace_stat',
    '-stf',
    'stat.csv',
    '-fd',
    '1',
    '-trace_rtt',
    '-rtt_freq',
    '100',
  )
  const child = spawn('sipp', args, { cwd: o.directory, stdio: 'ignore' })
  const [code] = await once(child, 'close')
  return { exitCode: (code as number | null) ?? -1, ...readResults(o.directory) }
}

/** SIPp that is called, until it is killed. @param scenario a path */
export function answerer(scenario: string, port: number, directory: string): ChildProcess {
  mkdirSync(directory, { recursive: true })
  const args = ['-sf', scenario, '-i', '127.0.0.1', '-p', String(port), '-nostdin', '-l', '1000000', '-buff_size', BUFFER_BYTES]
  return spawn('sipp', [...args, '-trace_err'], { cwd: directory, stdio: 'ignore' })
}

function readResults(directory: string): Omit<SippRun, 'exitCode'> {
  const names = readdirSync(directory)
  const read = (ends: string): string => {
    const name = names.find((n) => n.endsWith(ends))
    return name === undefined ? '' : readFileSync(join(directory, name), 'latin1')
  }
  const rows = read('stat.csv').trim().split('\n')
  const head = rows[0]?.split(';') ?? []
  const last = rows.at(-1)?.split(';') ?? []
  /** Cumulative, at the end of the run. */
  const total = (what: string): number => Number(last[head.indexOf(`${what}(C)`)] ?? -1)
  const reasons: Record<string, number> = {}
  for (const column of head) {
    const why = /^Failed(?!Call)(\w+)\(C\)$/.exec(column)?.[1]
    if (why !== undefined && total(`Failed${why}`) > 0) reasons[why] = total(`Failed${why}`)
  }
  const times = new Map<number, number[]>()
  for (const row of read('_rtt.csv').split('\n').slice(1)) {
    const [, ms, timer] = row.split(';')
    if (ms === undefined || timer === undefined) continue
    const list = times.get(Number(timer))
    if (list === undefined) times.set(Number(timer), [Number(ms)])
    else list.push(Number(ms))
  }
  for (const list of times.values()) list.sort((a, b) => a - b)
  return {
    successful: total('SuccessfulCall'),
    failed: total('FailedCall'),
    retransmissions: total('Retransmissions'),
    reasons,
    times,
    errors: read('_errors.log').slice(0, 2000),
  }
}
