import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { silentLog } from '../../../src/base/log.ts'
import { createMetrics } from '../../../src/base/metrics.ts'
import type { Flow, TransportName } from '../../../src/sip/flow.ts'
import type { SipMessage } from '../../../src/sip/message.ts'
import type { ParseFault } from '../../../src/sip/parse.ts'
import { type TransportLimits, Transports, type TransportsOptions } from '../../../src/transport/transports.ts'

/** Why certificates cannot be made here, or false. No private key is checked in: each run makes its own. */
export const skip: string | false = (process.env.PATH ?? '').split(':').some((dir) => existsSync(join(dir, 'openssl')))
  ? false
  : 'not installed: openssl'

export const message = (method: string, callId = 'c1', body = '', via = 'TLS'): string =>
  `${method} sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/${via} df7jal23ls0d.invalid;branch=z9hG4bKx\r\nMax-Forwards: 70\r\n` +
  `From: <sip:a@example.net>;tag=a\r\nTo: <sip:b@example.net>\r\nCall-ID: ${callId}\r\nCSeq: 1 ${method}\r\n` +
  `Content-Length: ${body.length}\r\n\r\n${body}`

/** Waits until `ready` says so; the test's own time limit is the only one. */
export async function until(ready: () => boolean): Promise<void> {
  while (!ready()) await new Promise((resolve) => setTimeout(resolve, 2))
}

export interface Pair {
  readonly certificate: string
  readonly key: string
}

/** Certificate authorities of one test, in its own folder. */
export class Pki {
  readonly #dir: string

  constructor(t: Test) {
    this.#dir = t.testdir()
  }

  file(name: string): string {
    return join(this.#dir, name)
  }

  authority(name: string): Pair {
    return this.#make(name, ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign'])
  }

  /** @param san as OpenSSL writes it: `IP:127.0.0.1,DNS:sip.example.net` */
  issue(name: string, by: Pair, san: string): Pair {
    return this.#make(name, ['-CA', by.certificate, '-CAkey', by.key, '-addext', `subjectAltName=${san}`])
  }

  #make(name: string, more: readonly string[]): Pair {
    const pair = { certificate: this.file(`${name}.pem`), key: this.file(`${name}.key`) }
    const subject = ['-subj', `/CN=${name}`, '-days', '2', '-nodes', '-out', pair.certificate, '-keyout', pair.key]
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
    // Without the configuration of the host, whatever that is.
    const config = { OPENSSL_CONF: '/dev/null', PATH: process.env.PATH }
    execFileSync('openssl', ['req', '-x509', ...curve, ...subject, ...more], { stdio: 'pipe', env: config })
    return pair
  }
}

export interface Node {
  readonly transports: Transports
  readonly messages: { message: SipMessage; flow: Flow }[]
  readonly faults: { fault: ParseFault; flow: Flow }[]
  readonly errors: { flow: Flow; error: Error & { code?: string }; ref: number }[]
  readonly closed: Flow[]
  readonly blocked: Set<string>
  port(transport: TransportName): number
  count(metric: 'sent' | 'refused' | 'sendErrors', label: string): Promise<number>
}

/** A node's transports on 127.0.0.1, at free ports. */
export async function startNode(
  t: Test,
  transports: readonly TransportName[],
  limits: Partial<TransportLimits> = {},
  more: Partial<TransportsOptions> = {},
): Promise<Node> {
  const messages: Node['messages'] = []
  const faults: Node['faults'] = []
  const errors: Node['errors'] = []
  const closed: Flow[] = []
  const blocked = new Set<string>()
  const metrics = createMetrics()
  const all = new Transports({
    listeners: transports.map((transport) => ({ transport, address: '127.0.0.1', port: 0 })),
    limits,
    log: silentLog,
    metrics,
    onMessage: (message, flow) => messages.push({ message, flow }),
    onFault: (fault, flow) => faults.push({ fault, flow }),
    onSendError: (flow, _bytes, error, ref) => errors.push({ flow, error, ref }),
    onClosed: (flow) => closed.push(flow),
    isBlocked: (address) => blocked.has(address),
    ...more,
  })
  await all.start()
  t.teardown(() => all.stop())
  return {
    transports: all,
    messages,
    faults,
    errors,
    closed,
    blocked,
    port: (transport) => all.localFor(transport, '127.0.0.9').port,
    count: async (metric, label) =>
      (await metrics.sip[metric].get()).values.find((v) => Object.values(v.labels).includes(label))?.value ?? 0,
  }
}
