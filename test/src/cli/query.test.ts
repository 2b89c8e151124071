import t from 'tap'
import { binding, dialog, part } from '../admin/fake-target.ts'
import { fakeDemo } from './fake-demo.ts'

t.test('status shows every node, and tells well from unwell by its exit code', async (t) => {
  const demo = await fakeDemo(t)
  const well = await demo.run('status')
  t.equal(well.code, 0)
  t.equal(well.out.split('\n').length, 7, 'a head and six nodes')
  t.match(well.out, /us-east-1 +ready +\d+ +1h 2m +0 +0 +0 +d1d2d3d4d5d6 +1\.5s +100 MB +-/)

  demo.target('eu-west-2').isReady = { ok: false, reasons: ['pulling'] }
  demo.target('us-east-1').dead = ['ap-south-2']
  const starting = await demo.run('status')
  t.equal(starting.code, 1, 'one is not ready')
  t.match(starting.out, /eu-west-2 +starting/)
  t.match(starting.out, /us-east-1 .*ap-south-2$/m)

  await demo.stop('ap-south-2')
  const down = await demo.run('status')
  t.equal(down.code, 1)
  t.match(down.out, /ap-south-2 +down/)
  t.match(down.notes, /ap-south-2: http:.*connection refused/)
  const all = JSON.parse((await demo.run('status', '--json')).out) as { node: string; reachable: boolean }[]
  t.match(all.at(-1), { reachable: false, region: 'ap-south', node: 'ap-south-2', error: { code: 'ADMIN_UNREACHABLE' } })
  t.match(all[0], { reachable: true, node: 'us-east-1', state: { digest: 'd1d2d3d4d5d6d7d8' } })
})

t.test('when no node answers the exit code says so', async (t) => {
  const demo = await fakeDemo(t)
  for (const n of demo.demo.nodes) await demo.stop(n.node)
  for (const command of [['status'], ['locate', 'u1@example.net'], ['dialogs'], ['cdr', 'list'], ['drill', 'heal']]) {
    const { code, notes } = await demo.run(...command)
    t.equal(code, 3, command.join(' '))
    t.match(notes, /ADMIN_UNREACHABLE: no node answers: us-east-1 \(/)
  }
})

t.test('locate shows for each node what it knows', async (t) => {
  const demo = await fakeDemo(t)
  t.equal((await demo.run('locate', 'u1@example.net')).code, 1, 'nobody knows the user')
  for (const n of demo.demo.nodes.slice(0, 4))
    demo
      .target(n.node)
      .bindings.set('sip:u1@example.net', [binding({ edge: { region: 'us-east', node: 'us-east-1', incarnation: 3 } })])
  await demo.stop('ap-south-2')
  const people = await demo.run('locate', 'u1@example.net')
  t.equal(people.code, 0)
  t.match(people.out, /us-east-2 +sip:u1@127\.0\.0\.1:5090 +us-east-1 +udp:127\.0\.0\.1:5090 +in 9m \d+s/)
  t.match(people.out, /ap-south-1 +\(not registered\)/)
  t.match(people.out, /ap-south-2 +\(down\)/)
  const list = JSON.parse((await demo.run('locate', 'sip:u1@example.net', '--json')).out) as {
    node: string
    bindings: unknown[]
  }[]
  t.same(
    list.map((n) => [n.node, n.bindings.length]),
    [
      ['us-east-1', 1],
      ['us-east-2', 1],
      ['eu-west-1', 1],
      ['eu-west-2', 1],
      ['ap-south-1', 0],
      ['ap-south-2', 0],
    ],
  )
  t.match(list[0]!.bindings[0], {
    contact: 'sip:u1@127.0.0.1:5090',
    edge: { region: 'us-east', node: 'us-east-1' },
    callId: 'reg-1',
  })
  t.match(await demo.run('locate', 'nonsense'), { code: 2, notes: /expected USER@DOMAIN/ })
})

t.test('what the network put into a contact does not reach the terminal as control characters', async (t) => {
  const demo = await fakeDemo(t)
  demo.target('us-east-1').bindings.set('sip:u1@example.net', [binding({ contact: 'sip:\u001b[31mred@x\r\n' })])
  const { out } = await demo.run('locate', 'u1@example.net')
  t.match(out, 'sip:?[31mred@x??')
})

t.test('dialogs are merged over the nodes: the furthest phase of each', async (t) => {
  const demo = await fakeDemo(t)
  demo.target('us-east-1').dialogList = [dialog(), dialog({ id: 'other', callId: 'call-2', startMs: 500 })]
  demo.target('eu-west-1').dialogList = [
    dialog({ phase: 'ended', endMs: 9000 }),
    dialog({ id: 'other', callId: 'call-2', phase: 'early', startMs: 500 }),
  ]
  const list = JSON.parse((await demo.run('dialogs', '--json')).out) as unknown[]
  t.match(list, [
    { id: 'other', phase: 'confirmed' },
    { id: 'call/leg', phase: 'ended' },
  ])
  t.equal(list.length, 2)
  t.match((await demo.run('dialogs', '--limit', '5')).out, /^confirmed .* call-2$/m)
  t.match(await demo.run('dialogs', '--limit', 'all'), { code: 2 })
})

t.test('cdr list merges the parts that different nodes hold into one call', async (t) => {
  const demo = await fakeDemo(t)
  const parts = [
    part({ part: 'attempt', atMs: 1000 }),
    part({ part: 'start', atMs: 2500 }),
    part({ part: 'end', atMs: 4000, node: 'eu-west-1', region: 'eu-west' }),
  ]
  demo.target('us-east-1').parts = parts.slice(0, 2)
  demo.target('us-east-2').parts = parts.slice(0, 2)
  demo.target('eu-west-1').parts = parts.slice(2)
  await demo.stop('ap-south-1')
  const { code, out, notes } = await demo.run('cdr', 'list', '--json')
  t.equal(code, 0)
  t.match(notes, /without ap-south-1/)
  const cdrs = JSON.parse(out) as unknown[]
  t.equal(cdrs.length, 1)
  t.match(cdrs[0], {
    callId: 'call-1@phone',
    caller: 'sip:u2@example.net',
    callee: 'sip:u1@example.net',
    startMs: 1000,
    answerMs: 2500,
    endMs: 4000,
    durationMs: 1500,
    status: 200,
    parts: [
      { part: 'attempt', node: 'east-1' },
      { part: 'start', node: 'east-1' },
      { part: 'end', node: 'eu-west-1' },
    ],
  })
  t.match(
    (await demo.run('cdr', 'list')).out,
    /^start .*\n1970-01-01T00:00:01\.000Z +sip:u2@example\.net +sip:u1@example\.net +200 +1s +bye +east-1 eu-west-1 +call-1@phone$/,
  )
})

t.test('a drill cut names every address of the other side at every node, and heal takes them back', async (t) => {
  const demo = await fakeDemo(t, (region, node) => `127.0.9${region}.${node}`)
  const cut = await demo.run('drill', 'cut', 'us-east')
  t.match(cut, { code: 0, out: 'us-east is cut off (6 of 6 nodes told)' })
  const outside = ['127.0.92.1', '127.0.92.2', '127.0.93.1', '127.0.93.2']
  t.same(demo.target('us-east-1').blocked, outside)
  t.same(demo.target('us-east-2').blocked, outside)
  for (const node of ['eu-west-1', 'eu-west-2', 'ap-south-1', 'ap-south-2'])
    t.same(demo.target(node).blocked, ['127.0.91.1', '127.0.91.2'], node)
  t.match(
    (await demo.run('status')).out,
    /drill: links are cut at us-east-1, .*; heal them with `npm run -s antipode -- drill heal --state /,
  )

  await demo.run('drill', 'cut', 'eu-west')
  t.same(demo.target('ap-south-1').blocked, ['127.0.91.1', '127.0.91.2', '127.0.92.1', '127.0.92.2'], 'what was cut stays cut')
  await demo.run('drill', 'heal', 'us-east')
  t.same(demo.target('us-east-1').blocked, [])
  t.same(demo.target('ap-south-1').blocked, ['127.0.92.1', '127.0.92.2'])
  await demo.run('drill', 'heal')
  for (const n of demo.demo.nodes) t.same(demo.target(n.node).blocked, [])
  t.match(await demo.run('drill', 'cut', 'mars'), { code: 2, notes: /no region mars; there are us-east, eu-west, ap-south/ })
})

t.test('where nodes share an address a cut is refused: it would cut nothing', async (t) => {
  const demo = await fakeDemo(t)
  t.match(await demo.run('drill', 'cut', 'us-east'), { code: 1, out: '', notes: /DRILL_SHARED_ADDRESS: .* 127\.0\.0\.1/ })
  for (const n of demo.demo.nodes) t.same(demo.target(n.node).blocked, [])
})
