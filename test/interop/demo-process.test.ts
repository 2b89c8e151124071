import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type DemoState, isRunning, readDemo } from '../../src/cli/demo-state.ts'
import { antipode } from '../src/cli/fake-demo.ts'

/** An address that neither the demo nor other tests use; its nodes then share it, as on macOS. */
const ADDRESS = '127.0.0.9'
const MAIN = join(import.meta.dirname, '../../src/main.ts')

interface Started {
  readonly child: ChildProcess
  readonly state: string
  said(): string
  until(pattern: RegExp): Promise<void>
  /** Exit code, once it is gone. */
  readonly gone: Promise<number | null>
}

function start(t: Test, state = t.testdir({}), ...more: string[]): Started {
  const child = spawn(process.execPath, [MAIN, 'demo', '--state', state, '--base-address', ADDRESS, ...more], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  const waiting = new Set<() => void>()
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8')
      for (const wake of waiting) wake()
    })
  }
  const gone = once(child, 'close').then(() => {
    for (const wake of waiting) wake()
    return child.exitCode
  })
  t.teardown(() => child.kill('SIGKILL'))
  const until = (pattern: RegExp) =>
    new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (pattern.test(text)) resolve()
        else if (child.exitCode !== null || child.signalCode !== null)
          reject(new Error(`it ended without saying ${pattern}:\n${text}`))
      }
      waiting.add(look)
      look()
    })
  return { child, state, said: () => text, until, gone }
}

const pidsOf = (demo: DemoState): number[] => demo.nodes.map((n) => n.pid)

async function untilAllGone(pids: readonly number[]): Promise<number[]> {
  for (let i = 0; i < 300 && pids.some(isRunning); i++) await new Promise((r) => setTimeout(r, 50))
  return pids.filter(isRunning)
}

t.test('six nodes start, one is killed and started again, and a signal stops them all', async (t) => {
  const demo = start(t)
  await demo.until(/Ctrl-C stops all nodes/)
  t.match(demo.said(), /eu-west-2 +127\.0\.0\.9:5360 +http:\/\/127\.0\.0\.9:8360 +127\.0\.0\.9:5653 +127\.0\.0\.9:7360/)
  t.match(demo.said(), /All nodes share 127\.0\.0\.9: the ports of each are 100 above/)
  const first = readDemo(demo.state)!
  t.equal(new Set(pidsOf(first)).size, 6)
  t.ok(pidsOf(first).every(isRunning))
  t.equal((await antipode('status', '--state', demo.state)).code, 0)

  t.match(
    await antipode('demo', '--state', demo.state),
    { code: 1, notes: /DEMO_RUNNING: .*pid \d+/ },
    'a second demo is refused',
  )
  t.match(await antipode('drill', 'start', 'eu-west-1', '--state', demo.state), { code: 1, notes: /already runs/ })

  t.equal((await antipode('drill', 'kill', 'eu-west-1', '--state', demo.state)).code, 0)
  await demo.until(/eu-west-1 is dead \(killed by SIGKILL\)/)
  t.equal((await antipode('status', '--state', demo.state)).code, 1, 'it is not started again by itself')
  t.match(await antipode('drill', 'start', 'eu-west-1', '--state', demo.state), { code: 0, out: /eu-west-1 runs again/ })
  const second = readDemo(demo.state)!
  t.not(second.nodes[2]!.pid, first.nodes[2]!.pid)

  demo.child.kill('SIGTERM')
  t.equal(await demo.gone, 0)
  t.same(await untilAllGone(pidsOf(second)), [])
  t.notOk(existsSync(join(demo.state, 'demo.json')))
  t.equal(readDemo(demo.state), undefined)
  t.equal((await antipode('cdr', 'verify', '--state', demo.state)).code, 0, 'the journals that it leaves are whole')
})

t.test('when the demo is killed without warning its nodes go too', async (t) => {
  const demo = start(t)
  await demo.until(/Ctrl-C stops all nodes/)
  const pids = pidsOf(readDemo(demo.state)!)
  demo.child.kill('SIGKILL')
  await demo.gone
  t.same(await untilAllGone(pids), [])
  t.equal(readDemo(demo.state), undefined, 'what it left behind is not taken for a demo')
})

t.test('a port that is in use is named, with the process that has it, and nothing is left running', async (t) => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(8260, ADDRESS, resolve))
  t.teardown(() => server.close())
  const demo = start(t)
  t.equal(await demo.gone, 1)
  t.match(demo.said(), new RegExp(`eu-west-1 cannot start: .*127\\.0\\.0\\.9:8260.*in use.* \\(by pid ${process.pid}, `))
  t.notMatch(demo.said(), /us-east-1 cannot start/)
  t.equal(readDemo(demo.state), undefined)
})

t.test('an override that is wrong is refused before anything starts', async (t) => {
  const demo = start(t, t.testdir({}), '--set', 'cluster.constants.graceMs=1')
  t.equal(await demo.gone, 2)
  t.match(demo.said(), /cluster\.constants\.graceMs: expected at least 64500/)
})

t.test('keys are made for the owner of the state alone', async (t) => {
  const demo = start(t)
  await demo.until(/Ctrl-C stops all nodes/)
  t.match(readFileSync(join(demo.state, 'demo', 'link.key'), 'utf8'), /^[0-9a-f]{64}\n$/)
  const key = readFileSync(join(demo.state, 'demo', 'link.key'), 'utf8').trim()
  demo.child.kill('SIGINT')
  t.equal(await demo.gone, 0)
  t.notMatch(demo.said(), key)
  for (const node of ['us-east-1', 'ap-south-2'])
    t.notMatch(readFileSync(join(demo.state, node, 'log'), 'utf8'), key, `${node} does not log it`)
})
