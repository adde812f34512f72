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
 * urgent, so that only heads of classes compete: in one tournament until they may be served, in another by urgency. A pick is O(log n), amortised.
 *
 * Whoever cannot be picked must not lose its place, nor come back with a debt to be paid in a burst. So it leaves the schedule with the lag it
 * has, which is less than a turn, and earns nothing until it comes back with the same: an upstream that this exchange has tried, for one pick;
 * a full one, until a release. When membership or weights change, all keep their lag, and newcomers begin at a random point between two turns:
 * proxies that learn of a change at the same moment must not act on it in step. For the same reason the first pick falls at a random point of
 * the rotation.
 *
 * One file, though it holds three things: in modules of their own, schedule and tournament are no longer inlined into the pick, which then allocates.
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
        lags[i] = slot === undefined ? 0.5 - this.#random() : this.#turns.leave(slot).lag(slot)
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
      if (slot !== undefined) this.#turns.leave(slot)
    }
    const picked = this.#take(exchange)
    for (let i = 0; i < tried.length; i++) {
      const slot = this.#slots.get(tried[i] as Upstream)
      if (slot !== undefined && this.#parkedAt[slot] === -1 && !this.#turns.has(slot)) this.#turns.enter(slot)
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
    this.#turns.enter(slot)
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

const never = Number.POSITIVE_INFINITY

/**
 * Upstreams up to here: one walk past all classes takes less than to keep two tournaments of them (measured with ten of different weights: 70 ns per pick instead of
 * 100). With hundreds it takes more, even where classes are few: which of them comes next is no short pattern any more, which the processor would guess.
 */
const few = 16

/**
 * Who is next, by number: the schedule alone, which knows nothing of upstreams and load. Times travel in arrays and never as arguments: a
 * fraction that is passed to, or returned by, a function that is not inlined is an allocation.
 */
class Turns {
  readonly #weights: readonly number[]
  readonly #margin: number
  // By slot. An upstream is even (lag 0) at virtual time `#base + #had / weight`, which is in `#even`: a quotient, not a sum of steps, so that
  // rounding never adds up. One that has left keeps its lag in `#base`, and is never even.
  readonly #base: Float64Array
  readonly #had: Float64Array
  readonly #even: Float64Array
  readonly #classOf: Int32Array
  readonly #members: readonly Tournament[]
  // By class: when its head may be served, if that is not yet; and when it must be, if it may.
  readonly #opening: Float64Array
  readonly #deadline: Float64Array
  // By class: how long after it was even a head may be, and must be, served. A division per class and not two per pick.
  readonly #toOpening: Float64Array
  readonly #toDeadline: Float64Array
  // Undefined when there are so few that going through the classes is quicker.
  readonly #waiting: Tournament | undefined
  readonly #ready: Tournament | undefined
  // Virtual time is `#origin + #steps / #total`, where `#total` is the weight of all who have not left. These fields start as numbers: one
  // that had ever been undefined would hold its fractions in objects, a new one for every change (measured: 16 bytes per pick).
  #origin = 0
  #steps = 0
  #total = 0
  /** Virtual time when the coming pick will have been paid out: whoever has a lag of `#margin` by then may be served. */
  #due = 0

  constructor(weights: readonly number[], lags: readonly number[]) {
    const n = weights.length
    this.#weights = weights
    this.#margin = n > 1 ? 1 / (2 * n - 2) : 0
    this.#total = weights.reduce((sum, weight) => sum + weight, 0)
    this.#due = 1 / this.#total
    this.#base = Float64Array.from(lags)
    this.#had = new Float64Array(n)
    this.#even = new Float64Array(n).fill(never)
    // Light classes first: of two turns of the same urgency the rarer one wins, since it has waited longer.
    const slots = new Map<number, number[]>()
    weights.forEach((weight, slot) => {
      const members = slots.get(weight)
      if (members === undefined) slots.set(weight, [slot])
      else members.push(slot)
    })
    const classes = [...slots.keys()].sort((a, b) => a - b)
    const index = new Map(classes.map((weight, i) => [weight, i]))
    this.#classOf = Int32Array.from(weights, (weight) => index.get(weight) as number)
    const entries = new Int32Array(n)
    this.#members = classes.map((weight) => new Tournament(slots.get(weight) as number[], this.#even, entries))
    this.#toOpening = Float64Array.from(classes, (weight) => this.#margin / weight)
    this.#toDeadline = Float64Array.from(classes, (weight) => (1 - this.#margin) / weight)
    this.#opening = new Float64Array(classes.length).fill(never)
    this.#deadline = new Float64Array(classes.length).fill(never)
    const many = n > few
    this.#waiting = many ? new Tournament([...classes.keys()], this.#opening, new Int32Array(classes.length)) : undefined
    this.#ready = many ? new Tournament([...classes.keys()], this.#deadline, new Int32Array(classes.length)) : undefined
    for (let slot = 0; slot < n; slot++) this.#join(slot)
  }

  has(slot: number): boolean {
    return this.#even[slot] !== never
  }

  /** Turns earned less turns had, of one that has left. */
  lag(slot: number): number {
    return this.#base[slot] as number
  }

  /** Who should be served now; -1 when all have left. */
  next(): number {
    const waiting = this.#waiting
    const ready = this.#ready
    const index = waiting === undefined || ready === undefined ? this.#nextOfFew() : this.#nextOfMany(waiting, ready)
    return index === -1 ? -1 : (this.#members[index] as Tournament).first
  }

  #nextOfMany(waiting: Tournament, ready: Tournament): number {
    for (let index = waiting.first; index !== -1; index = waiting.first) {
      if ((this.#opening[index] as number) > this.#due) {
        if (ready.first !== -1) break
        this.#skipTo(index)
      }
      this.#file(index)
    }
    return ready.first
  }

  #nextOfFew(): number {
    const openings = this.#opening
    const deadlines = this.#deadline
    for (;;) {
      let first = -1
      let waiting = -1
      let earliest = never
      let soonest = never
      for (let index = 0; index < openings.length; index++) {
        const opening = openings[index] as number
        if (opening <= this.#due) this.#file(index)
        else if (opening < soonest) {
          soonest = opening
          waiting = index
        }
        const deadline = deadlines[index] as number
        if (deadline < earliest) {
          earliest = deadline
          first = index
        }
      }
      if (first !== -1 || waiting === -1) return first
      this.#skipTo(waiting)
    }
  }

  /**
   * Those who were due have left. Virtual time moves on to the next: if it stayed behind, nobody would ever be due again, and urgency, which is what spreads
   * turns, would not come into it.
   */
  #skipTo(index: number): void {
    const opening = this.#opening[index] as number
    this.#origin = opening - 1 / this.#total
    this.#steps = 0
    this.#due = opening
  }

  serve(slot: number): void {
    this.#steps++
    this.#due = this.#origin + (this.#steps + 1) / this.#total
    this.#had[slot] = (this.#had[slot] as number) + 1
    this.#place(slot)
  }

  leave(slot: number): this {
    if (!this.has(slot)) return this
    const now = this.#origin + this.#steps / this.#total
    this.#base[slot] = (now - (this.#even[slot] as number)) * (this.#weights[slot] as number)
    this.#even[slot] = never
    this.#reweigh(slot, -1)
    this.#replay(slot)
    return this
  }

  /** Back with the lag it left with. */
  enter(slot: number): void {
    this.#reweigh(slot, 1)
    this.#join(slot)
  }

  /** Its lag is in `#base`. */
  #join(slot: number): void {
    this.#base[slot] = this.#origin - (this.#base[slot] as number) / (this.#weights[slot] as number)
    this.#had[slot] = 0
    this.#place(slot)
  }

  #place(slot: number): void {
    this.#even[slot] = (this.#base[slot] as number) + (this.#had[slot] as number) / (this.#weights[slot] as number)
    this.#replay(slot)
  }

  #replay(slot: number): void {
    const index = this.#classOf[slot] as number
    ;(this.#members[index] as Tournament).replay(slot)
    this.#file(index)
  }

  /** Puts a class where its head, which may be another one now, belongs: among the waiting, the ready, or neither. */
  #file(index: number): void {
    const head = (this.#members[index] as Tournament).first
    let opening = never
    let deadline = never
    if (head !== -1) {
      const even = this.#even[head] as number
      opening = even + (this.#toOpening[index] as number)
      if (opening <= this.#due) {
        opening = never
        deadline = even + (this.#toDeadline[index] as number)
      }
    }
    if (this.#opening[index] !== opening) {
      this.#opening[index] = opening
      this.#waiting?.replay(index)
    }
    if (this.#deadline[index] !== deadline) {
      this.#deadline[index] = deadline
      this.#ready?.replay(index)
    }
  }

  #reweigh(slot: number, sign: 1 | -1): void {
    if (this.#steps > 0) this.#origin += this.#steps / this.#total
    this.#steps = 0
    this.#total += sign * (this.#weights[slot] as number)
    this.#due = this.#origin + 1 / this.#total
  }
}

/**
 * Who has the smallest key, as a knock-out tournament: equal keys go to the smaller number. When a key changes, one comparison per round plays
 * it again; a heap needs two, and moves what it compares (measured with ten equal upstreams: 50 ns per pick instead of 65).
 */
class Tournament {
  readonly #keys: Float64Array
  /** Where the number enters, by number. */
  readonly #entries: Int32Array
  /** The winner of match m comes from matches 2m and 2m + 1; behind the matches stand those who enter. Match 1 is the final. */
  readonly #winners: Int32Array

  /**
   * @param keys by number, `never` for those who do not take part; after changing one, `replay` the number
   * @param entries by number, filled in here; tournaments of different numbers may share it
   */
  constructor(numbers: readonly number[], keys: Float64Array, entries: Int32Array) {
    const n = numbers.length
    this.#keys = keys
    this.#entries = entries
    this.#winners = Int32Array.from({ length: 2 * n }, (_, i) => numbers[i - n] ?? -1)
    numbers.forEach((number, i) => {
      entries[number] = n + i
    })
    for (let match = n - 1; match > 0; match--) this.#play(match)
  }

  /** -1 when nobody takes part. */
  get first(): number {
    const winner = this.#winners[1]
    return winner === undefined || this.#keys[winner] === never ? -1 : winner
  }

  /** Ends where somebody else wins as before: nothing has changed for the rounds behind that. */
  replay(number: number): void {
    for (let match = (this.#entries[number] as number) >> 1; match > 0; match >>= 1) {
      const before = this.#winners[match]
      this.#play(match)
      if (this.#winners[match] === before && before !== number) return
    }
  }

  #play(match: number): void {
    const a = this.#winners[2 * match] as number
    const b = this.#winners[2 * match + 1] as number
    const keyA = this.#keys[a] as number
    const keyB = this.#keys[b] as number
    this.#winners[match] = keyA < keyB || (keyA === keyB && a < b) ? a : b
  }
}
