import { randomBytes } from 'node:crypto'
import t from 'tap'
import { loadConfig } from '../../config/load.ts'
import { below, SeededRandom } from '../../src/base/prng.ts'
import { demoKeys } from '../../src/cli/demo-keys.ts'
import { addressOf, Demo, missing, type NodeName, until } from './demo.ts'
import { liar } from './hostile-member.ts'
import type { PeerOptions } from './hostile-peer.ts'
import { strangers } from './hostile-strangers.ts'
import { Besieged, datagrams, dnsRefused, latin1, repeat, sipRefused, stream } from './siege.ts'

const skip = missing('sipp') ?? false
const NODE = 'us-east-1'
const AT = addressOf(NODE)
/** It is killed first, and what is said in its name below does not come from it. */
const IMPERSONATED = 'ap-south-2'
const ALIVE: readonly NodeName[] = ['us-east-1', 'us-east-2', 'eu-west-1', 'eu-west-2', 'ap-south-1']

const seed = Number(process.env.ANTIPODE_TEST_SEED ?? Date.now() % 2 ** 31)
t.comment(`seed ${seed} (ANTIPODE_TEST_SEED)`)
t.setTimeout(280_000)

/** A request that would be taken if it came whole. */
const sip = (method: string, headers = '', body = ''): string =>
  [
    `${method} sip:g0@example.net SIP/2.0`,
    `Via: SIP/2.0/UDP 127.0.0.1:6099;branch=z9hG4bK${randomBytes(6).toString('hex')}`,
    'Max-Forwards: 70',
    'From: <sip:mallory@example.net>;tag=m',
    'To: <sip:mallory@example.net>',
    `Call-ID: ${randomBytes(6).toString('hex')}`,
    `CSeq: 1 ${method}`,
    'Contact: <sip:mallory@127.0.0.1:6099>',
    `${headers}Content-Length: ${body.length}`,
    '',
    body,
  ].join('\r\n')

t.test('G: hostile input is counted and changes nothing', { skip, timeout: 270_000 }, async (t) => {
  const random = new SeededRandom(seed)
  const demo = await Demo.start()
  t.teardown(() => demo.stop())
  demo.uas('uas.xml', 6070)
  const { incarnation } = await demo.status(IMPERSONATED)
  await demo.kill(IMPERSONATED)
  await until('all know that it is dead', 20_000, async () =>
    (await Promise.all(ALIVE.map((n) => demo.status(n)))).every((s) => s.verdict.nodes[IMPERSONATED] === 'dead'),
  )
  const node = await Besieged.of(demo, NODE, ALIVE)
  await node.serves(t)

  await t.test('SIP over UDP', async (t) => {
    await node.stand(t, {
      what: '2000 datagrams of random bytes',
      counters: { [sipRefused('SIP_START_LINE')]: 1000 },
      lines: 10,
      attack: () =>
        datagrams(
          AT,
          5060,
          repeat(2000, () => random.bytes(5 + below(random, 600))),
        ),
    })
    await node.stand(t, {
      what: '500 HTTP requests',
      counters: { [sipRefused('SIP_START_LINE')]: 250 },
      lines: 10,
      attack: () =>
        datagrams(
          AT,
          5060,
          repeat(500, (i) => latin1(`GET /${i} HTTP/1.1\r\nHost: ${AT}\r\n\r\n`)),
        ),
    })
    // From an address that is trusted: only that they are not whole keeps them from being taken.
    const [register, invite] = [
      latin1(sip('REGISTER', 'Expires: 3600\r\n')),
      latin1(sip('INVITE', 'Content-Type: application/sdp\r\n', 'v=0\r\n'.repeat(20))),
    ]
    await node.stand(t, {
      what: 'a REGISTER and an INVITE cut off at every byte',
      counters: { [sipRefused('SIP_START_LINE')]: 30, [sipRefused('SIP_TRUNCATED')]: 300, [sipRefused('SIP_BODY_SHORT')]: 50 },
      lines: 15,
      attack: () =>
        datagrams(
          AT,
          5060,
          [register, invite].flatMap((r) => repeat(r.length - 5, (i) => r.subarray(0, i + 5))),
          '127.0.0.1',
        ),
    })
    await node.stand(t, {
      what: '150 datagrams of 60,000 bytes of headers',
      counters: { [sipRefused('SIP_HEAD_TOO_LARGE')]: 75 },
      lines: 10,
      attack: () =>
        datagrams(
          AT,
          5060,
          repeat(150, () => latin1(sip('REGISTER', 'X-Padding: 0123456789\r\n'.repeat(2600)))),
          '127.0.0.1',
        ),
    })
    await node.stand(t, {
      what: '300 requests with a line of 20,000 bytes, 300 with 1,000 headers',
      counters: { [sipRefused('SIP_LINE_TOO_LONG')]: 150, [sipRefused('SIP_TOO_MANY_HEADERS')]: 150 },
      lines: 10,
      attack: async () => {
        await datagrams(
          AT,
          5060,
          repeat(300, () => latin1(sip('REGISTER', `X-Long: ${'x'.repeat(20_000)}\r\n`))),
          '127.0.0.1',
        )
        await datagrams(
          AT,
          5060,
          repeat(300, () => latin1(sip('REGISTER', 'X: 1\r\n'.repeat(1000)))),
          '127.0.0.1',
        )
      },
    })
    await node.stand(t, {
      what: '300 requests each without a Call-ID, with two CSeqs, with a CSeq of another method',
      counters: {
        [sipRefused('SIP_HEADER_MISSING')]: 150,
        [sipRefused('SIP_HEADER_TWICE')]: 150,
        [sipRefused('SIP_CSEQ')]: 150,
      },
      lines: 15,
      attack: async () => {
        const broken = (from: RegExp, to: string): Buffer[] => repeat(300, () => latin1(sip('REGISTER').replace(from, to)))
        await datagrams(AT, 5060, broken(/Call-ID: .*\r\n/, ''), '127.0.0.1')
        await datagrams(AT, 5060, broken(/CSeq: .*\r\n/, 'CSeq: 1 REGISTER\r\nCSeq: 2 REGISTER\r\n'), '127.0.0.1')
        await datagrams(AT, 5060, broken(/CSeq: .*\r\n/, 'CSeq: 1 INVITE\r\n'), '127.0.0.1')
      },
    })
    await node.serves(t)
    await node.memory(t, 100)
  })

  await t.test('SIP over TCP', async (t) => {
    const each = (count: number, bytes: () => Uint8Array | string) => async () => {
      const answers = await Promise.all(repeat(count, () => stream(AT, 5060, bytes())))
      t.equal(answers.filter((a) => a.startsWith('SIP/2.0 2')).length, 0, 'none gets a good answer')
    }
    await node.stand(t, {
      what: '50 connections with HTTP',
      counters: { [sipRefused('SIP_START_LINE')]: 50 },
      lines: 10,
      attack: each(50, () => `POST / HTTP/1.1\r\nHost: ${AT}\r\nContent-Length: 3\r\n\r\nabc`),
    })
    await node.stand(t, {
      what: '50 connections with 40,000 random bytes',
      counters: { [sipRefused('SIP_START_LINE')]: 40 },
      lines: 10,
      attack: each(50, () => Buffer.concat([random.bytes(40_000), latin1('\r\n\r\n')])),
    })
    await node.stand(t, {
      what: '50 connections that announce a body of 10^12 bytes',
      counters: { [sipRefused('SIP_TOO_LARGE')]: 50 },
      lines: 10,
      attack: each(50, () => sip('REGISTER').replace('Content-Length: 0', 'Content-Length: 1000000000000')),
    })
    await node.stand(t, {
      what: '50 connections with headers that do not end',
      counters: { [sipRefused('SIP_HEAD_TOO_LARGE')]: 50 },
      lines: 10,
      attack: each(50, () => sip('REGISTER', 'X-Padding: 0123456789\r\n'.repeat(2600))),
    })
    await node.serves(t)
    await node.memory(t, 100)
  })

  await t.test('DNS', async (t) => {
    const header = (flags: number, questions: number): Buffer =>
      Buffer.from([1, 2, flags >> 8, flags & 255, 0, questions, 0, 0, 0, 0, 0, 0])
    const loop = Buffer.concat([header(0, 1), Buffer.from([0xc0, 12, 0, 1, 0, 1])])
    await node.stand(t, {
      what: '500 short packets, 500 answers, 300 of 5,000 bytes, 500 with a name that points at itself, 500 of another opcode',
      counters: {
        [dnsRefused('DNS_SHORT')]: 250,
        [dnsRefused('DNS_NOT_A_QUERY')]: 250,
        [dnsRefused('DNS_LONG')]: 150,
        [dnsRefused('DNS_OPCODE')]: 250,
        [dnsRefused('DNS_NAME')]: 250,
      },
      lines: 20,
      attack: async () => {
        await datagrams(
          AT,
          5353,
          repeat(500, () => random.bytes(below(random, 12))),
        )
        await datagrams(
          AT,
          5353,
          repeat(500, () => header(0x8400, 1)),
        )
        await datagrams(
          AT,
          5353,
          repeat(300, () => Buffer.concat([header(0, 1), Buffer.alloc(5000)])),
        )
        await datagrams(
          AT,
          5353,
          repeat(500, () => loop),
        )
        await datagrams(
          AT,
          5353,
          repeat(500, () => header(0x2800, 1)),
        )
      },
    })
    await node.stand(t, {
      what: '2000 packets of random bytes, and 20 connections that announce 65,535',
      counters: { [dnsRefused('DNS_NOT_A_QUERY')]: 500, [dnsRefused('DNS_LONG')]: 20 },
      lines: 30,
      attack: async () => {
        await datagrams(
          AT,
          5353,
          repeat(2000, () => random.bytes(12 + below(random, 500))),
        )
        await Promise.all(repeat(20, () => stream(AT, 5353, Buffer.concat([Buffer.from([255, 255]), Buffer.alloc(5000)]))))
      },
    })
    await node.serves(t)
    await node.memory(t, 100)
  })

  const config = await loadConfig('config/examples/us-east.yaml', NODE, demoKeys(demo.state), [
    `stateDirectory=${JSON.stringify(demo.state)}`,
  ])
  const self = { region: 'ap-south', node: IMPERSONATED, incarnation: incarnation + 2 ** 32 }
  const member: PeerOptions = {
    ...{ address: AT, to: NODE, self, cluster: config.cluster.name },
    ...{ constants: config.cluster.constants, ring: config.cluster.keys.link },
  }

  await t.test('strangers at the cluster link', (t) => strangers(t, node, member, random))
  await t.test('a member of the cluster that lies', (t) => liar(t, { demo, node, member, alive: ALIVE }))
})
