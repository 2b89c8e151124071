import t from 'tap'
import { retentionEndMs } from '../../crdt/digest.ts'
import { decodeMessage, encodeMessage, type Frame, LIMITS } from '../../crdt/frames.ts'
import { StateCore, type StateOutput, type StatePeer } from '../../crdt/state.ts'
import { encodeUpdate } from '../../crdt/update.ts'
import { SeededRandom } from '../../src/base/prng.ts'
import { SIM_CONSTANTS, SimCluster } from '../sim/cluster.ts'
import { makeBinding, makeDialog } from './model.ts'
import { author, binding, CONSTANTS, docName, INCARNATION, identity, MEMBERS, NOW } from './replica-kit.ts'

const makeState = (node = 'eu-west-1', members = MEMBERS): StateCore =>
  new StateCore({ self: identity(node), constants: CONSTANTS, random: new SeededRandom(1), members })

const peer = (node: string, outbound = false): StatePeer => ({ ...identity(node), outbound })
const sends = (outputs: readonly StateOutput[]) => outputs.flatMap((o) => (o.kind === 'send' ? [o] : []))
const pushed = (outputs: readonly StateOutput[]): string[] =>
  sends(outputs)
    .filter((o) => o.bytes[0] === 5)
    .map((o) => o.node)
const frames = (list: readonly Frame[], asked = false): Buffer => encodeMessage({ type: 'frames', asked, frames: list })
const aor = makeBinding().aor

t.test('a write is in the index at once and on the wire with the next flush, one frame for all', async (t) => {
  const state = makeState()
  state.handlePeerUp(peer('eu-west-2'), NOW)
  state.handlePeerUp(peer('us-east-1', true), NOW)
  state.handlePeerUp(peer('us-east-2', false), NOW)
  state.takeOutputs()
  const { kind: _, hlc: __, region: ___, node: ____, incarnation: _____, ...fields } = makeBinding({ expiresAtMs: NOW + 5000 })
  const one = state.writeBinding(fields, NOW)
  const two = state.writeBinding({ ...fields, cseq: 2 }, NOW)
  t.ok(two.hlc > one.hlc)
  t.match(one, identity('eu-west-1'))
  t.equal(state.bindings.lookup(aor, NOW)[0], two, 'read after write')
  t.same(state.takeOutputs(), [])
  t.equal(state.nextTimeoutMs(), NOW + 10)
  state.handleTimeout(NOW + 10)
  t.same(pushed(state.takeOutputs()), ['eu-west-2', 'us-east-1'], 'to siblings and over our own WAN links')
  t.equal(state.summary(NOW + 10).entries, 2)
})

t.test('64 KiB do not wait for the flush', async (t) => {
  const state = makeState()
  state.handlePeerUp(peer('eu-west-2'), NOW)
  state.takeOutputs()
  const { kind: _, hlc: __, region: ___, node: ____, incarnation: _____, ...fields } = makeDialog()
  let written = 0
  while (pushed(state.takeOutputs()).length === 0) {
    state.writeDialog(fields, NOW)
    written++
  }
  t.ok(written > 100 && written < 1000, `${written} entries`)
})

t.test('a push from another region of an author of another region goes to the siblings, once', async (t) => {
  const { frames: list } = author([1, 1, 1, 1])
  const state = makeState('eu-west-1')
  for (const p of [peer('eu-west-2'), peer('us-east-1'), peer('us-east-2'), peer('ap-south-1', true)]) state.handlePeerUp(p, NOW)
  state.takeOutputs()
  state.handleMessage('us-east-1', frames([list[0]!]), NOW)
  const outputs = state.takeOutputs()
  t.same(pushed(outputs), ['eu-west-2'])
  t.same(sends(outputs)[0]!.bytes, frames([list[0]!]), 'unchanged')
  state.handleMessage('ap-south-1', frames([list[0]!]), NOW)
  t.same(pushed(state.takeOutputs()), [], 'a duplicate is not passed on')
  state.handleMessage('eu-west-2', frames([list[1]!]), NOW)
  t.same(pushed(state.takeOutputs()), [], 'nor what comes from a sibling')
  state.handleMessage('us-east-1', frames([list[2]!], true), NOW)
  t.same(pushed(state.takeOutputs()), [], 'nor an answer to what we asked')
  const own = makeState('us-east-2')
  own.handlePeerUp(peer('us-east-1'), NOW)
  own.handlePeerUp(peer('eu-west-1'), NOW)
  own.takeOutputs()
  own.handleMessage('eu-west-1', frames([list[0]!]), NOW)
  t.same(pushed(own.takeOutputs()), [], 'nor what an author of our own region wrote')
  t.equal(own.bindings.lookup(aor, NOW).length, 1, 'but it is taken')
})

t.test('an early frame waits, the gap is asked for by range, and both are passed on in order', async (t) => {
  const { frames: list } = author([1, 1, 1])
  const state = makeState()
  state.handlePeerUp(peer('eu-west-2'), NOW)
  state.handlePeerUp(peer('us-east-1'), NOW)
  state.takeOutputs()
  state.handleMessage('us-east-1', frames([list[2]!]), NOW)
  const asked = sends(state.takeOutputs())
  t.same(
    asked.map((o) => [o.node, o.bytes[0]]),
    [['us-east-1', 4]],
  )
  t.equal(state.summary(NOW).entries, 0)
  state.handleMessage('us-east-1', frames([{ ...list[0]!, ...author([2]).frames[0]! }], true), NOW)
  t.equal(state.summary(NOW).entries, 3)
  t.same(pushed(state.takeOutputs()), ['eu-west-2'], 'the early one was a push and is passed on; the answer was not')
})

t.test('what waits is bounded', async (t) => {
  const { frames: list } = author(Array.from({ length: 100 }, () => 1))
  const state = makeState()
  state.handlePeerUp(peer('us-east-1'), NOW)
  for (const f of list.slice(1)) state.handleMessage('us-east-1', frames([f]), NOW)
  state.handleMessage('us-east-1', frames([list[0]!]), NOW)
  t.equal(state.summary(NOW).entries, 33, 'the first and the 32 that waited')
})

t.test('hostile input is a violation by name, counted, and changes nothing', async (t) => {
  const { frames: list, entries } = author([1, 1])
  const state = makeState()
  state.handlePeerUp(peer('us-east-1'), NOW)
  state.handleMessage('us-east-1', frames([list[0]!]), NOW)
  const before = state.summary(NOW).digest
  const second = list[1]!
  const cases: [string, Buffer][] = [
    ['CRDT_MESSAGE_TYPE', Buffer.from([99])],
    ['CRDT_MESSAGE_TYPE', Buffer.alloc(0)],
    ['CRDT_FRAME_MALFORMED', Buffer.from([5, 0, 1, 2, 3])],
    ['CRDT_MESSAGE_LIMIT', Buffer.from([5, 0, 0xff, 0xff, 0xff, 0x7f])],
    [
      'CRDT_UPDATE_DELETES',
      frames([{ ...second, update: Buffer.concat([second.update.subarray(0, -1), Buffer.from([1, 5, 1, 0, 1])]) }]),
    ],
    [
      'CRDT_UPDATE_CLIENT',
      frames([{ ...second, update: encodeUpdate({ ...docName(), incarnation: 3 }, 1, [new Uint8Array(9)]) }]),
    ],
    ['CRDT_HASH', frames([{ ...second, hash: Buffer.alloc(32) }])],
  ]
  for (const [code, bytes] of cases) {
    state.takeOutputs()
    state.handleMessage('us-east-1', bytes, NOW)
    const outputs = state.takeOutputs()
    t.match(outputs, [{ kind: 'violation', node: 'us-east-1', fault: { code } }], code)
    t.equal(state.summary(NOW).digest, before, `${code}: state unchanged`)
    t.ok((state.counters().refused.get(code) ?? 0) > 0, `${code}: counted`)
  }
  t.equal(state.bindings.size, 1)
  t.equal(entries.length, 2)
  state.handleMessage('us-east-1', frames([second]), NOW)
  t.match(
    state.takeOutputs(),
    [{ kind: 'refused', fault: { code: 'CRDT_QUARANTINED' } }],
    'a doc with a wrong hash is not taken from that peer again',
  )
  state.handlePeerUp(peer('us-east-2'), NOW)
  state.handleMessage('us-east-2', frames([second]), NOW)
  t.equal(state.summary(NOW).entries, 2, 'but from others')
})

t.test('a message of a peer without a link is not read', async (t) => {
  const state = makeState()
  state.handleMessage('us-east-1', frames(author([1]).frames), NOW)
  t.equal(state.summary(NOW).entries, 0)
})

t.test('a higher incarnation of this node, or a longer doc of this one, is reported once', async (t) => {
  const state = makeState('us-east-1')
  state.handlePeerUp(peer('us-east-2'), NOW)
  state.takeOutputs()
  const sum = Buffer.alloc(32)
  const digest = (incarnation: number) =>
    encodeMessage({ type: 'digest', horizon: 0, authors: [{ author: identity('us-east-1', incarnation), docs: 1, sum }] })
  const higher = (outputs: readonly StateOutput[]) => outputs.filter((o) => o.kind === 'higherIncarnation')
  state.handleMessage('us-east-2', digest(INCARNATION - 2 ** 32), NOW)
  t.same(higher(state.takeOutputs()), [], 'an older one is history')
  state.handleMessage('us-east-2', digest(INCARNATION + 1), NOW)
  t.same(higher(state.takeOutputs()), [{ kind: 'higherIncarnation', incarnation: INCARNATION + 1 }])
  state.handleMessage('us-east-2', digest(INCARNATION + 2), NOW)
  t.same(higher(state.takeOutputs()), [])
  const twin = makeState('us-east-1')
  twin.handlePeerUp(peer('us-east-2'), NOW)
  twin.handleMessage('us-east-2', frames(author([1]).frames), NOW)
  t.same(higher(twin.takeOutputs()), [{ kind: 'higherIncarnation', incarnation: INCARNATION }])
})

t.test('ready: at once when there is nobody to ask', async (t) => {
  const state = makeState('us-east-1', [])
  t.ok(state.ready(NOW))
  t.match(state.takeOutputs(), [{ kind: 'ready' }])
})

t.test('ready: after 3 s when nobody answers, after 2 s without news, at once when two peers were pulled', async (t) => {
  const alone = makeState()
  t.notOk(alone.ready(NOW))
  t.notOk(alone.ready(NOW + 2999))
  t.ok(alone.ready(NOW + 3000))

  const silent = makeState()
  silent.ready(NOW)
  silent.handlePeerUp(peer('us-east-1'), NOW + 500)
  t.notOk(silent.ready(NOW + 2499))
  t.ok(silent.ready(NOW + 2500))

  const lucky = makeState()
  lucky.ready(NOW)
  const empty = encodeMessage({ type: 'digest', horizon: 0, authors: [] })
  lucky.handlePeerUp(peer('us-east-1'), NOW)
  lucky.handlePeerUp(peer('eu-west-2'), NOW)
  lucky.handleMessage('us-east-1', empty, NOW + 10)
  t.notOk(lucky.ready(NOW + 10), 'one is not two')
  lucky.handleMessage('eu-west-2', empty, NOW + 20)
  t.ok(lucky.ready(NOW + 20))
  t.equal(lucky.takeOutputs().filter((o) => o.kind === 'ready').length, 1)
})

t.test('a clock that is set back an hour stops nothing', async (t) => {
  const state = makeState()
  state.handlePeerUp(peer('us-east-1'), NOW)
  state.handleTimeout(NOW + 5000)
  state.takeOutputs()
  const back = NOW - 3_600_000
  state.handleTimeout(back)
  t.ok(
    sends(state.takeOutputs()).some((o) => o.bytes[0] === 1),
    'a digest goes out',
  )
  t.ok(state.nextTimeoutMs()! < back + 2000)
})

t.test('entries leave the index when their doc is dropped, in slices', async (t) => {
  const { frames: list } = author([2500])
  const state = makeState()
  state.handlePeerUp(peer('us-east-1'), NOW)
  state.handleMessage('us-east-1', frames(list), NOW)
  t.equal(state.bindings.size, 2500)
  const end = (docName().bucket + 1) * 1000 + 15_000
  state.handleTimeout(end)
  t.equal(state.summary(end).docs, 0)
  t.ok(state.bindings.size > 0 && state.bindings.size < 2500)
  for (let i = 0; i < 5; i++) state.handleTimeout(end + i)
  t.equal(state.bindings.size, 0)
  t.ok(LIMITS.partRecords > 2500)
  t.equal(binding(NOW).kind, 'binding')
})

t.test('early frames of many docs are asked for in one message', async (t) => {
  const state = makeState()
  state.handlePeerUp(peer('us-east-1'), NOW)
  state.takeOutputs()
  const list = [1, 2, 3, 4].map((i) => author([1, 1], NOW - 1000 * i).frames[1]!)
  state.handleMessage('us-east-1', frames(list), NOW)
  const wants = sends(state.takeOutputs()).map((o) => decodeMessage(o.bytes))
  t.match(wants, [{ ok: true, value: { type: 'want', ranges: { length: 4 } } }])
})

t.test('a doc of this very incarnation that another of us wrote is a reason to start again', async (t) => {
  const state = makeState('us-east-1')
  state.handlePeerUp(peer('us-east-2'), NOW)
  const { kind: _, hlc: __, region: ___, node: ____, incarnation: _____, ...fields } = makeBinding({ expiresAtMs: NOW + 5000 })
  state.writeBinding(fields, NOW)
  state.handleTimeout(NOW + 10)
  state.takeOutputs()
  const sum = { docs: 1, sum: Buffer.alloc(32) }
  state.handleMessage(
    'us-east-2',
    encodeMessage({ type: 'digest', horizon: 0, authors: [{ author: identity('us-east-1'), ...sum }] }),
    NOW + 20,
  )
  const { kind, bucket, part } = docName()
  const tip = { kind, bucket, part, clock: 1, hash: Buffer.alloc(32) }
  const range = { horizon: 0, below: Number.MAX_SAFE_INTEGER, floor: 0, restDocs: 0, restSum: Buffer.alloc(32) }
  state.handleMessage(
    'us-east-2',
    encodeMessage({ type: 'tips', author: identity('us-east-1'), ...range, tips: [tip] }),
    NOW + 30,
  )
  t.match(
    state.takeOutputs().filter((o) => o.kind === 'higherIncarnation' || o.kind === 'refused'),
    [{ kind: 'higherIncarnation', incarnation: INCARNATION }, { fault: { code: 'CRDT_FORK' } }],
  )
})

t.test('a sleep longer than the retention between a write and its flush leaves no wrong digest', async (t) => {
  const state = makeState()
  const { kind: _, hlc: __, region: ___, node: ____, incarnation: _____, ...fields } = makeBinding({ expiresAtMs: NOW + 5000 })
  state.writeBinding(fields, NOW)
  state.handleTimeout(NOW + 10)
  state.writeBinding({ ...fields, cseq: 2 }, NOW + 20)
  const woken = NOW + 60_000
  state.handlePeerUp(peer('eu-west-2'), woken)
  state.handleTimeout(woken)
  for (let i = 0; i < 5; i++) state.handleTimeout(woken + i)
  const { docs, entries, digest } = state.summary(woken + 10)
  const fresh = makeState().summary(woken + 10)
  t.same({ docs, entries, digest }, { docs: fresh.docs, entries: fresh.entries, digest: fresh.digest })
  t.equal(state.bindings.size, 0)
})

t.test('a step back over the end of a retention brings our own docs back, and is no reason to start again', async (t) => {
  const c = new SimCluster({ seed: 3, sizes: [2] })
  c.run(3000)
  for (let i = 0; i < 100; i++) {
    c.write('r0-0', { cseq: i, callId: `c${i}` })
    c.run(100)
  }
  // The node's clock is a little ahead when a bucket's retention ends; then both go back to before that.
  const ends = retentionEndMs(Math.floor(c.written[0]!.hlc / 2048 / SIM_CONSTANTS.bucketWidthMs) + 1, SIM_CONSTANTS)
  c.run(ends - 200 - c.clock.nowMs)
  const held = (name: string): number => c.node(name).core.summary(c.clock.nowMs + c.node(name).skewMs).docs
  t.equal(held('r0-0'), 2)
  c.node('r0-0').skewMs = 240
  t.equal(held('r0-0'), 1, 'dropped')
  for (const n of c.nodes) n.skewMs = -5000
  c.run(3000)
  t.equal(held('r0-0'), 2)
  t.same(c.higher, [])
  t.equal(agree(c), undefined)
})

t.test('a clock that ran ahead and was set right is a reason to start again; one that others contradict is not', async (t) => {
  const { kind: _, hlc: __, region: ___, node: ____, incarnation: _____, ...fields } = makeBinding({ expiresAtMs: NOW + 5000 })
  const higher = (state: StateCore): unknown[] => state.takeOutputs().filter((o) => o.kind === 'higherIncarnation')
  const setBack = (state: StateCore, ms: number, nowMs = NOW): unknown[] => {
    state.writeBinding(fields, nowMs)
    state.handleTimeout(nowMs + 10)
    state.takeOutputs()
    for (let at = nowMs - ms; at < nowMs - ms + 5000; at += 100) state.handleTimeout(at)
    return higher(state)
  }
  t.same(setBack(makeState(), 3_600_000), [{ kind: 'higherIncarnation', incarnation: INCARNATION }])
  t.same(setBack(makeState(), CONSTANTS.windowMs - 1000), [], 'within the reorder window it comes right by itself')
  const confirmed = makeState()
  confirmed.handlePeerUp(peer('us-east-1'), NOW)
  confirmed.handleMessage('us-east-1', frames(author([1]).frames), NOW)
  t.same(setBack(confirmed, 3_600_000), [], 'others say that it was right before')
})

// The cluster

const users = (seed: number, i: number): string => `sip:u${(i * 7 + seed) % 40}@example.net`

function load(c: SimCluster, writes: number, everyMs: number, seed: number): void {
  for (let i = 0; i < writes; i++) {
    const living = c.living()
    const node = living[Math.floor(c.random.unit() * living.length)]!
    const op = i % 11 === 5 ? 'remove' : i % 37 === 20 ? 'clear' : 'set'
    const contact = `sip:x@192.0.2.${i % 3}`
    c.write(node.name, {
      aor: users(seed, i),
      op,
      key: op === 'clear' ? '' : contact,
      contact: op === 'clear' ? '' : contact,
      callId: `c${i % 5}`,
      cseq: i,
    })
    c.run(everyMs)
  }
}

/** All living nodes: same digest, same answers. */
function agree(c: SimCluster): string | undefined {
  const digests = new Set(c.digests())
  if (digests.size !== 1) return `${digests.size} digests`
  for (let u = 0; u < 40; u++) {
    const answers = new Set(c.living().map((n) => c.answer(n, `sip:u${u}@example.net`)))
    if (answers.size !== 1) return `${answers.size} answers for u${u}`
  }
  return c.violations[0]
}

for (let seed = 1; seed <= (process.env.ANTIPODE_TEST_LONG === undefined ? 4 : 100); seed++) {
  t.test(`three regions of two nodes agree over a net that loses, reorders and repeats (seed ${seed})`, async (t) => {
    const c = new SimCluster({ seed, sizes: [2, 2, 2], net: { loss: 0.03, reorder: 0.05, duplicate: 0.05 } })
    c.run(3000)
    t.ok(c.nodes.every((n) => n.core.ready(c.clock.nowMs)))
    load(c, 600, 20, seed)
    c.net.options = {}
    c.run(5000)
    t.equal(agree(c), undefined)
    t.equal(c.nodes[0]!.core.summary(c.clock.nowMs).entries, c.written.length, 'nothing is missing')
  })

  t.test(`a cut longer than the retention heals within 5 s (seed ${seed})`, async (t) => {
    const c = new SimCluster({ seed, sizes: [2, 2, 2], net: { loss: 0.01 } })
    c.run(3000)
    load(c, 100, 20, seed)
    c.isolate('r0')
    // Retention is 35 s at most.
    load(c, 500, 100, seed)
    t.not(new Set(c.digests()).size, 1, 'the sides differ')
    c.net.healAll()
    c.net.options = {}
    c.run(5000)
    t.equal(agree(c), undefined)
    const state = c.nodes[0]!.core.summary(c.clock.nowMs)
    t.ok(state.entries < c.written.length, 'the oldest have been dropped')
    const horizonMs = state.horizon * SIM_CONSTANTS.bucketWidthMs
    const retained = c.written.filter((e) => Math.floor(e.hlc / 2048) >= horizonMs)
    t.equal(state.entries, retained.length, 'exactly the retained ones are held')
  })

  t.test(`a node that is killed and starts again pulls everything as a new incarnation (seed ${seed})`, async (t) => {
    const c = new SimCluster({ seed, sizes: [2, 2, 2] })
    c.run(3000)
    load(c, 200, 10, seed)
    c.run(1000)
    c.kill('r0-0')
    load(c, 100, 10, seed)
    const old = c.node('r0-0').incarnation
    c.start('r0-0')
    const n = c.node('r0-0')
    t.ok(n.incarnation > old)
    t.notOk(n.core.ready(c.clock.nowMs), 'it denies nobody yet')
    for (let i = 0; i < 40 && !n.core.ready(c.clock.nowMs); i++) c.run(50)
    t.ok(n.core.ready(c.clock.nowMs))
    load(c, 50, 10, seed)
    c.run(3000)
    t.equal(agree(c), undefined)
    t.equal(n.core.summary(c.clock.nowMs).entries, c.written.length, 'its own old entries too')
    t.same(c.higher, [])
  })
}

t.test(
  'while the region is cut, each side goes on alone; a removal and a clear made on one side hold on the other',
  async (t) => {
    const c = new SimCluster({ seed: 9, sizes: [2, 2, 2] })
    c.run(3000)
    const aors = {
      here: 'sip:u1@example.net',
      there: 'sip:u2@example.net',
      gone: 'sip:u3@example.net',
      cleared: 'sip:u4@example.net',
    }
    c.write('r0-0', { aor: aors.gone, cseq: 1 })
    c.run(1000)
    c.isolate('r0')
    c.write('r0-1', { aor: aors.here })
    c.write('r1-0', { aor: aors.there })
    c.write('r1-1', { aor: aors.gone, op: 'remove', cseq: 2 })
    // Written on one side after the cut began, cleared later on the other, which has never seen it.
    c.write('r0-0', { aor: aors.cleared })
    c.run(100)
    c.write('r2-0', { aor: aors.cleared, op: 'clear', key: '', contact: '', callId: 'star', cseq: 9 })
    c.run(4000)
    t.not(c.answer(c.node('r0-1'), aors.here), '')
    t.equal(c.answer(c.node('r1-1'), aors.here), '')
    t.not(c.answer(c.node('r0-0'), aors.gone), '', 'not known yet')
    c.net.healAll()
    c.run(5000)
    t.equal(agree(c), undefined)
    for (const n of c.nodes) {
      t.not(c.answer(n, aors.here), '', `${n.name} found`)
      t.not(c.answer(n, aors.there), '')
      t.equal(c.answer(n, aors.gone), '')
      t.equal(c.answer(n, aors.cleared), '')
    }
  },
)

t.test('a node whose clock is 2 s ahead is held back, and only its docs', async (t) => {
  const c = new SimCluster({ seed: 5, sizes: [2, 2] })
  c.run(3000)
  c.node('r0-0').skewMs = 2000
  const ahead = c.write('r0-0', { aor: 'sip:u1@example.net' })
  c.write('r0-1', { aor: 'sip:u2@example.net' })
  c.run(1000)
  t.equal(c.answer(c.node('r1-0'), 'sip:u1@example.net'), '', 'not before its time')
  t.not(c.answer(c.node('r1-0'), 'sip:u2@example.net'), '', 'others go on')
  t.ok((c.refused.get('CRDT_CLOCK_AHEAD') ?? 0) > 0)
  t.same(c.violations, [], 'nobody loses a link over it')
  c.run(3000)
  t.not(c.answer(c.node('r1-0'), 'sip:u1@example.net'), '')
  const next = c.write('r1-0', { aor: 'sip:u3@example.net' })
  t.ok(next.hlc > ahead.hlc)
})

t.test('once its docs are equal a cluster exchanges digests and nothing else', async (t) => {
  const c = new SimCluster({ seed: 6, sizes: [2, 2, 2] })
  c.run(3000)
  load(c, 100, 10, 6)
  c.run(3000)
  const before = c.nodes.map((n) => n.core.counters().framesIn)
  const wanBefore = c.net.wanBytes
  c.run(5000)
  t.same(
    c.nodes.map((n) => n.core.counters().framesIn),
    before,
  )
  t.ok(c.net.wanBytes - wanBefore < 6 * 4 * 6 * 600, `${c.net.wanBytes - wanBefore} bytes over the WAN in 5 s`)
})

t.test('a node that runs ten minutes ahead and is set right is found everywhere again, in seconds', async (t) => {
  const c = new SimCluster({ seed: 7, sizes: [2, 2] })
  c.run(3000)
  c.node('r0-0').skewMs = 600_000
  c.run(2000)
  c.write('r0-0', { aor: 'sip:u1@example.net', callId: 'ahead' })
  c.run(2000)
  t.equal(c.answer(c.node('r1-0'), 'sip:u1@example.net'), '')
  c.node('r0-0').skewMs = 0
  c.run(6000)
  t.equal(c.higher.length, 1)
  c.write('r1-0', { aor: 'sip:u1@example.net', callId: 'right', cseq: 1 })
  c.write('r0-0', { aor: 'sip:u2@example.net', cseq: 1 })
  c.run(4000)
  t.equal(agree(c), undefined)
  for (const n of c.nodes) {
    t.match(c.answer(n, 'sip:u1@example.net'), 'right', `${n.name}: nothing of the false time hides it`)
    t.not(c.answer(n, 'sip:u2@example.net'), '', `${n.name} found`)
  }
})

t.test('clocks that jump, nodes that die, regions that are cut: in the end all agree', async (t) => {
  for (let seed = 1; seed <= 6; seed++) {
    const c = new SimCluster({ seed, sizes: [2, 2, 2], net: { loss: 0.05, reorder: 0.1, duplicate: 0.1 } })
    const pick = <T>(list: readonly T[]): T | undefined => list[Math.floor(c.random.unit() * list.length)]
    c.run(3000)
    for (let i = 0; i < 120; i++) {
      const dice = c.random.unit()
      if (dice < 0.6) load(c, 3, 5, seed + i)
      else if (dice < 0.7) c.net.cut(`r${Math.floor(c.random.unit() * 3)}`, `r${Math.floor(c.random.unit() * 3)}`)
      else if (dice < 0.75) c.net.healAll()
      else if (dice < 0.8 && c.living().length > 2) c.kill(pick(c.living())!.name)
      else if (dice < 0.9) for (const n of c.nodes.filter((n) => !n.alive).slice(0, 1)) c.start(n.name)
      else if (dice < 0.94) pick(c.nodes)!.skewMs = Math.floor((c.random.unit() - 0.5) * pick([400, 4000, 60_000, 600_000])!)
      c.run(Math.floor(c.random.unit() * 1500))
    }
    c.net.healAll()
    c.net.options = {}
    for (const n of c.nodes) {
      n.skewMs = 0
      if (!n.alive) c.start(n.name)
    }
    // A clock that ran ahead by less than the window has that long to wait.
    c.run(SIM_CONSTANTS.windowMs + 5000)
    t.equal(agree(c), undefined, `seed ${seed}`)
  }
})
