import { StateCore, type StatePeer } from '../crdt/state.ts'
import { SeededRandom } from '../src/base/prng.ts'
import { makeBinding } from '../test/crdt/model.ts'
import { CONSTANTS } from './lib/constants.ts'
import { cpuFigure, type Measured, measured, whole } from './lib/measure.ts'
import type { BenchOptions, BenchResult, Figure } from './lib/scenario.ts'

/**
 * Cost of the state's hot paths on one core: writes with their flushes, applying the frames of a peer, a digest round between equals, and a full pull
 * by an empty node. Everything included: codec, index, yjs, hash, message framing; not the sockets.
 */
export const name = 'state'
export const description =
  'replicated state without sockets: write and flush, apply a peer’s frames, digest round, full pull by an empty node'
export const kind = 'micro'

const SECONDS = 2
/** The state grows with what is written, so the work is fixed and not the time; this much is about a second. */
const WRITES_PER_SECOND = 25_000
const LEAST_WRITES = 500
const USERS = 20_000
const START_MS = 1_760_000_000_000
/** First byte of a frame message; the others are digests and requests. crdt/PROTOCOL.md. */
const FRAME = 5

const peers: readonly StatePeer[] = ['a', 'b', 'c'].map((node) => ({ region: node, node, incarnation: 1, outbound: true }))
const members = peers.map(({ region, node }) => ({ region, node }))
const core = (i: number): StateCore =>
  new StateCore({ self: peers[i]!, constants: CONSTANTS, random: new SeededRandom(i), members })
const { kind: _kind, hlc: _hlc, region: _region, node: _node, incarnation: _incarnation, ...fields } = makeBinding()

export async function run({ seconds = SECONDS }: BenchOptions): Promise<BenchResult> {
  const writes = Math.max(LEAST_WRITES, Math.round(seconds * WRITES_PER_SECOND))
  const figures: Figure[] = []
  const failures: string[] = []
  const compare = (x: StateCore, y: StateCore, nowMs: number, when: string): void => {
    if (x.summary(nowMs).digest !== y.summary(nowMs).digest) failures.push(`digests differ ${when}`)
  }
  writeAndApply(Math.round(writes / 5), 10, false)
  const batched = writeAndApply(writes, 10, false)
  const single = writeAndApply(Math.round(writes / 5), 10, true)
  for (const [label, r] of [
    ['batched', batched],
    ['one frame each', single],
  ] as const) {
    figures.push(cpuFigure(`write, ${label}`, r.written, `${whole(r.messages)} messages`))
    figures.push(cpuFigure(`apply, ${label}`, r.applied, `${r.bytesPerEntry.toFixed(0)} bytes an entry on the wire`))
    compare(r.a, r.b, r.nowMs, `after the writes, ${label}`)
  }

  const { a, b } = batched
  let at = batched.nowMs
  settle(a, 'a', b, 'b', at)
  const rounds = Math.max(5, Math.round(seconds * 100))
  let bytes = 0
  const digests = timed(rounds, () => {
    for (let i = 0; i < rounds; i++) {
      at += 1200
      a.handleTimeout(at)
      b.handleTimeout(at)
      bytes += settle(a, 'a', b, 'b', at)
    }
  })
  figures.push(cpuFigure('digest round between equals', digests, `${(bytes / rounds).toFixed(0)} bytes, both ways`))

  const empty = core(2)
  empty.handlePeerUp(peers[0]!, at)
  a.handlePeerUp(peers[2]!, at)
  let pulled = 0
  const pull = timed(a.summary(at).entries, () => {
    pulled = settle(a, 'a', empty, 'c', at)
  })
  figures.push(cpuFigure('full pull, an entry, both ends', pull, `${(pulled / 1e6).toFixed(1)} MB`))
  compare(a, empty, at, 'after the full pull')
  return { figures, failures }
}

interface Written {
  readonly a: StateCore
  readonly b: StateCore
  readonly nowMs: number
  readonly written: Measured
  readonly applied: Measured
  readonly messages: number
  readonly bytesPerEntry: number
}

/** @param flushEach each write has a frame of its own; else ten writes a millisecond share one */
function writeAndApply(writes: number, perMs: number, flushEach: boolean): Written {
  const [a, b] = [core(0), core(1)]
  a.handlePeerUp(peers[1]!, START_MS)
  b.handlePeerUp(peers[0]!, START_MS)
  a.takeOutputs()
  const sent: Buffer[] = []
  let nowMs = START_MS
  const drain = (): void => {
    for (const o of a.takeOutputs()) if (o.kind === 'send' && o.node === 'b' && o.bytes[0] === FRAME) sent.push(o.bytes)
  }
  const written = timed(writes, () => {
    for (let i = 0; i < writes; i++) {
      if (i % perMs === 0) nowMs++
      a.writeBinding({ ...fields, aor: `sip:u${i % USERS}@example.net`, cseq: i, expiresAtMs: nowMs + 3_600_000 }, nowMs)
      if (flushEach) nowMs += 10
      if (a.nextTimeoutMs()! <= nowMs) a.handleTimeout(nowMs)
      drain()
    }
    nowMs += 10
    a.handleTimeout(nowMs)
    drain()
  })
  const applied = timed(writes, () => {
    for (const m of sent) b.handleMessage('a', m, nowMs)
  })
  b.takeOutputs()
  const bytesPerEntry = sent.reduce((sum, m) => sum + m.length, 0) / writes
  return { a, b, nowMs, written, applied, messages: sent.length, bytesPerEntry }
}

function timed(operations: number, work: () => void): Measured {
  const cpu = process.cpuUsage()
  const began = performance.now()
  work()
  return measured(operations, cpu, performance.now() - began)
}

/** Delivers between two cores until nothing is under way. @returns bytes, both ways */
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
