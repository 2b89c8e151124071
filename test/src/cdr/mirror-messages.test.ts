import t from 'tap'
import { decodeMessage, encodeMessage, MAX_DATA_BYTES, type MirrorMessage } from '../../../src/cdr/mirror-messages.ts'
import { chainStart, encodeHeader, type Genesis, noPrevious } from '../../../src/cdr/segment-header.ts'

const genesis: Genesis = { region: 'r', node: 'n', incarnation: 5, createdMs: 1, previous: noPrevious }
const header = encodeHeader({ kind: 'own', number: 1, createdMs: 1, sizeBytes: 8192, genesis, start: chainStart(genesis) })
const hash = Buffer.alloc(32, 3)
const messages: MirrorMessage[] = [
  { type: 'query' },
  {
    type: 'holds',
    chains: [
      { incarnation: 5, first: 0, commits: 9, hash },
      { incarnation: 2 ** 50, first: 4, commits: 4, hash },
    ],
  },
  { type: 'open', header },
  { type: 'data', incarnation: 5, from: 3, groups: Buffer.from('groups') },
  { type: 'ack', incarnation: 5, commits: 4, hash },
  { type: 'refuse', why: 'gap', incarnation: 5, commits: 2, hash },
  { type: 'pull', incarnation: 5, from: 1, withHeader: true },
  { type: 'range', incarnation: 5, from: 1, header, groups: Buffer.from('groups') },
  { type: 'range', incarnation: 5, from: 1, header: undefined, groups: Buffer.alloc(0) },
]

t.test('each message decodes to what was encoded', (t) => {
  for (const message of messages) t.same(decodeMessage(encodeMessage(message)), { ok: true, value: message }, message.type)
  t.end()
})

t.test('a message that is cut or has a byte too many is a fault, unless its end is data', (t) => {
  for (const message of messages) {
    const bytes = encodeMessage(message)
    const open = message.type === 'data' || message.type === 'range'
    const least =
      message.type === 'data' ? 18 : message.type === 'range' ? (message.header === undefined ? 21 : 21 + 4096) : bytes.length
    for (let length = 0; length < least; length += length < 64 ? 1 : 97)
      t.notOk(decodeMessage(bytes.subarray(0, length)).ok, `${message.type} ${length}`)
    if (!open) t.notOk(decodeMessage(Buffer.concat([bytes, Buffer.from([0])])).ok, message.type)
  }
  t.end()
})

t.test('what is out of bounds is a fault', (t) => {
  t.notOk(decodeMessage(Buffer.from([0])).ok)
  t.notOk(decodeMessage(Buffer.from([9])).ok)
  t.notOk(decodeMessage(encodeMessage({ type: 'data', incarnation: 5, from: 3, groups: Buffer.alloc(MAX_DATA_BYTES + 1) })).ok)
  const huge = encodeMessage({ type: 'ack', incarnation: 5, commits: 4, hash })
  huge.fill(0xff, 1, 9)
  t.match(decodeMessage(huge), { ok: false, fault: { code: 'CDR_MIRROR_MALFORMED' } })
  const damaged = encodeMessage({ type: 'open', header })
  damaged[300] = 1
  t.notOk(decodeMessage(damaged).ok)
  t.end()
})
