import { rmSync } from 'node:fs'
import { createServer as createSocketServer, type Server } from 'node:net'
import { join, resolve } from 'node:path'
import { problemText, readConfig, readTargets } from '../../config/load.ts'
import { AdminClient } from '../admin/client.ts'
import { AntipodeError } from '../base/errors.ts'
import { DemoChild } from './demo-child.ts'
import { EXAMPLES, examplesDirectory } from './demo-examples.ts'
import { demoKeys } from './demo-keys.ts'
import { type DemoPlan, PORT_STEP, planDemo } from './demo-plan.ts'
import { controlPath, type DemoState, readDemo, removeDemo, writeDemo } from './demo-state.ts'
import { nextSteps } from './demo-text.ts'
import { EXIT, type ExitCode, usageError } from './exit.ts'
import { commandText, type Output, table } from './output.ts'

const STOP_LIMIT_MS = 12_000
const READY_LIMIT_MS = 30_000

export interface DemoOptions {
  readonly state: string
  readonly set: readonly string[]
  /** All nodes on this address, ports offset per node. */
  readonly baseAddress?: string
}

/** Runs the example files as six processes until it is told to stop. */
export async function runDemo(o: DemoOptions, output: Output): Promise<ExitCode> {
  const other = readDemo(o.state)
  if (other !== undefined) {
    throw new AntipodeError(
      'DEMO_RUNNING',
      `a demo already runs with the state directory ${o.state} (pid ${other.pid}); stop it first: Ctrl-C where it runs, or kill ${other.pid}`,
    )
  }
  const stateDirectory = resolve(o.state)
  const files = EXAMPLES.map((name) => join(examplesDirectory(), name))
  const single = o.baseAddress ?? ((await canBind('127.0.1.1')) ? undefined : '127.0.0.1')
  const env = { ...process.env, ...demoKeys(stateDirectory) }
  const plan = planDemo(readTargets(files[0]!, env, o.set).nodes, single)
  const overrides = [`stateDirectory=${JSON.stringify(stateDirectory)}`, ...plan.overrides, ...o.set]
  for (const file of files) {
    const { problems } = readConfig(file, { env, overrides })
    if (problems.length > 0) throw usageError(problems.map((p) => problemText(file, p)).join('\n'))
  }
  const demo = new Demo({ plan, single, files, overrides, env, stateDirectory, output })
  return demo.run()
}

interface Setup {
  readonly plan: DemoPlan
  /** The one address of all nodes; undefined: each has its own. */
  readonly single: string | undefined
  readonly files: readonly string[]
  readonly overrides: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly stateDirectory: string
  readonly output: Output
}

class Demo {
  readonly #o: Setup
  readonly #children: DemoChild[]
  readonly #control: string
  readonly #startedAtMs = Date.now()
  #stopping = false

  constructor(o: Setup) {
    this.#o = o
    this.#control = controlPath(o.stateDirectory)
    this.#children = o.plan.nodes.map(
      (plan) =>
        new DemoChild({
          plan,
          config: o.files[EXAMPLES.indexOf(`${plan.region}.yaml`)]!,
          overrides: o.overrides,
          env: o.env,
          log: join(o.stateDirectory, plan.node, 'log'),
          onDeath: (child, how) => this.#died(child, how),
        }),
    )
  }

  async run(): Promise<ExitCode> {
    const { output } = this.#o
    const stopped = this.#stopOrders()
    output.note(`antipode: starting ${this.#children.length} nodes (state and logs in ${this.#o.stateDirectory})`)
    const control = await this.#listen()
    // From here on `drill`, `status` and so on find the demo, and another one with the same state is refused.
    this.#publish()
    try {
      const starts = this.#children.map((child) => child.start())
      this.#publish()
      const failures = await Promise.race([Promise.all(starts), stopped])
      if (failures === undefined) return EXIT.ok
      if (failures.some((f) => f !== undefined)) {
        for (const [i, why] of failures.entries()) {
          if (why !== undefined) output.note(`antipode: ${this.#children[i]!.plan.node} cannot start: ${why}`)
        }
        return EXIT.negative
      }
      const notReady = await Promise.race([this.#untilReady(), stopped])
      if (notReady === undefined) return EXIT.ok
      output.out(this.#places())
      for (const line of notReady) output.note(`antipode: not ready yet: ${line}`)
      output.out(nextSteps(this.#o.plan, this.#o.stateDirectory))
      await stopped
      return EXIT.ok
    } finally {
      await this.#stop()
      control.close()
      removeDemo(this.#state())
    }
  }

  /** Resolves when the demo is to stop; at a second order, a second later or more, nothing is waited for. */
  #stopOrders(): Promise<undefined> {
    return new Promise((done) => {
      let firstMs = 0
      const order = (): void => {
        const nowMs = Date.now()
        if (firstMs === 0) {
          firstMs = nowMs
          this.#stopping = true
          this.#o.output.note('\nantipode: stopping')
          done(undefined)
        } else if (nowMs - firstMs > 1000) for (const child of this.#children) child.kill()
      }
      process.on('SIGINT', order)
      process.on('SIGTERM', order)
      process.on('SIGHUP', order)
    })
  }

  async #stop(): Promise<void> {
    this.#stopping = true
    await Promise.all(this.#children.map((child) => child.stop(STOP_LIMIT_MS)))
  }

  #died(child: DemoChild, how: string): void {
    if (this.#stopping) return
    const { node } = child.plan
    this.#publish()
    const again = commandText(`drill start ${node}`, this.#o.stateDirectory)
    this.#o.output.note(`antipode: ${node} is dead (${how}); \`${again}\` starts it again`)
  }

  #state(): DemoState {
    return {
      version: 1,
      pid: process.pid,
      startedAtMs: this.#startedAtMs,
      stateDirectory: this.#o.stateDirectory,
      control: this.#control,
      nodes: this.#children.map((child) => ({ ...child.plan, pid: child.pid, log: child.log })),
    }
  }

  #publish(): void {
    writeDemo(this.#state())
  }

  /** All nodes answer that they are ready, or it took too long: then what those that are not say. */
  async #untilReady(): Promise<string[]> {
    const untilMs = Date.now() + READY_LIMIT_MS
    const one = async (child: DemoChild): Promise<string | undefined> => {
      const client = new AdminClient({ address: child.plan.address, port: child.plan.adminPort })
      try {
        for (;;) {
          const why = await client.ready().then(
            (c) => (c.ok ? undefined : c.reasons.join('; ') || 'no reason given'),
            (error: Error) => error.message,
          )
          if (why === undefined || this.#stopping) return undefined
          if (Date.now() > untilMs) return `${child.plan.node}: ${why}`
          await new Promise((r) => setTimeout(r, 100))
        }
      } finally {
        await client.close()
      }
    }
    return (await Promise.all(this.#children.map(one))).filter((line) => line !== undefined)
  }

  #places(): string {
    const { single } = this.#o
    const at = (address: string, port: number): string => `${address.includes(':') ? `[${address}]` : address}:${port}`
    const rows = this.#children.map(({ plan: n, pid }) => [
      n.region,
      n.node,
      at(n.address, n.sipPort),
      `http://${at(n.address, n.adminPort)}`,
      at(n.address, n.dnsPort),
      at(n.address, n.linkPort),
      String(pid),
    ])
    const head = ['region', 'node', 'SIP (UDP, TCP)', 'admin', 'DNS (UDP, TCP)', 'cluster link', 'pid']
    const offset =
      single === undefined
        ? ''
        : `\n\nAll nodes share ${single}: the ports of each are ${PORT_STEP} above those of the one before it.`
    return `\n${table(head, rows)}${offset}`
  }

  /** Takes the orders of `drill start`. */
  #listen(): Promise<Server> {
    rmSync(this.#control, { force: true })
    const server = createSocketServer((socket) => {
      let text = ''
      socket.setEncoding('utf8')
      socket.on('error', () => socket.destroy())
      socket.on('data', (chunk: string) => {
        text += chunk
        if (text.length > 4096) socket.destroy()
        else if (text.includes('\n')) void this.#obey(text).then((answer) => socket.end(`${JSON.stringify(answer)}\n`))
      })
    })
    return new Promise((done, failed) => {
      server.once('error', (error) =>
        failed(new AntipodeError('DEMO_CONTROL', `cannot listen on ${this.#control}: ${error.message}`, error)),
      )
      server.listen(this.#control, () => done(server))
    })
  }

  async #obey(text: string): Promise<{ pid?: number; error?: string }> {
    let name: unknown
    try {
      name = (JSON.parse(text) as { start?: unknown }).start
    } catch {
      return { error: 'not an order' }
    }
    const child = this.#children.find((c) => c.plan.node === name)
    if (child === undefined) return { error: `no node ${String(name)}` }
    if (this.#stopping) return { error: 'the demo is stopping' }
    if (child.pid !== 0) return { error: `${child.plan.node} already runs (pid ${child.pid})` }
    const starting = child.start()
    this.#publish()
    const why = await starting
    if (why !== undefined) return { error: why }
    this.#o.output.note(`antipode: ${child.plan.node} runs again (pid ${child.pid})`)
    return { pid: child.pid }
  }
}

/** Linux answers on all of 127.0.0.0/8; macOS only where an alias was set up. */
function canBind(address: string): Promise<boolean> {
  return new Promise((done) => {
    const server = createSocketServer()
    server.once('error', () => done(false))
    server.listen(0, address, () => server.close(() => done(true)))
  })
}
