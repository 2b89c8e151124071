import { Agent, request } from 'undici'
import { AntipodeError } from '../base/errors.ts'
import type { CdrPart } from '../cdr/call-record.ts'
import type { Condition, DialogView, NodeStatus, RegistrationView } from './target.ts'

const CONNECT_TIMEOUT_MS = 1500
const ANSWER_TIMEOUT_MS = 10_000
/** The parts of a long journal are the largest thing that a node answers with. */
const MAX_ANSWER_BYTES = 512 * 1024 * 1024

/**
 * One node's admin API, from outside.
 *
 * Every method throws AntipodeError: ADMIN_UNREACHABLE when the node does not answer, ADMIN_UNAUTHORIZED when it wants another token, otherwise
 * the code that it answered with.
 */
export class AdminClient {
  readonly #origin: string
  readonly #token: string | undefined
  readonly #agent = new Agent({
    connect: { timeout: CONNECT_TIMEOUT_MS },
    headersTimeout: ANSWER_TIMEOUT_MS,
    bodyTimeout: ANSWER_TIMEOUT_MS,
    maxResponseSize: MAX_ANSWER_BYTES,
    connections: 1,
  })

  constructor(o: { address: string; port: number; token?: string | undefined }) {
    this.#origin = `http://${o.address.includes(':') ? `[${o.address}]` : o.address}:${o.port}`
    this.#token = o.token
  }

  status(): Promise<NodeStatus> {
    return this.#ask('GET', '/v1/status') as Promise<NodeStatus>
  }

  registrations(aor: string): Promise<RegistrationView> {
    return this.#ask('GET', `/v1/registrations/${encodeURIComponent(aor)}`) as Promise<RegistrationView>
  }

  async dialogs(limit: number): Promise<DialogView[]> {
    return ((await this.#ask('GET', `/v1/dialogs?limit=${limit}`)) as { dialogs: DialogView[] }).dialogs
  }

  /** Parts of the node's own journal and of the mirrors that it holds. */
  async cdrParts(): Promise<CdrPart[]> {
    return ((await this.#ask('GET', '/v1/cdrs?parts=1')) as { parts: CdrPart[] }).parts
  }

  /** @param addresses IPv4 or IPv6; in place of what was blocked before */
  async setBlocked(addresses: readonly string[]): Promise<void> {
    await this.#ask('POST', '/v1/drill/block', { addresses })
  }

  /** Not ready is an answer here, not an error. */
  async ready(): Promise<Condition> {
    const { body } = await this.#send('GET', '/readyz')
    const { ok, reasons } = body as Partial<Condition>
    return { ok: ok === true, reasons: reasons ?? [] }
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }

  async #ask(method: 'GET' | 'POST', path: string, body?: unknown): Promise<unknown> {
    const answer = await this.#send(method, path, body)
    if (answer.status >= 200 && answer.status < 300) return answer.body
    const { code, message } = (answer.body as { error?: { code?: string; message?: string } } | undefined)?.error ?? {}
    throw new AntipodeError(code ?? 'ADMIN_REFUSED', message ?? `${this.#origin} answered ${answer.status}`)
  }

  async #send(method: 'GET' | 'POST', path: string, body?: unknown): Promise<{ status: number; body: unknown }> {
    try {
      const response = await request(`${this.#origin}${path}`, {
        method,
        dispatcher: this.#agent,
        headers: {
          ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const text = await response.body.text()
      return { status: response.statusCode, body: text === '' ? undefined : JSON.parse(text) }
    } catch (error) {
      throw new AntipodeError('ADMIN_UNREACHABLE', `${this.#origin}: ${why(error)}`, error)
    }
  }
}

function why(error: unknown): string {
  if (error instanceof SyntaxError) return 'the answer is not JSON; is this an antipode node?'
  const code = (error as { code?: unknown } | null)?.code
  if (code === 'ECONNREFUSED') return 'connection refused'
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'UND_ERR_HEADERS_TIMEOUT') return 'no answer in time'
  return error instanceof Error ? error.message : String(error)
}
