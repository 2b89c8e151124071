import { WireReader, WireWriter } from '../src/base/bytes.ts'
import { bad, fault, good, type Result } from '../src/base/errors.ts'
import { type Author, type Frame, LIMITS } from './frames.ts'

/**
 * The V1 update of a range of records, which is one certain string of bytes (PROTOCOL.md "Documents"): written here, and on arrival compared with it to the letter,
 * so that nothing else ever reaches yjs.
 */

/** Name of the `Y.Map` in every doc. */
export const ROOT = 'e'

/** Info byte of an item without origins whose parent is a root type, with a key (0x20) and ContentBinary (3). */
const STRUCT_INFO = 0x23

/** The V1 update that yjs itself makes of these records (a test compares them byte by byte). */
export function encodeUpdate(author: Author, from: number, records: readonly Uint8Array[]): Buffer {
  const size = records.reduce((sum, record) => sum + record.length + 16, 32)
  const w = new WireWriter(size).uint(1).uint(records.length).uint(author.incarnation).uint(from)
  for (const [i, record] of records.entries())
    w.u8(STRUCT_INFO)
      .uint(1)
      .text(ROOT)
      .text(String(from + i))
      .uint(record.length)
      .raw(record)
  return w.u8(0).done()
}

/** The records of an update, as views, if it is to the letter what `encodeUpdate` gives for the frame's doc and clocks; else why not. */
export function parseUpdate(frame: Frame): Result<Uint8Array[]> {
  const { update, from, to } = frame
  const count = to - from
  const r = new WireReader(update)
  if (r.uint() !== 1) return bad(fault('CRDT_UPDATE_CLIENTS', 'not exactly one client', 0))
  const structs = r.uint()
  // Least size of a struct: info, parent, root name, key, length, one byte. Nothing is allocated for a count that cannot be.
  if (structs !== count || count * 8 > r.left)
    return bad(fault('CRDT_UPDATE_COUNT', `${structs} structs for ${count} records`, r.at))
  if (r.uint() !== frame.doc.incarnation) return bad(fault('CRDT_UPDATE_CLIENT', 'another client than the incarnation', r.at))
  if (r.uint() !== from) return bad(fault('CRDT_UPDATE_CLOCK', 'another clock than the frame says', r.at))
  const records: Uint8Array[] = []
  for (let clock = from; clock < to; clock++) {
    const at = r.at
    const fits = r.u8() === STRUCT_INFO && r.uint() === 1 && r.uint() === ROOT.length && isText(r, ROOT)
    const key = String(clock)
    if (!fits || r.uint() !== key.length || !isText(r, key))
      return bad(fault('CRDT_UPDATE_STRUCT', `struct at clock ${clock}`, at))
    const length = r.uint()
    if (length === 0 || length > LIMITS.recordBytes) return bad(fault('CRDT_RECORD_SIZE', `a record of ${length} bytes`, at))
    records.push(r.raw(length))
    if (r.failed) return bad(fault('CRDT_UPDATE_STRUCT', `struct at clock ${clock}`, at))
  }
  if (r.left === 0 || r.uint() !== 0 || r.failed) return bad(fault('CRDT_UPDATE_DELETES', 'a delete set', r.at))
  if (r.left !== 0) return bad(fault('CRDT_UPDATE_TRAILING', `${r.left} bytes left over`, r.at))
  return good(records)
}

function isText(r: WireReader, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (r.u8() !== text.charCodeAt(i)) return false
  return true
}
