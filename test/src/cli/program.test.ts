import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { writeDemo } from '../../../src/cli/demo-state.ts'
import { namePortOwner } from '../../../src/cli/port-owner.ts'
import { antipode, fakeDemo } from './fake-demo.ts'

const examples = join(import.meta.dirname, '../../../config/examples')

t.test('help and version are answers, what is not understood is a usage error', async (t) => {
  t.match(await antipode('--version'), { code: 0, out: /^\d+\.\d+\.\d+$/ })
  const help = await antipode('--help')
  t.match(help, { code: 0, out: /Exit codes:\n {2}0 / })
  t.match(await antipode('stauts'), { code: 2, notes: /Did you mean status/ })
  t.match(await antipode('status', '--jason'), { code: 2, notes: /Did you mean --json/ })
  t.match(await antipode('locate'), { code: 2, notes: /missing required argument 'aor'/ })
  t.match(await antipode('node'), { code: 2, notes: /node needs one --config FILE/ })
  t.match(await antipode('config', 'check'), { code: 2, notes: /needs a FILE/ })
  t.match(await antipode('status', '--state', t.testdir({})), { code: 2, notes: /no demo runs with the state directory/ })
})

t.test('config check accepts the examples and lists everything that is wrong with a file', async (t) => {
  t.match(await antipode('config', 'check', join(examples, 'us-east.yaml')), { code: 0, out: /us-east\.yaml: ok/ })
  t.match(await antipode('config', 'check', '--config', join(examples, 'eu-west.yaml'), '--node', 'eu-west-2'), { code: 0 })
  t.match(await antipode('config', 'check', join(examples, 'us-east.yaml'), '--node', 'eu-west-2'), {
    code: 1,
    out: /no node eu-west-2 in us-east/,
  })
  t.match(await antipode('config', 'check', join(examples, 'us-east.yaml'), '--set', 'sip.silenceMs=x', '--set', 'logLevel=y'), {
    code: 1,
    out: /silenceMs: expected .*\n.*logLevel: expected .*\n[\s\S]*2 problems/,
  })
  t.match(await antipode('config', 'check', '/nonexistent.yaml'), { code: 1, out: /cannot be read/ })
  const result = JSON.parse(
    (await antipode('config', 'check', '--json', join(examples, 'us-east.yaml'), '--set', 'sip.silenceMs=x')).out,
  ) as unknown
  t.match(result, [{ ok: false, problems: [{ path: 'sip.silenceMs', message: /whole number/ }] }])
})

t.test('a secret that is not here fails a strict check only, and is never shown', async (t) => {
  const directory = t.testdir({})
  const set = `cluster.keys.link.keys.a={ file: ${join(directory, 'absent.key')} }`
  t.match(await antipode('config', 'check', join(examples, 'us-east.yaml'), '--set', set), {
    code: 0,
    out: /warning: cannot be read: ENOENT/,
  })
  t.equal((await antipode('config', 'check', '--strict', join(examples, 'us-east.yaml'), '--set', set)).code, 1)
})

t.test('nodes are also found from configuration files', async (t) => {
  const demo = await fakeDemo(t)
  const admins = demo.demo.nodes.flatMap((n) => [`cluster.regions.${n.region}.nodes.${n.node}.adminPort=${n.adminPort}`])
  t.equal(admins.length, 6)
  const yaml = `region: us-east
cluster:
  name: x
  electorate: [us-east]
  regions: [{ name: us-east, nodes: [{ name: us-east-1, address: 127.0.0.1, adminPort: ${demo.demo.nodes[0]!.adminPort} }] }]
  keys: { link: { current: a, keys: { a: { env: NONE } } }, token: { current: a, keys: { a: { env: NONE2 } } }, nonce: { current: a, keys: { a: { env: NONE3 } } } }
domains: [x.net]
sip: { realm: x }
geo: { dns: { origin: x.net, hostmaster: h.x.net } }
stateDirectory: state
`
  const file = join(t.testdir({ 'one.yaml': yaml }), 'one.yaml')
  const { code, out } = await antipode('status', '--config', file, '--json')
  t.equal(code, 0, 'the keys of the cluster are not needed to ask')
  t.match(JSON.parse(out), [{ node: 'us-east-1', reachable: true }])
})

t.test('drill kill ends the process that the demo says the node is, and nothing else', async (t) => {
  const demo = await fakeDemo(t)
  const victim = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
  t.teardown(() => victim.kill('SIGKILL'))
  const nodes = demo.demo.nodes.map((n) => (n.node === 'eu-west-1' ? { ...n, pid: victim.pid! } : n))
  writeDemo({ ...demo.demo, nodes })
  const other = await demo.run('drill', 'kill', 'eu-west-1')
  t.match(other, { code: 1, notes: /DRILL_OTHER_NODE/ }, 'who answers there has another pid: nothing is killed')
  t.equal(victim.exitCode ?? victim.signalCode, null)
  demo.target('eu-west-1').pid = victim.pid!
  const exit = once(victim, 'exit')
  t.match(await demo.run('drill', 'kill', 'eu-west-1'), { code: 0, out: /eu-west-1 \(pid \d+\) is killed/ })
  t.same(await exit, [null, 'SIGKILL'])
  t.match(await demo.run('drill', 'kill', 'eu-west-1'), { code: 1, notes: /does not run/ })
  t.match(await demo.run('drill', 'kill', 'mars-1'), { code: 2, notes: /no node mars-1/ })
  t.match(await demo.run('drill', 'start', 'eu-west-1'), { code: 3, notes: /does not take orders/ }, 'no demo listens here')
})

t.test('who holds a port is found', async (t) => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.7', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const message = `SIP over TCP on 127.0.0.7:${port}: the port is in use`
  t.equal((await namePortOwner(message)).startsWith(`${message} (by pid ${process.pid}, `), true)
  t.equal(await namePortOwner('no address in here'), 'no address in here')
})
