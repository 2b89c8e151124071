import { createHash } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import type { KeyRing } from '../../../src/base/keys.ts'
import { SeededRandom } from '../../../src/base/prng.ts'
import {
  type DigestAlgorithm,
  digestHa1,
  digestResponse,
  makeChallenge,
  NonceReplay,
  type VerifyOptions,
  verifyAuthorization,
} from '../../../src/sip/digest.ts'

const NOW = 1_800_000_000_000
const ring: KeyRing = {
  current: 'k2',
  keys: new Map([
    ['k1', Buffer.alloc(32, 1)],
    ['k2', Buffer.alloc(32, 2)],
  ]),
}
const old: KeyRing = { current: 'k1', keys: new Map([['k1', Buffer.alloc(32, 1)]]) }
const random = new SeededRandom(7)
const realm = 'example.net'
const users: Record<string, string> = { u1: 'secret', jürgen: 'pässword', 'qu"o\\te': 'x' }

const challenge = (algorithm: DigestAlgorithm = 'SHA-256', over: Partial<Parameters<typeof makeChallenge>[0]> = {}): string =>
  makeChallenge({ realm, ring, nowMs: NOW, random, algorithm, ...over })
const answer = (c: string, over: Partial<Parameters<typeof digestResponse>[1]> = {}): string => {
  const text = digestResponse(c, {
    username: 'u1',
    password: 'secret',
    method: 'REGISTER',
    uri: 'sip:example.net',
    random,
    ...over,
  })
  if (text === undefined) throw new Error(`no answer to ${c}`)
  return text
}
const options: VerifyOptions = {
  ...{ method: 'REGISTER', uri: 'sip:example.net', realm, ring, nowMs: NOW + 1000, lifetimeMs: 60_000 },
  ha1: (username, algorithm) =>
    users[username] === undefined ? undefined : digestHa1(username, realm, users[username], algorithm),
}
const why = (header: string, over: Partial<VerifyOptions> = {}): string => {
  const verdict = verifyAuthorization(header, { ...options, ...over })
  return verdict.ok ? `ok ${verdict.username}` : verdict.why
}

t.test('a challenge is answered at any node that has the key, with either algorithm', async (t) => {
  for (const algorithm of ['MD5', 'SHA-256'] as const) {
    t.equal(why(answer(challenge(algorithm))), 'ok u1')
    t.equal(why(answer(challenge(algorithm), { method: 'INVITE' }), { method: 'INVITE' }), 'ok u1')
  }
  t.equal(why(answer(challenge('MD5', { ring: old }))), 'ok u1', 'a key that is no longer current still counts')
})

t.test('names and passwords are UTF-8, and may have quotes in them', async (t) => {
  for (const [username, password] of Object.entries(users)) {
    const header = answer(challenge(), { username, password })
    t.match(header, /^[\t\x20-\xff]*$/, 'the header is latin1')
    t.equal(why(header), `ok ${username}`)
  }
})

t.test('the examples of RFC 2617 and RFC 7616 give the responses printed there', async (t) => {
  const table: [DigestAlgorithm, string, string, string, string, string][] = [
    [
      'MD5',
      'testrealm@host.com',
      'Circle Of Life',
      'dcd98b7102dd2f0e8b11d0f600bfb0c093',
      '0a4f113b',
      '6629fae49393a05397450978507c4ef1',
    ],
    ...(
      [
        ['MD5', '8ca523f5e9506fed4657c9700eebdbec'],
        ['SHA-256', '753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1'],
      ] as const
    ).map(([algorithm, response]): [DigestAlgorithm, string, string, string, string, string] => [
      algorithm,
      'http-auth@example.org',
      'Circle of Life',
      '7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v',
      'f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ',
      response,
    ]),
  ]
  for (const [algorithm, itsRealm, password, nonce, cnonce, response] of table) {
    const ha1 = () =>
      createHash(algorithm === 'MD5' ? 'md5' : 'sha256')
        .update(`Mufasa:${itsRealm}:${password}`)
        .digest('hex')
    t.equal(digestHa1('Mufasa', itsRealm, password, algorithm), ha1())
    const header = (r: string): string =>
      `Digest username="Mufasa", realm="${itsRealm}", uri="/dir/index.html", algorithm=${algorithm}, nonce="${nonce}", nc=00000001, cnonce="${cnonce}", qop=auth, response="${r}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`
    const over = { method: 'GET', uri: '/dir/index.html', realm: itsRealm, ha1 }
    // The nonce is none of ours, which is looked at after the response.
    t.equal(why(header(response), over), 'stale')
    t.equal(why(header(response.toUpperCase()), over), 'stale')
    t.equal(why(header(response.replace(/.$/, (c) => (c === '0' ? '1' : '0'))), over), 'bad-response')
  }
})

t.test('each thing that is wrong has its name', async (t) => {
  const header = answer(challenge())
  const table: [string, string, Partial<VerifyOptions>?][] = [
    [answer(challenge(), { password: 'wrong' }), 'bad-response'],
    [answer(challenge(), { username: 'nobody' }), 'unknown-user'],
    [header, 'bad-response', { method: 'INVITE' }],
    [header, 'wrong-uri', { uri: 'sip:u2@example.net' }],
    [header, 'wrong-uri', { uri: 'sip:example.com' }],
    [header, 'wrong-realm', { realm: 'example.com' }],
    [header, 'stale', { nowMs: NOW + 60_001 }],
    [header, 'stale', { nowMs: NOW - 60_001 }],
    [header, 'stale', { ring: old }],
    [answer(challenge('SHA-256', { ring: { current: 'k2', keys: new Map([['k2', Buffer.alloc(32, 9)]]) } })), 'stale'],
    [header.replace('SHA-256', 'SHA-512-256'), 'wrong-algorithm'],
    [header.replace('SHA-256', 'MD5-sess'), 'wrong-algorithm'],
    ['', 'malformed'],
    ['Digest', 'malformed'],
    ['Digest ', 'malformed'],
    ['Basic dTE6c2VjcmV0', 'malformed'],
    [`${header},`, 'malformed'],
    [`${header}, realm="${realm}"`, 'malformed'],
    [`${header}, x="open`, 'malformed'],
    [`${header}, userhash=true`, 'malformed'],
    [`${header}${', a=b'.repeat(40)}`, 'malformed'],
    [header.replace('nc=00000001', 'nc=00000000'), 'malformed'],
    [header.replace('nc=00000001', 'nc=1'), 'malformed'],
    [header.replace('nc=00000001', 'nc=000000001'), 'malformed'],
    [header.replace('nc=00000001', 'nc=00000002'), 'bad-response'],
    [header.replace('qop=auth', 'qop=auth-int'), 'malformed'],
    [header.replace(', qop=auth', ''), 'malformed'],
    [header.replace(/cnonce="[^"]*"/, 'cnonce=""'), 'malformed'],
    [header.replace('Digest', 'digest'), 'ok u1'],
    [header.replace('qop=auth', 'qop="auth"'), 'ok u1'],
    [header.replaceAll(', ', ' ,\t'), 'ok u1'],
    [header, 'ok u1', { nowMs: NOW + 60_000 }],
  ]
  for (const [text, expected, over] of table) t.equal(why(text, over), expected, text)
})

t.test('the signed URI names the same user and host, whatever the port and parameters; the check can be left off', async (t) => {
  const header = answer(challenge(), { uri: 'sip:EXAMPLE.net:5060;transport=udp' })
  t.equal(why(header), 'ok u1')
  const other = answer(challenge(), { uri: 'sip:192.0.2.1:5060' })
  t.equal(why(other), 'wrong-uri')
  t.equal(why(other, { matchUri: false }), 'ok u1')
})

t.test('a nonce of one realm or algorithm is no nonce of another', async (t) => {
  const nonceOf = (text: string): string => /nonce="([^"]*)"/.exec(text)![1]!
  const sha = challenge('SHA-256')
  const downgraded = challenge('MD5').replace(/nonce="[^"]*"/, `nonce="${nonceOf(sha)}"`)
  t.equal(why(answer(downgraded)), 'stale')
  const elsewhere = challenge('SHA-256', { realm: 'other' })
  t.equal(why(answer(sha.replace(nonceOf(sha), nonceOf(elsewhere)))), 'stale')
})

t.test('a nonce in which one bit is turned is none of ours, however it is spelled', async () => {
  const c = challenge()
  const nonce = /nonce="([^"]*)"/.exec(c)![1]!
  const bytes = Buffer.from(nonce, 'base64url')
  fc.assert(
    fc.property(fc.nat({ max: bytes.length * 8 - 1 }), (bit) => {
      const forged = Buffer.from(bytes)
      forged[bit >> 3]! ^= 1 << (bit & 7)
      return why(answer(c.replace(nonce, forged.toString('base64url')))) === 'stale'
    }),
  )
  for (const respelled of [`${nonce}=`, `${nonce}==`, ` ${nonce}`, nonce.replace('-', '+'), `${nonce}A`, 'A'.repeat(5000)]) {
    if (respelled !== nonce) t.equal(why(answer(c.replace(nonce, respelled))), 'stale', respelled.slice(0, 100))
  }
})

t.test('no two challenges have the same nonce, and stale is said when it is so', async (t) => {
  t.not(challenge(), challenge())
  t.match(
    challenge('MD5', { stale: true }),
    /^Digest realm="example\.net", nonce="[\w-]+", algorithm=MD5, qop="auth", stale=true$/,
  )
  t.notMatch(challenge(), /stale/)
})

t.test('a key ring without its current key is our own defect', async (t) => {
  t.throws(() => challenge('MD5', { ring: { current: 'k9', keys: new Map() } }), { code: 'SIP_NONCE_KEY' })
})

t.test('challenges that cannot be answered are not', async (t) => {
  const o = { username: 'u1', password: 'x', method: 'REGISTER', uri: 'sip:a', random }
  for (const text of [
    'Basic realm="x"',
    'Digest realm="x"',
    'Digest realm="x", nonce="y"',
    'Digest realm="x", nonce="y", qop="auth-int"',
    'Digest realm="x", nonce="y", qop="auth", algorithm=SHA-512-256',
  ]) {
    t.equal(digestResponse(text, o), undefined, text)
  }
  const old = digestResponse('Digest realm="x", nonce="y", qop="auth-int, auth", opaque="o"', o)
  t.match(old, /algorithm=MD5, .*opaque="o"$/)
})

t.test('credentials are taken once: a count that was used is a replay, the next one is not', async (t) => {
  const replay = new NonceReplay()
  const c = challenge()
  t.equal(why(answer(c), { replay }), 'ok u1')
  t.equal(why(answer(c), { replay }), 'replay')
  t.equal(why(answer(c, { count: 2 }), { replay }), 'ok u1')
  t.equal(why(answer(c, { count: 4, password: 'wrong' }), { replay }), 'bad-response')
  t.equal(why(answer(c, { count: 4 }), { replay }), 'ok u1', 'a wrong answer used nothing up')
  t.equal(why(answer(c, { count: 3 }), { replay }), 'ok u1', 'counts may come out of order')
  t.equal(why(answer(c, { count: 3 }), { replay }), 'replay')
})

t.test('no header whatever makes the check throw', async () => {
  const nearly = fc.string({
    unit: fc.constantFrom(
      'Digest ',
      'username',
      '=',
      '"',
      ',',
      ' ',
      'realm',
      'nonce',
      'nc',
      '00000001',
      'qop=auth',
      '\\',
      'uri',
      'x',
      '\u00ff',
    ),
  })
  fc.assert(
    fc.property(fc.oneof(nearly, fc.string({ unit: 'binary' })), (text) => why(text) !== ''),
    { numRuns: 1000 },
  )
})
