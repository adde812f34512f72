/**
 * What stands in the cookie: version, when the session began, when it was last seen, the upstream's token, and an HMAC-SHA-256 over all of it.
 * 57 bytes, 76 characters of base64url with no bits left over, so that every value has exactly one spelling.
 *
 * Nothing of a value is looked at before its signature holds, and the signature is compared in constant time. Values that held are remembered,
 * since the same one comes with every request of a session (0.2 µs instead of 4); only the cryptography is remembered, lifetimes are checked each time.
 */
import { createHmac, type KeyObject, timingSafeEqual } from 'node:crypto'
import type { Pool } from '@weir/core'
import { LRUCache } from 'lru-cache'
import { deriveKeys, type Keys } from './secret.ts'
import { tokenBytes, UpstreamTokens } from './upstream-tokens.ts'

export interface Lifetimes {
  /** Milliseconds; `Infinity` for none. */
  readonly idle: number
  /** Milliseconds. */
  readonly absolute: number
  /** Share of `idle` after which a new stamp is sent. */
  readonly refresh: number
}

/** A value that was ours and in force. Times are milliseconds of the epoch. */
export interface Session {
  readonly created: number
  readonly seen: number
  /** Undefined: its upstream is no member of this pool. */
  readonly upstream: string | undefined
  /** It should be sent anew: signed with an old secret, or an old stamp. */
  readonly stale: boolean
}

export type RejectReason = 'malformed' | 'forged' | 'expired' | 'future'
export type Opened = { readonly kind: 'valid'; readonly session: Session } | { readonly kind: 'rejected'; readonly reason: RejectReason }

interface Verified {
  /** Which secret signed it. */
  readonly key: number
  readonly created: number
  readonly seen: number
  readonly token: string
}

const version = 1
const macBytes = 32
const payloadBytes = 9 + tokenBytes
/** Characters of a value. */
export const valueLength: number = ((payloadBytes + macBytes) / 3) * 4
const shape = /^[A-Za-z0-9_-]+$/
/** Proxies' clocks differ; a stamp from further ahead than this is not worth believing. */
const skewMs = 60_000
/** Of some 250 bytes each. */
const remembered = 4096

interface Signer {
  readonly keys: Keys
  readonly tokens: UpstreamTokens
}

export class SignedValues {
  readonly #signers: readonly [Signer, ...Signer[]]
  readonly #lifetimes: Lifetimes
  readonly #verified = new LRUCache<string, Verified>({ max: remembered })

  /** @param secrets newest first @param context see `deriveKeys` */
  constructor(secrets: readonly Buffer[], context: string, lifetimes: Lifetimes) {
    this.#signers = secrets.map((secret) => {
      const keys = deriveKeys(secret, context)
      return { keys, tokens: new UpstreamTokens(keys.name) }
    }) as [Signer, ...Signer[]]
    this.#lifetimes = lifetimes
  }

  /** @param bound what the value may only be used together with @param created when the session began, milliseconds of the epoch */
  seal(pool: Pool, upstream: string, created: number, now: number, bound = ''): string {
    const { keys, tokens } = this.#signers[0]
    const payload = Buffer.alloc(payloadBytes)
    payload[0] = version
    payload.writeUInt32BE(Math.floor(created / 1000) >>> 0, 1)
    payload.writeUInt32BE(Math.floor(now / 1000) >>> 0, 5)
    payload.write(tokens.token(pool, upstream), 9, 'latin1')
    return Buffer.concat([payload, mac(keys.sign, payload, bound)]).toString('base64url')
  }

  open(pool: Pool, value: string, now: number, bound = ''): Opened {
    const verified = this.#verify(value, bound)
    if (typeof verified === 'string') return { kind: 'rejected', reason: verified }
    const { created, seen, key, token } = verified
    const { idle, absolute, refresh } = this.#lifetimes
    if (created > now + skewMs || seen > now + skewMs) return { kind: 'rejected', reason: 'future' }
    if (now - created >= absolute || now - seen >= idle) return { kind: 'rejected', reason: 'expired' }
    const upstream = (this.#signers[key] as Signer).tokens.find(pool, token)
    return { kind: 'valid', session: { created, seen, upstream, stale: key > 0 || now - seen >= idle * refresh } }
  }

  /** Milliseconds that a value sealed now would be in force. */
  left(created: number, now: number): number {
    return Math.min(this.#lifetimes.idle, created + this.#lifetimes.absolute - now)
  }

  #verify(value: string, bound: string): Verified | 'malformed' | 'forged' {
    if (value.length !== valueLength) return 'malformed'
    const name = bound === '' ? value : `${value}${bound}`
    const known = this.#verified.get(name)
    if (known !== undefined) return known
    if (!shape.test(value)) return 'malformed'
    const bytes = Buffer.from(value, 'base64url')
    const payload = bytes.subarray(0, payloadBytes)
    const given = bytes.subarray(payloadBytes)
    for (const [key, { keys }] of this.#signers.entries()) {
      if (!timingSafeEqual(given, mac(keys.sign, payload, bound))) continue
      // Signed, but by a later release: not to be guessed at.
      if (payload[0] !== version) return 'malformed'
      const verified: Verified = {
        key,
        created: payload.readUInt32BE(1) * 1000,
        seen: payload.readUInt32BE(5) * 1000,
        token: payload.toString('latin1', 9),
      }
      // Long values of applications are not worth the memory.
      if (name.length <= 512) this.#verified.set(name, verified)
      return verified
    }
    return 'forged'
  }
}

function mac(key: KeyObject, payload: Buffer, bound: string): Buffer {
  // The payload has one length, so what follows cannot be taken for a part of it.
  return createHmac('sha256', key).update(payload).update(bound, 'utf8').digest()
}
