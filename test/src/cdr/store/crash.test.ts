import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { readParts, verifyDirectory } from '../../../../src/cdr/store/audit.ts'
import { openAlone, scratch } from './harness.ts'

const child = fileURLToPath(new URL('crash-child.ts', import.meta.url))
const ROUNDS = 10

t.test('kill -9 at any moment loses no part that was acknowledged', async (t) => {
  const directory = scratch(t)
  const acknowledged = new Set<string>()
  for (let round = 0; round < ROUNDS; round++) {
    const process_ = spawn(process.execPath, [child, directory, String(round)], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    let ready = false
    const chunks = process_.stdout.setEncoding('latin1')
    chunks.on('data', (chunk: string) => {
      text += chunk
      if (ready || !text.includes('ready\n')) return
      ready = true
      setTimeout(() => process_.kill('SIGKILL'), Math.random() * 150)
    })
    const [code, signal] = (await once(process_, 'close')) as [number | null, string | null]
    t.equal(signal, 'SIGKILL', `round ${round} was killed, not ended by itself with ${code}`)
    const lines = text.split('\n')
    // The last line may be cut short.
    for (const line of lines.slice(0, -1)) if (line !== 'ready') acknowledged.add(line)
  }
  const held = new Set((await readParts(directory)).map((part) => part.id))
  t.same(
    [...acknowledged].filter((id) => !held.has(id)),
    [],
    `${acknowledged.size} acknowledged, ${held.size} held`,
  )
  t.ok(acknowledged.size > ROUNDS)
  // The next start recovers the last crash; after that nothing is left to say.
  await (await openAlone(directory, { self: { region: 'us-east', node: 'us-east-1', incarnation: 2 ** 50 } })).close()
  const report = await verifyDirectory(directory)
  t.same(report.errors, [])
  t.ok(report.records >= acknowledged.size)
})
