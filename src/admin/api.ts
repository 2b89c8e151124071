import { createHash, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { BlockList, isIP } from 'node:net'
import { AntipodeError } from '../base/errors.ts'
import { endpoint, listenError } from '../base/listen.ts'
import type { Log } from '../base/log.ts'
import type { Metrics } from '../base/metrics.ts'
import { mergeParts } from '../cdr/merge.ts'
import type { AdminTarget, Condition } from './target.ts'

export type * from './target.ts'

export interface AdminLimits {
  readonly maxBodyBytes: number
  readonly maxConnections: number
  readonly requestTimeoutMs: number
  readonly maxDialogs: number
  /** Entries of one drill. */
  readonly maxBlocked: number
}
export const ADMIN_LIMITS: AdminLimits = {
  maxBodyBytes: 65_536,
  maxConnections: 256,
  requestTimeoutMs: 10_000,
  maxDialogs: 10_000,
  maxBlocked: 4096,
}

export interface AdminOptions {
  readonly listen: { readonly address: string; readonly port: number }
  readonly trustLoopback: boolean
  readonly token?: string | undefined
  readonly log: Log
  readonly metrics: Metrics
  readonly limits?: Partial<AdminLimits>
  /** A request from this peer address is dropped without an answer (drill), so that probes of a cut-off node fail as they would over a cut link. */
  readonly isBlocked?: ((address: string) => boolean) | undefined
}

/** What a route answers: JSON, or text where `type` says so. */
interface Answer {
  readonly status: number
  readonly body: unknown
  readonly type?: string
}
type Handler = (request: {
  param: string
  query: URLSearchParams
  body: unknown
  authorized: boolean
}) => Answer | Promise<Answer>
interface Route {
  readonly method: 'GET' | 'POST'
  readonly path: RegExp
  /** Asked by probes and load balancers, which hold no token; without one it says no more than yes or no. */
  readonly open: boolean
  readonly handle: Handler
}

const refusal = (status: number, code: string, message: string): Answer => ({ status, body: { error: { code, message } } })
const json = (body: unknown): Answer => ({ status: 200, body })

/** Only these leave a route on purpose; anything else that is thrown is our defect, logged and answered 500. */
class Refused extends Error {
  readonly answer: Answer
  constructor(answer: Answer) {
    super('refused')
    this.answer = answer
  }
}

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')
/** Node gives an IPv4 peer of a dual-stack listener as ::ffff:a.b.c.d. */
const plainAddress = (address: string): string =>
  address.startsWith('::ffff:') && isIP(address.slice(7)) === 4 ? address.slice(7) : address
export const isLoopback = (address: string): boolean => {
  const plain = plainAddress(address)
  const family = isIP(plain)
  return family !== 0 && loopback.check(plain, family === 4 ? 'ipv4' : 'ipv6')
}

/** Equal or not in a time that tells nothing about where they differ: hashes of equal length are compared. */
const sameSecret = (a: string, b: string): boolean =>
  timingSafeEqual(createHash('sha256').update(a).digest(), createHash('sha256').update(b).digest())

/**
 * The admin HTTP server of one node: health for probes, metrics for Prometheus, status, registrations, dialogs and CDRs for the command line, and
 * the drill. Reads only, but for the drill. Everything that is asked of it is bounded: body, time, connections, rows.
 */
export class AdminServer {
  readonly #o: AdminOptions
  readonly #limits: AdminLimits
  readonly #routes: readonly Route[]
  #server: Server | undefined

  constructor(target: AdminTarget, o: AdminOptions) {
    this.#o = o
    this.#limits = { ...ADMIN_LIMITS, ...o.limits }
    this.#routes = routes(target, this.#limits)
  }

  /** @throws AntipodeError NET_PORT_IN_USE, NET_ADDRESS_UNAVAILABLE, … naming address and port */
  async start(): Promise<void> {
    const { address, port } = this.#o.listen
    const server = createServer({
      requestTimeout: this.#limits.requestTimeoutMs,
      headersTimeout: Math.min(5000, this.#limits.requestTimeoutMs),
      keepAliveTimeout: 5000,
      maxHeaderSize: 16_384,
      connectionsCheckingInterval: 1000,
    })
    server.maxConnections = this.#limits.maxConnections
    server.on('connection', (socket) => {
      if (this.#o.isBlocked?.(plainAddress(socket.remoteAddress ?? ''))) socket.destroy()
    })
    server.on('request', (request, response) => {
      void this.#serve(request, response)
    })
    server.on('clientError', (_error, socket) => {
      if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        reject(listenError(`admin HTTP on ${endpoint(address, port)}`, error))
      })
      server.listen(port, address, resolve)
    })
    server.removeAllListeners('error')
    server.on('error', (error) => this.#o.log.error({ error: error.message }, 'admin server error'))
    this.#server = server
  }

  /** The port that it listens on; another than asked for where that was 0. */
  get port(): number {
    const bound = this.#server?.address()
    return typeof bound === 'object' && bound !== null ? bound.port : 0
  }

  async stop(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    await new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Before the body is read: a connection kept alive from before the cut must not go on answering probes.
    if (this.#o.isBlocked?.(plainAddress(request.socket.remoteAddress ?? ''))) {
      request.socket.destroy()
      return
    }
    let answer: Answer
    try {
      answer = await this.#answer(request)
    } catch (error) {
      if (error instanceof Refused) answer = error.answer
      else if (error instanceof AntipodeError && error.code !== 'INVARIANT') answer = refusal(400, error.code, error.message)
      else {
        this.#o.log.error({ error: error instanceof Error ? error.stack : String(error) }, 'admin request failed')
        answer = refusal(500, 'ADMIN_INTERNAL', 'internal error; the log has it')
      }
    }
    this.#o.metrics.admin.requests.inc({ class: `${Math.floor(answer.status / 100)}xx` })
    const type = answer.type ?? 'application/json; charset=utf-8'
    const body = Buffer.from(answer.type === undefined ? `${JSON.stringify(answer.body)}\n` : String(answer.body))
    response.writeHead(answer.status, {
      'content-type': type,
      'content-length': body.length,
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      ...(answer.status === 401 ? { 'www-authenticate': 'Bearer realm="antipode"' } : {}),
      // What is left of a body that was refused unread must not be taken for the next request.
      ...(request.complete ? {} : { connection: 'close' }),
    })
    response.end(request.method === 'HEAD' ? undefined : body)
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const method = request.method === 'HEAD' ? 'GET' : request.method
    const url = URL.parse(request.url ?? '/', 'http://admin')
    if (url === null) return refusal(400, 'ADMIN_BAD_REQUEST', 'not a URL')
    let matched = false
    for (const route of this.#routes) {
      const match = route.path.exec(url.pathname)
      if (match === null) continue
      matched = true
      if (route.method !== method) continue
      const authorized = this.#authorized(request)
      if (!route.open && !authorized) {
        return refusal(401, 'ADMIN_UNAUTHORIZED', 'a bearer token is needed')
      }
      // A page in a browser on the same host is on loopback too. It cannot set a JSON content type across origins without being asked first.
      if (method === 'POST' && !/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
        return refusal(415, 'ADMIN_BAD_REQUEST', 'content-type: application/json is needed')
      }
      const body = method === 'POST' ? await readJson(request, this.#limits.maxBodyBytes) : undefined
      return await route.handle({ param: decode(match[1] ?? ''), query: url.searchParams, body, authorized })
    }
    return matched
      ? refusal(405, 'ADMIN_METHOD', `${request.method} is not served here`)
      : refusal(404, 'ADMIN_NOT_FOUND', 'no such path')
  }

  #authorized(request: IncomingMessage): boolean {
    if (this.#o.trustLoopback && this.#fromLoopback(request)) return true
    const [scheme = '', given = ''] = (request.headers.authorization ?? '').split(' ', 2)
    return this.#o.token !== undefined && scheme.toLowerCase() === 'bearer' && sameSecret(given, this.#o.token)
  }

  #fromLoopback(request: IncomingMessage): boolean {
    if (!isLoopback(request.socket.remoteAddress ?? '')) return false
    // A proxy on this host speaks for someone else, and a name that resolves here (DNS rebinding) is a page's doing: neither is trusted.
    if (request.headers['x-forwarded-for'] !== undefined || request.headers.forwarded !== undefined) return false
    const host = URL.parse(`http://${request.headers.host ?? ''}`)?.hostname ?? ''
    return host === 'localhost' || isLoopback(host.replace(/^\[|\]$/g, ''))
  }
}

function routes(target: AdminTarget, limits: AdminLimits): Route[] {
  const condition = (c: Condition, whole: boolean): Answer => ({ status: c.ok ? 200 : 503, body: whole ? c : { ok: c.ok } })
  return [
    { method: 'GET', path: /^\/healthz$/, open: true, handle: ({ authorized }) => condition(target.healthy(), authorized) },
    { method: 'GET', path: /^\/readyz$/, open: true, handle: ({ authorized }) => condition(target.ready(), authorized) },
    {
      method: 'GET',
      path: /^\/metrics$/,
      open: false,
      handle: async () => ({ status: 200, body: await target.metricsText(), type: 'text/plain; version=0.0.4; charset=utf-8' }),
    },
    { method: 'GET', path: /^\/v1\/status$/, open: false, handle: () => json(target.status()) },
    {
      method: 'GET',
      path: /^\/v1\/registrations\/([^/]{1,1024})$/,
      open: false,
      handle: ({ param }) => json(target.registrations(param)),
    },
    {
      method: 'GET',
      path: /^\/v1\/dialogs$/,
      open: false,
      handle: ({ query }) => json({ dialogs: target.dialogs(wholeNumber(query, 'limit', limits.maxDialogs)) }),
    },
    {
      method: 'GET',
      path: /^\/v1\/cdrs$/,
      open: false,
      handle: async ({ query }) => {
        const scope = query.get('scope') ?? 'node'
        if (scope !== 'node' && scope !== 'cluster') return refusal(400, 'ADMIN_BAD_REQUEST', 'scope: node or cluster')
        const parts = await target.cdrs({ scope })
        return json(query.get('parts') === '1' ? { parts } : { cdrs: mergeParts(parts) })
      },
    },
    {
      method: 'POST',
      path: /^\/v1\/drill\/block$/,
      open: false,
      handle: ({ body }) => {
        const addresses = (body as { addresses?: unknown } | null)?.addresses
        if (
          !Array.isArray(addresses) ||
          addresses.length > limits.maxBlocked ||
          !addresses.every((a) => typeof a === 'string' && isIP(a) !== 0)
        ) {
          return refusal(400, 'ADMIN_BAD_REQUEST', 'expected { "addresses": ["192.0.2.1", …] }')
        }
        target.setBlocked(addresses)
        return json({ blocked: addresses })
      },
    },
  ]
}

function wholeNumber(query: URLSearchParams, name: string, most: number): number {
  const given = query.get(name)
  if (given === null) return most
  if (!/^\d{1,9}$/.test(given)) throw new Refused(refusal(400, 'ADMIN_BAD_REQUEST', `${name}: a whole number`))
  return Math.min(Number(given), most)
}

function decode(param: string): string {
  try {
    return decodeURIComponent(param)
  } catch {
    throw new Refused(refusal(400, 'ADMIN_BAD_REQUEST', 'bad percent-encoding'))
  }
}

/** The body as JSON. Not `for await`: leaving that loop early destroys the socket, and the 413 with it. */
function readJson(request: IncomingMessage, maxBytes: number): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > maxBytes) {
        request.pause()
        reject(new Refused(refusal(413, 'ADMIN_TOO_LARGE', `at most ${maxBytes} bytes`)))
      } else chunks.push(chunk)
    })
    request.on('error', () => reject(new Refused(refusal(400, 'ADMIN_BAD_REQUEST', 'the request broke off'))))
    request.on('end', () => {
      try {
        resolve(JSON.parse(Buffer.concat(chunks).toString('utf8')))
      } catch {
        reject(new Refused(refusal(400, 'ADMIN_BAD_REQUEST', 'the body is not JSON')))
      }
    })
  })
}
