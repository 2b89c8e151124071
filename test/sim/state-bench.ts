/**
 * Cost of the state's hot paths on one core, for `node test/sim/state-bench.ts [writes]`: writes with their flushes, applying the frames of a peer, a digest round
 * between equals, and a full pull by an empty node. Everything included: codec, index, yjs, hash, message framing; not the sockets.
 */
import type { ClusterConstants } from '../../crdt/entry.ts'
import { StateCore, type StatePeer } from '../../crdt/state.ts'
import { SeededRandom } from '../../src/base/prng.ts'
import { makeBinding } from '../crdt/model.ts'

const constants: ClusterConstants = {
  ...{
    bucketWidthMs: 60_000,
    longestExpiryMs: 7_200_000,
    windowMs: 64_000,
    driftBoundMs: 500,
    graceMs: 70_000,
    rebootGuardMs: 5000,
  },
}
const WRITES = Number(process.argv[2] ?? 50_000)
const start = 1_760_000_000_000
const peers: StatePeer[] = ['a', 'b', 'c'].map((node) => ({ region: node, node, incarnation: 1, outbound: true }))
const members = peers.map(({ region, node }) => ({ region, node }))
const core = (i: number): StateCore => new StateCore({ self: peers[i]!, constants, random: new SeededRandom(i), members })

const { kind: _kind, hlc: _hlc, region: _region, node: _node, incarnation: _incarnation, ...fields } = makeBinding()
const report = (what: string, us: number, detail: string): void => {
  process.stdout.write(`${what.padEnd(34)} ${us.toFixed(2).padStart(8)} us  ${detail}\n`)
}

/** Batched: ten writes a millisecond, so 100 a flush. Unbatched: each has a frame of its own. */
function run(label: string, perMs: number, flushEach: boolean): { a: StateCore; b: StateCore; nowMs: number } {
  const [a, b] = [core(0), core(1)]
  a.handlePeerUp(peers[1]!, start)
  b.handlePeerUp(peers[0]!, start)
  a.takeOutputs()
  const sent: Buffer[] = []
  let nowMs = start
  const drain = (): void => {
    for (const o of a.takeOutputs()) if (o.kind === 'send' && o.node === 'b' && o.bytes[0] === 5) sent.push(o.bytes)
  }
  const writes = flushEach ? WRITES / 5 : WRITES
  let began = performance.now()
  for (let i = 0; i < writes; i++) {
    if (i % perMs === 0) nowMs++
    a.writeBinding({ ...fields, aor: `sip:u${i % 20_000}@example.net`, cseq: i, expiresAtMs: nowMs + 3_600_000 }, nowMs)
    if (flushEach) nowMs += 10
    if (a.nextTimeoutMs()! <= nowMs) a.handleTimeout(nowMs)
    drain()
  }
  nowMs += 10
  a.handleTimeout(nowMs)
  drain()
  report(`write, ${label}`, (1000 * (performance.now() - began)) / writes, `${writes} writes, ${sent.length} messages`)
  const bytes = sent.reduce((sum, m) => sum + m.length, 0)
  began = performance.now()
  for (const m of sent) b.handleMessage('a', m, nowMs)
  report(
    `apply, ${label}`,
    (1000 * (performance.now() - began)) / writes,
    `${(bytes / writes).toFixed(0)} bytes an entry on the wire`,
  )
  b.takeOutputs()
  if (a.summary(nowMs).digest !== b.summary(nowMs).digest) throw new Error('digests differ')
  return { a, b, nowMs }
}

run('warm-up', 10, false)
const { a, b, nowMs } = run('batched', 10, false)
run('one frame each', 10, true)

/** Delivers between two cores until nothing is under way. */
function settle(x: StateCore, xName: string, y: StateCore, yName: string, atMs: number): number {
  let bytes = 0
  for (let busy = true; busy; ) {
    busy = false
    for (const [from, fromName, to, toName] of [
      [x, xName, y, yName],
      [y, yName, x, xName],
    ] as const)
      for (const o of from.takeOutputs()) {
        if (o.kind !== 'send' || o.node !== toName) continue
        bytes += o.bytes.length
        busy = true
        to.handleMessage(fromName, o.bytes, atMs)
      }
  }
  return bytes
}

settle(a, 'a', b, 'b', nowMs)
let began = performance.now()
const rounds = 200
let at = nowMs
let bytes = 0
for (let i = 0; i < rounds; i++) {
  at += 1200
  a.handleTimeout(at)
  b.handleTimeout(at)
  bytes += settle(a, 'a', b, 'b', at)
}
report(
  'digest round between equals',
  (1000 * (performance.now() - began)) / rounds,
  `${(bytes / rounds).toFixed(0)} bytes, both ways`,
)

const empty = core(2)
empty.handlePeerUp(peers[0]!, at)
a.handlePeerUp(peers[2]!, at)
began = performance.now()
const pulled = settle(a, 'a', empty, 'c', at)
const { entries } = empty.summary(at)
report(
  'full pull, an entry, both ends',
  (1000 * (performance.now() - began)) / entries,
  `${entries} entries, ${(pulled / 1e6).toFixed(1)} MB`,
)
if (empty.summary(at).digest !== a.summary(at).digest) throw new Error('digests differ')
