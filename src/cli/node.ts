import { loadConfig } from '../../config/load.ts'
import { AntipodeError } from '../base/errors.ts'
import { createLog } from '../base/log.ts'
import { EXIT, type ExitCode } from './exit.ts'
import { namePortOwner } from './port-owner.ts'

/** What a node tells the demo that holds it, over the IPC channel. */
export type NodeReport =
  | { readonly kind: 'listening' }
  | { readonly kind: 'failed'; readonly code: string; readonly message: string }

const STOP_LIMIT_MS = 10_000

/** Runs one node until it is told to stop; returns the exit code. */
export async function runNode(file: string, o: { node?: string; set: readonly string[] }): Promise<ExitCode> {
  // Held by a demo: its stop is the demo's to order, and when the demo is gone, killed even, so is the node.
  const orders = stopOrders(process.send !== undefined)
  try {
    const config = await loadConfig(file, o.node, process.env, o.set)
    const log = createLog({ region: config.self.region }, config.logLevel)
    // Loaded late, so that commands which run no node do not wait for it.
    const { Gateway } = await import('../gateway.ts')
    let reload: (() => void) | undefined
    // Without certificates the signal keeps its usual meaning: the terminal is gone. With them it must not end a node that is still starting.
    if (config.sip.tls !== undefined) process.on('SIGHUP', () => reload?.())
    let above: number | undefined
    for (;;) {
      const superseded = Promise.withResolvers<number>()
      const starting = Gateway.start(config, { log, onSuperseded: superseded.resolve, ...(above === undefined ? {} : { above }) })
      // Told to stop before it has started: there may be nobody to pull the state from, and nobody should have to wait for that.
      const gateway = await Promise.race([starting, orders])
      if (typeof gateway === 'string') {
        log.info({ why: gateway }, 'stopped while starting')
        return EXIT.ok
      }
      report({ kind: 'listening' })
      reload = () => gateway.reloadCertificates()
      const why = await Promise.race([orders, superseded.promise])
      log.info(typeof why === 'string' ? { why } : { above: why }, 'stopping')
      const late = setTimeout(() => {
        log.error({ limitMs: STOP_LIMIT_MS }, 'the node did not stop in time')
        process.exit(EXIT.negative)
      }, STOP_LIMIT_MS)
      reload = undefined
      await gateway.stop()
      clearTimeout(late)
      if (typeof why === 'string') return EXIT.ok
      above = why
    }
  } catch (error) {
    if (!(error instanceof AntipodeError)) throw error
    const message = error.code === 'NET_PORT_IN_USE' ? await namePortOwner(error.message) : error.message
    report({ kind: 'failed', code: error.code, message })
    throw new AntipodeError(error.code, message, error)
  }
}

function report(message: NodeReport): void {
  if (process.connected) process.send?.(message)
}

/** Resolves with the reason once the node is to stop. */
function stopOrders(held: boolean): Promise<string> {
  return new Promise((resolve) => {
    process.on('SIGTERM', () => resolve('SIGTERM'))
    // Ctrl-C reaches every process of the terminal; those that a demo holds leave the order of stopping to it.
    let interrupts = 0
    process.on('SIGINT', () => {
      if (held) return
      if (++interrupts > 1) process.exit(130)
      resolve('SIGINT')
    })
    process.on('disconnect', () => resolve('the demo is gone'))
  })
}
