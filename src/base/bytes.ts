/** Small growing byte buffer; integers as LEB128 (safe integers), texts as length and latin1. */
export class ByteWriter {
  #bytes: number[] = []

  u8(value: number): void {
    this.#bytes.push(value & 255)
  }

  uint(value: number): void {
    let v = value
    while (v > 127) {
      this.#bytes.push((v % 128) | 128)
      v = Math.floor(v / 128)
    }
    this.#bytes.push(v)
  }

  text(value: string): void {
    this.uint(value.length)
    for (let i = 0; i < value.length; i++) this.#bytes.push(value.charCodeAt(i) & 255)
  }

  bytes(): Buffer {
    return Buffer.from(this.#bytes)
  }
}

/** Reads what `ByteWriter` wrote; past the end or out of range it gives zeros and `failed` is set: check once at the end. */
export class ByteReader {
  failed = false
  #at = 0
  readonly #bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get done(): boolean {
    return this.#at === this.#bytes.length
  }

  u8(): number {
    const value = this.#bytes[this.#at]
    if (value === undefined) {
      this.failed = true
      return 0
    }
    this.#at++
    return value
  }

  uint(): number {
    let value = 0
    let scale = 1
    for (let i = 0; i < 8; i++) {
      const byte = this.u8()
      value += (byte & 127) * scale
      if (byte < 128) {
        if (!Number.isSafeInteger(value)) break
        return value
      }
      scale *= 128
    }
    this.failed = true
    return 0
  }

  text(maxLength: number): string {
    const length = this.uint()
    if (length > maxLength || this.#at + length > this.#bytes.length) {
      this.failed = true
      return ''
    }
    let value = ''
    for (let i = 0; i < length; i++) value += String.fromCharCode(this.u8())
    return value
  }
}
