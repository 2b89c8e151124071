import { createHash } from 'node:crypto'
import t from 'tap'
import { Subscribers } from '../../../src/registrar/subscribers.ts'

const hash = (name: string, text: string): string => createHash(name).update(text).digest('hex')

t.test('a subscriber of one domain is nobody in another; without a domain it is known in each', async (t) => {
  const list = [
    { username: 'alice', domain: 'example.net', password: 'net' },
    { username: 'alice', domain: 'example.com', password: 'com' },
    { username: 'carol', domain: 'example.net', password: 'c' },
    { username: 'bob', password: 'b' },
  ]
  const s = new Subscribers(list, 'realm', ['example.net', 'example.com'])
  t.equal(s.ha1('alice', 'MD5', 'example.net'), hash('md5', 'alice:realm:net'))
  t.equal(s.ha1('alice', 'MD5', 'example.com'), hash('md5', 'alice:realm:com'))
  t.equal(s.ha1('alice', 'SHA-256', 'example.com'), hash('sha256', 'alice:realm:com'))
  t.equal(s.ha1('carol', 'MD5', 'example.com'), undefined)
  t.notOk(s.has('carol', 'example.com'))
  t.ok(s.has('carol', 'example.net'))
  for (const domain of ['example.net', 'example.com']) t.equal(s.ha1('bob', 'MD5', domain), hash('md5', 'bob:realm:b'))
  t.equal(s.ha1('carol', 'MD5', 'anonymous.invalid'), hash('md5', 'carol:realm:c'), 'a From outside our domains says nothing')
  t.notOk(s.has('nobody', 'example.net'))
})

t.test('hashes that are given are taken as they are, and one that is not given is not made up', async (t) => {
  const s = new Subscribers([{ username: 'a', ha1: { md5: 'abc' } }], 'realm', ['example.net'])
  t.equal(s.ha1('a', 'MD5', 'example.net'), 'abc')
  t.equal(s.ha1('a', 'SHA-256', 'example.net'), undefined)
})
