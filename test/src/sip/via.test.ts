import fc from 'fast-check'
import t from 'tap'
import { parseVia, type Via, viaText } from '../../../src/sip/uri.ts'

const read = (text: string): Via | string => {
  const result = parseVia(text)
  return result.ok ? result.value : result.fault.detail
}

t.test('a Via value is taken apart, branch and parameters separately', async (t) => {
  const table: [string, Via][] = [
    ['SIP/2.0/UDP 192.0.2.1', { transport: 'udp', host: '192.0.2.1', port: undefined, branch: '', params: new Map() }],
    [
      'SIP/2.0/UDP Host.Example:5070;rport;branch=z9hG4bKa',
      { transport: 'udp', host: 'host.example', port: 5070, branch: 'z9hG4bKa', params: new Map([['rport', '']]) },
    ],
    [
      'sip/2.0/tcp [2001:DB8::1]:5060;Received=2001:db8::2',
      { transport: 'tcp', host: '[2001:db8::1]', port: 5060, branch: '', params: new Map([['received', '2001:db8::2']]) },
    ],
    [
      'SIP / 2.0 / TLS\thost : 5061 ; branch = z9hG4bKa ; x = "a;b"',
      { transport: 'tls', host: 'host', port: 5061, branch: 'z9hG4bKa', params: new Map([['x', 'a;b']]) },
    ],
  ]
  for (const [text, via] of table) t.same(read(text), via, text)
})

t.test('what is no Via value is refused', async (t) => {
  const table = [
    ...[
      '',
      'SIP',
      'SIP/2.0',
      'SIP/2.0/UDP',
      'SIP/2.0/UDP ',
      'SIP/3.0/UDP h',
      'HTTP/2.0/UDP h',
      'SIP/2.0/ h',
      'SIP/2.0/UDP h:0',
      'SIP/2.0/UDP h:70000',
    ],
    ...[
      'SIP/2.0/UDP h:',
      'SIP/2.0/UDP h;',
      'SIP/2.0/UDP h;;x',
      'SIP/2.0/UDP h;branch=',
      'SIP/2.0/UDP h;branch=a;branch=b',
      'SIP/2.0/UDP h x',
      'SIP/2.0/UDP ;x',
    ],
    ...['SIP/2.0/UDP h, SIP/2.0/UDP i', 'SIP/2.0/UDP h;x="y', 'SIP/2.0/UDP [::1', 'SIP/2.0/UDPh', 'SIP/2.0/UDP/x h'],
  ]
  for (const text of table) t.type(read(text), 'string', text)
})

t.test('a value that is written out and read again is the same', async () => {
  const token = fc.string({ unit: fc.constantFrom(..."aZ09-.!%*_+`'~"), minLength: 1, maxLength: 8 })
  const via = fc.record({
    transport: fc.constantFrom('udp', 'tcp', 'tls', 'ws', 'wss', 'sctp'),
    host: fc.constantFrom('example.com', '192.0.2.1', '[2001:db8::1]'),
    port: fc.option(fc.integer({ min: 1, max: 65535 }), { nil: undefined }),
    branch: fc.oneof(fc.constant(''), token),
    params: fc
      .dictionary(
        fc.constantFrom('rport', 'received', 'ttl', 'x'),
        fc.oneof(fc.constant(''), token, fc.constant('2001:db8::1'), fc.constant('a "quoted" \\ value')),
      )
      .map((entries) => new Map(Object.entries(entries))),
  })
  fc.assert(
    fc.property(via, (v) => {
      t.same(read(viaText(v)), v)
      return true
    }),
  )
})

t.test('no text whatever makes the parser throw', async () => {
  const nearly = fc.string({
    unit: fc.constantFrom('SIP/2.0/UDP ', 'SIP', '/', '2.0', 'h', ':', '5060', ';', 'branch', '=', '"', ' ', '[', ']', '\u00ff'),
  })
  fc.assert(
    fc.property(fc.oneof(nearly, fc.string({ unit: 'binary' })), (text) => read(text) !== undefined),
    { numRuns: 1000 },
  )
})
