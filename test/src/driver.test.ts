import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { Driver, type TimedCore } from '../../src/driver.ts'

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A core whose one timer is due `afterMs` after each start, and says so. */
class Ticker implements TimedCore<string> {
  dueMs: number | undefined
  fired = 0
  failing = 0
  readonly #outputs: string[] = []

  nextTimeoutMs(): number | undefined {
    return this.dueMs
  }

  handleTimeout(nowMs: number): void {
    if (this.failing > 0) {
      this.failing--
      throw new Error('a planted defect')
    }
    if (this.dueMs === undefined || nowMs < this.dueMs) return
    this.dueMs = undefined
    this.fired++
    this.#outputs.push(`tick ${this.fired}`)
  }

  takeOutputs(): string[] {
    return this.#outputs.splice(0)
  }
}

t.test('a core is woken when it asked to be, and its outputs are handed out', async (t) => {
  const core = new Ticker()
  const heard: string[] = []
  const driver = new Driver<string>(
    core,
    systemClock,
    (o) => heard.push(o),
    (error) => t.fail(String(error)),
  )
  core.dueMs = Date.now() + 20
  driver.settle()
  t.same(heard, [])
  await sleep(60)
  t.same(heard, ['tick 1'])
  driver.stop()
})

t.test('an earlier timer moves the wake-up, and what a handler feeds back is handed out too', async (t) => {
  const core = new Ticker()
  const heard: string[] = []
  const driver: Driver<string> = new Driver<string>(
    core,
    systemClock,
    (o) => {
      heard.push(o)
      if (heard.length === 1) {
        core.dueMs = Date.now() - 1
        core.handleTimeout(Date.now())
        driver.settle()
      }
    },
    (error) => t.fail(String(error)),
  )
  core.dueMs = Date.now() + 900
  driver.settle()
  core.dueMs = Date.now() + 10
  driver.settle()
  await sleep(80)
  t.same(heard, ['tick 1', 'tick 2'])
  driver.stop()
})

t.test('a throw on a timer is told, and the core goes on', async (t) => {
  const core = new Ticker()
  const defects: unknown[] = []
  const driver = new Driver<string>(
    core,
    systemClock,
    () => {},
    (error) => defects.push(error),
  )
  core.failing = 1
  core.dueMs = Date.now() + 5
  driver.settle()
  await sleep(250)
  t.equal(defects.length, 1)
  t.equal(core.fired, 1)
  driver.stop()
})

t.test('a stopped driver wakes nobody', async (t) => {
  const core = new Ticker()
  const driver = new Driver<string>(
    core,
    systemClock,
    () => {},
    (error) => t.fail(String(error)),
  )
  core.dueMs = Date.now() + 10
  driver.settle()
  driver.stop()
  await sleep(50)
  t.equal(core.fired, 0)
})
