/** Bytes of a name on a wire of ours, at most. */
export const NAME_BYTES = 64

/** A growing buffer for one message. */
export class WireWriter {
  #buffer: Buffer
  #at = 0

  constructor(capacity = 256) {
    this.#buffer = Buffer.allocUnsafe(capacity)
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return
    const grown = Buffer.allocUnsafe(Math.max(2 * this.#buffer.length, this.#at + bytes))
    this.#buffer.copy(grown, 0, 0, this.#at)
    this.#buffer = grown
  }

  get size(): number {
    return this.#at
  }

  u8(value: number): this {
    this.#room(1)
    this.#buffer[this.#at++] = value
    return this
  }

  u64(value: number): this {
    this.#room(8)
    this.#buffer.writeBigUInt64BE(BigInt(value), this.#at)
    this.#at += 8
    return this
  }

  uint(value: number): this {
    this.#room(8)
    let v = value
    while (v > 127) {
      this.#buffer[this.#at++] = (v % 128) | 128
      v = Math.floor(v / 128)
    }
    this.#buffer[this.#at++] = v
    return this
  }

  text(value: string): this {
    const length = Buffer.byteLength(value)
    this.uint(length)
    this.#room(length)
    this.#at += this.#buffer.write(value, this.#at)
    return this
  }

  raw(bytes: Uint8Array): this {
    this.#room(bytes.length)
    this.#buffer.set(bytes, this.#at)
    this.#at += bytes.length
    return this
  }

  /** What was written; the writer must not be used any more. */
  done(): Buffer {
    return this.#buffer.subarray(0, this.#at)
  }
}

/** Reads what `WireWriter` wrote. Past the end, or at a number not in its shortest form, it gives zeros and `failedAt` is set: check once at the end. */
export class WireReader {
  /** Offset of the first failure, or -1. */
  failedAt = -1
  at = 0
  readonly #bytes: Buffer

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  get failed(): boolean {
    return this.failedAt >= 0
  }

  get left(): number {
    return this.#bytes.length - this.at
  }

  fail(): void {
    if (this.failedAt < 0) this.failedAt = this.at
    this.at = this.#bytes.length
  }

  u8(): number {
    const value = this.#bytes[this.at]
    if (value === undefined) {
      this.fail()
      return 0
    }
    this.at++
    return value
  }

  u64(): number {
    if (this.left < 8) {
      this.fail()
      return 0
    }
    const value = Number(this.#bytes.readBigUInt64BE(this.at))
    if (!Number.isSafeInteger(value)) {
      this.fail()
      return 0
    }
    this.at += 8
    return value
  }

  uint(): number {
    let value = 0
    let scale = 1
    for (let i = 0; i < 8; i++) {
      const byte = this.u8()
      value += (byte & 127) * scale
      if (byte < 128) {
        // A last byte of zero after others is a longer form of a shorter number.
        if ((byte === 0 && i > 0) || !Number.isSafeInteger(value)) break
        return value
      }
      scale *= 128
    }
    this.fail()
    return 0
  }

  /** A name: printable ASCII without a slash (our own tables join names by it), 1 to `NAME_BYTES` bytes (or none, where `empty`). */
  name(empty = false): string {
    const length = this.uint()
    if (length > NAME_BYTES || length > this.left || (length === 0 && !empty)) {
      this.fail()
      return ''
    }
    for (let i = this.at; i < this.at + length; i++) {
      const byte = this.#bytes[i]!
      if (byte < 0x21 || byte > 0x7e || byte === 0x2f) {
        this.fail()
        return ''
      }
    }
    const value = this.#bytes.toString('latin1', this.at, this.at + length)
    this.at += length
    return value
  }

  /** A view into the input, not a copy. */
  raw(length: number): Buffer {
    if (length > this.left) {
      this.fail()
      return Buffer.alloc(0)
    }
    this.at += length
    return this.#bytes.subarray(this.at - length, this.at)
  }
}
