import { join } from 'node:path'
import type { Test } from 'tap'
import { AdminServer } from '../../../src/admin/api.ts'
import { silentLog } from '../../../src/base/log.ts'
import { createMetrics } from '../../../src/base/metrics.ts'
import { type DemoNode, type DemoState, writeDemo } from '../../../src/cli/demo-state.ts'
import type { Output } from '../../../src/cli/output.ts'
import { runCommandLine } from '../../../src/cli/program.ts'
import { FakeTarget } from '../admin/fake-target.ts'

export interface Ran {
  readonly code: number
  readonly out: string
  readonly notes: string
}

/** Runs a command line in this process and keeps what it says. */
export async function antipode(...args: string[]): Promise<Ran> {
  const out: string[] = []
  const notes: string[] = []
  const output: Output = { out: (text) => void out.push(text), note: (text) => void notes.push(text) }
  const code = await runCommandLine(args, output)
  return { code, out: out.join('\n'), notes: notes.join('\n') }
}

/** Six admin servers over fake nodes, and the demo.json by which the commands find them; `stop` makes a node unreachable. */
export async function fakeDemo(t: Test, addressOf: (region: number, node: number) => string = () => '127.0.0.1') {
  const state = t.testdir({})
  const targets = new Map<string, FakeTarget>()
  const servers = new Map<string, AdminServer>()
  const nodes: DemoNode[] = []
  for (const [r, region] of ['us-east', 'eu-west', 'ap-south'].entries()) {
    for (const n of [1, 2]) {
      const node = `${region}-${n}`
      const target = new FakeTarget(region, node)
      const address = addressOf(r + 1, n)
      const server = new AdminServer(target, {
        listen: { address, port: 0 },
        trustLoopback: true,
        log: silentLog,
        metrics: createMetrics(),
      })
      await server.start()
      t.teardown(() => server.stop())
      targets.set(node, target)
      servers.set(node, server)
      const base = 20_000 + nodes.length * 10
      nodes.push({
        region,
        node,
        address,
        sipPort: base,
        dnsPort: base + 1,
        linkPort: base + 2,
        adminPort: server.port,
        pid: process.pid,
        log: '',
      })
    }
  }
  const demo: DemoState = {
    version: 1,
    pid: process.pid,
    startedAtMs: 0,
    stateDirectory: state,
    control: join(state, 'demo.sock'),
    nodes,
  }
  writeDemo(demo)
  return {
    state,
    demo,
    target: (node: string) => targets.get(node)!,
    stop: (node: string) => servers.get(node)!.stop(),
    run: (...args: string[]) => antipode(...args, '--state', state),
  }
}
