import { readTargets } from '../../config/load.ts'
import { AdminClient } from '../admin/client.ts'
import { AntipodeError } from '../base/errors.ts'
import { readDemo } from './demo-state.ts'
import { usageError } from './exit.ts'
import { commandText, type Output } from './output.ts'

/** What every command that asks nodes is given. */
export interface GlobalOptions {
  /** Configuration files; none: the running demo. */
  readonly config: readonly string[]
  /** State directory of the demo. */
  readonly state: string
}

/** A node that a command may ask. */
export interface Target {
  readonly region: string
  readonly node: string
  readonly address: string
  readonly client: AdminClient
}

/** All nodes of the cluster, from the configuration files or the running demo. */
export function findTargets(o: GlobalOptions): Target[] {
  const targets = new Map<string, Target>()
  const add = (region: string, n: { name: string; address: string; adminPort: number }, token?: string) => {
    if (targets.has(n.name)) return
    targets.set(n.name, {
      region,
      node: n.name,
      address: n.address,
      client: new AdminClient({ address: n.address, port: n.adminPort, token: process.env.ANTIPODE_ADMIN_TOKEN ?? token }),
    })
  }
  if (o.config.length > 0) {
    for (const file of o.config) {
      const { nodes, token } = readTargets(file)
      for (const { region, node } of nodes) add(region, node, token)
    }
  } else {
    const demo = readDemo(o.state)
    if (demo === undefined) {
      throw usageError(
        `no demo runs with the state directory ${o.state}; start one with \`${commandText('demo', o.state)}\`, or name --config FILE`,
      )
    }
    for (const n of demo.nodes) add(n.region, { ...n, name: n.node })
  }
  return [...targets.values()]
}

export type Asked<T> = { readonly target: Target } & (
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: AntipodeError }
)

/** Asks all nodes at once. @throws AntipodeError ADMIN_UNREACHABLE when none answers */
export async function askAll<T>(targets: readonly Target[], question: (client: AdminClient) => Promise<T>): Promise<Asked<T>[]> {
  const answers = await Promise.all(
    targets.map(async (target): Promise<Asked<T>> => {
      try {
        return { target, ok: true, value: await question(target.client) }
      } catch (error) {
        if (!(error instanceof AntipodeError)) throw error
        return { target, ok: false, error }
      } finally {
        await target.client.close()
      }
    }),
  )
  if (answers.some((a) => a.ok)) return answers
  const refused = answers.find((a) => !a.ok && a.error.code !== 'ADMIN_UNREACHABLE')
  if (refused !== undefined && !refused.ok) throw refused.error
  throw new AntipodeError(
    'ADMIN_UNREACHABLE',
    `no node answers: ${answers.map((a) => `${a.target.node} (${a.ok ? '' : a.error.message})`).join(', ')}`,
  )
}

/** Says on standard error which nodes a result does not include. */
export function noteSilent<T>(answers: readonly Asked<T>[], output: Output): void {
  for (const a of answers) if (!a.ok) output.note(`antipode: without ${a.target.node}: ${a.error.message}`)
}
