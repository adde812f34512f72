/**
 * The iterator that every source gives out: a mailbox for one list. A reader that is slow finds the newest list and none of those in between,
 * because each list is whole and replaces the one before. So nothing piles up, however fast a source is.
 *
 * Nothing is opened before the first `next()`, and `return()` closes at once also while a `next()` is waiting: an `async function*` could not do
 * that, since its `return()` queues behind the pending `next()`.
 */
import type { UpstreamOptions } from '@weir/core'

/** Whole lists of upstreams. Each iterator looks on its own; any number of pools may use one source. */
export type DiscoverySource = AsyncIterable<readonly UpstreamOptions[]>

export type UpstreamList = readonly UpstreamOptions[]

/** Where whoever looks for upstreams puts what it finds. After `fail`, and after the iterator was closed, nothing has any effect. */
export interface Outlet {
  readonly closed: boolean
  put(list: UpstreamList): void
  /** Ends the iteration: the next `next()` throws. */
  fail(error: unknown): void
  /** There will be no other list; what is unread can still be read. */
  end(): void
}

/** Begins to look; puts nothing before it has returned. Returns what stops it. */
export type Open = (outlet: Outlet) => () => void

type Result = IteratorResult<UpstreamList, undefined>

interface Waiter {
  readonly resolve: (result: Result) => void
  readonly reject: (error: unknown) => void
}

type State =
  | { readonly phase: 'new' }
  | { readonly phase: 'waiting'; readonly stop: () => void; readonly waiters: Waiter[] }
  | { readonly phase: 'full'; readonly stop: () => void; readonly list: UpstreamList }
  | { readonly phase: 'ending'; readonly list: UpstreamList }
  | { readonly phase: 'failed'; readonly error: unknown }
  | { readonly phase: 'closed' }

export function sourceOf(open: Open): DiscoverySource {
  return { [Symbol.asyncIterator]: () => new ListIterator(open) }
}

const done: Result = { done: true, value: undefined }

class ListIterator implements AsyncIterator<UpstreamList, undefined, undefined>, Outlet {
  readonly #open: Open
  #state: State = { phase: 'new' }

  constructor(open: Open) {
    this.#open = open
  }

  get closed(): boolean {
    const { phase } = this.#state
    return phase === 'closed' || phase === 'failed' || phase === 'ending'
  }

  next(): Promise<Result> {
    const state = this.#state
    switch (state.phase) {
      case 'new':
        try {
          this.#state = { phase: 'waiting', stop: this.#open(this), waiters: [] }
        } catch (error) {
          this.#state = { phase: 'failed', error }
        }
        return this.next()
      case 'waiting':
        return new Promise((resolve, reject) => void state.waiters.push({ resolve, reject }))
      case 'full':
        this.#state = { phase: 'waiting', stop: state.stop, waiters: [] }
        return Promise.resolve({ done: false, value: state.list })
      case 'ending':
        this.#state = { phase: 'closed' }
        return Promise.resolve({ done: false, value: state.list })
      case 'failed':
        this.#state = { phase: 'closed' }
        return Promise.reject(state.error)
      case 'closed':
        return Promise.resolve(done)
    }
  }

  return(): Promise<Result> {
    this.#close({ phase: 'closed' })
    return Promise.resolve(done)
  }

  end(): void {
    const state = this.#state
    if (!this.closed) this.#close(state.phase === 'full' ? { phase: 'ending', list: state.list } : { phase: 'closed' })
  }

  #close(to: State): void {
    for (const { resolve } of this.#leave(to)) resolve(done)
  }

  put(list: UpstreamList): void {
    const state = this.#state
    if (state.phase === 'full') this.#state = { ...state, list }
    if (state.phase !== 'waiting') return
    const waiter = state.waiters.shift()
    if (waiter === undefined) this.#state = { phase: 'full', stop: state.stop, list }
    else waiter.resolve({ done: false, value: list })
  }

  fail(error: unknown): void {
    if (this.closed) return
    const [first, ...others] = this.#leave({ phase: 'failed', error })
    if (first === undefined) return
    this.#state = { phase: 'closed' }
    first.reject(error)
    for (const { resolve } of others) resolve(done)
  }

  /** Goes to its last state, and stops looking. */
  #leave(to: State): readonly Waiter[] {
    const from = this.#state
    this.#state = to
    if (from.phase === 'waiting' || from.phase === 'full') from.stop()
    return from.phase === 'waiting' ? from.waiters : []
  }
}
