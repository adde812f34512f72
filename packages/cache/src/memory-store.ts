/**
 * Entries in this process, bounded by bytes. The unit of eviction is a resource, all variants of a key: lru-cache orders the resources, weighs them, and throws
 * out the one that was not used for longest. A body is one Buffer of exactly its size, so that what is weighed is what is held. A part is for the texts of short
 * bodies that are asked for often (hot-texts.ts).
 */
import { OptionReader, type Size } from '@weir/core'
import { LRUCache } from 'lru-cache'
import { type CacheEntry, staled, weightOf } from './entry.ts'
import { FrequencySketch } from './frequency.ts'
import { HotText, HotTexts } from './hot-texts.ts'
import { type CacheStore, type CacheStoreStats, type HotBody, type Invalidation, isSameVariant } from './store.ts'

export interface MemoryStoreOptions {
  /** Bytes of everything that is kept, overhead included. Required: nothing in Weir grows without a bound. */
  readonly maxSize: Size
  /** Variants of one key; the oldest goes for the next one. Default 32. */
  readonly maxVariants?: number
  /**
   * Who is let in when the store is full. `all` (default): everything new, for the resource that was not used for longest. `frequency`: only what was asked for
   * more often lately than that one (TinyLFU), which keeps a scan from emptying the cache.
   */
  readonly admission?: 'all' | 'frequency'
}

/** An entry with its body: what `find` gives is good for `body`, whatever was evicted in between. */
type Held = CacheEntry & { readonly body: Uint8Array; readonly hot: HotText }

function hold(entry: CacheEntry, body: Uint8Array): Held {
  return { ...entry, body, hot: new HotText() }
}

class Resource {
  readonly variants: Held[]
  constructor(variants: Held[]) {
    this.variants = variants
  }
}

const nothing: readonly CacheEntry[] = []

/** A store smaller than this needs all of it for what it stores; no more than the other goes into texts, which lie in the engine's own heap. */
const leastForTexts = 1 << 20
const mostForTexts = 16 << 20

/** @throws OptionsError */
export function memoryStore(options: MemoryStoreOptions): CacheStore {
  const read = new OptionReader('memoryStore')
  const given = read.object<MemoryStoreOptions>(options, ['maxSize', 'maxVariants', 'admission'])
  if (given.maxSize === undefined) read.problem('maxSize', undefined, "a size: a number of bytes, or a string like '64KiB', '256MiB'")
  const maxSize = Math.floor(read.size('maxSize', given.maxSize, 1 << 20, { min: 4096 }))
  const maxVariants = read.number('maxVariants', given.maxVariants, 32, { min: 1, max: 10_000, integer: true })
  const admission = read.oneOf('admission', given.admission, ['all', 'frequency'], 'all')
  read.check()
  return new MemoryStore(maxSize, maxVariants, admission === 'frequency')
}

class MemoryStore implements CacheStore {
  readonly name: string = 'memory'
  readonly #maxSize: number
  readonly #maxVariants: number
  readonly #resources: LRUCache<string, Resource>
  readonly #tags = new Map<string, Set<string>>()
  readonly #sketch: FrequencySketch | undefined
  readonly #texts: HotTexts
  #entries = 0

  constructor(total: number, maxVariants: number, byFrequency: boolean) {
    const forTexts = total < leastForTexts ? 0 : Math.min(mostForTexts, Math.floor(total / 32))
    const maxSize = total - forTexts
    this.#texts = new HotTexts(forTexts)
    this.#maxSize = maxSize
    this.#maxVariants = maxVariants
    this.#resources = new LRUCache({
      maxSize,
      // Without it one entry alone could be larger than the whole, and would empty the cache.
      maxEntrySize: maxSize,
      dispose: (resource, key) => this.#forget(key, resource),
      noDisposeOnSet: true,
    })
    // About how many entries there will be: of 4 KiB on average.
    this.#sketch = byFrequency ? new FrequencySketch(maxSize / 4096) : undefined
  }

  find(key: string): readonly CacheEntry[] {
    this.#sketch?.count(key)
    return this.#resources.get(key)?.variants ?? nothing
  }

  body(entry: CacheEntry, start: number, end: number): Uint8Array | undefined {
    // What `find` gave has it; what was made of that, a freshened head, is looked up.
    const body = (entry as Partial<Held>).body ?? this.#resources.peek(entry.key)?.variants.find(({ id }) => id === entry.id)?.body
    if (body === undefined) return undefined
    return start === 0 && end === body.length ? body : body.subarray(start, end)
  }

  hot(entry: CacheEntry): HotBody | undefined {
    const { hot, body } = entry as Partial<Held>
    return hot === undefined || body === undefined ? undefined : this.#texts.of(hot, body, entry.fields.length)
  }

  put(entry: CacheEntry, body: Uint8Array): boolean {
    const held = hold(entry, body)
    const present = this.#resources.peek(entry.key)?.variants ?? []
    const others = present.filter((other) => !isSameVariant(other, entry)).slice(0, this.#maxVariants - 1)
    const variants = [held, ...others]
    const size = weigh(variants)
    if (size > this.#maxSize || (present.length === 0 && !this.#admits(entry.key, size))) {
      this.#set(entry.key, others)
      return false
    }
    this.#set(entry.key, variants)
    return true
  }

  update(entry: CacheEntry): boolean {
    const present = this.#resources.peek(entry.key)?.variants
    const index = present?.findIndex(({ id }) => id === entry.id) ?? -1
    if (present === undefined || index < 0) return false
    const held = hold(entry, (present[index] as Held).body)
    this.#set(entry.key, [held, ...present.filter((other, at) => at !== index && !isSameVariant(other, entry))])
    return true
  }

  remove(entry: CacheEntry): boolean {
    const present = this.#resources.peek(entry.key)?.variants
    if (present === undefined) return false
    const others = present.filter(({ id }) => id !== entry.id)
    // Before `#set`, which empties the list of a resource that goes.
    const found = others.length < present.length
    this.#set(entry.key, others)
    return found
  }

  invalidate(key: string, how: Invalidation): number {
    return this.#each(key, () => true, how)
  }

  invalidateTag(tag: string, how: Invalidation): number {
    let count = 0
    for (const key of [...(this.#tags.get(tag) ?? [])]) count += this.#each(key, ({ tags }) => tags.includes(tag), how)
    return count
  }

  *entries(): Iterable<CacheEntry> {
    for (const { variants } of [...this.#resources.values()]) yield* variants
  }

  clear(): void {
    this.#resources.clear()
    this.#tags.clear()
    this.#entries = 0
  }

  stats(): CacheStoreStats {
    return { entries: this.#entries, bytes: this.#resources.calculatedSize + this.#texts.bytes }
  }

  #each(key: string, concerns: (entry: CacheEntry) => boolean, how: Invalidation): number {
    const present = this.#resources.peek(key)?.variants
    if (present === undefined) return 0
    const count = present.filter(concerns).length
    if (count === 0) return 0
    this.#set(
      key,
      how.kind === 'delete'
        ? present.filter((entry) => !concerns(entry))
        : present.map((entry) => (concerns(entry) ? hold(staled(entry, how.now), entry.body) : entry)),
    )
    return count
  }

  /** Is it worth the place of the one that would have to go for it? */
  #admits(key: string, size: number): boolean {
    if (this.#sketch === undefined || this.#resources.calculatedSize + size <= this.#maxSize) return true
    for (const victim of this.#resources.rkeys()) return this.#sketch.estimate(key) > this.#sketch.estimate(victim)
    return true
  }

  #set(key: string, variants: Held[]): void {
    const present = this.#resources.peek(key)
    if (present !== undefined) this.#forget(key, present)
    if (variants.length === 0) {
      if (present !== undefined) {
        present.variants.length = 0
        this.#resources.delete(key)
      }
      return
    }
    this.#entries += variants.length
    for (const { tags } of variants)
      for (const tag of tags) {
        const keys = this.#tags.get(tag)
        if (keys === undefined) this.#tags.set(tag, new Set([key]))
        else keys.add(key)
      }
    this.#resources.set(key, new Resource(variants), { size: weigh(variants) })
  }

  #forget(key: string, resource: Resource): void {
    this.#entries -= resource.variants.length
    for (const { tags, hot } of resource.variants) {
      this.#texts.drop(hot)
      for (const tag of tags) {
        const keys = this.#tags.get(tag)
        keys?.delete(key)
        if (keys?.size === 0) this.#tags.delete(tag)
      }
    }
  }
}

function weigh(variants: readonly CacheEntry[]): number {
  let size = 0
  for (const entry of variants) size += weightOf(entry)
  return size
}
