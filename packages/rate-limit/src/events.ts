/**
 * What the package tells to whoever listens, on `node:diagnostics_channel`. Nobody listening costs one property read.
 *
 * - `weir:rate-limit:decision` a `RateLimitDecision` for every limit of every decision
 * - `weir:rate-limit:store`    a `RateLimitStoreFailure` for every call of a store that failed
 * - `weir:rate-limit:ban`      a `BanEvent`: banned, unbanned, refused
 *
 * Keys are told as a hash: they may be API keys, and events end up in logs. Who needs the key has the exchange.
 */
import { createHash } from 'node:crypto'
import { type Channel, channel } from 'node:diagnostics_channel'
import type { Exchange } from '@weir/core'
import type { Verdict } from './limit.ts'
import type { Charge } from './store.ts'

export interface RateLimitDecision {
  readonly exchange: Exchange
  /** Name of the stage. */
  readonly stage: string
  readonly limit: string
  /** `dry`: it would have been refused, but for `dryRun`. */
  readonly verdict: 'allowed' | 'refused' | 'dry'
  readonly cost: number
  readonly remaining: number
  readonly retryAfterMs: number
  /** How long it waits for its turn. */
  readonly delayMs: number
  /** 22 characters, the same for the same key. */
  readonly keyHash: string
  /** Name of the store that decided. */
  readonly store: string
}

export interface RateLimitStoreFailure {
  readonly stage: string
  readonly store: string
  readonly call: 'take' | 'adjust'
  /** A store that did not answer in time; otherwise it threw `error`. */
  readonly timeout: boolean
  readonly error: unknown
  /** What was done instead. */
  readonly action: 'allow' | 'deny' | 'local' | 'none'
}

export interface BanEvent {
  readonly stage: string
  /** `dry`: a request would have been refused, but for `dryRun`. */
  readonly action: 'ban' | 'unban' | 'refused' | 'dry'
  readonly keyHash: string
  readonly reason: string
  /** Milliseconds that are left. */
  readonly leftMs: number
}

export const decisions: Channel = channel('weir:rate-limit:decision')
export const storeFailures: Channel = channel('weir:rate-limit:store')
export const bans: Channel = channel('weir:rate-limit:ban')

export const keyHash = (key: string): string => createHash('sha256').update(key, 'utf16le').digest('base64url').slice(0, 22)

/** One message per limit. */
export function publishDecision(
  exchange: Exchange,
  stage: string,
  dryRun: boolean,
  charges: readonly Charge[],
  verdicts: readonly Verdict[],
  store: string,
): void {
  if (!decisions.hasSubscribers) return
  verdicts.forEach(({ allowed, remaining, retryAfterMs, delayMs }, i) => {
    const { limit, key, cost } = charges[i] as Charge
    const verdict = allowed ? 'allowed' : dryRun ? 'dry' : 'refused'
    decisions.publish({
      exchange,
      stage,
      limit: limit.name,
      verdict,
      cost,
      remaining,
      retryAfterMs,
      delayMs,
      keyHash: keyHash(key),
      store,
    } satisfies RateLimitDecision)
  })
}
