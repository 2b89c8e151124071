import t from 'tap'
import { encodePart } from '../../../src/cdr/part-codec.ts'
import { type Findings, judgeSegment, RECOVERY_CASES } from '../../../src/cdr/recovery.ts'
import { buildGroup } from '../../../src/cdr/segment.ts'
import { chainStart, encodeHeader, type Genesis, HEADER_BYTES, noPrevious } from '../../../src/cdr/segment-header.ts'
import { numbered } from './parts.ts'

const genesis: Genesis = { region: 'r', node: 'n', incarnation: 5, createdMs: 1, previous: noPrevious }

/** Header, three groups of two records, zeros; and the offsets where groups begin. */
function segment(): { bytes: Buffer; at: number[] } {
  const chunks = [encodeHeader({ kind: 'own', number: 1, createdMs: 1, sizeBytes: 8192, genesis, start: chainStart(genesis) })]
  const at = [HEADER_BYTES]
  let end = chainStart(genesis)
  for (let g = 0; g < 3; g++) {
    const group = buildGroup(end, [encodePart(numbered(2 * g)), encodePart(numbered(2 * g + 1))], g)
    chunks.push(group.bytes)
    at.push(at[g]! + group.bytes.length)
    end = group.end
  }
  return { bytes: Buffer.concat([...chunks, Buffer.alloc(512)]), at }
}

t.test('every finding is in exactly one row of the table', (t) => {
  for (const header of ['sound', 'broken'] as const) {
    for (const bad of [false, true]) {
      for (const commitsAfter of ['none', 'own', 'later'] as const) {
        const findings: Findings = { header, bad, commitsAfter }
        t.equal(RECOVERY_CASES.filter((row) => row.when(findings)).length, 1, JSON.stringify(findings))
      }
    }
  }
  t.end()
})

t.test('a whole segment is clean', (t) => {
  const { bytes, at } = segment()
  t.match(judgeSegment(bytes), { name: 'clean', action: 'seal', endOffset: at[3], end: { commits: 3, records: 6 } })
  t.match(judgeSegment(bytes.subarray(0, at[3])), { name: 'clean' }, 'sealed')
  t.match(judgeSegment(bytes.subarray(0, HEADER_BYTES)), { name: 'clean', end: { commits: 0 } }, 'without groups')
  t.end()
})

t.test('a group of which any part did not reach the disk is torn, and cut', (t) => {
  const { bytes, at } = segment()
  for (let length = at[2]! + 8; length < at[3]!; length += 8) {
    const torn = Buffer.concat([bytes.subarray(0, length), Buffer.alloc(bytes.length - length)])
    t.match(judgeSegment(torn), { name: 'torn', action: 'cut', endOffset: at[2], end: { commits: 2 } })
  }
  const lateHalf = Buffer.from(bytes)
  lateHalf.fill(0, at[2], at[2]! + 64)
  lateHalf.fill(0, at[3]! - 112, at[3])
  t.match(judgeSegment(lateHalf), { name: 'torn', endOffset: at[2] }, 'the end is there and the beginning is not')
  t.end()
})

t.test('a last group whose commit frame is there and a record is not is cut, and reported', (t) => {
  const { bytes, at } = segment()
  bytes.fill(0, at[2]! + 100, at[2]! + 200)
  t.match(judgeSegment(bytes), {
    name: 'torn in the last group',
    action: 'cutAndReport',
    endOffset: at[2],
    claimed: { commits: 2 },
  })
  t.end()
})

t.test('damage that committed groups follow is left as it is, and the chain ends where its last commit frame says', (t) => {
  const { bytes, at } = segment()
  bytes[at[1]! + 60] = bytes[at[1]! + 60]! ^ 1
  t.match(judgeSegment(bytes), {
    name: 'damaged',
    action: 'leave',
    state: 'damaged',
    end: { commits: 1 },
    claimed: { commits: 3, records: 6 },
    stop: { record: 2, fault: { code: 'CDR_RECORD_DAMAGED', offset: at[1] } },
  })
  t.end()
})

t.test('a file without a header is set aside unless it holds a group', (t) => {
  const { bytes } = segment()
  t.match(judgeSegment(Buffer.alloc(0)), { action: 'setAside' })
  t.match(judgeSegment(Buffer.alloc(8192)), { action: 'setAside' })
  t.match(judgeSegment(bytes.subarray(0, 4000)), { action: 'setAside' })
  bytes[20] = 99
  t.match(judgeSegment(bytes), { name: 'header damaged', action: 'leave', headerFault: { code: 'CDR_HEADER_DAMAGED' } })
  t.end()
})
