import fc from 'fast-check'
import t from 'tap'
import { decodeReports, encodeReports, MAX_REPORT_BYTES, MAX_REPORT_NAMES, type ReportMessage } from '../../geo/reports.ts'
import type { Verdict } from '../../geo/verdict.ts'

const NAMES = ['a1', 'a2', 'b1']
const verdict = fc.constantFrom<Verdict>('alive', 'dead', 'unknown')
const count = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
const message: fc.Arbitrary<ReportMessage> = fc.record({
  serial: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  reports: fc.uniqueArray(
    fc.record({
      node: fc.constantFrom(...NAMES),
      incarnation: count,
      seq: count,
      ageMs: fc.integer({ min: 0, max: 1e6 }),
      evidence: fc.tuple(verdict, verdict, verdict).map((v) => new Map(NAMES.map((n, i) => [n, v[i] as Verdict]))),
    }),
    { selector: (r) => r.node },
  ),
})

t.test('what is sent is what is read', (t) => {
  fc.assert(
    fc.property(message, (m) => {
      const decoded = decodeReports(encodeReports(m, NAMES))
      t.same(decoded, { ok: true, value: m })
      return decoded.ok
    }),
    { numRuns: 50 },
  )
  t.end()
})

const text = (value: unknown): Uint8Array => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
const good = { v: 1, serial: 0, names: ['a', 'b'], reports: [[0, 1, 1, 0, 'ad']] }

const REFUSED: Readonly<Record<string, readonly [unknown, string]>> = {
  'not JSON': ['{', 'GEO_REPORT_MALFORMED'],
  empty: ['', 'GEO_REPORT_MALFORMED'],
  null: [null, 'GEO_REPORT_MALFORMED'],
  'another version': [{ ...good, v: 2 }, 'GEO_REPORT_VERSION'],
  'no version': [[], 'GEO_REPORT_VERSION'],
  'a version that cannot be made text': [{ ...good, v: { toString: 1, valueOf: 1 } }, 'GEO_REPORT_VERSION'],
  'a serial over 32 bits': [{ ...good, serial: 2 ** 32 }, 'GEO_REPORT_MALFORMED'],
  'names that are no list': [{ ...good, names: 'ab' }, 'GEO_REPORT_MALFORMED'],
  'too many names': [{ ...good, names: Array.from({ length: MAX_REPORT_NAMES + 1 }, (_, i) => `n${i}`) }, 'GEO_REPORT_MALFORMED'],
  'a name twice': [{ ...good, names: ['a', 'a'] }, 'GEO_REPORT_MALFORMED'],
  'a name that is a number': [{ ...good, names: ['a', 1] }, 'GEO_REPORT_MALFORMED'],
  'a long name': [{ ...good, names: ['a', 'x'.repeat(254)] }, 'GEO_REPORT_MALFORMED'],
  'more reports than names': [{ ...good, reports: [good.reports[0], good.reports[0], good.reports[0]] }, 'GEO_REPORT_MALFORMED'],
  'an observer that has no name': [{ ...good, reports: [[2, 1, 1, 0, 'ad']] }, 'GEO_REPORT_MALFORMED'],
  'a negative seq': [{ ...good, reports: [[0, 1, -1, 0, 'ad']] }, 'GEO_REPORT_MALFORMED'],
  'a fraction as incarnation': [{ ...good, reports: [[0, 1.5, 1, 0, 'ad']] }, 'GEO_REPORT_MALFORMED'],
  'too few letters': [{ ...good, reports: [[0, 1, 1, 0, 'a']] }, 'GEO_REPORT_MALFORMED'],
  'an unknown letter': [{ ...good, reports: [[0, 1, 1, 0, 'ax']] }, 'GEO_REPORT_MALFORMED'],
  'a report that is no list': [{ ...good, reports: [{}] }, 'GEO_REPORT_MALFORMED'],
  'too many bytes': ['x'.repeat(MAX_REPORT_BYTES + 1), 'GEO_REPORT_SIZE'],
}

t.test('the message that the table of faults starts from is good', (t) => {
  t.ok(decodeReports(text(good)).ok)
  t.end()
})

for (const [name, [value, code]] of Object.entries(REFUSED)) {
  t.test(`refuses ${name}`, (t) => {
    const result = decodeReports(text(value))
    t.equal(result.ok ? 'accepted' : result.fault.code, code)
    t.end()
  })
}
