import { relative } from 'node:path'
import { examplesDirectory } from './demo-examples.ts'
import type { DemoPlan } from './demo-plan.ts'
import { commandText } from './output.ts'

/** What to try next, with the addresses of this very demo, to be pasted into another terminal. */
export function nextSteps(plan: DemoPlan, stateDirectory: string): string {
  const node = (name: string) => plan.nodes.find((n) => n.node === name)!
  const [home, away, doomed] = [node('us-east-1'), node('eu-west-2'), node('eu-west-1')]
  const examples = relative(process.cwd(), examplesDirectory()) || '.'
  const antipode = (command: string) => commandText(command, stateDirectory)
  const scenario = (file: string) => `sipp -sf ${examples}/sipp/${file}`
  const dig = (n: { address: string; dnsPort: number }, question: string) => `dig @${n.address} -p ${n.dnsPort} ${question}`
  // Needs an address for each node.
  const cut: [string, ...string[]] = [
    'Cut a region off, look, and heal it',
    antipode('drill cut us-east'),
    antipode('status'),
    antipode('drill heal'),
  ]
  const steps: [string, ...string[]][] = [
    [
      'Register u1 in us-east, and see it known everywhere (SIPp: apt-get install sip-tester)',
      `${scenario('register.xml')} -s u1 -i 127.0.0.1 -p 5090 -m 1 -nostdin ${home.address}:${home.sipPort}`,
      antipode('locate u1@example.net'),
    ],
    [
      'Answer as u1, and call it from eu-west, two seconds long (two terminals)',
      `${scenario('answer.xml')} -i 127.0.0.1 -p 5090 -m 1 -nostdin`,
      `${scenario('call.xml')} -s u1 -d 2000 -i 127.0.0.1 -p 5091 -m 1 -nostdin ${away.address}:${away.sipPort}`,
      antipode('cdr list'),
    ],
    ['Ask each region’s DNS', dig(home, 'sip.example.net A +short'), dig(away, '_sip._udp.example.net SRV +short')],
    ...(plan.overrides.length === 0 ? [cut] : []),
    ['Kill a node, and start it again', antipode(`drill kill ${doomed.node}`), antipode(`drill start ${doomed.node}`)],
    ['Prove the journals whole', antipode('cdr verify')],
  ]
  const text = steps.map(([title, ...commands]) => `  ${title}:\n${commands.map((c) => `    ${c}`).join('\n')}`)
  return `\nReady. To try, in another terminal:\n\n${text.join('\n\n')}\n\nCtrl-C stops all nodes; the state stays in ${stateDirectory}.`
}
