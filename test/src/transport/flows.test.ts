import t from 'tap'
import { ConnectionTable, type TableEntry } from '../../../src/transport/flows.ts'

const LIMITS = { maxConnections: 4, maxConnectionsPerSource: 2, idleMs: 1000, firstMessageMs: 100 }

let lastId = 0
const entry = (remoteAddress: string, remotePort: number, more: Partial<TableEntry> = {}): TableEntry => ({
  id: ++lastId,
  transport: 'tcp',
  remoteAddress,
  remotePort,
  openedMs: 0,
  activeMs: 0,
  proven: true,
  ...more,
})

t.test('bounded per source and as a whole, and what leaves makes room', (t) => {
  const table = new ConnectionTable(LIMITS)
  const a = entry('127.0.0.2', 1)
  table.add(a)
  table.add(entry('127.0.0.2', 2))
  t.equal(table.admits('127.0.0.2'), 'NET_SOURCE_FULL')
  t.equal(table.admits('127.0.0.3'), 'yes')
  table.add(entry('127.0.0.3', 1))
  table.add(entry('127.0.0.4', 1))
  t.equal(table.admits('127.0.0.5'), 'NET_CONNECTIONS_FULL')
  table.delete(a)
  table.delete(a)
  t.equal(table.size, 3)
  t.equal(table.admits('127.0.0.2'), 'yes')
  t.end()
})

t.test('found by id and by remote; a later connection with the same remote takes the place of the earlier', (t) => {
  const table = new ConnectionTable(LIMITS)
  const old = entry('127.0.0.2', 5060)
  const young = entry('127.0.0.2', 5060)
  table.add(old)
  table.add(young)
  t.equal(table.byId(old.id), old)
  t.equal(table.byRemote('tcp', '127.0.0.2', 5060), young)
  table.delete(old)
  t.equal(table.byRemote('tcp', '127.0.0.2', 5060), young, 'the end of the old one does not hide the young one')
  table.delete(young)
  t.equal(table.byRemote('tcp', '127.0.0.2', 5060), undefined)
  t.equal(table.byId(young.id), undefined)
  t.end()
})

t.test('overdue are the idle, and sooner those that never said anything', (t) => {
  const table = new ConnectionTable(LIMITS)
  const mute = entry('127.0.0.2', 1, { proven: false })
  const idle = entry('127.0.0.2', 2)
  const busy = entry('127.0.0.3', 1, { activeMs: 500 })
  for (const c of [mute, idle, busy]) table.add(c)
  t.strictSame(table.overdue(99), [])
  t.strictSame(table.overdue(100), [mute])
  t.strictSame(table.overdue(1000), [mute, idle])
  t.strictSame(table.overdue(1500), [mute, idle, busy])
  t.end()
})
