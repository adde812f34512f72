/**
 * What every balancing strategy must do, as cases that run under any test runner. A strategy declares how near it keeps to the weights and
 * what it promises about load; everything else is the port's contract and not negotiable.
 *
 * The heart is `play` in `balancer-play.ts`, a pool played at random. All chance is seeded, so a case that passes, passes always.
 *
 * ```ts
 * for (const { name, run } of balancerConformance('mine', (options) => mine(options), traits)) test(name, run)
 * ```
 */
import type { Balancer } from '@weir/core'
import { stubUpstream } from '../balancer-fixtures.ts'
import { seededRandom } from '../random.ts'
import { allocatesNothing } from './balancer-allocations.ts'
import { nobody, onlyOneHasRoom, onlyOneUntried } from './balancer-limits.ts'
import { histories, play } from './balancer-play.ts'
import { sameSeed } from './balancer-repeats.ts'
import { checkShares, sharesAfterChurn, weightings } from './balancer-shares.ts'
import type { BalancerFactory, BalancerTraits } from './balancer-traits.ts'
import type { ConformanceCase } from './case.ts'

export type { BalancerFactory, BalancerTraits }

type NamedCheck = readonly [title: string, run: () => void]

/** @param factory makes a new instance that draws from `random` and from nothing else */
export function balancerConformance(name: string, factory: BalancerFactory, traits: BalancerTraits): ConformanceCase[] {
  const make = (seed: number): Balancer => factory({ random: seededRandom(seed) })
  const cases: NamedCheck[] = [
    ['returns undefined while there are no upstreams', () => nobody(make(1))],
    ...[1, 2, 3, 1_000, 10_000].map(
      (n): NamedCheck => [`finds the only one of ${n.toLocaleString('en')} that has room`, () => onlyOneHasRoom(make(n), n)],
    ),
    ...[1, 2, 3, 100].map((n): NamedCheck => [`finds the only one of ${n} that was not tried`, () => onlyOneUntried(make(n), n)]),
    ...weightings.map(
      ([title, weights]): NamedCheck => [
        `shares by weight: ${title}`,
        () => {
          const balancer = make(7)
          const upstreams = weights.map((weight, i) => stubUpstream({ id: `s${i}`, weight }))
          balancer.update(upstreams)
          checkShares(balancer, upstreams, seededRandom(8), traits.deviation)
        },
      ],
    ),
    ...[1, 2, 3].flatMap((seed) =>
      histories.map(
        (history): NamedCheck => [
          `picks nobody excluded, and somebody whenever it can: ${history.title}, seed ${seed}`,
          () => void play(make(seed), seededRandom(100 + seed), history, traits),
        ],
      ),
    ),
    ['comes back to its shares after churn with exchanges in flight', () => sharesAfterChurn(make(9), traits)],
    ['chooses the same with the same seed', () => sameSeed(make, traits)],
    ['allocates nothing', () => allocatesNothing(factory)],
  ]
  return cases.map(([title, run]) => ({ name: `${name} ${title}`, run: async () => run() }))
}
