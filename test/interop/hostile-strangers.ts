import type { Test } from 'tap'
import { encodeHello } from '../../crdt/hello.ts'
import type { SeededRandom } from '../../src/base/prng.ts'
import { type Closed, dial, HostilePeer, helloOf, type PeerOptions } from './hostile-peer.ts'
import { type Besieged, latin1, linkRefused, repeat, stream } from './siege.ts'

/**
 * What comes to the cluster link from those who do not have its key: what is no WebSocket, frames that RFC 6455 forbids, hellos that do not fit.
 *
 * @param member a hello that would be right; what is sent is wrong in one thing
 */
export async function strangers(t: Test, node: Besieged, member: PeerOptions, random: SeededRandom): Promise<void> {
  const at = member.address
  const upgrade = (path: string, version: number): string =>
    `GET ${path} HTTP/1.1\r\nHost: ${at}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n` +
    `Sec-WebSocket-Version: ${version}\r\nSec-WebSocket-Protocol: antipode.link.1\r\n\r\n`
  const answered = async (bytes: Uint8Array | string): Promise<void> => {
    const answers = await Promise.all(repeat(20, () => stream(at, 7060, bytes)))
    t.ok(
      answers.every((a) => /^HTTP\/1\.1 4\d\d /.test(a)),
      `refused: ${JSON.stringify(answers[0]!.split('\r\n')[0])}`,
    )
  }
  const notWebSockets: [string, Uint8Array | string][] = [
    ['20 connections with random bytes', Buffer.concat([random.bytes(3000), latin1('\r\n\r\n')])],
    ['20 plain HTTP requests', `GET /cluster HTTP/1.1\r\nHost: ${at}\r\n\r\n`],
    ['20 SIP messages', `OPTIONS sip:${at} SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.66;branch=z9hG4bK1\r\n\r\n`],
    ['20 upgrades to another path', upgrade('/', 13)],
    ['20 upgrades to another version of WebSocket', upgrade('/cluster', 7)],
  ]
  for (const [what, bytes] of notWebSockets)
    await node.stand(t, { what, counters: { [linkRefused('CRDT_LINK_UPGRADE')]: 20 }, lines: 5, attack: () => answered(bytes) })

  // Frames below the messages: masked, with a length that is never sent, and one of a reserved opcode.
  const frame = (...head: number[]): Buffer =>
    Buffer.concat([latin1(upgrade('/cluster', 13)), Buffer.from(head), Buffer.alloc(100)])
  await node.stand(t, {
    what: '20 frames that announce 2^40 bytes',
    counters: { [linkRefused('CRDT_LINK_SIZE')]: 20 },
    lines: 5,
    attack: async () => void (await Promise.all(repeat(20, () => stream(at, 7060, frame(0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0))))),
  })
  await node.stand(t, {
    what: '20 frames with a reserved opcode',
    counters: { [linkRefused('CRDT_LINK_FRAMING')]: 20 },
    lines: 5,
    attack: async () => void (await Promise.all(repeat(20, () => stream(at, 7060, frame(0x8b, 0x80, 0, 0, 0, 0))))),
  })

  const says = async (count: number, message: () => Uint8Array | string): Promise<Closed> => {
    const closed = await Promise.all(
      repeat(count, async () => {
        const { socket, closed } = await dial(at)
        socket.send(message() as Uint8Array<ArrayBuffer>)
        return closed
      }),
    )
    return closed[0]!
  }
  const { constants } = member
  const key = member.ring.keys.get(member.ring.current)!
  const hellos: [code: string, what: string, message: () => Uint8Array | string, close: number][] = [
    ['CRDT_LINK_TEXT', 'texts', () => 'hello', 4003],
    ['CRDT_LINK_SIZE', 'messages of 2 MiB', () => Buffer.alloc(2 << 20), 1009],
    ['CRDT_HELLO_MALFORMED', 'messages of random bytes', () => random.bytes(200), 4001],
    ['CRDT_HELLO_MALFORMED', 'hellos cut short', () => encodeHello(helloOf(member)).subarray(0, 60), 4001],
    ['CRDT_HELLO_VERSION', 'hellos of version 2', () => encodeHello(helloOf({ ...member, hello: { version: 2 } })), 4001],
    ['CRDT_HELLO_CLUSTER', 'hellos of another cluster', () => encodeHello(helloOf({ ...member, cluster: 'production' })), 4001],
    [
      'CRDT_HELLO_NODE',
      'hellos of an unknown node',
      () => encodeHello(helloOf({ ...member, self: { ...member.self, node: 'ap-south-9' } })),
      4001,
    ],
    ['CRDT_HELLO_TO', 'hellos for another node', () => encodeHello(helloOf({ ...member, to: 'eu-west-1' })), 4001],
    [
      'CRDT_HELLO_CONSTANT',
      'hellos with another retention',
      () => encodeHello(helloOf({ ...member, constants: { ...constants, graceMs: constants.graceMs + 1 } })),
      4001,
    ],
    [
      'CRDT_HELLO_KEY',
      'hellos with an unknown key id',
      () => encodeHello(helloOf({ ...member, hello: { keyIds: ['b', 'c'] } })),
      4001,
    ],
  ]
  for (const [code, what, message, close] of hellos)
    await node.stand(t, {
      what: `20 ${what}`,
      counters: { [linkRefused(code)]: 20 },
      lines: 5,
      attack: async () => {
        const closed = await says(20, message)
        t.equal(closed.code, close, `${what}: closed with ${closed.code} ${closed.reason}`)
      },
    })

  const wrongKey = { ...member, ring: { current: 'a', keys: new Map([['a', Buffer.from(key.map((b) => b ^ 1))]]) } }
  await node.stand(t, {
    what: '20 peers with the right key id and another key',
    counters: { [linkRefused('CRDT_HELLO_PROOF')]: 20 },
    lines: 5,
    attack: async () => {
      const ends = await Promise.all(repeat(20, () => HostilePeer.connect(wrongKey)))
      t.match(
        ends,
        repeat(20, () => ({ code: 4001, reason: 'CRDT_HELLO_PROOF' })),
        'none is let in',
      )
    },
  })
  await node.stand(t, {
    what: '20 connections that say nothing',
    counters: { [linkRefused('CRDT_HELLO_TIMEOUT')]: 20 },
    lines: 5,
    attack: async () => {
      const ends = await Promise.all(repeat(20, async () => (await dial(at)).closed))
      t.match(
        ends,
        repeat(20, () => ({ code: 4002 })),
        'each is closed',
      )
    },
  })
  await node.serves(t)
  await node.memory(t, 100)
}
