import type { BindingEntry, BindingFlow } from '../../crdt/entry.ts'
import type { Fault } from '../base/errors.ts'
import type { Flow } from '../sip/flow.ts'
import type { SipRequest, SipResponse } from '../sip/message.ts'
import { makeResponse } from '../sip/respond.ts'
import { canonicalAor, canonicalContact, type NameAddr, parseNameAddr, parseUri } from '../sip/uri.ts'

/** What a registrar writes: an entry without what the state layer adds to it. */
export type BindingWrite = Omit<BindingEntry, 'kind' | 'hlc' | 'region' | 'node' | 'incarnation'>

/** The state that a registrar works on; in production the CRDT's binding index and write path. */
export interface BindingStore {
  lookup(aor: string, nowMs: number): readonly BindingEntry[]
  /** RFC 3261 §10.3 step 7 with the reorder window and `reset`: may this REGISTER be written for that key? */
  admit(
    query: { aor: string; key: string; callId: string; cseq: number; lenient: boolean },
    nowMs: number,
  ): { kind: 'accept'; reset: boolean } | { kind: 'refuse'; status: number; retryAfterS?: number; why: string }
  /** Keys of which anything is known, bound or not. */
  keys(aor: string): readonly string[]
  /** What keeps this from being written (a field or the whole is too long), or undefined. */
  fault(entry: BindingWrite): Fault | undefined
  write(entry: BindingWrite, nowMs: number): BindingEntry
}

export interface RegistrarOptions {
  readonly domains: ReadonlySet<string>
  readonly minExpiresS: number
  readonly defaultExpiresS: number
  readonly maxExpiresS: number
  readonly maxContactsPerAor: number
  readonly cseq: 'strict' | 'lenient'
  readonly store: BindingStore
}

export interface RegisterAnswer {
  readonly response: SipResponse
  /** For the metric: a small fixed set. */
  readonly outcome: 'registered' | 'removed' | 'fetched' | 'refused'
}

interface WantedContact {
  readonly key: string
  readonly contact: string
  readonly contactParams: string
  readonly q: number
  readonly expiresS: number
}

/** What a request asks for once it has been read: a value or the status to refuse it with. */
type Wanted =
  | { ok: true; contacts: WantedContact[]; star: boolean }
  | { ok: false; status: number; reason?: string; minExpires?: boolean }

const MAX_URI_CHARS = 512

/**
 * The registrar of RFC 3261 §10.3: it decides what a REGISTER does; `location.ts` says what the bindings mean to a call. All contacts of a request
 * are admitted before the first is written: it takes effect as a whole or not at all.
 */
export class Registrar {
  readonly #o: RegistrarOptions

  constructor(options: RegistrarOptions) {
    this.#o = options
  }

  /**
   * @param account the authenticated user, or undefined for a trusted source (which may register anyone)
   * @param nat whether the REGISTER came through a NAT, as its edge judges
   */
  handleRegister(request: SipRequest, flow: Flow, account: string | undefined, nat: boolean, nowMs: number): RegisterAnswer {
    // RFC 3261 §10.3 step 5: the address-of-record is the To header's URI in canonical form.
    const aorResult = canonicalAor(request.to.uri)
    if (!aorResult.ok) return refuse(request, 400, 'Bad To URI')
    const aor = aorResult.value
    const uri = parseUri(aor)
    if (!uri.ok || uri.value.user === undefined || !this.#o.domains.has(uri.value.host)) return refuse(request, 404)
    // Step 4: an account registers its own address only.
    if (account !== undefined && decodeURIComponentSafe(uri.value.user) !== account) return refuse(request, 403)

    const wanted = this.#read(request)
    if (!wanted.ok) {
      const answer = refuse(request, wanted.status, wanted.reason)
      if (wanted.minExpires) answer.response.headers.set('Min-Expires', String(this.#o.minExpiresS))
      return answer
    }
    const { callId } = request
    const cseq = request.cseq.seq
    const lenient = this.#o.cseq === 'lenient'
    const bindingFlow = flowOf(flow, nat)
    const path = request.headers.values('Path')
    const userAgent = (request.headers.get('User-Agent') ?? '').slice(0, 128)
    const common = { aor, callId, cseq, path, flow: bindingFlow, userAgent }

    if (wanted.star) {
      // Step 6: the CSeq rule holds for every binding of the same Call-ID; the rest goes whatever it is.
      const verdict = this.#o.store.admit({ aor, key: '', callId, cseq, lenient }, nowMs)
      if (verdict.kind === 'refuse') return refuse(request, verdict.status, verdict.why, verdict.retryAfterS)
      const clear: BindingWrite = {
        ...common,
        ...{ op: 'clear', key: '', reset: false, expiresAtMs: 0, contact: '', contactParams: '', q: 0 },
      }
      if (this.#o.store.fault(clear) !== undefined) return refuse(request, 400, 'Path or address too long')
      this.#o.store.write(clear, nowMs)
      return this.#accept(request, aor, 'removed', nowMs)
    }

    const live = this.#o.store.lookup(aor, nowMs)
    const added = wanted.contacts.filter((c) => c.expiresS > 0 && !live.some((b) => b.key === c.key)).length
    const removed = wanted.contacts.filter((c) => c.expiresS === 0 && live.some((b) => b.key === c.key)).length
    if (added > 0 && live.length + added - removed > this.#o.maxContactsPerAor) return refuse(request, 403, 'Too many contacts')

    const writes: BindingWrite[] = []
    for (const c of wanted.contacts) {
      const verdict = this.#o.store.admit({ aor, key: c.key, callId, cseq, lenient }, nowMs)
      if (verdict.kind === 'refuse') return refuse(request, verdict.status, verdict.why, verdict.retryAfterS)
      const { key, contact, contactParams, q } = c
      const { reset } = verdict
      // A removal is written even where no binding is known: what another region has and we never saw must go too.
      const write: BindingWrite =
        c.expiresS === 0
          ? { ...common, op: 'remove', key, reset, expiresAtMs: 0, contact, contactParams, q }
          : { ...common, op: 'set', key, reset, expiresAtMs: nowMs + c.expiresS * 1000, contact, contactParams, q }
      if (this.#o.store.fault(write) !== undefined) return refuse(request, 400, 'Contact, Path or address too long')
      writes.push(write)
    }
    for (const write of writes) this.#o.store.write(write, nowMs)
    const outcome =
      wanted.contacts.length === 0 ? 'fetched' : wanted.contacts.every((c) => c.expiresS === 0) ? 'removed' : 'registered'
    return this.#accept(request, aor, outcome, nowMs)
  }

  /** Reads the Contact headers with their expiries: §10.2.1.1, §10.3 steps 6 and 7. */
  #read(request: SipRequest): Wanted {
    const values = request.headers.values('Contact')
    const expiresHeader = request.headers.get('Expires')
    if (values.includes('*')) {
      if (values.length !== 1 || expiresHeader === undefined || deltaSeconds(expiresHeader) !== 0)
        return { ok: false, status: 400, reason: 'Contact * wants Expires: 0 and nothing else' }
      return { ok: true, contacts: [], star: true }
    }
    if (values.length > this.#o.maxContactsPerAor) return { ok: false, status: 403, reason: 'Too many contacts' }
    const contacts: WantedContact[] = []
    const keys = new Set<string>()
    for (const value of values) {
      const parsed = parseNameAddr(value)
      if (!parsed.ok || parsed.value.uri.length > MAX_URI_CHARS || value.length > 2 * MAX_URI_CHARS)
        return { ok: false, status: 400, reason: 'Bad Contact' }
      const key = bindingKey(parsed.value)
      if (key === undefined) return { ok: false, status: 400, reason: 'Bad Contact' }
      // The same binding twice in one request: which one holds is anybody's guess, so neither does.
      if (keys.has(key)) return { ok: false, status: 400, reason: 'Contact named twice' }
      keys.add(key)
      // A malformed expires counts as the default (§10.2.1.1: "If its value is malformed … 3600" in §20.10, §20.19).
      const asked = deltaSeconds(parsed.value.params.get('expires') ?? expiresHeader ?? '') ?? this.#o.defaultExpiresS
      if (asked > 0 && asked < this.#o.minExpiresS) return { ok: false, status: 423, minExpires: true }
      contacts.push({
        key,
        contact: parsed.value.uri,
        contactParams: keptParams(parsed.value),
        q: qValue(parsed.value.params.get('q')),
        expiresS: Math.min(asked, this.#o.maxExpiresS),
      })
    }
    return { ok: true, contacts, star: false }
  }

  /** 200 with every current binding (§10.3 step 8). */
  #accept(request: SipRequest, aor: string, outcome: RegisterAnswer['outcome'], nowMs: number): RegisterAnswer {
    const response = makeResponse(request, 200, 'OK', serverTag(request))
    for (const binding of this.#o.store.lookup(aor, nowMs)) {
      const expires = Math.max(1, Math.ceil((binding.expiresAtMs - nowMs) / 1000))
      const q = binding.q === 1000 ? '' : `;q=${(binding.q / 1000).toString()}`
      response.headers.append('Contact', `<${binding.contact}>${binding.contactParams}${q};expires=${expires}`)
    }
    // RFC 3327 §5.3: the Path that was stored comes back.
    for (const path of request.headers.lines('Path')) response.headers.append('Path', path)
    response.headers.append('Date', new Date(nowMs).toUTCString())
    return { response, outcome }
  }
}

/** RFC 5626: instance-id and reg-id name a binding whose contact changes with each reconnect; else the contact in canonical form. */
export function bindingKey(contact: NameAddr): string | undefined {
  // Whatever names the binding, its URI becomes a Request-URI.
  const canonical = canonicalContact(contact.uri)
  if (!canonical.ok) return undefined
  const instance = contact.params.get('+sip.instance')
  const regId = contact.params.get('reg-id')
  if (instance !== undefined && instance !== '' && regId !== undefined && /^[1-9]\d{0,9}$/.test(regId))
    return `${instance.toLowerCase()};${regId}`
  return canonical.value
}

/** Header parameters that the binding keeps; q and expires are kept in fields of their own. */
function keptParams(contact: NameAddr): string {
  let text = ''
  for (const [name, value] of contact.params) {
    if (name === 'q' || name === 'expires') continue
    text +=
      value === ''
        ? `;${name}`
        : /^[\w.!%*+`'~-]+$/.test(value)
          ? `;${name}=${value}`
          : `;${name}="${value.replace(/["\\]/g, '\\$&')}"`
  }
  return text
}

/** delta-seconds (§25.1) capped at 2^32 - 1, or undefined when it is none. */
function deltaSeconds(text: string): number | undefined {
  return /^\d{1,20}$/.test(text) ? Math.min(Number(text), 0xffffffff) : undefined
}

/** qvalue in thousandths; absent or malformed counts as 1. */
function qValue(text: string | undefined): number {
  return text !== undefined && /^(0(\.\d{0,3})?|1(\.0{0,3})?)$/.test(text) ? Math.round(Number(text) * 1000) : 1000
}

const flowOf = (flow: Flow, nat: boolean): BindingFlow => ({
  transport: flow.transport,
  localAddress: flow.localAddress,
  localPort: flow.localPort,
  remoteAddress: flow.remoteAddress,
  remotePort: flow.remotePort,
  connectionId: flow.connectionId ?? -1,
  nat,
})

/** A To-tag for a response that sets up no dialog needs no secret: it is a function of the request, so retransmissions get the same (§8.2.7). */
export const serverTag = (request: SipRequest): string => `${request.topVia.branch.slice(-16).replace(/[^\w]/g, '')}a`

function refuse(request: SipRequest, status: number, reason?: string, retryAfterS?: number): RegisterAnswer {
  const response = makeResponse(request, status, reason, serverTag(request))
  if (retryAfterS !== undefined) response.headers.set('Retry-After', String(retryAfterS))
  return { response, outcome: 'refused' }
}

function decodeURIComponentSafe(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
