import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { systemClock } from '../../../src/base/clock.ts'
import { silentLog } from '../../../src/base/log.ts'
import { createMetrics } from '../../../src/base/metrics.ts'
import { CdrJournal } from '../../../src/cdr/store/journal.ts'
import { part } from '../admin/fake-target.ts'
import { antipode } from './fake-demo.ts'

const CALLS = 20

/** The state directory of a demo that has stopped: one node with a journal of real calls. */
async function stateWithJournal(t: Test): Promise<{ state: string; own: string }> {
  const state = t.testdir({ 'us-east-1': {}, demo: {} })
  const directory = join(state, 'us-east-1', 'cdr')
  const journal = await CdrJournal.open({
    directory,
    self: { region: 'us-east', node: 'us-east-1', incarnation: 2 ** 32 + 1 },
    log: silentLog,
    metrics: createMetrics(),
    clock: systemClock,
    durability: { mirror: 0, remote: 'async' },
    policy: 'continue',
    mirrors: () => ({ siblings: [], remotes: [] }),
    sendToPeer: () => false,
  })
  for (let i = 0; i < CALLS; i++) {
    const id = i.toString(16).padStart(32, '0')
    const callId = `call-${i}@phone`
    await Promise.all([
      journal.append(part({ part: 'attempt', atMs: 1000 + i, id, callId })),
      journal.append(part({ part: 'start', atMs: 2000 + i, id, callId })),
    ])
    await journal.append(part({ part: 'end', atMs: 3000 + 2 * i, id, callId, answerMs: 2000 + i }))
  }
  await journal.close()
  return { state, own: join(directory, 'own') }
}

t.test('cdr list reads the calls of a node that is down from its journal', async (t) => {
  const { state, own } = await stateWithJournal(t)
  for (const dir of [state, join(state, 'us-east-1'), join(state, 'us-east-1', 'cdr'), own]) {
    const { code, out } = await antipode('cdr', 'list', '--json', '--dir', dir)
    t.equal(code, 0)
    const cdrs = JSON.parse(out) as { callId: string; durationMs: number; state: string }[]
    t.equal(cdrs.length, CALLS, dir)
    t.same(
      cdrs.map((c) => [c.callId, c.durationMs, c.state]),
      Array.from({ length: CALLS }, (_, i) => [`call-${i}@phone`, 1000 + i, 'complete']),
    )
  }
  const twice = await antipode('cdr', 'list', '--json', '--dir', state, '--dir', own)
  t.equal((JSON.parse(twice.out) as unknown[]).length, CALLS, 'a part that is read twice is one part')
  const last = await antipode('cdr', 'list', '--json', '--limit', '3', '--dir', state)
  t.match(JSON.parse(last.out), [{ callId: 'call-17@phone' }, { callId: 'call-18@phone' }, { callId: 'call-19@phone' }])
  t.match(await antipode('cdr', 'list', '--dir', join(state, 'demo')), { code: 2, notes: /no journal in/ })
  t.match(await antipode('cdr', 'list', '--dir', join(state, 'nowhere')), { code: 2, notes: /is not a directory/ })
})

t.test('cdr verify finds a whole journal whole', async (t) => {
  const { state } = await stateWithJournal(t)
  const { code, out } = await antipode('cdr', 'verify', '--state', state)
  t.equal(code, 0)
  t.match(out, /us-east-1\/cdr: ok \(1 segments, \d+ commits, 60 records\)\n1 journal, no damage/)
})

t.test('cdr verify names segment, offset and record of a byte that was flipped, and fails', async (t) => {
  const { state, own } = await stateWithJournal(t)
  const segment = readdirSync(own).find((name) => name.endsWith('.cdr'))!
  const bytes = readFileSync(join(own, segment))
  const at = bytes.indexOf('call-7@phone', 4096)
  t.ok(at > 4096, 'the journal holds the call')
  bytes[at] = bytes[at]! ^ 1
  writeFileSync(join(own, segment), bytes)
  for (const args of [['--state', state], [join(state, 'us-east-1')], [own]]) {
    const { code, out } = await antipode('cdr', 'verify', ...args)
    t.equal(code, 1)
    const found = /segment (\S+), offset (\d+), record (\d+):/.exec(out)
    t.ok(found, out)
    t.match(found![1], segment)
    t.equal(found![3], '21', 'the attempt of the eighth call is record 21 of the chain')
    t.ok(Number(found![2]) <= at && at - Number(found![2]) < 1024, 'the offset is that of the record with the byte')
  }
  const { code, out } = await antipode('cdr', 'verify', '--json', own)
  t.equal(code, 1)
  t.match(JSON.parse(out), [{ directory: own, errors: [{ record: 21 }] }])
})
