import { rmSync } from 'node:fs'
import t, { type Test } from 'tap'
import type { Cdr } from '../../src/cdr/call-record.ts'
import { mergeParts } from '../../src/cdr/merge.ts'
import { Demo, missing, NODES, type NodeName, registration, sleep, until } from './demo.ts'

const skip = missing('sipp')
const CALLS = 200

/** 200 calls through us-east-1, half of them to callees on other nodes; then `disaster`, and the BYEs to `byeTo`. */
async function story(t: Test, byeHost: string, lost: NodeName[], disaster: (demo: Demo) => Promise<void>): Promise<void> {
  const demo = await Demo.start()
  t.teardown(() => demo.stop())
  demo.uas('uas.xml', 6070)
  const users = Array.from({ length: CALLS }, (_, i) => `c${i}`)
  const others: NodeName[] = ['us-east-2', 'eu-west-1', 'ap-south-2']
  const at = (node: NodeName) => users.filter((_, i) => (i % 2 === 0 ? node === 'us-east-1' : others[((i - 1) / 2) % 3] === node))
  for (const node of ['us-east-1' as const, ...others]) {
    const result = await demo.sipp(
      'register.xml',
      node,
      at(node).map((u) => registration(u)),
      { rate: 500 },
    )
    t.equal(result.code, 0, result.code === 0 ? 'SIPp is content' : result.output)
  }
  await until('all users known at us-east-1', 5000, async () => (await demo.status('us-east-1')).state.bindings >= CALLS)

  // All up within 2 s; the hold ends after the disaster.
  const setupMs = Date.now()
  const calls = demo.startSipp('call-bye-elsewhere.xml', 'us-east-1', users, {
    rate: 100,
    holdMs: 8000,
    timeoutS: 60,
    args: ['-key', 'bye_host', byeHost],
  })
  await until('200 calls up', 6000, async () => (await demo.status('us-east-1')).state.dialogs >= CALLS)
  await sleep(2000)
  await disaster(demo)
  t.comment(`disaster ${Date.now() - setupMs} ms after the first INVITE`)
  const result = await calls
  t.equal(result.code, 0, result.code === 0 ? 'SIPp is content' : result.output)
  t.equal(result.successful, CALLS, `all ${CALLS} BYEs end with 200 OK`)

  await sleep(500)
  const survivors = NODES.filter((n) => !lost.includes(n))
  const parts = (await Promise.all(survivors.map((n) => demo.parts(n)))).flat()
  const cdrs: Cdr[] = mergeParts(parts)
  t.equal(cdrs.length, CALLS, 'each call counts exactly once')
  const truth = new Map<string, { answer?: number; bye?: number }>()
  for (const { what, callId, atMs } of result.log) truth.set(callId, { ...truth.get(callId), [what]: atMs })
  let worst = 0
  for (const cdr of cdrs) {
    const real = truth.get(cdr.callId)
    if (cdr.state !== 'complete' || real?.answer === undefined || real.bye === undefined) {
      t.fail(`incomplete: ${JSON.stringify(cdr)}`)
      break
    }
    worst = Math.max(worst, Math.abs(cdr.answerMs - real.answer), Math.abs(cdr.endMs - real.bye))
  }
  t.ok(worst > 0 && worst < 500, `answer and end within 500 ms of the truth: worst ${worst.toFixed(1)} ms`)
  const listed = await demo.cdrs()
  t.equal(listed.length, CALLS, 'the command line says the same')
}

t.setTimeout(300_000)

t.test(
  'C: the node that 200 calls were set up on dies; the BYEs go to its sibling',
  { skip: skip ?? false, timeout: 180_000 },
  async (t) => {
    await story(t, '127.0.1.2', ['us-east-1'], (demo) => demo.kill('us-east-1'))
  },
)

t.test(
  'C: the whole region dies, with its disks; the BYEs go to another region',
  { skip: skip ?? false, timeout: 180_000 },
  async (t) => {
    await story(t, '127.0.2.1', ['us-east-1', 'us-east-2'], async (demo) => {
      await demo.kill('us-east-1', 'us-east-2')
      for (const n of ['us-east-1', 'us-east-2'] as const) rmSync(demo.nodeDirectory(n), { recursive: true, force: true })
    })
  },
)
