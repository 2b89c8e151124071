import { createHash } from 'node:crypto'

/** Who may register and call: a password, or hashes of it (hex of hash(username:realm:password), RFC 8760 §2.7). */
export interface Subscriber {
  readonly username: string
  readonly password?: string
  readonly ha1?: { readonly md5?: string; readonly sha256?: string }
}

/** Subscribers by user name, with HA1 made when it is first asked for. */
export class Subscribers {
  readonly #byName = new Map<string, Subscriber>()
  readonly #ha1 = new Map<string, string>()
  readonly #realm: string

  constructor(subscribers: readonly Subscriber[], realm: string) {
    this.#realm = realm
    for (const s of subscribers) this.#byName.set(s.username, s)
  }

  has(username: string): boolean {
    return this.#byName.has(username)
  }

  ha1(username: string, algorithm: string): string | undefined {
    const subscriber = this.#byName.get(username)
    if (subscriber === undefined) return undefined
    const given = algorithm === 'MD5' ? subscriber.ha1?.md5 : subscriber.ha1?.sha256
    if (given !== undefined || subscriber.password === undefined) return given
    const key = `${algorithm}:${username}`
    let made = this.#ha1.get(key)
    if (made === undefined) {
      made = createHash(algorithm === 'MD5' ? 'md5' : 'sha256')
        .update(`${username}:${this.#realm}:${subscriber.password}`)
        .digest('hex')
      this.#ha1.set(key, made)
    }
    return made
  }
}
