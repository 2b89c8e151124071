import { closeSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/** Reads journal files by src/cdr/FORMAT.md and by none of the product's code, so that its own idea of where things lie is not what it is tested against. */

const HEADER_BYTES = 4096
const RECORD_HEAD_BYTES = 48
const COMMIT_BYTES = 112

/** `from` to `to` are offsets in the file; `number` is the record's, of a commit that of the last record it closes. */
export interface JournalFrame {
  readonly kind: 'record' | 'commit'
  readonly number: number
  readonly from: number
  readonly payloadAt: number
  readonly to: number
}

/** The frames of a segment, in order. */
export function framesOf(file: string): JournalFrame[] {
  const bytes = readFileSync(file)
  const frames: JournalFrame[] = []
  let number = -1
  for (let at = HEADER_BYTES; at + COMMIT_BYTES <= bytes.length; ) {
    const magic = bytes.toString('latin1', at, at + 4)
    if (magic === 'CDRr') {
      const to = at + Math.ceil((RECORD_HEAD_BYTES + bytes.readUInt32BE(at + 4)) / 8) * 8
      number = Number(bytes.readBigUInt64BE(at + 8))
      frames.push({ kind: 'record', number, from: at, payloadAt: at + RECORD_HEAD_BYTES, to })
      at = to
    } else if (magic === 'CDRc') {
      frames.push({ kind: 'commit', number, from: at, payloadAt: at, to: at + COMMIT_BYTES })
      at += COMMIT_BYTES
    } else break
  }
  return frames
}

/** Segments in a directory, oldest first. */
export const segmentsIn = (directory: string): string[] =>
  readdirSync(directory)
    .filter((name) => /^\d+\.cdr$/.test(name))
    .sort()
    .map((name) => join(directory, name))

/** Flips bits of one byte in place; flipping again restores it. */
export function flip(file: string, offset: number, mask: number): void {
  const fd = openSync(file, 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, offset)
  byte[0]! ^= mask
  writeSync(fd, byte, 0, 1, offset)
  closeSync(fd)
}
