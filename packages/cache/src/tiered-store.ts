/**
 * Two stores as one: a small fast one above a large slow one. What is changed is changed in both; what is read comes from above when all of
 * it is there, and what had to come from below is kept above as well, when it is small. The lower one may fail without the upper one's
 * entries being lost.
 *
 * Two things need care. The upper store may have some variants of a key and not others, and who asks for one of the others must not be told
 * that there is none: so it is remembered how many there are below, and only as many above are an answer. And a body that is on its way up
 * may be invalidated meanwhile: so it is not kept when its key, or everything, was changed while it was being read.
 */
import type { Readable } from 'node:stream'
import { type MaybePromise, OptionReader, type Size } from '@weir/core'
import { LRUCache } from 'lru-cache'
import type { CacheEntry } from './entry.ts'
import { Promotions } from './promotions.ts'
import type { CacheStore, CacheStoreStats, HotBody, Invalidation } from './store.ts'
import { both, settled } from './store-pair.ts'

export interface TieredStoreOptions {
  /**
   * Asked first: `memoryStore`. Nobody else may change what is in it. Of the variants of a key it may keep some that the lower one let go of.
   */
  readonly upper: CacheStore
  /** Asked for the rest: `diskStore`. What others change in it is seen when the upper store has let go of it. Close it yourself. */
  readonly lower: CacheStore
  /** Bodies up to so many bytes are kept above when they were read from below; larger ones only when they are new. Default 64 KiB. */
  readonly promoteUpTo?: Size
  /** A failure of the lower store that the upper one made good. Must not throw. */
  readonly onError?: (error: unknown) => void
}

/** @throws OptionsError */
export function tieredStore(options: TieredStoreOptions): CacheStore {
  const read = new OptionReader('tieredStore')
  const given = read.object<TieredStoreOptions>(options, ['upper', 'lower', 'promoteUpTo', 'onError'])
  for (const name of ['upper', 'lower'] as const)
    if (typeof given[name]?.find !== 'function' || typeof given[name].put !== 'function')
      read.problem(name, given[name], 'a cache store, as memoryStore and diskStore make')
  if (given.upper !== undefined && given.upper === given.lower) read.problem('lower', given.lower?.name, 'another store than upper')
  const promoteUpTo = read.size('promoteUpTo', given.promoteUpTo, 65_536)
  const onError = read.optionalFunction('onError', given.onError)
  read.check()
  return new TieredStore(given.upper as CacheStore, given.lower as CacheStore, promoteUpTo, onError)
}

/** Keys of which is remembered how much there is below; the others are asked for. */
const remembered = 65_536

class TieredStore implements CacheStore {
  readonly name: string
  readonly #upper: CacheStore
  readonly #lower: CacheStore
  readonly #forgive: (error: unknown) => void
  readonly #promotions: Promotions
  /** How many variants there are below, where that is known. */
  readonly #below = new LRUCache<string, number>({ max: remembered })
  /** So many there were. */
  #changes = 0

  constructor(upper: CacheStore, lower: CacheStore, promoteUpTo: number, onError: ((error: unknown) => void) | undefined) {
    this.name = `${upper.name}+${lower.name}`
    this.#upper = upper
    this.#lower = lower
    this.#forgive = (error) => onError?.(error)
    this.#promotions = new Promotions(upper, lower, promoteUpTo)
  }

  async start(): Promise<void> {
    await Promise.all([this.#upper.start?.(), this.#lower.start?.()])
  }

  find(key: string): MaybePromise<readonly CacheEntry[]> {
    const above = this.#upper.find(key)
    return above instanceof Promise ? above.then((entries) => this.#complete(key, entries)) : this.#complete(key, above)
  }

  #complete(key: string, above: readonly CacheEntry[]): MaybePromise<readonly CacheEntry[]> {
    if (above.length > 0 && above.length >= (this.#below.get(key) ?? Number.POSITIVE_INFINITY)) return newestFirst(above)
    const failed = (error: unknown): readonly CacheEntry[] => {
      if (above.length === 0) throw error
      this.#forgive(error)
      return newestFirst(above)
    }
    const version = this.#changes
    return settled<readonly CacheEntry[], readonly CacheEntry[]>(
      () => this.#lower.find(key),
      (below) => {
        // While it is being changed, and when it was, the number may be that of before.
        if (version === this.#changes && !this.#promotions.isChanging(key)) this.#below.set(key, below.length)
        return above.length === 0 ? below : merged(above, below)
      },
      failed,
    )
  }

  body(entry: CacheEntry, start: number, end: number): MaybePromise<Uint8Array | Readable | undefined> {
    const above = this.#upper.body(entry, start, end)
    const fromBelow = (): MaybePromise<Uint8Array | Readable | undefined> =>
      this.#promotions.reading(entry, start, end, () => this.#lower.body(entry, start, end))
    if (above instanceof Promise) return above.then((bytes) => bytes ?? fromBelow())
    return above ?? fromBelow()
  }

  hot(entry: CacheEntry): HotBody | undefined {
    return this.#upper.hot?.(entry)
  }

  put(entry: CacheEntry, body: Uint8Array): MaybePromise<boolean> {
    const known = this.#below.get(entry.key)
    this.#changed(entry.key)
    return this.#promotions.changing(entry.key, (wasAlone) =>
      both(
        () => this.#upper.put(entry, body),
        () => this.#lower.put(entry, body),
        (above, below) => {
          // What a miss stores: nothing was there, and now this one is.
          if (known === 0 && wasAlone()) this.#below.set(entry.key, below ? 1 : 0)
          return above || below
        },
        this.#forgive,
      ),
    )
  }

  update(entry: CacheEntry): MaybePromise<boolean> {
    this.#changed(entry.key)
    return this.#promotions.changing(entry.key, () =>
      both(
        () => this.#upper.update(entry),
        () => this.#lower.update(entry),
        (above, below) => above || below,
        this.#forgive,
      ),
    )
  }

  remove(entry: CacheEntry): MaybePromise<boolean> {
    this.#changed(entry.key)
    return this.#promotions.changing(entry.key, () =>
      both(
        () => this.#upper.remove(entry),
        () => this.#lower.remove(entry),
        (above, below) => above || below,
      ),
    )
  }

  invalidate(key: string, how: Invalidation): MaybePromise<number> {
    this.#changed(key)
    return this.#promotions.changing(key, () =>
      both(
        () => this.#upper.invalidate(key, how),
        () => this.#lower.invalidate(key, how),
        Math.max,
      ),
    )
  }

  invalidateTag(tag: string, how: Invalidation): MaybePromise<number> {
    this.#changed(undefined)
    return this.#promotions.changing(undefined, () =>
      both(
        () => this.#upper.invalidateTag(tag, how),
        () => this.#lower.invalidateTag(tag, how),
        Math.max,
      ),
    )
  }

  async *entries(): AsyncIterable<CacheEntry> {
    const above = new Set<string>()
    for await (const entry of this.#upper.entries()) {
      above.add(entry.id)
      yield entry
    }
    for await (const entry of this.#lower.entries()) if (!above.has(entry.id)) yield entry
  }

  clear(): MaybePromise<void> {
    this.#changed(undefined)
    return this.#promotions.changing(undefined, () =>
      both(
        () => this.#upper.clear(),
        () => this.#lower.clear(),
        () => undefined,
      ),
    )
  }

  #changed(key: string | undefined): void {
    this.#changes++
    if (key === undefined) this.#below.clear()
    else this.#below.delete(key)
  }

  /** Entries: of the larger store, since what is above is mostly below as well. Bytes: of both. */
  stats(): CacheStoreStats {
    const above = this.#upper.stats()
    const below = this.#lower.stats()
    return { entries: Math.max(above.entries, below.entries), bytes: above.bytes + below.bytes }
  }
}

/** What is above is as it is now. In which order things were stored is known below, also of those of one millisecond; what is not there yet came last. */
function merged(above: readonly CacheEntry[], below: readonly CacheEntry[]): readonly CacheEntry[] {
  const known = new Set(below.map(({ id }) => id))
  const current = new Map(above.map((entry) => [entry.id, entry]))
  return newestFirst([...above.filter(({ id }) => !known.has(id)), ...below.map((entry) => current.get(entry.id) ?? entry)])
}

/** What was promoted came late, and is older than it looks. */
function newestFirst(entries: readonly CacheEntry[]): readonly CacheEntry[] {
  for (let i = 1; i < entries.length; i++)
    if ((entries[i] as CacheEntry).storedAt > (entries[i - 1] as CacheEntry).storedAt)
      return [...entries].sort((a, b) => b.storedAt - a.storedAt)
  return entries
}
