import type { NodeStatus } from '../admin/target.ts'
import { EXIT, type ExitCode, usageError } from './exit.ts'
import { commandText, duration, megabytes, type Output, printJson, table, timeText } from './output.ts'
import { askAll, findTargets, type GlobalOptions, noteSilent } from './targets.ts'

/** 0: every node answers, is ready and healthy. 1: some node does or is not. */
export async function status(o: GlobalOptions & { json?: boolean }, output: Output): Promise<ExitCode> {
  const answers = await askAll(findTargets(o), (client) => client.status())
  if (o.json) {
    printJson(
      output,
      answers.map((a) =>
        a.ok
          ? { reachable: true, ...a.value }
          : {
              reachable: false,
              region: a.target.region,
              node: a.target.node,
              error: { code: a.error.code, message: a.error.message },
            },
      ),
    )
  } else {
    const rows = answers.map((a) =>
      a.ok
        ? statusRow(a.value)
        : [a.target.node, a.error.code === 'ADMIN_UNREACHABLE' ? 'down' : 'refused', ...Array(9).fill('-')],
    )
    output.out(
      table(['node', 'state', 'pid', 'up', 'links', 'bindings', 'dialogs', 'digest', 'cpu', 'memory', 'sees dead'], rows),
    )
    const blocked = answers.filter((a) => a.ok && a.value.drill.blocked.length > 0)
    if (blocked.length > 0)
      output.out(
        `\ndrill: links are cut at ${blocked.map((a) => a.target.node).join(', ')}; heal them with \`${commandText('drill heal', o.state)}\``,
      )
    for (const a of answers) if (!a.ok) output.note(`antipode: ${a.target.node}: ${a.error.message}`)
  }
  return answers.every((a) => a.ok && a.value.ready && a.value.healthy) ? EXIT.ok : EXIT.negative
}

function statusRow(s: NodeStatus): (string | number)[] {
  const dead = [...Object.entries(s.verdict.regions), ...Object.entries(s.verdict.nodes)]
    .filter(([, v]) => v === 'dead')
    .map(([name]) => name)
  const state = !s.ready ? 'starting' : s.healthy ? 'ready' : 'unhealthy'
  return [
    s.node,
    state,
    String(s.pid),
    duration(s.uptimeS * 1000),
    String(s.links.length),
    String(s.state.bindings),
    String(s.state.dialogs),
    s.state.digest.slice(0, 12),
    `${s.cpuSeconds.toFixed(1)}s`,
    megabytes(s.memoryBytes),
    dead.join(' ') || '-',
  ]
}

/** 0: at least one node knows a live binding. 1: none does. */
export async function locate(aor: string, o: GlobalOptions & { json?: boolean }, output: Output): Promise<ExitCode> {
  const uri = /^[a-z][a-z0-9+.-]*:/i.test(aor) ? aor : `sip:${aor}`
  if (!uri.startsWith('tel:') && !uri.includes('@')) throw usageError(`${aor}: expected USER@DOMAIN`)
  const answers = await askAll(findTargets(o), (client) => client.registrations(uri))
  if (o.json) {
    printJson(
      output,
      answers.map((a) => {
        const { region, node } = a.target
        return a.ok
          ? { node, region, reachable: true, ...a.value }
          : { node, region, reachable: false, aor: uri, bindings: [], error: { code: a.error.code, message: a.error.message } }
      }),
    )
  } else {
    const nowMs = Date.now()
    const rows = answers.flatMap((a): string[][] => {
      if (!a.ok) return [[a.target.node, a.error.code === 'ADMIN_UNREACHABLE' ? '(down)' : '(refused)', '', '', '']]
      if (a.value.bindings.length === 0) return [[a.target.node, '(not registered)', '', '', '']]
      return a.value.bindings.map((b) => [
        a.target.node,
        b.contact,
        b.edge.node,
        b.flow,
        `in ${duration(Math.max(0, b.expiresAtMs - nowMs))}`,
      ])
    })
    output.out(table(['at node', 'contact', 'edge', 'flow', 'expires'], rows))
    noteSilent(answers, output)
  }
  return answers.some((a) => a.ok && a.value.bindings.length > 0) ? EXIT.ok : EXIT.negative
}

const PHASES = ['early', 'confirmed', 'ended'] as const

/** Dialogs as all nodes that answer know them together: of one that nodes see in different phases, the furthest. */
export async function dialogs(o: GlobalOptions & { json?: boolean; limit: number }, output: Output): Promise<ExitCode> {
  const answers = await askAll(findTargets(o), (client) => client.dialogs(o.limit))
  const merged = new Map<string, Awaited<ReturnType<(typeof answers)[number]['target']['client']['dialogs']>>[number]>()
  for (const a of answers) {
    for (const d of a.ok ? a.value : []) {
      const other = merged.get(d.id)
      if (other === undefined || PHASES.indexOf(d.phase) > PHASES.indexOf(other.phase)) merged.set(d.id, d)
    }
  }
  const list = [...merged.values()].sort((a, b) => a.startMs - b.startMs || (a.id < b.id ? -1 : 1)).slice(0, o.limit)
  if (o.json) printJson(output, list)
  else {
    const rows = list.map((d) => [d.phase, d.caller, d.callee, timeText(d.startMs), timeText(d.answerMs), d.node, d.callId])
    output.out(table(['phase', 'caller', 'callee', 'start', 'answer', 'owner', 'call-id'], rows))
    output.note(`${list.length} ${list.length === 1 ? 'dialog' : 'dialogs'}`)
  }
  noteSilent(answers, output)
  return EXIT.ok
}
