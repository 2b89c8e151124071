import { type Machine, type Step, step } from './machine.ts'

/**
 * INVITE client transaction: RFC 3261 §17.1.1 as changed by RFC 6026 §7.2 (state Accepted, Timer M).
 *
 * ```
 *              INVITE from TU: send, arm A, B
 *                        │
 *     A: resend, A×2 ┌───▼────┐  B or transport error: tell TU
 *            ┌───────┤calling ├──────────────────────────────► terminated
 *            └──────►└─┬─┬──┬─┘
 *          2xx: pass   │ │  │ 1xx: pass
 *       ┌──────────────┘ │  └──────────────┐
 *       │       300-699: │ ACK, pass  ┌────▼─────┐ 1xx: pass
 *       │                │◄───────────┤proceeding├──┐
 *       │   2xx: pass    │            └──┬──┬─▲──┘  │
 *       │◄───────────────┼───────────────┘  │ └─────┘
 *   ┌───▼────┐      ┌────▼────┐             └─ B (armed by our CANCEL): tell TU ─► terminated
 *   │accepted├─┐    │completed├─┐ 300-699: ACK again
 *   └─┬────▲─┘ │    └─┬─────▲─┘ │
 *     │    └───┘2xx:  │     └───┘   transport error: tell TU ─► terminated
 *     M         pass  D
 *     ▼               ▼
 *         terminated
 * ```
 */
export type InviteClientState = 'calling' | 'proceeding' | 'completed' | 'accepted' | 'terminated'
export type InviteClientTimer = 'A' | 'B' | 'D' | 'M'
export type InviteClientEvent =
  | 'provisional'
  | 'success'
  | 'failure'
  | 'transportError'
  | 'cancelSent'
  | `timer${InviteClientTimer}`

type S = Step<InviteClientState, InviteClientTimer>

const stay = (state: InviteClientState): S => step(state)
const accepted: S = step('accepted', ['pass'], { clear: ['A', 'B'], arm: ['M'] })
const completed: S = step('completed', ['ack', 'pass'], { clear: ['A', 'B'], arm: ['D'] })

export const inviteClient: Machine<InviteClientState, InviteClientEvent, InviteClientTimer> = {
  name: 'inviteClient',
  start: step('calling', ['send'], { arm: ['A', 'B'] }),
  table: {
    calling: {
      // §17.1.1.2: neither retransmission nor Timer B goes on once a provisional response is here.
      provisional: step('proceeding', ['pass', 'releaseCancel'], { clear: ['A', 'B'] }),
      success: accepted,
      failure: completed,
      transportError: step('terminated', ['transportError']),
      cancelSent: stay('calling'),
      timerA: step('calling', ['resend'], { arm: ['A'] }),
      timerB: step('terminated', ['timeout']),
      timerD: stay('calling'),
      timerM: stay('calling'),
    },
    proceeding: {
      provisional: step('proceeding', ['pass']),
      success: accepted,
      failure: completed,
      transportError: stay('proceeding'),
      // §9.1: without a final response 64*T1 after the CANCEL the transaction counts as cancelled and is destroyed.
      cancelSent: step('proceeding', [], { arm: ['B'] }),
      timerA: stay('proceeding'),
      timerB: step('terminated', ['timeout']),
      timerD: stay('proceeding'),
      timerM: stay('proceeding'),
    },
    completed: {
      provisional: stay('completed'),
      success: stay('completed'),
      failure: step('completed', ['resendAck']),
      transportError: step('terminated', ['transportError']),
      cancelSent: stay('completed'),
      timerA: stay('completed'),
      timerB: stay('completed'),
      timerD: step('terminated'),
      timerM: stay('completed'),
    },
    // RFC 6026 §7.2: every 2xx, retransmitted or from another branch of a fork downstream, goes to the TU; the ACK is the TU's.
    accepted: {
      provisional: stay('accepted'),
      success: step('accepted', ['pass']),
      failure: stay('accepted'),
      transportError: stay('accepted'),
      cancelSent: stay('accepted'),
      timerA: stay('accepted'),
      timerB: stay('accepted'),
      timerD: stay('accepted'),
      timerM: step('terminated'),
    },
    terminated: {
      provisional: stay('terminated'),
      success: stay('terminated'),
      failure: stay('terminated'),
      transportError: stay('terminated'),
      cancelSent: stay('terminated'),
      timerA: stay('terminated'),
      timerB: stay('terminated'),
      timerD: stay('terminated'),
      timerM: stay('terminated'),
    },
  },
  timers: ['A', 'B', 'D', 'M'],
  timerEvents: ['timerA', 'timerB', 'timerD', 'timerM'],
  backoff: 'A',
  duration(timer, _state, lastMs, reliable, t) {
    switch (timer) {
      // §17.1.1.2: T1, then doubled each time, without a cap: Timer B ends it after seven transmissions.
      case 'A':
        return reliable ? undefined : lastMs === 0 ? t.t1Ms : lastMs * 2
      case 'B':
      case 'M':
        return 64 * t.t1Ms
      case 'D':
        return reliable ? 0 : t.timerDMs
    }
  },
}
