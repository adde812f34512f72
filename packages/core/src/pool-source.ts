/**
 * Upstreams that come from somewhere else: DNS, a file, a registry. A source is any `AsyncIterable` of whole lists; each list replaces the one
 * before it. What counts is that nothing a source does can hurt what runs: a list with a mistake in it is reported and the last good one
 * stays, and a source that breaks is opened again after a pause that grows.
 */
import type { Clock } from './clock.ts'
import { poolSource } from './events.ts'
import type { UpstreamInput } from './upstream.ts'

/** Lists of upstreams, each whole. An `async function*` is one, though it cannot be opened again once it has thrown. */
export type UpstreamSource = AsyncIterable<readonly UpstreamInput[]>

export interface AppliedList {
  readonly added: readonly string[]
  readonly removed: readonly string[]
  readonly changed: readonly string[]
}

const firstPause = 1000
const longestPause = 30_000
/** A source that says nothing at all must not keep the first requests waiting for ever. */
const longestStart = 10_000

export function isSource(value: unknown): value is UpstreamSource {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}

export class SourceReader {
  readonly #pool: string
  readonly #source: UpstreamSource
  readonly #clock: Clock
  readonly #apply: (list: readonly UpstreamInput[]) => AppliedList
  readonly #first = Promise.withResolvers<void>()
  #iterator: AsyncIterator<readonly UpstreamInput[]> | undefined
  #pause: unknown
  #pauseMs = firstPause
  #begun = false
  #closed = false

  /** @param apply throws when the list is wrong, and has changed nothing then */
  constructor(pool: string, source: UpstreamSource, clock: Clock, apply: (list: readonly UpstreamInput[]) => AppliedList) {
    this.#pool = pool
    this.#source = source
    this.#clock = clock
    this.#apply = apply
  }

  /** Resolves with the first list, or with the first failure: requests are then answered 503 and not kept waiting. Idempotent. */
  start(): Promise<void> {
    if (this.#begun) return this.#first.promise
    this.#begun = true
    const limit = this.#clock.setTimeout(() => this.#first.resolve(), longestStart)
    void this.#read()
    return this.#first.promise.finally(() => this.#clock.clearTimeout(limit))
  }

  /** Ends the iteration. Does not wait for a source that does not answer. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#clock.clearTimeout(this.#pause)
    this.#first.resolve()
    void this.#leave()
  }

  /** What the source does at its end is its own affair. */
  async #leave(): Promise<void> {
    try {
      await this.#iterator?.return?.()
    } catch {}
  }

  async #read(): Promise<void> {
    try {
      const iterator = this.#source[Symbol.asyncIterator]()
      this.#iterator = iterator
      for (;;) {
        const { done, value } = await iterator.next()
        if (this.#closed || done === true) break
        this.#take(value)
      }
      // The last list stands.
      this.#first.resolve()
    } catch (error) {
      if (this.#closed) return
      this.#report(nothing, error)
      this.#pause = this.#clock.setTimeout(() => void this.#read(), this.#pauseMs)
      this.#pauseMs = Math.min(this.#pauseMs * 2, longestPause)
    }
  }

  #take(list: readonly UpstreamInput[]): void {
    try {
      const applied = this.#apply(list)
      this.#pauseMs = firstPause
      this.#report(applied, undefined)
    } catch (error) {
      this.#report(nothing, error)
    }
  }

  #report(applied: AppliedList, error: unknown): void {
    this.#first.resolve()
    if (poolSource.hasSubscribers) poolSource.publish({ pool: this.#pool, ...applied, error })
  }
}

const nothing: AppliedList = { added: [], removed: [], changed: [] }
