import { type Answer, decode, encode, type RecordType } from 'dns-packet'
import fc from 'fast-check'
import t from 'tap'
import { answer, type ZoneAnswer } from '../../geo/answer.ts'
import { encodeAnswer, MAX_QUERY_BYTES, MAX_UDP_ANSWER_BYTES, type Query, readQuery, udpLimit } from '../../geo/dns-message.ts'
import { below, SeededRandom } from '../../src/base/prng.ts'
import { demoZone, viewOf } from './zone-fixture.ts'

const OPT = {
  type: 'OPT',
  name: '.',
  udpPayloadSize: 4096,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
} satisfies Answer

const queryBytes = (name: string, type: RecordType, o: { edns?: number; flags?: number; version?: number } = {}): Buffer =>
  encode({
    type: 'query',
    id: 0x1234,
    flags: o.flags ?? 0x0100,
    questions: [{ type, name, class: 'IN' }],
    additionals: o.edns === undefined ? [] : [{ ...OPT, udpPayloadSize: o.edns, ednsVersion: o.version ?? 0 }],
  })

const read = (bytes: Uint8Array): Query => {
  const result = readQuery(bytes)
  if (!result.ok) throw new Error(`${result.fault.code}: ${result.fault.detail}`)
  return result.value
}

/** Bytes as hex with blanks. */
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex')
const HEADER = '1234 0100 0001 0000 0000 0000'
const QUESTION = '03 736970 07 6578616d706c65 03 6e6574 00 0001 0001'
/** rcode of a reply, or undefined where nothing is said. */
const rcodeOf = (reply: Uint8Array | undefined): number | undefined =>
  reply === undefined ? undefined : (reply[3] as number) & 15

t.test('a query is read as it was spelled', (t) => {
  const query = read(queryBytes('SIP.Example.NET', 'A'))
  t.match(query, { id: 0x1234, name: 'SIP.Example.NET', type: 'A', typeNumber: 1, recursionDesired: true, edns: undefined })
  t.equal(udpLimit(query), 512)
  t.equal(udpLimit(read(queryBytes('a.net', 'A', { edns: 100 }))), 512, 'less than 512 counts as 512 (RFC 6891)')
  t.equal(udpLimit(read(queryBytes('a.net', 'A', { edns: 1000 }))), 1000)
  t.equal(udpLimit(read(queryBytes('a.net', 'A', { edns: 4096 }))), MAX_UDP_ANSWER_BYTES)
  t.equal(read(queryBytes('a.net', 'TXT')).type, 'OTHER')
  t.equal(read(hex(`${HEADER} 00 0001 0001`)).name, '', 'the root')
  t.equal(read(hex(`${HEADER} 03 612e62 00 0001 0001`)).name, 'a\\.b', 'a dot inside a label is no other name')
  t.end()
})

const long = (labels: number): string => `3f ${'61'.repeat(63)}`.repeat(labels)
const FAULTS: Readonly<Record<string, readonly [Buffer, string, number | undefined]>> = {
  'nothing at all': [hex(''), 'DNS_SHORT', undefined],
  'half a header': [hex('1234 0100 0001'), 'DNS_SHORT', undefined],
  'an answer': [hex(`1234 8100 0001 0000 0000 0000 ${QUESTION}`), 'DNS_NOT_A_QUERY', undefined],
  'opcode NOTIFY': [hex(`1234 2000 0001 0000 0000 0000 ${QUESTION}`), 'DNS_OPCODE', 4],
  'opcode UPDATE': [hex(`1234 2800 0001 0000 0000 0000 ${QUESTION}`), 'DNS_OPCODE', 4],
  'no question': [hex('1234 0100 0000 0000 0000 0000'), 'DNS_COUNTS', 1],
  'two questions': [hex(`1234 0100 0002 0000 0000 0000 ${QUESTION} ${QUESTION}`), 'DNS_COUNTS', 1],
  '65,535 questions in a header': [hex('1234 0100 ffff ffff ffff ffff'), 'DNS_COUNTS', 1],
  'answers in a query': [hex(`1234 0100 0001 0001 0000 0000 ${QUESTION}`), 'DNS_COUNTS', 1],
  'authorities in a query': [hex(`1234 0100 0001 0000 0001 0000 ${QUESTION}`), 'DNS_COUNTS', 1],
  '65,535 additional records': [hex(`1234 0100 0001 0000 0000 ffff ${QUESTION}`), 'DNS_COUNTS', 1],
  'a question that is missing': [hex(HEADER), 'DNS_NAME', 1],
  'a label past the end': [hex(`${HEADER} 3f 61`), 'DNS_NAME', 1],
  'a name without an end': [hex(`${HEADER} 01 61 01 62`), 'DNS_NAME', 1],
  'a pointer to itself': [hex(`${HEADER} c00c 0001 0001`), 'DNS_NAME', 1],
  'a pointer into the header': [hex(`${HEADER} 01 61 c000 0001 0001`), 'DNS_NAME', 1],
  'a label type that is not': [hex(`${HEADER} 41 6161 00 0001 0001`), 'DNS_NAME', 1],
  'a name over 255 bytes': [hex(`${HEADER} ${long(4)} 00 0001 0001`), 'DNS_NAME', 1],
  'a question without a class': [hex(`${HEADER} 01 61 00 0001`), 'DNS_SHORT', 1],
  'bytes left over': [hex(`${HEADER} ${QUESTION} 00`), 'DNS_TRAILING', 1],
  'an OPT that is missing': [hex(`1234 0100 0001 0000 0000 0001 ${QUESTION}`), 'DNS_SHORT', 1],
  'an OPT that ends early': [hex(`1234 0100 0001 0000 0000 0001 ${QUESTION} 00 0029 1000 00000000`), 'DNS_SHORT', 1],
  'an OPT with data past the end': [
    hex(`1234 0100 0001 0000 0000 0001 ${QUESTION} 00 0029 1000 00000000 0004 0000`),
    'DNS_SHORT',
    1,
  ],
  'an OPT with a name': [hex(`1234 0100 0001 0000 0000 0001 ${QUESTION} 01 61 00 0029 1000 00000000 0000`), 'DNS_EDNS', 1],
  'two OPTs': [
    hex(`1234 0100 0001 0000 0000 0002 ${QUESTION} 00 0029 1000 00000000 0000 00 0029 1000 00000000 0000`),
    'DNS_EDNS',
    1,
  ],
  'class CHAOS': [hex(`${HEADER} 07 76657273696f6e 04 62696e64 00 0010 0003`), 'DNS_REFUSED', 5],
  'a transfer': [hex(`${HEADER} 07 6578616d706c65 03 6e6574 00 00fc 0001`), 'DNS_REFUSED', 5],
  'more than a query can be': [Buffer.concat([hex(`${HEADER} ${QUESTION}`), Buffer.alloc(MAX_QUERY_BYTES)]), 'DNS_LONG', 1],
}

for (const [what, [bytes, code, rcode]] of Object.entries(FAULTS)) {
  t.test(`refuses ${what}`, (t) => {
    const result = readQuery(bytes)
    t.equal(result.ok ? 'accepted' : result.fault.code, code)
    if (result.ok) {
      t.end()
      return
    }
    t.equal(rcodeOf(result.fault.reply), rcode)
    if (result.fault.reply !== undefined) {
      t.equal(Buffer.from(result.fault.reply).readUInt16BE(0), 0x1234, 'with the id')
      t.ok((Buffer.from(result.fault.reply).readUInt16BE(2) & 0x8000) !== 0, 'as an answer')
      t.ok(result.fault.reply.length <= bytes.length + 11, 'and no larger than the query and an OPT')
    }
    t.end()
  })
}

t.test('an EDNS version that we do not speak is answered BADVERS with ours', (t) => {
  const result = readQuery(queryBytes('sip.example.net', 'A', { edns: 1232, version: 1 }))
  t.notOk(result.ok)
  if (result.ok || result.fault.reply === undefined) {
    t.end()
    return
  }
  const reply = decode(Buffer.from(result.fault.reply))
  t.match(reply.additionals, [{ type: 'OPT', extendedRcode: 1, ednsVersion: 0 }])
  t.equal(rcodeOf(result.fault.reply), 0)
  t.end()
})

t.test('other additional records (a TSIG, a cookie in an OPT) do not disturb', (t) => {
  const tsig = hex(
    `1234 0100 0001 0000 0000 0002 ${QUESTION} c00c 00fa 00ff 00000000 0002 0000 00 0029 0500 00008000 0004 000a0000`,
  )
  t.match(read(tsig), { name: 'sip.example.net', edns: { payloadBytes: 1280, dnssecOk: true } })
  t.end()
})

const zone = demoZone()
const reply = (bytes: Buffer, limit?: number): Buffer => {
  const query = read(bytes)
  return Buffer.from(encodeAnswer(query, answer(query, '127.0.1.9', zone, viewOf()), limit ?? udpLimit(query)))
}

t.test('an answer has our flags, the question byte for byte, and the records', (t) => {
  const bytes = queryBytes('sIp.eXAMPLE.net', 'A')
  const packet = decode(reply(bytes))
  t.match(packet, { id: 0x1234, flag_qr: true, flag_aa: true, flag_rd: true, flag_ra: false, flag_tc: false, rcode: 'NOERROR' })
  t.match(packet.questions, [{ name: 'sIp.eXAMPLE.net', type: 'A' }])
  t.match(packet.answers, [
    { name: 'sIp.eXAMPLE.net', type: 'A', ttl: 5, data: '127.0.1.1' },
    { type: 'A', data: '127.0.1.2' },
  ])
  t.same(packet.additionals, [], 'no OPT where none was asked with')
  t.match(decode(reply(queryBytes('sip.example.net', 'A', { edns: 4096 }))).additionals, [{ type: 'OPT', udpPayloadSize: 1232 }])
  t.equal(decode(reply(queryBytes('sip.example.net', 'A', { flags: 0 }))).flag_rd, false)
  t.match(decode(reply(queryBytes('no.example.net', 'A'))), {
    rcode: 'NXDOMAIN',
    flag_aa: true,
    authorities: [{ type: 'SOA' }],
  } as object)
  t.match(decode(reply(queryBytes('example.com', 'A'))), { rcode: 'REFUSED', flag_aa: false } as object)
  t.end()
})

t.test('every kind of record survives the codec', (t) => {
  for (const [name, type] of [
    ['example.net', 'SOA'],
    ['example.net', 'NS'],
    ['example.net', 'NAPTR'],
    ['_sip._udp.example.net', 'SRV'],
    ['_sip._tcp.eu-west-1.example.net', 'SRV'],
  ] as const) {
    const query = read(queryBytes(name, type))
    const records = answer(query, '127.0.1.9', zone, viewOf())
    const packet = decode(Buffer.from(encodeAnswer(query, records, 65_535)))
    const plain = (list: readonly Answer[] | undefined): unknown => list?.map((a) => ['data' in a ? a.data : '', a.name, a.type])
    t.match(plain(packet.answers), plain(records.answers), `${name} ${type}`)
    t.match(plain(packet.additionals), plain(records.additionals), `${name} ${type}, additional`)
  }
  t.end()
})

t.test('what does not fit: the additional records go first, then the answer and TC', (t) => {
  const bytes = queryBytes('_sip._udp.example.net', 'SRV', { edns: 1232 })
  const whole = decode(reply(bytes, 65_535))
  t.equal(whole.additionals?.length, 7)
  const wholeBytes = reply(bytes, 65_535).length
  for (let limit = 60; limit <= wholeBytes; limit += 7) {
    const bytesOut = reply(bytes, limit)
    const packet = decode(bytesOut)
    t.equal(packet.additionals?.at(-1)?.type, 'OPT', 'the OPT stays')
    if (packet.flag_tc) t.same([packet.answers, packet.additionals?.length], [[], 1], `${limit}`)
    else t.equal(packet.answers?.length, 6, `${limit}`)
    if (!packet.flag_tc || limit > 70) t.ok(bytesOut.length <= limit, `${bytesOut.length} of ${limit}`)
  }
  t.equal(decode(reply(bytes, wholeBytes)).flag_tc, false)
  t.end()
})

t.test('an answer over UDP never exceeds what the client takes', (t) => {
  const many = (count: number): ZoneAnswer => ({
    rcode: 'NOERROR',
    authoritative: true,
    answers: Array.from(
      { length: count },
      (_, i) => ({ type: 'A', name: 'sip.example.net', ttl: 5, data: `10.0.0.${i % 256}` }) as const,
    ),
    authorities: [],
    additionals: Array.from(
      { length: count },
      (_, i) => ({ type: 'A', name: `n${i}.example.net`, ttl: 5, data: '10.0.0.1' }) as const,
    ),
  })
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 80 }), fc.integer({ min: 0, max: 65_535 }), (count, size) => {
      const query = read(queryBytes('sip.example.net', 'A', { edns: size }))
      const bytes = Buffer.from(encodeAnswer(query, many(count), udpLimit(query)))
      const packet = decode(bytes)
      return bytes.length <= udpLimit(query) && (packet.flag_tc ? packet.answers?.length === 0 : packet.answers?.length === count)
    }),
  )
  t.end()
})

t.test('no bytes make it throw: noise, truncations, flipped bits', (t) => {
  const random = new SeededRandom(5)
  const valid = queryBytes('_sip._udp.example.net', 'SRV', { edns: 1232 })
  let answered = 0
  for (let i = 0; i < 20_000; i++) {
    let bytes: Buffer
    if (i % 3 === 0) bytes = Buffer.from(random.bytes(below(random, 120)))
    else if (i % 3 === 1) bytes = valid.subarray(0, below(random, valid.length))
    else {
      bytes = Buffer.from(valid)
      for (let n = below(random, 4); n >= 0; n--) bytes[below(random, bytes.length)]! ^= 1 << below(random, 8)
    }
    const query = readQuery(bytes)
    if (!query.ok) continue
    answered++
    const out = encodeAnswer(query.value, answer(query.value, '127.0.1.9', zone, viewOf()), udpLimit(query.value))
    if (out.length > 1232) t.fail(`${out.length} bytes for ${bytes.toString('hex')}`)
  }
  t.ok(answered > 100, `${answered} were queries all the same`)
  t.end()
})
