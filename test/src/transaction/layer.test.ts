import fc from 'fast-check'
import t from 'tap'
import { makeResponse } from '../../../src/sip/respond.ts'
import type { TransactionOutput } from '../../../src/transaction/layer.ts'
import { Rig, read, requestOf, responseTo, TCP, textOf, textRequest, UDP } from './rig.ts'

const sends = (outputs: readonly TransactionOutput[]) => outputs.filter((o) => o.kind === 'send')
const bytesOf = (output: TransactionOutput | undefined): string =>
  output?.kind === 'send' ? output.bytes.toString('latin1') : ''

t.test('matching requests (RFC 3261 §17.2.3)', (t) => {
  const via = (sentBy: string, branch: string) => ({ via: `SIP/2.0/UDP ${sentBy};branch=${branch}` })
  const rig = new Rig()
  rig.receive(textRequest('OPTIONS', via('192.0.2.9:5070', 'z9hG4bKa')))
  rig.receive(textRequest('OPTIONS', via('192.0.2.9:5071', 'z9hG4bKa')))
  rig.receive(textRequest('OPTIONS', via('192.0.2.8:5070', 'z9hG4bKa')))
  rig.receive(textRequest('OPTIONS', via('192.0.2.9:5070', 'z9hG4bKb')))
  rig.receive(textRequest('MESSAGE', via('192.0.2.9:5070', 'z9hG4bKa')))
  t.equal(rig.take().filter((o) => o.kind === 'request').length, 5, 'branch, sent-by and method each make a difference')
  rig.receive(textRequest('OPTIONS', via('192.0.2.9:5070', 'z9hG4bKa')))
  t.strictSame(rig.take(), [])
  rig.receive(textRequest('ACK', via('192.0.2.9:5070', 'z9hG4bKa')))
  const [ack] = rig.take()
  t.match(ack, { kind: 'request', id: 0, invite: undefined }, 'an ACK that fits no INVITE is for the TU, without a transaction')
  t.equal(rig.layer.counts().nonInviteServer, 5)
  t.end()
})

t.test('a request without the magic cookie is refused, an ACK in silence', (t) => {
  const rig = new Rig()
  const via = 'SIP/2.0/UDP 192.0.2.9:5070;branch=1'
  rig.receive(textRequest('INVITE', { via }))
  t.strictSame(rig.story(), ['0 > 400 Branch Lacks Magic Cookie', '0 refused'])
  rig.receive(textRequest('ACK', { via, toTag: 'x' }))
  rig.receive(textRequest('OPTIONS', { via: 'SIP/2.0/UDP 192.0.2.9:5070' }))
  t.strictSame(rig.story(), ['0 refused', '0 > 400 Branch Lacks Magic Cookie', '0 refused'])
  t.equal(rig.layer.nextTimeoutMs(), undefined)
  t.end()
})

t.test('received and rport (RFC 3261 §18.2, RFC 3581)', (t) => {
  const cases = [
    // sent-by and parameters as they came, as they go on, and the port that the answer goes to; the source is 192.0.2.9:5070
    ['192.0.2.9:5070;branch=z9hG4bKx', '192.0.2.9:5070;branch=z9hG4bKx', 5070],
    ['192.0.2.9;branch=z9hG4bKx', '192.0.2.9;branch=z9hG4bKx', 5060],
    ['192.0.2.9:5099;branch=z9hG4bKx', '192.0.2.9:5099;branch=z9hG4bKx', 5099],
    ['phone.example:5099;branch=z9hG4bKx', 'phone.example:5099;branch=z9hG4bKx;received=192.0.2.9', 5099],
    ['10.0.0.1:5060;branch=z9hG4bKx;rport', '10.0.0.1:5060;branch=z9hG4bKx;rport=5070;received=192.0.2.9', 5070],
    ['192.0.2.9:5099;rport;branch=z9hG4bKx', '192.0.2.9:5099;branch=z9hG4bKx;rport=5070;received=192.0.2.9', 5070],
    ['10.0.0.1;branch=z9hG4bKx;rport=9;received=198.51.100.1', '10.0.0.1;branch=z9hG4bKx;rport=5070;received=192.0.2.9', 5070],
    ['192.0.2.9:5070;branch=z9hG4bKx;received=198.51.100.1', '192.0.2.9:5070;branch=z9hG4bKx', 5070],
    ['192.0.2.9:5070;branch=z9hG4bKx;maddr=198.51.100.1', '192.0.2.9:5070;branch=z9hG4bKx;maddr=198.51.100.1', 5070],
  ] as const
  for (const [came, goesOn, port] of cases) {
    const rig = new Rig()
    const { id, request } = rig.incoming(textRequest('OPTIONS', { via: `SIP/2.0/UDP ${came}` }))
    t.equal(request.headers.get('Via'), `SIP/2.0/UDP ${goesOn}`)
    rig.layer.respond(id, makeResponse(request, 200), 0)
    const [sent] = sends(rig.take())
    t.match(sent, { flow: { ...UDP, remotePort: port } }, came)
  }
  t.test('a second value on the same line is left alone', (t) => {
    const rig = new Rig()
    const { request } = rig.incoming(
      textRequest('OPTIONS', { via: 'SIP/2.0/UDP 10.0.0.1;rport;branch=z9hG4bKx, SIP/2.0/TCP 10.0.0.2;branch=z9hG4bKy' }),
    )
    t.strictSame(request.headers.values('Via'), [
      'SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx;rport=5070;received=192.0.2.9',
      'SIP/2.0/TCP 10.0.0.2;branch=z9hG4bKy',
    ])
    t.end()
  })
  t.test('IPv6 in brackets is the address that it says', (t) => {
    const rig = new Rig()
    const flow = { ...UDP, localAddress: '::1', remoteAddress: '2001:db8::9' }
    const { request } = rig.incoming(textRequest('OPTIONS', { via: 'SIP/2.0/UDP [2001:db8::9]:5070;branch=z9hG4bKx' }), flow)
    t.equal(request.headers.get('Via'), 'SIP/2.0/UDP [2001:db8::9]:5070;branch=z9hG4bKx')
    t.end()
  })
  t.end()
})

t.test('on a stream the answer goes back on the connection; if that is gone, once to the port of sent-by', (t) => {
  const rig = new Rig()
  const { id, request } = rig.incoming(textRequest('INVITE', { via: 'SIP/2.0/TCP 192.0.2.9:5099;branch=z9hG4bKx' }), TCP)
  rig.layer.respond(id, makeResponse(request, 200), 0)
  const [first] = sends(rig.take())
  t.strictSame(first?.flow, TCP)
  rig.layer.handleSendError(id, 0)
  const [second] = sends(rig.take())
  t.strictSame(second?.flow, {
    transport: 'tcp',
    localAddress: '127.0.1.1',
    localPort: 5060,
    remoteAddress: '192.0.2.9',
    remotePort: 5099,
  })
  t.equal(second?.bytes, first?.bytes)
  rig.layer.handleSendError(id, 0)
  t.strictSame(rig.story(), ['0 serverTransportError'])
  t.end()
})

t.test('a client request goes out under our Via, with a fresh branch each', (t) => {
  const rig = new Rig()
  const forwarded = requestOf('MESSAGE')
  rig.layer.request(forwarded, UDP, 0)
  rig.layer.request(requestOf('MESSAGE'), TCP, 0)
  const [udp, tcp] = sends(rig.take()).map((o) => read(bytesOf(o)))
  t.match(udp?.headers.values('Via'), [/^SIP\/2\.0\/UDP 127\.0\.1\.1:5060;rport;branch=z9hG4bK[0-9a-z.]+$/, /z9hG4bKone/])
  t.match(tcp?.headers.values('Via'), [/^SIP\/2\.0\/TCP 127\.0\.1\.1:5060;branch=z9hG4bK[0-9a-z.]+$/, /z9hG4bKone/])
  t.not(udp?.topVia.branch, tcp?.topVia.branch)
  t.end()
})

t.test('matching responses (§17.1.3)', (t) => {
  const rig = new Rig()
  const { request } = rig.outgoing('INVITE')
  const other = responseTo(request, 200)
  other.headers.set('CSeq', '4711 CANCEL')
  rig.layer.handleResponse(other, UDP, 0)
  t.strictSame(rig.story(), ['0 strayResponse'], 'the method of CSeq counts')
  rig.answer(request, 180)
  t.strictSame(rig.story(), ['0 response 180'])
  t.test('a stranger cannot reach a server transaction through a made-up branch', (t) => {
    rig.incoming(textRequest('INVITE'))
    const crafted = responseTo(request, 200)
    crafted.headers.set('Via', 'SIP/2.0/UDP 127.0.1.1:5060;branch="z9hG4bKone|192.0.2.9:5070"')
    t.equal(crafted.topVia.branch, 'z9hG4bKone|192.0.2.9:5070')
    rig.layer.handleResponse(crafted, UDP, 0)
    t.strictSame(rig.story(), ['0 strayResponse'])
    t.equal(rig.layer.counts().inviteServer, 1)
    t.end()
  })
  t.end()
})

t.test("a CANCEL names the INVITE that it cancels, and is the TU's to answer", (t) => {
  const rig = new Rig()
  const invite = rig.incoming(textRequest('INVITE'))
  const cancel = rig.incoming(textRequest('CANCEL'))
  t.equal(cancel.invite, invite.id)
  rig.layer.respond(cancel.id, makeResponse(cancel.request, 200), 0)
  rig.layer.respond(invite.id, makeResponse(invite.request, 487, undefined, 'b'), 0)
  rig.receive(textRequest('CANCEL'))
  rig.receive(textRequest('ACK', { toTag: 'b' }))
  t.strictSame(rig.story(), ['0 > 200 OK', '0 > 487 Request Terminated', '0 > 200 OK'])
  const stray = rig.incoming(textRequest('CANCEL', { via: 'SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKother' }))
  t.equal(stray.invite, undefined)
  t.not(stray.id, 0)
  t.end()
})

t.test('cancelling (§9.1)', (t) => {
  t.test('waits for the first provisional response, and goes once', (t) => {
    const rig = new Rig()
    const { id, request } = rig.outgoing('INVITE')
    rig.layer.cancel(id, 0, 'SIP;cause=200;text="Call completed elsewhere"')
    rig.pass(600)
    t.strictSame(rig.story(), ['500 > INVITE'], 'the INVITE goes on being retransmitted')
    rig.answer(request, 100)
    rig.layer.cancel(id, rig.nowMs)
    rig.answer(request, 180)
    const outputs = rig.take()
    t.strictSame(outputs.map(textOf), ['response 100', '> CANCEL', 'response 180'])
    t.equal(
      bytesOf(outputs[1]),
      'CANCEL sip:bob@example.net SIP/2.0\r\n' +
        `Via: ${request.headers.get('Via')}\r\n` +
        'Max-Forwards: 70\r\nFrom: <sip:alice@example.net>;tag=a\r\nTo: <sip:bob@example.net>\r\nCall-ID: call-1\r\n' +
        'CSeq: 4711 CANCEL\r\nReason: SIP;cause=200;text="Call completed elsewhere"\r\nContent-Length: 0\r\n\r\n',
    )
    const cancel = read(bytesOf(outputs[1]))
    rig.pass(500)
    t.strictSame(rig.story(), ['1100 > CANCEL'], 'it is a transaction of its own')
    rig.layer.handleResponse(responseTo(cancel as never, 200), UDP, rig.nowMs)
    rig.answer(request, 487)
    rig.pass(40_000)
    t.strictSame(rig.story(), ['1100 > ACK', '1100 response 487', '33100 terminated'], 'its own answer stays inside')
    t.strictSame(rig.layer.counts(), { inviteClient: 0, inviteServer: 0, nonInviteClient: 0, nonInviteServer: 0 })
    t.end()
  })
  t.test('sends none when a final response comes first', (t) => {
    for (const status of [200, 486]) {
      const rig = new Rig()
      const { id, request } = rig.outgoing('INVITE')
      rig.layer.cancel(id, 0)
      rig.answer(request, status)
      rig.layer.cancel(id, 0)
      rig.pass(40_000)
      t.notOk(rig.story().some((line) => line.includes('CANCEL')))
    }
    t.end()
  })
  t.test('sends none after Timer B, nor for a request that is no INVITE, nor for an id that is gone', (t) => {
    const rig = new Rig()
    const invite = rig.outgoing('INVITE')
    rig.layer.cancel(invite.id, 0)
    const bye = rig.outgoing('BYE')
    rig.layer.cancel(bye.id, 0)
    rig.answer(bye.request, 100)
    rig.pass(40_000)
    rig.layer.cancel(invite.id, 0)
    t.notOk(rig.story().some((line) => line.includes('CANCEL')))
    t.end()
  })
  t.test('gives up 64*T1 after a CANCEL that no final response follows', (t) => {
    const rig = new Rig()
    const { id, request } = rig.outgoing('INVITE')
    rig.answer(request, 180)
    rig.pass(60_000)
    rig.layer.cancel(id, rig.nowMs)
    rig.take()
    rig.pass(40_000)
    t.strictSame(rig.story().slice(-2), ['92000 timeout', '92000 terminated'])
    t.equal(rig.layer.nextTimeoutMs(), undefined)
    t.end()
  })
  t.test('keeps to the Route of the INVITE, and takes neither its Contact nor its body along', (t) => {
    const rig = new Rig()
    const invite = requestOf('INVITE')
    invite.headers.remove('Via')
    invite.headers.append('Route', '<sip:a.example;lr>, <sip:b.example;lr>')
    invite.headers.append('Route', '<sip:c.example;lr>')
    invite.headers.append('Contact', '<sip:alice@192.0.2.9>')
    invite.body = Buffer.from('v=0\r\n')
    const id = rig.layer.request(invite, TCP, 0)
    const request = read(bytesOf(rig.take()[0])) as never
    rig.answer(request, 180, TCP)
    rig.take()
    rig.layer.cancel(id, 0)
    const [sent] = sends(rig.take())
    const cancel = read(bytesOf(sent))
    t.strictSame(sent?.flow, TCP)
    t.strictSame(cancel.headers.values('Route'), ['<sip:a.example;lr>', '<sip:b.example;lr>', '<sip:c.example;lr>'])
    t.notOk(cancel.headers.has('Contact'))
    t.equal(cancel.body.length, 0)
    t.equal(cancel.headers.values('Via').length, 1)
    t.end()
  })
  t.end()
})

t.test('past maxTransactions', (t) => {
  const via = (n: number) => ({ via: `SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bK${n}` })
  const rig = new Rig(16)
  const invite = rig.incoming(textRequest('INVITE', via(0)))
  for (let n = 1; n < 16; n++) rig.receive(textRequest('REGISTER', via(n)))
  rig.take()
  t.test('new requests are answered 503 without a transaction, and the TU may count them', (t) => {
    rig.receive(textRequest('INVITE', via(100)))
    const outputs = rig.take()
    t.strictSame(outputs.map(textOf), ['> 503 Service Unavailable', 'overload'])
    const refusal = read(bytesOf(outputs[0]))
    t.match(refusal.headers.get('Retry-After'), /^([5-9]|10)$/)
    t.not(refusal.toTag, '')
    t.equal(rig.layer.counts().inviteServer, 1)
    rig.receive(textRequest('INVITE', via(100)))
    t.equal(read(bytesOf(rig.take()[0])).toTag, refusal.toTag, 'a retransmission gets the same tag')
    rig.receive(textRequest('ACK', { ...via(100), toTag: refusal.toTag }))
    t.strictSame(rig.story(), [], 'its ACK is absorbed')
    t.end()
  })
  t.test('known transactions go on', (t) => {
    rig.receive(textRequest('REGISTER', via(3)))
    t.strictSame(rig.story(), [])
    rig.layer.respond(invite.id, makeResponse(invite.request, 180, undefined, 'b'), 0)
    t.strictSame(rig.story(), ['0 > 180 Ringing'])
    t.end()
  })
  t.test('a call in progress may hang up and one being set up may be cancelled, within an eighth more', (t) => {
    rig.receive(textRequest('CANCEL', via(0)))
    rig.receive(textRequest('BYE', { ...via(200), toTag: 'b' }))
    t.strictSame(rig.story(), ['0 request CANCEL', '0 request BYE'])
    rig.receive(textRequest('BYE', { ...via(201), toTag: 'b' }))
    t.strictSame(rig.story(), ['0 > 503 Service Unavailable', '0 overload'])
    t.end()
  })
  t.end()
})

t.test('a send that failed, named by its flow, is told to every client that waits for that flow', (t) => {
  const rig = new Rig()
  const other = { ...TCP, connectionId: 8 }
  const ids = [rig.outgoing('INVITE', TCP).id, rig.outgoing('OPTIONS', TCP).id]
  rig.outgoing('OPTIONS', other)
  rig.outgoing('OPTIONS', UDP)
  rig.layer.handleSendError({ ...TCP }, 0)
  const told = rig.take()
  t.strictSame(
    told.map((o) => [o.kind, 'id' in o ? o.id : undefined]),
    [
      ['transportError', ids[0]],
      ['terminated', ids[0]],
      ['transportError', ids[1]],
      ['terminated', ids[1]],
    ],
  )
  rig.layer.handleSendError(0, 0)
  rig.layer.handleSendError(12345, 0)
  t.strictSame(rig.story(), [])
  t.end()
})

t.test('without a transaction', (t) => {
  const rig = new Rig()
  t.test('an ACK is forwarded under a branch of its own', (t) => {
    rig.layer.forwardAck(requestOf('ACK'), UDP)
    const [sent] = rig.take()
    t.match(sent, { kind: 'send', id: 0, flow: UDP })
    t.match(read(bytesOf(sent)).headers.values('Via'), [/127\.0\.1\.1:5060;rport;branch=z9hG4bK/, /z9hG4bKone/])
    t.equal(rig.layer.nextTimeoutMs(), undefined)
    t.end()
  })
  t.test('a response finds its way by its Via', (t) => {
    rig.layer.sendStateless(makeResponse(requestOf('OPTIONS'), 200), { ...UDP, remotePort: 40_000 })
    t.match(rig.take()[0], { flow: { remoteAddress: '192.0.2.9', remotePort: 5070 } })
    t.end()
  })
  t.test('a malformed request is answered by its Via, or at its source where that cannot be read; an ACK never', (t) => {
    const request = requestOf('OPTIONS')
    const flow = { ...UDP, remotePort: 40_000 }
    rig.layer.respondStateless(request, 400, flow)
    t.match(rig.take(), [{ flow: { remoteAddress: '192.0.2.9', remotePort: 5070 } }])
    // RFC 4475 §3.1.2.1
    request.headers.set('Via', 'SIP/2.0/UDP 192.0.2.15;;,;,,')
    rig.layer.respondStateless(request, 400, flow)
    const [sent, ...more] = rig.take()
    t.match([sent, more], [{ flow }, []])
    t.match(Buffer.from(bytesOf(sent)).toString('latin1'), /^SIP\/2.0 400 .*\r\nVia: SIP\/2.0\/UDP 192.0.2.15;;,;,,\r\n/)
    request.headers.remove('Via')
    rig.layer.respondStateless(request, 400, flow)
    rig.layer.respondStateless(requestOf('ACK'), 400, UDP)
    t.strictSame(rig.story(), [])
    t.end()
  })
  t.test('a branch that is the magic cookie alone names no transaction (RFC 4475 §3.2.1)', (t) => {
    const request = requestOf('OPTIONS')
    request.headers.set('Via', 'SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bK')
    rig.layer.handleRequest(request, UDP, 0)
    t.match(rig.take(), [{ kind: 'send', id: 0 }, { kind: 'refused' }])
    t.strictSame(rig.layer.counts(), { inviteClient: 0, inviteServer: 0, nonInviteClient: 0, nonInviteServer: 0 })
    t.end()
  })
  t.end()
})

t.test('a spurious wake-up and answers to what is gone are harmless', (t) => {
  const rig = new Rig()
  rig.layer.handleTimeout(1e12)
  rig.layer.respond(99, makeResponse(requestOf('OPTIONS'), 200), 0)
  rig.layer.drop(99)
  rig.layer.cancel(99, 0)
  t.strictSame(rig.story(), [])
  t.end()
})

/** Whatever happens in whatever order: the layer neither throws, nor leaks, nor speaks of an id after it has ended. */
t.test('any run of events ends empty, and `terminated` is the last word on each id, said once', (t) => {
  const event = fc.record({
    what: fc.constantFrom('in', 'out', 'answer', 'respond', 'ack', 'cancel', 'uncancel', 'fail', 'wait'),
    which: fc.nat(5),
    method: fc.constantFrom('INVITE', 'BYE', 'CANCEL', 'OPTIONS'),
    status: fc.constantFrom(100, 180, 200, 302, 404, 487, 503, 600),
    ms: fc.constantFrom(0, 1, 499, 500, 4000, 32_000),
    stream: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(event, { maxLength: 40 }), (events) => {
      const rig = new Rig(50)
      const servers: { id: number; request: ReturnType<typeof requestOf> }[] = []
      const clients: { id: number; request: ReturnType<typeof requestOf> }[] = []
      const spoken: [number, string][] = []
      const drain = (): void => {
        for (const o of rig.take()) {
          if (o.kind === 'request' && o.id !== 0) servers.push({ id: o.id, request: o.request })
          if ('id' in o && o.id !== 0) spoken.push([o.id, o.kind])
        }
      }
      for (const e of events) {
        const flow = e.stream ? TCP : UDP
        const via = `SIP/2.0/${e.stream ? 'TCP' : 'UDP'} 192.0.2.9:5070;branch=z9hG4bK${e.which}`
        const server = servers[e.which]
        const client = clients[e.which]
        if (e.what === 'in') rig.receive(textRequest(e.method, { via }), flow)
        else if (e.what === 'ack') rig.receive(textRequest('ACK', { via, toTag: 'b' }), flow)
        else if (e.what === 'out') clients.push(rig.outgoing(e.method, flow))
        else if (e.what === 'answer' && client) rig.answer(client.request, e.status, flow)
        else if (e.what === 'respond' && server)
          rig.layer.respond(server.id, makeResponse(server.request, e.status, undefined, 'b'), rig.nowMs)
        else if (e.what === 'uncancel' && client) rig.layer.cancel(client.id, rig.nowMs)
        else if (e.what === 'fail') rig.layer.handleSendError(e.which + 1, rig.nowMs)
        else if (e.what === 'wait') rig.pass(e.ms)
        drain()
      }
      // What is still ringing is the TU's to end, as its Timer C would.
      for (const c of clients) rig.layer.cancel(c.id, rig.nowMs)
      rig.pass(1_000_000)
      drain()
      const { inviteClient, inviteServer, nonInviteClient, nonInviteServer } = rig.layer.counts()
      if (inviteClient + inviteServer + nonInviteClient + nonInviteServer !== 0) return false
      if (rig.layer.nextTimeoutMs() !== undefined) return false
      const ended = new Set<number>()
      for (const [id, kind] of spoken) {
        if (ended.has(id)) return false
        if (kind === 'terminated') ended.add(id)
      }
      return servers.every((s) => ended.has(s.id)) && clients.every((c) => ended.has(c.id))
    }),
    { numRuns: 500 },
  )
  t.end()
})
