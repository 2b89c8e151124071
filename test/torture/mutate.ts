import { below, type Random } from '../../src/base/prng.ts'

// Structure-aware mutation: a message stays near enough to one that is right to get past the first check, and is wrong somewhere further in.

const NUMBERS = [
  ...['0', '1', '00', '-1', '255', '256', '65535', '65536', '2147483647', '2147483648', '4294967295', '4294967296'],
  ...['9007199254740993', '18446744073709551616', '1e3', '0x10', '1.5', '', '9'.repeat(400)],
]
const PIECES = [
  ...[
    '"',
    '\\',
    '\\"',
    '<',
    '>',
    '<>',
    ';',
    ';;',
    ',',
    ',,',
    '@',
    ':',
    '::',
    '[',
    ']',
    '%',
    '%0',
    '%00',
    '%zz',
    '=',
    '?',
    '&',
    '*',
  ],
  ...[' ', '\t', '\r\n ', '\r\n\t', '\r\n', '\r', '\n', '\0', '\x7f', '\x1b[2J', '\xc3\xa9', '\xe2\x82\xac', '\xf0\x9f\x93\x9e'],
  // Not UTF-8: overlong, a surrogate, a lone continuation.
  ...[
    '\xc0\xaf',
    '\xed\xa0\x80',
    '\x80',
    '\xff',
    ';lr',
    ';transport=tcp',
    ';rport',
    ';received=1.2.3.4',
    ';maddr=127.0.0.9',
    ';tag=x',
  ],
]
const HEADERS = [
  ...[
    'Route: <sip:127.0.0.1:6060;lr>',
    'Route: <sip:example.net;lr>, <sip:127.0.1.1:5060;lr;tk=x>',
    'Record-Route: <sip:127.0.1.1;lr;tk=A>',
  ],
  ...[
    'Path: <sip:127.0.0.1:7777;lr>',
    'Max-Forwards: 0',
    'Max-Forwards: 1',
    'Proxy-Require: a, b',
    'Require: path',
    'Require: "',
  ],
  ...[
    'Expires: 0',
    'Expires: 4294967296',
    'Contact: *',
    'Contact: <sip:bob@127.0.0.1:7000>;q=0.5;expires=60;+sip.instance="<urn:x>";reg-id=1',
  ],
  ...[
    'm: sip:a@b,sip:c@d',
    'Via: SIP/2.0/TCP 127.0.1.1:5060;branch=z9hG4bKx',
    'v: SIP/2.0/UDP 127.0.0.1:6060;branch=z9hG4bK',
    'l: 5',
  ],
  ...[
    'Authorization: Digest username="bob", realm="example.net", nonce="AAAA", uri="sip:x", response="0", qop=auth, nc=1, cnonce="',
  ],
  ...[
    'Proxy-Authorization: Digest',
    'Antipode-Hop: x',
    'RAck: 1 1 INVITE',
    'Reason: SIP;cause=200',
    'To: <sip:bob@example.net>;tag=t',
  ],
  ...[
    'From: <sip:a@example.net>;tag=',
    'CSeq: 2 BYE',
    'Content-Type: multipart/mixed;boundary="',
    'Subject:',
    ': x',
    'x',
    ' folded',
  ],
]
const URIS = [
  ...[
    'sip:bob@example.net',
    'sip:example.net',
    'sip:127.0.1.1',
    'sip:bob@127.0.1.1:5060;transport=tcp',
    'sips:bob@example.net',
    'tel:+1-2;ext=3',
  ],
  ...[
    'tel:',
    'sip:',
    'sip:@',
    'sip:%00@example.net',
    'sip:bob@[::1]:5060',
    'sip:bob@[::',
    'mailto:a@b',
    'sip:bob@example.net;lr;tk=x',
    '*',
  ],
  ...['sip:bob@example.net;a=1;a=2', `sip:${'b'.repeat(3000)}@example.net`, `sip:bob@example.net${';p=1'.repeat(300)}`],
]
const METHODS = [
  'INVITE',
  'ACK',
  'BYE',
  'CANCEL',
  'OPTIONS',
  'REGISTER',
  'PRACK',
  'UPDATE',
  'MESSAGE',
  'SUBSCRIBE',
  'invite',
  'X',
  '',
]
const COMPACT: Readonly<Record<string, string>> = {
  via: 'v',
  from: 'f',
  to: 't',
  'call-id': 'i',
  contact: 'm',
  'content-length': 'l',
  'content-type': 'c',
}

const pick = <T>(random: Random, list: readonly T[]): T => list[below(random, list.length)]!

/** Start line and headers as lines, and the rest. */
interface Parts {
  lines: string[]
  body: string
}

function split(text: string): Parts {
  const blank = text.indexOf('\r\n\r\n')
  return blank < 0
    ? { lines: text.split('\r\n'), body: '' }
    : { lines: text.slice(0, blank).split('\r\n'), body: text.slice(blank + 4) }
}

type Mutation = (parts: Parts, random: Random, other: () => Parts) => void

/** Puts `make` of the line in its place. */
const online =
  (make: (line: string, random: Random) => string): Mutation =>
  (parts, random) => {
    const i = below(random, parts.lines.length)
    parts.lines[i] = make(parts.lines[i] ?? '', random)
  }

const insert = (line: string, random: Random, piece: string): string => {
  const at = below(random, line.length + 1)
  return line.slice(0, at) + piece + line.slice(at)
}

const MUTATIONS: Readonly<Record<string, Mutation>> = {
  swap: ({ lines }, random) => {
    const [a, b] = [below(random, lines.length), below(random, lines.length)]
    ;[lines[a], lines[b]] = [lines[b]!, lines[a]!]
  },
  duplicate: ({ lines }, random) => void lines.splice(below(random, lines.length), 0, pick(random, lines)),
  remove: ({ lines }, random) => void lines.splice(below(random, lines.length), 1),
  compact: online((line) => line.replace(/^[\w-]+(?=:)/, (name) => COMPACT[name.toLowerCase()] ?? name.toUpperCase())),
  number: online((line, random) => {
    const runs = [...line.matchAll(/\d+/g)]
    if (runs.length === 0) return line
    const run = pick(random, runs)
    return line.slice(0, run.index) + pick(random, NUMBERS) + line.slice(run.index + run[0].length)
  }),
  piece: online((line, random) => insert(line, random, pick(random, PIECES))),
  pieces: online((line, random) => insert(line, random, pick(random, PIECES).repeat(1 + below(random, 2000)))),
  drop: online((line, random) => {
    const at = below(random, line.length + 1)
    return line.slice(0, at) + line.slice(at + 1 + below(random, 8))
  }),
  fold: online((line) => line.replace(/[ ;,]/g, (c) => `${c}\r\n `)),
  repeat: online((line, random) => {
    const at = below(random, line.length + 1)
    return line + line.slice(at, at + 1 + below(random, 30)).repeat(1 + below(random, 1000))
  }),
  header: ({ lines }, random) => void lines.splice(1 + below(random, lines.length), 0, pick(random, HEADERS)),
  headers: ({ lines }, random) => {
    const line = random.unit() < 0.5 ? pick(random, HEADERS) : pick(random, lines)
    lines.push(...Array.from({ length: 1 + below(random, 250) }, () => line))
  },
  uri: ({ lines }, random) => {
    lines[0] = (lines[0] ?? '').replace(/ [^ ]+ /, ` ${pick(random, URIS)} `)
  },
  addressee: ({ lines }, random) => {
    const i = lines.findIndex((line) => /^(to|from|contact|route|t|f|m):/i.test(line))
    if (i >= 0) lines[i] = lines[i]!.replace(/<[^>]*>|sip:[^;,]*/, () => `<${pick(random, URIS)}>`)
  },
  method: ({ lines }, random) => {
    const method = pick(random, METHODS)
    lines[0] = (lines[0] ?? '').replace(/^[^ ]+/, method)
    // Half of the time the CSeq says the same, so that the request is taken for what it claims.
    if (random.unit() < 0.5) {
      const i = lines.findIndex((line) => /^cseq/i.test(line))
      if (i >= 0) lines[i] = lines[i]!.replace(/\w+$/, method)
    }
  },
  status: ({ lines }, random) => {
    lines[0] = `SIP/2.0 ${pick(random, ['100', '180', '183', '200', '202', '300', '302', '401', '408', '430', '487', '503', '600', '699', '700', '99'])} x`
  },
  splice: (parts, random, other) => {
    const b = other()
    parts.lines = [
      ...parts.lines.slice(0, below(random, parts.lines.length + 1)),
      ...b.lines.slice(below(random, b.lines.length)),
    ]
    if (random.unit() < 0.5) parts.body = b.body
  },
  graft: (parts, random, other) => void parts.lines.splice(1 + below(random, parts.lines.length), 0, pick(random, other().lines)),
  body: (parts, random) => {
    parts.body = random.unit() < 0.5 ? '' : parts.body + '\xff\0\r\n\r\n'.repeat(below(random, 5000))
  },
}
const NAMES = Object.keys(MUTATIONS)

export interface Mutant {
  readonly bytes: Buffer
  /** What was done, for a message that is to be reproduced. */
  readonly story: string
}

/**
 * One to three mutations of a message of the corpus.
 * @param serial makes the branch that of no other message, most of the time: else all that share one would be retransmissions
 */
export function mutate(corpus: readonly string[], random: Random, serial: number): Mutant {
  const parts = split(pick(random, corpus))
  const other = (): Parts => split(pick(random, corpus))
  const story: string[] = []
  for (let left = 1 + below(random, 3); left > 0; left--) {
    const name = pick(random, NAMES)
    MUTATIONS[name]!(parts, random, other)
    story.push(name)
  }
  if (random.unit() < 0.8) {
    const i = parts.lines.findIndex((line) => /^(via|v):.*branch=/i.test(line))
    if (i >= 0 && parts.lines[0]?.startsWith('SIP/') === false)
      parts.lines[i] = parts.lines[i]!.replace(/branch=z9hG4bK/, `branch=z9hG4bK${serial.toString(36)}.`)
  }
  if (random.unit() < 0.7) {
    const i = parts.lines.findIndex((line) => /^(content-length|l)\s*:/i.test(line))
    const line = `Content-Length: ${parts.body.length}`
    if (i >= 0) parts.lines[i] = line
    else parts.lines.push(line)
  }
  let bytes = Buffer.from(`${parts.lines.join('\r\n')}\r\n\r\n${parts.body}`, 'latin1')
  if (random.unit() < 0.1) {
    for (let flips = 1 + below(random, 8); flips > 0; flips--) {
      const at = below(random, bytes.length)
      bytes[at] = bytes[at]! ^ (1 << below(random, 8))
    }
    story.push('flip')
  }
  if (random.unit() < 0.05) {
    bytes = bytes.subarray(0, below(random, bytes.length + 1))
    story.push('truncate')
  }
  return { bytes, story: story.join(' ') }
}
