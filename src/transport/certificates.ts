import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'
import { AntipodeError } from '../base/errors.ts'

/** Paths of a PEM chain, own certificate first, and of its private key. */
export interface CertificateFiles {
  readonly certificate: string
  readonly key: string
}

export interface TlsSettings extends CertificateFiles {
  /** PEM file of those who sign our peers' certificates; undefined: the authorities that Node.js comes with. */
  readonly ca?: string | undefined
  /** Who connects must show a certificate that `ca` has signed. */
  readonly requireClientCert: boolean
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3'
  /** Other certificates for clients that ask for these names (SNI); `*.` at the front stands for one label. */
  readonly names: readonly (CertificateFiles & { readonly name: string })[]
  /** Whether the peers that we connect to must prove who they are. */
  readonly verify: boolean
  /** Address → the name that its certificate must bear; without one it must bear the address. */
  readonly peerNames: Readonly<Record<string, string>>
}

interface Loaded {
  readonly options: SecureContextOptions
  readonly context: SecureContext
}

/** The certificates of a node, as they were when they could last be read. */
export class Certificates {
  readonly settings: TlsSettings
  #ca: Buffer | undefined
  #own: Loaded
  #named = new Map<string, Loaded>()

  /** @throws AntipodeError NET_TLS_FILES naming the file that cannot be read or used */
  constructor(settings: TlsSettings) {
    this.settings = settings
    this.#ca = this.#readCa()
    this.#own = this.#load(settings)
    for (const named of settings.names) this.#named.set(named.name, this.#load(named))
  }

  /** For those who ask for no name of `names`. */
  get own(): SecureContextOptions {
    return this.#own.options
  }

  /** For a client that asks for that name (RFC 6066 §3). */
  contextFor(serverName: string): SecureContext {
    const name = serverName.toLowerCase()
    const found = this.#named.get(name) ?? this.#named.get(`*${name.slice(Math.max(0, name.indexOf('.')))}`)
    return (found ?? this.#own).context
  }

  /** Reads all files again. What cannot be read or used stays as it was. @returns what went wrong */
  reload(): AntipodeError[] {
    const faults: AntipodeError[] = []
    const attempt = <T>(old: T, read: () => T): T => {
      try {
        return read()
      } catch (error) {
        if (!(error instanceof AntipodeError)) throw error
        faults.push(error)
        return old
      }
    }
    this.#ca = attempt(this.#ca, () => this.#readCa())
    this.#own = attempt(this.#own, () => this.#load(this.settings))
    for (const named of this.settings.names)
      this.#named.set(
        named.name,
        attempt(this.#named.get(named.name)!, () => this.#load(named)),
      )
    return faults
  }

  #readCa(): Buffer | undefined {
    const { ca } = this.settings
    if (ca === undefined) return undefined
    const pem = readPem(ca)
    try {
      // OpenSSL takes a file without certificates for an empty list, and then nobody is let in.
      new X509Certificate(pem)
    } catch (cause) {
      throw unusable(ca, cause)
    }
    return pem
  }

  #load(files: CertificateFiles): Loaded {
    const options: SecureContextOptions = {
      cert: readPem(files.certificate),
      key: readPem(files.key),
      minVersion: this.settings.minVersion,
      ...(this.#ca === undefined ? {} : { ca: this.#ca }),
    }
    try {
      return { options, context: createSecureContext(options) }
    } catch (cause) {
      throw unusable(`${files.certificate} with ${files.key}`, cause)
    }
  }
}

function readPem(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    throw unusable(file, cause)
  }
}

const unusable = (what: string, cause: unknown): AntipodeError =>
  new AntipodeError('NET_TLS_FILES', `${what}: ${(cause as Error).message}`, cause)
