import t from 'tap'
import { type GroupFacts, OUTCOME_CASES, outcomeOf } from '../../../src/cdr/outcome.ts'

const bools = [false, true]

function* allFacts(): Generator<GroupFacts> {
  for (const local of [true, false, undefined])
    for (const acks of [0, 1, 2])
      for (const needed of [0, 1, 2])
        for (const remoteOk of bools)
          for (const hope of bools) for (const expired of bools) yield { local, acks, needed, remoteOk, hope, expired }
}

t.test('a group is durable only with the local disk and all copies, and only then', (t) => {
  for (const f of allFacts())
    t.equal(outcomeOf(f)?.kind === 'durable', f.local === true && f.acks >= f.needed && f.remoteOk, JSON.stringify(f))
  t.end()
})

t.test('nothing waits past the timeout, nor for nobody', (t) => {
  for (const f of allFacts()) {
    if (f.expired || (f.local !== undefined && !f.hope)) t.not(outcomeOf(f), undefined, JSON.stringify(f))
    if (!f.expired && f.local === undefined) t.equal(outcomeOf(f), undefined, JSON.stringify(f))
  }
  t.end()
})

t.test('only what is neither on the disk nor at a peer is lost', (t) => {
  for (const f of allFacts()) if (outcomeOf(f)?.kind === 'lost') t.ok(f.local !== true && f.acks === 0, JSON.stringify(f))
  t.end()
})

t.test('every row of the table is reached', (t) => {
  const reached = new Set<unknown>()
  for (const f of allFacts()) reached.add(OUTCOME_CASES.find((row) => row.when(f, f.acks >= f.needed && f.remoteOk)))
  t.equal(reached.size, OUTCOME_CASES.length)
  t.end()
})
