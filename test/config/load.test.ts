import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ConfigError, loadConfig, problemText, readConfig, readTargets } from '../../config/load.ts'

const KEY = 'ab'.repeat(32)
const env = { LINK: KEY, TOKEN: 'cd'.repeat(32), NONCE: Buffer.alloc(40, 7).toString('base64') }

/** A configuration in which nothing is wrong, one field a line, so that tests can say which line a fault is in. */
const GOOD = `region: east
cluster:
  name: demo
  electorate: [east, west, south]
  regions:
    - name: east
      cidrs: [192.0.2.0/24, 198.51.100.7]
      nodes:
        - { name: east-1, address: 192.0.2.1 }
        - { name: east-2, address: 192.0.2.2, sipPort: 5070 }
    - name: west
      nodes: [{ name: west-1, address: "2001:db8::1" }]
    - name: south
      nodes: [{ name: south-1, address: 203.0.113.1 }]
  keys:
    link: { current: a, keys: { a: { env: LINK } } }
    token: { current: a, keys: { a: { env: TOKEN } } }
    nonce: { current: a, keys: { a: { env: NONCE } } }
domains: [example.net]
sip:
  realm: example.net
registrar:
  maxExpiresS: 7200
geo:
  dns: { origin: example.net, hostmaster: hostmaster.example.net }
admin: { trustLoopback: true }
stateDirectory: state
`

const fileWith = (t: Test, source: string, more: Record<string, string> = {}): string => {
  const directory = t.testdir({ 'config.yaml': source, ...more })
  return join(directory, 'config.yaml')
}

t.test('a configuration is complete, with defaults filled in, and frozen to the bottom', async (t) => {
  const file = fileWith(t, GOOD)
  const config = await loadConfig(file, 'east-2', env)
  t.match(config.self, {
    region: 'east',
    node: 'east-2',
    address: { sipPort: 5070, adminPort: 8060, dnsPort: 5353, linkPort: 7060 },
  })
  t.equal(config.cluster.constants.windowMs, 64_000)
  t.equal(config.sip.silenceMs, 2000)
  t.same(config.registrar, { minExpiresS: 60, defaultExpiresS: 3600, maxExpiresS: 7200, maxContactsPerAor: 10, cseq: 'strict' })
  t.same(config.cluster.regions[0]!.cidrs, ['192.0.2.0/24', '198.51.100.7/32'], 'one address is a network of one')
  t.equal(config.stateDirectory, join(t.testdirName, 'state', 'east-2'), 'relative to the file, a folder for each node')
  t.equal(config.cdr.directory, join(t.testdirName, 'state', 'east-2', 'cdr'))
  t.same(config.cluster.keys.link.keys.get('a'), Buffer.from(KEY, 'hex'))
  t.equal(config.cluster.keys.nonce.keys.get('a')!.length, 40, 'base64 as well')
  t.throws(() => {
    ;(config.cluster.regions[0]!.nodes[0] as { sipPort: number }).sipPort = 1
  }, TypeError)
})

t.test('every problem is reported at once, with its path, what was expected, and where it stands', async (t) => {
  const source = GOOD.replace('name: demo', 'name: Demo')
    .replace('sipPort: 5070', 'sipPort: 70000')
    .replace('current: a, keys: { a: { env: TOKEN }', 'current: b, keys: { a: { env: TOKEN }')
    .replace('realm: example.net', 'realm: example.net\n  silense: 5')
    .replace('maxExpiresS: 7200', 'maxExpiresS: 9000')
    .replace('[east, west, south]', '[east, west, mars]')
    .replace('stateDirectory: state', 'logLevel: loud')
  const file = fileWith(t, source)
  const error = await loadConfig(file, 'east-1', env).then(
    () => undefined,
    (e: unknown) => e,
  )
  t.ok(error instanceof ConfigError)
  const { problems, message, code } = error as ConfigError
  t.equal(code, 'CFG_INVALID')
  const seen = problems.map((p) => [p.path, p.line, p.column])
  t.same(
    seen.sort(),
    [
      ['cluster.constants.longestExpiryMs', 2, 1],
      ['cluster.electorate.2', 4, 28],
      ['cluster.keys.token.current', 17, 23],
      ['cluster.name', 3, 9],
      ['cluster.regions.0.nodes.1.sipPort', 10, 56],
      ['logLevel', 28, 11],
      ['sip.silense', 22, 3],
      ['stateDirectory', 1, 1],
    ].sort(),
  )
  t.match(message, /config\.yaml:3:9: cluster\.name: expected a name: lower-case .*; found "Demo"/)
  t.match(message, /sip\.silense: unknown key; did you mean silenceMs\?/)
  t.match(message, /sipPort: expected a port number from 1 to 65535; found 70000/)
  t.match(message, /longestExpiryMs: expected at least 9000000 \(registrar\.maxExpiresS\); found 7200000/)
  t.match(message, /electorate\.2: expected one of cluster\.regions \(east, west, south\); found mars/)
  t.match(message, /stateDirectory: missing; expected a directory/)
  t.match(message, /logLevel: expected one of trace, .*; found "loud"/)
})

t.test('a relation is not blamed for a field that is itself at fault', async (t) => {
  const file = fileWith(t, GOOD.replace('maxExpiresS: 7200', 'maxExpiresS: lots\n  minExpiresS: 5000'))
  const { problems } = readConfig(file, { env })
  t.same(
    problems.map((p) => p.path),
    ['registrar.maxExpiresS', 'registrar.defaultExpiresS'],
    'default below min is reported; max against default is not',
  )
})

t.test('what two nodes cannot share is named', async (t) => {
  const twice = GOOD.replace('west-1', 'east-1').replace('203.0.113.1', '192.0.2.1').replace('name: south', 'name: west')
  const { problems } = readConfig(fileWith(t, twice), { env })
  const text = problems.map((p) => `${p.path}: ${p.message}`).join('\n')
  t.match(text, /regions\.1\.nodes\.0\.name: a second node of the name east-1/)
  t.match(text, /regions\.2\.name: a second region of the name west/)
  t.match(text, /regions\.2\.nodes\.0\.sipPort: 192\.0\.2\.1 port 5060 is already that of east-1\.sipPort/)
})

t.test('constants whose relation would let the dead come back are refused', async (t) => {
  const { problems } = readConfig(fileWith(t, GOOD), { env, overrides: ['cluster.constants.graceMs=64499'] })
  t.match(problems, [
    {
      path: 'cluster.constants.graceMs',
      message: /expected at least 64500 \(windowMs \+ driftBoundMs\); found 64499 \(set by --set\)/,
    },
  ])
  t.same(readConfig(fileWith(t, GOOD), { env, overrides: ['cluster.constants.graceMs=64500'] }).problems, [])
})

t.test('two regions that vote alone are warned of', async (t) => {
  const { problems, warnings } = readConfig(fileWith(t, GOOD.replace('[east, west, south]', '[east, west]')), { env })
  t.same(problems, [])
  t.match(warnings.map((w) => w.message).join('\n'), /two regions cannot outvote each other/)
  t.match(warnings.map((w) => w.message).join('\n'), /south carries calls but has no vote/)
})

t.test('a cluster of one node asks for no mirror by default, and cannot ask for one', async (t) => {
  const alone = GOOD.replace(/ {4}- name: west[\s\S]*?(?= {2}keys:)/, '')
    .replace('[east, west, south]', '[east]')
    .replace('        - { name: east-2, address: 192.0.2.2, sipPort: 5070 }\n', '')
  const config = await loadConfig(fileWith(t, alone), undefined, env)
  t.equal(config.self.node, 'east-1', 'the only node need not be named')
  t.equal(config.cdr.durability.mirror, 0)
  const { problems } = readConfig(fileWith(t, alone), { env, overrides: ['cdr.durability.mirror=1'] })
  t.match(problems, [{ path: 'cdr.durability.mirror', message: /expected at most 0/ }])
})

t.test('a node must be named where the region has several, and must be one of them', async (t) => {
  const file = fileWith(t, GOOD)
  await t.rejects(loadConfig(file, undefined, env), { code: 'CFG_INVALID', message: /which node\? name one of east-1, east-2/ })
  await t.rejects(loadConfig(file, 'east-3', env), { message: /no node east-3 in east; did you mean east-1\?/ })
  await t.rejects(loadConfig(file, 'west-1', env), { message: /no node west-1 in east/ }, 'another region has a file of its own')
})

t.test('overrides are held to the same rules, and lists are entered by name', async (t) => {
  const file = fileWith(t, GOOD)
  const config = await loadConfig(file, 'east-1', env, [
    'cluster.regions.west.nodes.west-1.sipPort=6060',
    'cluster.regions.0.nodes.1.address="192.0.2.9"',
    'sip.timers.t1Ms=100',
    'cdr={ onFailure: reject }',
  ])
  t.equal(config.cluster.regions[1]!.nodes[0]!.sipPort, 6060)
  t.equal(config.cluster.regions[0]!.nodes[1]!.address, '192.0.2.9')
  t.equal(config.sip.timers.t1Ms, 100)
  t.equal(config.cdr.onFailure, 'reject')
  for (const [override, expected] of [
    ['sip.silenceMs=fast', /expected a whole number of milliseconds.*found "fast" \(set by --set\)/],
    ['sip.silense=1', /unknown key; did you mean silenceMs\?/],
    ['cluster.regions.north.name=x', /no north in cluster\.regions/],
    ['region.name=x', /region holds no fields/],
    ['nonsense', /expected path=value/],
    ['__proto__.x=1', /expected path=value/],
    ['sip.realm=[', /the value is not YAML/],
  ] as const) {
    await t.rejects(loadConfig(file, 'east-1', env, [override]), { message: expected }, override)
  }
  t.notOk('x' in {}, 'no prototype was touched')
})

t.test('a text that is not YAML, has a key twice or unfolds without end is refused with its place', async (t) => {
  for (const [source, expected] of [
    ['region: [east\n', /not YAML/],
    ['region: east\nregion: west\n', /:2:1: not YAML: Map keys must be unique/],
    ['', /expected a configuration/],
    [
      `a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c]\n`,
      /not YAML: .*alias/,
    ],
  ] as const) {
    const file = fileWith(t, source)
    await t.rejects(loadConfig(file, 'east-1', env), { message: expected })
  }
  await t.rejects(loadConfig('/nonexistent/x.yaml'), { message: /x\.yaml: cannot be read: ENOENT/ })
})

t.test('secrets come from file, environment or the text itself, and no message repeats one', async (t) => {
  const secret = '5e'.repeat(20)
  const source = GOOD.replace('{ env: LINK }', `{ value: ${secret} }`)
    .replace('{ env: TOKEN }', '{ file: token.key }')
    .replace('{ env: NONCE }', '{ env: ABSENT }')
    .replace('trustLoopback: true', 'token: { value: tooshort }')
  const file = fileWith(t, source, { 'token.key': 'not-a-key!\n' })
  chmodSync(join(t.testdirName, 'token.key'), 0o644)
  const { problems, warnings } = readConfig(file, { env })
  const text = [...problems, ...warnings].map((p) => problemText(file, p)).join('\n')
  t.match(text, /keys\.nonce\.keys\.a\.env: environment variable ABSENT is not set/)
  t.match(text, /keys\.token\.keys\.a: expected 32 bytes or more in hex or base64/)
  t.match(text, /keys\.link\.keys\.a: expected 32 bytes or more/, 'twenty bytes are too few')
  t.match(text, /admin\.token: expected 16 or more of letters/)
  t.match(text, /token\.key can be read by others; chmod 600/)
  t.match(text, /keys\.link\.keys\.a: a key written into the file/)
  for (const hidden of [secret, 'not-a-key', 'tooshort']) t.notMatch(text, hidden)

  writeFileSync(join(t.testdirName, 'token.key'), `${KEY}\n`)
  const fixed = source.replace(secret, KEY).replace('tooshort', 'long-enough-for-a-token')
  writeFileSync(file, fixed)
  const config = await loadConfig(file, 'east-1', { ABSENT: KEY })
  t.same(config.cluster.keys.token.keys.get('a'), Buffer.from(KEY, 'hex'), 'blanks around a key in a file do not count')
  t.equal(config.admin.token, 'long-enough-for-a-token')
})

t.test('a secret written where its source belongs is not repeated either', async (t) => {
  const { problems } = readConfig(fileWith(t, GOOD.replace('{ env: LINK }', 'hunter2hunter2')), { env })
  t.match(problems, [{ path: 'cluster.keys.link.keys.a', message: /found a text/ }])
  t.notMatch(problems[0]!.message, /hunter2/)
})

t.test('secrets that are not on this host are warnings to a check that is told so', async (t) => {
  const file = fileWith(t, GOOD)
  const { problems, warnings } = readConfig(file, { env: {}, secretsMayBeAbsent: true })
  t.same(problems, [])
  t.equal(warnings.filter((w) => /is not set/.test(w.message)).length, 3)
})

t.test('subscribers come from a file of their own, whose faults bear its name and lines', async (t) => {
  const source = `${GOOD}subscribers: { file: people.yaml }\n`
  const good = `- { username: joe, password: { value: secret } }\n- { username: ann, domain: example.net, ha1: { md5: "${'0'.repeat(32)}" } }\n`
  const config = await loadConfig(fileWith(t, source, { 'people.yaml': good }), 'east-1', env)
  t.same(config.subscribers, [
    { username: 'joe', password: 'secret' },
    { username: 'ann', domain: 'example.net', ha1: { md5: '0'.repeat(32) } },
  ])
  const bad =
    '- { username: joe }\n- { username: joe, password: hunter2 }\n- { username: jim, ha1: {} }\n- { username: jon, ha1: { md5: 11111111111111111111111111111111 } }\n'
  const { problems } = readConfig(fileWith(t, source, { 'people.yaml': bad }), { env })
  const text = problems.map((p) => problemText('c', p)).join('\n')
  t.match(text, /people\.yaml:1:3: 0: expected either password or ha1/)
  t.match(text, /people\.yaml:2:15: 1\.username: a second subscriber joe/)
  t.match(text, /people\.yaml:2:30: 1\.password: expected \{ file: PATH \}.*found a text/)
  t.match(text, /people\.yaml:3:20: 2\.ha1: expected md5, sha256 or both/)
  t.match(text, /3\.ha1\.md5: expected 32 hex digits; found a number, which is not text: put it in quotes/)
  t.notMatch(text, /hunter2/)
})

t.test('clients of the admin API learn all nodes without the cluster’s secrets', async (t) => {
  const targets = readTargets(fileWith(t, GOOD.replace('trustLoopback: true', 'token: { env: ADMIN }')), {
    ADMIN: 'a-token-of-some-length',
  })
  t.same(
    targets.nodes.map((n) => `${n.region}/${n.node.name}`),
    ['east/east-1', 'east/east-2', 'west/west-1', 'south/south-1'],
  )
  t.equal(targets.token, 'a-token-of-some-length')
  t.same(Object.keys(targets.journals), ['east-1', 'east-2'], 'only the own region’s journals lie here')
})

t.test('TLS is off by default; where it is on, its files are named absolutely and must be there', async (t) => {
  const plain = await loadConfig(fileWith(t, GOOD), 'east-1', env)
  t.equal(plain.sip.tls, undefined)
  t.same([plain.self.address.tlsPort, plain.self.address.wsPort, plain.self.address.wssPort], [undefined, undefined, undefined])
  t.same(plain.sip.webSocket, { origins: [], pingMs: 30_000 })

  const source = GOOD.replace('address: 192.0.2.1 }', 'address: 192.0.2.1, tlsPort: 5061, wsPort: 80, wssPort: 443 }').replace(
    'realm: example.net',
    'realm: example.net\n  tls: { certificate: node.pem, key: node.key, ca: ca.pem, requireClientCert: true, peerNames: { 192.0.2.9: sip.example.org } }',
  )
  const files = { 'node.pem': 'x', 'node.key': 'x', 'ca.pem': 'x' }
  const file = fileWith(t, source, files)
  chmodSync(join(t.testdirName, 'node.key'), 0o644)
  const config = await loadConfig(file, 'east-1', env)
  const at = (name: string): string => join(t.testdirName, name)
  t.match(config.sip.tls, {
    certificate: at('node.pem'),
    key: at('node.key'),
    ca: at('ca.pem'),
    minVersion: 'TLSv1.2',
    verify: true,
    names: [],
    peerNames: { '192.0.2.9': 'sip.example.org' },
  })
  t.match(readConfig(file, { env }).warnings, [{ path: 'sip.tls.key', message: /node\.key can be read by others; chmod 600/ }])

  const overrides = ['sip.tls.names=[{ name: a.example.net, certificate: none.pem, key: node.key }]']
  t.match(readConfig(file, { env, overrides }).problems, [
    { path: 'sip.tls.names.0.certificate', message: /cannot be read: ENOENT/ },
  ])
})

t.test('what TLS needs of other fields is said', async (t) => {
  for (const [more, path, expected] of [
    [['cluster.regions.east.nodes.east-1.tlsPort=5061'], 'cluster.regions.0.nodes.0.tlsPort', /expected sip\.tls/],
    [['cluster.regions.east.nodes.east-1.wssPort=443'], 'cluster.regions.0.nodes.0.wssPort', /expected sip\.tls/],
    [['cluster.regions.east.nodes.east-1.wsPort=5060'], 'cluster.regions.0.nodes.0.wsPort', /192\.0\.2\.1 port 5060 is already/],
    [
      ['sip.tls={ certificate: config.yaml, key: config.yaml, requireClientCert: true }'],
      'sip.tls.requireClientCert',
      /expected sip\.tls\.ca/,
    ],
    [
      [
        'sip.tls={ certificate: config.yaml, key: config.yaml }',
        'sip.tls.names=[{ name: a.net, certificate: config.yaml, key: config.yaml }, { name: a.net, certificate: config.yaml, key: config.yaml }]',
      ],
      'sip.tls.names.1.name',
      /a second certificate for a\.net/,
    ],
    [['sip.tls={ certificate: config.yaml }'], 'sip.tls.key', /missing; expected a PEM file/],
    [['sip.webSocket.origins=[phone.example.net]'], 'sip.webSocket.origins.0', /./],
  ] as const) {
    const { problems } = readConfig(fileWith(t, GOOD), { env, overrides: more })
    t.match(problems, [{ path, message: expected }], path)
    t.equal(problems.length, 1)
  }
  const webSocket = ['cluster.regions.east.nodes.east-1.wsPort=80', 'sip.trusted=[192.0.2.0/24]']
  t.match(readConfig(fileWith(t, GOOD), { env, overrides: webSocket }).warnings, [
    { path: 'sip.webSocket.origins', message: /trusted/ },
  ])
  const named = [...webSocket, 'sip.webSocket.origins=["https://phone.example.net"]']
  t.same(readConfig(fileWith(t, GOOD), { env, overrides: named }).warnings, [])
  // Another region's certificates are in its own file.
  t.same(readConfig(fileWith(t, GOOD), { env, overrides: ['cluster.regions.west.nodes.west-1.tlsPort=5061'] }).problems, [])
})
