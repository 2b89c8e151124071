import { createHash } from 'node:crypto'
import { encodeEntry } from '../../crdt/codec.ts'
import type { BindingEntry, ClusterConstants } from '../../crdt/entry.ts'
import { type DocName, encodeMessage, type Frame, writeDocName } from '../../crdt/frames.ts'
import {
  constantsOf,
  decodeHello,
  encodeHello,
  type Hello,
  LINK_FEATURES,
  LINK_VERSION,
  LinkKeys,
  type MessageSeal,
  NONCE_BYTES,
} from '../../crdt/hello.ts'
import { encodeUpdate } from '../../crdt/update.ts'
import { WireWriter } from '../../src/base/bytes.ts'
import { HLC_PER_MS } from '../../src/base/hlc.ts'
import type { NodeIdentity } from '../../src/base/ids.ts'
import type { KeyRing } from '../../src/base/keys.ts'

/**
 * A peer that can say anything: the wire of crdt/PROTOCOL.md over Node's own WebSocket client. It is not built on `ClusterLink`, which keeps its caller from saying
 * most of what is said here.
 */

export interface PeerOptions {
  /** Where the node that is attacked takes links. */
  readonly address: string
  readonly to: string
  /** Whom we claim to be. */
  readonly self: NodeIdentity
  readonly cluster: string
  readonly constants: ClusterConstants
  readonly ring: KeyRing
  /** What in the hello is to be otherwise. */
  readonly hello?: Partial<Hello>
}

export interface Closed {
  readonly code: number
  readonly reason: string
}

/** A WebSocket to a node's link port, before anything is said on it. */
export async function dial(address: string): Promise<{ socket: WebSocket; closed: Promise<Closed> }> {
  const socket = new WebSocket(`ws://${address}:7060/cluster`, 'antipode.link.1')
  socket.binaryType = 'arraybuffer'
  const closed = new Promise<Closed>((resolve) => {
    socket.addEventListener('close', ({ code, reason }) => resolve({ code, reason }))
  })
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve())
    socket.addEventListener('error', () => reject(new Error(`${address}:7060 does not take a WebSocket`)))
  })
  return { socket, closed }
}

export const helloOf = (o: PeerOptions): Hello => ({
  ...{ version: LINK_VERSION, features: LINK_FEATURES, role: 'dialer', cluster: o.cluster, ...o.self, to: o.to },
  nonce: crypto.getRandomValues(new Uint8Array(NONCE_BYTES)),
  constants: constantsOf(o.constants),
  keyIds: [o.ring.current],
  ...o.hello,
})

export class HostilePeer {
  readonly closed: Promise<Closed>
  readonly #socket: WebSocket
  readonly #seal: MessageSeal

  private constructor(socket: WebSocket, closed: Promise<Closed>, seal: MessageSeal) {
    this.#socket = socket
    this.closed = closed
    this.#seal = seal
  }

  /** Dials, proves that it has the key, and waits for WELCOME. Resolves with how it was closed when it is not let in. */
  static async connect(o: PeerOptions): Promise<HostilePeer | Closed> {
    const { socket, closed } = await dial(o.address)
    const ours = encodeHello(helloOf(o))
    const { promise, resolve } = Promise.withResolvers<HostilePeer>()
    let keys: LinkKeys | undefined
    let peer: HostilePeer | undefined
    let theirs: MessageSeal | undefined
    socket.addEventListener('message', ({ data }) => {
      const bytes = Buffer.from(data as ArrayBuffer)
      if (keys === undefined) {
        const read = decodeHello(bytes)
        if (!read.ok) throw new Error(`the node's hello cannot be read: ${read.fault.detail}`)
        keys = new LinkKeys(o.ring.keys.get(o.ring.current)!, ours, bytes.subarray(0, read.value.size))
        theirs = keys.channel('listener')
        socket.send(keys.proof('dialer'))
        return
      }
      const opened = theirs!.open(bytes)
      if (!opened.ok) throw new Error(`the node's message cannot be opened: ${opened.fault.detail}`)
      const { channel, payload } = opened.value
      if (channel !== 0) return
      if (payload[0] === 3) {
        peer = new HostilePeer(socket, closed, keys.channel('dialer'))
        resolve(peer)
      } else if (payload[0] === 1) peer?.send(0, Buffer.concat([Buffer.from([2]), payload.subarray(1)]))
    })
    socket.send(ours)
    return Promise.race([promise, closed])
  }

  /** One message, properly sealed. */
  send(channel: number, payload: Uint8Array): void {
    this.sendRaw(this.#seal.seal(channel, payload))
  }

  /** A message as `send` would make it, for something to be done to it before `sendRaw`. */
  sealed(channel: number, payload: Uint8Array): Buffer {
    return this.#seal.seal(channel, payload)
  }

  sendRaw(message: Uint8Array | string): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(message as Uint8Array<ArrayBuffer>)
  }

  get open(): boolean {
    return this.#socket.readyState === WebSocket.OPEN
  }

  /** Bytes that the node has not taken yet. */
  get unsent(): number {
    return this.#socket.bufferedAmount
  }

  async close(): Promise<void> {
    this.#socket.close()
    await this.closed
  }
}

// What it says

const sha256 = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

/** Records 0 to n of a doc as one frame, in order in every way; `forge` is what a liar then does to it. */
export function frameOf(doc: DocName, records: readonly Uint8Array[], forge: Partial<Frame> = {}): Frame {
  let hash = sha256(writeDocName(new WireWriter(), doc).done())
  for (const record of records) hash = sha256(hash, record)
  return { doc, from: 0, to: records.length, hash, update: encodeUpdate(doc, 0, records), ...forge }
}

/** A record that binds `user`, by that author at that time. */
export function bindingRecord(author: NodeIdentity, user: string, atMs: number, forge: Partial<BindingEntry> = {}): Buffer {
  const contact = `sip:${user}@127.0.0.1:6070`
  const entry: BindingEntry = {
    ...{
      kind: 'binding',
      hlc: Math.floor(atMs) * HLC_PER_MS,
      ...author,
      op: 'set',
      aor: `sip:${user}@example.net`,
      key: contact,
    },
    ...{
      callId: `${user}@hostile`,
      cseq: 1,
      reset: false,
      expiresAtMs: Math.floor(atMs) + 600_000,
      contact,
      contactParams: '',
      q: 1000,
    },
    ...{ path: [], userAgent: '' },
    flow: {
      ...{ transport: 'udp', localAddress: '127.0.3.2', localPort: 5060, remoteAddress: '127.0.0.1', remotePort: 6070 },
      ...{ connectionId: -1, nat: false },
    },
    ...forge,
  }
  return Buffer.concat([Buffer.from([1]), encodeEntry(entry)])
}

export const framesMessage = (...frames: Frame[]): Buffer => encodeMessage({ type: 'frames', asked: false, frames })
