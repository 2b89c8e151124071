import fc from 'fast-check'
import t from 'tap'
import { DocSum, horizonAt, overallDigest, retentionEndMs } from '../../crdt/digest.ts'
import { sha256 } from '../../crdt/replica.ts'
import { CONSTANTS, identity } from './replica-kit.ts'

const hash = fc.uint8Array({ minLength: 32, maxLength: 32 })

t.test('the sum does not depend on the order, and what is removed leaves no trace', async (t) => {
  fc.assert(
    fc.property(fc.array(hash), fc.array(hash), (kept, removed) => {
      const plain = new DocSum()
      for (const h of kept) plain.add(h)
      const busy = new DocSum()
      for (const h of [...removed, ...kept.toReversed()]) busy.add(h)
      for (const h of removed.toReversed()) busy.remove(h)
      return busy.equals(plain.docs, plain.bytes()) && busy.bytes().equals(plain.bytes())
    }),
  )
  t.pass('over random sets')
})

t.test('sums of different sets differ, also by count alone', async (t) => {
  const a = new DocSum()
  const b = new DocSum()
  a.add(sha256(Buffer.from('one')))
  t.notOk(a.equals(b.docs, b.bytes()))
  b.add(sha256(Buffer.from('two')))
  t.notOk(a.equals(b.docs, b.bytes()))
  const zero = new DocSum()
  zero.add(new Uint8Array(32))
  t.notOk(zero.equals(0, new Uint8Array(32)), 'a hash of zeros counts')
})

t.test('a bucket is at or above the horizon exactly until its retention ends', async (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 5_000_000 }), fc.integer({ min: 0, max: 5000 }), (nowMs, bucket) => {
      const retained = retentionEndMs(bucket, CONSTANTS) > nowMs
      return bucket >= horizonAt(nowMs, CONSTANTS) === retained
    }),
    { numRuns: 1000 },
  )
  t.equal(horizonAt(0, CONSTANTS), 0, 'never negative')
  const end = retentionEndMs(7, CONSTANTS)
  t.equal(horizonAt(end - 1, CONSTANTS), 7)
  t.equal(horizonAt(end, CONSTANTS), 8)
})

t.test('the overall digest is the same whatever the order of authors, and authors without docs do not count', async (t) => {
  const sum = sha256(Buffer.from('x'))
  const a = { author: identity('us-east-1'), docs: 1, sum }
  const b = { author: identity('eu-west-1'), docs: 2, sum }
  const none = { author: identity('ap-south-1'), docs: 0, sum: new Uint8Array(32) }
  t.equal(overallDigest([a, b], sha256), overallDigest([b, none, a], sha256))
  t.not(overallDigest([a, b], sha256), overallDigest([a, { ...b, docs: 3 }], sha256))
  t.match(overallDigest([], sha256), /^[0-9a-f]{32}$/)
})
