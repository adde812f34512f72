/**
 * The port of everything that decides whether an upstream may be used. A policy watches attempts, or asks on its own, and votes; an upstream
 * is `down` while at least one policy says so. Votes are kept per policy, so that one policy's "up again" never overrules another's "down".
 */
import type { Clock } from './clock.ts'
import type { AttemptOutcome } from './exchange.ts'
import type { MaybePromise } from './stage.ts'
import type { Upstream } from './upstream.ts'

export interface HealthPolicy {
  readonly name: string
  /** The pool starts; called once. A policy instance belongs to one pool. */
  attach(pool: HealthControl): void
  /** Every attempt that ended, also on upstreams that are down. Keep it cheap: it runs on the data path. */
  onAttempt?(outcome: AttemptOutcome): void
  close?(): MaybePromise<void>
}

export interface DownOptions {
  /** The verdict is a guess from real traffic: a retry that has nobody else left may still go there. Default false. */
  readonly soft?: boolean
  /** Refuse to take down the last upstream that is `up`. Default false. */
  readonly keepLast?: boolean
}

/** What a policy may do to its pool. */
export interface HealthControl {
  readonly clock: Clock
  readonly upstreams: readonly Upstream[]
  /** False when the verdict was not accepted (`keepLast`, or the upstream has left). */
  setDown(upstream: Upstream, policy: HealthPolicy, reason: string, options?: DownOptions): boolean
  setUp(upstream: Upstream, policy: HealthPolicy, reason: string): void
}
