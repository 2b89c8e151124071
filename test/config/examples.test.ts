import { join } from 'node:path'
import t from 'tap'
import { loadConfig, readConfig } from '../../config/load.ts'

const examples = join(import.meta.dirname, '../../config/examples')
const env = { ANTIPODE_LINK_KEY: '01'.repeat(32), ANTIPODE_TOKEN_KEY: '02'.repeat(32), ANTIPODE_NONCE_KEY: '03'.repeat(32) }
const REGIONS = ['us-east', 'eu-west', 'ap-south']

t.test('the example files are right as they stand', async (t) => {
  for (const region of REGIONS) {
    const { problems, warnings } = readConfig(join(examples, `${region}.yaml`), { env })
    t.same(problems, [], region)
    t.same(warnings, [], region)
  }
})

t.test('all regions agree on what a cluster must agree on', async (t) => {
  const configs = await Promise.all(REGIONS.map((r) => loadConfig(join(examples, `${r}.yaml`), `${r}-1`, env)))
  for (const config of configs) {
    t.same(config.cluster, configs[0]!.cluster)
    t.same(
      [config.domains, config.registrar, config.subscribers, config.geo],
      [configs[0]!.domains, configs[0]!.registrar, configs[0]!.subscribers, configs[0]!.geo],
    )
  }
  t.same(
    configs.map((c) => c.self.region),
    REGIONS,
  )
})

t.test('each of the six nodes has its own address', async (t) => {
  const config = await loadConfig(join(examples, 'us-east.yaml'), 'us-east-1', env)
  const places = config.cluster.regions.flatMap((r) => r.nodes.map((n) => `${n.name} ${n.address}:${n.sipPort}`))
  t.same(places, [
    'us-east-1 127.0.1.1:5060',
    'us-east-2 127.0.1.2:5060',
    'eu-west-1 127.0.2.1:5060',
    'eu-west-2 127.0.2.2:5060',
    'ap-south-1 127.0.3.1:5060',
    'ap-south-2 127.0.3.2:5060',
  ])
})
