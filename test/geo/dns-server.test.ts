import { execFile } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { existsSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { promisify } from 'node:util'
import { type DecodedPacket, decode, encode, type RecordType } from 'dns-packet'
import t, { type Test } from 'tap'
import { type DnsLimits, DnsServer } from '../../geo/dns-server.ts'
import type { ZoneView } from '../../geo/steer.ts'
import { silentLog } from '../../src/base/log.ts'
import { createMetrics } from '../../src/base/metrics.ts'
import { below, SeededRandom } from '../../src/base/prng.ts'
import { demoZone, viewOf } from './zone-fixture.ts'

interface Running {
  readonly server: DnsServer
  readonly metrics: ReturnType<typeof createMetrics>
  view: ZoneView
  readonly blocked: Set<string>
}

async function start(t: Test, limits: Partial<DnsLimits> = {}): Promise<Running> {
  const metrics = createMetrics()
  const blocked = new Set<string>()
  const running = { metrics, blocked, view: viewOf() } as Running & { server: DnsServer }
  const server = new DnsServer({
    listen: { address: '127.0.0.1', port: 0 },
    zone: demoZone(),
    view: () => running.view,
    log: silentLog,
    metrics,
    isBlocked: (address) => blocked.has(address),
    limits,
  })
  await server.start()
  t.teardown(() => server.stop())
  return Object.assign(running, { server })
}

const query = (name: string, type: RecordType, edns = false, id = 77): Buffer =>
  encode({
    type: 'query',
    id,
    questions: [{ type, name }],
    additionals: edns
      ? [
          {
            type: 'OPT',
            name: '.',
            udpPayloadSize: 1232,
            extendedRcode: 0,
            ednsVersion: 0,
            flags: 0,
            flag_do: false,
            options: [],
          },
        ]
      : [],
  })

/** Sends a datagram, resolves with the answer, or undefined when none came. */
async function udp(port: number, bytes: Uint8Array, waitMs = 2000): Promise<Buffer | undefined> {
  const socket = createSocket('udp4')
  try {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => resolve(undefined), waitMs)
      socket.once('message', (message) => {
        clearTimeout(timer)
        resolve(message)
      })
      socket.once('error', reject)
      socket.send(bytes, port, '127.0.0.1')
    })
  } finally {
    socket.close()
  }
}

const framed = (bytes: Uint8Array): Buffer => {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(bytes.length)
  return Buffer.concat([length, bytes])
}

const opened = (port: number): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => resolve(socket))
    socket.once('error', reject)
  })

/** Reads `count` answers; fewer when the server closes. */
const answers = (socket: Socket, count: number): Promise<DecodedPacket[]> =>
  new Promise((resolve) => {
    let pending = Buffer.alloc(0)
    const packets: DecodedPacket[] = []
    socket.on('data', (chunk) => {
      pending = Buffer.concat([pending, chunk])
      while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
        const length = pending.readUInt16BE(0)
        packets.push(decode(pending.subarray(2, 2 + length)))
        pending = pending.subarray(2 + length)
        if (packets.length === count) resolve(packets)
      }
    })
    socket.on('close', () => resolve(packets))
    socket.on('error', () => resolve(packets))
  })

const closed = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    socket.on('error', () => undefined)
    if (socket.destroyed) resolve()
    else socket.once('close', () => resolve())
    socket.resume()
  })

const dataOf = (packet: DecodedPacket): unknown[] => (packet.answers ?? []).map((a) => ('data' in a ? a.data : undefined))

const counter = async (metrics: Running['metrics'], name: string): Promise<Record<string, number>> => {
  const values = (await metrics.registry.getSingleMetric(name)?.get())?.values ?? []
  return Object.fromEntries(values.map((v) => [Object.values(v.labels).join(), v.value]))
}

t.test('answers over UDP, from the view of the moment', async (t) => {
  const running = await start(t)
  const ask = async (): Promise<unknown[]> => dataOf(decode((await udp(running.server.port, query('sip.example.net', 'A')))!))
  t.same(await ask(), ['127.0.1.1', '127.0.1.2'])
  running.view = viewOf({ unreachable: ['us-east-2'] })
  t.same(await ask(), ['127.0.1.1'])
  t.same(await counter(running.metrics, 'antipode_dns_queries_total'), { A: 2 })
})

t.test('without EDNS an SRV answer is cut at 512 bytes; TCP gives all of it', async (t) => {
  const running = await start(t)
  const small = (await udp(running.server.port, query('example.net', 'NAPTR')))!
  t.ok(small.length <= 512, `${small.length} bytes`)
  t.equal(decode(small).flag_tc, false, 'additional records may go')
  const large = (await udp(running.server.port, query('_sip._udp.example.net', 'SRV', true)))!
  t.ok(large.length > 512 && large.length <= 1232, `${large.length} bytes`)
  const socket = await opened(running.server.port)
  socket.write(framed(query('example.net', 'NAPTR')))
  const [whole] = await answers(socket, 1)
  socket.destroy()
  t.equal(whole?.answers?.length, 2)
  t.equal(whole?.additionals?.length, 18)
})

t.test('TCP: several queries in a row, in pieces, are answered in order', async (t) => {
  const running = await start(t)
  const socket = await opened(running.server.port)
  const got = answers(socket, 20)
  const stream = Buffer.concat(Array.from({ length: 20 }, (_, i) => framed(query('sip.example.net', 'A', false, 100 + i))))
  for (let at = 0; at < stream.length; at += 13) {
    socket.write(stream.subarray(at, at + 13))
    if (at % 5 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  t.same(
    (await got).map((p) => p.id),
    Array.from({ length: 20 }, (_, i) => 100 + i),
  )
  socket.destroy()
})

t.test('TCP: an idle connection is closed, though a byte drips now and then', async (t) => {
  const running = await start(t, { tcpIdleMs: 80 })
  const socket = await opened(running.server.port)
  const drip = setInterval(() => socket.writable && socket.write(Buffer.from([0])), 25)
  await closed(socket)
  clearInterval(drip)
  t.pass('closed')
})

t.test('TCP: one address cannot take all connections, and gets them back', async (t) => {
  const running = await start(t, { tcpConnectionsPerAddress: 3 })
  const held = await Promise.all([1, 2, 3].map(() => opened(running.server.port)))
  for (const socket of held) {
    const first = answers(socket, 1)
    socket.write(framed(query('sip.example.net', 'A')))
    t.equal((await first).length, 1)
  }
  await closed(await opened(running.server.port))
  t.equal((await counter(running.metrics, 'antipode_dns_refused_total')).DNS_TCP_CONNECTIONS, 1)
  for (const socket of held) socket.end()
  await Promise.all(held.map(closed))
  const again = await opened(running.server.port)
  const got = answers(again, 1)
  again.write(framed(query('sip.example.net', 'A')))
  t.equal((await got).length, 1)
  again.destroy()
})

t.test('TCP: a message longer than a query can be closes the connection', async (t) => {
  const running = await start(t)
  const socket = await opened(running.server.port)
  socket.write(Buffer.from([0xff, 0xff, 0, 0]))
  await closed(socket)
  t.equal((await counter(running.metrics, 'antipode_dns_refused_total')).DNS_LONG, 1)
})

t.test('TCP: a client that asks and never reads is closed', async (t) => {
  const running = await start(t, { tcpUnreadBytes: 20_000 })
  const socket = await opened(running.server.port)
  socket.pause()
  const many = Buffer.concat(Array.from({ length: 2000 }, () => framed(query('example.net', 'NAPTR'))))
  const gone = new Promise<void>((resolve) => {
    socket.on('error', () => resolve())
    socket.on('close', () => resolve())
  })
  let open = true
  void gone.then(() => {
    open = false
  })
  for (let i = 0; i < 200 && open; i++) {
    socket.write(many)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  t.notOk(open)
  socket.destroy()
})

t.test('garbage by UDP and TCP is counted, and the server goes on', async (t) => {
  const running = await start(t)
  const random = new SeededRandom(3)
  const socket = createSocket('udp4')
  const valid = query('_sip._udp.example.net', 'SRV', true)
  for (let i = 0; i < 500; i++) {
    const bytes = i % 2 === 0 ? random.bytes(below(random, 600)) : valid.subarray(0, below(random, valid.length))
    await new Promise<void>((resolve) => socket.send(bytes, running.server.port, '127.0.0.1', () => resolve()))
    // So that no buffer of the kernel overflows: what is lost there is not counted.
    if (i % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 2))
  }
  socket.close()
  for (let i = 0; i < 20; i++) {
    const tcp = await opened(running.server.port)
    const gone = closed(tcp)
    tcp.write(framed(random.bytes(8 + below(random, 100))))
    tcp.end()
    await gone
  }
  t.same(dataOf(decode((await udp(running.server.port, query('us-east-1.example.net', 'A')))!)), ['127.0.1.1'])
  const refused = await counter(running.metrics, 'antipode_dns_refused_total')
  const total = Object.values(refused).reduce((a, b) => a + b, 0)
  t.ok(total >= 400, `${total} refused: ${Object.keys(refused)}`)
})

t.test('who is blocked by a drill hears nothing', async (t) => {
  const running = await start(t)
  running.blocked.add('127.0.0.1')
  t.equal(await udp(running.server.port, query('sip.example.net', 'A'), 100), undefined)
  const socket = await opened(running.server.port)
  await closed(socket)
  running.blocked.clear()
  t.ok(await udp(running.server.port, query('sip.example.net', 'A')))
})

t.test('an answer is not answered', async (t) => {
  const running = await start(t)
  const bytes = query('sip.example.net', 'A')
  bytes[2]! |= 0x80
  t.equal(await udp(running.server.port, bytes, 100), undefined)
})

t.test('a port in use is named, and nothing is left open', async (t) => {
  const running = await start(t)
  const second = new DnsServer({
    listen: { address: '127.0.0.1', port: running.server.port },
    zone: demoZone(),
    view: () => viewOf(),
    log: silentLog,
    metrics: createMetrics(),
  })
  await t.rejects(second.start(), { code: 'NET_PORT_IN_USE', message: new RegExp(`127.0.0.1:${running.server.port}`) })
  const taken = createSocket('udp4')
  await new Promise<void>((resolve) => taken.bind(0, '127.0.0.1', resolve))
  const { port } = taken.address()
  const third = new DnsServer({
    listen: { address: '127.0.0.1', port },
    zone: demoZone(),
    view: () => viewOf(),
    log: silentLog,
    metrics: createMetrics(),
  })
  await t.rejects(third.start(), { code: 'NET_PORT_IN_USE' })
  await t.rejects(opened(port), { code: 'ECONNREFUSED' }, 'its TCP port is free again')
  taken.close()
})

t.test('dig agrees', { skip: existsSync('/usr/bin/dig') ? false : 'dig is not installed' }, async (t) => {
  const running = await start(t)
  running.view = viewOf({ at: 'eu-west-1', dead: ['us-east', 'us-east-1', 'us-east-2'] })
  const dig = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)('dig', ['@127.0.0.1', '-p', `${running.server.port}`, '+time=2', '+tries=1', ...args])).stdout
  t.same((await dig('+short', 'sip.example.net')).trim().split('\n'), ['127.0.2.1', '127.0.2.2'])
  t.same((await dig('+short', '+tcp', 'us-east-1.example.net')).trim().split('\n').length, 1)
  const srv = (await dig('+short', '_sip._udp.example.net', 'SRV')).trim().split('\n')
  t.same(srv[0], '10 100 5060 eu-west-1.example.net.')
  t.same(srv.length, 6)
  t.match(await dig('+short', 'example.net', 'NAPTR'), /^10 10 "s" "SIP\+D2U" "" _sip\._udp\.example\.net\.$/m)
  t.match(await dig('+short', 'example.net', 'SOA'), /^ns1\.example\.net\. hostmaster\.example\.net\. 4711 60 15 604800 5$/m)
  t.match(await dig('+short', 'example.net', 'NS'), /^ns6\.example\.net\.$/m)
  t.match(await dig('nobody.example.net'), /status: NXDOMAIN.*\n;; flags: qr aa rd;/)
  t.match(await dig('example.org'), /status: REFUSED/)
  t.match(await dig('+opcode=notify', 'example.net', 'SOA'), /status: NOTIMP/)
  t.match(await dig('+edns=1', '+noednsnegotiation', 'sip.example.net'), /status: BADVERS/)
  t.match(await dig('example.net', 'AXFR'), /Transfer failed/)
  t.match(await dig('+noedns', 'SIP.eXample.net'), /SIP\.eXample\.net\.\s+5\s+IN\s+A\s+127\.0\.2\.1/)
  const stdout = await dig('+norecurse', '_sip._udp.example.net', 'SRV')
  t.notMatch(stdout, /WARNING|malformed|extra/i)
})
