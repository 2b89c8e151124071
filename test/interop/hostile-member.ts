import { randomBytes } from 'node:crypto'
import type { Test } from 'tap'
import { type DocName, encodeMessage, type Frame } from '../../crdt/frames.ts'
import { encodeUpdate } from '../../crdt/update.ts'
import { WireWriter } from '../../src/base/bytes.ts'
import { hlcOfMs } from '../../src/base/hlc.ts'
import { type Demo, type NodeName, sleep, until } from './demo.ts'
import { bindingRecord, frameOf, framesMessage, HostilePeer, type PeerOptions } from './hostile-peer.ts'
import { type Besieged, crdtRefused, linkRefused, repeat } from './siege.ts'

interface Lie {
  readonly what: string
  readonly code: string
  readonly messages: () => readonly Buffer[]
}

/**
 * What a member of the cluster may say, with the right key and as a configured node that is dead in truth, and must not be believed: the refusals of
 * PROTOCOL.md for frames and messages.
 */
export async function liar(
  t: Test,
  { demo, node, member, alive }: { demo: Demo; node: Besieged; member: PeerOptions; alive: readonly NodeName[] },
): Promise<void> {
  const { self, constants } = member
  const hourMs = 3_600_000
  const connect = async (): Promise<HostilePeer> => {
    const peer = await HostilePeer.connect(member)
    if (!(peer instanceof HostilePeer)) throw new Error(`not let in: ${JSON.stringify(peer)}`)
    return peer
  }
  const bucketAt = (ms: number): number => Math.floor(ms / constants.bucketWidthMs)
  /** A doc of ours that no node has; each lie is about another. */
  let part = 0
  const doc = (forge: Partial<DocName> = {}): DocName => ({
    ...self,
    kind: 'binding',
    bucket: bucketAt(Date.now()),
    part: ++part,
    ...forge,
  })
  const record = (forge: Parameters<typeof bindingRecord>[3] = {}): Buffer => bindingRecord(self, 'mallory', Date.now(), forge)
  const one = (forge: Partial<Frame> = {}, records = [record()]): Buffer => framesMessage(frameOf(doc(), records, forge))

  // First that it is believed when it tells the truth: then it is not some other mistake of ours that is refused below.
  const truthful = await connect()
  truthful.send(1, framesMessage(frameOf(doc(), [bindingRecord(self, 'alice', Date.now())])))
  await until('the truth is known everywhere', 5000, async () =>
    (await Promise.all(alive.map((n) => demo.registrations(n, 'alice')))).every((r) => r.bindings.length === 1),
  )
  t.pass('a frame in order is taken, and known at every node')
  await truthful.close()

  const good = frameOf(doc(), [record()])
  const update = (author: { incarnation: number }, from = 0, records = [record()]): Buffer =>
    encodeUpdate({ ...self, ...author }, from, records)
  const cut = (m: Buffer, by: number): Buffer => m.subarray(0, m.length - by)
  const tagged = (tag: number): Buffer => Buffer.concat([Buffer.from([tag]), record().subarray(1)])
  const violations: Lie[] = [
    { what: 'a frame from clock 2^40 on', code: 'CRDT_FRAME_RANGE', messages: () => [one({ from: 2 ** 40, to: 2 ** 40 + 1 })] },
    { what: 'an update from clock 2^40 on', code: 'CRDT_UPDATE_CLOCK', messages: () => [one({ update: update(self, 2 ** 40) })] },
    {
      what: 'a delete set',
      code: 'CRDT_UPDATE_DELETES',
      messages: () => {
        const frame = frameOf(doc(), [record()])
        const deletes = new WireWriter().uint(1).uint(self.incarnation).uint(1).uint(0).uint(1).done()
        return [framesMessage({ ...frame, update: Buffer.concat([cut(Buffer.from(frame.update), 1), deletes]) })]
      },
    },
    {
      what: 'another clientID',
      code: 'CRDT_UPDATE_CLIENT',
      messages: () => [one({ update: update({ incarnation: self.incarnation + 1 }) })],
    },
    {
      what: 'two clients',
      code: 'CRDT_UPDATE_CLIENTS',
      messages: () => [one({ update: Buffer.concat([Buffer.from([2]), update(self).subarray(1)]) })],
    },
    {
      what: 'a million structs in 20 bytes',
      code: 'CRDT_UPDATE_COUNT',
      messages: () => [
        one({ update: new WireWriter().uint(1).uint(1_000_000).uint(self.incarnation).uint(0).raw(Buffer.alloc(8)).done() }),
      ],
    },
    { what: 'a million records in one frame', code: 'CRDT_FRAME_RANGE', messages: () => [one({ to: 1_000_000 })] },
    {
      what: 'a million frames in 10 bytes',
      code: 'CRDT_MESSAGE_LIMIT',
      messages: () => [new WireWriter().u8(5).u8(0).uint(1_000_000).raw(Buffer.alloc(5)).done()],
    },
    {
      what: 'a million authors in 10 bytes',
      code: 'CRDT_MESSAGE_LIMIT',
      messages: () => [new WireWriter().u8(1).uint(0).uint(1_000_000).raw(Buffer.alloc(5)).done()],
    },
    {
      what: 'a record of 2^30 bytes in 20',
      code: 'CRDT_RECORD_SIZE',
      messages: () => [
        one({
          update: new WireWriter()
            .uint(1)
            .uint(1)
            .uint(self.incarnation)
            .uint(0)
            .u8(0x23)
            .uint(1)
            .text('e')
            .text('0')
            .uint(2 ** 30)
            .u8(0)
            .done(),
        }),
      ],
    },
    {
      what: 'a struct of another kind',
      code: 'CRDT_UPDATE_STRUCT',
      messages: () => [one({ update: Buffer.from(update(self).map((b) => (b === 0x23 ? 0x28 : b))) })],
    },
    {
      what: 'bytes after the update',
      code: 'CRDT_UPDATE_TRAILING',
      messages: () => [one({ update: Buffer.concat([update(self), Buffer.alloc(9)]) })],
    },
    { what: 'an update of 300 KiB', code: 'CRDT_FRAME_RANGE', messages: () => [one({ update: Buffer.alloc(300 << 10) })] },
    { what: 'a hash that does not fit', code: 'CRDT_HASH', messages: () => [one({ hash: Buffer.alloc(32, 7) })] },
    {
      what: 'an entry of another author',
      code: 'CRDT_ENTRY_AUTHOR',
      messages: () => [one({}, [record({ node: 'eu-west-1', region: 'eu-west' })])],
    },
    {
      what: 'an entry of another bucket',
      code: 'CRDT_ENTRY_BUCKET',
      messages: () => [one({}, [record({ hlc: hlcOfMs(Date.now() - hourMs) })])],
    },
    {
      what: 'entries in the wrong order',
      code: 'CRDT_ENTRY_ORDER',
      messages: () => [one({}, [record({ hlc: hlcOfMs(Date.now()) + 1 }), record({ hlc: hlcOfMs(Date.now()) })])],
    },
    {
      what: 'an entry with a byte more',
      code: 'CRDT_ENTRY_NOT_CANONICAL',
      messages: () => [one({}, [Buffer.concat([record(), Buffer.alloc(1)])])],
    },
    { what: 'the reserved record tag of a header', code: 'CRDT_RECORD_TAG', messages: () => [one({}, [tagged(2)])] },
    { what: 'the reserved record tag of a seal', code: 'CRDT_RECORD_TAG', messages: () => [one({}, [tagged(3)])] },
    { what: 'a truncated FRAMES', code: 'CRDT_FRAME_MALFORMED', messages: () => [cut(framesMessage(good), 1)] },
    {
      what: 'a truncated DIGEST',
      code: 'CRDT_MESSAGE_MALFORMED',
      messages: () => [
        cut(encodeMessage({ type: 'digest', horizon: 1, authors: [{ author: self, docs: 1, sum: Buffer.alloc(32) }] }), 1),
      ],
    },
    {
      what: 'a DONE with bytes left over',
      code: 'CRDT_MESSAGE_MALFORMED',
      messages: () => [Buffer.concat([encodeMessage({ type: 'done', id: 1, complete: true }), Buffer.alloc(1)])],
    },
    { what: 'an empty message', code: 'CRDT_MESSAGE_TYPE', messages: () => [Buffer.alloc(0)] },
    ...[7, 8, 9, 200].map(
      (type): Lie => ({
        what: `message type ${type}, reserved`,
        code: 'CRDT_MESSAGE_TYPE',
        messages: () => [Buffer.from([type, 0, 0])],
      }),
    ),
  ]
  for (const { what, code, messages } of violations)
    await node.stand(t, {
      what,
      counters: { [crdtRefused(code)]: 1 },
      // The link that comes up, the refusal, the link that goes down; and a probe or two may fail on a slow machine.
      lines: 6,
      attack: async () => {
        const peer = await connect()
        for (const message of messages()) peer.send(1, message)
        t.match(await peer.closed, { code: 4006, reason: code }, `${what}: the link is dropped with 4006 ${code}`)
      },
    })
  await node.stand(t, {
    what: 'the same lie over and over, by a peer that comes back at once',
    counters: { [crdtRefused('CRDT_UPDATE_DELETES')]: 30 },
    // Two of each link (up and down, at info), and the refusal once a second.
    lines: 65,
    attack: async () => {
      for (let i = 0; i < 30; i++) {
        const peer = await connect()
        peer.send(1, violations[2]!.messages()[0]!)
        await peer.closed
      }
    },
  })

  // What is no fault of the link is counted and left aside; the link stays.
  const many = 500
  const now = Date.now()
  const ignored: (Lie & { lines: number })[] = [
    {
      what: `${many} entries of an hour ahead`,
      code: 'CRDT_CLOCK_AHEAD',
      messages: () => {
        const hlc = hlcOfMs(now + hourMs)
        return repeat(many, () => framesMessage(frameOf(doc({ bucket: bucketAt(now + hourMs) }), [record({ hlc })])))
      },
      lines: 4,
    },
    {
      what: `${many} frames of a bucket that is over`,
      code: 'CRDT_EXPIRED',
      messages: () => {
        const hlc = hlcOfMs(now - 24 * hourMs)
        return repeat(many, () => framesMessage(frameOf(doc({ bucket: bucketAt(now - 24 * hourMs) }), [record({ hlc })])))
      },
      lines: 4,
    },
    {
      what: `${many} frames of an author that is not configured`,
      code: 'CRDT_UNKNOWN_AUTHOR',
      messages: () => repeat(many, () => one({ doc: doc({ node: 'ap-south-9' }) })),
      lines: 4,
    },
    {
      what: 'a digest of 4,000 authors that are not configured',
      code: 'CRDT_UNKNOWN_AUTHOR',
      messages: () => [
        encodeMessage({
          type: 'digest',
          horizon: 0,
          authors: repeat(4000, (i) => ({ author: { ...self, node: `x${i}` }, docs: 1, sum: Buffer.alloc(32, i) })),
        }),
      ],
      lines: 4,
    },
  ]
  const peer = await connect()
  for (const { what, code, messages, lines } of ignored)
    await node.stand(t, {
      what,
      counters: { [crdtRefused(code)]: messages().length === 1 ? 4000 : many },
      lines,
      attack: async () => {
        for (const message of messages()) peer.send(1, message)
      },
    })
  await node.stand(t, {
    what: '5,000 frames of 10 KiB in 1,000 docs that begin behind a gap',
    counters: { 'antipode_crdt_frames_total{direction="in"}': 5000 },
    lines: 4,
    attack: async () => {
      const docs = repeat(1000, () => doc())
      for (let i = 0; i < 5000; i++) {
        const from = 100 + Math.floor(i / docs.length)
        peer.send(1, framesMessage({ ...good, doc: docs[i % docs.length]!, from, to: from + 1, update: Buffer.alloc(10 << 10) }))
        while (peer.unsent > 1 << 20) await sleep(5)
      }
    },
  })
  t.ok(peer.open, 'all that time the link stays up')
  await peer.close()

  // Below and beside the state: what the message authentication and the other channels make of it.
  const sealedWrong: [what: string, series: string, message: (p: HostilePeer) => Buffer, code: string][] = [
    ['a message with a flipped bit', linkRefused('CRDT_LINK_MAC'), (p) => flipped(p.sealed(1, one())), 'CRDT_LINK_MAC'],
    ['a message that was sent before', linkRefused('CRDT_LINK_MAC'), replayed, 'CRDT_LINK_MAC'],
    [
      'a message on a channel that there is not',
      linkRefused('CRDT_LINK_CHANNEL'),
      (p) => p.sealed(9, one()),
      'CRDT_LINK_CHANNEL',
    ],
    [
      'a control message that there is not',
      linkRefused('CRDT_LINK_CONTROL'),
      (p) => p.sealed(0, Buffer.from([9])),
      'CRDT_LINK_CONTROL',
    ],
  ]
  for (const [what, series, message, code] of sealedWrong)
    await node.stand(t, {
      what,
      counters: { [series]: 1 },
      lines: 6,
      attack: async () => {
        const p = await connect()
        p.sendRaw(message(p))
        t.match(await p.closed, { code: 4003, reason: code }, `${what}: the link is dropped with 4003 ${code}`)
      },
    })
  await node.stand(t, {
    what: 'a message of 2 MiB by a member',
    counters: { [linkRefused('CRDT_LINK_SIZE')]: 1 },
    lines: 6,
    attack: async () => {
      const p = await connect()
      p.send(1, Buffer.alloc(2 << 20))
      t.equal((await p.closed).code, 1009, 'the link is dropped with 1009')
    },
  })
  const other = await connect()
  const before = await node.metrics()
  await node.stand(t, {
    what: '500 messages of random bytes on each of the channels of health, CDR mirrors and the spare one',
    counters: { [linkRefused('NET_CHANNEL_UNKNOWN')]: 500 },
    lines: 20,
    attack: async () => {
      for (const channel of [2, 3, 4])
        for (let i = 0; i < 500; i++) other.send(channel, Buffer.concat([Buffer.from([200 + (i % 50)]), randomBytes(100)]))
    },
  })
  const counted = [...(await node.metrics())].filter(
    ([s, v]) => s.startsWith('antipode_link_refused_total') && v > (before.get(s) ?? 0),
  )
  t.ok(
    counted.reduce((sum, [s, v]) => sum + v - (before.get(s) ?? 0), 0) >= 1500,
    `all 1,500 are counted: ${counted.map(([s]) => s).join(' ')}`,
  )
  await other.close()

  await node.serves(t)
  await node.memory(t, 100)
}

function flipped(message: Buffer): Buffer {
  message[10]! ^= 1
  return message
}

/** The first of two equal messages is taken; its number is used up. */
function replayed(peer: HostilePeer): Buffer {
  const digest = encodeMessage({ type: 'digest', horizon: 0, authors: [] })
  const message = peer.sealed(1, digest)
  peer.sendRaw(Buffer.from(message))
  return message
}
