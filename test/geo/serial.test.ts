import fc from 'fast-check'
import t from 'tap'
import { nextSerial, serialAfter, serialAheadS, serialOf } from '../../geo/serial.ts'

const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const region = fc.integer({ min: 0, max: 40 })
const MS_2026 = 1_767_225_600_000

t.test('a serial is 32 bits: the seconds with the region below them', (t) => {
  t.equal(serialOf(0, 0), 0)
  t.equal(serialOf(1999, 3), 19)
  t.equal(serialOf(2 ** 28 * 1000, 2), 2, 'after 8.5 years it begins again')
  fc.assert(fc.property(fc.integer({ min: 0, max: 4e12 }), region, (ms, r) => serialOf(ms, r) >>> 0 === serialOf(ms, r)))
  t.end()
})

t.test('later is after, across the wrap too', (t) => {
  const wrapMs = 2 ** 28 * 1000
  t.ok(serialAfter(serialOf(wrapMs + 1000, 0), serialOf(wrapMs - 1000, 15)))
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 4e12 }),
      fc.integer({ min: 1, max: 2 ** 27 - 2 }),
      region,
      region,
      (ms, laterS, a, b) => {
        return serialAfter(serialOf(ms + laterS * 1000, a), serialOf(ms, b))
      },
    ),
  )
  t.end()
})

t.test('of two serials at most one is after the other, and none after itself', (t) => {
  fc.assert(fc.property(u32, u32, (a, b) => !(serialAfter(a, b) && serialAfter(b, a)) && !serialAfter(a, a)))
  t.ok(serialAfter(0, 2 ** 32 - 1))
  t.notOk(serialAfter(2 ** 31, 0), 'RFC 1982 leaves the opposite point open')
  t.end()
})

t.test('the next serial is always above the highest known, and is of our region', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 32 - 1 }), fc.integer({ min: 0, max: 4e12 }), region, (highest, ms, r) => {
      const next = nextSerial(highest, ms, r)
      return serialAfter(next, highest) && next % 16 === r % 16 && next >>> 0 === next
    }),
  )
  t.equal(nextSerial(0, MS_2026, 5), serialOf(MS_2026, 5), 'none known: the clock decides')
  const first = nextSerial(0, MS_2026, 5)
  t.equal(nextSerial(first, MS_2026, 5), first + 16, 'twice in a second')
  t.equal(nextSerial(first, MS_2026, 2), first + 13, 'another region in the same second')
  t.equal(nextSerial(first, MS_2026 - 3_600_000, 5), first + 16, 'a clock that is behind')
  t.end()
})

t.test('how far a serial is ahead of the clock', (t) => {
  t.equal(Math.floor(serialAheadS(serialOf(MS_2026 + 60_000, 3), MS_2026)), 60)
  t.equal(Math.floor(serialAheadS(serialOf(MS_2026 - 60_000, 0), MS_2026)), -60)
  t.end()
})
