import t from 'tap'
import { readTap } from './tap-reader.ts'

t.test('assertions are counted, subtests are not', async (t) => {
  const summary = readTap(`TAP version 14
# Subtest: outer
    ok 1 - one
    # Subtest: inner
        ok 1 - two
        ok 2 - three
        1..2
    ok 2 - inner # time=1ms
    1..2
ok 1 - outer # time=2.5ms
ok 2 - four
1..2
`)
  t.same(summary, { passed: 4, failures: [], skipped: [], complete: true })
})

t.test('a failure bears the names around it and its diagnostics, whatever they quote', async (t) => {
  const { passed, failures, complete } = readTap(`# Subtest: outer
    not ok 1 - agrees
      ---
      diff: |
        ok 1 - not a test
        1..9
      at:
        lineNumber: 4
      ...
    ok 2 - goes on
    1..2
not ok 1 - outer # time=2.5ms
1..1
`)
  t.equal(passed, 1)
  t.same(failures, [{ path: ['outer', 'agrees'], detail: 'diff: |\n  ok 1 - not a test\n  1..9\nat:\n  lineNumber: 4' }])
  t.ok(complete)
})

t.test('a subtest that fails by itself counts once', async (t) => {
  const { failures } = readTap('# Subtest: planned\n    ok 1 - x\n    1..2\nnot ok 1 - planned\n1..1\n')
  t.same(failures, [{ path: ['planned'], detail: '' }])
})

t.test('skipped and to-do tests are named with their reason, and count as neither', async (t) => {
  const { passed, failures, skipped } = readTap('ok 1 - a # SKIP no sipp\nok 2 - b # TODO\nnot ok 3 - c # TODO later\n1..3\n')
  t.same([passed, failures], [0, []])
  t.same(skipped, ['a (SKIP no sipp)', 'b (TODO)', 'c (TODO later)'])
  t.same(readTap('TAP version 14\n1..0 # SKIP not on this system\n').skipped, ['SKIP not on this system'])
})

t.test('output that ends before its plan, or bails out, is not complete', async (t) => {
  t.notOk(readTap('ok 1 - a\n').complete, 'no plan')
  t.notOk(readTap('ok 1 - a\n1..2\n').complete, 'a test is missing')
  t.notOk(readTap('').complete, 'nothing at all')
  t.match(readTap('ok 1 - a\nBail out! the disk is gone\n'), {
    complete: false,
    failures: [{ path: ['Bail out! the disk is gone'] }],
  })
})

t.test('buffered subtests, whose line comes first, are read as well', async (t) => {
  const { passed, failures, complete } = readTap(`not ok 1 - file {
    ok 1 - a
    not ok 2 - b
    1..2
}
ok 2 - other {
    ok 1 - c
    1..1
}
1..2
`)
  t.same([passed, failures.map((f) => f.path), complete], [2, [['file', 'b']], true])
})
