import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { chainOrigin, openCheckpoint, signCheckpoint, verifierKey } from '../../../src/cdr/checkpoint.ts'
import { sha256 } from '../../../src/cdr/merkle.ts'

// The key pair of RFC 8032 §7.1, test 1.
const privateKey = createPrivateKey({
  key: Buffer.concat([
    Buffer.from('302e020100300506032b657004220420', 'hex'),
    Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex'),
  ]),
  format: 'der',
  type: 'pkcs8',
})
const publicKey = createPublicKey(privateKey)
const checkpoint = {
  origin: chainOrigin({ region: 'us-east', node: 'us-east-1', incarnation: 7 }),
  size: 42,
  root: sha256(Buffer.from('root')),
}

t.test('a checkpoint is a signed note of the C2SP form', (t) => {
  const note = signCheckpoint(checkpoint, privateKey)
  const lines = note.split('\n')
  t.same(lines.slice(0, 4), ['antipode/us-east/us-east-1/7', '42', checkpoint.root.toString('base64'), ''])
  t.match(lines[4], /^\u2014 antipode\/us-east\/us-east-1\/7 [A-Za-z0-9+/]{91}=$/)
  t.equal(lines[5], '')
  const [, name, id, encoded] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(verifierKey(checkpoint.origin, publicKey))!
  t.equal(name, checkpoint.origin)
  const key = Buffer.from(encoded!, 'base64')
  t.equal(key.toString('hex'), '01d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a')
  t.equal(id, sha256(Buffer.from(`${name}\n`), key).toString('hex', 0, 4))
  t.equal(Buffer.from(lines[4]!.split(' ')[2]!, 'base64').toString('hex', 0, 4), id)
  t.end()
})

t.test('what was signed opens with the right key only', (t) => {
  const note = signCheckpoint(checkpoint, privateKey)
  t.match(openCheckpoint(note, publicKey), { ok: true, value: { origin: checkpoint.origin, size: 42 } })
  t.match(openCheckpoint(note, generateKeyPairSync('ed25519').publicKey), { ok: false, fault: { code: 'CDR_CHECKPOINT_BAD' } })
  t.end()
})

t.test('no byte of a note can differ', (t) => {
  const note = Buffer.from(signCheckpoint(checkpoint, privateKey))
  const unseen: string[] = []
  for (let at = 0; at < note.length; at++) {
    for (const flip of [0x01, 0x02, 0x20, 0x80]) {
      const changed = Buffer.from(note)
      changed[at] = changed[at]! ^ flip
      if (openCheckpoint(changed.toString('utf8'), publicKey).ok) unseen.push(`${at} ^ ${flip}`)
    }
  }
  t.same(unseen, [])
  t.end()
})
