import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { readTargets } from '../../config/load.ts'
import type { Cdr, CdrPart } from '../cdr/call-record.ts'
import { mergeParts } from '../cdr/merge.ts'
import { type JournalError, verifyDirectory } from '../cdr/store/audit.ts'
import { readPartsOf } from '../cdr/store/reader.ts'
import { EXIT, type ExitCode, usageError } from './exit.ts'
import { duration, type Output, printJson, table, timeText } from './output.ts'
import { askAll, findTargets, type GlobalOptions, noteSilent } from './targets.ts'

/** A node answers with so many of its newest parts. */
const MOST_PARTS = 100_000

/**
 * The calls of the whole cluster: parts of all nodes that answer (own journals and the mirrors they hold) are merged here, so that a dead node's
 * calls are there as long as one mirror is. With `dir` the journals on disk are read instead, and no node is asked.
 */
export async function cdrList(
  o: GlobalOptions & { json?: boolean; dir: readonly string[]; limit?: number },
  output: Output,
): Promise<ExitCode> {
  const parts: CdrPart[] = []
  if (o.dir.length > 0) {
    for (const journal of journals(o.dir))
      for (const part of await readPartsOf(journal, { limit: Number.POSITIVE_INFINITY })) parts.push(part)
  } else {
    const answers = await askAll(findTargets(o), (client) => client.cdrParts())
    for (const a of answers) {
      if (!a.ok) continue
      for (const part of a.value) parts.push(part)
      if (a.value.length >= MOST_PARTS)
        output.note(`antipode: ${a.target.node} gave its newest ${MOST_PARTS} parts only; --dir reads all`)
    }
    noteSilent(answers, output)
  }
  const cdrs = mergeParts(parts)
  const shown = o.limit === undefined ? cdrs : cdrs.slice(-o.limit)
  if (o.json) printJson(output, shown)
  else {
    output.out(table(['start', 'caller', 'callee', 'status', 'duration', 'end', 'nodes', 'call-id'], shown.map(row)))
    output.note(
      `${cdrs.length} ${cdrs.length === 1 ? 'call' : 'calls'}${shown.length < cdrs.length ? `, the last ${shown.length} shown` : ''}`,
    )
  }
  return EXIT.ok
}

const row = (c: Cdr): string[] => [
  timeText(c.startMs),
  c.caller,
  c.callee,
  c.state === 'open' ? 'open' : String(c.status),
  c.answerMs > 0 && c.endMs > 0 ? duration(c.durationMs) : '-',
  c.state === 'open' ? '-' : `${c.reason || '-'}${c.observed ? '' : ' (inferred)'}`,
  [...new Set(c.parts.map((p) => p.node))].join(' '),
  c.callId,
]

/** 0: every journal is whole. 1: damage, each named by segment, offset and record. */
export async function cdrVerify(
  directories: readonly string[],
  o: GlobalOptions & { json?: boolean },
  output: Output,
): Promise<ExitCode> {
  const found = directories.length > 0 ? journals(directories) : defaultJournals(o)
  const results = []
  for (const directory of found) results.push({ directory, ...(await verifyDirectory(directory)) })
  const damaged = results.filter((r) => r.errors.length > 0)
  if (o.json) printJson(output, results)
  else {
    for (const r of results) {
      const counts = `${r.segments} segments, ${r.commits} commits, ${r.records} records`
      output.out(`${r.directory}: ${r.errors.length === 0 ? 'ok' : `${r.errors.length} errors`} (${counts})`)
      for (const e of r.errors) output.out(`  ${errorText(e)}`)
      for (const e of r.superseded) output.note(`  mended since, nothing is lost: ${errorText(e)}`)
    }
    output.out(
      damaged.length === 0
        ? `${results.length} ${results.length === 1 ? 'journal' : 'journals'}, no damage`
        : `damage in ${damaged.length} of ${results.length} journals`,
    )
  }
  return damaged.length === 0 ? EXIT.ok : EXIT.negative
}

const errorText = (e: JournalError): string =>
  `${e.code}: segment ${e.segment}, offset ${e.offset}, record ${e.record < 0 ? '-' : e.record}: ${e.detail}`

/** The journals that a running or stopped demo left, or those of the configured nodes whose directories are on this host. */
function defaultJournals(o: GlobalOptions): string[] {
  if (o.config.length === 0) return journals([o.state])
  const here = o.config.flatMap((file) => Object.values(readTargets(file).journals)).filter((directory) => existsSync(directory))
  if (here.length === 0) throw usageError('none of the configured journals is on this host; name a directory')
  return [...new Set(here)]
}

const isDirectory = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
/** `own/` and `mirror/` make a folder a node's journal; one of segments is taken as it is. */
const isJournal = (path: string): boolean => isDirectory(join(path, 'own')) || isDirectory(join(path, 'mirror'))
const isSegments = (path: string): boolean => readdirSync(path).some((name) => /^\d+\.cdr$/.test(name))

/** What was named may be a journal, a node's state directory, or a directory of several of either. */
export function journals(directories: readonly string[]): string[] {
  return directories.flatMap((directory) => {
    if (!isDirectory(directory)) throw usageError(`${directory} is not a directory`)
    const own = isSegments(directory) ? directory : [directory, join(directory, 'cdr')].find(isJournal)
    if (own !== undefined) return [own]
    const below = readdirSync(directory)
      .sort()
      .flatMap((name) => [join(directory, name), join(directory, name, 'cdr')].filter(isJournal))
    if (below.length === 0) throw usageError(`no journal in ${directory}`)
    return below
  })
}
