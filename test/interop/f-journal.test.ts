import { createSocket } from 'node:dgram'
import { join } from 'node:path'
import t from 'tap'
import { below, SeededRandom } from '../../src/base/prng.ts'
import type { Cdr, CdrPart } from '../../src/cdr/call-record.ts'
import { readParts, verifyDirectory } from '../../src/cdr/store/audit.ts'
import { Demo, missing, registration, sleep, until } from './demo.ts'
import { flip, framesOf, segmentsIn } from './journal-files.ts'

const skip = missing('sipp') ?? false
const NODE = 'us-east-1'
const SIBLING = 'us-east-2'

// ANTIPODE_TEST_SEED=… repeats a run: which bits are flipped, and how long after each start the node is killed.
const seed = Number(process.env.ANTIPODE_TEST_SEED ?? Date.now() % 2 ** 31)
t.comment(`seed ${seed}`)
const long = process.env.ANTIPODE_TEST_LONG !== undefined
t.setTimeout(long ? 1_200_000 : 290_000)

interface Verified {
  readonly directory: string
  readonly errors: readonly { segment: string; offset: number; record: number; code: string }[]
}

t.test('F: a byte flipped in a journal is named by segment, offset and record', { skip, timeout: 240_000 }, async (t) => {
  const random = new SeededRandom(seed)
  const demo = await Demo.start()
  t.teardown(() => demo.stop())
  demo.uas('uas.xml', 6070)
  const users = Array.from({ length: 30 }, (_, i) => `f${i}`)
  const registered = await demo.sipp(
    'register.xml',
    NODE,
    users.map((u) => registration(u)),
    { rate: 500 },
  )
  t.equal(registered.code, 0, registered.code === 0 ? '30 users are registered' : registered.output)
  const calls = await demo.sipp('call.xml', NODE, users, { rate: 30, holdMs: 100 })
  t.equal(calls.code, 0, calls.code === 0 ? '30 calls are made' : calls.output)
  t.match(
    await demo.cli('cdr', 'verify'),
    { code: 0, stdout: /^6 journals, no damage$/m },
    'undamaged, all nodes running: exit 0',
  )
  await demo.kill(NODE, SIBLING)
  t.match(
    await demo.cli('cdr', 'verify'),
    { code: 0, stdout: /^6 journals, no damage$/m },
    'undamaged, as kill -9 left it: exit 0',
  )

  const copies = [
    { journal: join(demo.nodeDirectory(NODE), 'cdr'), segment: 'own/00000001.cdr' },
    { journal: join(demo.nodeDirectory(SIBLING), 'cdr'), segment: `mirror/${NODE}/00000001.cdr` },
  ]
  for (const { journal, segment } of copies) {
    const file = join(journal, segment)
    const frames = framesOf(file)
    const records = frames.filter((f) => f.kind === 'record')
    t.equal(records.length, 90, `${segment}: attempt, start and end of 30 calls`)

    const { number, from, payloadAt } = records[10 + below(random, 70)]!
    const [at, mask] = [payloadAt + below(random, 100), 1 << below(random, 8)]
    flip(file, at, mask)
    const { code, stdout } = await demo.cli('cdr', 'verify')
    t.equal(code, 1, `a bit flipped at ${at}, in record ${number}: exit 1`)
    const said = stdout.split('\n').filter((line) => /^ +CDR_/.test(line))
    t.equal(said.length, 1, 'one line says so')
    t.ok(said[0]?.startsWith(`  CDR_RECORD_DAMAGED: segment ${segment}, offset ${from}, record ${number}: `), said[0] ?? stdout)
    t.match(stdout, /^damage in 1 of 6 journals$/m, 'the other journals are named undamaged')
    const json = await demo.cli('cdr', 'verify', '--json')
    t.equal(json.code, 1, 'with --json: exit 1')
    t.match(
      (JSON.parse(json.stdout) as Verified[]).filter((r) => r.errors.length > 0),
      [{ directory: journal, errors: [{ segment, offset: from, record: number, code: 'CDR_RECORD_DAMAGED' }] }],
      'and the same place',
    )
    t.equal(
      (await demo.cli('cdr', 'verify', join(demo.state, 'eu-west-1'))).code,
      0,
      'a journal elsewhere, asked for alone: exit 0',
    )
    flip(file, at, mask)

    // Anywhere else in a frame (magic, length, number, hash, payload, padding, commit): the frame that the byte lies in is the one that is named.
    const wrong: string[] = []
    for (let i = 0; i < 40; i++) {
      const frame = frames[below(random, frames.length)]!
      const [at, mask] = [frame.from + below(random, frame.to - frame.from), 1 << below(random, 8)]
      flip(file, at, mask)
      const { errors } = await verifyDirectory(journal)
      const first = errors[0]
      if (errors.length !== 1 || first?.segment !== segment || first.offset !== frame.from || first.record !== frame.number)
        wrong.push(`byte ${at} of ${frame.kind} ${frame.number} at ${frame.from}, mask ${mask}: ${JSON.stringify(errors)}`)
      flip(file, at, mask)
    }
    t.same(wrong, [], '40 other bits, anywhere in the frames, each named')
  }
  t.equal((await demo.cli('cdr', 'verify')).code, 0, 'with the bits put back: exit 0')

  // Rot in the middle of a journal whose node then starts: it takes calls at once, and gets the rest of the damaged segment back from its mirror.
  const file = join(copies[0]!.journal, copies[0]!.segment)
  const rotten = framesOf(file).filter((f) => f.kind === 'record')[30]!
  flip(file, rotten.payloadAt + 40, 1)
  const starts = [await demo.cli('drill', 'start', SIBLING), await demo.cli('drill', 'start', NODE)]
  t.same(
    starts.map(({ code, stderr }) => ({ code, stderr })),
    [0, 0].map((code) => ({ code, stderr: '' })),
    'sibling and node start, the node on its damaged journal',
  )
  const again = await demo.sipp('call.xml', NODE, users, { rate: 30, holdMs: 100 })
  t.equal(again.code, 0, again.code === 0 ? 'and takes 30 calls' : again.output)
  const mended = await until('the damage is mended from the mirror', 10_000, async () => {
    const verified = await demo.cli('cdr', 'verify')
    return verified.code === 0 && verified
  })
  t.match(
    mended.stderr,
    /mended since, nothing is lost: CDR_RECORD_DAMAGED: segment own\/00000001\.cdr, offset \d+, record 30: /,
    'verify still says where it was',
  )
  const cdrs = await demo.cdrs()
  t.equal(cdrs.filter((c) => c.state === 'complete' && c.answerMs > 0).length, 60, 'all 60 calls are complete')
})

t.test(
  'F: kill -9 under load loses no CDR that an answer depended on',
  { skip, timeout: long ? 1_000_000 : 240_000 },
  async (t) => {
    const random = new SeededRandom(seed)
    const kills = long ? 100 : 20
    const demo = await Demo.start()
    t.teardown(() => demo.stop())
    demo.uas('uas.xml', 6070)
    const users = Array.from({ length: 50 }, (_, i) => `k${i}`)
    const registered = await demo.sipp(
      'register.xml',
      NODE,
      users.map((u) => registration(u)),
      { rate: 500 },
    )
    t.equal(registered.code, 0, registered.code === 0 ? '50 users are registered' : registered.output)

    // One SIPp calls all the time and knows nothing of the kills; it logs what it was told.
    const control = 8899
    const calls = demo.startSipp('call-logged.xml', NODE, users, {
      ...{ rate: 40, holdMs: 100, count: 1_000_000, timeoutS: 1000 },
      args: ['-ci', '127.0.0.1', '-cp', String(control)],
    })
    await sleep(1000)
    let slowestMs = 0
    for (let i = 1; i <= kills; i++) {
      await sleep(200 + below(random, 1000))
      await demo.kill(NODE)
      const beganMs = Date.now()
      const { code, stderr } = await demo.cli('drill', 'start', NODE)
      slowestMs = Math.max(slowestMs, Date.now() - beganMs)
      if (code !== 0) t.fail(`start ${i}: exit ${code} ${stderr}`)
    }
    t.comment(`${kills} kills; the slowest start took ${slowestMs} ms`)
    await sleep(1000)
    const socket = createSocket('udp4')
    socket.send('q', control, '127.0.0.1', () => socket.close())
    const { log, successful, failed } = await calls
    const answered = log.filter((l) => l.what === 'answer')
    const ended = log.filter((l) => l.what === 'ended')
    t.comment(
      `SIPp: ${successful} calls went well, ${failed} did not; ${answered.length} were answered, ${ended.length} ended with 200`,
    )
    t.ok(ended.length > 20 * kills, 'the node was under load all the time')
    t.ok(failed > 0 || ended.length < answered.length, 'and calls were hit by the kills')

    // What was answered is in the journal of the very node that was killed, not only in a mirror.
    await sleep(500)
    const own = await readParts(join(demo.nodeDirectory(NODE), 'cdr/own'))
    const callsWith = (part: CdrPart['part']) => new Set(own.filter((p) => p.part === part).map((p) => p.callId))
    const [starts, ends] = [callsWith('start'), callsWith('end')]
    t.same(
      answered.filter((l) => !starts.has(l.callId)).slice(0, 5),
      [],
      `each of ${answered.length} answered calls has its start part there`,
    )
    t.same(ended.filter((l) => !ends.has(l.callId)).slice(0, 5), [], `each of ${ended.length} ended calls has its end part there`)

    // All journals and mirrors together: each of them once, and right.
    const listed = await demo.cli('cdr', 'list', '--json', '--dir', demo.state)
    t.equal(listed.code, 0, listed.code === 0 ? 'all journals are read from disk' : listed.stderr)
    const byCall = new Map<string, Cdr[]>()
    for (const cdr of JSON.parse(listed.stdout) as Cdr[])
      if (cdr.answerMs > 0) byCall.set(cdr.callId, [...(byCall.get(cdr.callId) ?? []), cdr])
    const once = (l: { callId: string }) => byCall.get(l.callId)?.length === 1
    t.same(
      answered
        .filter((l) => !once(l))
        .slice(0, 5)
        .map((l) => byCall.get(l.callId) ?? l),
      [],
      'each answered call counts exactly once',
    )
    const complete = (l: { callId: string }) => byCall.get(l.callId)?.[0]?.state === 'complete'
    t.same(
      ended
        .filter((l) => !complete(l))
        .slice(0, 5)
        .map((l) => byCall.get(l.callId) ?? l),
      [],
      'and is complete when its BYE was answered',
    )
    const late = answered.map((l) => Math.abs(l.atMs - (byCall.get(l.callId)?.[0]?.answerMs ?? 0))).sort((a, b) => b - a)
    t.comment(
      `answer times differ from what SIPp saw by ${late[0]?.toFixed(1)} ms at most, ${late[late.length >> 1]?.toFixed(1)} ms in the middle`,
    )

    const verified = await demo.cli('cdr', 'verify')
    t.equal(verified.code, 0, `cdr verify: ${verified.stdout.trim().split('\n').at(-1)}`)
    if (verified.code !== 0) t.comment(verified.stdout)
    const segments = segmentsIn(join(demo.nodeDirectory(NODE), 'cdr/own')).length
    t.ok(segments > kills, `over ${segments} segments of ${kills + 1} starts`)
  },
)
