/**
 * Where entries live: the port that memory, disk and Redis implement. A method returns a value or a promise, so that memory never pays for the others; what
 * it throws or rejects with the cache takes for "not there" (a lookup) or "not done" (a change), and counts.
 */
import type { Readable } from 'node:stream'
import type { MaybePromise } from '@weir/core'
import type { SentAnswer } from './answer.ts'
import type { CacheEntry } from './entry.ts'

export interface CacheStoreStats {
  readonly entries: number
  /** Of bodies and what is kept with them. */
  readonly bytes: number
}

/** What becomes of entries that are invalidated: they go, or they become stale as of `now` (ms since the epoch) and can still be revalidated. */
export type Invalidation = { readonly kind: 'delete' } | { readonly kind: 'stale'; readonly now: number }

/** A body that is asked for often, as it is sent. */
export interface HotBody {
  /** All of it, a character for an octet (latin1). */
  readonly text: string
  /** The last answer that was made of it. The cache's own: a store leaves it alone, and lets go of it with the text. */
  sent: SentAnswer | undefined
}

export interface CacheStore {
  /** For people: events, statistics. */
  readonly name: string
  /** The variants that are stored under a key, the newest first; empty when there are none. Not a copy: it is not written to. */
  find(key: string): MaybePromise<readonly CacheEntry[]>
  /** The bytes of an entry that `find` gave, from `start` up to `end` (exclusive); undefined when it has gone since. */
  body(entry: CacheEntry, start: number, end: number): MaybePromise<Uint8Array | Readable | undefined>
  /** Of an entry that `find` gave, where it is at hand: a short answer is quicker sent so. */
  hot?(entry: CacheEntry): HotBody | undefined
  /**
   * Keeps an entry, in place of the variant of the same route and selecting fields. The body is the store's from here on. False when it was
   * not kept: too large for it, or not worth what it would push out; then, and when it fails, the variant that it was to replace is gone,
   * too. Of one process the cache itself sees to it that nothing is kept that was asked for before an invalidation; a store that several
   * share has to see to it for the others (`requestedAt`).
   */
  put(entry: CacheEntry, body: Uint8Array): MaybePromise<boolean>
  /** Another head for a body that is there (same `id`); false when it has gone. */
  update(entry: CacheEntry): MaybePromise<boolean>
  /** One variant. False when it was not there. */
  remove(entry: CacheEntry): MaybePromise<boolean>
  /** Every variant under a key; how many there were. */
  invalidate(key: string, how: Invalidation): MaybePromise<number>
  /** Every entry with this tag; how many there were. */
  invalidateTag(tag: string, how: Invalidation): MaybePromise<number>
  /** Everything, in no order. What is stored or removed meanwhile may or may not be seen. */
  entries(): Iterable<CacheEntry> | AsyncIterable<CacheEntry>
  clear(): MaybePromise<void>
  stats(): CacheStoreStats
  /** Called by the cache before its first request, perhaps several times. */
  start?(): MaybePromise<void>
}

/** Whether `a` takes the place of `b` under their key. */
export function isSameVariant(a: CacheEntry, b: CacheEntry): boolean {
  if (a.route !== b.route || a.vary.length !== b.vary.length) return false
  for (let i = 0; i < a.vary.length; i++) if (a.vary[i] !== b.vary[i]) return false
  return true
}
