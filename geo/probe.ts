import { Agent } from 'undici'
import { type Clock, systemClock } from '../src/base/clock.ts'

export interface HttpProbeOptions {
  /** From the start of the probe to its verdict, ms. */
  readonly timeoutMs: number
  /** Drill: such a target is not even tried. */
  readonly isBlocked?: (address: string) => boolean
  /** Asked for on every target; 200 is well. */
  readonly path?: string
  /** The address that probes come from. */
  readonly localAddress?: string
  readonly clock?: Clock
}

export type ProbeResult =
  | { readonly ok: true; readonly rttMs: number }
  | {
      readonly ok: false
      readonly rttMs: number
      readonly why: 'blocked' | 'status' | 'timeout' | 'error'
      readonly detail: string
    }

/**
 * Asks a node's /healthz over a connection that is kept: a probe then costs one round trip, and no port. A probe that times out takes its connection
 * along, so that the next one does not wait for TCP to recover from a cut.
 */
export class HttpProbe {
  readonly #options: HttpProbeOptions
  readonly #agent: Agent
  readonly #path: string
  readonly #clock: Clock

  constructor(options: HttpProbeOptions) {
    this.#options = options
    this.#path = options.path ?? '/healthz'
    this.#clock = options.clock ?? systemClock
    this.#agent = new Agent({
      connections: 1,
      pipelining: 1,
      keepAliveTimeout: 60_000,
      connect: {
        timeout: options.timeoutMs,
        ...(options.localAddress === undefined ? {} : { localAddress: options.localAddress }),
      },
      maxHeaderSize: 8192,
      maxResponseSize: 65_536,
    })
  }

  /** @param port the admin port. Never rejects. */
  async probe(address: string, port: number): Promise<ProbeResult> {
    const startMs = this.#clock.monotonicMs()
    const rttMs = (): number => this.#clock.monotonicMs() - startMs
    if (this.#blocked(address)) return { ok: false, rttMs: 0, why: 'blocked', detail: 'blocked by a drill' }
    const signal = AbortSignal.timeout(this.#options.timeoutMs)
    try {
      const host = address.includes(':') ? `[${address}]` : address
      const response = await this.#agent.request({
        origin: `http://${host}:${port}`,
        path: this.#path,
        method: 'GET',
        signal,
      })
      // The whole answer, or the connection could not be used again.
      await response.body.dump({ limit: 65_536, signal })
      if (this.#blocked(address)) return { ok: false, rttMs: rttMs(), why: 'blocked', detail: 'blocked by a drill' }
      return response.statusCode === 200
        ? { ok: true, rttMs: rttMs() }
        : { ok: false, rttMs: rttMs(), why: 'status', detail: `status ${response.statusCode}` }
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      return { ok: false, rttMs: rttMs(), why: signal.aborted ? 'timeout' : 'error', detail }
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }

  #blocked(address: string): boolean {
    return this.#options.isBlocked?.(address) ?? false
  }
}
