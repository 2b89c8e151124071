import t from 'tap'
import { bitsSet, leafHash, nodeHash, sha256, TreeHead } from '../../../src/cdr/merkle.ts'

/** RFC 6962 §2.1, word for word. */
function mth(entries: readonly Buffer[]): Buffer {
  if (entries.length === 0) return sha256(Buffer.alloc(0))
  if (entries.length === 1) return leafHash(entries[0]!)
  let k = 1
  while (k * 2 < entries.length) k *= 2
  return nodeHash(mth(entries.slice(0, k)), mth(entries.slice(k)))
}

t.test('has the roots of the known answers of Certificate Transparency', (t) => {
  // The test vectors of google/certificate-transparency, merkletree.
  const inputs = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f']
  const roots = [
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
    '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
  ]
  const tree = new TreeHead()
  t.equal(tree.root().toString('hex'), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
  inputs.forEach((hex, i) => {
    tree.append(leafHash(Buffer.from(hex, 'hex')))
    t.equal(tree.root().toString('hex'), roots[i], `${i + 1} leaves`)
  })
  t.end()
})

t.test('has the recursive definition of the root at every size, also when it is taken up again from its frontier', (t) => {
  const entries: Buffer[] = []
  let tree = new TreeHead()
  for (let n = 0; n < 70; n++) {
    entries.push(Buffer.from(`entry ${n}`))
    tree.append(leafHash(entries[n]!))
    t.ok(tree.root().equals(mth(entries)), `${n + 1} leaves`)
    tree = new TreeHead(tree.size, tree.frontier())
  }
  t.end()
})

t.test('refuses a frontier that no tree of that size has', (t) => {
  t.throws(() => new TreeHead(3, [leafHash(Buffer.from('a'))]), RangeError)
  t.equal(bitsSet(2 ** 53 - 1), 53)
  t.equal(bitsSet(2 ** 40 + 5), 3)
  t.end()
})
