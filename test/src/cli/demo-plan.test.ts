import { join } from 'node:path'
import t from 'tap'
import { readConfig, readTargets } from '../../../config/load.ts'
import { demoKeys } from '../../../src/cli/demo-keys.ts'
import { planDemo } from '../../../src/cli/demo-plan.ts'
import { nextSteps } from '../../../src/cli/demo-text.ts'
import { duration, table } from '../../../src/cli/output.ts'

const examples = join(import.meta.dirname, '../../../config/examples')
const { nodes } = readTargets(join(examples, 'us-east.yaml'), {})

t.test('where all loopback addresses can be bound, nodes listen where the examples say', async (t) => {
  const plan = planDemo(nodes, undefined)
  t.same(plan.overrides, [])
  t.same(plan.nodes[3], {
    region: 'eu-west',
    node: 'eu-west-2',
    address: '127.0.2.2',
    sipPort: 5060,
    adminPort: 8060,
    dnsPort: 5353,
    linkPort: 7060,
  })
})

t.test('on one address every port of every node is its own, and the examples with these overrides are right', async (t) => {
  const plan = planDemo(nodes, '127.0.0.1')
  const ports = plan.nodes.flatMap((n) => [n.sipPort, n.adminPort, n.dnsPort, n.linkPort])
  t.equal(new Set(ports).size, 24)
  t.same(plan.nodes[1], {
    region: 'us-east',
    node: 'us-east-2',
    address: '127.0.0.1',
    sipPort: 5160,
    adminPort: 8160,
    dnsPort: 5453,
    linkPort: 7160,
  })
  const env = demoKeys(t.testdir({}))
  for (const region of ['us-east', 'eu-west', 'ap-south']) {
    t.same(readConfig(join(examples, `${region}.yaml`), { env, overrides: plan.overrides, node: `${region}-1` }).problems, [])
  }
})

t.test('keys are made once, differ from each other, and stay', async (t) => {
  const state = t.testdir({})
  const first = demoKeys(state)
  t.equal(new Set(Object.values(first)).size, 3)
  for (const key of Object.values(first)) t.match(key, /^[0-9a-f]{64}$/)
  t.same(demoKeys(state), first)
})

t.test('what to try next names the addresses of this very demo', async (t) => {
  const text = nextSteps(planDemo(nodes, '127.0.0.1'), '/tmp/x')
  t.match(text, /register\.xml -s u1 .* 127\.0\.0\.1:5060$/m)
  t.match(text, /dig @127\.0\.0\.1 -p 5653 /)
  t.match(text, /drill kill eu-west-1 --state \/tmp\/x$/m)
  t.notMatch(text, /drill cut/, 'which needs an address for each node')
  t.match(nextSteps(planDemo(nodes, undefined), '/tmp/x'), /drill cut us-east --state \/tmp\/x$/m)
})

t.test('tables line up, and durations read well', async (t) => {
  t.equal(
    table(
      ['a', 'long head'],
      [
        ['wide cell', 'x'],
        ['y', ''],
      ],
    ),
    'a          long head\nwide cell  x\ny',
  )
  t.same([5, 999, 41_000, 125_000, 7_500_000, 90_000_000].map(duration), ['5ms', '999ms', '41s', '2m 5s', '2h 5m', '1d 1h'])
})
