/** The base timers of RFC 3261 §17, in milliseconds; every other timer follows from them (Table 4 of the RFC). */
export interface TransactionTimers {
  /** Estimate of the round trip; RFC default 500. */
  readonly t1Ms: number
  /** Cap of the retransmission interval of everything but an INVITE; RFC default 4000. */
  readonly t2Ms: number
  /** How long a message stays in the network; RFC default 5000. */
  readonly t4Ms: number
  /** Timer D on unreliable transports; RFC: at least 32 s. */
  readonly timerDMs: number
}

/** What a machine asks its layer to do. The layer knows the bytes, the flow and the TU; the machine knows when. */
export type Action =
  /** Send the request (clients) or the response at hand (servers) and keep its bytes. */
  | 'send'
  /** Send the kept bytes again, if there are any. */
  | 'resend'
  /** Build the ACK to this 300-699 (§17.1.1.3), send it, keep its bytes. */
  | 'ack'
  | 'resendAck'
  /** Hand the message at hand to the TU. */
  | 'pass'
  /** Tell the TU. */
  | 'timeout'
  | 'transportError'
  | 'ackTimeout'
  | 'serverTimeout'
  | 'serverTransportError'
  /** The first provisional response is here, so a CANCEL that waited for it may go (§9.1). */
  | 'releaseCancel'

/** What one event does in one state: timers cleared, actions in order, timers armed. */
export interface Step<State extends string, Timer extends string> {
  readonly to: State
  readonly actions: readonly Action[]
  readonly clear: readonly Timer[]
  readonly arm: readonly Timer[]
}

/**
 * One of the four machines as data. `table` has a cell for every pair of state and event, or it does not compile; an event without meaning in a
 * state has a cell that does nothing, so late timers and stray messages are harmless by construction.
 */
export interface Machine<State extends string, Event extends string, Timer extends string> {
  readonly name: 'inviteClient' | 'inviteServer' | 'nonInviteClient' | 'nonInviteServer'
  /** On creation. A server's request goes to the TU before it: the layer knows what else belongs to it. */
  readonly start: Step<State, Timer>
  readonly table: { readonly [S in State]: { readonly [E in Event]: Step<State, Timer> } }
  /** The machine's timers; their place here numbers them. */
  readonly timers: readonly Timer[]
  /** The event that each timer is, in the order of `timers`. */
  readonly timerEvents: readonly Event[]
  /** The retransmission timer, whose interval grows from `lastMs`. */
  readonly backoff: Timer | undefined
  /**
   * How long `timer` runs when armed in `state`.
   * @param lastMs the backoff timer's interval before, 0 when it was not armed yet
   * @param reliable a stream, on which nothing is retransmitted
   * @returns milliseconds; 0 fires at once (a state that reliable transports pass through); undefined: not used on this transport
   */
  duration(timer: Timer, state: State, lastMs: number, reliable: boolean, t: TransactionTimers): number | undefined
}

const NONE: readonly never[] = []

/** A cell: the next state, what to do, and which timers to arm and to clear. */
export const step = <State extends string, Timer extends string = never>(
  to: State,
  actions: readonly Action[] = NONE,
  timers: { readonly arm?: readonly Timer[]; readonly clear?: readonly Timer[] } = {},
): Step<State, Timer> => ({ to, actions, clear: timers.clear ?? NONE, arm: timers.arm ?? NONE })
