import { type Fault, fault } from '../src/base/errors.ts'
import { isHlc } from '../src/base/hlc.ts'
import type { BindingEntry, DialogEntry, Entry } from './entry.ts'

/** Units (bytes on a SIP wire) that a field may have. What comes from a phone has to be checked against these before an entry is made of it. */
export const ENTRY_LIMITS = {
  region: 64,
  node: 64,
  aor: 512,
  key: 1024,
  callId: 512,
  contact: 1024,
  contactParams: 1024,
  pathValue: 512,
  pathValues: 8,
  transport: 8,
  address: 64,
  userAgent: 256,
  id: 320,
  tag: 256,
} as const

export const MAX_NUMBER = Number.MAX_SAFE_INTEGER
export const MAX_CSEQ = 0x7fffffff
export const MAX_PORT = 0xffff
const wrong = (field: string, value: unknown): Fault =>
  fault('CRDT_ENTRY_FIELD', `${field}: ${typeof value === 'string' ? `${value.length} units` : String(value)}`)
const isWithin = (value: number, max: number): boolean => Number.isSafeInteger(value) && value >= 0 && value <= max
const isLong = (text: string, limit: number): boolean => text.length > limit

function checkBase(e: Entry): Fault | undefined {
  if (!isHlc(e.hlc)) return wrong('hlc', e.hlc)
  if (!isWithin(e.incarnation, MAX_NUMBER)) return wrong('incarnation', e.incarnation)
  if (e.region === '' || isLong(e.region, ENTRY_LIMITS.region)) return wrong('region', e.region)
  if (e.node === '' || isLong(e.node, ENTRY_LIMITS.node)) return wrong('node', e.node)
  return undefined
}

/** What every binding entry fulfils, whether it is ours or came from the wire. */
function checkBinding(e: BindingEntry): Fault | undefined {
  if (e.aor === '' || isLong(e.aor, ENTRY_LIMITS.aor)) return wrong('aor', e.aor)
  if ((e.key === '') !== (e.op === 'clear') || isLong(e.key, ENTRY_LIMITS.key)) return wrong('key', e.key)
  if (e.callId === '' || isLong(e.callId, ENTRY_LIMITS.callId)) return wrong('callId', e.callId)
  if (!isWithin(e.cseq, MAX_CSEQ)) return wrong('cseq', e.cseq)
  if (e.reset && e.op === 'clear') return wrong('reset', e.op)
  if (!isWithin(e.expiresAtMs, MAX_NUMBER) || (e.expiresAtMs === 0) !== (e.op !== 'set'))
    return wrong('expiresAtMs', e.expiresAtMs)
  if (isLong(e.contact, ENTRY_LIMITS.contact)) return wrong('contact', e.contact)
  if (isLong(e.contactParams, ENTRY_LIMITS.contactParams)) return wrong('contactParams', e.contactParams)
  if (!isWithin(e.q, 1000)) return wrong('q', e.q)
  if (e.path.length > ENTRY_LIMITS.pathValues) return wrong('path', e.path.length)
  for (const value of e.path) if (isLong(value, ENTRY_LIMITS.pathValue)) return wrong('path', value)
  if (isLong(e.flow.transport, ENTRY_LIMITS.transport)) return wrong('flow.transport', e.flow.transport)
  if (isLong(e.flow.localAddress, ENTRY_LIMITS.address)) return wrong('flow.localAddress', e.flow.localAddress)
  if (!isWithin(e.flow.localPort, MAX_PORT)) return wrong('flow.localPort', e.flow.localPort)
  if (isLong(e.flow.remoteAddress, ENTRY_LIMITS.address)) return wrong('flow.remoteAddress', e.flow.remoteAddress)
  if (!isWithin(e.flow.remotePort, MAX_PORT)) return wrong('flow.remotePort', e.flow.remotePort)
  if (!isWithin(e.flow.connectionId + 1, MAX_NUMBER)) return wrong('flow.connectionId', e.flow.connectionId)
  if (isLong(e.userAgent, ENTRY_LIMITS.userAgent)) return wrong('userAgent', e.userAgent)
  return undefined
}

/** What every dialog entry fulfils. */
function checkDialog(e: DialogEntry): Fault | undefined {
  const isEnded = e.phase === 'ended'
  if (!e.id.includes('/') || isLong(e.id, ENTRY_LIMITS.id)) return wrong('id', e.id)
  if (e.callId === '' || isLong(e.callId, ENTRY_LIMITS.callId)) return wrong('callId', e.callId)
  if (isLong(e.fromTag, ENTRY_LIMITS.tag)) return wrong('fromTag', e.fromTag)
  if (isLong(e.toTag, ENTRY_LIMITS.tag)) return wrong('toTag', e.toTag)
  if (isLong(e.caller, ENTRY_LIMITS.aor)) return wrong('caller', e.caller)
  if (isLong(e.callee, ENTRY_LIMITS.aor)) return wrong('callee', e.callee)
  if (!isWithin(e.startMs, MAX_NUMBER)) return wrong('startMs', e.startMs)
  if (!isWithin(e.answerMs, MAX_NUMBER) || (e.phase === 'early' && e.answerMs !== 0)) return wrong('answerMs', e.answerMs)
  if (!isWithin(e.leaseUntilMs, MAX_NUMBER) || (e.leaseUntilMs === 0) !== isEnded) return wrong('leaseUntilMs', e.leaseUntilMs)
  if (!isWithin(e.endMs, MAX_NUMBER) || (e.endMs === 0) === isEnded) return wrong('endMs', e.endMs)
  if (e.observed && !isEnded) return wrong('observed', e.phase)
  return undefined
}

/** What keeps `e` from being written or believed, by the name of the field; undefined where nothing does. Its size in bytes is the codec's to judge. */
export const checkEntry = (e: Entry): Fault | undefined =>
  checkBase(e) ?? (e.kind === 'binding' ? checkBinding(e) : checkDialog(e))
