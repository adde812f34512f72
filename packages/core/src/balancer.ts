/**
 * The balancing port. A strategy is told about membership in `update`, where it may build whatever it likes, and asked in `pick`, where
 * it reads. Both facts matter: `update` runs when an upstream joins, leaves, changes weight or health; `pick` runs for every attempt of
 * every exchange and must not allocate, filter or wait.
 */
import type { AttemptOutcome, Exchange } from './exchange.ts'
import type { Upstream } from './upstream.ts'

export interface Balancer {
  readonly name: string
  /**
   * The upstreams that may be picked from now on: one tier, weight above 0, which need not be whole while a policy ramps it. On membership, weight
   * or health change only.
   */
  update(available: readonly Upstream[]): void
  /** Synchronous, without allocation. Returns undefined when nobody is pickable: see `isPickable`. */
  pick(exchange: Exchange): Upstream | undefined
  /**
   * For decision records: what there is to say of `upstream` in the pick just made, in a few words; why it did not come into question, or what was compared. Called
   * for each that could have been picked, and only while somebody listens. Default: nothing.
   */
  explain?(upstream: Upstream, exchange: Exchange): string | undefined
  /** An exchange goes to this upstream, however it was chosen (affinity and retries do not pass through `pick`). */
  acquire?(upstream: Upstream): void
  /** A final response head has come from this upstream. `headers` is its flat list, not to be changed: servers may report their load there. */
  onHead?(upstream: Upstream, status: number, headers: readonly string[]): void
  /** That exchange ended. Called once for every `acquire`, also for an upstream that has left. */
  release?(upstream: Upstream, outcome: AttemptOutcome): void
}

/** What every strategy must respect: an upstream already tried by this exchange, or at its concurrency cap, is not picked. */
export function isPickable(upstream: Upstream, exchange: Exchange): boolean {
  return !upstream.full && (exchange.tried.length === 0 || !exchange.tried.includes(upstream))
}
