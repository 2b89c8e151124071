import { AntipodeError } from '../base/errors.ts'
import { endOfQuoted, trimmed } from './chars.ts'
import { canonicalName, headerKey } from './header-names.ts'

/**
 * The headers of one message: an ordered list of (name, value line). Known names have one canonical spelling, compact forms included; unknown ones
 * keep theirs and are compared without case. Values are one line each: unfolded, no space at the ends, latin1.
 *
 * A message has about a dozen headers, so a scan over an array beats a map, and keeps the order.
 */
export class Headers {
  /** What names are compared by: the canonical spelling of a known name, lower case of any other. */
  #keys: string[] = []
  #names: string[] = []
  #values: string[] = []

  /** Number of lines. */
  get size(): number {
    return this.#keys.length
  }

  /** The first line's value. */
  get(name: string): string | undefined {
    const key = headerKey(name)
    const keys = this.#keys
    for (let i = 0; i < keys.length; i++) if (keys[i] === key) return this.#values[i]
    return undefined
  }

  has(name: string): boolean {
    return this.#keys.includes(headerKey(name))
  }

  count(name: string): number {
    const key = headerKey(name)
    const keys = this.#keys
    let count = 0
    for (let i = 0; i < keys.length; i++) if (keys[i] === key) count++
    return count
  }

  /** Every line with that name, in order. */
  lines(name: string): string[] {
    const key = headerKey(name)
    const lines: string[] = []
    for (let i = 0; i < this.#keys.length; i++) if (this.#keys[i] === key) lines.push(this.#values[i]!)
    return lines
  }

  /**
   * Every value of a header that is a list (Via, Route, Contact, …), in order: lines split at commas outside quotes and `<>`. An empty line has no
   * value; a value that is missing between commas is ''.
   */
  values(name: string): string[] {
    const key = headerKey(name)
    const values: string[] = []
    for (let i = 0; i < this.#keys.length; i++) if (this.#keys[i] === key) splitInto(this.#values[i]!, values)
    return values
  }

  /** The first value of a list header. */
  firstValue(name: string): string | undefined {
    const line = this.get(name)
    if (line === undefined) return undefined
    const comma = topLevelComma(line, 0)
    return comma < 0 ? line : trimmed(line, 0, comma)
  }

  /** Puts one line in the place of the first with that name, and drops the others; at the end when there is none. */
  set(name: string, value: string): void {
    assertLine(name, value)
    const key = headerKey(name)
    const first = this.#keys.indexOf(key)
    if (first < 0) {
      this.#insert(this.#keys.length, name, key, value)
      return
    }
    this.#values[first] = value
    if (this.#keys.indexOf(key, first + 1) >= 0) this.#removeFrom(key, first + 1)
  }

  /** After the last line of that name, else at the end. */
  append(name: string, value: string): void {
    assertLine(name, value)
    const key = headerKey(name)
    const last = this.#keys.lastIndexOf(key)
    this.#insert(last < 0 ? this.#keys.length : last + 1, name, key, value)
  }

  /** Before the first line of that name, else at the top. */
  prepend(name: string, value: string): void {
    assertLine(name, value)
    const key = headerKey(name)
    this.#insert(Math.max(0, this.#keys.indexOf(key)), name, key, value)
  }

  remove(name: string): void {
    const key = headerKey(name)
    const first = this.#keys.indexOf(key)
    if (first >= 0) this.#removeFrom(key, first)
  }

  /** Takes the first value of a list header off and returns it (Via, Route); the line goes when nothing is left of it. */
  removeFirstValue(name: string): string | undefined {
    const at = this.#keys.indexOf(headerKey(name))
    if (at < 0) return undefined
    const line = this.#values[at]!
    const comma = topLevelComma(line, 0)
    if (comma < 0) {
      this.#keys.splice(at, 1)
      this.#names.splice(at, 1)
      this.#values.splice(at, 1)
      return line
    }
    this.#values[at] = trimmed(line, comma + 1, line.length)
    return trimmed(line, 0, comma)
  }

  /** Puts `value` in the place of the first value of a list header; adds it where the header is missing. */
  replaceFirstValue(name: string, value: string): void {
    const at = this.#keys.indexOf(headerKey(name))
    if (at < 0) {
      this.prepend(name, value)
      return
    }
    assertLine(name, value)
    const line = this.#values[at]!
    const comma = topLevelComma(line, 0)
    this.#values[at] = comma < 0 ? value : `${value}, ${trimmed(line, comma + 1, line.length)}`
  }

  *entries(): Generator<[name: string, value: string]> {
    for (let i = 0; i < this.#names.length; i++) yield [this.#names[i]!, this.#values[i]!]
  }

  /** Calls back for each line in order: `entries` without the garbage, for the serializer. */
  each(visit: (name: string, value: string) => void): void {
    for (let i = 0; i < this.#names.length; i++) visit(this.#names[i]!, this.#values[i]!)
  }

  copy(): Headers {
    const copy = new Headers()
    copy.#keys = this.#keys.slice()
    copy.#names = this.#names.slice()
    copy.#values = this.#values.slice()
    return copy
  }

  /**
   * The parser's door: a line at the end, unchecked. The parser guarantees what `assertLine` checks, and that `name` comes from `nameInBytes`.
   * @param known `name` is a canonical spelling from the table
   */
  push(name: string, value: string, known: boolean): void {
    this.#keys.push(known ? name : name.toLowerCase())
    this.#names.push(name)
    this.#values.push(value)
  }

  #insert(at: number, name: string, key: string, value: string): void {
    const spelling = canonicalName(name)
    if (at === this.#keys.length) {
      this.#keys.push(key)
      this.#names.push(spelling)
      this.#values.push(value)
      return
    }
    this.#keys.splice(at, 0, key)
    this.#names.splice(at, 0, spelling)
    this.#values.splice(at, 0, value)
  }

  #removeFrom(key: string, start: number): void {
    let to = start
    for (let i = start; i < this.#keys.length; i++) {
      if (this.#keys[i] === key) continue
      this.#keys[to] = this.#keys[i]!
      this.#names[to] = this.#names[i]!
      this.#values[to] = this.#values[i]!
      to++
    }
    this.#keys.length = to
    this.#names.length = to
    this.#values.length = to
  }
}

/** The values of one line of a list header; see `Headers.values`. */
export function splitValues(line: string): string[] {
  const values: string[] = []
  splitInto(line, values)
  return values
}

function splitInto(line: string, values: string[]): void {
  if (line.length === 0) return
  let from = 0
  for (;;) {
    const comma = topLevelComma(line, from)
    if (comma < 0) break
    values.push(trimmed(line, from, comma))
    from = comma + 1
  }
  values.push(from === 0 ? line : trimmed(line, from, line.length))
}

/** The first comma at or after `from` that is outside quotes and `<>`; -1 when there is none. A quote or `<` that never closes hides the rest. */
function topLevelComma(line: string, from: number): number {
  if (line.indexOf(',', from) < 0) return -1
  for (let i = from; i < line.length; i++) {
    const code = line.charCodeAt(i)
    if (code === 0x2c) return i
    if (code === 0x22) {
      const end = endOfQuoted(line, i)
      if (end < 0) return -1
      i = end - 1
    } else if (code === 0x3c) {
      const close = line.indexOf('>', i)
      if (close < 0) return -1
      i = close
    }
  }
  return -1
}

const UNFIT = /[\r\n\u0100-\uffff]/

/** A line break, or a char that latin1 would cut down to one, must not get into a message through a value of ours. */
function assertLine(name: string, value: string): void {
  if (UNFIT.test(value) || UNFIT.test(name))
    throw new AntipodeError('SIP_HEADER_UNFIT', `value of ${JSON.stringify(name)} is not one latin1 line`)
}
