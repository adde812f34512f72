/**
 * Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018): a hash strategy
 * that never lets an upstream have more than `factor` times what it would have if load were level. A hot key then spills over to the next
 * upstreams in its own sequence, always the same ones, and keeps most of what hashing is for.
 *
 * How to think about it. With m exchanges in flight on all upstreams, the new one included, and a share s of the weight, an upstream may have
 * ceil(factor x m x s). These bounds add up to at least factor x m, more than there is to place; so somebody always has room, and nobody has to
 * wait for the bound.
 */
import { type Balancer, type Exchange, isPickable, OptionReader, type Upstream } from '@weir/core'
import { evenHash, HashBalancer, rendezvousSequence } from './hash-balancer.ts'
import { type HashKeyOptions, hashKeyNames, readHashKey } from './hash-key.ts'
import { type Gate, pickable } from './sequence.ts'

export interface LoadBoundOptions {
  /**
   * How far above the average an upstream may be, from just above 1 to 100. Default 1.25. Nearer to 1, load is more level and more keys are
   * away from home; at 2 hardly a key moves unless it is hot.
   */
  readonly factor?: number
}

export interface BoundedLoadOptions extends LoadBoundOptions, HashKeyOptions {}

/**
 * A cap on any hash strategy of this package: `boundedLoad(ketama({ key: 'path' }), { factor: 1.5 })`, or `boundedLoad({ key: 'path' })` for
 * `hash`. The strategy given belongs to this one from then on. When everybody below the bound is tried or full, the bound gives way: it is there
 * to level load, not to refuse any. It holds for what is picked; affinity and releases on other upstreams may put somebody above it for a while.
 *
 * Counts what this proxy has in flight. Not with few requests in flight per upstream (below about 5): rounding up then makes the bound loose.
 *
 * @throws OptionsError
 */
export function boundedLoad(strategy: Balancer, options?: LoadBoundOptions): Balancer
export function boundedLoad(options: BoundedLoadOptions): Balancer
export function boundedLoad(first: Balancer | BoundedLoadOptions, second?: LoadBoundOptions): Balancer {
  const read = new OptionReader('boundedLoad')
  if (first instanceof HashBalancer) {
    const factor = readFactor(read, read.object(second, ['factor']).factor)
    read.check()
    return new BoundedLoad(first, factor)
  }
  if (typeof (first as Partial<Balancer> | undefined)?.pick === 'function')
    read.problem('strategy', (first as Balancer).name, 'a hash strategy of this package: hash, ipHash, ketama or maglev')
  const given = read.object(first as BoundedLoadOptions, [...hashKeyNames, 'factor'])
  const key = readHashKey(read, given, evenHash)
  const factor = readFactor(read, given.factor)
  read.check()
  return new BoundedLoad(new HashBalancer('hash', key, rendezvousSequence), factor)
}

function readFactor(read: OptionReader, value: unknown): number {
  return read.number('factor', value, 1.25, { min: 1 + 1e-6, max: 100 })
}

class BoundedLoad implements Balancer, Gate {
  readonly name: string
  readonly #strategy: HashBalancer
  readonly #factor: number
  #members = new Set<Upstream>()
  #inflight = 0
  /** What one unit of weight may have of each exchange in flight: the factor over the sum of weights. */
  #share = 0
  /** What one unit of weight may have in flight, for the pick under way. */
  #perWeight = 0
  /** In the last pick nobody was below the bound. */
  #gaveWay = false

  constructor(strategy: HashBalancer, factor: number) {
    this.name = `bounded-load:${strategy.name}`
    this.#strategy = strategy
    this.#factor = factor
  }

  update(available: readonly Upstream[]): void {
    this.#members = new Set(available)
    this.#inflight = available.reduce((sum, { inflight }) => sum + inflight, 0)
    this.#share = this.#factor / available.reduce((sum, { weight }) => sum + weight, 0)
    this.#strategy.update(available)
  }

  pick(exchange: Exchange): Upstream | undefined {
    if (!this.#strategy.begin(exchange)) return undefined
    this.#perWeight = this.#share * (this.#inflight + 1)
    const within = this.#strategy.find(exchange, this)
    this.#gaveWay = within === undefined
    return within ?? this.#strategy.find(exchange, pickable)
  }

  explain(upstream: Upstream): string | undefined {
    const bound = this.#perWeight * upstream.weight
    const above = upstream.inflight >= bound - 1e-9
    if (this.#gaveWay) return above ? `above its bound of ${Math.ceil(bound - 1e-9)}, which gives way` : undefined
    return above ? `above its bound of ${Math.ceil(bound - 1e-9)}` : undefined
  }

  admits(upstream: Upstream, exchange: Exchange): boolean {
    // One more, and still at or below the bound: a whole number is below a fraction rounded up when it is below the fraction. Rounding of the product must
    // not lift a whole number to the next.
    return upstream.inflight < this.#perWeight * upstream.weight - 1e-9 && isPickable(upstream, exchange)
  }

  acquire(upstream: Upstream): void {
    if (this.#members.has(upstream)) this.#inflight++
  }

  release(upstream: Upstream): void {
    if (this.#members.has(upstream)) this.#inflight--
  }
}
