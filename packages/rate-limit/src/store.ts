/**
 * Where limits are remembered: the port between the stage and a memory of any kind. A store decides; it is not asked to read and later to write,
 * because two proxies that read the same number would both let the last request through.
 *
 * Methods return a value or a promise. A store in memory never makes a promise, so that a proxy with one never waits. Time is the store's own
 * affair: a shared one uses its server's clock, and only durations cross this border (`Verdict.at` goes back to where it came from).
 */
import type { MaybePromise } from '@weir/core'
import type { Limit, Verdict } from './limit.ts'

/** One limit's part of a decision. */
export interface Charge {
  readonly limit: Limit
  /** At most 64 characters; longer ones come hashed. */
  readonly key: string
  /** Zero or more. */
  readonly cost: number
}

export interface StoreStats {
  /** Keys that are remembered, of all limits; those whose time is up and that were not yet removed included. */
  readonly entries: number
  /** Keys that were forgotten for lack of room while they still counted: each of them got its limit anew. */
  readonly evictions: number
}

export interface RateLimitStore {
  /** For events. */
  readonly name: string
  /**
   * All of the charges or none: if one limit refuses, no limit is charged. Verdicts come in the order of the charges, which belong to different
   * limits. In a refusal those of the limits that would have allowed it say what is left without it.
   */
  take(charges: readonly Charge[]): MaybePromise<readonly Verdict[]>
  /** Corrects a charge by `difference`, more or (negative) less: `Algorithm.adjust`. `chargedAt` is the `at` of the verdict. */
  adjust(limit: Limit, key: string, difference: number, chargedAt: number): MaybePromise<void>
  stats?(): StoreStats
  /** Called by whoever made the store. */
  close?(): MaybePromise<void>
}
