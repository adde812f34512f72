/**
 * The keys of one limit in memory. What is remembered of a key are four numbers; as an object they would cost about 130 bytes and a walk for the
 * garbage collector each, so they lie in one column of numbers, four by four, and the LRU only maps a key to its place.
 *
 * Bounded twice: by the number of keys, and because no key is longer than 64 characters. Who comes when it is full takes the place of whoever was
 * longest not seen; if that one's limit was still running, it is counted as an eviction.
 */
import type { Clock } from '@weir/core'
import { LRUCache } from 'lru-cache'
import type { LimitState, LimitStep } from './limit.ts'

const width = 4

export class MemoryTable {
  evictions = 0
  readonly #places: LRUCache<string, number>
  readonly #maxEntries: number
  readonly #clock: Clock
  #numbers: Float64Array
  /** The place of whoever was evicted last: the next one gets it. */
  #free = -1

  constructor(maxEntries: number, clock: Clock) {
    this.#maxEntries = maxEntries
    this.#clock = clock
    this.#numbers = new Float64Array(Math.min(maxEntries, 1024) * width)
    this.#places = new LRUCache({ max: maxEntries, dispose: (place) => this.#forgotten(place) })
  }

  get size(): number {
    return this.#places.size
  }

  /** Reads what is remembered into `state` and returns its place, -1 for a key never seen. */
  read(key: string, now: number, state: LimitState): number {
    const place = this.#places.get(key)
    const at = (place ?? 0) * width
    const numbers = this.#numbers
    if (place === undefined || (numbers[at + 3] as number) <= now) {
      state.a = 0
      state.b = 0
      state.c = 0
      return place ?? -1
    }
    state.a = numbers[at] as number
    state.b = numbers[at + 1] as number
    state.c = numbers[at + 2] as number
    return place
  }

  /** @param place what `read` returned, with no other call in between */
  write(key: string, place: number, step: LimitStep): void {
    const at = (place < 0 ? this.#place(key) : place) * width
    const numbers = this.#numbers
    numbers[at] = step.a
    numbers[at + 1] = step.b
    numbers[at + 2] = step.c
    numbers[at + 3] = step.expiresAt
  }

  #place(key: string): number {
    const full = this.#places.size === this.#maxEntries
    const next = this.#places.size
    if (!full) {
      this.#grow(next)
      this.#places.set(ownCopy(key), next)
      return next
    }
    this.#places.pop()
    const place = this.#free
    this.#places.set(ownCopy(key), place)
    return place
  }

  #forgotten(place: number): void {
    this.#free = place
    if ((this.#numbers[place * width + 3] as number) > this.#clock.now()) this.evictions++
  }

  #grow(place: number): void {
    if ((place + 1) * width <= this.#numbers.length) return
    const larger = new Float64Array(Math.min(this.#maxEntries, (place + 1) * 2) * width)
    larger.set(this.#numbers)
    this.#numbers = larger
  }
}

/** A part of a string keeps all of it in memory: a key cut from an 8 KiB URL would cost 8 KiB. */
function ownCopy(key: string): string {
  const copy = Buffer.from(key, 'latin1').toString('latin1')
  return copy === key ? copy : Buffer.from(key, 'utf16le').toString('utf16le')
}
