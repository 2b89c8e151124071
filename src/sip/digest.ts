import { hash, timingSafeEqual } from 'node:crypto'
import type { KeyRing } from '../base/keys.ts'
import type { Random } from '../base/prng.ts'
import { parseAuthParams } from './auth-params.ts'
import { quote } from './chars.ts'
import { checkNonce, makeNonce } from './nonce.ts'
import type { NonceReplay } from './nonce-replay.ts'
import { canonicalAor } from './uri.ts'

export { NonceReplay } from './nonce-replay.ts'

/** Digest authentication of RFC 7616 and RFC 8760, `qop=auth` alone, with nonces that every node of the cluster accepts (`nonce.ts`). */
export type DigestAlgorithm = 'MD5' | 'SHA-256'

const HASHES: Readonly<Record<DigestAlgorithm, 'md5' | 'sha256'>> = { MD5: 'md5', 'SHA-256': 'sha256' }

export interface ChallengeOptions {
  readonly realm: string
  readonly ring: KeyRing
  readonly nowMs: number
  readonly random: Random
  readonly algorithm: DigestAlgorithm
  /** The credentials were right, but their nonce was too old: try again without asking the user. */
  readonly stale?: boolean
}

/**
 * The value of one WWW-Authenticate or Proxy-Authenticate header. For several algorithms append one header each, the one that is liked best first
 * (RFC 8760 §2.4).
 */
export function makeChallenge(o: ChallengeOptions): string {
  const nonce = makeNonce({ ring: o.ring, realm: o.realm, algorithm: o.algorithm, nowMs: o.nowMs, random: o.random })
  // RFC 3261 §25.1: algorithm is a token, qop a quoted list, stale a bare word.
  return `Digest realm=${quote(latin1(o.realm))}, nonce="${nonce}", algorithm=${o.algorithm}, qop="auth"${o.stale === true ? ', stale=true' : ''}`
}

/**
 * Why credentials were refused. `stale`, `replay`, `wrong-algorithm` and `wrong-realm` deserve a fresh challenge (`stale` with `stale: true`);
 * the rest are the caller's to count.
 */
export type DigestRefusal =
  | 'malformed'
  | 'wrong-realm'
  | 'wrong-algorithm'
  | 'wrong-uri'
  | 'unknown-user'
  | 'bad-response'
  | 'stale'
  | 'replay'

export type DigestVerdict = { readonly ok: true; readonly username: string } | { readonly ok: false; readonly why: DigestRefusal }

export interface VerifyOptions {
  readonly method: string
  /** The Request-URI. The digest's own `uri` must name the same user and host (RFC 7616 §3.4.6); ports and parameters may differ. */
  readonly uri: string
  readonly realm: string
  readonly ring: KeyRing
  readonly nowMs: number
  /** Nonces older than this are stale. */
  readonly lifetimeMs: number
  /** H(username:realm:password) in hex (`digestHa1`), or undefined for a user or algorithm that we do not know. */
  readonly ha1: (username: string, algorithm: DigestAlgorithm) => string | undefined
  /** Refuses a nonce count that was used at this node before. Without it, credentials may be replayed for `lifetimeMs`. */
  readonly replay?: NonceReplay
  /** False lets the digest's `uri` be anything. For user agents that sign another URI than they send (SIPp without -auth_uri). */
  readonly matchUri?: boolean
}

/**
 * Checks the value of an Authorization or Proxy-Authorization header. Takes the same time for an unknown user as for a wrong password.
 * @returns the user, or why not. A nonce count is used up by a right answer alone.
 */
export function verifyAuthorization(header: string, o: VerifyOptions): DigestVerdict {
  const c = parseCredentials(header)
  if (c === undefined) return refused('malformed')
  if (utf8(c.realm) !== o.realm) return refused('wrong-realm')
  const algorithm = algorithmOf(c.algorithm)
  if (algorithm === undefined) return refused('wrong-algorithm')
  if (o.matchUri !== false && !sameTarget(c.uri, o.uri)) return refused('wrong-uri')
  const username = utf8(c.username)
  const ha1 = o.ha1(username, algorithm)
  const expected = responseOf(algorithm, ha1?.toLowerCase() ?? NOBODY, c, o.method)
  const right = sameText(expected, c.response.toLowerCase())
  if (ha1 === undefined) return refused('unknown-user')
  if (!right) return refused('bad-response')
  // Only now: `stale=true` says that the credentials themselves are right (RFC 7616 §3.3).
  const issuedMs = checkNonce(c.nonce, { ring: o.ring, realm: o.realm, algorithm })
  // A nonce from the future comes from a node whose clock is ahead: fine within a lifetime.
  if (issuedMs === undefined || Math.abs(o.nowMs - issuedMs) > o.lifetimeMs) return refused('stale')
  const use = o.replay?.use(c.nonce, issuedMs, Number.parseInt(c.nc, 16)) ?? 'fresh'
  return use === 'fresh' ? { ok: true, username } : refused(use)
}

/** H(username:realm:password) in lower-case hex, over UTF-8: what is stored in the place of a password. */
export const digestHa1 = (username: string, realm: string, password: string, algorithm: DigestAlgorithm): string =>
  hash(HASHES[algorithm], `${username}:${realm}:${password}`, 'hex')

/**
 * The client's side: the value of an Authorization header for a challenge, for trunks that ask us and for tests.
 * @param challenge value of a WWW-Authenticate or Proxy-Authenticate header
 * @param o `count`: how often this nonce has been used, this time included
 * @returns undefined when the challenge is none that we can answer (another scheme or algorithm, no `qop=auth`)
 */
export function digestResponse(
  challenge: string,
  o: { username: string; password: string; method: string; uri: string; random: Random; count?: number },
): string | undefined {
  const params = parseAuthParams(challenge)
  const algorithm = algorithmOf(params?.get('algorithm'))
  const realm = params?.get('realm')
  const nonce = params?.get('nonce')
  if (params === undefined || algorithm === undefined || realm === undefined || nonce === undefined) return undefined
  const offered = (params.get('qop') ?? '').split(',').map((qop) => qop.trim().toLowerCase())
  if (!offered.includes('auth')) return undefined
  const c = {
    ...{ username: latin1(o.username), realm, nonce, uri: latin1(o.uri), algorithm },
    cnonce: Buffer.from(o.random.bytes(12)).toString('base64url'),
    nc: (o.count ?? 1).toString(16).padStart(8, '0'),
  }
  const response = responseOf(algorithm, digestHa1(o.username, utf8(realm), o.password, algorithm), c, o.method)
  const opaque = params.get('opaque')
  return (
    `Digest username=${quote(c.username)}, realm=${quote(realm)}, nonce=${quote(nonce)}, uri="${c.uri}", response="${response}", ` +
    `algorithm=${algorithm}, cnonce="${c.cnonce}", qop=auth, nc=${c.nc}${opaque === undefined ? '' : `, opaque=${quote(opaque)}`}`
  )
}

/** What a response is computed over, as it stands in the header: latin1, unquoted. */
interface Signed {
  readonly nonce: string
  readonly uri: string
  readonly cnonce: string
  /** Eight hex digits, as given. */
  readonly nc: string
}

interface Credentials extends Signed {
  readonly username: string
  readonly realm: string
  readonly response: string
  readonly algorithm: string | undefined
}

/** RFC 7616 §3.4. Since our challenges offer qop, credentials without one are malformed (RFC 3261 §22.4 item 8), and so are hashed user names. */
function parseCredentials(header: string): Credentials | undefined {
  const params = parseAuthParams(header)
  if (params === undefined) return undefined
  const field = (name: string): string => params.get(name) ?? ''
  const c: Credentials = {
    ...{
      username: field('username'),
      realm: field('realm'),
      nonce: field('nonce'),
      uri: field('uri'),
      response: field('response'),
    },
    ...{ algorithm: params.get('algorithm'), cnonce: field('cnonce'), nc: field('nc') },
  }
  if (c.username === '' || c.nonce === '' || c.uri === '' || c.cnonce === '' || field('qop').toLowerCase() !== 'auth')
    return undefined
  if (!/^[0-9a-f]{8}$/i.test(c.nc) || c.nc === '00000000' || field('userhash').toLowerCase() === 'true') return undefined
  return c
}

/** RFC 7616 §3.3: MD5 where none is named. */
function algorithmOf(name: string | undefined): DigestAlgorithm | undefined {
  const upper = (name ?? 'MD5').toUpperCase()
  return upper === 'MD5' || upper === 'SHA-256' ? upper : undefined
}

/** RFC 7616 §3.4.1 for qop=auth. */
function responseOf(algorithm: DigestAlgorithm, ha1: string, c: Signed, method: string): string {
  const ha2 = hash(HASHES[algorithm], Buffer.from(`${method}:${c.uri}`, 'latin1'), 'hex')
  return hash(HASHES[algorithm], Buffer.from(`${ha1}:${c.nonce}:${c.nc}:${c.cnonce}:auth:${ha2}`, 'latin1'), 'hex')
}

function sameTarget(digestUri: string, requestUri: string): boolean {
  if (digestUri === requestUri) return true
  const a = canonicalAor(digestUri)
  const b = canonicalAor(requestUri)
  return a.ok && b.ok && a.value === b.value
}

/** In constant time for texts of the same length; the length of a hash is no secret. */
function sameText(a: string, b: string): boolean {
  return a.length === b.length && timingSafeEqual(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1'))
}

const refused = (why: DigestRefusal): DigestVerdict => ({ ok: false, why })
/** What nobody's password hashes to, computed with so that an unknown user takes as long as a known one. */
const NOBODY = '0'.repeat(64)
/** Message text holds bytes: UTF-8 in it is one char per byte. */
const utf8 = (text: string): string => Buffer.from(text, 'latin1').toString('utf8')
const latin1 = (text: string): string => Buffer.from(text, 'utf8').toString('latin1')
