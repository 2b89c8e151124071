import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

export interface DemoNode {
  readonly region: string
  readonly node: string
  readonly address: string
  readonly sipPort: number
  readonly adminPort: number
  readonly dnsPort: number
  readonly linkPort: number
  /** 0 while it does not run. */
  readonly pid: number
  readonly log: string
}

/** What a running demo says of itself in `<state>/demo.json`, for the other commands. */
export interface DemoState {
  readonly version: 1
  /** The process that holds the nodes. */
  readonly pid: number
  readonly startedAtMs: number
  readonly stateDirectory: string
  /** Unix socket on which it takes orders (`drill start`). */
  readonly control: string
  readonly nodes: readonly DemoNode[]
}

const fileOf = (directory: string): string => join(directory, 'demo.json')

/** The demo that runs with this state directory; undefined where none does (a file that a killed demo left behind does not count). */
export function readDemo(directory: string): DemoState | undefined {
  let state: DemoState
  try {
    state = JSON.parse(readFileSync(fileOf(directory), 'utf8')) as DemoState
  } catch {
    return undefined
  }
  return state.version === 1 && isRunning(state.pid) ? state : undefined
}

/** In one step, so that no reader sees half of it. */
export function writeDemo(state: DemoState): void {
  mkdirSync(state.stateDirectory, { recursive: true })
  const file = fileOf(state.stateDirectory)
  writeFileSync(`${file}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 })
  renameSync(`${file}.new`, file)
}

export function removeDemo(state: DemoState): void {
  rmSync(fileOf(state.stateDirectory), { force: true })
  rmSync(state.control, { force: true })
}

/** Addresses of Unix sockets hold about 100 bytes; a state directory may lie deeper than that. */
export function controlPath(directory: string): string {
  const inState = resolve(directory, 'demo.sock')
  return Buffer.byteLength(inState) <= 100 ? inState : join(tmpdir(), `antipode-demo-${process.pid}.sock`)
}

export function isRunning(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
