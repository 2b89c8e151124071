import type { AdminTarget, BindingView, Condition, DialogView, NodeStatus } from '../../../src/admin/target.ts'
import { AntipodeError } from '../../../src/base/errors.ts'
import type { CdrPart } from '../../../src/cdr/call-record.ts'

/** A node without sockets and state: it answers what a test has put into it, and remembers what it was told. */
export class FakeTarget implements AdminTarget {
  readonly region: string
  readonly node: string
  pid = process.pid
  blocked: string[] = []
  bindings = new Map<string, BindingView[]>()
  dialogList: DialogView[] = []
  parts: CdrPart[] = []
  isReady: Condition = { ok: true, reasons: [] }
  isHealthy: Condition = { ok: true, reasons: [] }
  dead: string[] = []
  lastLimit = -1
  lastScope = ''

  constructor(region: string, node: string) {
    this.region = region
    this.node = node
  }

  status(): NodeStatus {
    return {
      node: this.node,
      region: this.region,
      incarnation: 7,
      pid: this.pid,
      uptimeS: 3725,
      version: '0.0.0',
      addresses: { sip: '127.0.0.1:5060' },
      ready: this.isReady.ok,
      healthy: this.isHealthy.ok,
      verdict: { regions: { east: 'alive' }, nodes: Object.fromEntries(this.dead.map((n) => [n, 'dead'])) },
      links: [],
      state: { digest: 'd1d2d3d4d5d6d7d8', docs: 1, entries: 2, bindings: this.bindings.size, dialogs: this.dialogList.length },
      cdr: {},
      cpuSeconds: 1.5,
      memoryBytes: 100 * 1_048_576,
      inMajority: true,
      sip: {},
      drill: { blocked: this.blocked },
    }
  }

  registrations(aor: string) {
    if (!aor.startsWith('sip:')) throw new AntipodeError('SIP_URI', `${aor} is not a SIP URI`)
    return { aor, bindings: this.bindings.get(aor) ?? [], explain: {} }
  }

  dialogs(limit: number): DialogView[] {
    this.lastLimit = limit
    return this.dialogList.slice(0, limit)
  }

  cdrs({ scope }: { scope: 'node' | 'cluster' }): Promise<CdrPart[]> {
    this.lastScope = scope
    return Promise.resolve(this.parts)
  }

  setBlocked(addresses: string[]): void {
    this.blocked = addresses
  }

  ready(): Condition {
    return this.isReady
  }

  healthy(): Condition {
    return this.isHealthy
  }

  metricsText(): Promise<string> {
    return Promise.resolve('# HELP antipode_x\nantipode_x 1\n')
  }
}

export const part = (over: Partial<CdrPart> & Pick<CdrPart, 'part' | 'atMs'>): CdrPart => ({
  id: '0123456789abcdef0123456789abcdef',
  leg: over.part === 'attempt' ? '' : 'tag-b',
  callId: 'call-1@phone',
  fromTag: 'tag-a',
  region: 'east',
  node: 'east-1',
  incarnation: 1,
  caller: 'sip:u2@example.net',
  callee: 'sip:u1@example.net',
  account: 'u2',
  source: 'udp:127.0.0.1:5090',
  startMs: 0,
  answerMs: 0,
  status: over.part === 'end' ? 200 : 0,
  reason: over.part === 'end' ? 'bye' : '',
  observed: over.part === 'end',
  hungUpBy: over.part === 'end' ? 'caller' : '',
  emergency: false,
  ...over,
})

export const binding = (over: Partial<BindingView> = {}): BindingView => ({
  contact: 'sip:u1@127.0.0.1:5090',
  edge: { region: 'east', node: 'east-1', incarnation: 7 },
  flow: 'udp:127.0.0.1:5090',
  expiresAtMs: Date.now() + 600_000,
  q: 1000,
  callId: 'reg-1',
  cseq: 1,
  hlc: 1,
  ...over,
})

export const dialog = (over: Partial<DialogView> = {}): DialogView => ({
  id: 'call/leg',
  callId: 'call-1@phone',
  caller: 'sip:u2@example.net',
  callee: 'sip:u1@example.net',
  phase: 'confirmed',
  startMs: 1000,
  answerMs: 2000,
  endMs: 0,
  region: 'east',
  node: 'east-1',
  ...over,
})
