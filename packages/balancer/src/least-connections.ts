/**
 * Weighted least connections: to the upstream with the fewest exchanges in flight for its weight. It follows what servers really do: one that
 * is slow, for whatever reason, holds its exchanges longer and is given fewer.
 *
 * How to think about it. Exactness is simple, a minimum over all; the question is its cost. Upstreams of one weight need no comparison, only
 * counting: `levels.ts` keeps them in order in O(1). What is left is the least among the heads of the weight classes, which changes only when
 * the lowest level of a class does. So a pick costs the same with 10 upstreams and with 10,000 (measured: test/bench/pick.ts), and O(log n)
 * in the worst case, when no two weights are equal.
 *
 * The counts come from `acquire` and `release`, not from `pick`: affinity and last-resort retries put exchanges on upstreams that no pick
 * chose. At every `update` they are read afresh from the upstreams, so an exchange that outlives its upstream's membership, or began before
 * it, is counted once.
 *
 * Ties are the normal case in a quiet pool, where everybody has nothing in flight, and there "least" says nothing. Within a class they are
 * served in turn, and between classes by weight, in virtual time: a class that was busy meanwhile does not get its missed turns in a burst.
 */
import { type Balancer, type Exchange, isPickable, OptionReader, type Upstream } from '@weir/core'
import { Levels } from './levels.ts'
import { LoadTree } from './load-tree.ts'
import { type RandomOption, readRandom } from './random-option.ts'

export interface LeastConnectionsOptions extends RandomOption {}

/**
 * The fewest exchanges in flight per weight; ties in turn. `random` decides who is first after each change of membership.
 *
 * Not for many independent proxies in front of the same upstreams: each sees only its own exchanges, and all of them send a burst to the one
 * that has just joined with nothing in flight. `powerOfTwo` is made for that.
 *
 * @throws OptionsError
 */
export function leastConnections(options?: LeastConnectionsOptions): Balancer {
  const read = new OptionReader('leastConnections')
  const random = readRandom(read, read.object(options, ['random']).random)
  read.check()
  return new LeastConnections(random)
}

class LeastConnections implements Balancer {
  readonly name: string = 'least-connections'
  readonly #random: () => number
  #upstreams: readonly Upstream[] = []
  #slots = new Map<Upstream, number>()
  /** In flight, of those who are not in `#levels`. */
  #inflight = new Int32Array(0)
  #classOf = new Int32Array(0)
  #levels = new Levels(new Int32Array(0), 0)
  // By class.
  #weights: readonly number[] = []
  #loads = new Float64Array(0)
  #turns = new Float64Array(0)
  #tree = new LoadTree(this.#loads, this.#turns)
  /** Virtual time of the turn served last. */
  #now = 0
  /** Class whose turn has changed, or -1. Left to the next `#file`, since the `acquire` that follows a pick mostly changes its load as well. */
  #stale = -1
  /** Slot of the last pick: `acquire` follows with the same upstream, and is spared the look-up. */
  #last = 0
  // Full upstreams, found so when they were the least loaded. They come back with their next release.
  #parked = new Int32Array(0)
  #parkedAt = new Int32Array(0)
  #parkedCount = 0

  constructor(random: () => number) {
    this.#random = random
  }

  update(available: readonly Upstream[]): void {
    const n = available.length
    this.#upstreams = available.slice()
    this.#slots = new Map(available.map((upstream, slot) => [upstream, slot]))
    this.#inflight = Int32Array.from(available, ({ inflight }) => inflight)
    this.#weights = [...new Set(available.map(({ weight }) => weight))]
    const classes = new Map(this.#weights.map((weight, index) => [weight, index]))
    this.#classOf = Int32Array.from(available, ({ weight }) => classes.get(weight) as number)
    this.#levels = new Levels(this.#classOf, classes.size)
    this.#parked = new Int32Array(n)
    this.#parkedAt = new Int32Array(n).fill(-1)
    this.#parkedCount = 0
    this.#last = 0
    this.#stale = -1
    const first = Math.floor(this.#random() * n)
    for (let i = 0; i < n; i++) {
      const slot = (first + i) % n
      this.#levels.add(slot, this.#inflight[slot] as number)
    }
    this.#now = 0
    this.#loads = Float64Array.from(this.#weights, (weight, index) => this.#levels.least(index) / weight)
    this.#turns = Float64Array.from(this.#weights, (weight, index) => this.#random() / (weight * this.#levels.leastCount(index)))
    this.#tree = new LoadTree(this.#loads, this.#turns)
  }

  pick(exchange: Exchange): Upstream | undefined {
    const { tried } = exchange
    if (tried.length === 0) return this.#take(exchange)
    for (let i = 0; i < tried.length; i++) {
      const slot = this.#slots.get(tried[i] as Upstream)
      if (slot !== undefined && this.#levels.has(slot)) this.#leave(slot)
    }
    const picked = this.#take(exchange)
    for (let i = 0; i < tried.length; i++) {
      const slot = this.#slots.get(tried[i] as Upstream)
      if (slot !== undefined && this.#parkedAt[slot] === -1 && !this.#levels.has(slot)) this.#enter(slot)
    }
    return picked
  }

  acquire(upstream: Upstream): void {
    const slot = this.#upstreams[this.#last] === upstream ? this.#last : this.#slots.get(upstream)
    if (slot === undefined) return
    if (!this.#levels.has(slot)) this.#inflight[slot] = (this.#inflight[slot] as number) + 1
    else if (this.#levels.raise(slot)) this.#file(this.#classOf[slot] as number)
  }

  release(upstream: Upstream): void {
    const slot = this.#slots.get(upstream)
    if (slot === undefined) return
    if (this.#levels.has(slot)) {
      if (this.#levels.lower(slot)) this.#file(this.#classOf[slot] as number)
    } else {
      this.#inflight[slot] = (this.#inflight[slot] as number) - 1
      this.#unpark(slot)
    }
  }

  #take(exchange: Exchange): Upstream | undefined {
    if (this.#stale !== -1) this.#file(this.#stale)
    for (;;) {
      const index = this.#tree.least
      if (index === -1) {
        if (this.#unparkPickable(exchange)) continue
        return undefined
      }
      const slot = this.#levels.first(index)
      const upstream = this.#upstreams[slot] as Upstream
      if (!upstream.full) {
        this.#last = slot
        this.#turn(index)
        return upstream
      }
      this.#leave(slot)
      this.#parkedAt[slot] = this.#parkedCount
      this.#parked[this.#parkedCount++] = slot
    }
  }

  /** The first of this class has been picked. */
  #turn(index: number): void {
    this.#levels.rotate(index)
    if (this.#weights.length === 1) return
    if ((this.#turns[index] as number) > this.#now) this.#now = this.#turns[index] as number
    // As many of the class as are tied take part in the turns, each by weight.
    this.#turns[index] = this.#now + 1 / ((this.#weights[index] as number) * this.#levels.leastCount(index))
    this.#stale = index
  }

  /** The least load of a class has changed. */
  #file(index: number): void {
    this.#loads[index] = this.#levels.isEmpty(index)
      ? Number.POSITIVE_INFINITY
      : this.#levels.least(index) / (this.#weights[index] as number)
    this.#tree.replay(index)
    if (this.#stale === index) this.#stale = -1
  }

  #leave(slot: number): void {
    this.#inflight[slot] = this.#levels.inflight(slot)
    this.#levels.remove(slot)
    this.#file(this.#classOf[slot] as number)
  }

  #enter(slot: number): void {
    this.#levels.add(slot, this.#inflight[slot] as number)
    this.#file(this.#classOf[slot] as number)
  }

  #unpark(slot: number): void {
    const at = this.#parkedAt[slot] as number
    const last = this.#parked[--this.#parkedCount] as number
    this.#parked[at] = last
    this.#parkedAt[last] = at
    this.#parkedAt[slot] = -1
    this.#enter(slot)
  }

  /** Nobody else is left: has a full one got room without a release? */
  #unparkPickable(exchange: Exchange): boolean {
    const before = this.#parkedCount
    for (let i = before - 1; i >= 0; i--) {
      const slot = this.#parked[i] as number
      if (isPickable(this.#upstreams[slot] as Upstream, exchange)) this.#unpark(slot)
    }
    return this.#parkedCount < before
  }
}
