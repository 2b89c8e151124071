import t from 'tap'
import { BindingIndex } from '../../../crdt/bindings.ts'
import { bindingFault } from '../../../crdt/codec.ts'
import { HlcClock } from '../../../src/base/hlc.ts'
import { Registrar } from '../../../src/registrar/registrar.ts'
import type { Flow } from '../../../src/sip/flow.ts'
import type { SipRequest, SipResponse } from '../../../src/sip/message.ts'
import { parseMessage } from '../../../src/sip/parse.ts'
import { CONSTANTS } from '../proxy/world.ts'

const FLOW: Flow = { transport: 'udp', localAddress: '127.0.1.1', localPort: 5060, remoteAddress: '127.0.0.1', remotePort: 6060 }

function setup(limits: Partial<{ maxContactsPerAor: number; cseq: 'strict' | 'lenient' }> = {}) {
  const index = new BindingIndex(CONSTANTS)
  const hlc = new HlcClock(500)
  const world = { nowMs: 1_800_000_000_000 }
  const registrar = new Registrar({
    domains: new Set(['example.net']),
    minExpiresS: 60,
    defaultExpiresS: 3600,
    maxExpiresS: 7200,
    maxContactsPerAor: 10,
    cseq: 'strict',
    ...limits,
    store: {
      lookup: (aor, nowMs) => index.lookup(aor, nowMs),
      admit: (q, nowMs) => index.admit(q, nowMs),
      keys: (aor) => index.keys(aor),
      fault: bindingFault,
      write: (w, nowMs) => {
        const e = { ...w, kind: 'binding' as const, hlc: hlc.tick(nowMs), region: 'us-east', node: 'us-east-1', incarnation: 1 }
        index.add(e)
        return e
      },
    },
  })
  const register = (headers: string, o: { to?: string; cseq?: number; callId?: string; account?: string } = {}): SipResponse => {
    const text = `REGISTER sip:example.net SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:6060;branch=z9hG4bK${Math.floor(world.nowMs % 1e6)}${o.cseq ?? 1}
Max-Forwards: 70
From: <${o.to ?? 'sip:bob@example.net'}>;tag=f
To: <${o.to ?? 'sip:bob@example.net'}>
Call-ID: ${o.callId ?? 'reg-1'}
CSeq: ${o.cseq ?? 1} REGISTER
${headers}Content-Length: 0

`
    const parsed = parseMessage(Buffer.from(text.replace(/\n/g, '\r\n'), 'latin1'))
    if (!parsed.ok) throw new Error(parsed.fault.detail)
    return registrar.handleRegister(parsed.value as SipRequest, FLOW, o.account, false, world.nowMs).response
  }
  return { index, world, register }
}
const contacts = (r: SipResponse): string[] => r.headers.values('Contact')

t.test('a contact is bound, fetched, refreshed and removed', async (t) => {
  const { register, world } = setup()
  const ok = register('Contact: <sip:bob@192.0.2.1:5060>;q=0.7\nExpires: 600\n')
  t.equal(ok.status, 200)
  t.same(contacts(ok), ['<sip:bob@192.0.2.1:5060>;q=0.7;expires=600'])
  world.nowMs += 10_000
  t.same(contacts(register('', { cseq: 2 })), ['<sip:bob@192.0.2.1:5060>;q=0.7;expires=590'], 'fetch')
  t.match(contacts(register('Contact: <sip:bob@192.0.2.1:5060>;expires=100\n', { cseq: 3 })), [/expires=100$/])
  t.same(contacts(register('Contact: <sip:bob@192.0.2.1:5060>;expires=0\n', { cseq: 4 })), [])
})

t.test('expiry: the parameter beats the header, the default fills in, the maximum cuts, the minimum is 423', async (t) => {
  const { register } = setup()
  t.match(contacts(register('Contact: <sip:a@192.0.2.1>;expires=120\nExpires: 600\n')), [/expires=120$/])
  t.match(contacts(register('Contact: <sip:a@192.0.2.1>\n', { cseq: 2 })), [/expires=3600$/])
  t.match(contacts(register('Contact: <sip:a@192.0.2.1>;expires=999999\n', { cseq: 3 })), [/expires=7200$/])
  t.match(
    contacts(register('Contact: <sip:a@192.0.2.1>;expires=99999999999999999999999\n', { cseq: 4 })),
    [/expires=3600$/],
    'too many digits is malformed',
  )
  const brief = register('Contact: <sip:a@192.0.2.1>;expires=59\n', { cseq: 5 })
  t.equal(brief.status, 423)
  t.equal(brief.headers.get('Min-Expires'), '60')
})

t.test('several contacts are taken as a whole or not at all', async (t) => {
  const { register } = setup()
  t.equal(register('Contact: <sip:a@192.0.2.1>, <sip:a@192.0.2.2>;expires=10\n').status, 423)
  t.same(contacts(register('', { cseq: 2 })), [])
  t.equal(contacts(register('Contact: <sip:a@192.0.2.1>, <sip:a@192.0.2.2>;q=0.1\n', { cseq: 3 })).length, 2)
  t.equal(register('Contact: <sip:a@192.0.2.1>, <sip:A@192.0.2.3>\n', { cseq: 3 }).status, 500, 'one of them with an old CSeq')
  t.equal(contacts(register('', { cseq: 4 })).length, 2)
})

t.test('Contact * wants Expires 0 and no company, and clears', async (t) => {
  const { register } = setup()
  register('Contact: <sip:a@192.0.2.1>, <sip:a@192.0.2.2>\n')
  t.equal(register('Contact: *\n', { cseq: 2 }).status, 400)
  t.equal(register('Contact: *\nExpires: 60\n', { cseq: 2 }).status, 400)
  t.equal(register('Contact: *, <sip:a@192.0.2.1>\nExpires: 0\n', { cseq: 2 }).status, 400)
  t.equal(register('Contact: *\nExpires: 0\n', { cseq: 1 }).status, 500, 'CSeq not higher for the same Call-ID')
  t.equal(contacts(register('Contact: *\nExpires: 0\n', { cseq: 2 })).length, 0)
})

t.test('CSeq: a lower or equal one of the same Call-ID is refused, of another Call-ID it is not', async (t) => {
  const { register, world } = setup()
  register('Contact: <sip:a@192.0.2.1>\n', { cseq: 5 })
  t.equal(register('Contact: <sip:a@192.0.2.1>;expires=0\n', { cseq: 5 }).status, 500)
  t.equal(register('Contact: <sip:a@192.0.2.1>;expires=0\n', { cseq: 4 }).status, 500)
  t.equal(contacts(register('', { cseq: 6 })).length, 1)
  world.nowMs += 100
  t.equal(register('Contact: <sip:a@192.0.2.1>;expires=0\n', { cseq: 1, callId: 'other' }).status, 200)
  t.equal(contacts(register('', { cseq: 7 })).length, 0)
})

t.test(
  'a phone that rebooted with the same Call-ID and CSeq 1 over a removed binding: Retry-After first, then taken',
  async (t) => {
    const { register, world } = setup()
    register('Contact: <sip:a@192.0.2.1>\n', { cseq: 9 })
    world.nowMs += 70_000
    register('Contact: <sip:a@192.0.2.1>;expires=0\n', { cseq: 10 })
    world.nowMs += 1000
    const early = register('Contact: <sip:a@192.0.2.1>\n', { cseq: 1 })
    t.equal(early.status, 500)
    t.ok(Number(early.headers.get('Retry-After')) >= 1)
    world.nowMs += 5000
    t.equal(register('Contact: <sip:a@192.0.2.1>\n', { cseq: 1 }).status, 200)
    t.equal(contacts(register('', { cseq: 2 })).length, 1)
  },
)

t.test('strangers, other domains, other people’s addresses and too many contacts are refused', async (t) => {
  const { register } = setup({ maxContactsPerAor: 2 })
  t.equal(register('', { to: 'sip:bob@elsewhere.example' }).status, 404)
  t.equal(register('', { to: 'tel:+12125551234' }).status, 404)
  t.equal(register('Contact: <sip:a@192.0.2.1>\n', { account: 'alice' }).status, 403)
  t.equal(register('Contact: <sip:a@192.0.2.1>\n', { account: 'bob' }).status, 200)
  t.equal(register('Contact: <sip:a@192.0.2.1>, <sip:a@192.0.2.2>, <sip:a@192.0.2.3>\n', { cseq: 2 }).status, 403)
  t.equal(register('Contact: <sip:a@192.0.2.2>\n', { cseq: 3 }).status, 200)
  t.equal(register('Contact: <sip:a@192.0.2.3>\n', { cseq: 4 }).status, 403)
  t.equal(register('Contact: <sip:a@192.0.2.3>, <sip:a@192.0.2.2>;expires=0\n', { cseq: 5 }).status, 200, 'one out, one in')
  t.equal(register('Contact: <<>>\n', { cseq: 6 }).status, 400)
  t.equal(register(`Contact: <sip:${'a'.repeat(600)}@192.0.2.3>\n`, { cseq: 7 }).status, 400)
})

t.test('equal contacts in other spelling are one binding; an instance keeps its binding across contacts', async (t) => {
  const { register } = setup()
  register('Contact: <sip:a@EXAMPLE.com;transport=udp>\n')
  t.equal(contacts(register('Contact: <sip:a@example.com;Transport=UDP>\n', { cseq: 2 })).length, 1)
  const instance = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>";reg-id=1'
  register(`Contact: <sip:a@192.0.2.9:1000>;${instance}\n`, { cseq: 3 })
  const moved = contacts(register(`Contact: <sip:a@192.0.2.9:2000>;${instance}\n`, { cseq: 4 }))
  t.equal(moved.filter((c) => c.includes('192.0.2.9')).length, 1)
  t.ok(moved.some((c) => c.includes(':2000') && c.includes('reg-id=1') && c.includes('urn:uuid')))
})

t.test('a contact that is no URI is refused, whatever names its binding', async (t) => {
  const { register } = setup()
  for (const uri of ['sip:', 'sip:%zz@192.0.2.1', 'x'])
    t.equal(register(`Contact: <${uri}>;+sip.instance="<urn:uuid:1>";reg-id=1\n`).status, 400, uri)
})

t.test('Path is kept and given back', async (t) => {
  const { register, index, world } = setup()
  const ok = register('Contact: <sip:a@192.0.2.1>\nPath: <sip:192.0.2.77;lr>\n')
  t.same(ok.headers.values('Path'), ['<sip:192.0.2.77;lr>'])
  t.same(index.lookup('sip:bob@example.net', world.nowMs)[0]!.path, ['<sip:192.0.2.77;lr>'])
})
