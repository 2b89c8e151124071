import { z } from 'zod'
import type { ConfigDocument, Path, Problem } from './document.ts'

/** The parts of zod 4's schema classes that a walk by path needs. */
interface Def {
  type: string
  innerType?: z.ZodType
  element?: z.ZodType
  valueType?: z.ZodType
  shape?: Record<string, z.ZodType>
  in?: z.ZodType
  options?: z.ZodType[]
}
const defOf = (schema: z.ZodType): Def => schema.def as unknown as Def

/** Through default, optional and transform to what describes the value itself. */
function unwrap(schema: z.ZodType): z.ZodType {
  let inner = schema
  for (let next = inner; next !== undefined; next = (defOf(inner).innerType ?? defOf(inner).in) as z.ZodType) inner = next
  return inner
}

const expectedOf = (schema: z.ZodType): string | undefined => {
  let inner: z.ZodType | undefined = schema
  for (; inner !== undefined; inner = defOf(inner).innerType ?? defOf(inner).in) {
    const expected = (z.globalRegistry.get(inner) as { expected?: string } | undefined)?.expected
    if (expected !== undefined) return expected
  }
  return undefined
}

/** The schema of what stands at `path`; undefined where the schema has no such place. `value` decides between the alternatives of a union. */
export function schemaAt(schema: z.ZodType, path: Path): z.ZodType | undefined {
  let at: z.ZodType | undefined = schema
  for (const part of path) {
    if (at === undefined) return undefined
    const def: Def = defOf(unwrap(at))
    if (def.type === 'union') {
      const options: z.ZodType[] = def.options ?? []
      at = options.map((option) => schemaAt(option, [part])).find((s) => s !== undefined)
    } else if (def.shape !== undefined) at = Object.hasOwn(def.shape, part) ? def.shape[part] : undefined
    else if (def.element !== undefined && typeof part === 'number') at = def.element
    else if (def.type === 'record') at = def.valueType
    else at = undefined
  }
  return at
}

export function rawAt(value: unknown, path: Path): unknown {
  let at = value
  for (const part of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, part)) return undefined
    at = (at as Record<string | number, unknown>)[part]
  }
  return at
}

/** Every fault of shape and range in `document`, each with what was expected there and what was found; secrets are not repeated. */
export function shapeProblems(schema: z.ZodType, document: ConfigDocument): Problem[] {
  const result = schema.safeParse(document.value)
  if (result.success) return []
  return result.error.issues.flatMap((issue) => explain(schema, document, issue, []))
}

function explain(schema: z.ZodType, document: ConfigDocument, issue: z.core.$ZodIssue, above: Path): Problem[] {
  const path: Path = [...above, ...(issue.path as (string | number)[])]
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(schemaAt(schema, path))
    return issue.keys.map((key) => {
      const near = nearest(key, known)
      const hint = near === undefined ? `known here: ${known.join(', ')}` : `did you mean ${near}?`
      return document.problem([...path, key], `unknown key; ${hint}`, true)
    })
  }
  // Of several alternatives the one that fits the kind of value that is there knows best what is wrong in it.
  if (issue.code === 'invalid_union') {
    const deepest = issue.errors.filter((issues) => issues.some((i) => i.path.length > 0))
    if (deepest.length === 1) return deepest[0]!.flatMap((inner) => explain(schema, document, inner, path))
  }
  const at = schemaAt(schema, path)
  const expected = (at === undefined ? undefined : expectedOf(at)) ?? issue.message
  const raw = rawAt(document.value, path)
  const keyFault = issue.code === 'invalid_key'
  // YAML takes 0123, 1e5 and yes-no words for something else than text.
  const bare = issue.code === 'invalid_type' && issue.expected === 'string' && typeof raw !== 'object'
  const what = keyFault ? 'a key id: letters, digits, hyphens, at most 16, as the key' : expected
  return [
    document.problem(
      path,
      raw === undefined
        ? `missing; expected ${what}`
        : `expected ${what}; found ${found(raw, expected)}${bare ? ', which is not text: put it in quotes' : ''}`,
      keyFault,
    ),
  ]
}

function found(raw: unknown, expected: string): string {
  if (raw === null) return 'nothing'
  if (Array.isArray(raw)) return raw.length === 0 ? 'an empty list' : 'a list'
  if (typeof raw === 'object') return Object.keys(raw).length === 0 ? 'an empty map' : 'a map'
  // A secret written where { value: … } belongs must not be repeated on a terminal.
  if (/secret|\{ value|password|hex digits/.test(expected)) return `a ${typeof raw === 'string' ? 'text' : typeof raw}`
  const shown = JSON.stringify(raw)
  return shown.length > 60 ? `${shown.slice(0, 57)}…` : shown
}

function knownKeys(schema: z.ZodType | undefined): string[] {
  if (schema === undefined) return []
  const def = defOf(unwrap(schema))
  if (def.type === 'union') return (def.options ?? []).flatMap(knownKeys)
  return Object.keys(def.shape ?? {})
}

/** The known word nearest to a mistyped one, if it is near enough to be meant. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    // The unit is what people leave out.
    const bare = candidate.replace(/(Ms|S)$/, '')
    const distance = Math.min(...[candidate, bare].map((c) => editDistance(word.toLowerCase(), c.toLowerCase())))
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** Levenshtein distance; words of a configuration are short. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]!
}
