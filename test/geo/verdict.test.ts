import t from 'tap'
import {
  hearsMajority,
  judge,
  judgeNode,
  judgeRegion,
  type Layout,
  majorityOf,
  regionSees,
  regionVote,
  type Verdict,
  type Verdicts,
} from '../../geo/verdict.ts'

const VERDICT: Readonly<Record<string, Verdict>> = { a: 'alive', d: 'dead', u: 'unknown' }
const votes = (text: string): Verdict[] => [...text].map((c) => VERDICT[c] as Verdict)
const NOTHING: Verdicts = { regions: new Map(), nodes: new Map() }

// One letter for each region of the electorate; the result, where unknown means that the last agreed verdict stands.
const REGIONS: Readonly<Record<string, Verdict>> = {
  // one region
  a: 'alive',
  d: 'dead',
  u: 'unknown',
  // two: what one alone says decides nothing, and the dead one cannot vote
  aa: 'alive',
  ad: 'alive',
  dd: 'dead',
  ua: 'unknown',
  ud: 'unknown',
  uu: 'unknown',
  // three
  aaa: 'alive',
  aad: 'alive',
  add: 'dead',
  ddd: 'dead',
  udd: 'dead',
  uad: 'alive',
  uua: 'unknown',
  uud: 'unknown',
  uuu: 'unknown',
  // four: half is no majority
  addu: 'alive',
  udda: 'alive',
  uudd: 'unknown',
  addd: 'dead',
  aadd: 'alive',
  // five
  uuddd: 'dead',
  uaddd: 'dead',
  aaadd: 'alive',
  uaadd: 'alive',
  uuudd: 'unknown',
  uuuaa: 'unknown',
  uuaad: 'alive',
}

for (const [text, expected] of Object.entries(REGIONS)) {
  t.test(`a region with the votes ${text} is ${expected}`, (t) => {
    t.equal(judgeRegion(votes(text)), expected)
    t.end()
  })
}

// siblings / other regions of the electorate / what its own region sees ('-': not in the electorate) → verdict
const NODES: readonly (readonly [string, Verdict])[] = [
  // 1 node, 1 region: nobody can say that it is dead
  ['//a', 'alive'],
  ['//u', 'unknown'],
  // 2 nodes, 1 region: the sibling alone
  ['a//a', 'alive'],
  ['d//d', 'dead'],
  ['d//a', 'dead'],
  ['u//u', 'unknown'],
  // 1 node, 2 regions: the other region alone cannot say so, as a cut looks the same
  ['/a/u', 'alive'],
  ['/d/u', 'unknown'],
  ['/d/a', 'alive'],
  ['/u/a', 'unknown'],
  // 2 nodes, 2 regions: both
  ['d/d/d', 'dead'],
  ['d/u/d', 'unknown'],
  ['d/a/d', 'alive'],
  ['a/d/a', 'alive'],
  ['u/d/u', 'unknown'],
  // 1 node, 3 regions: both others
  ['/dd/u', 'dead'],
  ['/da/u', 'alive'],
  ['/du/u', 'unknown'],
  ['/uu/a', 'unknown'],
  ['/du/a', 'alive'],
  // 2 nodes, 3 regions: two of the three
  ['d/dd/d', 'dead'],
  ['u/dd/u', 'dead'],
  ['d/du/d', 'dead'],
  ['d/aa/d', 'alive'],
  ['a/dd/a', 'dead'],
  ['d/uu/d', 'unknown'],
  ['u/du/u', 'unknown'],
  ['a/uu/a', 'unknown'],
  ['a/au/a', 'alive'],
  // 4 nodes, 3 regions: three of five
  ['aaa/dd/a', 'alive'],
  ['ddd/uu/d', 'dead'],
  ['ddu/uu/d', 'unknown'],
  ['daa/dd/a', 'dead'],
  // 6 nodes, 3 regions, five of them dead: the sixth and two regions
  ['duuuu/dd/d', 'dead'],
  ['auuuu/dd/a', 'alive'],
  // five dead, and the one that came back: its own word and two regions
  ['uuuuu/aa/a', 'alive'],
  // 2 nodes in a region that does not vote, electorate of 3
  ['d/ddd/-', 'dead'],
  ['a/ddd/-', 'dead'],
  ['a/dda/-', 'alive'],
  ['u/udd/-', 'dead'],
]

for (const [text, expected] of NODES) {
  t.test(`a node with the votes ${text} is ${expected}`, (t) => {
    const [siblings = '', others = '', own = '-'] = text.split('/')
    const result = judgeNode({
      siblings: votes(siblings),
      others: votes(others),
      own: own === '-' ? undefined : (VERDICT[own] as Verdict),
      region: 'alive',
    })
    t.equal(result, expected)
    t.end()
  })
}

t.test('every node of a dead region is dead', (t) => {
  t.equal(judgeNode({ siblings: votes('a'), others: votes('aa'), own: 'alive', region: 'dead' }), 'dead')
  t.end()
})

t.test('a region reaches a target if any of its nodes does, and says dead only when it has looked', (t) => {
  const reports = new Map([
    ['n1', new Map<string, Verdict>([['x', 'dead']])],
    ['n2', new Map<string, Verdict>([['x', 'alive']])],
    ['n3', new Map<string, Verdict>()],
  ])
  t.equal(regionSees(['n1', 'n2'], 'x', reports), 'alive')
  t.equal(regionSees(['n1', 'n3'], 'x', reports), 'dead')
  t.equal(regionSees(['n3'], 'x', reports), 'unknown')
  t.equal(regionSees(['silent'], 'x', reports), 'unknown')
  t.equal(regionVote(['n1'], ['x'], reports), 'dead')
  t.equal(regionVote(['n1'], ['x', 'y'], reports), 'unknown', 'one node of two was never judged')
  t.equal(regionVote(['n1'], [], reports), 'unknown', 'no node at all')
  t.end()
})

/** A cluster cut into groups of regions; a few nodes dead. Everyone's evidence is what the network says. */
interface Scene {
  readonly sizes: readonly number[]
  /** Group number of each region. */
  readonly groups: readonly number[]
  readonly dead: readonly string[]
}

const layoutOf = (scene: Scene): Layout => {
  const regions = scene.sizes.map((size, r) => ({
    name: `r${r}`,
    nodes: Array.from({ length: size }, (_, n) => `r${r}n${n}`),
  }))
  return { regions, electorate: regions.map((r) => r.name) }
}

function judgedBy(scene: Scene, group: number, last: Verdicts): Verdicts {
  const layout = layoutOf(scene)
  const inGroup = layout.regions.filter((_, r) => scene.groups[r] === group).flatMap((r) => r.nodes)
  const living = inGroup.filter((node) => !scene.dead.includes(node))
  const reports = new Map(
    living.map((observer) => [
      observer,
      new Map(
        layout.regions.flatMap((r) => r.nodes.map((node): [string, Verdict] => [node, living.includes(node) ? 'alive' : 'dead'])),
      ),
    ]),
  )
  return judge(layout, reports, last)
}

t.test('no cut of two to five regions into groups lets two groups call each other dead', (t) => {
  let cuts = 0
  for (let count = 2; count <= 5; count++) {
    for (let code = 0; code < count ** count; code++) {
      const groups = Array.from({ length: count }, (_, r) => Math.floor(code / count ** r) % count)
      for (const size of [1, 2, 3]) {
        const scene: Scene = { sizes: Array(count).fill(size), groups, dead: [] }
        const alive: Verdicts = {
          regions: new Map(layoutOf(scene).regions.map((r) => [r.name, 'alive' as const])),
          nodes: new Map(layoutOf(scene).regions.flatMap((r) => r.nodes.map((n) => [n, 'alive' as const]))),
        }
        const sides = [...new Set(groups)]
        const verdicts = new Map(sides.map((side) => [side, judgedBy(scene, side, alive)]))
        for (const side of sides) {
          const members = groups.filter((g) => g === side).length
          for (let r = 0; r < count; r++) {
            const expected = groups[r] !== side && members >= majorityOf(count) ? 'dead' : 'alive'
            if (verdicts.get(side)?.regions.get(`r${r}`) !== expected)
              t.fail(`regions ${groups.join('')} side ${side} region ${r}`)
            for (let n = 0; n < size; n++) {
              const node = `r${r}n${n}`
              const said = verdicts.get(side)?.nodes.get(node)
              const byHome = verdicts.get(groups[r] as number)?.nodes.get(node)
              if (groups[r] === side && said !== 'alive') t.fail(`${groups.join('')}: ${node} is ${said} to its own side`)
              if (said === 'dead' && members < majorityOf(count)) t.fail(`${groups.join('')}: minority ${side} killed ${node}`)
              if (byHome !== 'alive') t.fail(`${groups.join('')}: ${node} is ${byHome} at home`)
            }
          }
        }
        cuts++
      }
    }
  }
  t.ok(cuts > 9000, `${cuts} cuts`)
  t.end()
})

const KILLS: readonly (readonly [string, Scene, number, Readonly<Record<string, Verdict>>])[] = [
  ['one region of one node', { sizes: [1], groups: [0], dead: [] }, 0, { r0: 'alive', r0n0: 'alive' }],
  ['one region of two, one dead', { sizes: [2], groups: [0], dead: ['r0n1'] }, 0, { r0: 'alive', r0n0: 'alive', r0n1: 'dead' }],
  [
    'two regions, a node dead',
    { sizes: [2, 2], groups: [0, 0], dead: ['r1n1'] },
    0,
    { r1: 'alive', r1n1: 'dead', r1n0: 'alive' },
  ],
  [
    'two regions, one wholly dead: nobody may say so',
    { sizes: [2, 2], groups: [0, 0], dead: ['r1n0', 'r1n1'] },
    0,
    { r0: 'unknown', r1: 'unknown', r1n0: 'unknown', r0n0: 'unknown' },
  ],
  [
    'three regions, a node dead',
    { sizes: [2, 2, 2], groups: [0, 0, 0], dead: ['r0n0'] },
    0,
    { r0: 'alive', r0n0: 'dead', r0n1: 'alive' },
  ],
  [
    'three regions, one dead',
    { sizes: [2, 2, 2], groups: [0, 0, 0], dead: ['r0n0', 'r0n1'] },
    0,
    { r0: 'dead', r0n0: 'dead', r0n1: 'dead', r1: 'alive', r2: 'alive', r1n0: 'alive' },
  ],
  [
    'three regions, one cut off, seen from inside, a node dead there: the last view stands',
    { sizes: [2, 2, 2], groups: [0, 1, 1], dead: ['r0n1'] },
    0,
    { r0: 'unknown', r1: 'unknown', r2: 'unknown', r0n1: 'unknown', r1n0: 'unknown' },
  ],
  [
    'four nodes in a region that is cut off bury their own dead',
    { sizes: [4, 2, 2], groups: [0, 1, 1], dead: ['r0n3'] },
    0,
    { r0: 'unknown', r0n3: 'dead', r0n0: 'unknown', r1n0: 'unknown' },
  ],
  [
    'a region of four, three dead',
    { sizes: [4, 2, 2], groups: [0, 0, 0], dead: ['r0n1', 'r0n2', 'r0n3'] },
    0,
    { r0: 'alive', r0n0: 'alive', r0n1: 'dead', r0n3: 'dead' },
  ],
  [
    'five regions, two dead at once',
    { sizes: [1, 2, 2, 2, 2], groups: [0, 0, 0, 0, 0], dead: ['r0n0', 'r1n0', 'r1n1'] },
    0,
    { r0: 'dead', r1: 'dead', r2: 'alive', r0n0: 'dead' },
  ],
  [
    'five regions, three dead at once: too few are left to say so',
    { sizes: [1, 1, 1, 1, 1], groups: [0, 0, 0, 0, 0], dead: ['r0n0', 'r1n0', 'r2n0'] },
    0,
    { r0: 'unknown', r1: 'unknown', r3: 'unknown', r4: 'unknown' },
  ],
]

for (const [name, scene, group, expected] of KILLS) {
  t.test(name, (t) => {
    const verdicts = judgedBy(scene, group, NOTHING)
    const all = new Map([...verdicts.regions, ...verdicts.nodes])
    for (const [target, verdict] of Object.entries(expected)) t.equal(all.get(target), verdict, target)
    t.end()
  })
}

t.test('a decision does not depend on what was believed before', (t) => {
  const scene: Scene = { sizes: [2, 2, 2], groups: [0, 0, 0], dead: ['r0n0', 'r0n1', 'r1n0'] }
  const opposite: Verdicts = {
    regions: new Map([
      ['r0', 'alive'],
      ['r1', 'dead'],
      ['r2', 'dead'],
    ]),
    nodes: new Map([
      ['r0n0', 'alive'],
      ['r1n0', 'alive'],
      ['r1n1', 'dead'],
      ['r2n0', 'dead'],
    ]),
  }
  t.same(judgedBy(scene, 0, opposite), judgedBy(scene, 0, NOTHING))
  t.end()
})

t.test('a region that does not vote is judged by those that do, and its own reports are no majority', (t) => {
  const layout: Layout = {
    regions: [
      { name: 'a', nodes: ['a1'] },
      { name: 'b', nodes: ['b1'] },
      { name: 'c', nodes: ['c1'] },
      { name: 'edge', nodes: ['e1', 'e2'] },
    ],
    electorate: ['a', 'b', 'c'],
  }
  const sees = (...alive: string[]): Map<string, Verdict> =>
    new Map(['a1', 'b1', 'c1', 'e1', 'e2'].map((n) => [n, alive.includes(n) ? 'alive' : 'dead']))
  const majority = judge(layout, new Map(['a1', 'b1', 'c1'].map((n) => [n, sees('a1', 'b1', 'c1')])), NOTHING)
  t.equal(majority.regions.get('edge'), 'dead')
  t.equal(majority.nodes.get('e2'), 'dead')
  const cutOff = new Map(['e1', 'e2'].map((n) => [n, sees('e1', 'e2')]))
  t.equal(judge(layout, cutOff, NOTHING).regions.get('a'), 'unknown')
  t.notOk(hearsMajority(layout, cutOff))
  t.ok(hearsMajority(layout, new Map([...cutOff, ['a1', sees('a1')], ['c1', sees('c1')]])))
  t.end()
})

t.test('a witness without nodes in the configuration is a vote that is never heard', (t) => {
  const layout: Layout = {
    regions: [
      { name: 'a', nodes: ['a1'] },
      { name: 'b', nodes: ['b1'] },
    ],
    electorate: ['a', 'b', 'witness'],
  }
  const reports = new Map([
    [
      'a1',
      new Map<string, Verdict>([
        ['a1', 'alive'],
        ['b1', 'dead'],
      ]),
    ],
  ])
  t.equal(judge(layout, reports, NOTHING).regions.get('b'), 'unknown')
  t.end()
})
