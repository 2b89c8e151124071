import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { encodePart } from '../../../../src/cdr/part-codec.ts'
import { scan } from '../../../../src/cdr/segment.ts'
import { decodeHeader } from '../../../../src/cdr/segment-header.ts'
import { readParts, verifyDirectory } from '../../../../src/cdr/store/audit.ts'
import { OwnLog } from '../../../../src/cdr/store/own-log.ts'
import { numbered } from '../parts.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { nextIncarnation, scratch } from './harness.ts'

const openLog = (disk: FaultyDisk, directory: string): OwnLog =>
  new OwnLog(disk, join(directory, 'own'), { region: 'us-east', node: 'us-east-1', incarnation: nextIncarnation() }, 16_384, 1000)
const ids = async (directory: string): Promise<string[]> => (await readParts(directory)).map((p) => p.callId).sort()
const expected = (count: number): string[] => Array.from({ length: count }, (_, n) => `call-${n}@example.net`).sort()

/** Each way for one call of the disk to fail while parts are appended, and what is left of the group that was being written. */
const faults = [
  { name: 'a write fails and leaves nothing', arm: (d: FaultyDisk) => Object.assign(d, { leaveBytes: 0 }).fail.write++ },
  { name: 'a write fails and leaves half a record', arm: (d: FaultyDisk) => Object.assign(d, { leaveBytes: 100 }).fail.write++ },
  {
    name: 'a write fails and leaves a record without its commit',
    arm: (d: FaultyDisk) => Object.assign(d, { leaveBytes: 320 }).fail.write++,
  },
  { name: 'a datasync fails, and the page cache shows what the disk may not hold', arm: (d: FaultyDisk) => d.fail.datasync++ },
]

for (const { name, arm } of faults) {
  t.test(`${name}: the group goes to a new segment, and nothing is lost`, async (t) => {
    const directory = scratch(t)
    const disk = new FaultyDisk()
    const log = openLog(disk, directory)
    for (let n = 0; n < 12; n++) {
      if (n === 5 || n === 6 || n === 9) arm(disk)
      log.append([encodePart(numbered(n))], 1000 + n)
      t.ok(log.commit(1000 + n), `part ${n}`)
    }
    t.equal(log.takeFailures().length, 3)
    t.same(await ids(directory), expected(12), 'while it is open')
    t.match(await verifyDirectory(directory), { errors: [], records: 12, commits: 12 })
    log.close(2000)
    t.match(await verifyDirectory(directory), { errors: [], records: 12 })
    const next = openLog(disk, directory)
    t.equal(next.report.previous, 'clean')
    t.equal(next.report.old[0]!.commits, 12)
    next.close(3000)
    t.same(await ids(directory), expected(12), 'after a restart')
  })
}

t.test('a crash right after a failed group is recovered: the failed segment is superseded', async (t) => {
  const directory = scratch(t)
  const disk = new FaultyDisk()
  const log = openLog(disk, directory)
  for (let n = 0; n < 4; n++) {
    if (n === 3) disk.fail.datasync++
    log.append([encodePart(numbered(n))], 1000)
    log.commit(1000)
  }
  // No close.
  const next = openLog(disk, directory)
  t.equal(next.report.previous, 'clean')
  t.same(next.report.damage, [])
  next.close(2000)
  t.match(await verifyDirectory(directory), { errors: [], records: 4 })
  t.same(await ids(directory), expected(4))
})

t.test('while no segment can be made groups are kept, tried again once a second, and read from memory', async (t) => {
  const directory = scratch(t)
  const disk = new FaultyDisk()
  const log = openLog(disk, directory)
  log.append([encodePart(numbered(0))], 1000)
  t.ok(log.commit(1000))
  disk.fail.write = 1
  disk.fail.create = 2
  log.append([encodePart(numbered(1))], 1100)
  t.notOk(log.commit(1100))
  t.ok(log.failing)
  const attempts = disk.calls.create
  log.append([encodePart(numbered(2))], 1200)
  t.notOk(log.commit(1200), 'too early')
  t.equal(disk.calls.create, attempts, 'the disk is left in peace')
  const incarnation = log.directory.chains()[0]!
  t.equal(log.readRange(incarnation, 1).next, 2, 'a mirror can be served')
  t.equal(log.readRange(incarnation, 2).next, 3)
  t.notOk(log.commit(2200), 'the second attempt fails too')
  t.ok(log.commit(3300), 'the third works')
  t.notOk(log.failing)
  log.append([encodePart(numbered(3))], 3400)
  t.ok(log.commit(3400))
  log.close(3500)
  t.same(await ids(directory), expected(4))
  t.match(await verifyDirectory(directory), { errors: [], records: 4, commits: 4 })
  t.equal(readdirSync(join(directory, 'own')).filter((n) => n.endsWith('.cdr')).length, 2, 'attempts that failed leave no files')
})

t.test('ranges that are read chain from any commit to the end, over segments', (t) => {
  const directory = scratch(t)
  const disk = new FaultyDisk()
  const log = openLog(disk, directory)
  for (let n = 0; n < 60; n++) {
    if (n === 20) disk.fail.datasync++
    log.append([encodePart(numbered(2 * n)), encodePart(numbered(2 * n + 1))], 1000)
    t.ok(log.commit(1000))
  }
  const incarnation = log.directory.chains()[0]!
  t.ok(log.directory.files(incarnation).length >= 3)
  for (const from of [0, 1, 19, 20, 21, 37, 59]) {
    const header = decodeHeader(log.headerAt(incarnation, from, 1)!)
    if (!header.ok) throw new Error('no header')
    let position = header.value.start
    while (position.commits < 60) {
      const { groups, next } = log.readRange(incarnation, position.commits)
      const found = scan(groups, 0, position)
      t.equal(found.stop, undefined)
      t.equal(found.end.commits, next)
      if (next === position.commits) break
      position = found.end
    }
    t.equal(position.commits, 60, `from ${from}`)
  }
  t.equal(log.readRange(incarnation, 60).next, 60)
  t.equal(log.headerAt(incarnation, 61, 1), undefined)
  log.close(2000)
  t.end()
})
