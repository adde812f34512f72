/**
 * Smooth weighted round robin, the default balancer: upstreams take turns in proportion to their weights, and the turns of each are spread
 * as evenly as whole turns can be. With weights 5, 1, 1 the order is `a a b a c a a`, never five `a` in a row.
 *
 * How to think about it. The ideal is a fluid: with every pick, each upstream earns `weight / total` of a turn. Its *lag* is what it has
 * earned less what it has had. The rule that keeps lags small is Tijdeman's ("The chairman assignment problem", Discrete Mathematics 32,
 * 1980): of those whose lag has come to `margin`, serve the one whose lag would be first at `1 - margin`. With `margin = 1 / (2n - 2)` no lag
 * ever leaves [-(1 - margin), 1 - margin], and no other order can promise less. So nobody is ever a whole turn away from its share. The usual
 * scan (add each weight to a score, serve the highest) gives the same order in small cases, but it is O(n) for every pick.
 *
 * How it is kept cheap. In virtual time, which moves on by `1 / total` per pick, the turns of an upstream lie `1 / weight` apart whatever the
 * others do: serving one changes nothing for the rest. Upstreams of one weight form a class, in which the earliest turn is also the most
 * urgent, so that only heads of classes compete: in one heap until they may be served, in another by urgency. A pick is O(log n), amortised.
 *
 * Whoever cannot be picked must not lose its place, nor come back with a debt to be paid in a burst. An upstream that this exchange has tried
 * sits the pick out, and its lag stays what it was. A full one leaves until a release, and what it was owed lapses. When membership or weights
 * change, all keep their lag, and newcomers begin at a random point between two turns: proxies that learn of a change at the same moment must
 * not act on it in step. For the same reason the very first pick falls at a random point of the rotation.
 */
import type { Balancer } from './balancer.ts'
import { isPickable } from './balancer.ts'
import type { Exchange } from './exchange.ts'
import { OptionReader } from './options.ts'
import type { Upstream } from './upstream.ts'

export interface RoundRobinOptions {
  /** Gives numbers from 0 up to, not including, 1; decides where the rotation begins, and where newcomers join it. Default `Math.random`. */
  readonly random?: () => number
}

/**
 * Turns in proportion to weights, evenly spread. It knows nothing of load: where requests differ much in cost, or servers in speed, take
 * `leastConnections` or `powerOfTwo` of `@weir/balancer`. The instance belongs to one pool.
 *
 * @throws OptionsError
 */
export function roundRobin(options?: RoundRobinOptions): Balancer {
  const read = new OptionReader('roundRobin')
  const { random = Math.random } = read.object(options, ['random'])
  if (typeof random !== 'function') read.problem('random', random, 'a function such as Math.random')
  read.check()
  return new RoundRobin(random)
}

/** Most turns that are played through to find a random start: about a millisecond, once. */
const longestStart = 16_384

class RoundRobin implements Balancer {
  readonly name: string = 'round-robin'
  readonly #random: () => number
  #upstreams: readonly Upstream[] = []
  #slots = new Map<Upstream, number>()
  #turns = new Turns([], [])
  // Full upstreams, found so when their turn came; `#parkedAt` is the index in `#parked` by slot, -1 for those who are not there.
  #parked = new Int32Array(0)
  #parkedAt = new Int32Array(0)
  #parkedCount = 0

  constructor(random: () => number) {
    this.#random = random
  }

  update(available: readonly Upstream[]): void {
    const n = available.length
    const fresh = available.every((upstream) => !this.#slots.has(upstream))
    const lags = new Array<number>(n).fill(0)
    if (!fresh) {
      available.forEach((upstream, i) => {
        const slot = this.#slots.get(upstream)
        lags[i] = slot === undefined ? 0.5 - this.#random() : this.#turns.lag(slot)
      })
      // Those who left took their lags along. Lags must add up to nothing: else everybody counts as late, or as early, for ever.
      const mean = lags.reduce((sum, lag) => sum + lag, 0) / n
      for (let i = 0; i < n; i++) lags[i] = (lags[i] as number) - mean
    }
    this.#upstreams = available.slice()
    this.#slots = new Map(available.map((upstream, slot) => [upstream, slot]))
    const weights = available.map((upstream) => upstream.weight)
    this.#turns = new Turns(weights, lags)
    this.#parked = new Int32Array(n)
    this.#parkedAt = new Int32Array(n).fill(-1)
    this.#parkedCount = 0
    if (fresh && n > 0) this.#start(weights)
  }

  pick(exchange: Exchange): Upstream | undefined {
    const { tried } = exchange
    if (tried.length === 0) return this.#take(exchange)
    for (let i = 0; i < tried.length; i++) {
      const slot = this.#slots.get(tried[i] as Upstream)
      if (slot !== undefined && this.#turns.has(slot)) this.#turns.leave(slot)
    }
    const picked = this.#take(exchange)
    for (let i = 0; i < tried.length; i++) {
      const slot = this.#slots.get(tried[i] as Upstream)
      if (slot !== undefined && this.#parkedAt[slot] === -1 && !this.#turns.has(slot)) this.#turns.enter(slot, Number.POSITIVE_INFINITY)
    }
    return picked
  }

  release(upstream: Upstream): void {
    if (this.#parkedCount === 0) return
    const slot = this.#slots.get(upstream)
    if (slot !== undefined && this.#parkedAt[slot] !== -1) this.#unpark(slot)
  }

  #take(exchange: Exchange): Upstream | undefined {
    for (;;) {
      const slot = this.#turns.next()
      if (slot === -1) {
        if (this.#unparkPickable(exchange)) continue
        return undefined
      }
      const upstream = this.#upstreams[slot] as Upstream
      if (!upstream.full) {
        this.#turns.serve(slot)
        return upstream
      }
      this.#turns.leave(slot)
      this.#parkedAt[slot] = this.#parkedCount
      this.#parked[this.#parkedCount++] = slot
    }
  }

  #unpark(slot: number): void {
    const at = this.#parkedAt[slot] as number
    const last = this.#parked[--this.#parkedCount] as number
    this.#parked[at] = last
    this.#parkedAt[last] = at
    this.#parkedAt[slot] = -1
    this.#turns.enter(slot, 0)
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

  /** Plays a random number of turns, fewer than bring everybody one. */
  #start(weights: readonly number[]): void {
    let total = 0
    let lightest = Number.POSITIVE_INFINITY
    for (const weight of weights) {
      total += weight
      lightest = Math.min(lightest, weight)
    }
    const round = Math.min(longestStart, Math.ceil(total / lightest))
    for (let turns = Math.floor(this.#random() * round); turns > 0; turns--) this.#turns.serve(this.#turns.next())
  }
}

/** Who is next, by number: the schedule alone, which knows nothing of upstreams and load. */
class Turns {
  readonly #weights: readonly number[]
  readonly #margin: number
  // By slot. An upstream is even (lag 0) at virtual time `#base + #had / weight`: a quotient, not a sum of steps, so that rounding never
  // adds up. One that has left keeps its lag in `#base`.
  readonly #base: Float64Array
  readonly #had: Float64Array
  readonly #classOf: Int32Array
  readonly #members: readonly SlotHeap[]
  // Classes, by the virtual time at which their head may, or must, be served.
  readonly #waiting: SlotHeap
  readonly #ready: SlotHeap
  // Virtual time is `#origin + #steps / #total`, where `#total` is the weight of all who have not left.
  #origin = 0
  #steps = 0
  #total = 0

  constructor(weights: readonly number[], lags: readonly number[]) {
    const n = weights.length
    this.#weights = weights
    this.#margin = n > 1 ? 1 / (2 * n - 2) : 0
    this.#base = Float64Array.from(lags)
    this.#had = new Float64Array(n)
    // Light classes first: of two turns of the same urgency the rarer one wins, since it has waited longer.
    const sizes = new Map<number, number>()
    for (const weight of weights) sizes.set(weight, (sizes.get(weight) ?? 0) + 1)
    const classes = [...sizes.keys()].sort((a, b) => a - b)
    const index = new Map(classes.map((weight, i) => [weight, i]))
    const positions = new Int32Array(n).fill(-1)
    this.#classOf = Int32Array.from(weights, (weight) => index.get(weight) as number)
    this.#members = classes.map((weight) => new SlotHeap(sizes.get(weight) as number, positions))
    this.#waiting = new SlotHeap(classes.length, new Int32Array(classes.length).fill(-1))
    this.#ready = new SlotHeap(classes.length, new Int32Array(classes.length).fill(-1))
    for (const weight of weights) this.#total += weight
    for (let slot = 0; slot < n; slot++) this.#join(slot, lags[slot] as number)
  }

  has(slot: number): boolean {
    return this.#membersOf(slot).has(slot)
  }

  /** Turns earned less turns had. */
  lag(slot: number): number {
    if (!this.has(slot)) return this.#base[slot] as number
    return (this.#time(0) - (this.#base[slot] as number)) * (this.#weights[slot] as number) - (this.#had[slot] as number)
  }

  /** Who should be served now; -1 when all have left. */
  next(): number {
    const waiting = this.#waiting
    const ready = this.#ready
    if (ready.size === 0) {
      if (waiting.size === 0) return -1
      // Those who were due have left: nobody gains by waiting for virtual time to come to the next.
      if (waiting.topKey > this.#time(1)) this.#restart(waiting.topKey - 1 / this.#total, this.#total)
      this.#promote()
    }
    const now = this.#time(1)
    while (waiting.size > 0 && waiting.topKey <= now) this.#promote()
    return (this.#members[ready.top] as SlotHeap).top
  }

  serve(slot: number): void {
    this.#had[slot] = (this.#had[slot] as number) + 1
    this.#steps++
    this.#membersOf(slot).set(slot, this.#timeOfLag(slot, 0))
    this.#file(this.#classOf[slot] as number)
  }

  leave(slot: number): void {
    this.#base[slot] = this.lag(slot)
    this.#membersOf(slot).remove(slot)
    this.#file(this.#classOf[slot] as number)
    this.#restart(this.#time(0), this.#total - (this.#weights[slot] as number))
  }

  /** Back with the lag it left with, or `most`. */
  enter(slot: number, most: number): void {
    this.#restart(this.#time(0), this.#total + (this.#weights[slot] as number))
    this.#join(slot, Math.min(this.#base[slot] as number, most))
  }

  #join(slot: number, lag: number): void {
    this.#base[slot] = this.#time(0) - lag / (this.#weights[slot] as number)
    this.#had[slot] = 0
    this.#membersOf(slot).set(slot, this.#timeOfLag(slot, 0))
    this.#file(this.#classOf[slot] as number)
  }

  /** Puts a class where its head, which may be another one now, belongs. */
  #file(index: number): void {
    const members = this.#members[index] as SlotHeap
    if (members.size > 0 && this.#timeOfLag(members.top, this.#margin) <= this.#time(1)) {
      this.#waiting.remove(index)
      this.#ready.set(index, this.#timeOfLag(members.top, 1 - this.#margin))
      return
    }
    this.#ready.remove(index)
    if (members.size > 0) this.#waiting.set(index, this.#timeOfLag(members.top, this.#margin))
    else this.#waiting.remove(index)
  }

  #promote(): void {
    const index = this.#waiting.top
    this.#waiting.remove(index)
    this.#ready.set(index, this.#timeOfLag((this.#members[index] as SlotHeap).top, 1 - this.#margin))
  }

  #membersOf(slot: number): SlotHeap {
    return this.#members[this.#classOf[slot] as number] as SlotHeap
  }

  #timeOfLag(slot: number, lag: number): number {
    return (this.#base[slot] as number) + ((this.#had[slot] as number) + lag) / (this.#weights[slot] as number)
  }

  /** Virtual time so many picks from now. */
  #time(picks: number): number {
    const steps = this.#steps + picks
    return steps === 0 ? this.#origin : this.#origin + steps / this.#total
  }

  #restart(origin: number, total: number): void {
    this.#origin = origin
    this.#steps = 0
    this.#total = total
  }
}

/** A binary heap of numbers by key, equal keys by number. Any number can be taken out: `positions` says where it is, -1 for nowhere. */
class SlotHeap {
  size: number = 0
  readonly #slots: Int32Array
  readonly #keys: Float64Array
  readonly #positions: Int32Array

  constructor(capacity: number, positions: Int32Array) {
    this.#slots = new Int32Array(capacity)
    this.#keys = new Float64Array(capacity)
    this.#positions = positions
  }

  get top(): number {
    return this.#slots[0] as number
  }

  get topKey(): number {
    return this.#keys[0] as number
  }

  has(slot: number): boolean {
    return this.#positions[slot] !== -1
  }

  /** Puts `slot` in, or gives it another key. */
  set(slot: number, key: number): void {
    const at = this.#positions[slot] as number
    this.#settle(at === -1 ? this.size++ : at, slot, key)
  }

  remove(slot: number): void {
    const at = this.#positions[slot] as number
    if (at === -1) return
    this.#positions[slot] = -1
    const last = --this.size
    if (at !== last) this.#settle(at, this.#slots[last] as number, this.#keys[last] as number)
  }

  /** `at` is free: moves others until `slot` fits. */
  #settle(from: number, slot: number, key: number): void {
    let at = from
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (this.#beforeAt(parent, slot, key)) break
      this.#put(at, this.#slots[parent] as number, this.#keys[parent] as number)
      at = parent
    }
    for (let child = 2 * at + 1; child < this.size; child = 2 * at + 1) {
      if (child + 1 < this.size && this.#beforeAt(child + 1, this.#slots[child] as number, this.#keys[child] as number)) child++
      if (!this.#beforeAt(child, slot, key)) break
      this.#put(at, this.#slots[child] as number, this.#keys[child] as number)
      at = child
    }
    this.#put(at, slot, key)
  }

  #beforeAt(at: number, slot: number, key: number): boolean {
    const other = this.#keys[at] as number
    return other < key || (other === key && (this.#slots[at] as number) < slot)
  }

  #put(at: number, slot: number, key: number): void {
    this.#slots[at] = slot
    this.#keys[at] = key
    this.#positions[slot] = at
  }
}
