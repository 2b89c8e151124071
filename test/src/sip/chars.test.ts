import fc from 'fast-check'
import t from 'tap'
import { decimal, detached, endOfQuoted, isToken, quote, unquote } from '../../../src/sip/chars.ts'

const latin1 = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)) })

t.test('a quoted text is unquoted to what it was, line breaks apart', async () => {
  fc.assert(
    fc.property(latin1, (text) => {
      const quoted = quote(text)
      return (
        unquote(quoted) === text.replace(/[\r\n]/g, ' ') && endOfQuoted(quoted, 0) === quoted.length && !/[\r\n]/.test(quoted)
      )
    }),
  )
})

t.test('a quote that does not close has no end', async (t) => {
  t.equal(endOfQuoted('"abc', 0), -1)
  t.equal(endOfQuoted('"abc\\"', 0), -1)
  t.equal(endOfQuoted('"abc\\\\" more', 0), 7)
})

t.test('decimal takes digits alone, up to its maximum', async (t) => {
  const table: [string, number, number][] = [
    ['0', 10, 0],
    ['0068', 255, 68],
    ['255', 255, 255],
    ['256', 255, -1],
    ['', 255, -1],
    ['-1', 255, -1],
    ['+1', 255, -1],
    ['1 ', 255, -1],
    ['1e3', 9999, -1],
    ['9007199254740991', Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    ['9007199254740993', Number.MAX_SAFE_INTEGER, -1],
    ['0'.repeat(65), 255, -1],
  ]
  for (const [text, max, value] of table) t.equal(decimal(text, max), value, text)
})

t.test('a token is made of the characters of RFC 3261 §25.1 and is not empty', async (t) => {
  t.ok(isToken("azAZ09-.!%*_+`'~"))
  for (const text of ['', 'a b', 'a:b', 'a@b', 'é', 'a\u0000', 'a\u0161']) t.notOk(isToken(text), JSON.stringify(text))
})

t.test('a detached copy is equal', async () => {
  fc.assert(fc.property(latin1, (text) => detached(text) === text))
})
