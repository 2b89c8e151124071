import fc from 'fast-check'
import type { CdrPart } from '../../../src/cdr/call-record.ts'

/** A part with plausible fields; `over` replaces what a test is about. */
export const makePart = (over: Partial<CdrPart> = {}): CdrPart => ({
  part: 'attempt',
  id: '00112233445566778899aabbccddeeff',
  leg: '',
  callId: 'a84b4c76e66710@pc33.example.net',
  fromTag: '1928301774',
  atMs: 1_700_000_000_000,
  region: 'us-east',
  node: 'us-east-1',
  incarnation: 4294967297,
  caller: 'sip:u2@example.net',
  callee: 'sip:u1@example.net',
  account: 'u2',
  source: 'udp:127.0.0.1:5062',
  startMs: 0,
  answerMs: 0,
  status: 0,
  reason: '',
  observed: true,
  hungUpBy: '',
  emergency: false,
  ...over,
})

/** The n-th part of a run: distinct ids, so that a test can tell what is there. */
export const numbered = (n: number, over: Partial<CdrPart> = {}): CdrPart =>
  makePart({ id: n.toString(16).padStart(32, '0'), callId: `call-${n}@example.net`, atMs: 1_700_000_000_000 + n, ...over })

const time = fc.integer({ min: 0, max: 4 }).map((n) => (n === 0 ? 0 : 1_700_000_000_000 + n * 1000))
const text = fc.string({ unit: 'grapheme', maxLength: 12 })

/** Parts that collide often: few ids, legs, times and nodes. */
export const collidingPart: fc.Arbitrary<CdrPart> = fc.record({
  part: fc.constantFrom('attempt', 'start', 'interim', 'end'),
  id: fc.constantFrom('00000000000000000000000000000001', '00000000000000000000000000000002'),
  leg: fc.constantFrom('', 'leg-a', 'leg-b'),
  callId: fc.constantFrom('c1', 'c2'),
  fromTag: fc.constantFrom('f1', 'f2'),
  atMs: time.map((ms) => ms || 1_700_000_000_500),
  region: fc.constantFrom('us-east', 'eu-west'),
  node: fc.constantFrom('n1', 'n2'),
  incarnation: fc.integer({ min: 1, max: 2 }),
  caller: fc.constantFrom('sip:a@x', 'sip:b@x'),
  callee: fc.constant('sip:c@x'),
  account: fc.constantFrom('a', 'b'),
  source: fc.constant('udp:127.0.0.1:5062'),
  startMs: time,
  answerMs: time,
  status: fc.constantFrom(0, 200, 486),
  reason: fc.constantFrom('', 'bye', 'lease'),
  observed: fc.boolean(),
  hungUpBy: fc.constantFrom('', 'caller', 'callee', 'system'),
  emergency: fc.boolean(),
})

/** Any part that can be written. */
export const anyPart: fc.Arbitrary<CdrPart> = fc.record({
  part: fc.constantFrom('attempt', 'start', 'interim', 'end'),
  id: fc.stringMatching(/^[0-9a-f]{32}$/),
  leg: text,
  callId: text,
  fromTag: text,
  atMs: fc.maxSafeNat(),
  region: text,
  node: text,
  incarnation: fc.maxSafeNat(),
  caller: text,
  callee: text,
  account: text,
  source: text,
  startMs: fc.maxSafeNat(),
  answerMs: fc.maxSafeNat(),
  status: fc.integer({ min: 0, max: 65535 }),
  reason: text,
  observed: fc.boolean(),
  hungUpBy: fc.constantFrom('', 'caller', 'callee', 'system'),
  emergency: fc.boolean(),
})
