/**
 * The rules of DESIGN "State" 4 and 5 and of RFC 3261 §10.3, written from their words and not from crdt/view.ts: every clause is a filter, nothing is
 * sorted or remembered, and no code is shared. Slow on purpose. Entries of an honest cluster only: `(hlc, node)` is unique.
 */
import type { BindingEntry, ClusterConstants, DialogEntry } from '../../crdt/entry.ts'

const TICKS_PER_MS = 2048

/** "the highest (HLC, node)" */
export const isLater = (a: BindingEntry, b: BindingEntry): boolean => a.hlc > b.hlc || (a.hlc === b.hlc && a.node > b.node)

/** "the highest (CSeq, HLC, node)" */
const isHigher = (a: BindingEntry, b: BindingEntry): boolean => (a.cseq === b.cseq ? isLater(a, b) : a.cseq > b.cseq)

/** "For each Call-ID: …": the head among entries of one key and one Call-ID. */
export function modelHead(group: readonly BindingEntry[], windowMs: number): BindingEntry | undefined {
  // "a `reset` entry sets aside all of lower HLC"
  const rest = group.filter((e) => !group.some((r) => r.reset && r.hlc > e.hlc))
  // "of the rest, within a reorder window below the newest HLC"
  const recent = rest.filter((e) => rest.every((n) => n.hlc - e.hlc < windowMs * TICKS_PER_MS))
  // "the highest (CSeq, HLC, node) is the head"
  return recent.find((e) => recent.every((other) => other === e || isHigher(e, other)))
}

/** The live bindings of one AoR by key. `entries` is everything there is, in any order, without copies. */
export function modelBindings(
  entries: readonly BindingEntry[],
  aor: string,
  nowMs: number,
  constants: ClusterConstants,
): Map<string, BindingEntry> {
  const ofAor = entries.filter((e) => e.aor === aor)
  const live = new Map<string, BindingEntry>()
  for (const key of new Set(ofAor.filter((e) => e.op !== 'clear').map((e) => e.key))) {
    const ofKey = ofAor.filter((e) => e.key === key && e.op !== 'clear')
    const heads = [...new Set(ofKey.map((e) => e.callId))].map(
      (callId) =>
        modelHead(
          ofKey.filter((e) => e.callId === callId),
          constants.windowMs,
        )!,
    )
    // "Among heads the highest (HLC, node) is the binding, if it is neither a removal nor expired."
    const latest = heads.find((h) => heads.every((other) => other === h || isLater(h, other)))!
    if (latest.op === 'remove') continue
    if (latest.expiresAtMs <= nowMs) continue
    // "No binding lives longer" than the longest expiry.
    if (Math.floor(latest.hlc / TICKS_PER_MS) + constants.longestExpiryMs <= nowMs) continue
    // "`Contact: *` writes a removal for the whole AoR that hides every lower HLC, seen or not."
    if (ofAor.some((c) => c.op === 'clear' && c.hlc > latest.hlc)) continue
    live.set(key, latest)
  }
  return live
}

/** "Phase early < confirmed < ended … observed beats inferred; among observed ones the earliest stands" by (endMs, region, node). */
export function modelDialog(entries: readonly DialogEntry[], id: string): DialogEntry | undefined {
  let left = entries.filter((e) => e.id === id)
  const ended = left.filter((e) => e.phase === 'ended')
  if (ended.length > 0) {
    const observed = ended.filter((e) => e.observed)
    left = observed.length > 0 ? observed : ended
    const firstMs = Math.min(...left.map((e) => e.endMs))
    left = left.filter((e) => e.endMs === firstMs)
    left = left.filter((e) => left.every((o) => e.region <= o.region))
    left = left.filter((e) => left.every((o) => e.node <= o.node))
  } else if (left.some((e) => e.phase === 'confirmed')) left = left.filter((e) => e.phase === 'confirmed')
  // Of what says the same, the latest statement.
  return left.find((e) => left.every((o) => o.hlc < e.hlc || (o.hlc === e.hlc && o.node <= e.node)))
}

/**
 * One registrar as RFC 3261 §10.3 describes it: a table of bindings and nothing else, no clocks, no memory of what was removed. What a phone that
 * talks to one node in order may expect of antipode.
 */
export class Rfc3261Registrar {
  readonly #bindings = new Map<string, { callId: string; cseq: number; expiresAtMs: number }>()

  /** @returns whether the registrar takes it; `expiresMs` 0 unbinds. */
  register(key: string, callId: string, cseq: number, expiresMs: number, nowMs: number): boolean {
    this.#expire(nowMs)
    const binding = this.#bindings.get(key)
    // "If the binding does exist, the registrar checks the Call-ID value … If they are the same, the registrar compares the CSeq value. If the value is
    // higher … it MUST update or remove the binding … If not, the update MUST be aborted and the request fails."
    if (binding !== undefined && binding.callId === callId && cseq <= binding.cseq) return false
    if (expiresMs === 0) this.#bindings.delete(key)
    else this.#bindings.set(key, { callId, cseq, expiresAtMs: nowMs + expiresMs })
    return true
  }

  /** `Contact: *` with Expires: 0, step 6. */
  registerStar(callId: string, cseq: number, nowMs: number): boolean {
    this.#expire(nowMs)
    if ([...this.#bindings.values()].some((b) => b.callId === callId && cseq <= b.cseq)) return false
    this.#bindings.clear()
    return true
  }

  keys(nowMs: number): string[] {
    this.#expire(nowMs)
    return [...this.#bindings.keys()].sort()
  }

  #expire(nowMs: number): void {
    for (const [key, b] of this.#bindings) if (b.expiresAtMs <= nowMs) this.#bindings.delete(key)
  }
}

/** Cluster constants scaled down, so that a history of a few dozen steps crosses windows, expiries and retention. */
export const SMALL_CONSTANTS: ClusterConstants = {
  bucketWidthMs: 10,
  longestExpiryMs: 100,
  windowMs: 20,
  driftBoundMs: 2,
  graceMs: 22,
  rebootGuardMs: 2,
}

export function makeBinding(fields: Partial<BindingEntry> = {}): BindingEntry {
  return {
    kind: 'binding',
    hlc: 1000 * TICKS_PER_MS,
    region: 'us-east',
    node: 'us-east-1',
    incarnation: 4294967297,
    op: 'set',
    aor: 'sip:u1@example.net',
    key: 'sip:u1@127.0.0.1:5070',
    callId: 'a84b4c76e66710',
    cseq: 1,
    reset: false,
    expiresAtMs: fields.op === 'remove' || fields.op === 'clear' ? 0 : 1060,
    contact: 'sip:u1@127.0.0.1:5070',
    contactParams: '',
    q: 1000,
    path: [],
    flow: {
      transport: 'udp',
      localAddress: '127.0.1.1',
      localPort: 5060,
      remoteAddress: '127.0.0.1',
      remotePort: 5070,
      connectionId: -1,
      nat: false,
    },
    userAgent: 'sipp',
    ...fields,
  }
}

export function makeDialog(fields: Partial<DialogEntry> = {}): DialogEntry {
  const isEnded = fields.phase === 'ended'
  const isEarly = (fields.phase ?? 'early') === 'early'
  return {
    kind: 'dialog',
    hlc: 1000 * TICKS_PER_MS,
    region: 'us-east',
    node: 'us-east-1',
    incarnation: 4294967297,
    id: isEarly ? '0123456789abcdef0123456789abcdef/' : '0123456789abcdef0123456789abcdef/t2',
    phase: 'early',
    callId: '3848276298220188511@example.net',
    fromTag: 't1',
    toTag: isEarly ? '' : 't2',
    caller: 'sip:u2@example.net',
    callee: 'sip:u1@example.net',
    startMs: 900,
    answerMs: isEarly ? 0 : 950,
    leaseUntilMs: isEnded ? 0 : 5000,
    endMs: isEnded ? 2000 : 0,
    observed: isEnded,
    ...fields,
  }
}
