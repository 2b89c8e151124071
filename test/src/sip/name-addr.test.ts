import fc from 'fast-check'
import t from 'tap'
import { type NameAddr, nameAddrText, parseNameAddr } from '../../../src/sip/uri.ts'

const read = (text: string): NameAddr | string => {
  const result = parseNameAddr(text)
  return result.ok ? result.value : result.fault.detail
}
const params = (...entries: [string, string][]): Map<string, string> => new Map(entries)

t.test('name-addr and addr-spec are told apart', async (t) => {
  const table: [string, NameAddr][] = [
    ['sip:a@b', { display: '', uri: 'sip:a@b', params: params() }],
    ['sip:a@b;tag=x', { display: '', uri: 'sip:a@b', params: params(['tag', 'x']) }],
    ['<sip:a@b;lr>;tag=x', { display: '', uri: 'sip:a@b;lr', params: params(['tag', 'x']) }],
    ['Alice Smith <sip:a@b>', { display: 'Alice Smith', uri: 'sip:a@b', params: params() }],
    ['"Alice \\"<A>\\" Smith"<sip:a@b>;x', { display: 'Alice "<A>" Smith', uri: 'sip:a@b', params: params(['x', '']) }],
    ['  <sip:a@b?x=y,z>  ;  Tag  =  x  ', { display: '', uri: 'sip:a@b?x=y,z', params: params(['tag', 'x']) }],
    [
      '<sip:a@b>;+sip.instance="<urn:uuid:1>";reg-id=1',
      { display: '', uri: 'sip:a@b', params: params(['+sip.instance', '<urn:uuid:1>'], ['reg-id', '1']) },
    ],
    ['<sip:a@b>;received=[2001:db8::1]', { display: '', uri: 'sip:a@b', params: params(['received', '[2001:db8::1]']) }],
    ['<tel:+1-201>', { display: '', uri: 'tel:+1-201', params: params() }],
  ]
  for (const [text, value] of table) t.same(read(text), value, text)
})

t.test('what is not one value is refused', async (t) => {
  const table = [
    ...[
      '',
      '*',
      '<>',
      '<sip:a@b',
      'sip:a@b>',
      '"x" sip:a@b',
      '"x <sip:a@b>',
      'x, y <sip:a@b>',
      'x; <sip:a@b>',
      '< sip:a@b>',
      '<sip:a@b >',
    ],
    ...[
      '<sip:a@b>x',
      '<sip:a@b> ;',
      '<sip:a@b>;;x',
      '<sip:a@b>;x=',
      '<sip:a@b>;x="y',
      '<sip:a@b>;x=y z',
      '<sip:a@b>;tag=1;TAG=2',
      '<sip:a@b>;=x',
    ],
    ...[
      'sip:a@b,sip:c@d',
      'sip:a@b?x=y',
      'sip:a@b c',
      '<<sip:a@b>>',
      '<sip:a"@b>',
      '<sip:\u00e9@b>',
      'no-scheme',
      '<:a>',
      'sip:a@b;x, y',
    ],
  ]
  for (const text of table) t.type(read(text), 'string', JSON.stringify(text))
})

const display = fc.string({ unit: fc.integer({ min: 32, max: 255 }).map((code) => String.fromCharCode(code)), maxLength: 12 })
const value = fc.string({ unit: fc.constantFrom(...'aZ09<>;,"\\ =:@[]\u0000\u00e9'), maxLength: 8 })

t.test('a value that is written out and read again is the same', async () => {
  fc.assert(
    fc.property(
      display,
      fc.constantFrom('sip:a@b', 'tel:+1', 'sip:a@b;lr?x=y'),
      fc.dictionary(fc.constantFrom('tag', 'q', 'x-y'), value),
      (d, uri, p) => {
        const a: NameAddr = { display: d, uri, params: new Map(Object.entries(p)) }
        const again = read(nameAddrText(a))
        t.same(again, a)
        return true
      },
    ),
    { numRuns: 200 },
  )
})

t.test('no text whatever makes the parser throw', async () => {
  const nearly = fc.string({
    unit: fc.constantFrom('sip:', '<', '>', '"', '\\', ';', '=', ',', ' ', 'a', '@', '\u00ff', '\u0000', '\u1234'),
  })
  fc.assert(
    fc.property(fc.oneof(nearly, fc.string({ unit: 'binary' })), (text) => read(text) !== undefined),
    { numRuns: 1000 },
  )
})
