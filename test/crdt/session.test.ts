import t from 'tap'
import { horizonAt } from '../../crdt/digest.ts'
import { decodeMessage, docKey, encodeMessage, type StateMessage } from '../../crdt/frames.ts'
import type { Replica } from '../../crdt/replica.ts'
import { Session, type SessionHost } from '../../crdt/session.ts'
import { binding, CONSTANTS, dialog, docName, fingerprint, makeReplica, NOW, RETENTION_MS } from './replica-kit.ts'

/** Two replicas and a session at each end of a link that delivers at once, in order, when told to. */
class Pair {
  readonly log: { from: 'a' | 'b'; m: StateMessage; bytes: number }[] = []
  readonly compared: boolean[] = []
  readonly forked: string[] = []
  readonly #queue: { to: 'a' | 'b'; bytes: Buffer }[] = []
  readonly ends: Record<'a' | 'b', { replica: Replica; session: Session; skewMs: number }>
  /** Messages that are lost. */
  lose: (m: StateMessage) => boolean = () => false
  nowMs = NOW

  constructor(a: Replica, b: Replica) {
    const end = (name: 'a' | 'b', replica: Replica) => {
      const host: SessionHost = {
        replica,
        horizon: (nowMs) => horizonAt(nowMs, CONSTANTS),
        wanted: (doc, _, nowMs) => doc.bucket >= horizonAt(nowMs, CONSTANTS),
        fetching: new Map(),
        send: (_, bytes) => this.#send(name, bytes),
        forked: (doc) => this.forked.push(docKey(doc)),
        compared: (equal) => this.compared.push(equal),
      }
      return { replica, session: new Session(name === 'a' ? 'b' : 'a', host, NOW), skewMs: 0 }
    }
    this.ends = { a: end('a', a), b: end('b', b) }
  }

  digest(from: 'a' | 'b'): void {
    const { replica, skewMs } = this.ends[from]
    const horizon = horizonAt(this.nowMs + skewMs, CONSTANTS)
    this.#send(from, encodeMessage({ type: 'digest', horizon, authors: replica.digests() }))
  }

  /** Delivers until nothing is under way. */
  settle(): void {
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      const { replica, session, skewMs } = this.ends[next.to]
      const nowMs = this.nowMs + skewMs
      const decoded = decodeMessage(next.bytes)
      if (!decoded.ok) throw new Error(decoded.fault.code)
      const m = decoded.value
      if (m.type === 'frames') {
        session.fed(nowMs)
        for (const f of m.frames) replica.apply(f, nowMs)
      } else if (session.handle(m, nowMs) !== undefined) throw new Error(`refused ${m.type}`)
    }
  }

  wait(ms: number): void {
    this.nowMs += ms
    for (const { session, skewMs } of Object.values(this.ends)) session.handleTimeout(this.nowMs + skewMs)
    this.settle()
  }

  types(from: 'a' | 'b'): string[] {
    return this.log.filter((l) => l.from === from).map((l) => l.m.type)
  }

  #send(from: 'a' | 'b', bytes: Buffer): void {
    const decoded = decodeMessage(bytes)
    if (!decoded.ok) throw new Error(decoded.fault.code)
    this.log.push({ from, m: decoded.value, bytes: bytes.length })
    if (!this.lose(decoded.value)) this.#queue.push({ to: from === 'a' ? 'b' : 'a', bytes })
  }
}

/** A holder of `seconds` buckets of `perSecond` entries each, of one author. */
function full(seconds: number, perSecond: number, node = 'us-east-1'): Replica {
  const replica = makeReplica(node)
  for (let s = 0; s < seconds; s++) {
    const region = node.slice(0, -2)
    for (let i = 0; i < perSecond; i++) replica.append(binding(NOW - 1000 * (seconds - 1 - s), i, { node, region }))
    replica.flush()
  }
  return replica
}

t.test('equal digests cost no doc bytes', async (t) => {
  const a = full(5, 10)
  const b = makeReplica('eu-west-1')
  for (let s = 0; s < 5; s++) b.apply(a.serve(docName({ bucket: docName().bucket - s }), 0, 10, 1 << 18)!, NOW)
  const pair = new Pair(a, b)
  pair.digest('a')
  pair.digest('b')
  pair.settle()
  t.same(pair.compared, [true, true])
  t.same([pair.types('a'), pair.types('b')], [['digest'], ['digest']])
  t.ok(pair.ends.a.session.pulled && pair.ends.b.session.pulled)
})

t.test('both sides pull what they lack and end with the union', async (t) => {
  const pair = new Pair(full(6, 20), full(4, 30, 'eu-west-1'))
  t.notOk(pair.ends.b.session.pulled, 'nothing compared yet')
  pair.digest('a')
  pair.digest('b')
  pair.settle()
  t.equal(fingerprint(pair.ends.a.replica), fingerprint(pair.ends.b.replica))
  t.equal(pair.ends.a.replica.recordCount, 240)
  t.ok(pair.ends.a.session.pulled && pair.ends.b.session.pulled)
  t.equal(pair.ends.a.session.nextTimeoutMs(), undefined, 'and rest')
})

/** 15 buckets with a doc of each kind: 30 docs, more than a first answer lists. */
function twoKinds(): Replica {
  const replica = makeReplica('us-east-1')
  for (let s = 14; s >= 0; s--) {
    replica.append(binding(NOW - 1000 * s))
    replica.append(dialog(NOW - 1000 * s, 1))
    replica.flush()
  }
  return replica
}

const bucket = docName().bucket

t.test('under load only the tips of the newest buckets travel', async (t) => {
  const a = twoKinds()
  const b = makeReplica('eu-west-1')
  const pair = new Pair(a, b)
  pair.digest('a')
  pair.settle()
  t.equal(fingerprint(a), fingerprint(b))
  t.equal(pair.log.filter(({ m }) => m.type === 'ask').length, 2, 'at first the list takes two answers')
  for (let i = 0; i < 3; i++) a.append(binding(NOW, 100 + i))
  a.flush()
  pair.log.length = 0
  pair.digest('a')
  pair.settle()
  pair.wait(250)
  t.equal(fingerprint(a), fingerprint(b))
  const tips = pair.log.flatMap(({ m }) => (m.type === 'tips' ? m.tips : []))
  t.equal(tips.length, 16)
  t.equal(pair.log.filter(({ m }) => m.type === 'ask').length, 1, 'the rest is equal, and that ends it')
})

t.test('an old doc that is lacking is found behind a rest that differs, and only it is fetched', async (t) => {
  const a = twoKinds()
  const b = makeReplica('ap-south-1')
  for (let s = 0; s < 15; s++)
    for (const kind of ['binding', 'dialog'] as const)
      if (s !== 13 || kind !== 'dialog') b.apply(a.serve(docName({ kind, bucket: bucket - s }), 0, 1, 1 << 18)!, NOW)
  const pair = new Pair(a, b)
  pair.digest('a')
  pair.settle()
  t.equal(fingerprint(a), fingerprint(b))
  const wanted = pair.log.flatMap(({ m }) => (m.type === 'want' ? m.ranges : []))
  t.same(wanted, [{ doc: docName({ kind: 'dialog', bucket: bucket - 13 }), from: 0, to: 1 }])
})

t.test('healing runs newest first, in slices', async (t) => {
  const a = full(15, 400)
  const pair = new Pair(a, makeReplica('eu-west-1'))
  const order: number[] = []
  pair.digest('a')
  pair.settle()
  for (const { from, m } of pair.log) if (from === 'a' && m.type === 'frames') order.push(...m.frames.map((f) => f.doc.bucket))
  t.ok(order.length >= 15)
  t.same(
    order,
    order.toSorted((x, y) => y - x),
    'buckets fall',
  )
  t.ok(pair.log.filter(({ m }) => m.type === 'want').length > 1, 'in more than one slice')
  const slice = pair.log.map((l) => l.bytes)
  t.ok(Math.max(...slice) < 600 * 1024, `no message above 600 KiB (${Math.max(...slice)})`)
  t.equal(fingerprint(a), fingerprint(pair.ends.b.replica))
})

t.test('outside the first round a lag is given time to be a push that is on its way', async (t) => {
  const a = full(1, 5)
  const b = makeReplica('eu-west-1')
  const pair = new Pair(a, b)
  pair.digest('a')
  pair.settle()
  a.append(binding(NOW, 50))
  const [frame] = a.flush()
  pair.log.length = 0
  pair.digest('a')
  pair.settle()
  t.same(pair.types('b'), ['ask'], 'nothing is fetched yet')
  b.apply(frame!, NOW)
  pair.wait(100)
  pair.wait(150)
  t.same(pair.types('b'), ['ask'], 'the push came: nothing is fetched at all')
  t.ok(pair.ends.b.session.pulled)
})

t.test('a lost message costs a round, not the session', async (t) => {
  for (const lost of ['ask', 'tips', 'want', 'frames', 'done']) {
    const a = full(3, 5)
    const pair = new Pair(a, makeReplica('eu-west-1'))
    let times = 1
    pair.lose = (m) => m.type === lost && times-- > 0
    pair.digest('a')
    pair.settle()
    for (let i = 0; i < 8 && !pair.ends.b.session.pulled; i++) {
      pair.wait(500)
      if (i % 2 === 1) pair.digest('a')
      pair.settle()
    }
    t.equal(fingerprint(a), fingerprint(pair.ends.b.replica), `${lost} lost`)
    t.ok(pair.ends.b.session.pulled, `${lost}: pulled`)
  }
})

t.test('digests are compared above the later of the two horizons', async (t) => {
  const a = full(15, 5)
  const b = makeReplica('eu-west-1')
  for (let s = 0; s < 15; s++) b.apply(a.serve(docName({ bucket: docName().bucket - s }), 0, 5, 1 << 18)!, NOW)
  // b's clock is 4 s ahead: it has dropped what a still holds.
  b.expire(NOW + 4000)
  t.ok(b.docCount < a.docCount)
  const pair = new Pair(a, b)
  pair.ends.b.skewMs = 4000
  pair.digest('b')
  pair.settle()
  t.same(pair.compared, [true], 'a compares above the horizon of b')
  pair.digest('a')
  pair.settle()
  t.same(pair.types('b').filter((type) => type === 'want').length, 0, 'b does not fetch what it has dropped')
  t.ok(RETENTION_MS > 4000)
})

t.test('equal clocks with different hashes are a fork, reported and left alone', async (t) => {
  const a = full(1, 3)
  const b = makeReplica('us-east-1')
  for (let i = 0; i < 3; i++) b.append(binding(NOW, i, { callId: 'other' }))
  b.flush()
  const pair = new Pair(a, b)
  pair.digest('a')
  pair.settle()
  t.same(pair.forked, [docKey(docName())])
  t.notSame(fingerprint(a), fingerprint(b))
})

t.test('tips out of bounds are a fault', async (t) => {
  const a = full(1, 3)
  const pair = new Pair(a, makeReplica('eu-west-1'))
  pair.lose = (m) => m.type === 'ask'
  pair.digest('a')
  pair.settle()
  const rest = { restDocs: 0, restSum: Buffer.alloc(32) }
  const tip = { kind: 'binding' as const, bucket: 5, part: 0, clock: 1, hash: Buffer.alloc(32) }
  const tips = { type: 'tips' as const, author: docName(), horizon: 0, below: 5, floor: 4, tips: [tip], ...rest }
  t.match(pair.ends.b.session.handle(tips, NOW), { code: 'CRDT_MESSAGE_MALFORMED' })
  t.equal(pair.ends.b.session.handle(tips, NOW), undefined, 'and an answer to nothing is ignored')
})

t.test('an answer keeps to the budget and says so', async (t) => {
  const a = full(1, 2000)
  const pair = new Pair(a, makeReplica('eu-west-1'))
  const ranges = [{ doc: docName(), from: 0, to: 2000 }]
  pair.ends.a.session.handle({ type: 'want', id: 9, budgetBytes: 10_000, ranges }, NOW)
  const last = pair.log.at(-1)!.m
  t.same(last, { type: 'done', id: 9, complete: false })
  const bytes = pair.log.reduce((sum, l) => sum + l.bytes, 0)
  t.ok(bytes > 9000 && bytes < 12_000, `${bytes} bytes`)
  pair.log.length = 0
  pair.ends.a.session.handle(
    { type: 'want', id: 10, budgetBytes: Number.MAX_SAFE_INTEGER, ranges: Array(200).fill(ranges[0]) },
    NOW,
  )
  t.ok(pair.log.reduce((sum, l) => sum + l.bytes, 0) < 2 * (1 << 20), 'never more than the limit, whatever is asked')
})

t.test('an ASK for no tips at all is answered, and is no end of the process', async (t) => {
  const pair = new Pair(full(3, 3), makeReplica('eu-west-1'))
  pair.ends.a.session.handle({ type: 'ask', author: docName(), horizon: 0, below: Number.MAX_SAFE_INTEGER, limit: 0 }, NOW)
  t.match(pair.log.at(-1)!.m, { type: 'tips', floor: docName().bucket })
})

t.test('authors that nobody answers for are bounded, and forgotten', async (t) => {
  const pair = new Pair(makeReplica('eu-west-1'), makeReplica('us-east-1'))
  pair.lose = () => true
  const digest = (first: number, count: number): StateMessage => ({
    type: 'digest',
    horizon: 0,
    authors: Array.from({ length: count }, (_, i) => ({
      author: { region: 'us-east', node: 'us-east-1', incarnation: first + i },
      docs: 1,
      sum: Buffer.alloc(32),
    })),
  })
  const { session } = pair.ends.a
  const hear = (first: number, count: number): void => {
    session.handle(digest(first, count) as Exclude<StateMessage, { type: 'frames' }>, pair.nowMs)
  }
  for (let i = 0; i < 3; i++) hear(4000 * i, 4000)
  t.equal(pair.types('a').length, 4096, 'asked for, and no more')
  pair.nowMs += 2001
  hear(0, 0)
  t.ok(session.pulled, 'what was never answered is not waited for without end')
})

t.test('an answer that ran out of its budget and brought nothing is not asked for again at once', async (t) => {
  const a = full(1, 3)
  const pair = new Pair(a, makeReplica('eu-west-1'))
  pair.lose = (m) => m.type === 'frames' || m.type === 'done'
  pair.digest('a')
  pair.settle()
  const wants = () => pair.types('b').filter((type) => type === 'want').length
  t.equal(wants(), 1)
  for (let id = 1; id < 10; id++) pair.ends.b.session.handle({ type: 'done', id, complete: false }, NOW)
  t.equal(wants(), 1)
  pair.lose = () => false
  pair.digest('a')
  pair.settle()
  pair.wait(300)
  t.equal(fingerprint(pair.ends.b.replica), fingerprint(a), 'the next digest begins again')
})
