/**
 * The first strategy that has an answer: `fallback(hash({ key: 'cookie:uid', missing: 'none' }), leastConnections())` keeps those who have the
 * cookie where they are, and spreads all others by load.
 */
import { type AttemptOutcome, type Balancer, type Exchange, OptionReader, type Upstream } from '@weir/core'
import { isBalancer } from './nested.ts'

/**
 * Asks in order until one picks somebody. All of them see all upstreams and all exchanges, whoever picked, so that those who count are right when
 * it comes to them. Each must be an instance of its own, and belongs to this one from then on.
 *
 * Only strategies that may have no answer (`missing: 'none'`, `subsets`, `split` with `empty: 'none'`) are of use before the last: others answer
 * whenever anybody can be picked.
 *
 * @throws OptionsError
 */
export function fallback(first: Balancer, second: Balancer, ...more: readonly Balancer[]): Balancer {
  const read = new OptionReader('fallback')
  const strategies = [first, second, ...more]
  strategies.forEach((strategy, i) => {
    if (!isBalancer(strategy)) read.problem(i, strategy, 'a strategy such as leastConnections() (mind the call)')
    else if (strategies.indexOf(strategy) < i) read.problem(i, strategy.name, 'an instance of its own')
  })
  read.check()
  return new Fallback(strategies)
}

class Fallback implements Balancer {
  readonly name: string
  readonly #strategies: readonly Balancer[]
  /** The last that was asked. */
  #asked = 0

  constructor(strategies: readonly Balancer[]) {
    this.name = `fallback:${strategies.map(({ name }) => name).join(',')}`
    this.#strategies = strategies
  }

  update(available: readonly Upstream[]): void {
    for (const strategy of this.#strategies) strategy.update(available)
  }

  pick(exchange: Exchange): Upstream | undefined {
    for (let i = 0; i < this.#strategies.length; i++) {
      this.#asked = i
      const picked = (this.#strategies[i] as Balancer).pick(exchange)
      if (picked !== undefined) return picked
    }
    return undefined
  }

  explain(upstream: Upstream, exchange: Exchange): string | undefined {
    const asked = this.#strategies[this.#asked] as Balancer
    const note = asked.explain?.(upstream, exchange)
    return note === undefined ? undefined : `${asked.name}: ${note}`
  }

  acquire(upstream: Upstream): void {
    for (let i = 0; i < this.#strategies.length; i++) this.#strategies[i]?.acquire?.(upstream)
  }

  onHead(upstream: Upstream, status: number, headers: readonly string[]): void {
    for (let i = 0; i < this.#strategies.length; i++) this.#strategies[i]?.onHead?.(upstream, status, headers)
  }

  release(upstream: Upstream, outcome: AttemptOutcome): void {
    for (let i = 0; i < this.#strategies.length; i++) this.#strategies[i]?.release?.(upstream, outcome)
  }
}
