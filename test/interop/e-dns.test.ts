import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'
import { addressOf, Demo, missing, type NodeName, registration, until } from './demo.ts'

const skip = missing('sipp', 'dig')
const exec = promisify(execFile)

async function dig(node: NodeName, name: string, type: string, ...flags: string[]): Promise<string[]> {
  const { stdout } = await exec('dig', [
    `@${addressOf(node)}`,
    '-p',
    '5353',
    name,
    type,
    '+short',
    '+time=2',
    '+tries=1',
    ...flags,
  ])
  return stdout
    .trim()
    .split('\n')
    .filter((l) => l !== '')
}
const first = { 'us-east': '127.0.1.', 'eu-west': '127.0.2.', 'ap-south': '127.0.3.' } as const
const servers: NodeName[] = ['us-east-2', 'eu-west-1', 'ap-south-1']
/** SRV targets by priority. */
const bySrv = (lines: string[]): string[] =>
  lines
    .map((l) => l.split(' ') as [string, string, string, string])
    .sort((a, b) => Number(a[0]) - Number(b[0]))
    .map((f) => f[3].split('.')[0]!)

t.test('E: DNS follows health', { skip: skip ?? false, timeout: 240_000 }, async (t) => {
  const demo = await Demo.start()
  t.teardown(() => demo.stop())
  const regionOf = (n: string) => n.replace(/-\d+$/, '')

  await t.test('each region’s DNS gives its own region first, over UDP and TCP', async (t) => {
    for (const server of servers) {
      const own = regionOf(server) as keyof typeof first
      for (const flags of [[], ['+tcp']]) {
        t.ok((await dig(server, 'sip.example.net', 'A', ...flags))[0]?.startsWith(first[own]), `A at ${server} ${flags}`)
        const srv = bySrv(await dig(server, '_sip._udp.example.net', 'SRV', ...flags))
        t.equal(regionOf(srv[0]!), own, `SRV at ${server}: ${srv}`)
        t.same([...new Set(srv.map(regionOf))].length, 3, 'the SRV set lists every region')
      }
      const naptr = await dig(server, 'example.net', 'NAPTR')
      t.ok(
        naptr.some((l) => l.includes('SIP+D2U') && l.includes('_sip._udp.example.net')),
        naptr.join(' | '),
      )
      t.ok(naptr.some((l) => l.includes('SIP+D2T')))
      t.equal((await dig(server, 'example.net', 'SOA')).length, 1)
      t.ok((await dig(server, 'example.net', 'NS')).length >= 2)
    }
    const serials = await Promise.all(servers.map(async (s) => (await dig(s, 'example.net', 'SOA'))[0]!.split(' ')[2]))
    t.equal(new Set(serials).size, 1, `one serial for all regions: ${serials}`)
  })

  await t.test('a region dies: its addresses leave the answers within 15 s, and come back with it', async (t) => {
    const before = (await dig('eu-west-1', 'example.net', 'SOA'))[0]!.split(' ')[2]!
    await demo.kill('us-east-1', 'us-east-2')
    const sinceMs = Date.now()
    await until('us-east gone from the answers of eu-west and ap-south', 15_000, async () => {
      const answers = await Promise.all(
        ['eu-west-1', 'eu-west-2', 'ap-south-1', 'ap-south-2'].map((n) => dig(n as NodeName, 'us-east.example.net', 'A')),
      )
      return answers.every((a) => a.length > 0 && a.every((ip) => !ip.startsWith('127.0.1.')))
    })
    t.comment(`first changed everywhere after ${Date.now() - sinceMs} ms`)
    t.ok(Number((await dig('eu-west-1', 'example.net', 'SOA'))[0]!.split(' ')[2]) > Number(before), 'the serial has risen')
    const stand = await dig('eu-west-1', 'us-east-1.example.net', 'A')
    t.ok(stand.length > 0 && stand.every((ip) => !ip.startsWith('127.0.1.')), `the dead node’s own name moves: ${stand}`)
    for (const n of ['us-east-1', 'us-east-2'] as const) t.equal((await demo.cli('drill', 'start', n)).code, 0)
    await until('us-east is back', 20_000, async () =>
      (await dig('eu-west-1', 'us-east.example.net', 'A')).every((ip) => ip.startsWith('127.0.1.')),
    )
  })

  await t.test(
    'a region is cut off: the others drop it, it still answers its own clients with itself, and calls do not hang',
    async (t) => {
      demo.uas('uas.xml', 6070)
      t.equal((await demo.sipp('register.xml', 'eu-west-1', [registration('w1'), registration('dark', { port: 6079 })])).code, 0)
      await until('known in us-east', 3000, async () => (await demo.registrations('us-east-1', 'dark')).bindings.length === 1)
      t.equal((await demo.cli('drill', 'cut', 'us-east')).code, 0)
      // At once, before anything has been detected: another way is found.
      const atOnce = await demo.sipp('call.xml', 'us-east-1', ['w1'], {
        holdMs: 100,
        timeoutS: 20,
        args: ['-trace_rtt', '-rtt_freq', '1'],
      })
      t.equal(atOnce.code, 0, atOnce.code === 0 ? 'SIPp is content' : atOnce.output)
      const startMs = Date.now()
      const dark = await demo.sipp('call-refused.xml', 'us-east-2', ['dark'], { replace: { STATUS: '408' }, timeoutS: 20 })
      t.equal(dark.code, 0, dark.code === 0 ? 'SIPp is content' : dark.output)
      t.ok(Date.now() - startMs < 4000, `a final answer within 4 s: ${Date.now() - startMs} ms with SIPp's own start`)
      await until('the others drop us-east', 15_000, async () => {
        const answers = await Promise.all(['eu-west-2', 'ap-south-2'].map((n) => dig(n as NodeName, 'us-east.example.net', 'A')))
        return answers.every((a) => a.length > 0 && a.every((ip) => !ip.startsWith('127.0.1.')))
      })
      t.ok((await dig('us-east-1', 'sip.example.net', 'A'))[0]?.startsWith('127.0.1.'))
      t.equal(regionOf(bySrv(await dig('us-east-2', '_sip._udp.example.net', 'SRV'))[0]!), 'us-east')
      const later = await demo.sipp('call.xml', 'us-east-1', ['w1'], { holdMs: 100, timeoutS: 20 })
      t.equal(later.code, 0, later.code === 0 ? 'SIPp is content' : later.output)
      t.equal((await demo.cli('drill', 'heal')).code, 0)
      await until('us-east is back', 20_000, async () =>
        (await dig('ap-south-1', 'us-east.example.net', 'A')).every((ip) => ip.startsWith('127.0.1.')),
      )
    },
  )
})
