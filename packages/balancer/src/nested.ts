/**
 * Strategies made of strategies. An instance belongs to one membership, so what is given is a factory, called once per membership: with one
 * instance for two, each would see the other's upstreams come and go.
 */
import type { AttemptOutcome, Balancer, Exchange, OptionReader, Upstream } from '@weir/core'

/** Makes a new instance with every call: `() => leastConnections()`. */
export type BalancerFactory = () => Balancer

const expected = 'a function that makes a strategy, such as () => leastConnections()'

/** Tries the factory once: what it throws should be thrown where it was written, and not at the first change of membership. */
export function readFactory(read: OptionReader, value: unknown, fallback: BalancerFactory): BalancerFactory {
  if (value === undefined) return fallback
  if (typeof value !== 'function') {
    read.problem('balancer', value, `${expected} (mind the arrow)`)
    return fallback
  }
  const [one, other] = [value(), value()]
  if (!isBalancer(one)) read.problem('balancer', value, expected)
  else if (one === other) read.problem('balancer', value, `${expected}, a new one for every call`)
  return value as BalancerFactory
}

export function isBalancer(value: unknown): value is Balancer {
  const balancer = value as Partial<Balancer> | null | undefined
  return typeof balancer === 'object' && balancer !== null && typeof balancer.pick === 'function' && typeof balancer.update === 'function'
}

/**
 * A strategy that hands upstreams to others, several of which may have the same one: exchanges on an upstream are told to all that have it. That is
 * remembered beyond its leaving, since its exchanges may end later.
 */
export abstract class GroupBalancer implements Balancer {
  abstract readonly name: string
  readonly #strategies = new WeakMap<Upstream, readonly Balancer[]>()

  abstract update(available: readonly Upstream[]): void
  abstract pick(exchange: Exchange): Upstream | undefined

  protected assign(upstream: Upstream, strategies: readonly Balancer[]): void {
    this.#strategies.set(upstream, strategies)
  }

  /** What the strategy that was asked says of one of its own, and `otherwise` of anybody else. */
  protected explainBy(strategy: Balancer, upstream: Upstream, exchange: Exchange, otherwise: string): string | undefined {
    return this.#strategies.get(upstream)?.includes(strategy) === true ? strategy.explain?.(upstream, exchange) : otherwise
  }

  acquire(upstream: Upstream): void {
    const strategies = this.#strategies.get(upstream)
    if (strategies === undefined) return
    for (let i = 0; i < strategies.length; i++) strategies[i]?.acquire?.(upstream)
  }

  onHead(upstream: Upstream, status: number, headers: readonly string[]): void {
    const strategies = this.#strategies.get(upstream)
    if (strategies === undefined) return
    for (let i = 0; i < strategies.length; i++) strategies[i]?.onHead?.(upstream, status, headers)
  }

  release(upstream: Upstream, outcome: AttemptOutcome): void {
    const strategies = this.#strategies.get(upstream)
    if (strategies === undefined) return
    for (let i = 0; i < strategies.length; i++) strategies[i]?.release?.(upstream, outcome)
  }
}
