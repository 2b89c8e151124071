import type { BindingEntry, BindingFlow, DialogEntry } from '../crdt/entry.ts'
import type { BindingView, DialogView } from './admin/api.ts'
import { type Flow, flowText, type TransportName } from './sip/flow.ts'

/** Replicated entries as the admin API shows them. */
export const bindingView = (b: BindingEntry): BindingView => ({
  contact: b.contact,
  edge: { region: b.region, node: b.node, incarnation: b.incarnation },
  flow: flowText(flowOf(b.flow)),
  expiresAtMs: b.expiresAtMs,
  q: b.q / 1000,
  callId: b.callId,
  cseq: b.cseq,
  hlc: b.hlc,
})

export const dialogView = (d: DialogEntry): DialogView => ({
  id: d.id,
  callId: d.callId,
  caller: d.caller,
  callee: d.callee,
  phase: d.phase,
  startMs: d.startMs,
  answerMs: d.answerMs,
  endMs: d.endMs,
  region: d.region,
  node: d.node,
})

function flowOf({ transport, localAddress, localPort, remoteAddress, remotePort, connectionId }: BindingFlow): Flow {
  const flow = { transport: transport as TransportName, localAddress, localPort, remoteAddress, remotePort }
  return connectionId < 0 ? flow : { ...flow, connectionId }
}
