import t from 'tap'
import { Demo, missing, NODES, registration, until } from './demo.ts'

const skip = missing('sipp')

t.test(
  'A: a phone registers in one region and is known with its edge at all six nodes within 1 s',
  { skip: skip ?? false, timeout: 180_000 },
  async (t) => {
    const demo = await Demo.start(['sip.digestAlgorithms=[MD5, SHA-256]'])
    t.teardown(() => demo.stop())

    // SIPp 3.6 looks at the first challenge alone, and knows only MD5.
    const registered = await demo.sipp('register.xml', 'us-east-1', [registration('u1')])
    const sinceMs = Date.now()
    t.equal(registered.code, 0, registered.code === 0 ? 'SIPp is content' : registered.output)
    const seen = await until('u1 at all six nodes', 1000, async () => {
      const views = await Promise.all(NODES.map((n) => demo.registrations(n, 'u1')))
      return views.every((v) => v.bindings.length === 1) && views
    })
    t.comment(`everywhere after ${Date.now() - sinceMs} ms`)
    for (const view of seen) {
      t.match(view.bindings[0], { contact: 'sip:u1@127.0.0.1:6070', edge: { region: 'us-east', node: 'us-east-1' } })
    }

    const locate = await demo.cli('locate', 'u1@example.net', '--json')
    t.equal(locate.code, 0, locate.stderr)
    t.equal((locate.stdout.match(/"us-east-1"/g) ?? []).length >= 6, true, 'locate names the edge for each of the six')
    t.equal((await demo.cli('locate', 'nobody@example.net')).code, 1, 'a user who is nowhere is a negative finding')

    t.test('a phone outside the ACL answers a challenge that any node accepts', async (t) => {
      // SIPp's [authentication] answers a challenge of one node at another: the nonce is signed, not stored.
      const result = await demo.sipp('register-auth.xml', 'us-east-1', ['alice'], {
        args: ['-i', '127.0.0.9', '-key', 'second', '127.0.2.1', '-au', 'alice', '-ap', 'wonderland', '-auth_uri', 'example.net'],
      })
      t.equal(result.code, 0, result.code === 0 ? 'SIPp is content' : result.output)
      const wrong = await demo.sipp('register-auth.xml', 'us-east-1', ['alice'], {
        args: [
          '-i',
          '127.0.0.9',
          '-key',
          'second',
          '127.0.2.1',
          '-au',
          'alice',
          '-ap',
          'looking-glass',
          '-auth_uri',
          'example.net',
        ],
        timeoutS: 10,
      })
      t.not(wrong.code, 0, 'a wrong password is not let in')
    })

    t.test('status is readable and equal digests are shown', async (t) => {
      const status = await demo.cli('status')
      t.equal(status.code, 0, status.stderr)
      for (const n of NODES) t.match(status.stdout, n)
      await until('equal digests', 3000, async () => new Set(await demo.digests()).size === 1)
    })
  },
)
