import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { WireReader, WireWriter } from '../src/base/bytes.ts'
import { bad, type Fault, fault, good, type Result } from '../src/base/errors.ts'
import type { NodeIdentity } from '../src/base/ids.ts'
import type { KeyRing } from '../src/base/keys.ts'
import type { ClusterConstants } from './entry.ts'
import { LIMITS } from './frames.ts'

/** The start of a link and the authentication of its messages, as pure functions of bytes. PROTOCOL.md "Links". */

export const LINK_VERSION = 1
export const LINK_FEATURES = 0
export const NONCE_BYTES = 32
export const PROOF_BYTES = 32
export const MAC_BYTES = 16
/** Channel and flags before a payload. */
export const HEADER_BYTES = 2
export const HELLO_MAX_BYTES = 4096
export const CHANNELS = 5

export type Role = 'dialer' | 'listener'

export interface Hello extends NodeIdentity {
  readonly version: number
  readonly features: number
  readonly role: Role
  readonly cluster: string
  /** Node that is meant. */
  readonly to: string
  readonly nonce: Uint8Array
  readonly constants: readonly (readonly [name: string, value: number])[]
  /** Dialer: ids that it knows, current first; listener: the one chosen. */
  readonly keyIds: readonly string[]
}

const MAGIC = Buffer.from('APLK')

export const constantsOf = (c: ClusterConstants): [string, number][] =>
  Object.entries(c)
    .map(([name, value]): [string, number] => [name, value])
    .sort(([a], [b]) => (a < b ? -1 : 1))

export function encodeHello(h: Hello): Buffer {
  const w = new WireWriter(512).raw(MAGIC).uint(h.version).uint(h.features)
  w.u8(h.role === 'dialer' ? 1 : 2)
    .text(h.cluster)
    .text(h.region)
    .text(h.node)
    .uint(h.incarnation)
    .text(h.to)
    .raw(h.nonce)
  w.uint(h.constants.length)
  for (const [name, value] of h.constants) w.text(name).uint(value)
  w.uint(h.keyIds.length)
  for (const id of h.keyIds) w.text(id)
  return w.done()
}

/** Reads a hello and says how many bytes it took. The version is judged before what comes after it is read. */
export function decodeHello(bytes: Uint8Array): Result<{ hello: Hello; size: number }> {
  if (bytes.length > HELLO_MAX_BYTES + PROOF_BYTES)
    return bad(fault('CRDT_HELLO_MALFORMED', `a hello of ${bytes.length} bytes`, 0))
  const r = new WireReader(bytes)
  if (!r.raw(MAGIC.length).equals(MAGIC)) return bad(fault('CRDT_HELLO_MALFORMED', 'not a hello', 0))
  const version = r.uint()
  if (version !== LINK_VERSION) return bad(fault('CRDT_HELLO_VERSION', `version ${version}, here ${LINK_VERSION}`, 4))
  const features = r.uint()
  const role = r.u8()
  const [cluster, region, node] = [r.name(), r.name(), r.name()]
  const incarnation = r.uint()
  const to = r.name()
  const nonce = Buffer.from(r.raw(NONCE_BYTES))
  const constants: [string, number][] = []
  for (let n = bounded(r, 64); n > 0 && !r.failed; n--) constants.push([r.name(), r.uint()])
  const keyIds: string[] = []
  for (let n = bounded(r, 16); n > 0 && !r.failed; n--) keyIds.push(r.name())
  if (r.failed || (role !== 1 && role !== 2)) return bad(fault('CRDT_HELLO_MALFORMED', 'cannot be read', r.failedAt))
  const hello: Hello = {
    version,
    features,
    role: role === 1 ? 'dialer' : 'listener',
    cluster,
    region,
    node,
    incarnation,
    to,
    nonce,
    constants,
    keyIds,
  }
  return good({ hello, size: r.at })
}

function bounded(r: WireReader, limit: number): number {
  const n = r.uint()
  if (n > limit) r.fail()
  return r.failed ? 0 : n
}

/** What is wrong with the other end's hello, seen from ours. Whether its node is configured is the caller's to know. */
export function helloFault(
  theirs: Hello,
  ours: { cluster: string; node: string; role: Role; constants: ClusterConstants },
): Fault | undefined {
  if (theirs.role === ours.role) return fault('CRDT_HELLO_MALFORMED', `both ends are the ${ours.role}`)
  if (theirs.cluster !== ours.cluster) return fault('CRDT_HELLO_CLUSTER', `cluster ${theirs.cluster}, here ${ours.cluster}`)
  if (theirs.to !== ours.node) return fault('CRDT_HELLO_TO', `meant for ${theirs.to}`)
  const here = constantsOf(ours.constants)
  const there = new Map(theirs.constants)
  for (const [name, value] of here)
    if (there.get(name) !== value) return fault('CRDT_HELLO_CONSTANT', `${name}: ${there.get(name)}, here ${value}`)
  if (there.size !== here.length) {
    const extra = [...there.keys()].find((name) => !here.some(([known]) => known === name))
    return fault('CRDT_HELLO_CONSTANT', `${extra}: unknown here`)
  }
  return undefined
}

/** The listener's choice among the ids that the dialer offers. */
export const chooseKey = (offered: readonly string[], ring: KeyRing): string | undefined =>
  offered.includes(ring.current) ? ring.current : offered.find((id) => ring.keys.has(id))

/** The keys of one link, from the two hellos as they went over the wire. */
export class LinkKeys {
  readonly #key: Buffer
  readonly #transcript: Buffer

  constructor(key: Buffer, dialerHello: Uint8Array, listenerHello: Uint8Array) {
    this.#key = key
    this.#transcript = new WireWriter(dialerHello.length + listenerHello.length + 16)
      .u64(dialerHello.length)
      .raw(dialerHello)
      .u64(listenerHello.length)
      .raw(listenerHello)
      .done()
  }

  proof(role: Role): Buffer {
    return this.#derive('proof', role)
  }

  proves(role: Role, proof: Uint8Array): boolean {
    return proof.length === PROOF_BYTES && timingSafeEqual(this.proof(role), proof)
  }

  /** Seals what `role` sends; opens it at the other end. */
  channel(role: Role): MessageSeal {
    return new MessageSeal(this.#derive('session', role))
  }

  #derive(what: string, role: Role): Buffer {
    return createHmac('sha256', this.#key).update(`antipode link 1 ${what} ${role}\0`).update(this.#transcript).digest()
  }
}

export interface Opened {
  readonly channel: number
  /** A view into the message. */
  readonly payload: Buffer
}

/** One direction of one link: numbers the messages, and signs or checks them. */
export class MessageSeal {
  readonly #key: KeyObject
  readonly #sequenceBytes = Buffer.alloc(8)
  #sequence = 0

  constructor(key: Buffer) {
    this.#key = createSecretKey(key)
  }

  seal(channel: number, payload: Uint8Array): Buffer {
    const out = Buffer.allocUnsafe(HEADER_BYTES + payload.length + MAC_BYTES)
    out[0] = channel
    out[1] = 0
    out.set(payload, HEADER_BYTES)
    const body = out.subarray(0, HEADER_BYTES + payload.length)
    out.set(this.#mac(body).subarray(0, MAC_BYTES), body.length)
    return out
  }

  open(message: Buffer): Result<Opened> {
    if (message.length < HEADER_BYTES + MAC_BYTES) return bad(fault('CRDT_LINK_MAC', `a message of ${message.length} bytes`))
    const end = message.length - MAC_BYTES
    if (!timingSafeEqual(this.#mac(message.subarray(0, end)).subarray(0, MAC_BYTES), message.subarray(end)))
      return bad(fault('CRDT_LINK_MAC', 'message authentication failed'))
    const channel = message[0]!
    if (message[1] !== 0) return bad(fault('CRDT_LINK_FLAGS', `flags ${message[1]}`, 1))
    if (channel >= CHANNELS) return bad(fault('CRDT_LINK_CHANNEL', `channel ${channel}`, 0))
    return good({ channel, payload: message.subarray(HEADER_BYTES, end) })
  }

  #mac(body: Uint8Array): Buffer {
    this.#sequenceBytes.writeBigUInt64BE(BigInt(this.#sequence++))
    return createHmac('sha256', this.#key).update(this.#sequenceBytes).update(body).digest()
  }
}

/** Bytes of a ws message at most. */
export const MESSAGE_MAX_BYTES = LIMITS.messageBytes + HEADER_BYTES + MAC_BYTES
