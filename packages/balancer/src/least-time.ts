/**
 * Least time: to the upstream where the exchange would be done first, as far as one can tell: the average time it takes, times what it already
 * has in flight for its weight plus one. Exact for any number of upstreams, by a tournament that is played again where something has changed.
 *
 * What changes without an event is age: an average that nobody renews turns into the pool's typical time (`latencies.ts`). So picks renew one
 * upstream after the other. Times count in eight steps from each power of two to the next, of about a tenth each: smaller differences are noise,
 * and those who are equal are served in turn and by weight, instead of one getting all.
 */
import { type AttemptOutcome, type Balancer, type Exchange, isPickable, OptionReader, type Upstream } from '@weir/core'
import { Latencies, type LatencyOptions, type LatencyRules, latencyNames, readLatencyRules } from './latencies.ts'
import { LoadTree } from './load-tree.ts'
import { type RandomOption, readRandom } from './random-option.ts'

export interface LeastTimeOptions extends RandomOption, LatencyOptions {
  /** Which time: to the response head (default), or to the last byte, for servers whose answers are long and alike in length. */
  readonly by?: 'head' | 'last-byte'
}

/**
 * The least average time x (exchanges in flight per weight + 1). O(log n) per pick. It averages where `peakEwma` takes the worst, so a single slow
 * answer does not count for much; a failure does, as ten times the typical time.
 *
 * Not for many independent proxies in front of the same upstreams, since all of them run to the quickest: `peakEwma` is made for that. Not where
 * times say more about the request than about the server.
 *
 * @throws OptionsError
 */
export function leastTime(options?: LeastTimeOptions): Balancer {
  const read = new OptionReader('leastTime')
  const given = read.object(options, ['by', 'random', ...latencyNames])
  const random = readRandom(read, given.random)
  const rules = readLatencyRules(read, given)
  const by = read.oneOf('by', given.by, ['head', 'last-byte'] as const, 'head')
  read.check()
  return new LeastTime(random, rules, by === 'last-byte')
}

const out = Number.POSITIVE_INFINITY

const single = new Float32Array(1)
const bits = new Int32Array(single.buffer)

class LeastTime implements Balancer {
  readonly name: string = 'least-time'
  readonly #random: () => number
  readonly #latencies: Latencies
  readonly #byLastByte: boolean
  #upstreams: readonly Upstream[] = []
  // By slot: time in steps, cost, and virtual time of the next turn among equals.
  #times = new Float64Array(0)
  #costs = new Float64Array(0)
  #turns = new Float64Array(0)
  #tree = new LoadTree(this.#costs, this.#turns)
  /** Virtual time of the turn served last. */
  readonly #now = new Float64Array(1)
  #mean = 1
  #picks = 0
  #running = 0
  #renewed = 0
  /** Slots of full upstreams, found so when they were the best. They come back with their next release. */
  #parked = new Int32Array(0)
  #parkedAt = new Int32Array(0)
  #parkedCount = 0

  constructor(random: () => number, rules: LatencyRules, byLastByte: boolean) {
    this.#random = random
    this.#latencies = new Latencies(rules, false)
    this.#byLastByte = byLastByte
  }

  update(available: readonly Upstream[]): void {
    const n = available.length
    this.#upstreams = available.slice()
    this.#latencies.update(available)
    this.#mean = available.reduce((sum, { weight }) => sum + weight, 0) / n
    this.#times = new Float64Array(n)
    this.#costs = new Float64Array(n)
    this.#turns = Float64Array.from(available, ({ weight }) => this.#random() / weight)
    this.#now[0] = 0
    this.#parked = new Int32Array(n)
    this.#parkedAt = new Int32Array(n).fill(-1)
    this.#parkedCount = 0
    this.#renewed = 0
    for (let slot = 0; slot < n; slot++) this.#weigh(slot)
    this.#tree = new LoadTree(this.#costs, this.#turns)
  }

  pick(exchange: Exchange): Upstream | undefined {
    if (this.#upstreams.length === 0) return undefined
    // While exchanges end, their outcomes tell the time. It must not stand still in a quiet pool, nor in one where nothing ends.
    if (this.#running === 0 || (this.#picks++ & 15) === 0) {
      this.#latencies.tick()
      this.#renew()
    }
    const { tried } = exchange
    for (let i = 0; i < tried.length; i++) this.#leave(this.#latencies.slot(tried[i] as Upstream))
    const picked = this.#take(exchange)
    for (let i = 0; i < tried.length; i++) this.#enter(this.#latencies.slot(tried[i] as Upstream))
    return picked
  }

  acquire(upstream: Upstream): void {
    this.#running++
    this.#enter(this.#latencies.slot(upstream))
  }

  explain(upstream: Upstream): string | undefined {
    const slot = this.#latencies.slot(upstream)
    return slot === -1 ? undefined : `taken for ${(this.#latencies.current[slot] as number).toFixed(2)} ms`
  }

  release(upstream: Upstream, outcome: AttemptOutcome): void {
    this.#running--
    const slot = this.#latencies.slot(upstream)
    if (slot === -1) return
    const first = !this.#latencies.known
    if (this.#latencies.observe(slot, outcome, this.#byLastByte)) this.#weigh(slot)
    // What is typical is known now: all those who counted as a guess count as that.
    if (first && this.#latencies.known) for (let other = 0; other < this.#upstreams.length; other++) this.#rate(other)
    if (this.#parkedAt[slot] !== -1) this.#unpark(slot)
    this.#enter(slot)
  }

  #take(exchange: Exchange): Upstream | undefined {
    for (;;) {
      const slot = this.#tree.least
      if (slot === -1) {
        if (this.#unparkPickable(exchange)) continue
        return undefined
      }
      const upstream = this.#upstreams[slot] as Upstream
      if (!upstream.full) {
        const turn = this.#turns[slot] as number
        if (turn > (this.#now[0] as number)) this.#now[0] = turn
        this.#turns[slot] = (this.#now[0] as number) + 1 / upstream.weight
        this.#tree.replay(slot)
        return upstream
      }
      this.#leave(slot)
      this.#parkedAt[slot] = this.#parkedCount
      this.#parked[this.#parkedCount++] = slot
    }
  }

  /** Lets the next one grow older. */
  #renew(): void {
    const slot = this.#renewed
    this.#renewed = slot + 1 === this.#upstreams.length ? 0 : slot + 1
    this.#rate(slot)
  }

  #rate(slot: number): void {
    this.#latencies.refresh(slot)
    this.#weigh(slot)
    if (this.#costs[slot] !== out) this.#enter(slot)
  }

  #weigh(slot: number): void {
    // Rounds to three binary digits behind the first: a logarithm for which the number's own representation is made.
    single[0] = this.#latencies.current[slot] as number
    bits[0] = ((bits[0] as number) + 0x8_0000) & ~0xf_ffff
    this.#times[slot] = single[0] as number
    if (this.#costs[slot] !== out) this.#price(slot)
  }

  #price(slot: number): void {
    const upstream = this.#upstreams[slot] as Upstream
    this.#costs[slot] = (this.#times[slot] as number) * ((upstream.inflight * this.#mean) / upstream.weight + 1)
  }

  #leave(slot: number): void {
    if (slot === -1) return
    this.#costs[slot] = out
    this.#tree.replay(slot)
  }

  /** Into the tournament with the cost it has now; one that is parked stays there. */
  #enter(slot: number): void {
    if (slot === -1 || this.#parkedAt[slot] !== -1) return
    this.#price(slot)
    this.#tree.replay(slot)
  }

  #unpark(slot: number): void {
    const at = this.#parkedAt[slot] as number
    const last = this.#parked[--this.#parkedCount] as number
    this.#parked[at] = last
    this.#parkedAt[last] = at
    this.#parkedAt[slot] = -1
  }

  /** Nobody else is left: has a full one got room without a release? */
  #unparkPickable(exchange: Exchange): boolean {
    const before = this.#parkedCount
    for (let i = before - 1; i >= 0; i--) {
      const slot = this.#parked[i] as number
      if (!isPickable(this.#upstreams[slot] as Upstream, exchange)) continue
      this.#unpark(slot)
      this.#enter(slot)
    }
    return this.#parkedCount < before
  }
}
