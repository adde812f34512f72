/** Shares by weight over long runs, when every exchange ends before the next begins; also after a turbulent past. */
import assert from 'node:assert/strict'
import type { Balancer } from '@weir/core'
import type { StubUpstream } from '../balancer-fixtures.ts'
import { seededRandom } from '../random.ts'
import { begin, end, stubClient } from './balancer-moves.ts'
import { play } from './balancer-play.ts'
import type { BalancerTraits } from './balancer-traits.ts'

export const weightings: readonly (readonly [string, readonly number[]])[] = [
  ['two equal', [1, 1]],
  ['5, 1, 1', [5, 1, 1]],
  ['1 to 10', [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]],
  ['100 to 1', [100, 1]],
  ['one heavy among fifty', [50, ...new Array<number>(50).fill(1)]],
  ['fractions, as in a slow start', [1, 0.1, 0.55, 1, 2.5]],
  ['a hundred equal', new Array<number>(100).fill(3)],
]

export function checkShares(
  balancer: Balancer,
  upstreams: readonly StubUpstream[],
  random: () => number,
  deviation: BalancerTraits['deviation'],
): void {
  const total = upstreams.reduce((sum, { weight }) => sum + weight, 0)
  const counts = new Map(upstreams.map((upstream) => [upstream, 0]))
  const lengths = [1_000, 5_000, 20_000]
  for (let picks = 1; picks <= 20_000; picks++) {
    const upstream = balancer.pick(stubClient(random)) as StubUpstream
    begin(balancer, upstream)
    end(balancer, upstream)
    counts.set(upstream, (counts.get(upstream) ?? 0) + 1)
    if (!lengths.includes(picks)) continue
    for (const [{ id, weight }, count] of counts) {
      const expected = (picks * weight) / total
      const allowed = deviation(expected, picks)
      assert.ok(
        Math.abs(count - expected) <= allowed,
        `${id} (weight ${weight}) got ${count} of ${picks}; ${expected} ± ${allowed} expected`,
      )
    }
  }
}

export function sharesAfterChurn(balancer: Balancer, traits: BalancerTraits): void {
  const history = { title: '', upstreams: 8, steps: 2_000, churn: 0.1, inflight: 20 }
  const random = seededRandom(10)
  const upstreams = play(balancer, random, history, traits)
  balancer.update(upstreams)
  // Twice the bound: the history may have ended at any point of a rotation.
  checkShares(balancer, upstreams, random, (expected, picks) => 2 * traits.deviation(expected, picks))
}
