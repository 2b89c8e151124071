import fc from 'fast-check'
import t from 'tap'
import { canonicalName, knownNameInBytes } from '../../../src/sip/header-names.ts'
import { Headers, splitValues } from '../../../src/sip/headers.ts'

const COMPACT: readonly (readonly [string, string])[] = [
  ['a', 'Accept-Contact'],
  ['b', 'Referred-By'],
  ['c', 'Content-Type'],
  ['d', 'Request-Disposition'],
  ['e', 'Content-Encoding'],
  ['f', 'From'],
  ['i', 'Call-ID'],
  ['j', 'Reject-Contact'],
  ['k', 'Supported'],
  ['l', 'Content-Length'],
  ['m', 'Contact'],
  ['o', 'Event'],
  ['r', 'Refer-To'],
  ['s', 'Subject'],
  ['t', 'To'],
  ['u', 'Allow-Events'],
  ['v', 'Via'],
  ['x', 'Session-Expires'],
  ['y', 'Identity'],
]

t.test('every compact form stands for its header, in either case, as text and as bytes', async (t) => {
  for (const [compact, name] of COMPACT) {
    for (const spelling of [compact, compact.toUpperCase(), name, name.toLowerCase(), name.toUpperCase()]) {
      t.equal(canonicalName(spelling), name)
      t.equal(knownNameInBytes(Buffer.from(`x${spelling}:`), 1, spelling.length + 1), name)
    }
  }
})

t.test('an unknown name keeps its spelling and is found without case', async (t) => {
  t.equal(canonicalName('X-Odd'), 'X-Odd')
  t.equal(knownNameInBytes(Buffer.from('X-Odd'), 0, 5), undefined)
  const headers = new Headers()
  headers.append('X-Odd', '1')
  headers.append('x-odd', '2')
  t.same(headers.lines('X-ODD'), ['1', '2'])
  t.same(
    [...headers.entries()],
    [
      ['X-Odd', '1'],
      ['x-odd', '2'],
    ],
  )
})

t.test('bytes that only look like a known name do not match it', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 24 }), (bytes) => {
      const name = Buffer.from(bytes).toString('latin1')
      const found = knownNameInBytes(bytes, 0, bytes.length)
      return found === undefined || canonicalName(name) === found
    }),
  )
})

t.test('values of a list are split at commas outside quotes and angle brackets', async (t) => {
  const table: [string, string[]][] = [
    ['', []],
    ['a', ['a']],
    ['a,b', ['a', 'b']],
    ['a , b ,c', ['a', 'b', 'c']],
    ['"x, \\", y" <sip:a,b@c;q>;p="1,2", <sip:d>', ['"x, \\", y" <sip:a,b@c;q>;p="1,2"', '<sip:d>']],
    ['a,,b', ['a', '', 'b']],
    ['a,', ['a', '']],
    [',', ['', '']],
    ['"never closes, b', ['"never closes, b']],
    ['<never closes, b', ['<never closes, b']],
  ]
  for (const [line, values] of table) t.same(splitValues(line), values, line)
})

t.test('values come from all lines in order; a missing header has none', async (t) => {
  const headers = new Headers()
  headers.append('Via', 'a, b')
  headers.append('To', 'x')
  headers.append('v', 'c')
  t.same(headers.values('Via'), ['a', 'b', 'c'])
  t.same(headers.values('Route'), [])
  t.same(
    [...headers.entries()].map(([name]) => name),
    ['Via', 'Via', 'To'],
    'append keeps lines of a name together',
  )
})

t.test('the first value is taken off, replaced and put in front as Via and Route need it', async (t) => {
  const headers = new Headers()
  headers.append('Via', 'a, b')
  headers.append('Via', 'c')
  t.equal(headers.firstValue('Via'), 'a')
  t.equal(headers.removeFirstValue('Via'), 'a')
  t.same(headers.lines('Via'), ['b', 'c'])
  headers.replaceFirstValue('Via', 'B')
  headers.prepend('Via', 'z')
  t.same(headers.lines('Via'), ['z', 'B', 'c'])
  headers.set('Via', 'p, q')
  t.same(headers.lines('Via'), ['p, q'])
  headers.replaceFirstValue('Via', 'P')
  t.same(headers.lines('Via'), ['P, q'])
  t.equal(headers.removeFirstValue('Via'), 'P')
  t.equal(headers.removeFirstValue('Via'), 'q')
  t.equal(headers.removeFirstValue('Via'), undefined)
  t.notOk(headers.has('Via'))
  headers.replaceFirstValue('Via', 'new')
  t.equal(headers.get('Via'), 'new')
})

t.test('set keeps the place of the first line and drops the others; remove drops all', async (t) => {
  const headers = new Headers()
  headers.push('X-1', '1', false)
  headers.push('Contact', 'x', true)
  headers.push('X-2', '2', false)
  headers.push('Contact', 'y', true)
  headers.push('X-3', '3', false)
  headers.set('contact', 'z')
  t.same(
    [...headers.entries()],
    [
      ['X-1', '1'],
      ['Contact', 'z'],
      ['X-2', '2'],
      ['X-3', '3'],
    ],
  )
  headers.remove('x-2')
  t.same(
    [...headers.entries()],
    [
      ['X-1', '1'],
      ['Contact', 'z'],
      ['X-3', '3'],
    ],
  )
  t.equal(headers.size, 3)
})

t.test('a copy goes its own way', async (t) => {
  const headers = new Headers()
  headers.append('To', 'a')
  const copy = headers.copy()
  copy.set('To', 'b')
  copy.append('X-1', 'c')
  t.same([...headers.entries()], [['To', 'a']])
  t.same(
    [...copy.entries()],
    [
      ['To', 'b'],
      ['X-1', 'c'],
    ],
  )
})

t.test('a line break, or a character that latin1 would cut to one, never gets into a header', async (t) => {
  const headers = new Headers()
  headers.append('To', 'a, b')
  for (const value of ['x\r\nEvil: 1', 'x\n', '\r', 'x\u010d\u010aEvil: 1', '\u{1f600}']) {
    for (const put of ['set', 'append', 'prepend', 'replaceFirstValue'] as const) {
      t.throws(() => headers[put]('To', value), { code: 'SIP_HEADER_UNFIT' })
      t.throws(() => headers[put]('X-New', value), { code: 'SIP_HEADER_UNFIT' })
    }
  }
  t.same([...headers.entries()], [['To', 'a, b']])
})

t.test('headers behave as the list of lines that they are', async () => {
  const name = fc.constantFrom('Via', 'v', 'VIA', 'To', 'X-a', 'x-A', 'Route')
  const value = fc.constantFrom('1', '2', '"a, b"', '<x,y>')
  const same = (a: string, b: string): boolean => canonicalName(a).toLowerCase() === canonicalName(b).toLowerCase()
  const step = fc.oneof(
    fc.record({ op: fc.constantFrom('set' as const, 'append' as const, 'prepend' as const), name, value }),
    fc.record({ op: fc.constantFrom('remove' as const, 'removeFirstValue' as const), name, value: fc.constant('') }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const headers = new Headers()
      let model: [string, string][] = []
      for (const { op, name, value } of steps) {
        const line: [string, string] = [canonicalName(name), value]
        const first = model.findIndex(([n]) => same(n, name))
        const last = model.findLastIndex(([n]) => same(n, name))
        if (op === 'append') model.splice(last < 0 ? model.length : last + 1, 0, line)
        else if (op === 'prepend') model.splice(Math.max(first, 0), 0, line)
        else if (op === 'set') {
          if (first < 0) model.push(line)
          else
            model = model.filter(([n], i) => i === first || !same(n, name)).map(([n, v]) => (same(n, name) ? [n, value] : [n, v]))
        } else if (op === 'remove') model = model.filter(([n]) => !same(n, name))
        else if (first >= 0) model.splice(first, 1)
        headers[op](name, value)
        if (JSON.stringify([...headers.entries()]) !== JSON.stringify(model)) return false
        if (headers.count(name) !== model.filter(([n]) => same(n, name)).length || headers.size !== model.length) return false
      }
      return true
    }),
  )
})
