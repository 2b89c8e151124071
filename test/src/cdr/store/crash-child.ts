import { makePart } from '../parts.ts'
import { openAlone } from './harness.ts'

// Appends parts as fast as they become durable, some at a time, and writes the id of each on standard output once it was acknowledged.
const [directory, round] = [process.argv[2]!, Number(process.argv[3])]
const journal = await openAlone(directory, {
  self: { region: 'us-east', node: 'us-east-1', incarnation: (round + 1) * 2 ** 32 + 5 },
  segmentBytes: 32 * 1024,
})
const lane = async (lane: number): Promise<never> => {
  for (let n = 0; ; n++) {
    const id = `${round.toString(16).padStart(4, '0')}${lane.toString(16).padStart(4, '0')}${n.toString(16).padStart(24, '0')}`
    const { durable } = await journal.append(makePart({ id, reason: 'x'.repeat(n % 300) }))
    if (durable) process.stdout.write(`${id}\n`)
  }
}
process.stdout.write('ready\n')
await Promise.all(Array.from({ length: 8 }, (_, i) => lane(i)))
