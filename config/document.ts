import { isMap, isScalar, LineCounter, type Node, type Pair, parse, parseDocument } from 'yaml'

export type Path = readonly (string | number)[]

/** Something wrong, or worth a warning, in a configuration file: where, and what was expected. Never holds a secret. */
export interface Problem {
  /** Dotted, elements of lists by index: `cluster.regions.0.name`; empty for the file as a whole. */
  readonly path: string
  readonly message: string
  /** From 1; absent where the value came from an override. */
  readonly line?: number
  readonly column?: number
  /** Where it is not in the configuration file itself but in one that this names. */
  readonly file?: string
}

export const pathText = (path: Path): string => path.join('.')

/** A YAML text as plain values, which still knows on which line each of them stands. */
export class ConfigDocument {
  readonly value: unknown
  readonly problems: readonly Problem[]
  readonly #node: Node | null
  readonly #lines = new LineCounter()
  readonly #overridden: Path[]

  constructor(source: string, overrides: readonly string[] = []) {
    const problems: Problem[] = []
    const document = parseDocument(source, { lineCounter: this.#lines, prettyErrors: false })
    this.#node = document.contents
    for (const error of document.errors) {
      problems.push({ path: '', message: `not YAML: ${error.message}`, ...this.#place(error.pos[0]) })
    }
    let value: unknown
    try {
      value = document.errors.length === 0 ? document.toJS({ maxAliasCount: 100 }) : undefined
    } catch (error) {
      problems.push({ path: '', message: `not YAML: ${error instanceof Error ? error.message : String(error)}` })
    }
    this.#overridden = []
    for (const override of overrides) {
      const result = applyOverride(value, override)
      if ('message' in result) problems.push({ path: '', message: result.message })
      else this.#overridden.push(result.path)
    }
    this.value = value
    this.problems = problems
  }

  /** @param key look for the key rather than the value, where the key itself is the fault. */
  problem(path: Path, message: string, key = false): Problem {
    if (this.#overridden.some((o) => o.every((part, i) => path[i] === part))) {
      return { path: pathText(path), message: `${message} (set by --set)` }
    }
    const at = this.#offset(path, key)
    return { path: pathText(path), message, ...(at === undefined ? {} : this.#place(at)) }
  }

  /** Offset of what stands at `path`, or of the nearest thing around it that is there. */
  #offset(path: Path, key: boolean): number | undefined {
    let node: unknown = this.#node
    let at = this.#node?.range?.[0]
    for (const [i, part] of path.entries()) {
      if (isMap(node)) {
        const pair: Pair | undefined = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(part))
        if (pair === undefined) return at
        const keyAt = (pair.key as Node).range?.[0]
        node = pair.value
        const last = i === path.length - 1
        // A map or list begins on the line after its key: people look for the key.
        at = (last && key) || !isScalar(node) ? keyAt : ((node as Node).range?.[0] ?? keyAt)
      } else if (typeof (node as { get?: unknown } | null)?.get === 'function') {
        node = (node as { get(k: unknown, keep: boolean): unknown }).get(part, true)
        if (node === undefined) return at
        at = (node as Node | null)?.range?.[0] ?? at
      } else return at
    }
    return at
  }

  #place(offset: number): { line: number; column: number } {
    const { line, col } = this.#lines.linePos(offset)
    return { line, column: col }
  }
}

/** `cluster.constants.windowMs=1000`; elements of a list by index or by their `name`: `cluster.regions.us-east.nodes.us-east-1.address=…`. */
function applyOverride(root: unknown, override: string): { path: Path } | { message: string } {
  const equals = override.indexOf('=')
  const parts = equals > 0 ? override.slice(0, equals).split('.') : []
  if (parts.length === 0 || parts.some((p) => p === '' || p === '__proto__')) {
    return { message: `--set ${equals > 0 ? override.slice(0, equals) : ''}: expected path=value` }
  }
  let value: unknown
  try {
    value = parse(override.slice(equals + 1))
  } catch {
    return { message: `--set ${parts.join('.')}: the value is not YAML` }
  }
  let at: unknown = root
  const path: (string | number)[] = []
  for (const [i, part] of parts.entries()) {
    if (typeof at !== 'object' || at === null) return { message: `--set ${parts.join('.')}: ${path.join('.')} holds no fields` }
    let key: string | number = part
    if (Array.isArray(at)) {
      key = /^\d+$/.test(part) ? Number(part) : at.findIndex((e) => (e as { name?: unknown } | null)?.name === part)
      if (key < 0 || key > at.length) return { message: `--set ${parts.join('.')}: no ${part} in ${path.join('.')}` }
    }
    path.push(key)
    const holder = at as Record<string | number, unknown>
    if (i === parts.length - 1) holder[key] = value
    else {
      if (holder[key] === undefined || holder[key] === null) holder[key] = {}
      at = holder[key]
    }
  }
  return { path }
}
