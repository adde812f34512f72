/**
 * The health policies of one pool: who listens to what, and what they may do (`HealthControl`). Policies say, the pool decides: every statement
 * ends in `pool.settle` (state), `pool.refresh` (who may be picked) or `pool.wake` (room for a waiter), and in events. Which policies listen
 * to attempts, heads and picks is worked out once, so that a moment that nobody listens to costs one test for `undefined`.
 */
import type { Clock } from './clock.ts'
import type { ProxyError } from './errors.ts'
import { poolFailOpen, upstreamDegraded } from './events.ts'
import type { AttemptOutcome, Exchange } from './exchange.ts'
import type { DownOptions, HealthControl, HealthPolicy, UpstreamChange } from './health.ts'
import type { AddressCheck } from './transport/address-check.ts'
import type { UpstreamTlsOptions } from './transport/tls.ts'
import type { PoolUpstream, Upstream } from './upstream.ts'
import { Verdicts } from './verdicts.ts'

/** What the policies' side needs of the pool. */
export interface HealthTarget {
  readonly name: string
  readonly clock: Clock
  readonly random: () => number
  readonly tls: UpstreamTlsOptions | undefined
  readonly allowAddress: AddressCheck | undefined
  readonly upstreams: readonly Upstream[]
  readonly inflight: number
  readonly waiting: number
  /** Works out the state from verdicts; `refresh` follows when it changed. */
  settle(upstream: PoolUpstream, reason: string, error?: unknown): void
  /** Who may be picked has changed. */
  refresh(): void
  /** The weight of `upstream` has changed, or it was full and is not: as `refresh`, but not more often than need be. */
  reweigh(upstream: PoolUpstream): void
  /** There may be room for somebody who waits. */
  wake(): void
  /** Ends what runs on this upstream. */
  cut(upstream: PoolUpstream, what: 'tunnels' | 'all'): void
}

type Listening<K extends keyof HealthPolicy> = HealthPolicy & Required<Pick<HealthPolicy, K>>

function listening<K extends keyof HealthPolicy>(policies: readonly HealthPolicy[], key: K): readonly Listening<K>[] | undefined {
  const found = policies.filter((policy) => policy[key] !== undefined) as Listening<K>[]
  return found.length === 0 ? undefined : found
}

/** What an extension throws where no exchange can answer for it. */
export function warnOf(what: string, cause: unknown): void {
  const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)
  process.emitWarning(`${what}: ${text}`, { code: 'WEIR_EXTENSION' })
}

export class PoolHealth implements HealthControl {
  /** While true, upstreams that are down are used as if they were up. */
  failOpen: boolean = false
  /** Somebody wants to see response heads. */
  readonly watchesHeads: boolean
  readonly #pool: HealthTarget
  readonly #policies: readonly HealthPolicy[]
  readonly #changes: readonly Listening<'onUpstream'>[] | undefined
  readonly #admit: readonly Listening<'admit'>[] | undefined
  readonly #acquire: readonly Listening<'onAcquire'>[] | undefined
  readonly #head: readonly Listening<'onHead'>[] | undefined
  readonly #attempt: readonly Listening<'onAttempt'>[] | undefined
  readonly #openers = new Set<HealthPolicy>()
  readonly #attached = new Set<HealthPolicy>()
  readonly #started = new Set<HealthPolicy>()

  constructor(pool: HealthTarget, policies: readonly HealthPolicy[]) {
    this.#pool = pool
    this.#policies = policies
    this.#changes = listening(policies, 'onUpstream')
    this.#admit = listening(policies, 'admit')
    this.#acquire = listening(policies, 'onAcquire')
    this.#head = listening(policies, 'onHead')
    this.#attempt = listening(policies, 'onAttempt')
    this.watchesHeads = this.#head !== undefined
  }

  // What the pool tells the policies

  attach(): void {
    for (const policy of this.#policies) {
      policy.attach(this)
      this.#attached.add(policy)
    }
  }

  /** Something has to be started before the first request. */
  get startable(): boolean {
    return this.#policies.some((policy) => policy.start !== undefined)
  }

  async start(): Promise<void> {
    await Promise.all(this.#policies.map((policy) => this.#startOne(policy)))
  }

  /** One that fails may be started again; none is started twice. */
  async #startOne(policy: HealthPolicy): Promise<void> {
    if (policy.start === undefined || this.#started.has(policy)) return
    this.#started.add(policy)
    try {
      await policy.start()
    } catch (error) {
      this.#started.delete(policy)
      throw error
    }
  }

  tell(change: UpstreamChange): void {
    if (this.#changes === undefined) return
    for (const policy of this.#changes) {
      if (!this.#attached.has(policy)) continue
      // One that throws must not leave a list half applied, or the others untold.
      try {
        policy.onUpstream(change)
      } catch (cause) {
        warnOf(`onUpstream of the health policy ${policy.name} threw`, cause)
      }
    }
  }

  admit(exchange: Exchange): ProxyError | undefined {
    const asked = this.#admit
    if (asked === undefined) return undefined
    for (let i = 0; i < asked.length; i++) {
      const error = asked[i]?.admit(exchange)
      if (error !== undefined) return error
    }
    return undefined
  }

  acquired(upstream: Upstream, exchange: Exchange): void {
    const told = this.#acquire
    if (told === undefined) return
    for (let i = 0; i < told.length; i++) {
      const policy = told[i] as (typeof told)[number]
      try {
        policy.onAcquire(upstream, exchange)
      } catch (cause) {
        warnOf(`onAcquire of the health policy ${policy.name} threw`, cause)
      }
    }
  }

  head(upstream: Upstream, status: number, headers: readonly string[], attempt: AttemptOutcome): void {
    const told = this.#head
    if (told === undefined) return
    for (let i = 0; i < told.length; i++) {
      const policy = told[i] as (typeof told)[number]
      try {
        policy.onHead(upstream, status, headers, attempt)
      } catch (cause) {
        warnOf(`onHead of the health policy ${policy.name} threw`, cause)
      }
    }
  }

  ended(outcome: AttemptOutcome): void {
    const told = this.#attempt
    if (told === undefined) return
    for (let i = 0; i < told.length; i++) {
      const policy = told[i] as (typeof told)[number]
      try {
        policy.onAttempt(outcome)
      } catch (cause) {
        warnOf(`onAttempt of the health policy ${policy.name} threw`, cause)
      }
    }
  }

  async close(): Promise<void> {
    const results = await Promise.allSettled(this.#policies.map(async (policy) => policy.close?.()))
    const failed = results.find((result) => result.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }

  // HealthControl: what the policies tell the pool

  get name(): string {
    return this.#pool.name
  }

  get clock(): Clock {
    return this.#pool.clock
  }

  get random(): () => number {
    return this.#pool.random
  }

  get tls(): UpstreamTlsOptions | undefined {
    return this.#pool.tls
  }

  get allowAddress(): AddressCheck | undefined {
    return this.#pool.allowAddress
  }

  get upstreams(): readonly Upstream[] {
    return this.#pool.upstreams
  }

  get inflight(): number {
    return this.#pool.inflight
  }

  get waiting(): number {
    return this.#pool.waiting
  }

  setDown(upstream: Upstream, policy: HealthPolicy, reason: string, options: DownOptions = {}): boolean {
    const own = upstream as PoolUpstream
    if (own.gone) return false
    if (
      options.keepLast === true &&
      !this.#pool.upstreams.some((other) => other !== own && other.state === 'up' && other.configuredWeight > 0)
    )
      return false
    own.verdicts ??= new Verdicts()
    own.verdicts.of(policy).down = { ...options, reason }
    this.#pool.settle(own, reason, options.error)
    if (options.cut !== undefined) this.#pool.cut(own, options.cut)
    return true
  }

  setUp(upstream: Upstream, policy: HealthPolicy, reason: string): void {
    const own = upstream as PoolUpstream
    if (own.gone || own.verdicts === undefined) return
    own.verdicts.of(policy).down = undefined
    this.#tidy(own)
    this.#pool.settle(own, reason)
  }

  setDegraded(upstream: Upstream, policy: HealthPolicy, degraded: boolean, reason: string): void {
    const own = upstream as PoolUpstream
    if (own.gone || (!degraded && own.verdicts === undefined)) return
    own.verdicts ??= new Verdicts()
    own.verdicts.of(policy).degraded = degraded ? reason : undefined
    this.#tidy(own)
    const now = own.verdicts?.degraded !== undefined
    if (now === own.degraded) return
    own.degraded = now
    if (upstreamDegraded.hasSubscribers) upstreamDegraded.publish({ pool: this.name, upstream, degraded: now, reason })
    this.#pool.refresh()
  }

  setDraining(upstream: Upstream, policy: HealthPolicy, draining: boolean, reason: string): void {
    const own = upstream as PoolUpstream
    if (own.gone || (!draining && own.verdicts === undefined)) return
    own.verdicts ??= new Verdicts()
    own.verdicts.of(policy).draining = draining ? reason : undefined
    this.#tidy(own)
    this.#pool.settle(own, reason)
  }

  setWeightFactor(upstream: Upstream, policy: HealthPolicy, factor: number): void {
    const own = upstream as PoolUpstream
    if (own.gone || !(factor > 0)) return
    own.verdicts ??= new Verdicts()
    own.verdicts.of(policy).factor = Math.min(1, factor)
    this.#tidy(own)
    const before = own.weight
    own.rate()
    if (own.weight !== before) this.#pool.reweigh(own)
  }

  setLimit(upstream: Upstream, policy: HealthPolicy, limit: number): void {
    const own = upstream as PoolUpstream
    if (own.gone || !(limit >= 1)) return
    own.verdicts ??= new Verdicts()
    own.verdicts.of(policy).limit = limit
    this.#tidy(own)
    const before = own.maxConcurrent
    own.rate()
    if (own.maxConcurrent <= before) return
    // Strategies keep those who are full apart until their next release, which may be far off.
    if (own.inflight >= before) this.#pool.reweigh(own)
    this.#pool.wake()
  }

  setFailOpen(policy: HealthPolicy, failOpen: boolean, reason: string): void {
    if (failOpen) this.#openers.add(policy)
    else this.#openers.delete(policy)
    const now = this.#openers.size > 0
    if (now === this.failOpen) return
    this.failOpen = now
    if (poolFailOpen.hasSubscribers) poolFailOpen.publish({ pool: this.name, failOpen: now, reason })
    this.#pool.refresh()
  }

  #tidy(own: PoolUpstream): void {
    if (own.verdicts?.tidy() === true) own.verdicts = undefined
  }
}
