import t from 'tap'
import { EarlyFrames } from '../../crdt/early.ts'
import { docKey, type Frame } from '../../crdt/frames.ts'
import { docName } from './replica-kit.ts'

const frame = (part: number, from: number, bytes: number): Frame => ({
  doc: docName({ part }),
  from,
  to: from + 1,
  hash: Buffer.alloc(32),
  update: Buffer.alloc(bytes),
})

/** How many of so many docs have a frame waiting. */
function kept(bytes: number, docs: number): number {
  const early = new EarlyFrames()
  for (let part = 0; part < docs; part++)
    early.put(docKey(docName({ part })), { frame: frame(part, 1, bytes), from: 'x', asked: false })
  let count = 0
  for (let part = 0; part < docs; part++) if (early.take(docKey(docName({ part })), 1) !== undefined) count++
  return count
}

t.test('what waits is bounded by what it costs, and a frame without a byte costs too', async (t) => {
  t.ok(kept(100_000, 100) < 42, 'about 4 MiB')
  t.equal(kept(0, 1000), 1000)
  t.ok(kept(0, 20_000) <= 4096, `${kept(0, 20_000)} empty frames`)
})

t.test('room is given back when a frame is taken, and when its doc is over', async (t) => {
  const early = new EarlyFrames()
  const key = docKey(docName())
  for (let round = 0; round < 100; round++) {
    early.put(key, { frame: frame(0, 1, 1_000_000), from: 'x', asked: false })
    t.ok(early.take(key, 1), `round ${round}`)
  }
  for (let round = 0; round < 100; round++) {
    early.put(key, { frame: frame(0, 1, 1_000_000), from: 'x', asked: false })
    early.expire(docName().bucket + 1)
  }
  t.equal(early.take(key, 1), undefined)
  early.put(key, { frame: frame(0, 1, 1_000_000), from: 'x', asked: false })
  t.equal(early.take(key, 0), undefined, 'not before what it builds on')
  t.ok(early.take(key, 1))
})
