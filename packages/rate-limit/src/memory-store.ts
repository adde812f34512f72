/**
 * The store of a proxy that shares nothing: strongly consistent, since it decides within one turn, and gone with the process. Each limit has a
 * table of its own, so that a flood of keys of one limit makes no other limit forget.
 */
import { type Clock, OptionReader, readClock } from '@weir/core'
import { algorithms } from './algorithms.ts'
import type { Algorithm, Limit, LimitState, LimitStep } from './limit.ts'
import { MemoryTable } from './memory-table.ts'
import type { Charge, RateLimitStore, StoreStats } from './store.ts'

export interface MemoryStoreOptions {
  /**
   * Most keys that are remembered of each limit; 24 bytes each with `gcra` and `leaky-bucket`, 48 with `sliding-window`, 36 with the others. When more come,
   * one is given up that has run out, or among some the one that has used the least of its limit, which is counted in `evictions`. Not much smaller than the
   * number of clients per window, or clients that come back are taken for new ones. Default 100,000.
   */
  readonly maxEntries?: number
  /** Default: real time. */
  readonly clock?: Clock
}

export interface MemoryStore extends RateLimitStore {
  /** Never a promise. */
  take(charges: readonly Charge[]): readonly LimitStep[]
  adjust(limit: Limit, key: string, difference: number, chargedAt: number): void
  stats(): StoreStats
}

/** @throws OptionsError */
export function memoryStore(options?: MemoryStoreOptions): MemoryStore {
  const read = new OptionReader('memoryStore')
  const given = read.object<MemoryStoreOptions>(options, ['maxEntries', 'clock'])
  const maxEntries = readMaxEntries(read, given.maxEntries)
  const clock = readClock(given.clock, read)
  read.check()
  return new Memory(maxEntries, clock)
}

/** What a key has left when it has used nothing: `burst`, which windows have too; a line has as many places as fit into the longest wait. */
const wholeOf = ({ algorithm, burst, maxDelayMs, quota, windowMs }: Limit): number =>
  algorithm === 'leaky-bucket' ? (maxDelayMs * quota) / windowMs + 1 : burst

/** The upper bound keeps the table below 1 GiB. */
export function readMaxEntries(read: OptionReader, value: number | undefined): number {
  return read.number('maxEntries', value, 100_000, { min: 1, max: 2 ** 24, integer: true })
}

/** What is remembered of a limit, with what decides for it. */
class Kept {
  /** As it was given last: under one name, numbers may change while their state stays. */
  limit: Limit
  readonly algorithm: Algorithm
  readonly table: MemoryTable

  constructor(limit: Limit, maxEntries: number, clock: Clock) {
    this.limit = limit
    this.algorithm = algorithms[limit.algorithm]
    const { numbers, expiresAt } = this.algorithm
    this.table = new MemoryTable(maxEntries, clock, wholeOf(limit), numbers, (state) => expiresAt(state, this.limit))
  }

  follow(limit: Limit): void {
    this.limit = limit
    this.table.whole = wholeOf(limit)
  }
}

class Memory implements MemoryStore {
  readonly name = 'memory'
  readonly #maxEntries: number
  readonly #clock: Clock
  /** By name and algorithm: what one algorithm remembers says nothing to another. */
  readonly #kept = new Map<string, Kept>()
  /** The limit that was asked for last. */
  #last: Kept | undefined
  /** What `read` reads into: used up before anything else runs. */
  readonly #state: LimitState = { a: 0, b: 0, c: 0 }

  constructor(maxEntries: number, clock: Clock) {
    this.#maxEntries = maxEntries
    this.#clock = clock
  }

  take(charges: readonly Charge[]): readonly LimitStep[] {
    const now = this.#clock.now()
    // The usual case, and without lists that grow.
    if (charges.length === 1) return [this.#takeOne(charges[0] as Charge, now)]
    const steps: LimitStep[] = []
    let allowed = true
    for (const charge of charges) {
      this.#of(charge.limit).table.read(charge.key, this.#state)
      const step = algorithms[charge.limit.algorithm].take(this.#state, now, charge.cost, charge.limit)
      steps.push(step)
      if (!step.allowed) allowed = false
    }
    for (let i = 0; i < steps.length; i++) {
      const { limit, key, cost } = charges[i] as Charge
      if (allowed) {
        if (cost === 0) continue
        // Looked up anew: writing another key of the same limit may have moved it.
        const { table } = this.#of(limit)
        table.write(table.read(key, this.#state), steps[i] as LimitStep)
      } else if ((steps[i] as LimitStep).allowed) {
        this.#of(limit).table.read(key, this.#state)
        steps[i] = algorithms[limit.algorithm].take(this.#state, now, 0, limit)
      }
    }
    return steps
  }

  #takeOne({ limit, key, cost }: Charge, now: number): LimitStep {
    const { algorithm, table } = this.#of(limit)
    const place = table.read(key, this.#state)
    const step = algorithm.take(this.#state, now, cost, limit)
    if (step.allowed && cost > 0) table.write(place, step)
    return step
  }

  adjust(limit: Limit, key: string, difference: number, chargedAt: number): void {
    const now = this.#clock.now()
    const { algorithm, table } = this.#of(limit)
    const place = table.read(key, this.#state)
    // Nothing is remembered, so there is nothing to give back.
    if (place < 0 && difference <= 0) return
    table.write(place, algorithm.adjust(this.#state, now, difference, chargedAt, limit))
  }

  stats(): StoreStats {
    let entries = 0
    let evictions = 0
    for (const { table } of this.#kept.values()) {
      entries += table.size
      evictions += table.evictions
    }
    return { entries, evictions }
  }

  #of(limit: Limit): Kept {
    // Most have one limit.
    const last = this.#last
    return last !== undefined && last.limit === limit ? last : this.#find(limit)
  }

  #find(limit: Limit): Kept {
    const name = `${limit.algorithm} ${limit.id}`
    let kept = this.#kept.get(name)
    if (kept === undefined) {
      kept = new Kept(limit, this.#maxEntries, this.#clock)
      this.#kept.set(name, kept)
    } else kept.follow(limit)
    this.#last = kept
    return kept
  }
}
