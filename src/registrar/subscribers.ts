import { createHash } from 'node:crypto'

/** Who may register and call: a password, or hashes of it (hex of hash(username:realm:password), RFC 8760 §2.7). */
export interface Subscriber {
  readonly username: string
  /** Of this domain alone; absent: of every domain that is served. */
  readonly domain?: string
  readonly password?: string
  readonly ha1?: { readonly md5?: string; readonly sha256?: string }
}

/** Subscribers by user name and domain, with HA1 made when it is first asked for. */
export class Subscribers {
  /** `user@domain`, and `user` for those of every domain. */
  readonly #byName = new Map<string, Subscriber>()
  /** The first of a name, whatever its domain. */
  readonly #anyDomain = new Map<string, Subscriber>()
  readonly #ha1 = new Map<string, string>()
  readonly #realm: string
  readonly #domains: ReadonlySet<string>

  /** @param domains those that are served */
  constructor(subscribers: readonly Subscriber[], realm: string, domains: readonly string[]) {
    this.#realm = realm
    this.#domains = new Set(domains)
    for (const s of subscribers) {
      this.#byName.set(keyOf(s), s)
      if (!this.#anyDomain.has(s.username)) this.#anyDomain.set(s.username, s)
    }
  }

  has(username: string, domain: string): boolean {
    return this.#find(username, domain) !== undefined
  }

  /** @param domain what the request claims; a From outside our domains (an anonymous call, RFC 3323) says nothing of it */
  ha1(username: string, algorithm: string, domain: string): string | undefined {
    const subscriber = this.#find(username, domain)
    if (subscriber === undefined) return undefined
    const given = algorithm === 'MD5' ? subscriber.ha1?.md5 : subscriber.ha1?.sha256
    if (given !== undefined || subscriber.password === undefined) return given
    const key = `${algorithm}:${keyOf(subscriber)}`
    let made = this.#ha1.get(key)
    if (made === undefined) {
      made = createHash(algorithm === 'MD5' ? 'md5' : 'sha256')
        .update(`${username}:${this.#realm}:${subscriber.password}`)
        .digest('hex')
      this.#ha1.set(key, made)
    }
    return made
  }

  #find(username: string, domain: string): Subscriber | undefined {
    if (!this.#domains.has(domain)) return this.#anyDomain.get(username)
    return this.#byName.get(`${username}@${domain}`) ?? this.#byName.get(username)
  }
}

const keyOf = (s: Subscriber): string => (s.domain === undefined ? s.username : `${s.username}@${s.domain}`)
