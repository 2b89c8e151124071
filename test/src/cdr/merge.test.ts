import fc from 'fast-check'
import t from 'tap'
import type { CdrPart } from '../../../src/cdr/call-record.ts'
import { mergeParts } from '../../../src/cdr/merge.ts'
import { collidingPart, makePart } from './parts.ts'

const T = 1_700_000_000_000
const attempt = makePart({ part: 'attempt', atMs: T })
const start = makePart({ part: 'start', leg: 'L1', atMs: T + 3000, startMs: T, answerMs: T + 3000 })
const end = makePart({
  part: 'end',
  leg: 'L1',
  atMs: T + 13_000,
  startMs: T,
  answerMs: T + 3000,
  status: 200,
  reason: 'bye',
  hungUpBy: 'caller',
  node: 'us-east-2',
})

t.test('the merge depends on the set of parts alone', (t) => {
  fc.assert(
    fc.property(
      fc.array(collidingPart, { maxLength: 12 }).chain((parts) =>
        fc.tuple(
          fc.constant(parts),
          fc.shuffledSubarray(
            [...parts, ...parts].map((_, i) => i),
            { minLength: 2 * parts.length, maxLength: 2 * parts.length },
          ),
        ),
      ),
      ([parts, order]) => {
        const twice: CdrPart[] = order.map((i) => ({ ...parts[i % parts.length]! }))
        return JSON.stringify(mergeParts(twice)) === JSON.stringify(mergeParts(parts))
      },
    ),
    { numRuns: 1000 },
  )
  t.end()
})

t.test('a call that was answered is one CDR', (t) => {
  t.match(mergeParts([end, attempt, start, end]), [
    {
      callId: attempt.callId,
      startMs: T,
      answerMs: T + 3000,
      endMs: T + 13_000,
      durationMs: 10_000,
      status: 200,
      leg: 'L1',
      state: 'complete',
      hungUpBy: 'caller',
      parts: [{ part: 'attempt' }, { part: 'start' }, { part: 'end', node: 'us-east-2' }],
    },
  ])
  t.equal(mergeParts([end, attempt, start, end]).length, 1)
  t.end()
})

t.test('an end alone has what its token told', (t) => {
  t.match(mergeParts([end]), [{ startMs: T, answerMs: T + 3000, endMs: T + 13_000, durationMs: 10_000, state: 'complete' }])
  t.end()
})

t.test('a call that nobody answered is one CDR with its final status', (t) => {
  const busy = makePart({ part: 'end', atMs: T + 2000, startMs: T, status: 486, reason: 'rejected', hungUpBy: 'callee' })
  t.match(mergeParts([busy, attempt]), [
    { startMs: T, answerMs: 0, endMs: T + 2000, durationMs: 0, status: 486, leg: '', state: 'complete' },
  ])
  t.match(mergeParts([attempt]), [{ state: 'open', endMs: 0, status: 0 }])
  t.end()
})

t.test('each answered leg has its own CDR, and the CANCEL that crossed the 2xx ends neither', (t) => {
  const other = { ...start, leg: 'L2', atMs: T + 3100, answerMs: T + 3100 }
  const cancelled = makePart({ part: 'end', atMs: T + 3050, status: 487, reason: 'cancelled' })
  const cdrs = mergeParts([attempt, start, other, end, cancelled])
  t.match(cdrs, [
    { leg: 'L1', state: 'complete', status: 200 },
    { leg: 'L2', state: 'open', answerMs: T + 3100 },
  ])
  t.equal(cdrs.length, 2)
  t.end()
})

t.test('an observed end beats a concluded one, then the earliest stands', (t) => {
  const lease = { ...end, observed: false, atMs: T + 5000, reason: 'lease', hungUpBy: 'system' as const }
  const later = { ...end, atMs: T + 14_000, node: 'us-east-1' }
  t.match(mergeParts([start, lease, later, end]), [{ endMs: T + 13_000, observed: true }])
  t.match(mergeParts([start, lease]), [{ endMs: T + 5000, observed: false, reason: 'lease' }])
  t.end()
})

t.test('an end that names a leg which nobody answered makes no CDR beside those that were', (t) => {
  const stray = { ...end, leg: 'early', answerMs: 0, atMs: T + 500, node: 'us-east-1' }
  t.match(mergeParts([attempt, start, stray, end]), [{ leg: 'L1', endMs: T + 13_000 }])
  t.equal(mergeParts([attempt, start, stray, end]).length, 1)
  // A BYE in the early dialog, then the INVITE's own end: not answered.
  const cancelled = makePart({ part: 'end', atMs: T + 600, status: 487, reason: 'cancelled' })
  t.match(mergeParts([attempt, stray, cancelled]), [
    { leg: '', status: 487, answerMs: 0, parts: [{ part: 'attempt' }, { part: 'end' }] },
  ])
  // With the start lost, the end of the leg is all there is.
  t.match(mergeParts([attempt, { ...end, answerMs: 0 }]), [{ leg: 'L1', state: 'complete', answerMs: 0 }])
  t.end()
})
