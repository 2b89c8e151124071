import { writeFileSync } from 'node:fs'

/** A CPU profile of a running node: SIGUSR1 opens its inspector, nothing has to be started differently. Main thread only. */
export class Profiler {
  readonly #socket: WebSocket
  readonly #waiting = new Map<number, (result: unknown) => void>()
  #lastId = 0

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.addEventListener('message', (event) => {
      const { id, result } = JSON.parse(String(event.data)) as { id?: number; result?: unknown }
      if (id !== undefined) this.#waiting.get(id)?.(result)
    })
  }

  /** Begins. @throws when port 9229, the inspector's own, does not answer for this process */
  static async start(pid: number, intervalUs = 500): Promise<Profiler> {
    process.kill(pid, 'SIGUSR1')
    let targets: { webSocketDebuggerUrl: string }[] | undefined
    for (let tries = 0; targets === undefined && tries < 50; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      targets = await fetch('http://127.0.0.1:9229/json').then(
        (r) => r.json() as Promise<{ webSocketDebuggerUrl: string }[]>,
        () => undefined,
      )
    }
    const url = targets?.[0]?.webSocketDebuggerUrl
    if (url === undefined) throw new Error(`process ${pid} opens no inspector`)
    const socket = new WebSocket(url)
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve)
      socket.addEventListener('error', () => reject(new Error(`cannot connect to ${url}`)))
    })
    const profiler = new Profiler(socket)
    await profiler.#ask('Profiler.enable')
    await profiler.#ask('Profiler.setSamplingInterval', { interval: intervalUs })
    await profiler.#ask('Profiler.start')
    return profiler
  }

  /** Ends, writes what Chrome's developer tools read, and gives the functions with the most time of their own. */
  async stop(file: string): Promise<SelfTime[]> {
    const { profile } = (await this.#ask('Profiler.stop')) as { profile: CpuProfile }
    this.#socket.close()
    writeFileSync(file, JSON.stringify(profile))
    return selfTimes(profile)
  }

  #ask(method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    const id = ++this.#lastId
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve)
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
  }
}

export interface SelfTime {
  readonly where: string
  /** Of the time that was not idle. */
  readonly share: number
}

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { functionName: string; url: string; lineNumber: number }
  }[]
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

export function selfTimes(profile: CpuProfile): SelfTime[] {
  const names = new Map<number, string>()
  for (const { id, callFrame } of profile.nodes) {
    const { functionName, url, lineNumber } = callFrame
    const file = url.replace(/^.*\/(?=(src|crdt|geo|config|node_modules)\/)/, '').replace(/^.*node_modules\//, '')
    names.set(id, url === '' ? functionName : `${functionName || '(anonymous)'} ${file}:${lineNumber + 1}`)
  }
  const us = new Map<string, number>()
  for (const [i, id] of profile.samples.entries()) {
    const name = names.get(id) ?? '?'
    us.set(name, (us.get(name) ?? 0) + (profile.timeDeltas[i] ?? 0))
  }
  us.delete('(idle)')
  const total = [...us.values()].reduce((a, b) => a + b, 0)
  return [...us].map(([where, t]) => ({ where, share: t / total })).sort((a, b) => b.share - a.share)
}
