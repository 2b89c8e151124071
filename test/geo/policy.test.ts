import t from 'tap'
import { addReason, type PolicyReason, removeReason, standingOf, withdrawnTargets } from '../../geo/policy.ts'

const reason = (state: PolicyReason['state'], o: Partial<PolicyReason> = {}): PolicyReason => ({
  target: 'us-east',
  state,
  author: 'ops',
  expiresAtMs: 0,
  ...o,
})

t.test('reasons are a set: ending one leaves the others', (t) => {
  let reasons = addReason(addReason([], reason('draining')), reason('maintenance', { author: 'dba' }))
  t.equal(standingOf(reasons, 'us-east', 0), 'maintenance')
  reasons = removeReason(reasons, reason('maintenance', { author: 'dba' }))
  t.equal(standingOf(reasons, 'us-east', 0), 'draining')
  reasons = removeReason(reasons, reason('draining'))
  t.equal(standingOf(reasons, 'us-east', 0), 'active')
  t.end()
})

t.test('the same author and state is one reason; the later expiry stands', (t) => {
  const reasons = addReason(addReason([], reason('draining', { expiresAtMs: 10 })), reason('draining', { expiresAtMs: 20 }))
  t.equal(reasons.length, 1)
  t.equal(standingOf(reasons, 'us-east', 15), 'draining')
  t.equal(standingOf(reasons, 'us-east', 20), 'active', 'expired at its time')
  t.end()
})

t.test('forced beats all, off beats on', (t) => {
  const on = [reason('draining'), reason('maintenance'), reason('forced-on')]
  t.equal(standingOf(on, 'us-east', 0), 'forced-on')
  t.equal(standingOf(addReason(on, reason('forced-off')), 'us-east', 0), 'forced-off')
  t.end()
})

t.test('only targets that get no new traffic are withdrawn', (t) => {
  const reasons = [
    reason('draining', { target: 'a' }),
    reason('maintenance', { target: 'b', expiresAtMs: 5 }),
    reason('draining', { target: 'c' }),
    reason('forced-on', { target: 'c' }),
    reason('forced-off', { target: 'd' }),
  ]
  t.same([...withdrawnTargets(reasons, 10)].sort(), ['a', 'd'])
  t.same([...withdrawnTargets(reasons, 1)].sort(), ['a', 'b', 'd'])
  t.end()
})
