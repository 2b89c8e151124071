import { Counter, Gauge, Histogram, Registry } from 'prom-client'

/**
 * Every metric of a node, declared once, in a registry of the node's own. Names: `antipode_<area>_<what>_<unit>`, `_total` on counters, base
 * units. Labels are drawn from small fixed sets: never an AoR, a Call-ID or a source address.
 */
export function createMetrics() {
  const registry = new Registry()
  const registers = [registry]
  const counter = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter<L>({ name, help, labelNames: [...labelNames], registers })
  const gauge = <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Gauge<L>({ name, help, labelNames: [...labelNames], registers })
  const histogram = <L extends string = never>(name: string, help: string, buckets: number[], labelNames: readonly L[] = []) =>
    new Histogram<L>({ name, help, buckets, labelNames: [...labelNames], registers })

  return {
    registry,
    sip: {
      received: counter('antipode_sip_received_total', 'SIP messages received', ['transport', 'method']),
      sent: counter('antipode_sip_sent_total', 'SIP messages sent', ['transport']),
      sendErrors: counter('antipode_sip_send_errors_total', 'SIP messages that the transport could not send', ['transport']),
      refused: counter('antipode_sip_refused_total', 'Datagrams and stream data that were refused, by fault code', ['code']),
      responses: counter(
        'antipode_sip_responses_total',
        'Final responses that this node sent to a request, by method and class',
        ['method', 'class'],
      ),
      layerEvents: counter(
        'antipode_sip_layer_events_total',
        'Stray responses, unacknowledged finals, overload refusals, ended transactions',
        ['kind'],
      ),
      authFailures: counter('antipode_sip_auth_failures_total', 'Credentials that did not hold, by reason', ['why']),
      transactions: gauge('antipode_sip_transactions', 'Transactions held', ['kind']),
    },
    registrar: {
      registrations: counter('antipode_registrar_registrations_total', 'REGISTER requests by outcome', ['outcome']),
      bindings: gauge('antipode_registrar_bindings', 'Live bindings that this node knows of'),
    },
    calls: {
      attempts: counter('antipode_calls_attempts_total', 'Calls attempted at this node'),
      answered: counter('antipode_calls_answered_total', 'Calls answered at this node'),
      ended: counter('antipode_calls_ended_total', 'Call ends recorded at this node, by who ended it', ['by']),
      active: gauge('antipode_calls_active', 'Confirmed dialogs that this node knows of'),
      lateAnswers: counter(
        'antipode_calls_late_answers_total',
        '2xx that came after the caller had been given another final response',
      ),
      tokensRefused: counter('antipode_calls_tokens_refused_total', 'In-dialog requests whose token was refused, by code', [
        'code',
      ]),
    },
    crdt: {
      entries: gauge('antipode_crdt_entries', 'Entries held', ['kind']),
      docs: gauge('antipode_crdt_docs', 'Documents held'),
      frames: counter('antipode_crdt_frames_total', 'Frames by direction', ['direction']),
      frameBytes: counter('antipode_crdt_frame_bytes_total', 'Frame bytes by direction', ['direction']),
      refused: counter('antipode_crdt_refused_total', 'Frames and messages of peers that were refused, by fault code', ['code']),
      digests: counter('antipode_crdt_digests_total', 'Digest rounds by result', ['result']),
    },
    link: {
      peers: gauge('antipode_link_peers', 'Cluster links that are up', ['scope']),
      refused: counter('antipode_link_refused_total', 'Cluster link connections and messages refused, by fault code', ['code']),
      dropped: counter('antipode_link_dropped_total', 'Messages dropped because a peer was slow', ['channel']),
    },
    cdr: {
      parts: counter('antipode_cdr_parts_total', 'CDR parts made durable', ['part']),
      atRisk: counter('antipode_cdr_at_risk_total', 'CDR parts that went on with less durability than configured', ['why']),
      durableSeconds: histogram(
        'antipode_cdr_durable_seconds',
        'Time from append to durable',
        [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1],
      ),
      failures: counter('antipode_cdr_failures_total', 'Journal writes or fsyncs that failed'),
      remoteLagParts: gauge('antipode_cdr_remote_lag_commits', 'Commits that no node of another region holds yet'),
    },
    geo: {
      verdict: gauge('antipode_geo_verdict', '1 alive, 0 dead, -1 unknown', ['target']),
      probes: counter('antipode_geo_probes_total', 'Probes by result', ['result']),
      changes: counter('antipode_geo_verdict_changes_total', 'Verdict changes', ['target']),
      dnsQueries: counter('antipode_dns_queries_total', 'DNS queries by type', ['type']),
      dnsRefused: counter('antipode_dns_refused_total', 'DNS packets refused, by fault code', ['code']),
    },
    admin: {
      requests: counter('antipode_admin_requests_total', 'Admin HTTP requests by status class', ['class']),
    },
    process: {
      defects: counter('antipode_process_defects_total', 'Inputs that made this program throw, and were dropped'),
      eventLoopDelay: histogram(
        'antipode_process_event_loop_delay_seconds',
        'Event loop delay samples',
        [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1],
      ),
      memory: gauge('antipode_process_resident_bytes', 'Resident memory of the process'),
      cpuSeconds: gauge('antipode_process_cpu_seconds', 'CPU time of the process, user and system'),
    },
  }
}

export type Metrics = ReturnType<typeof createMetrics>
