import { type Machine, type Step, step } from './machine.ts'

/**
 * Client transaction of every method but INVITE and ACK: RFC 3261 §17.1.2.
 *
 * ```
 *               request from TU: send, arm E, F
 *                         │
 *   E: resend,        ┌───▼──┐ 1xx: pass   ┌──────────┐ E: resend, E = T2
 *   E = min(2E, T2) ┌─┤trying├────────────►│proceeding├─┐ 1xx: pass
 *                   └►└─┬──┬─┘             └─┬──┬───▲──┘ │
 *                       │  │ final: pass     │  │   └────┘
 *      F or transport   │  └───────┐  ┌──────┘  │ F or transport error: tell TU
 *      error: tell TU   ▼      ┌───▼──▼──┐      ▼
 *                terminated ◄──┤completed│   terminated
 *                           K  └─────────┘ responses: absorbed
 * ```
 */
export type NonInviteClientState = 'trying' | 'proceeding' | 'completed' | 'terminated'
export type NonInviteClientTimer = 'E' | 'F' | 'K'
export type NonInviteClientEvent = 'provisional' | 'final' | 'transportError' | `timer${NonInviteClientTimer}`

type S = Step<NonInviteClientState, NonInviteClientTimer>

const stay = (state: NonInviteClientState): S => step(state)
const completed: S = step('completed', ['pass'], { clear: ['E', 'F'], arm: ['K'] })

export const nonInviteClient: Machine<NonInviteClientState, NonInviteClientEvent, NonInviteClientTimer> = {
  name: 'nonInviteClient',
  start: step('trying', ['send'], { arm: ['E', 'F'] }),
  table: {
    trying: {
      provisional: step('proceeding', ['pass']),
      final: completed,
      transportError: step('terminated', ['transportError']),
      timerE: step('trying', ['resend'], { arm: ['E'] }),
      timerF: step('terminated', ['timeout']),
      timerK: stay('trying'),
    },
    // Unlike an INVITE, the request goes on being retransmitted: the server resends nothing by itself.
    proceeding: {
      provisional: step('proceeding', ['pass']),
      final: completed,
      transportError: step('terminated', ['transportError']),
      timerE: step('proceeding', ['resend'], { arm: ['E'] }),
      timerF: step('terminated', ['timeout']),
      timerK: stay('proceeding'),
    },
    completed: {
      provisional: stay('completed'),
      final: stay('completed'),
      transportError: stay('completed'),
      timerE: stay('completed'),
      timerF: stay('completed'),
      timerK: step('terminated'),
    },
    terminated: {
      provisional: stay('terminated'),
      final: stay('terminated'),
      transportError: stay('terminated'),
      timerE: stay('terminated'),
      timerF: stay('terminated'),
      timerK: stay('terminated'),
    },
  },
  timers: ['E', 'F', 'K'],
  timerEvents: ['timerE', 'timerF', 'timerK'],
  backoff: 'E',
  duration(timer, state, lastMs, reliable, t) {
    switch (timer) {
      // §17.1.2.2: T1, doubled up to T2 in Trying; in Proceeding T2 at once.
      case 'E':
        if (reliable) return undefined
        if (lastMs === 0) return t.t1Ms
        return state === 'proceeding' ? t.t2Ms : Math.min(lastMs * 2, t.t2Ms)
      case 'F':
        return 64 * t.t1Ms
      case 'K':
        return reliable ? 0 : t.t4Ms
    }
  },
}
