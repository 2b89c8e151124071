import { createConnection } from 'node:net'
import { AdminClient } from '../admin/client.ts'
import { AntipodeError } from '../base/errors.ts'
import { type DemoNode, type DemoState, isRunning, readDemo } from './demo-state.ts'
import { EXIT, type ExitCode, usageError } from './exit.ts'
import { commandText, type Output } from './output.ts'
import { askAll, findTargets, type GlobalOptions, noteSilent, type Target } from './targets.ts'

/**
 * What the nodes of one side must block so that they and `others` cannot talk: addresses, which both sides block.
 *
 * @throws AntipodeError DRILL_SHARED_ADDRESS where nodes of both sides share an address (the demo on a host with a single loopback address): who is
 * who cannot be told by it, as an incoming connection comes from any port.
 */
export function blockList(own: readonly Target[], others: readonly Target[]): string[] {
  const shared = others.find((o) => own.some((n) => n.address === o.address))
  if (shared !== undefined) {
    throw new AntipodeError(
      'DRILL_SHARED_ADDRESS',
      `nodes on both sides have the address ${shared.address}: a cut needs an address for each node (on macOS: sudo ifconfig lo0 alias 127.0.1.1, and so on)`,
    )
  }
  return [...new Set(others.map((o) => o.address))]
}

function knownRegion(targets: readonly Target[], region: string): void {
  const regions = [...new Set(targets.map((t) => t.region))]
  if (!regions.includes(region)) throw usageError(`no region ${region}; there are ${regions.join(', ')}`)
}

/** Cuts a region off: its nodes and all others drop everything of each other. What was cut before stays cut. */
export async function cut(region: string, o: GlobalOptions, output: Output): Promise<ExitCode> {
  const targets = findTargets(o)
  knownRegion(targets, region)
  const inside = targets.filter((t) => t.region === region)
  const outside = targets.filter((t) => t.region !== region)
  if (outside.length === 0) throw usageError(`${region} is the only region; there is nothing to cut it off from`)
  const inList = blockList(inside, outside)
  const outList = blockList(outside, inside)
  return setBlocks(targets, output, `${region} is cut off`, (target, blocked) => [
    ...new Set([...blocked, ...(target.region === region ? inList : outList)]),
  ])
}

/** Heals every link of a region, whichever cut them; without a region, all links. */
export async function heal(region: string | undefined, o: GlobalOptions, output: Output): Promise<ExitCode> {
  const targets = findTargets(o)
  if (region === undefined) return setBlocks(targets, output, 'all links are healed', () => [])
  knownRegion(targets, region)
  const inside = targets.filter((t) => t.region === region)
  const names = new Set(inside.map((t) => t.address))
  return setBlocks(targets, output, `${region} is healed`, (target, blocked) =>
    target.region === region ? [] : blocked.filter((b) => !names.has(b)),
  )
}

async function setBlocks(
  targets: readonly Target[],
  output: Output,
  done: string,
  next: (target: Target, blocked: readonly string[]) => string[],
): Promise<ExitCode> {
  const byClient = new Map(targets.map((t) => [t.client, t]))
  const answers = await askAll(targets, async (client) => {
    const { drill } = await client.status()
    await client.setBlocked(next(byClient.get(client)!, drill.blocked))
  })
  noteSilent(answers, output)
  output.out(`${done} (${answers.filter((a) => a.ok).length} of ${targets.length} nodes told)`)
  return EXIT.ok
}

function demoNode(o: GlobalOptions, name: string): { demo: DemoState; node: DemoNode } {
  // By pid, on this host: which process a pid from elsewhere names nobody knows.
  const demo = readDemo(o.state)
  if (demo === undefined)
    throw usageError(`no demo runs with the state directory ${o.state}; nodes are killed and started only in a demo`)
  const node = demo.nodes.find((n) => n.node === name)
  if (node === undefined) throw usageError(`no node ${name}; there are ${demo.nodes.map((n) => n.node).join(', ')}`)
  return { demo, node }
}

/** kill -9 of a node of the running demo. 1: it did not run. */
export async function kill(name: string, o: GlobalOptions, output: Output): Promise<ExitCode> {
  const { node } = demoNode(o, name)
  if (!isRunning(node.pid)) {
    output.note(`antipode: ${name} does not run`)
    return EXIT.negative
  }
  const client = new AdminClient({ address: node.address, port: node.adminPort })
  try {
    // A node that is stuck does not answer, and may be killed all the same; one that answers must be the one that is meant.
    const status = await client.status().catch(() => undefined)
    if (status !== undefined && (status.node !== name || status.pid !== node.pid)) {
      throw new AntipodeError(
        'DRILL_OTHER_NODE',
        `${node.address}:${node.adminPort} is ${status.node} with pid ${status.pid}, not ${name} with pid ${node.pid}`,
      )
    }
  } finally {
    await client.close()
  }
  process.kill(node.pid, 'SIGKILL')
  for (const until = Date.now() + 5000; isRunning(node.pid) && Date.now() < until; ) await new Promise((r) => setTimeout(r, 10))
  output.out(`${name} (pid ${node.pid}) is killed; \`${commandText(`drill start ${name}`, o.state)}\` starts it again`)
  return EXIT.ok
}

/** Starts a dead node of the running demo again; returns once it is ready. */
export async function start(name: string, o: GlobalOptions, output: Output): Promise<ExitCode> {
  const { demo } = demoNode(o, name)
  const answer = await order(demo.control, { start: name })
  if (answer.error !== undefined) throw new AntipodeError('DRILL_START', answer.error)
  output.out(`${name} runs again (pid ${answer.pid})`)
  return EXIT.ok
}

/** One order to the demo, one line of JSON each way. */
function order(control: string, message: { start: string }): Promise<{ pid?: number; error?: string }> {
  return new Promise((resolve, reject) => {
    let text = ''
    const socket = createConnection(control, () => socket.write(`${JSON.stringify(message)}\n`))
    socket.setEncoding('utf8')
    socket.setTimeout(60_000, () => socket.destroy(new Error('no answer in a minute')))
    socket.on('data', (chunk: string) => {
      text += chunk
    })
    socket.on('error', (error) =>
      reject(new AntipodeError('ADMIN_UNREACHABLE', `the demo does not take orders: ${error.message}`, error)),
    )
    socket.on('end', () => {
      try {
        resolve(JSON.parse(text) as { pid?: number; error?: string })
      } catch {
        reject(new AntipodeError('ADMIN_UNREACHABLE', 'the demo went away'))
      }
    })
  })
}
