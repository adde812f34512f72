/**
 * Bodies on their way up. Between reading one and keeping it above anything may happen to its entry, and then what is kept would outlive
 * its invalidation. So a promotion is given up when its key, or everything, is changed while it goes on, none begins while a change does,
 * and what is kept is the head that the lower store has at the end: the one that was found may be older than a change.
 */
import type { Readable } from 'node:stream'
import type { MaybePromise } from '@weir/core'
import type { CacheEntry } from './entry.ts'
import { type CacheStore, isSameVariant } from './store.ts'
import { settled } from './store-pair.ts'

type Bytes = Uint8Array | Readable | undefined

interface Change {
  count: number
  /** No other change of this key began before it was over. */
  alone: boolean
}

export class Promotions {
  readonly #upper: CacheStore
  readonly #lower: CacheStore
  readonly #upTo: number
  /** By key; a promotion goes on for as long as it is in here. */
  readonly #running = new Map<string, symbol>()
  readonly #changes = new Map<string, Change>()
  /** Changes of no one key. */
  #sweeps = 0

  constructor(upper: CacheStore, lower: CacheStore, upTo: number) {
    this.#upper = upper
    this.#lower = lower
    this.#upTo = upTo
  }

  isChanging(key: string): boolean {
    return this.#sweeps > 0 || this.#changes.has(key)
  }

  /** @param key undefined: of any @param change is told whether it was the only one of its key all the time */
  changing<T>(key: string | undefined, change: (wasAlone: () => boolean) => MaybePromise<T>): MaybePromise<T> {
    const over = key === undefined ? this.#sweep() : this.#change(key)
    const mine = key === undefined ? undefined : this.#changes.get(key)
    let result: MaybePromise<T>
    try {
      result = change(() => mine?.alone === true)
    } catch (error) {
      over()
      throw error
    }
    if (result instanceof Promise) return result.finally(over)
    over()
    return result
  }

  #sweep(): () => void {
    this.#running.clear()
    this.#sweeps++
    for (const change of this.#changes.values()) change.alone = false
    return () => {
      this.#sweeps--
    }
  }

  #change(key: string): () => void {
    this.#running.delete(key)
    const change = this.#changes.get(key) ?? { count: 0, alone: this.#sweeps === 0 }
    if (++change.count > 1) change.alone = false
    this.#changes.set(key, change)
    return () => {
      if (--change.count === 0) this.#changes.delete(key)
    }
  }

  /** Reads a body from below, and keeps it above when it is all of a small one. The reader does not wait for that. */
  reading(entry: CacheEntry, start: number, end: number, read: () => MaybePromise<Bytes>): MaybePromise<Bytes> {
    const { key, size } = entry
    if (start > 0 || end < size || size > this.#upTo || this.isChanging(key) || this.#running.has(key)) return read()
    const token = Symbol()
    this.#running.set(key, token)
    const over = (): void => {
      if (this.#running.get(key) === token) this.#running.delete(key)
    }
    return settled(
      read,
      (bytes) => {
        if (bytes instanceof Uint8Array && bytes.length === size) this.#keep(entry, bytes, token, over)
        else over()
        return bytes
      },
      (error) => {
        over()
        throw error
      },
    )
  }

  #keep({ key, id }: CacheEntry, bytes: Uint8Array, token: symbol, over: () => void): void {
    const stillOn = (): boolean => this.#running.get(key) === token
    const put = (below: readonly CacheEntry[]): MaybePromise<unknown> => {
      const head = below.find((entry) => entry.id === id)
      if (head === undefined) return undefined
      return settled<readonly CacheEntry[], unknown>(
        () => this.#upper.find(key),
        // What is above is never older.
        (above) => (stillOn() && !above.some((entry) => isSameVariant(entry, head)) ? this.#upper.put(head, bytes) : undefined),
        ignore,
      )
    }
    const done = settled<readonly CacheEntry[], unknown>(() => this.#lower.find(key), put, ignore)
    if (done instanceof Promise) done.then(over, over)
    else over()
  }
}

function ignore(): void {}
