import type { Cdr, CdrPart, CdrPartOrigin } from './call-record.ts'

/**
 * The calls that a set of parts describes: one CDR per answered leg, else one per call. The result depends on the *set* of parts alone: order and
 * repetition change nothing, so parts may come from any journals and mirrors, as often as they are held.
 *
 * Of several ends an observed one beats a concluded one, then the earliest `(atMs, region, node)` stands. Sorted by start, id and leg.
 */
export function mergeParts(parts: readonly CdrPart[]): Cdr[] {
  const calls = new Map<string, Map<string, CdrPart>>()
  for (const part of parts) {
    let call = calls.get(part.id)
    if (call === undefined) {
      call = new Map()
      calls.set(part.id, call)
    }
    call.set(fingerprint(part), part)
  }
  const cdrs: Cdr[] = []
  for (const [id, call] of calls) {
    const sorted = [...call.values()].sort(compareParts)
    const legs = answeredLegs(sorted)
    // A call that was answered ends by the ends of its legs: an end without a leg (a CANCEL that crossed the 2xx) does not end an answered leg.
    if (legs.size === 0)
      cdrs.push(
        cdrOf(
          id,
          '',
          sorted.filter((p) => p.leg === ''),
        ),
      )
    for (const leg of legs) {
      cdrs.push(
        cdrOf(
          id,
          leg,
          sorted.filter((p) => p.leg === leg || (p.leg === '' && p.part !== 'end')),
        ),
      )
    }
  }
  return cdrs.sort((a, b) => a.startMs - b.startMs || compareText(a.id, b.id) || compareText(a.leg, b.leg))
}

/**
 * Legs that were answered. The end of a leg says little of that: a BYE may name an early leg, or one that the other side knows nothing of (481). It
 * counts where nothing else is known of the call, no answered leg and no end of the call as a whole: then the `start` is what is missing.
 */
function answeredLegs(parts: readonly CdrPart[]): Set<string> {
  const tagged = parts.filter((p) => p.leg !== '')
  const answered = tagged.filter((p) => p.part !== 'end' || p.answerMs > 0)
  const refused = parts.some((p) => p.leg === '' && p.part === 'end')
  return new Set((answered.length > 0 || refused ? answered : tagged).map((p) => p.leg))
}

/** `parts`: all parts that bear on one CDR, distinct, in the order of `compareParts`. */
function cdrOf(id: string, leg: string, parts: readonly CdrPart[]): Cdr {
  const attempt = parts.find((p) => p.part === 'attempt')
  const start = parts.find((p) => p.part === 'start')
  const ends = parts.filter((p) => p.part === 'end')
  const end = ends.find((p) => p.observed) ?? ends[0]
  // The node that took the INVITE knows these best; an `end` written elsewhere has them from the token.
  const witness = attempt ?? start ?? parts.find((p) => p.part === 'interim') ?? parts[0]!
  const startMs = attempt?.atMs || earliest(parts, (p) => p.startMs) || start?.atMs || witness.atMs
  const answerMs = leg === '' ? 0 : start?.atMs || end?.answerMs || earliest(parts, (p) => p.answerMs)
  const endMs = end?.atMs ?? 0
  return {
    id,
    callId: witness.callId,
    caller: witness.caller,
    callee: witness.callee,
    account: witness.account,
    startMs,
    answerMs,
    endMs,
    durationMs: endMs > 0 && answerMs > 0 ? Math.max(0, endMs - answerMs) : 0,
    status: end?.status ?? 0,
    reason: end?.reason ?? '',
    observed: end?.observed ?? false,
    hungUpBy: end?.hungUpBy ?? '',
    leg,
    emergency: parts.some((p) => p.emergency),
    state: end === undefined ? 'open' : 'complete',
    parts: origins(parts),
  }
}

/** Distinct origins in the order of the parts; two parts of one kind, time and node are one statement as far as a reader can tell. */
function origins(parts: readonly CdrPart[]): CdrPartOrigin[] {
  const seen = new Set<string>()
  const out: CdrPartOrigin[] = []
  for (const { part, atMs, region, node } of parts) {
    const key = JSON.stringify([part, atMs, region, node])
    if (seen.has(key)) continue
    seen.add(key)
    out.push({ part, atMs, region, node })
  }
  return out
}

/** Smallest non-zero value, or 0. */
function earliest(parts: readonly CdrPart[], of: (part: CdrPart) => number): number {
  let best = 0
  for (const part of parts) {
    const value = of(part)
    if (value > 0 && (best === 0 || value < best)) best = value
  }
  return best
}

/** A total order of distinct parts: time, place, then everything else, so that ties do not fall to the order of arrival. */
function compareParts(a: CdrPart, b: CdrPart): number {
  return (
    a.atMs - b.atMs ||
    compareText(a.region, b.region) ||
    compareText(a.node, b.node) ||
    compareText(fingerprint(a), fingerprint(b))
  )
}

const fingerprint = (p: CdrPart): string =>
  JSON.stringify([
    RANK[p.part],
    p.incarnation,
    p.leg,
    p.callId,
    p.fromTag,
    p.atMs,
    p.region,
    p.node,
    p.caller,
    p.callee,
    p.account,
    p.source,
    p.startMs,
    p.answerMs,
    p.status,
    p.reason,
    p.observed,
    p.hungUpBy,
    p.emergency,
  ])

const RANK: Record<CdrPart['part'], number> = { attempt: 0, start: 1, interim: 2, end: 3 }

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
