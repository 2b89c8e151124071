import fc from 'fast-check'
import t from 'tap'
import { decodePart, encodePart, MAX_STRING_BYTES } from '../../../src/cdr/part-codec.ts'
import { anyPart, makePart } from './parts.ts'

t.test('what was encoded decodes to the same part', (t) => {
  fc.assert(
    fc.property(anyPart, (part) => {
      const decoded = decodePart(encodePart(part))
      return decoded.ok && JSON.stringify(sorted(decoded.value)) === JSON.stringify(sorted(part))
    }),
  )
  t.end()
})

t.test('whatever decodes encodes to the same bytes again', (t) => {
  const bytes = encodePart(makePart({ reason: 'Q.850;cause=16', leg: 'tag\ufeff' }))
  let accepted = 0
  for (let at = 0; at < bytes.length; at++) {
    for (const flip of [0x01, 0x80, 0xff]) {
      const changed = Buffer.from(bytes)
      changed[at] = changed[at]! ^ flip
      const decoded = decodePart(changed)
      if (!decoded.ok) continue
      accepted++
      t.ok(encodePart(decoded.value).equals(changed), `byte ${at}`)
    }
  }
  t.ok(accepted > 0)
  t.end()
})

t.test('bytes that are no part are a fault', (t) => {
  const bytes = encodePart(makePart())
  for (let length = 0; length < bytes.length; length++) t.notOk(decodePart(bytes.subarray(0, length)).ok, `${length} bytes`)
  t.notOk(decodePart(Buffer.concat([bytes, Buffer.from([0])])).ok, 'a byte left over')
  const badText = Buffer.from(bytes)
  badText[badText.indexOf('pc33')] = 0xff
  t.match(decodePart(badText), { ok: false, fault: { code: 'CDR_PART_MALFORMED' } })
  t.end()
})

t.test('a string that is too long is cut at a character', (t) => {
  const decoded = decodePart(encodePart(makePart({ callId: `x${'\u00e9'.repeat(MAX_STRING_BYTES)}` })))
  t.ok(decoded.ok)
  if (decoded.ok) t.equal(decoded.value.callId, `x${'\u00e9'.repeat(MAX_STRING_BYTES / 2 - 1)}`)
  t.end()
})

t.test('a part with an id or a time that cannot be is our defect', (t) => {
  t.throws(() => encodePart(makePart({ id: 'short' })), { code: 'CDR_PART_INVALID' })
  t.throws(() => encodePart(makePart({ atMs: -1 })), { code: 'CDR_PART_INVALID' })
  t.throws(() => encodePart(makePart({ status: 70000 })), { code: 'CDR_PART_INVALID' })
  t.end()
})

function sorted(o: object): object {
  return Object.fromEntries(Object.entries(o).sort(([a], [b]) => (a < b ? -1 : 1)))
}
