/**
 * A share of the traffic, for whatever a route can decide: `routes: [{ match: split.is('canary'), pool: canary }, { pool: stable }]`. A user
 * stays with the arm that the key says, on all proxies alike.
 */
import { type Exchange, OptionReader } from '@weir/core'
import { Arms, mostArms, readWeights } from './arms.ts'
import { evenHash } from './hash-balancer.ts'
import { type HashKeyOptions, hashKeyNames, readHashKey } from './hash-key.ts'

export interface TrafficSplitOptions<A extends string> extends HashKeyOptions {
  /**
   * Names to weights, relative to their sum: `{ stable: 95, canary: 5 }`. Put first the one that others are carved out of. Names stay what they
   * are when weights change, or keys move; and a name that is a number is put first by the language, whatever is written.
   */
  readonly arms: Readonly<Record<A, number>>
  /** Another salt divides keys in another way: without it, the same users are the canaries of every split. Default ''. */
  readonly salt?: string
}

export interface TrafficSplit<A extends string> {
  /** For `match` of a route. Of all arms, exactly one says true; with `missing: 'none'` and no key, none does. */
  is(arm: A): (exchange: Exchange) => boolean
  /** The arm of this exchange; undefined with `missing: 'none'` and no key. The same each time it is asked. */
  of(exchange: Exchange): A | undefined
  /** Takes effect with the next exchange. Arms that are not named keep their weight. @throws OptionsError */
  setWeights(weights: Readonly<Partial<Record<A, number>>>): void
}

/**
 * A traffic split outside a pool. When only weights change, no more keys move than the change is large. Not for arms within one pool: that is `split`.
 *
 * @throws OptionsError
 */
export function trafficSplit<const A extends string>(options: TrafficSplitOptions<A>): TrafficSplit<A> {
  const read = new OptionReader('trafficSplit')
  const given = read.object(options, [...hashKeyNames, 'arms', 'salt'])
  const key = readHashKey(read, given, evenHash)
  const names = typeof given.arms === 'object' && given.arms !== null ? (Object.keys(given.arms) as A[]) : []
  if (names.length < 2 || names.length > mostArms) read.problem('arms', given.arms, `2 to ${mostArms} names with their weights`)
  const none = names.map(() => 0)
  const weights = names.length === 0 ? none : readWeights(read.at('arms'), names, given.arms, none)
  const { salt = '' } = given
  if (typeof salt !== 'string') read.problem('salt', salt, 'a text')
  read.check()

  const arms = new Arms(names, weights, salt)
  // An exchange is asked once per route: what was drawn for it must not be drawn again.
  const drawn = new WeakMap<Exchange, number>()
  const armOf = (exchange: Exchange): number => {
    const before = drawn.get(exchange)
    if (before !== undefined) return before
    if (!key.read(exchange)) return -1
    const arm = arms.choose(key.hash)
    if (key.byChance) drawn.set(exchange, arm)
    return arm
  }
  return {
    is(arm) {
      const index = names.indexOf(arm)
      const reader = new OptionReader('trafficSplit.is')
      if (index === -1) reader.problem('arm', arm, `one of the arms ${names.join(', ')}`)
      reader.check()
      return (exchange) => armOf(exchange) === index
    },
    of: (exchange) => names[armOf(exchange)],
    setWeights(next) {
      const reader = new OptionReader('trafficSplit.setWeights')
      const weights = readWeights(
        reader,
        names,
        next,
        names.map((_, arm) => arms.weight(arm)),
      )
      reader.check()
      arms.setWeights(weights)
    },
  }
}
