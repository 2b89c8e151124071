import { answer, type QueryType } from '../geo/answer.ts'
import { encodeAnswer, readQuery, udpLimit } from '../geo/dns-message.ts'
import { demoZone, viewOf } from '../test/geo/zone-fixture.ts'
import { Checksum, cpuFigure, measure } from './lib/measure.ts'
import type { BenchOptions, BenchResult, Figure } from './lib/scenario.ts'

export const name = 'dns'
export const description =
  'answers from the zone of the demo: the pure function, and a datagram in and a datagram out (no socket)'
export const kind = 'micro'

const SECONDS = 2
const BATCH = 500
const ASKED: readonly { readonly name: string; readonly type: QueryType; readonly number: number }[] = [
  { name: 'sip.example.net', type: 'A', number: 1 },
  { name: '_sip._udp.example.net', type: 'SRV', number: 33 },
  { name: 'example.net', type: 'NAPTR', number: 35 },
]

export async function run({ seconds = SECONDS }: BenchOptions): Promise<BenchResult> {
  const zone = demoZone()
  // One node is dead, so that the order is not simply the configured one; clients of all regions and of none.
  const view = viewOf({ dead: ['eu-west-1'], unreachable: ['eu-west-1'] })
  const clients = ['127.0.1.9', '127.0.2.9', '127.0.3.9', '192.0.2.1']
  const figures: Figure[] = []
  const failures: string[] = []
  const sum = new Checksum()
  for (const asked of ASKED) {
    const pure = measure(seconds, () => {
      for (let i = 0; i < BATCH; i++) sum.add(answer(asked, clients[i % clients.length]!, zone, view).answers.length)
      return BATCH
    })
    figures.push(cpuFigure(`answer ${asked.type}`, pure))
    const datagram = queryBytes(asked.name, asked.number)
    let bytes = 0
    const whole = measure(seconds, () => {
      for (let i = 0; i < BATCH; i++) {
        const query = readQuery(datagram)
        if (!query.ok) throw new Error(`the query is refused: ${query.fault.code}`)
        bytes = encodeAnswer(
          query.value,
          answer(query.value, clients[i % clients.length]!, zone, view),
          udpLimit(query.value),
        ).length
        sum.add(bytes)
      }
      return BATCH
    })
    figures.push(cpuFigure(`datagram to datagram ${asked.type}`, whole, `${bytes} bytes out`))
    if (bytes <= datagram.length) failures.push(`the answer to ${asked.type} ${asked.name} holds nothing`)
  }
  return { figures, failures }
}

/** A query as a resolver sends it: recursion desired, EDNS with 1232 bytes. */
function queryBytes(name: string, type: number): Buffer {
  const labels = name.split('.').flatMap((label) => [Buffer.from([label.length]), Buffer.from(label, 'latin1')])
  return Buffer.concat([
    Buffer.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]),
    ...labels,
    Buffer.from([0, 0, type, 0, 1]),
    Buffer.from([0, 0, 41, 1232 >> 8, 1232 & 255, 0, 0, 0, 0, 0, 0]),
  ])
}
