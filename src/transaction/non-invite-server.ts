import { type Machine, type Step, step } from './machine.ts'

/**
 * Server transaction of every method but INVITE and ACK: RFC 3261 §17.2.2.
 *
 * ```
 *             request: pass, arm answer
 *                        │
 *     request:       ┌───▼──┐ 1xx from TU: send  ┌──────────┐ request: last 1xx
 *     absorbed     ┌─┤trying├───────────────────►│proceeding├─┐ 1xx from TU: send
 *                  └►└─┬──┬─┘                    └─┬──┬───▲──┘ │
 *                      │  │ final from TU: send    │  │   └────┘
 *             answer:  │  └────────┐  ┌────────────┘  │ answer: tell TU
 *             tell TU  ▼       ┌───▼──▼──┐            ▼
 *               terminated ◄───┤completed├─┐       terminated
 *                           J  └─────▲───┘ │ request: final again
 *                                    └─────┘
 * ```
 */
export type NonInviteServerState = 'trying' | 'proceeding' | 'completed' | 'terminated'
export type NonInviteServerTimer = 'J' | 'Answer'
export type NonInviteServerEvent = 'request' | 'provisional' | 'final' | 'transportError' | `timer${NonInviteServerTimer}`

type S = Step<NonInviteServerState, NonInviteServerTimer>

const stay = (state: NonInviteServerState): S => step(state)
const completed: S = step('completed', ['send'], { clear: ['Answer'], arm: ['J'] })
/** RFC 6026 §7.1, in place of "terminated" in the figure of RFC 3261: a retransmission must not be taken for a new request. */
const sendFailed = (state: NonInviteServerState): S => step(state, ['serverTransportError'])

export const nonInviteServer: Machine<NonInviteServerState, NonInviteServerEvent, NonInviteServerTimer> = {
  name: 'nonInviteServer',
  start: step('trying', [], { arm: ['Answer'] }),
  table: {
    trying: {
      request: stay('trying'),
      provisional: step('proceeding', ['send']),
      final: completed,
      transportError: sendFailed('trying'),
      timerJ: stay('trying'),
      timerAnswer: step('terminated', ['serverTimeout']),
    },
    proceeding: {
      request: step('proceeding', ['resend']),
      provisional: step('proceeding', ['send']),
      final: completed,
      transportError: sendFailed('proceeding'),
      timerJ: stay('proceeding'),
      timerAnswer: step('terminated', ['serverTimeout']),
    },
    completed: {
      request: step('completed', ['resend']),
      provisional: stay('completed'),
      final: stay('completed'),
      transportError: sendFailed('completed'),
      timerJ: step('terminated'),
      timerAnswer: stay('completed'),
    },
    terminated: {
      request: stay('terminated'),
      provisional: stay('terminated'),
      final: stay('terminated'),
      transportError: stay('terminated'),
      timerJ: stay('terminated'),
      timerAnswer: stay('terminated'),
    },
  },
  timers: ['J', 'Answer'],
  timerEvents: ['timerJ', 'timerAnswer'],
  backoff: undefined,
  duration(timer, _state, _lastMs, reliable, t) {
    switch (timer) {
      case 'J':
        return reliable ? 0 : 64 * t.t1Ms
      // The client gave up after its own 64*T1 (RFC 4320 §4.2: no answer, 408 least of all, helps then); T4 later, so that the client
      // transactions of a proxy that forwarded the request time out first.
      case 'Answer':
        return 64 * t.t1Ms + t.t4Ms
    }
  },
}
