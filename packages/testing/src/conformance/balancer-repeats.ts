/** With the same seed and the same history, a strategy chooses the same: else no failure could be looked at twice. */
import assert from 'node:assert/strict'
import type { Balancer } from '@weir/core'
import { seededRandom } from '../random.ts'
import { play } from './balancer-play.ts'
import type { BalancerTraits } from './balancer-traits.ts'

export function sameSeed(make: (seed: number) => Balancer, traits: BalancerTraits): void {
  const record = (): string => {
    const ids: string[] = []
    const balancer = make(11)
    const recording: Balancer = {
      name: balancer.name,
      update: (available) => balancer.update(available),
      pick: (exchange) => {
        const picked = balancer.pick(exchange)
        ids.push(picked?.id ?? '-')
        return picked
      },
      onHead: (upstream, status, headers) => balancer.onHead?.(upstream, status, headers),
      acquire: (upstream) => balancer.acquire?.(upstream),
      release: (upstream, outcome) => balancer.release?.(upstream, outcome),
    }
    play(recording, seededRandom(12), { title: '', upstreams: 20, steps: 2_000, churn: 0.02, inflight: 40 }, traits)
    return ids.join(' ')
  }
  assert.equal(record(), record())
}
