/**
 * A store that can fail must not take requests with it. Every call has a deadline, and when it throws or passes, one of three things happens, by
 * choice: let through, refuse, or (the default) decide with a memory of one's own until the store is back. With many proxies the last means that
 * each of them allows the whole limit meanwhile: too much, but not without limit, and nobody is turned away for a fault that is ours.
 */
import type { Clock, MaybePromise } from '@weir/core'
import { type RateLimitStoreFailure, storeFailures } from './events.ts'
import type { Verdict } from './limit.ts'
import { isPromise } from './maybe-promise.ts'
import { type MemoryStore, memoryStore } from './memory-store.ts'
import type { Charge, RateLimitStore } from './store.ts'

export type StoreErrorAction = 'allow' | 'deny' | 'local'

/** Who decided, and what. `verdicts` is undefined when nobody could: then `onStoreError` stands. */
export class Ruling {
  readonly verdicts: readonly Verdict[] | undefined
  readonly by: RateLimitStore

  constructor(verdicts: readonly Verdict[] | undefined, by: RateLimitStore) {
    this.verdicts = verdicts
    this.by = by
  }
}

export interface GuardOptions {
  readonly stage: string
  readonly store: RateLimitStore
  readonly action: StoreErrorAction
  readonly timeoutMs: number
  readonly maxEntries: number
  readonly clock: Clock
}

export class GuardedStore {
  errors = 0
  timeouts = 0
  readonly #options: GuardOptions
  /** Made when first needed: a proxy whose store never fails does not pay for it. */
  #local: MemoryStore | undefined

  constructor(options: GuardOptions) {
    this.#options = options
  }

  take(charges: readonly Charge[]): MaybePromise<Ruling> {
    const { store } = this.#options
    let taken: MaybePromise<readonly Verdict[]>
    try {
      taken = store.take(charges)
    } catch (error) {
      return this.#failed(charges, error, false)
    }
    return isPromise(taken) ? this.#inTime(taken, charges) : this.#checked(taken, charges)
  }

  /** Nobody waits for it: the exchange is over. */
  adjust(by: RateLimitStore, { limit, key }: Charge, difference: number, chargedAt: number): void {
    try {
      const adjusted = by.adjust(limit, key, difference, chargedAt)
      if (isPromise(adjusted)) this.#watch(adjusted)
    } catch (error) {
      this.#count('adjust', error, false, 'none')
    }
  }

  stats(): { entries: number; evictions: number } {
    const main = this.#options.store.stats?.()
    const local = this.#local?.stats()
    return { entries: (main?.entries ?? 0) + (local?.entries ?? 0), evictions: (main?.evictions ?? 0) + (local?.evictions ?? 0) }
  }

  #inTime(taken: Promise<readonly Verdict[]>, charges: readonly Charge[]): Promise<Ruling> {
    const { clock, timeoutMs } = this.#options
    return new Promise((resolve) => {
      let open = true
      const settle = (rule: () => Ruling): void => {
        if (!open) return
        open = false
        clock.clearTimeout(timer)
        resolve(rule())
      }
      const timer = clock.setTimeout(() => settle(() => this.#failed(charges, undefined, true)), timeoutMs)
      taken.then(
        (verdicts) => settle(() => this.#checked(verdicts, charges)),
        (error: unknown) => settle(() => this.#failed(charges, error, false)),
      )
    })
  }

  /** An answer that is none is a failure like any other. */
  #checked(verdicts: readonly Verdict[], charges: readonly Charge[]): Ruling {
    if (Array.isArray(verdicts) && verdicts.length === charges.length) return new Ruling(verdicts, this.#options.store)
    return this.#failed(charges, new TypeError(`the store gave no list of ${charges.length} verdicts`), false)
  }

  #failed(charges: readonly Charge[], error: unknown, timeout: boolean): Ruling {
    const { action, clock, maxEntries, store } = this.#options
    this.#count('take', error, timeout, action)
    if (action !== 'local') return new Ruling(undefined, store)
    this.#local ??= memoryStore({ maxEntries, clock })
    return new Ruling(this.#local.take(charges), this.#local)
  }

  #watch(adjusted: Promise<void>): void {
    const { clock, timeoutMs } = this.#options
    let open = true
    const settle = (failed: boolean, error: unknown, timeout: boolean): void => {
      if (!open) return
      open = false
      clock.clearTimeout(timer)
      if (failed) this.#count('adjust', error, timeout, 'none')
    }
    const timer = clock.setTimeout(() => settle(true, undefined, true), timeoutMs)
    adjusted.then(
      () => settle(false, undefined, false),
      (error: unknown) => settle(true, error, false),
    )
  }

  #count(call: 'take' | 'adjust', error: unknown, timeout: boolean, action: RateLimitStoreFailure['action']): void {
    if (timeout) this.timeouts++
    else this.errors++
    if (!storeFailures.hasSubscribers) return
    const { stage, store } = this.#options
    storeFailures.publish({ stage, store: store.name, call, timeout, error, action } satisfies RateLimitStoreFailure)
  }
}
