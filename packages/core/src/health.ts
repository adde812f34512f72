/**
 * The port of everything that decides whether, and how much, an upstream may be used. A policy watches attempts, or asks on its own, and says
 * what it thinks; the pool puts together what all of them say. Every statement is kept per policy, so that one policy's "up again" never
 * overrules another's "down":
 * - an upstream is `down` while at least one policy says so, and draining or degraded likewise;
 * - its weight is the configured one times the factors of all policies, its concurrency cap the least of all limits.
 */
import type { Clock } from './clock.ts'
import type { ProxyError } from './errors.ts'
import type { AttemptOutcome, Exchange } from './exchange.ts'
import type { MaybePromise } from './stage.ts'
import type { AddressCheck } from './transport/address-check.ts'
import type { UpstreamTlsOptions } from './transport/tls.ts'
import type { Upstream, UpstreamState } from './upstream.ts'

export interface HealthPolicy {
  readonly name: string
  /** The pool exists; called once, with the first upstreams in place. Nothing is opened here. A policy instance belongs to one pool. */
  attach(pool: HealthControl): void
  /** Traffic is about to begin: probes and timers may. Called once, and never for a pool that is not used. The first request waits for a promise. */
  start?(): MaybePromise<void>
  /**
   * An upstream joined (after `attach`), changed state, or left. Called before the balancer is told: what a policy says of the upstream from
   * within is in force from the first pick on.
   */
  onUpstream?(change: UpstreamChange): void
  /** Before each try, on the data path: an error keeps this exchange from trying. Only looks; what is taken is told by `onAcquire`. */
  admit?(exchange: Exchange): ProxyError | undefined
  /** A try goes to `upstream`. `onAttempt` follows for every one. */
  onAcquire?(upstream: Upstream, exchange: Exchange): void
  /**
   * A final response head has come (101 included), before anything of it was sent on. `headers` is the upstream's flat list, not to be changed;
   * `attempt` is the object that `onAttempt` will be given at the end, as far as it is known by now.
   */
  onHead?(upstream: Upstream, status: number, headers: readonly string[], attempt: AttemptOutcome): void
  /** Every attempt that ended, also on upstreams that are down. Keep it cheap: it runs on the data path. */
  onAttempt?(outcome: AttemptOutcome): void
  close?(): MaybePromise<void>
}

export interface UpstreamChange {
  readonly upstream: Upstream
  /** Undefined: it has just joined. */
  readonly from: UpstreamState | undefined
  /** Undefined: it has left. */
  readonly to: UpstreamState | undefined
  readonly reason: string
}

export interface DownOptions {
  /** The verdict is a guess from real traffic: a retry that has nobody else left may still go there. Default false. */
  readonly soft?: boolean
  /** Refuse to take down the last upstream that is `up`. Default false. */
  readonly keepLast?: boolean
  /** What made the policy say so; kept for events and `proxy.health()`. */
  readonly error?: unknown
  /** What to end at once: `tunnels`, `all` exchanges in flight (they fail as if the upstream had reset them), or nothing. Default nothing. */
  readonly cut?: 'tunnels' | 'all'
}

/** What a policy may do to its pool. Nothing here throws, also for upstreams that have left. */
export interface HealthControl {
  /** The pool's. */
  readonly name: string
  readonly clock: Clock
  /** For jitter. From 0 up to, not including, 1. */
  readonly random: () => number
  readonly upstreams: readonly Upstream[]
  /** TLS towards the upstreams, when the pool was given any. */
  readonly tls: UpstreamTlsOptions | undefined
  /** Which addresses may be connected to, as the pool or its transport was told. Whoever connects to upstreams on its own asks it: see `checkedLookup`. */
  readonly allowAddress: AddressCheck | undefined
  /** Attempts in flight, tunnels included. */
  readonly inflight: number
  /** Exchanges that wait for a slot. */
  readonly waiting: number
  /** False when the verdict was not accepted (`keepLast`, or the upstream has left). Said again, it replaces reason and options. */
  setDown(upstream: Upstream, policy: HealthPolicy, reason: string, options?: DownOptions): boolean
  setUp(upstream: Upstream, policy: HealthPolicy, reason: string): void
  /** A degraded upstream is up, but used only while no tier has anybody who is not. */
  setDegraded(upstream: Upstream, policy: HealthPolicy, degraded: boolean, reason: string): void
  /** A draining upstream gets no new exchange but those with affinity to it. */
  setDraining(upstream: Upstream, policy: HealthPolicy, draining: boolean, reason: string): void
  /** Above 0 up to 1; 1 takes the factor back. Every change has the balancer build its tables anew: take steps, not a slope. */
  setWeightFactor(upstream: Upstream, policy: HealthPolicy, factor: number): void
  /** Most exchanges at once, at least 1; `Infinity` takes the limit back. */
  setLimit(upstream: Upstream, policy: HealthPolicy, limit: number): void
  /** While any policy says so, upstreams that are down are used as if they were up: wrong answers are better than none. */
  setFailOpen(policy: HealthPolicy, failOpen: boolean, reason: string): void
}
