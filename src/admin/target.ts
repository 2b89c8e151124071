import type { CdrPart } from '../cdr/call-record.ts'

/** What a node says of one cluster link. */
export interface LinkStatus {
  readonly region: string
  readonly node: string
  readonly incarnation: number
  readonly outbound: boolean
  readonly sinceMs: number
  readonly rttMs: number | undefined
  readonly queueBytes: number
}

/** `GET /v1/status`. */
export interface NodeStatus {
  readonly node: string
  readonly region: string
  readonly incarnation: number
  readonly pid: number
  readonly uptimeS: number
  readonly version: string
  /** What listens where, for people: `{ sip: '127.0.1.1:5060', … }`. */
  readonly addresses: Readonly<Record<string, string>>
  readonly ready: boolean
  readonly healthy: boolean
  readonly verdict: {
    readonly regions: Readonly<Record<string, string>>
    readonly nodes: Readonly<Record<string, string>>
  }
  readonly links: readonly LinkStatus[]
  /** `digest` is equal on all nodes whose state is equal. */
  readonly state: {
    readonly digest: string
    readonly docs: number
    readonly entries: number
    readonly bindings: number
    /** Calls that ring or are up. */
    readonly dialogs: number
  }
  readonly cdr: Readonly<Record<string, unknown>>
  readonly cpuSeconds: number
  readonly memoryBytes: number
  readonly drill: { readonly blocked: readonly string[] }
  /** This node hears a majority of the electorate. */
  readonly inMajority: boolean
  readonly sip: Readonly<Record<string, unknown>>
}

/** One live binding of `GET /v1/registrations/:aor`. */
export interface BindingView {
  readonly contact: string
  readonly edge: { readonly region: string; readonly node: string; readonly incarnation: number }
  /** As `flowText` gives it. */
  readonly flow: string
  readonly expiresAtMs: number
  readonly q: number
  readonly callId: string
  readonly cseq: number
  readonly hlc: number
}

/** `GET /v1/registrations/:aor`. */
export interface RegistrationView {
  /** Canonical. */
  readonly aor: string
  readonly bindings: readonly BindingView[]
  /** Per key why it is (not) bound; for support, its shape is not promised. */
  readonly explain: unknown
}

/** One dialog of `GET /v1/dialogs`. */
export interface DialogView {
  readonly id: string
  readonly callId: string
  readonly caller: string
  readonly callee: string
  readonly phase: 'early' | 'confirmed' | 'ended'
  readonly startMs: number
  readonly answerMs: number
  readonly endMs: number
  readonly region: string
  readonly node: string
}

export interface Condition {
  readonly ok: boolean
  readonly reasons: readonly string[]
}

/** The node as the admin API sees it; the gateway is one. */
export interface AdminTarget {
  status(): NodeStatus
  /** @throws AntipodeError when `aor` is not a SIP or tel URI; answered as 400 with its code. */
  registrations(aor: string): RegistrationView
  dialogs(limit: number): DialogView[]
  /** Parts from this node's journal and the mirrors that it holds; `cluster` also asks every other node; who does not answer is left out. */
  cdrs(o: { scope: 'node' | 'cluster' }): Promise<CdrPart[]>
  /** Drill: drops everything to and from these addresses, silently, in place of what was blocked before. */
  setBlocked(addresses: string[]): void
  ready(): Condition
  healthy(): Condition
  metricsText(): Promise<string>
}
