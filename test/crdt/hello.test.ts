import fc from 'fast-check'
import t from 'tap'
import {
  chooseKey,
  constantsOf,
  decodeHello,
  encodeHello,
  type Hello,
  helloFault,
  LINK_VERSION,
  LinkKeys,
  MessageSeal,
} from '../../crdt/hello.ts'
import { CONSTANTS } from './replica-kit.ts'

const hello: Hello = {
  ...{
    version: LINK_VERSION,
    features: 0,
    role: 'dialer',
    cluster: 'demo',
    region: 'us-east',
    node: 'us-east-1',
    incarnation: 42,
  },
  ...{ to: 'eu-west-1', nonce: Buffer.alloc(32, 7), constants: constantsOf(CONSTANTS), keyIds: ['k2', 'k1'] },
}
const ours = { cluster: 'demo', node: 'eu-west-1', role: 'listener' as const, constants: CONSTANTS }

t.test('a hello reads back as it was written, also with a proof behind it', async (t) => {
  const bytes = encodeHello(hello)
  for (const input of [bytes, Buffer.concat([bytes, Buffer.alloc(32)])]) {
    const decoded = decodeHello(input)
    t.same(decoded, { ok: true, value: { hello, size: bytes.length } })
  }
})

t.test('damaged and random hellos are faults, never exceptions', async (t) => {
  const bytes = encodeHello(hello)
  for (let cut = 0; cut < bytes.length; cut++) t.notOk(decodeHello(bytes.subarray(0, cut)).ok) || t.fail(`cut at ${cut}`)
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (rest) => {
      decodeHello(Buffer.concat([Buffer.from('APLK\x01'), rest]))
      return !decodeHello(rest).ok
    }),
  )
  t.match(decodeHello(encodeHello({ ...hello, version: 2 })), { fault: { code: 'CRDT_HELLO_VERSION' } })
})

t.test('what differs is named', async (t) => {
  t.equal(helloFault(hello, ours), undefined)
  const cases: [Partial<Hello>, string, RegExp][] = [
    [{ role: 'listener' }, 'CRDT_HELLO_MALFORMED', /listener/],
    [{ cluster: 'x' }, 'CRDT_HELLO_CLUSTER', /x/],
    [{ to: 'eu-west-2' }, 'CRDT_HELLO_TO', /eu-west-2/],
    [{ constants: constantsOf({ ...CONSTANTS, graceMs: 1 }) }, 'CRDT_HELLO_CONSTANT', /^graceMs: 1, here 5000/],
    [{ constants: [...hello.constants, ['novelMs', 5]] }, 'CRDT_HELLO_CONSTANT', /^novelMs/],
    [{ constants: hello.constants.slice(1) }, 'CRDT_HELLO_CONSTANT', /^bucketWidthMs: undefined/],
  ]
  for (const [fields, code, detail] of cases) t.match(helloFault({ ...hello, ...fields }, ours), { code, detail }, code)
})

t.test('the listener chooses its own current key if it is offered, else one that it knows', async (t) => {
  const key = Buffer.alloc(32)
  const ring = (current: string, ...ids: string[]) => ({ current, keys: new Map([current, ...ids].map((id) => [id, key])) })
  t.equal(chooseKey(['k2', 'k1'], ring('k1')), 'k1')
  t.equal(chooseKey(['k2', 'k1'], ring('k3', 'k2')), 'k2')
  t.equal(chooseKey(['k2'], ring('k3')), undefined)
})

t.test('a proof holds for its key, its role and these two hellos only', async (t) => {
  const [h1, h2, key] = [encodeHello(hello), encodeHello({ ...hello, role: 'listener' }), Buffer.alloc(32, 1)]
  const keys = new LinkKeys(key, h1, h2)
  t.ok(new LinkKeys(key, h1, h2).proves('dialer', keys.proof('dialer')))
  t.notOk(keys.proves('listener', keys.proof('dialer')), 'a proof cannot be reflected')
  t.notOk(new LinkKeys(Buffer.alloc(32, 2), h1, h2).proves('dialer', keys.proof('dialer')))
  t.notOk(new LinkKeys(key, encodeHello({ ...hello, incarnation: 43 }), h2).proves('dialer', keys.proof('dialer')))
  t.notOk(new LinkKeys(key, h2, h1).proves('dialer', keys.proof('dialer')))
  t.notOk(keys.proves('dialer', Buffer.alloc(0)))
})

t.test('a message is opened once, in order, unaltered, at the right end', async (t) => {
  const keys = new LinkKeys(Buffer.alloc(32, 1), encodeHello(hello), encodeHello(hello))
  const seal = keys.channel('dialer')
  const [one, two] = [seal.seal(1, Buffer.from('one')), seal.seal(2, Buffer.from('two'))]
  const code = (s: MessageSeal, m: Buffer): string => {
    const opened = s.open(m)
    return opened.ok ? `${opened.value.channel} ${opened.value.payload}` : opened.fault.code
  }
  const end = keys.channel('dialer')
  t.equal(code(end, one), '1 one')
  t.equal(code(end, two), '2 two')
  t.equal(code(end, two), 'CRDT_LINK_MAC', 'replayed')
  t.equal(code(keys.channel('dialer'), two), 'CRDT_LINK_MAC', 'out of order')
  t.equal(code(keys.channel('listener'), one), 'CRDT_LINK_MAC', 'reflected')
  for (let i = 0; i < one.length; i++) {
    const altered = Buffer.from(one)
    altered[i] = altered[i]! ^ 1
    t.equal(code(keys.channel('dialer'), altered), 'CRDT_LINK_MAC', `byte ${i}`)
  }
  t.equal(code(keys.channel('dialer'), Buffer.alloc(5)), 'CRDT_LINK_MAC', 'too short')
})

t.test('a reserved flag and an unknown channel are refused, even signed', async (t) => {
  /** Signs any header, as a member with other software could. */
  const signed = (channel: number, flags: number): Buffer => {
    const other = new MessageSeal(Buffer.alloc(32, 1)).seal(channel, Buffer.alloc(0))
    if (flags === 0) return other
    // The MAC covers the flags: a message with one set cannot be made by altering bytes.
    other[1] = flags
    return other
  }
  t.match(new MessageSeal(Buffer.alloc(32, 1)).open(signed(9, 0)), { fault: { code: 'CRDT_LINK_CHANNEL' } })
  t.match(new MessageSeal(Buffer.alloc(32, 1)).open(signed(1, 1)), { fault: { code: 'CRDT_LINK_MAC' } })
})
