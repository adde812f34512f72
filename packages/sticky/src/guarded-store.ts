/**
 * A store as the stages see it: with a deadline for each call, and failing in one known way. Stores are other people's code on another machine;
 * what they throw, reject with, or never answer becomes `failed`, counted and published, and never a 500 or a request that hangs.
 */
import type { Clock, MaybePromise } from '@weir/core'
import type { Journal } from './journal.ts'
import type { SessionStore, SessionWrite } from './session-store.ts'

export const failed: unique symbol = Symbol('failed')
export type Failed = typeof failed

/** Runs `fn` now when the value is there, later when it is a promise. Not named `then`: a module with such an export is taken for a promise. */
export function whenThere<T, R>(value: MaybePromise<T>, fn: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return isPromise(value) ? value.then(fn) : fn(value)
}

export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return typeof value === 'object' && value !== null && typeof (value as Promise<T>).then === 'function'
}

export class GuardedStore {
  readonly #store: SessionStore
  readonly #timeout: number
  readonly #clock: Clock
  readonly #journal: Journal

  /** @param timeout milliseconds */
  constructor(store: SessionStore, timeout: number, clock: Clock, journal: Journal) {
    this.#store = store
    this.#timeout = timeout
    this.#clock = clock
    this.#journal = journal
  }

  get(key: string): MaybePromise<string | undefined | Failed> {
    // Drivers say null, or an empty text, for nothing.
    return whenThere(
      this.#guard(() => this.#store.get(key)),
      (found) => found || undefined,
    )
  }

  set(key: string, upstreamId: string, write: SessionWrite): MaybePromise<string | Failed> {
    return this.#guard(() => this.#store.set(key, upstreamId, write))
  }

  delete(key: string): MaybePromise<undefined | Failed> {
    return this.#guard(() => this.#store.delete(key)) as MaybePromise<undefined | Failed>
  }

  #guard<T>(call: () => MaybePromise<T>): MaybePromise<T | Failed> {
    let answer: MaybePromise<T>
    try {
      answer = call()
    } catch (error) {
      this.#journal.storeFailed('error', error)
      return failed
    }
    if (!isPromise(answer)) return answer
    const pending = answer
    return new Promise((resolve) => {
      let late = false
      const timer = this.#clock.setTimeout(() => {
        late = true
        this.#journal.storeFailed('timeout', undefined)
        resolve(failed)
      }, this.#timeout)
      pending.then(
        (value) => {
          this.#clock.clearTimeout(timer)
          resolve(value)
        },
        (error: unknown) => {
          // Late failures were counted as what they were first.
          if (late) return
          this.#clock.clearTimeout(timer)
          this.#journal.storeFailed('error', error)
          resolve(failed)
        },
      )
    })
  }
}
