import t from 'tap'
import { run } from '../../bench/spine.ts'
import { missing } from './demo.ts'

/** The load of the bench for a sixth of its time, in `test:long` for all of it. Response times and CPU are the bench's business: nothing here is timed. */
const SECONDS = process.env.ANTIPODE_TEST_LONG === undefined ? 10 : 60

t.setTimeout(280_000)

t.test(
  'H: 1,000 registrations/s and 50 calls/s over the six nodes: none fails',
  { skip: missing('sipp') ?? false, timeout: 270_000 },
  async (t) => {
    const { figures, failures } = await run({ seconds: SECONDS, brief: true, note: (line) => t.comment(line) })
    t.same(failures, [], 'no registration and no call fails, every node knows every binding, each call has exactly one CDR')
    const measured = (what: string): string => figures.find((f) => f.what.startsWith(what))?.detail ?? ''
    t.match(
      measured('registration, request to 200, p99'),
      new RegExp(`^${(SECONDS * 1000).toLocaleString('en')} measured`),
      'every registration was measured',
    )
    t.match(
      measured('call, INVITE to 200, p99'),
      new RegExp(`^${(SECONDS * 50).toLocaleString('en')} measured`),
      'every call was measured',
    )
  },
)
