/**
 * What the package tells to whoever listens, on `node:diagnostics_channel`. Nobody listening costs one property read per request.
 *
 * - `weir:cache:decision` a `CacheDecision` for every request that a cache saw
 */
import { type Channel, channel } from 'node:diagnostics_channel'
import type { Exchange } from '@weir/core'

export interface CacheDecision {
  readonly exchange: Exchange
  /** Name of the cache. */
  readonly stage: string
  /** `miss`: it went to an upstream; `collapsed`: it got what another one's request brought; `bypass`: the cache had nothing to do with it. */
  readonly outcome: 'hit' | 'stale' | 'revalidated' | 'collapsed' | 'miss' | 'bypass'
  /** Undefined for `bypass`. */
  readonly key: string | undefined
}

export const decisions: Channel = channel('weir:cache:decision')
