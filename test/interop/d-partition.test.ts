import t from 'tap'
import { Demo, missing, NODES, type NodeName, registration, sleep, until } from './demo.ts'

const skip = missing('sipp')

// Retention = bucket + longest expiry + grace = 14 s; the cut lasts longer.
const RETENTION_MS = 14_000
const SHORT = [
  'cluster.constants.bucketWidthMs=2000',
  'cluster.constants.longestExpiryMs=8000',
  'cluster.constants.windowMs=3000',
  'cluster.constants.driftBoundMs=500',
  'cluster.constants.graceMs=4000',
  'cluster.constants.rebootGuardMs=1000',
  'registrar.minExpiresS=1',
  'registrar.defaultExpiresS=8',
  'registrar.maxExpiresS=8',
]
const west: NodeName[] = ['eu-west-1', 'eu-west-2', 'ap-south-1', 'ap-south-2']

t.test(
  'D: a region is cut off for longer than the retention, works on, and heals',
  { skip: skip ?? false, timeout: 180_000 },
  async (t) => {
    const demo = await Demo.start(SHORT)
    t.teardown(() => demo.stop())
    demo.uas('uas.xml', 6070)
    const reg = async (
      node: NodeName,
      user: string,
      o: Parameters<typeof registration>[1] & { callId?: string; star?: boolean; instance?: boolean } = {},
    ) => {
      const scenario = o.star ? 'register-star.xml' : o.instance ? 'register-instance.xml' : 'register.xml'
      const result = await demo.sipp(scenario, node, [registration(user, { expires: 8, ...o })], {
        port: 6061,
        timeoutS: 10,
        callId: o.callId ?? `reg-${user}`,
      })
      t.equal(result.code, 0, `REGISTER of ${user} at ${node}\n${result.code === 0 ? '' : result.output}`)
    }
    const bound = async (nodes: readonly NodeName[], user: string) =>
      Promise.all(nodes.map(async (n) => (await demo.registrations(n, user)).bindings))

    await until('all digests equal before the cut', 5000, async () => new Set(await demo.digests()).size === 1)
    // Known everywhere before the cut; its binding is renewed on one side only.
    await reg('us-east-1', 'before', { cseq: 1 })
    const cut = await demo.cli('drill', 'cut', 'us-east')
    t.equal(cut.code, 0, cut.stderr)
    const cutMs = Date.now()
    await until('the links are down', 6000, async () => {
      const statuses = await Promise.all(NODES.map((n) => demo.status(n)))
      return statuses.every((s) => s.links.every((l) => (l.region === 'us-east') === (s.region === 'us-east')))
    })

    // Each side goes on by itself.
    await reg('us-east-1', 'e1')
    await reg('eu-west-1', 'w1')
    const inside = await Promise.all([
      demo.sipp('call.xml', 'us-east-2', ['e1'], { holdMs: 500, port: 6062 }),
      demo.sipp('call.xml', 'ap-south-1', ['w1'], { holdMs: 500, port: 6063 }),
    ])
    for (const call of inside) t.equal(call.code, 0, call.code === 0 ? 'SIPp is content' : call.output)
    t.same((await bound(west, 'e1')).flat(), [], 'nothing crosses the cut')
    // For the phone that reboots: a high CSeq, gone before the end of the cut.
    await reg('us-east-1', 'rebooted', { callId: 'reboot', cseq: 50 })

    await sleep(Math.max(0, cutMs + RETENTION_MS + 3000 - Date.now()))
    t.comment(`cut for ${Date.now() - cutMs} ms so far; retention ${RETENTION_MS} ms`)
    await reg('us-east-2', 'rebooted', { callId: 'reboot', cseq: 1 })
    // Registered on one side, removed on the other, which has never seen it.
    await reg('us-east-1', 'gone-contact', { callId: 'g1', cseq: 1 })
    await reg('us-east-1', 'gone-star', { callId: 'g2', cseq: 1 })
    await reg('ap-south-1', 'gone-here', { callId: 'g3', cseq: 1 })
    await reg('eu-west-1', 'gone-contact', { callId: 'g1', cseq: 2, expires: 0 })
    await reg('eu-west-2', 'gone-star', { callId: 'other', cseq: 1, star: true })
    await reg('us-east-2', 'gone-here', { callId: 'g3', cseq: 2, expires: 0 })
    // CSeq 7 went to one region, the delayed CSeq 6 arrives at another later: the newer one holds.
    await reg('us-east-1', 'delayed', { callId: 'd', cseq: 7, port: 6070, instance: true })
    await reg('eu-west-1', 'delayed', { callId: 'd', cseq: 6, port: 6099, instance: true })
    await reg('us-east-1', 'e2')
    await reg('ap-south-2', 'w2')

    const heal = await demo.cli('drill', 'heal', 'us-east')
    t.equal(heal.code, 0, heal.stderr)
    const healedMs = Date.now()
    await until('equal digests on all six within 5 s of the heal', 5000, async () => new Set(await demo.digests()).size === 1)
    t.comment(`digests equal ${Date.now() - healedMs} ms after the heal`)

    for (const user of ['e2', 'w2', 'rebooted', 'delayed']) {
      const everywhere = await bound(NODES, user)
      t.ok(
        everywhere.every((b) => b.length === 1),
        `${user} is found at all six: ${everywhere.map((b) => b.length)}`,
      )
    }
    for (const view of await bound(NODES, 'delayed'))
      t.match(view[0], { cseq: 7, contact: 'sip:delayed@127.0.0.1:6070' }, 'the newer CSeq holds')
    for (const view of await bound(NODES, 'rebooted')) t.match(view[0], { cseq: 1, edge: { node: 'us-east-2' } })
    for (const user of ['gone-contact', 'gone-star', 'gone-here', 'before']) {
      t.same((await bound(NODES, user)).flat(), [], `${user} stays gone`)
    }
    const across = await demo.sipp('call.xml', 'us-east-1', ['w2'], { holdMs: 200, port: 6064 })
    t.equal(across.code, 0, across.code === 0 ? 'SIPp is content' : across.output)
    await sleep(1500)
    t.equal(new Set(await demo.digests()).size, 1, 'and they stay equal')
  },
)
