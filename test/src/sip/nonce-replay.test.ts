import fc from 'fast-check'
import t from 'tap'
import { NonceReplay } from '../../../src/sip/nonce-replay.ts'

t.test('no count is fresh twice, and every count above the highest is fresh', async () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.integer({ min: 1, max: 80 }), fc.integer({ min: 1, max: 0xffffffff })), { maxLength: 100 }),
      (counts) => {
        const replay = new NonceReplay()
        const used = new Set<number>()
        let highest = 0
        for (const count of counts) {
          const result = replay.use('n', 1, count)
          const expected = used.has(count) || (highest > 0 && count <= highest - 32) ? 'replay' : 'fresh'
          if (result !== expected) return false
          if (result === 'fresh') used.add(count)
          highest = Math.max(highest, count)
        }
        return true
      },
    ),
    { numRuns: 500 },
  )
})

t.test('a full table forgets the oldest, and what it may have forgotten is stale and never fresh', async (t) => {
  const replay = new NonceReplay(3)
  for (let i = 1; i <= 3; i++) t.equal(replay.use(`n${i}`, i * 10, 1), 'fresh')
  t.equal(replay.use('n4', 40, 1), 'fresh')
  t.equal(replay.size, 3)
  t.equal(replay.use('n1', 10, 1), 'stale', 'forgotten: used before')
  t.equal(replay.use('unseen', 5, 1), 'stale', 'older than what was forgotten')
  t.equal(replay.use('n2', 20, 1), 'replay')
  t.equal(replay.use('n2', 20, 2), 'fresh')
  t.equal(replay.use('n5', 11, 1), 'fresh')
})

t.test('under any load a pair of nonce and count is fresh at most once and the table stays bounded', async () => {
  const use = fc.record({ nonce: fc.nat({ max: 12 }), count: fc.integer({ min: 1, max: 40 }) })
  fc.assert(
    fc.property(fc.array(use, { maxLength: 200 }), (uses) => {
      const replay = new NonceReplay(4)
      const fresh = new Set<string>()
      for (const { nonce, count } of uses) {
        const result = replay.use(`n${nonce}`, (nonce * 7) % 13, count)
        if (replay.size > 4) return false
        if (result !== 'fresh') continue
        if (fresh.has(`${nonce}/${count}`)) return false
        fresh.add(`${nonce}/${count}`)
      }
      return true
    }),
    { numRuns: 500 },
  )
})
