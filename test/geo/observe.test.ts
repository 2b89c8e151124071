import t from 'tap'
import { observe, UNOBSERVED } from '../../geo/observe.ts'

const LIMITS = { rise: 2, fall: 3 }
const run = (results: string, limits = LIMITS): string => {
  let o = UNOBSERVED
  let states = ''
  for (const result of results) {
    o = observe(o, result === '+', limits)
    states += o.state[0]
  }
  return states
}

// + answered, - failed; below it the state after each: u unknown, a alive, d dead.
const TABLE: readonly (readonly [string, string, string])[] = [
  ['the first answer is enough at the start', '+', 'a'],
  ['so many failures in a row at the start mean dead', '---', 'uud'],
  ['an answer between failures starts the count again', '+--+--+', 'aaaaaaa'],
  ['the last failure of a row means dead', '+---', 'aaad'],
  ['a dead target needs so many answers in a row', '---+-++', 'uudddda'],
  ['a target that flaps at every probe stays as it was', '---+-+-+-', 'uuddddddd'],
  ['from unknown one answer wins over failures before', '--+', 'uua'],
]

for (const [name, results, states] of TABLE) {
  t.test(name, (t) => {
    t.equal(run(results), states)
    t.end()
  })
}

t.test('rise and fall of one judge at once', (t) => {
  t.equal(run('+-+-', { rise: 1, fall: 1 }), 'adad')
  t.end()
})

t.test('the streak is bounded', (t) => {
  let o = UNOBSERVED
  for (let i = 0; i < 5000; i++) o = observe(o, true, LIMITS)
  t.same(o, { state: 'alive', streak: 1000 })
  for (let i = 0; i < 5000; i++) o = observe(o, false, LIMITS)
  t.same(o, { state: 'dead', streak: -1000 })
  t.end()
})
