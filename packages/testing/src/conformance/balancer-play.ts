/**
 * The heart of the suite: a pool played at random. Upstreams join, leave, change weight and fill up; exchanges start with and without a pick and
 * end in any order; and each pick is held against the whole truth, which the player knows.
 */
import assert from 'node:assert/strict'
import { type Balancer, type Exchange, isPickable } from '@weir/core'
import { type StubUpstream, stubUpstream } from '../balancer-fixtures.ts'
import { begin, end, stubClient } from './balancer-moves.ts'
import type { BalancerTraits } from './balancer-traits.ts'

export interface History {
  readonly title: string
  readonly upstreams: number
  readonly steps: number
  /** Chance of a step that changes membership or weights. */
  readonly churn: number
  /** About so many exchanges are in flight. */
  readonly inflight: number
}

export const histories: readonly History[] = [
  { title: 'few upstreams, calm', upstreams: 4, steps: 4_000, churn: 0.01, inflight: 6 },
  { title: 'few upstreams, much churn', upstreams: 6, steps: 1_500, churn: 0.2, inflight: 12 },
  { title: 'many upstreams, busy', upstreams: 60, steps: 4_000, churn: 0.02, inflight: 150 },
]

/** Plays a pool, checks every pick, and ends what was in flight. Returns all upstreams that took part. */
export function play(balancer: Balancer, random: () => number, history: History, traits: BalancerTraits): StubUpstream[] {
  const below = (n: number): number => Math.floor(random() * n)
  const all = Array.from({ length: history.upstreams }, (_, i) =>
    stubUpstream({ id: `s${i}`, weight: 1 + below(4) * below(4), maxConcurrent: [1, 3, 10, Number.POSITIVE_INFINITY][below(4)] as number }),
  )
  let available = all.filter(() => random() < 0.7)
  const running: StubUpstream[] = []
  balancer.update([...available])

  for (let step = 0; step < history.steps; step++) {
    const upstream = all[below(all.length)] as StubUpstream
    if (random() < history.churn) {
      // Whole as configured, or a fraction of it while a policy ramps it.
      if (random() < 0.3) upstream.weight = (1 + below(20)) * (random() < 0.5 ? 1 : (1 + below(10)) / 10)
      else if (available.includes(upstream)) available = available.filter((other) => other !== upstream)
      else available = [...available, upstream]
      balancer.update([...available])
    } else if (random() < running.length / (2 * history.inflight)) {
      const [ended] = running.splice(below(running.length), 1)
      end(balancer, ended as StubUpstream)
    } else if (random() < 0.1) {
      // Affinity: no pick, and not even a member for certain. But never beyond the cap.
      if (!upstream.full) {
        running.push(upstream)
        begin(balancer, upstream)
      }
    } else {
      const tried = all.filter(() => random() < (random() < 0.5 ? 0 : 2 / all.length))
      const picked = checked(balancer, stubClient(random, tried), available, traits, `step ${step}`)
      if (picked !== undefined) {
        running.push(picked)
        begin(balancer, picked)
      }
    }
  }
  for (const upstream of running) end(balancer, upstream)
  return all
}

/** One pick, held against what may be picked. */
export function checked(
  balancer: Balancer,
  exchange: Exchange,
  available: readonly StubUpstream[],
  traits?: BalancerTraits,
  where: string = '',
): StubUpstream | undefined {
  const picked = balancer.pick(exchange) as StubUpstream | undefined
  const pickable = available.filter((upstream) => isPickable(upstream, exchange))
  if (picked === undefined) {
    assert.equal(pickable.length, 0, `${where}: undefined, though ${pickable.length} are pickable`)
    return undefined
  }
  assert.ok(available.includes(picked), `${where}: ${picked.id} is not available`)
  assert.ok(isPickable(picked, exchange), `${where}: ${picked.id} is tried or full`)
  // Fractions of weights are rounded, so that 3 per 0.6 and 1 per 0.2 may differ in the last place.
  const load = ({ inflight, weight }: StubUpstream): number => Number((inflight / weight).toPrecision(12))
  const others = pickable.filter((upstream) => upstream !== picked)
  if (traits?.load === 'least')
    for (const other of others)
      assert.ok(load(picked) <= load(other), `${where}: ${picked.id} has more in flight per weight than ${other.id}`)
  if (traits?.load === 'compared' && others.length > 0)
    assert.ok(
      others.some((other) => load(other) >= load(picked)),
      `${where}: ${picked.id} is the busiest of all`,
    )
  return picked
}
