/**
 * The keys of tokens. A key set at a URL is fetched when it is needed and kept; a token with a key that is not in it makes it be fetched again, since
 * keys are changed by adding one, but not more often than the cooldown allows, since anybody can make up the name of a key. When it cannot be
 * fetched the last good one goes on for a while: the outage of an identity provider should not be that of everything.
 */
import { createPublicKey, createSecretKey, type KeyObject } from 'node:crypto'
import type { Duration, OptionReader } from '@weir/core'
import { createLocalJWKSet, createRemoteJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose'

export interface RemoteKeysOptions {
  /** `https:`, or `http:` to this machine. */
  readonly url: string | URL
  /** A set older than this is fetched again before it is used. Default 10 m. */
  readonly maxAge?: Duration
  /** Least time between two fetches for keys that are not in the set. Default 30 s. */
  readonly cooldown?: Duration
  /** For a fetch. Default 5 s. */
  readonly timeout?: Duration
  /** How long the last good set is used when it cannot be fetched. Default 1 h; 0 for not at all. */
  readonly stale?: Duration
}

/** `jwks`: a key set, or where it is. `secret`: for HS256 and its like, 32 bytes or more. `publicKey`: PEM. */
export type JwtKeys =
  | { readonly jwks: RemoteKeysOptions | JSONWebKeySet }
  | { readonly secret: string | Uint8Array }
  | { readonly publicKey: string }

export type JwtKeySource = JWTVerifyGetKey

/** @param now milliseconds, only their differences count */
export function readJwtKeys(read: OptionReader, value: unknown, symmetric: boolean, now: () => number): JwtKeySource {
  const given = read.object<{ jwks?: unknown; secret?: unknown; publicKey?: unknown }>(value as object, ['jwks', 'secret', 'publicKey'])
  const names = Object.keys(given)
  if (value === undefined || names.length !== 1) read.problem('', names.join(', ') || value, 'one of `jwks`, `secret`, `publicKey`')
  if (given.secret !== undefined) {
    const bytes = typeof given.secret === 'string' ? Buffer.from(given.secret) : given.secret
    if (!(bytes instanceof Uint8Array) || bytes.length < 32) read.problem('secret', '(not shown)', 'at least 32 bytes')
    else if (!symmetric) read.problem('secret', '(not shown)', 'a public key or a key set: the algorithms are asymmetric')
    else return only(createSecretKey(bytes))
  } else if (symmetric) read.problem('', names.join(', '), 'a `secret`: the algorithms are symmetric')
  else if (given.publicKey !== undefined) {
    const key = publicKeyOf(given.publicKey)
    if (key !== undefined) return only(key)
    read.problem('publicKey', given.publicKey, 'a public key in PEM')
  } else if (given.jwks !== undefined) return readSet(read.at('jwks'), given.jwks, now)
  return noKey
}

const noKey: JwtKeySource = () => Promise.reject(new errors.JWKSNoMatchingKey())

function only(key: KeyObject): JwtKeySource {
  return () => Promise.resolve(key)
}

function publicKeyOf(text: unknown): KeyObject | undefined {
  if (typeof text !== 'string' || text.includes('PRIVATE')) return undefined
  try {
    return createPublicKey(text)
  } catch {
    return undefined
  }
}

function readSet(read: OptionReader, value: unknown, now: () => number): JwtKeySource {
  if (typeof value === 'object' && value !== null && 'keys' in value) {
    try {
      return createLocalJWKSet(value as JSONWebKeySet)
    } catch {
      read.problem('', '(not shown)', 'a key set, { keys: [...] }')
      return noKey
    }
  }
  const given = read.object<RemoteKeysOptions>(value as RemoteKeysOptions, ['url', 'maxAge', 'cooldown', 'timeout', 'stale'])
  const url = typeof given.url === 'string' || given.url instanceof URL ? URL.parse(String(given.url)) : null
  const local = url !== null && url.protocol === 'http:' && /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname)
  if (url === null || (url.protocol !== 'https:' && !local)) read.problem('url', given.url, 'an https: address; http: only to this machine')
  const maxAge = read.duration('maxAge', given.maxAge, 600_000, { min: 1 })
  const cooldown = read.duration('cooldown', given.cooldown, 30_000)
  const timeout = read.duration('timeout', given.timeout, 5000, { min: 1 })
  const stale = read.duration('stale', given.stale, 3_600_000)
  return url === null ? noKey : remoteKeys(url, maxAge, cooldown, timeout, stale, now)
}

/** Milliseconds between two tries while there are no keys at all. */
const coldCooldown = 1000

function remoteKeys(url: URL, maxAge: number, cooldown: number, timeout: number, stale: number, now: () => number): JwtKeySource {
  const remote = createRemoteJWKSet(url, { cacheMaxAge: maxAge, cooldownDuration: cooldown, timeoutDuration: timeout })
  // What succeeds used a set that is no older than `maxAge`.
  let goodAt = Number.NEGATIVE_INFINITY
  let failedAt = Number.NEGATIVE_INFINITY
  let failure: unknown
  let last: JSONWebKeySet | undefined
  let lastKeys: JwtKeySource | undefined
  const atHand = (): JwtKeySource | undefined => {
    const set = remote.jwks()
    if (set === undefined) return undefined
    if (set !== last || lastKeys === undefined) {
      last = set
      lastKeys = createLocalJWKSet(set)
    }
    return lastKeys
  }
  const fallback = (): JwtKeySource | undefined => (now() - goodAt >= stale ? undefined : atHand())
  return async (header, token) => {
    // While the outage lasts not every request tries, and waits for the time to run out.
    const sinceFailure = now() - failedAt
    const known = sinceFailure < cooldown ? fallback() : undefined
    if (known !== undefined) return await known(header, token)
    // Without any keys nobody gets in, so it is tried sooner; but anybody can send a token, and not each is to become a request there.
    if (sinceFailure < Math.min(cooldown, coldCooldown)) {
      // A token that names a key that nobody knows has made us ask in vain. Those that are good are still good.
      const fresh = remote.fresh ? atHand() : undefined
      if (fresh === undefined) throw failure
      try {
        return await fresh(header, token)
      } catch {
        throw failure
      }
    }
    try {
      const key = await remote(header, token)
      goodAt = now()
      return key
    } catch (error) {
      if (!isOutage(error)) throw error
      failedAt = now()
      failure = error
      const keys = fallback()
      if (keys === undefined) throw error
      return await keys(header, token)
    }
  }
}

/** Faults of a token; all else is a fault of ours, or of whoever keeps the keys. */
const tokenFaults: ReadonlySet<string> = new Set([
  errors.JOSEAlgNotAllowed.code,
  errors.JOSENotSupported.code,
  errors.JWSInvalid.code,
  errors.JWSSignatureVerificationFailed.code,
  errors.JWTClaimValidationFailed.code,
  errors.JWTExpired.code,
  errors.JWTInvalid.code,
  errors.JWKSNoMatchingKey.code,
  errors.JWKSMultipleMatchingKeys.code,
])

export function isOutage(error: unknown): boolean {
  return !(error instanceof errors.JOSEError) || !tokenFaults.has(error.code)
}
