/**
 * The port of everything that remembers which upstream a session has. Two operations have to be atomic, and are therefore the store's: a look-up
 * that also counts as use, and a write that yields to what is there. A method may return its value or a promise; a store in memory never makes
 * one, so that it costs what a map costs.
 */
import type { MaybePromise } from '@weir/core'

export interface SessionWrite {
  /** Ends so long after the last `get` or `set`, milliseconds. `Infinity`: never for want of use. */
  readonly idleMs: number
  /** Ends then, whatever happens; milliseconds of the epoch. */
  readonly absolute: number
  /**
   * The upstream that this write may replace. Undefined: none, the first write wins. So of two proxies that begin, or move, one session at once
   * exactly one has its way, and both learn which.
   */
  readonly replaces: string | undefined
}

export interface SessionStore {
  /** The upstream id, or undefined. Counts as use: the idle time begins anew, never beyond `absolute`. */
  get(key: string): MaybePromise<string | undefined>
  /**
   * Writes if nothing is stored, or `replaces` is, or the same id already; returns what is stored afterwards: the winner. A session that keeps
   * its upstream keeps its `absolute`, and one that is written after its `absolute` is not stored.
   */
  set(key: string, upstreamId: string, write: SessionWrite): MaybePromise<string>
  delete(key: string): MaybePromise<void>
  /** Whoever made the store closes it; the stages here never do. */
  close?(): MaybePromise<void>
}
