/**
 * The iterator that all sources share. Three things make it worth writing by hand: an `async function*` cannot be ended while a `next()` is
 * pending, which is where a source spends its life; lists are whole, so of several that nobody has read yet only the newest counts; and a
 * list that says what the reader knows already is not worth waking a pool for.
 */
import { isDeepStrictEqual } from 'node:util'
import type { UpstreamInput, UpstreamSource } from '@weir/core'
import { tell } from './events.ts'

export type List = readonly UpstreamInput[]

/** Where a source puts what it finds. After the reader has left, all of it does nothing. */
export interface Feed {
  put(list: List): void
  /** Nothing could be found. Says so with an empty list when there was none before, so that requests are refused and do not wait. */
  missing(): void
  /** There will be no other list; the last one stands. */
  end(): void
}

/** @param open starts to work for one reader and returns what stops it. Called at the first `next()`, once per iterator. */
export function listSource(name: string, open: (feed: Feed) => () => void): UpstreamSource {
  return { [Symbol.asyncIterator]: () => new ListIterator(name, open) }
}

type State = 'new' | 'open' | 'ending' | 'ended'
type Waiter = (result: IteratorResult<List, undefined>) => void

class ListIterator implements AsyncIterator<List, undefined>, Feed {
  readonly #name: string
  readonly #open: (feed: Feed) => () => void
  #state: State = 'new'
  #stop: (() => void) | undefined
  /** What was given out last. */
  #given: List | undefined
  /** What nobody has read yet. */
  #unread: List | undefined
  readonly #waiting: Waiter[] = []

  constructor(name: string, open: (feed: Feed) => () => void) {
    this.#name = name
    this.#open = open
  }

  next(): Promise<IteratorResult<List, undefined>> {
    return new Promise((resolve, reject) => {
      this.#waiting.push(resolve)
      try {
        this.#begin()
      } catch (error) {
        this.#finish()
        reject(error)
      }
      this.#serve()
    })
  }

  return(): Promise<IteratorResult<List, undefined>> {
    this.#finish()
    return Promise.resolve({ done: true, value: undefined })
  }

  put(list: List): void {
    if (this.#state !== 'open') return
    if (isDeepStrictEqual(list, this.#unread ?? this.#given)) return
    tell({ type: 'list', source: this.#name, upstreams: list })
    // Back to what the reader has, before it heard of the change.
    this.#unread = isDeepStrictEqual(list, this.#given) ? undefined : list
    this.#serve()
  }

  missing(): void {
    if (this.#given === undefined && this.#unread === undefined) this.put([])
  }

  end(): void {
    if (this.#state !== 'open') return
    this.#state = 'ending'
    this.#serve()
  }

  #begin(): void {
    if (this.#state !== 'new') return
    this.#state = 'open'
    const stop = this.#open(this)
    // A source may be left, or be at its end, before it has opened.
    if ((this.#state as State) === 'ended') stop()
    else this.#stop = stop
  }

  #serve(): void {
    if (this.#unread !== undefined && this.#waiting.length > 0) {
      this.#given = this.#unread
      this.#unread = undefined
      this.#waiting.shift()?.({ done: false, value: this.#given })
    }
    if (this.#state === 'ending' && this.#unread === undefined) this.#finish()
    if (this.#state === 'ended') for (const waiter of this.#waiting.splice(0)) waiter({ done: true, value: undefined })
  }

  #finish(): void {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    this.#unread = undefined
    const stop = this.#stop
    this.#stop = undefined
    stop?.()
    this.#serve()
  }
}
