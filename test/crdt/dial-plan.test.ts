import t from 'tap'
import { DialPlan, type PeerAddress, REDIAL_LEAST_MS, REDIAL_MOST_MS } from '../../crdt/dial-plan.ts'
import { SeededRandom } from '../../src/base/prng.ts'

const peers: PeerAddress[] = ['us-1', 'us-2', 'us-3', 'eu-1', 'eu-2', 'eu-3'].map((node) => ({
  ...{ region: node.slice(0, 2), node, address: `127.0.0.1`, port: 1 },
}))

function makePlan(node = 'us-1'): DialPlan {
  const plan = new DialPlan({ region: 'us', node }, new SeededRandom(1))
  plan.setPeers(peers)
  return plan
}

const none = (): boolean => false
const names = (list: readonly PeerAddress[]): string[] => list.map((p) => p.node)

t.test('every sibling and one node of each other region are dialed, oneself never', async (t) => {
  const due = names(makePlan().due(0, none))
  t.same(due.filter((n) => n.startsWith('us')).sort(), ['us-2', 'us-3'])
  t.equal(due.filter((n) => n.startsWith('eu')).length, 1)
})

t.test('different nodes of a region spread over the nodes of another', async (t) => {
  const targets = new Set(
    Array.from({ length: 40 }, (_, i) => {
      const plan = new DialPlan({ region: 'ap', node: `ap-${i}` }, new SeededRandom(1))
      plan.setPeers(peers)
      return names(plan.due(0, none)).find((n) => n.startsWith('eu'))
    }),
  )
  t.equal(targets.size, 3)
})

t.test('what is up or being dialed is not dialed again', async (t) => {
  const plan = makePlan()
  plan.began('us-2')
  t.notOk(names(plan.due(0, none)).includes('us-2'))
  t.notOk(names(plan.due(0, (n) => n === 'us-3')).includes('us-3'))
})

t.test('a dial that failed waits longer each time, within bounds', async (t) => {
  const plan = makePlan()
  let now = 0
  const waits: number[] = []
  for (let i = 0; i < 8; i++) {
    plan.began('us-2')
    plan.ended('us-2', false, now)
    let wait = 0
    while (!names(plan.due(now + wait, none)).includes('us-2')) wait++
    waits.push(wait)
    now += wait
  }
  t.ok(
    waits.every((w) => w >= REDIAL_LEAST_MS / 2 && w <= REDIAL_MOST_MS + 1),
    waits.join(' '),
  )
  t.ok(waits.at(-1)! > waits[0]!)
  plan.up('us-2')
  plan.down('us-2', now)
  t.ok(names(plan.due(now + REDIAL_LEAST_MS, none)).includes('us-2'), 'success starts it over')
})

t.test('the way to a region moves on when it cannot be reached, tries all, and stays with what is up', async (t) => {
  const plan = makePlan()
  const way = (now: number, isUp: (n: string) => boolean = none): PeerAddress => {
    plan.due(now, isUp)
    return peers.find((p) => p.region === 'eu' && plan.isTarget(p))!
  }
  const tried = new Set<string>()
  for (let now = 0; now < 3; now++) {
    const { node } = way(now)
    tried.add(node)
    plan.began(node)
    plan.ended(node, false, now)
  }
  t.equal(tried.size, 3)
  const longest = way(5).node
  t.equal(longest, [...tried][0], 'of suspects the one that has been so longest')
  const last = way(6, (n) => n === 'eu-2').node
  t.equal(last, 'eu-2', 'one that has a link already is as good as any')
  t.equal(way(60_000, (n) => n === 'eu-2').node, 'eu-2', 'and stays while it is up')
})

t.test('a violation is not forgiven at once', async (t) => {
  const plan = makePlan()
  plan.up('us-2')
  plan.violated('us-2')
  plan.down('us-2', 0)
  t.notOk(names(plan.due(REDIAL_LEAST_MS, none)).includes('us-2'))
  t.ok(names(plan.due(REDIAL_MOST_MS, none)).includes('us-2'))
})

t.test('peers that are no longer configured are not dialed', async (t) => {
  const plan = makePlan()
  plan.due(0, none)
  plan.setPeers(peers.filter((p) => p.node === 'us-2'))
  t.same(names(plan.due(0, none)), ['us-2'])
  t.equal(plan.peer('eu-1'), undefined)
})
