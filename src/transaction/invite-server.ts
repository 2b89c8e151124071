import { type Machine, type Step, step } from './machine.ts'

/**
 * INVITE server transaction: RFC 3261 §17.2.1 as changed by RFC 6026 §7.1 (state Accepted, Timer L; a transport error ends nothing).
 * The 100 (Trying) is the TU's: a proxy sends it at once.
 *
 * ```
 *                 INVITE: pass, arm answer
 *                          │
 *    INVITE: last 1xx ┌────▼─────┐ 1xx from TU: send, arm answer
 *          ┌──────────┤proceeding├──────────┐
 *          └─────────►└─┬──┬──┬──┘◄─────────┘
 *      300-699 from TU: │  │  │ 2xx from TU: send
 *      send, arm G, H   │  │  └───────────────────┐
 *                 ┌─────▼─┐│ answer: tell TU ┌────▼───┐ INVITE: absorbed
 *  INVITE or G:   │comple-││     │           │accepted├──┐ 2xx from TU: send
 *  final again    │ted    ││     ▼           └─┬───▲──┘  │ ACK: pass
 *                 └─┬───┬─┘│ terminated        L   └─────┘
 *              ACK  │   └──┼─ H: tell TU ─► terminated
 *                 ┌─▼──────┴┐                  ▼
 *  INVITE, ACK:   │confirmed├── I ─────► terminated
 *  absorbed       └─────────┘
 * ```
 */
export type InviteServerState = 'proceeding' | 'completed' | 'confirmed' | 'accepted' | 'terminated'
export type InviteServerTimer = 'G' | 'H' | 'I' | 'L' | 'Answer'
export type InviteServerEvent =
  | 'request'
  | 'ack'
  | 'provisional'
  | 'success'
  | 'failure'
  | 'transportError'
  | `timer${InviteServerTimer}`

type S = Step<InviteServerState, InviteServerTimer>

const stay = (state: InviteServerState): S => step(state)
/** RFC 6026 §7.1: state is not dropped because a response could not be sent; else retransmissions would be taken for new requests. */
const sendFailed = (state: InviteServerState): S => step(state, ['serverTransportError'])

/** Without an answer from the TU for this long a transaction is given up: longer than any Timer C (180 s) that guards the branches below it. */
export const INVITE_ANSWER_MS = 300_000

export const inviteServer: Machine<InviteServerState, InviteServerEvent, InviteServerTimer> = {
  name: 'inviteServer',
  start: step('proceeding', [], { arm: ['Answer'] }),
  table: {
    proceeding: {
      request: step('proceeding', ['resend']),
      ack: stay('proceeding'),
      provisional: step('proceeding', ['send'], { arm: ['Answer'] }),
      success: step('accepted', ['send'], { clear: ['Answer'], arm: ['L'] }),
      failure: step('completed', ['send'], { clear: ['Answer'], arm: ['G', 'H'] }),
      transportError: sendFailed('proceeding'),
      timerG: stay('proceeding'),
      timerH: stay('proceeding'),
      timerI: stay('proceeding'),
      timerL: stay('proceeding'),
      timerAnswer: step('terminated', ['serverTimeout']),
    },
    completed: {
      request: step('completed', ['resend']),
      ack: step('confirmed', [], { clear: ['G', 'H'], arm: ['I'] }),
      // §17.2.1: other final responses of the TU are discarded here.
      provisional: stay('completed'),
      success: stay('completed'),
      failure: stay('completed'),
      transportError: sendFailed('completed'),
      timerG: step('completed', ['resend'], { arm: ['G'] }),
      timerH: step('terminated', ['ackTimeout']),
      timerI: stay('completed'),
      timerL: stay('completed'),
      timerAnswer: stay('completed'),
    },
    confirmed: {
      request: stay('confirmed'),
      ack: stay('confirmed'),
      provisional: stay('confirmed'),
      success: stay('confirmed'),
      failure: stay('confirmed'),
      transportError: stay('confirmed'),
      timerG: stay('confirmed'),
      timerH: stay('confirmed'),
      timerI: step('terminated'),
      timerL: stay('confirmed'),
      timerAnswer: stay('confirmed'),
    },
    // RFC 6026 §7.1: INVITEs are absorbed without an answer (the UAS repeats its 2xx), each 2xx of the TU is sent, an ACK goes to the TU.
    accepted: {
      request: stay('accepted'),
      ack: step('accepted', ['pass']),
      provisional: stay('accepted'),
      success: step('accepted', ['send']),
      failure: stay('accepted'),
      transportError: sendFailed('accepted'),
      timerG: stay('accepted'),
      timerH: stay('accepted'),
      timerI: stay('accepted'),
      timerL: step('terminated'),
      timerAnswer: stay('accepted'),
    },
    terminated: {
      request: stay('terminated'),
      ack: stay('terminated'),
      provisional: stay('terminated'),
      success: stay('terminated'),
      failure: stay('terminated'),
      transportError: stay('terminated'),
      timerG: stay('terminated'),
      timerH: stay('terminated'),
      timerI: stay('terminated'),
      timerL: stay('terminated'),
      timerAnswer: stay('terminated'),
    },
  },
  timers: ['G', 'H', 'I', 'L', 'Answer'],
  timerEvents: ['timerG', 'timerH', 'timerI', 'timerL', 'timerAnswer'],
  backoff: 'G',
  duration(timer, _state, lastMs, reliable, t) {
    switch (timer) {
      // §17.2.1: MIN(2*G, T2). Without the cap a lost ACK would cost seconds near the end.
      case 'G':
        return reliable ? undefined : lastMs === 0 ? t.t1Ms : Math.min(lastMs * 2, t.t2Ms)
      // H runs on reliable transports too: the ACK may never come.
      case 'H':
      case 'L':
        return 64 * t.t1Ms
      case 'I':
        return reliable ? 0 : t.t4Ms
      case 'Answer':
        return INVITE_ANSWER_MS
    }
  },
}
