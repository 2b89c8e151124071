// What `npm test` runs: every test file as a process of its own, several at a time, those of test/interop/ one after another (they bind the demo's
// addresses); progress a line per file, failures in full, and one last line that counts assertions: `N passed, N failed`, `, N skipped` if any.
//
//   node test/run.ts [--long] [--check] [--no-install] [--jobs N] [FILE…]
//
// A test file says by `// needs: sipp, dig` or `missing('sipp', 'dig')` which programs it cannot do without. Where they are missing, root on Debian gets them from
// the archive (--no-install: not), everyone else is told what is skipped.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { readTap, type TapSummary } from './tap-reader.ts'

const root = resolve(import.meta.dirname, '..')
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    long: { type: 'boolean', default: false },
    check: { type: 'boolean', default: false },
    'no-install': { type: 'boolean', default: false },
    jobs: { type: 'string' },
  },
})

/** Program → Debian package that has it. */
const PACKAGES: Record<string, string> = { sipp: 'sip-tester', dig: 'bind9-dnsutils' }
const FILE_LIMIT_MS = options.long ? 3_600_000 : 300_000
const print = (text: string): void => void process.stdout.write(`${text}\n`)

const env = {
  ...process.env,
  // The Node.js that the package names, also for what tests start by name.
  PATH: `${join(root, 'node_modules/.bin')}:${process.env.PATH ?? ''}`,
  // The limit for a file is ours.
  TAP_TIMEOUT: '0',
  NO_COLOR: '1',
  ...(options.long ? { ANTIPODE_TEST_LONG: '1' } : {}),
}

interface Counts {
  passed: number
  failed: number
  skipped: number
}
const total: Counts = { passed: 0, failed: 0, skipped: 0 }
const running = new Set<ChildProcess>()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    for (const child of running) child.kill('SIGKILL')
    process.exit(130)
  })
}

const has = (program: string): boolean =>
  (process.env.PATH ?? '').split(':').some((directory) => directory !== '' && existsSync(join(directory, program)))

function selectFiles(): string[] {
  if (positionals.length > 0) return positionals.map((file) => relative(root, resolve(file)))
  return globSync('test/**/*.test.ts', { cwd: root }).sort()
}

/** Told in a comment, or by the check with which a file skips itself: `missing('sipp', 'dig')`. */
const needsOf = (file: string): string[] => {
  const source = readFileSync(join(root, file), 'utf8')
  const comment = /^\/\/ needs: (.+)$/m.exec(source)?.[1]?.split(/[,\s]+/) ?? []
  const checked = [...source.matchAll(/\bmissing\(([^)]*)\)/g)].flatMap((m) =>
    [...m[1]!.matchAll(/'([^']+)'/g)].map((q) => q[1]!),
  )
  return [...new Set([...comment, ...checked])].filter(Boolean)
}

/** Debian, as root: what is missing comes from the archive. A policy-rc.d of ours keeps its services from starting meanwhile. */
function install(programs: readonly string[]): void {
  const packages = programs.map((p) => PACKAGES[p]).filter((p) => p !== undefined)
  if (packages.length === 0 || options['no-install'] || process.getuid?.() !== 0 || !has('apt-get')) return
  print(`# installing ${packages.join(' ')}`)
  const policy = '/usr/sbin/policy-rc.d'
  const ours = !existsSync(policy)
  if (ours) {
    writeFileSync(policy, '#!/bin/sh\nexit 101\n')
    chmodSync(policy, 0o755)
  }
  try {
    const apt = (...args: string[]) =>
      spawnSync('apt-get', args, {
        env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
        encoding: 'utf8',
        timeout: 300_000,
      })
    const install = ['install', '-y', '-q', '--no-install-recommends', ...packages]
    // The lists may be there already, and fresh enough.
    let result = apt(...install)
    if (result.status !== 0) {
      apt('update', '-q')
      result = apt(...install)
    }
    if (result.status !== 0) print(`# apt-get could not install them: ${(result.stderr ?? '').trim().split('\n').at(-1)}`)
  } finally {
    if (ours) rmSync(policy, { force: true })
  }
}

/** Why this file cannot run here; undefined where it can. */
function obstacle(file: string): string | undefined {
  const missing = needsOf(file).filter((program) => !has(program))
  if (missing.length > 0)
    return `needs ${missing.map((p) => (PACKAGES[p] === undefined ? p : `${p} (Debian: ${PACKAGES[p]})`)).join(', ')}`
  if (isInterop(file) && process.platform !== 'linux')
    return 'needs the addresses 127.0.1.1 to 127.0.3.2, which only Linux has by itself'
  return undefined
}

const isInterop = (file: string): boolean => file.startsWith('test/interop/')

interface Ran {
  readonly status: string | undefined
  readonly stdout: string
  readonly stderr: string
  readonly ms: number
}

/** Runs one command; `status` says how it failed. */
function execute(command: string, args: readonly string[], limitMs: number): Promise<Ran> {
  return new Promise((done) => {
    const began = performance.now()
    const child = spawn(command, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
    running.add(child)
    const out: Buffer[] = []
    const err: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
    let late = false
    const limit = setTimeout(() => {
      late = true
      child.kill('SIGKILL')
    }, limitMs)
    const end = (status: string | undefined): void => {
      clearTimeout(limit)
      running.delete(child)
      done({
        status: late ? `did not end within ${limitMs / 1000} s` : status,
        stdout: Buffer.concat(out).toString('utf8'),
        stderr: Buffer.concat(err).toString('utf8'),
        ms: performance.now() - began,
      })
    }
    child.on('error', (error) => end(error.message))
    child.on('close', (code, signal) =>
      end(code === 0 ? undefined : signal === null ? `exit code ${code}` : `killed by ${signal}`),
    )
  })
}

async function runFile(file: string): Promise<void> {
  const ran = await execute(process.execPath, [file], FILE_LIMIT_MS)
  const summary = readTap(ran.stdout)
  // A file that dies, or ends before its plan, has failed even if every assertion that it reached was right.
  const died = ran.status !== undefined && summary.failures.length === 0
  const broken = died ? ran.status : !summary.complete ? 'the output ended before the plan' : undefined
  report(file, ran, summary, broken)
}

function report(file: string, ran: Ran, summary: TapSummary, broken: string | undefined): void {
  const failed = summary.failures.length + (broken === undefined ? 0 : 1)
  total.passed += summary.passed
  total.failed += failed
  total.skipped += summary.skipped.length
  const counts = [
    `${summary.passed} passed`,
    failed > 0 ? `${failed} failed` : '',
    summary.skipped.length > 0 ? `${summary.skipped.length} skipped` : '',
  ]
  print(`${failed > 0 ? 'FAIL' : 'ok  '} ${file} (${counts.filter(Boolean).join(', ')}; ${(ran.ms / 1000).toFixed(1)} s)`)
  for (const skip of summary.skipped) print(`       skipped: ${skip}`)
  if (failed === 0) return
  for (const failure of summary.failures) print(indent(`✗ ${failure.path.join(' › ')}\n${indent(failure.detail, 4)}`, 5))
  if (broken !== undefined) print(indent(`✗ ${broken}`, 5))
  const tail = ran.stderr.trim().split('\n').slice(-40).join('\n')
  if (tail !== '') print(indent(`standard error:\n${indent(tail, 2)}`, 5))
  print(`     again: node_modules/.bin/node ${file}`)
}

const indent = (text: string, by: number): string => text.replace(/^(?=.)/gm, ' '.repeat(by))

/** Types and lint, counted as one each. */
async function runCheck(name: string, command: string, args: readonly string[]): Promise<void> {
  const ran = await execute(join(root, 'node_modules/.bin', command), args, 300_000)
  if (ran.status === undefined) total.passed++
  else total.failed++
  print(`${ran.status === undefined ? 'ok  ' : 'FAIL'} ${name} (${(ran.ms / 1000).toFixed(1)} s)`)
  if (ran.status !== undefined) print(indent(`${ran.stdout}\n${ran.stderr}`.trim(), 5))
}

async function runAll(files: readonly string[], jobs: number): Promise<void> {
  const queue = [...files]
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) await runFile(file)
  }
  await Promise.all(Array.from({ length: Math.min(jobs, queue.length) }, worker))
}

const selected = selectFiles()
const absent = selected.filter((file) => !existsSync(join(root, file)))
for (const file of absent) print(`FAIL ${file}: no such file`)
total.failed += absent.length
const files = selected.filter((file) => !absent.includes(file))
install([...new Set(files.flatMap(needsOf))].filter((program) => !has(program)))
if (options.check) {
  await runCheck('types (tsc)', 'tsc', [])
  await runCheck('format and lint (biome)', 'biome', ['ci', '--colors=off', '--reporter=summary', '.'])
}
const runnable: string[] = []
for (const file of files) {
  const why = obstacle(file)
  if (why === undefined) runnable.push(file)
  else {
    total.skipped++
    print(`skip ${file}: ${why}`)
  }
}
const jobs = Math.max(1, Number(options.jobs ?? availableParallelism()) || 1)
await runAll(
  runnable.filter((file) => !isInterop(file)),
  jobs,
)
await runAll(runnable.filter(isInterop), 1)
if (total.passed + total.failed + total.skipped === 0) {
  print('FAIL no test was found')
  total.failed++
}
print(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed > 0 ? 1 : 0
