import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { decodeMessage } from '../../../../src/cdr/mirror-messages.ts'
import { readParts, verifyDirectory } from '../../../../src/cdr/store/audit.ts'
import type { CdrJournal } from '../../../../src/cdr/store/journal.ts'
import { numbered } from '../parts.ts'
import { scratch, TestCluster, type TestNode, until } from './harness.ts'

const ids = (parts: readonly { callId: string }[]): string[] => parts.map((p) => p.callId).sort()
const expected = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, n) => `call-${from + n}@example.net`).sort()

function cluster(t: Parameters<typeof scratch>[0]): {
  net: TestCluster
  us1: TestNode
  us2: TestNode
  eu1: TestNode
  eu2: TestNode
} {
  const directory = scratch(t)
  const node = (region: string, name: string): TestNode => ({ region, name, directory: join(directory, name) })
  return {
    net: new TestCluster(),
    us1: node('us-east', 'us-east-1'),
    us2: node('us-east', 'us-east-2'),
    eu1: node('eu-west', 'eu-west-1'),
    eu2: node('eu-west', 'eu-west-2'),
  }
}

async function append(journal: CdrJournal, from: number, to: number): Promise<boolean[]> {
  const all: Promise<{ durable: boolean }>[] = []
  for (let n = from; n < to; n++) {
    all.push(journal.append(numbered(n)))
    // Several groups, not one.
    if (n % 7 === 0) await all.at(-1)
  }
  return (await Promise.all(all)).map((r) => r.durable)
}
const all = (durable: boolean[]): boolean => durable.every((d) => d)

t.test('what is durable is held by the sibling, which can tell it when the node has died with its disk', async (t) => {
  const { net, us1, us2 } = cluster(t)
  const [a, b] = [await net.open(us1), await net.open(us2)]
  t.ok(all(await append(a, 0, 100)))
  t.same(ids(await b.parts()), expected(0, 100))
  t.ok(all(await append(b, 100, 120)), 'both ways')
  t.same(ids(await a.parts()), expected(0, 120), 'each record once')
  await net.closeAll()
  rmSync(us1.directory, { recursive: true })
  t.same(ids(await readParts(us2.directory)), expected(0, 120))
  t.match(await verifyDirectory(us2.directory), { errors: [] })
})

t.test('without a peer a part goes on at risk at once, and the mirror catches up when it is back', async (t) => {
  const { net, us1, us2 } = cluster(t)
  const a = await net.open(us1)
  t.notOk((await append(a, 0, 30)).some((d) => d))
  t.equal(a.stats().atRisk, 30)
  const b = await net.open(us2)
  await until(async () => (await b.parts()).length === 30)
  await until(async () => all(await append(a, 30, 31)))
  net.cut('us-east-1', 'us-east-2')
  t.notOk(all(await append(a, 31, 40)))
  net.heal('us-east-1', 'us-east-2')
  await until(async () => (await b.parts()).length >= 40)
  t.match(await verifyDirectory(us2.directory), { errors: [] })
  await net.closeAll()
})

t.test('where no sibling is, a node of another region is the mirror', async (t) => {
  const { net, us1, eu1 } = cluster(t)
  const [a, b] = [await net.open(us1), await net.open(eu1)]
  t.ok(all(await append(a, 0, 20)))
  t.same(ids(await b.parts()), expected(0, 20))
  await until(() => a.stats().remoteLagCommits === 0)
  await net.closeAll()
})

t.test('remote async: another region has it within the second, whichever of its nodes is linked', async (t) => {
  const { net, us1, us2, eu1, eu2 } = cluster(t)
  const a = await net.open(us1)
  await net.open(us2)
  const eu = { 'eu-west-1': await net.open(eu1), 'eu-west-2': await net.open(eu2) }
  net.cut('us-east-1', 'eu-west-2')
  net.cut('us-east-2', 'eu-west-1')
  net.cut('us-east-2', 'eu-west-2')
  t.ok(all(await append(a, 0, 30)))
  await until(() => a.stats().remoteLagCommits === 0)
  t.same(ids(await eu['eu-west-1'].parts()), expected(0, 30))
  // The link moves.
  net.cut('us-east-1', 'eu-west-1')
  t.ok(all(await append(a, 30, 50)))
  t.ok(a.stats().remoteLagCommits > 0)
  net.heal('us-east-1', 'eu-west-2')
  await until(() => a.stats().remoteLagCommits === 0)
  const both = [...(await eu['eu-west-1'].parts()), ...(await eu['eu-west-2'].parts())]
  t.same([...new Set(ids(both))], expected(0, 50))
  await net.closeAll()
  for (const node of [us1, us2, eu1, eu2]) t.match(await verifyDirectory(node.directory), { errors: [] }, node.name)
})

t.test('remote async: what another region lacked when the node stopped is sent by its next start', async (t) => {
  const { net, us1, us2, eu1 } = cluster(t)
  const a = await net.open(us1)
  await net.open(us2)
  t.ok(all(await append(a, 0, 30)))
  await net.close('us-east-1')
  const again = await net.open(us1)
  const c = await net.open(eu1)
  t.ok(all(await append(again, 30, 35)))
  await until(() => again.stats().remoteLagCommits === 0)
  t.same(ids(await c.parts()), expected(0, 35))
  await net.closeAll()
})

t.test('remote sync waits for the other region, and goes on at risk without it', async (t) => {
  const { net, us1, us2, eu1 } = cluster(t)
  const a = await net.open(us1, { durability: { mirror: 1, remote: 'sync' } })
  await net.open(us2)
  t.notOk((await append(a, 0, 5)).some((d) => d))
  const c = await net.open(eu1)
  await until(async () => all(await append(a, 5, 6)))
  t.ok(all(await append(a, 6, 20)))
  // The part that was tried until it was durable is there more than once.
  t.same([...new Set(ids(await c.parts()))], expected(0, 20))
  await net.closeAll()
})

t.test('a mirror that does not answer costs one timeout, not one for each part', async (t) => {
  const { net, us1, us2 } = cluster(t)
  const a = await net.open(us1, { mirrorTimeoutMs: 300 })
  const b = await net.open(us2)
  await until(async () => all(await append(a, 0, 1)))
  let deaf = true
  net.onMessage = (_from, to) => !(deaf && to === 'us-east-2')
  const before = process.hrtime.bigint()
  for (let n = 1; n < 20; n++) t.same(await a.append(numbered(n)), { durable: false })
  t.ok(Number(process.hrtime.bigint() - before) / 1e6 < 19 * 300, 'far below 19 timeouts')
  deaf = false
  await until(async () => all(await append(a, 20, 21)))
  await until(async () => (await b.parts()).length >= 21)
  await net.closeAll()
})

t.test('a mirror that is a third of the time deaf ends up with every group, in order', async (t) => {
  const { net, us1, us2, eu1 } = cluster(t)
  const a = await net.open(us1, { mirrorTimeoutMs: 50 })
  const b = await net.open(us2)
  await net.open(eu1)
  let count = 0
  net.onMessage = () => ++count % 9 < 6
  await append(a, 0, 200)
  net.onMessage = () => true
  await until(async () => (await b.parts()).length === 200)
  await until(() => a.stats().remoteLagCommits === 0)
  await net.closeAll()
  for (const node of [us1, us2, eu1]) t.match(await verifyDirectory(node.directory), { errors: [] }, node.name)
})

t.test('an empty disk is filled again from what mirrors hold', async (t) => {
  const { net, us1, us2 } = cluster(t)
  await net.open(us1)
  await net.open(us2)
  t.ok(all(await append(net.journal('us-east-1'), 0, 60)))
  await net.close('us-east-1')
  const again = await net.open(us1)
  t.ok(all(await append(again, 60, 70)))
  await net.close('us-east-1')
  rmSync(us1.directory, { recursive: true })
  const third = await net.open(us1)
  t.ok(all(await append(third, 70, 75)))
  await until(async () => (await readParts(join(us1.directory, 'own'))).length === 75)
  await until(() => third.stats().pulling === 0)
  await net.closeAll()
  t.match(await verifyDirectory(us1.directory), { errors: [], records: 75 })
})

t.test('groups that the disk lost at its end, or that rotted, are pulled back into a recovered segment', async (t) => {
  for (const loss of ['cut', 'rot'] as const) {
    const { net, us1, us2 } = cluster(t)
    await net.open(us1)
    await net.open(us2)
    t.ok(all(await append(net.journal('us-east-1'), 0, 40)))
    await net.close('us-east-1')
    const path = join(us1.directory, 'own/00000001.cdr')
    rmSync(join(us1.directory, 'own/00000001.checkpoint'))
    const bytes = readFileSync(path)
    const at = bytes.indexOf('call-20@')
    if (loss === 'cut') writeFileSync(path, Buffer.concat([bytes.subarray(0, at), Buffer.alloc(bytes.length - at)]))
    else {
      bytes[at] = bytes[at]! ^ 1
      writeFileSync(path, bytes)
    }
    const again = await net.open(us1)
    t.equal(again.stats().previous, loss === 'cut' ? 'cut' : 'damaged')
    await until(async () => (await readParts(join(us1.directory, 'own'))).length === 40)
    await until(() => again.stats().pulling === 0)
    t.same(ids(await readParts(join(us1.directory, 'own'))), expected(0, 40))
    await net.closeAll()
    const report = await verifyDirectory(us1.directory)
    t.same(report.errors, [], loss)
    t.equal(report.records, 40)
    t.equal(report.superseded.length, loss === 'cut' ? 0 : 1, 'what was mended is told apart')
    // And after one more start.
    await net.open(us1)
    await net.closeAll()
    t.same((await verifyDirectory(us1.directory)).errors, [])
  }
})

t.test('when the disk fails the mirror alone makes parts durable, and the node says that it is not well', async (t) => {
  const { net, us1, us2 } = cluster(t)
  const a = await net.open(us1, { segmentBytes: 16 * 1024 })
  const b = await net.open(us2)
  t.ok(all(await append(a, 0, 10)))
  const own = join(us1.directory, 'own')
  renameSync(own, `${own}.gone`)
  writeFileSync(own, 'no directory: the next segment cannot be made')
  t.ok(all(await append(a, 10, 200)), 'durable by the mirror')
  t.notOk(a.healthy())
  t.ok(a.stats().failures > 0 && a.stats().atRisk > 0)
  t.equal((await b.parts()).length, 200)
  rmSync(own)
  renameSync(`${own}.gone`, own)
  await until(async () => (await readParts(own)).length === 200)
  t.ok(all(await append(a, 200, 210)))
  t.notOk(a.healthy(), 'for a while yet')
  await net.closeAll()
  t.match(await verifyDirectory(us1.directory), { errors: [], records: 210 })
})

t.test('with nowhere left the policy decides', async (t) => {
  for (const policy of ['continue', 'reject'] as const) {
    const { net, us1 } = cluster(t)
    const a = await net.open(us1, { policy, segmentBytes: 16 * 1024, mirrorTimeoutMs: 50 })
    await append(a, 0, 3)
    const own = join(us1.directory, 'own')
    renameSync(own, `${own}.gone`)
    let rejected = 0
    let atRisk = 0
    for (let n = 3; n < 60; n++) {
      await a.append(numbered(n)).then(
        (r) => (atRisk += r.durable ? 0 : 1),
        (error) => (rejected += error.code === 'CDR_NOT_DURABLE' ? 1 : 1000),
      )
    }
    if (policy === 'reject') t.ok(rejected > 0 && rejected < 1000, `${rejected} rejected`)
    else t.equal(rejected, 0)
    t.ok(atRisk > 0)
    await net.closeAll()
    t.ok(existsSync(`${own}.gone`))
  }
})

t.test('a mirror refuses groups that do not chain, and goes on with its own work', async (t) => {
  const { net, us1, us2 } = cluster(t)
  const a = await net.open(us1)
  const b = await net.open(us2)
  t.ok(all(await append(a, 0, 5)))
  const answers: string[] = []
  net.onMessage = (from, to, bytes) => {
    const message = decodeMessage(bytes)
    if (!message.ok) return true
    if (from === 'us-east-2' && message.value.type === 'refuse') answers.push(message.value.why)
    // A byte of each group is flipped on the way, as only a faulty peer could do.
    if (to === 'us-east-2' && message.value.type === 'data') bytes[100] = bytes[100]! ^ 1
    return true
  }
  t.notOk(all(await append(a, 5, 8)))
  await until(() => answers.includes('broken'))
  t.ok(all(await append(b, 100, 103)))
  t.same(ids(await readParts(join(us2.directory, 'mirror/us-east-1'))), expected(0, 5))
  await net.closeAll()
  t.match(await verifyDirectory(us2.directory), { errors: [] })
})

t.test('a mirror that was restarted goes on in a new segment where it ended', async (t) => {
  const { net, us1, us2 } = cluster(t)
  const a = await net.open(us1)
  await net.open(us2)
  t.ok(all(await append(a, 0, 10)))
  await net.close('us-east-2')
  await append(a, 10, 20)
  const b = await net.open(us2)
  await until(async () => all(await append(a, 20, 21)))
  t.ok((await b.parts()).length >= 21)
  await net.closeAll()
  t.equal(readdirSync(join(us2.directory, 'mirror/us-east-1')).filter((n) => n.endsWith('.cdr')).length, 2)
  t.match(await verifyDirectory(us2.directory), { errors: [] })
})
