/**
 * What is on the disk, in memory: heads by key, tags, and the order in which resources go. Everything here is synchronous and takes a few
 * steps per entry.
 *
 * The order has two parts. What was used since the start is exact: a map in the order of use. What was found at the start comes from the
 * file system in the order of hashes, and sorting a million times of use would hold up the process; so of the next few the one that was not
 * used for longest goes, which comes near to it, as in Redis. Those go before any that were used.
 */
import { footprint, type Slot } from './disk-format.ts'

/** One file. */
export interface Held {
  readonly id: string
  /** Below the store's directory. */
  readonly path: string
  /** What `decodeHead` takes. */
  readonly head: string
  readonly storedAt: number
  /** Bytes of body. */
  readonly size: number
  readonly tags: readonly string[]
  readonly slot: Slot
  /** When its use was last noted in the file, ms since the epoch. */
  notedAt: number
}

// The object, its slot, path and id, its part of the maps; measured with 100,000 entries of typical heads.
const perVariant = 620
const perTag = 100

/** Bytes of memory that it takes in the index, as near as can be told. */
export function weightInMemory(held: Held): number {
  return perVariant + held.head.length + held.tags.length * perTag
}

export function sizeOnDisk(held: Held): number {
  return footprint(held.slot.size, held.size)
}

const candidates = 16
const none: readonly Held[] = []

export class DiskIndex {
  entries = 0
  /** On disk. */
  bytes = 0
  /** In memory. */
  memory = 0
  readonly #used = new Map<string, readonly Held[]>()
  readonly #found = new Map<string, readonly Held[]>()
  readonly #tags = new Map<string, Set<string>>()
  #walk: Iterator<string> = this.#found.keys()

  /** Counts as a use. */
  find(key: string): readonly Held[] {
    const used = this.#used.get(key)
    const variants = used ?? this.#found.get(key)
    if (variants === undefined) return none
    if (used === undefined) this.#found.delete(key)
    else this.#used.delete(key)
    this.#used.set(key, variants)
    return variants
  }

  peek(key: string): readonly Held[] {
    return this.#used.get(key) ?? this.#found.get(key) ?? none
  }

  byId(key: string, id: string): Held | undefined {
    for (const held of this.peek(key)) if (held.id === id) return held
    return undefined
  }

  keysOf(tag: string): Iterable<string> {
    return this.#tags.get(tag) ?? []
  }

  keys(): string[] {
    return [...this.#used.keys(), ...this.#found.keys()]
  }

  /** All variants of a key, the newest first. A new key is the one used last; any other stays where it is in the order. */
  set(key: string, variants: readonly Held[]): void {
    this.#count(key, this.peek(key), -1)
    const map = this.#found.has(key) ? this.#found : this.#used
    if (variants.length === 0) map.delete(key)
    else map.set(key, variants)
    this.#count(key, variants, 1)
  }

  /** From an earlier life. */
  add(key: string, held: Held): void {
    const map = this.#used.has(key) ? this.#used : this.#found
    const before = map.get(key) ?? none
    map.set(key, before.length === 0 ? [held] : [held, ...before].sort((a, b) => b.storedAt - a.storedAt))
    this.#count(key, [held], 1)
  }

  /** The resource whose turn it is to go. @param not those that something is being done with */
  victim(not: (key: string) => boolean): string | undefined {
    let oldest: string | undefined
    let since = Number.POSITIVE_INFINITY
    for (let i = Math.min(candidates, this.#found.size); i > 0; i--) {
      const key = this.#nextFound()
      const at = Math.max(...this.peek(key).map(({ notedAt }) => notedAt))
      if (at >= since || not(key)) continue
      oldest = key
      since = at
    }
    if (oldest !== undefined) return oldest
    for (const key of this.#used.keys()) if (!not(key)) return key
    return undefined
  }

  /** Round and round. */
  #nextFound(): string {
    let next = this.#walk.next()
    if (next.done === true) {
      this.#walk = this.#found.keys()
      next = this.#walk.next()
    }
    return next.value as string
  }

  #count(key: string, variants: readonly Held[], sign: 1 | -1): void {
    this.entries += sign * variants.length
    for (const held of variants) {
      this.bytes += sign * sizeOnDisk(held)
      this.memory += sign * weightInMemory(held)
      for (const tag of held.tags) {
        const keys = this.#tags.get(tag)
        if (sign > 0) {
          if (keys === undefined) this.#tags.set(tag, new Set([key]))
          else keys.add(key)
        } else if (keys?.delete(key) === true && keys.size === 0) this.#tags.delete(tag)
      }
    }
  }
}
