/**
 * A pool: the upstreams that serve the same thing, who of them may be picked, and who waits when all are busy. Everything that is worked out
 * (the tier in use, the balancer's tables) is worked out when membership, weight or health changes; a pick reads.
 *
 * Tiers: the upstreams of the lowest `priority` that has anybody up are in use. A retry may look beyond its tier, because an exchange that
 * has seen one server fail is better served by a backup than by an error.
 *
 * Membership, health and picking are in one class because they are one invariant: what may be picked is what is a member, up and of the tier in
 * use, and each of the three changes it.
 */

import type { Attempt } from './attempt.ts'
import type { Balancer } from './balancer.ts'
import { isPickable } from './balancer.ts'
import { type Clock, readClock } from './clock.ts'
import { ProxyError } from './errors.ts'
import { upstreamState } from './events.ts'
import type { Exchange } from './exchange.ts'
import type { DownOptions, HealthControl, HealthPolicy } from './health.ts'
import { type Duration, OptionReader } from './options.ts'
import {
  type LeaveOptions,
  ownedBalancers,
  type PoolOptions,
  type PoolStats,
  poolKeys,
  readBalancer,
  readHealth,
  readLeave,
  readTransport,
} from './pool-options.ts'
import { type Waiter, WaitQueue } from './queue.ts'
import type { Transport } from './transport/transport.ts'
import { type PoolUpstream, parseUpstream, type Upstream, type UpstreamInput, type UpstreamState } from './upstream.ts'

export interface Pool {
  readonly name: string
  readonly upstreams: readonly Upstream[]
  get(id: string): Upstream | undefined
  /** Takes traffic from now on. @throws OptionsError also when the id is taken */
  add(upstream: UpstreamInput): Upstream
  /** Gets no new exchange from now on; resolves when the last one in flight has ended. Unknown ids resolve at once. */
  remove(id: string, options?: LeaveOptions): Promise<void>
  /** As `remove`, but stays a member and keeps sessions with affinity. `undrain` brings it back. */
  drain(id: string, options?: LeaveOptions): Promise<void>
  undrain(id: string): void
  /** From 0 (no traffic but affinity) to 65535. @throws OptionsError */
  setWeight(id: string, weight: number): void
  stats(): PoolStats
  /** Ends health policies and connections. Exchanges in flight go on. Idempotent. */
  close(): Promise<void>
}

/** @throws OptionsError */
export function createPool(options: PoolOptions): Pool {
  const read = new OptionReader('createPool')
  const pool = new LivePool(options, read)
  read.check()
  pool.begin()
  return pool
}

/** The pool as core uses it. */
export class LivePool implements Pool, HealthControl {
  readonly name: string
  readonly clock: Clock
  readonly transport: Transport
  readonly #ownsTransport: boolean
  readonly #members: PoolUpstream[] = []
  readonly #byId = new Map<string, PoolUpstream>()
  readonly #balancer: Balancer
  readonly #health: readonly HealthPolicy[]
  readonly #observers: readonly HealthPolicy[]
  readonly #queue: WaitQueue | undefined
  readonly #maxConcurrent: number
  /** The tier in use. */
  #inUse: readonly PoolUpstream[] = []
  #closed = false

  constructor(options: PoolOptions, read: OptionReader) {
    const given = read.object<PoolOptions>(options, poolKeys)
    this.name = read.name('name', given.name, 'pool')
    this.clock = readClock(given.clock, read)
    this.#maxConcurrent = read.number('maxConcurrent', given.maxConcurrent, Number.POSITIVE_INFINITY, { min: 1 })
    const queue =
      given.queue === false ? undefined : read.at('queue').object<{ limit?: number; timeout?: Duration }>(given.queue, ['limit', 'timeout'])
    this.#queue =
      queue === undefined
        ? undefined
        : new WaitQueue(
            this.clock,
            read.at('queue').number('limit', queue.limit, 1000, { min: 0, integer: true }),
            read.at('queue').duration('timeout', queue.timeout, 5000, { min: 1 }),
          )
    this.#balancer = readBalancer(given.balancer, read)
    this.#health = readHealth(given.health, read)
    this.#observers = this.#health.filter((policy) => policy.onAttempt !== undefined)
    this.#ownsTransport = given.transport === undefined
    if (given.transport !== undefined && given.tls !== undefined)
      read.problem('tls', '(set)', 'either `tls` or a `transport`, which has TLS options of its own')
    this.transport = readTransport(given, read)
    if (!Array.isArray(given.upstreams)) read.problem('upstreams', given.upstreams, "a list such as ['http://10.0.0.1:3000']")
    else
      for (const [index, input] of given.upstreams.entries()) {
        const upstream = this.#parse(input, read.at('upstreams').at(index))
        if (upstream !== undefined) this.#join(upstream)
      }
  }

  /** Options were right: tell the balancer and the policies. */
  begin(): void {
    ownedBalancers.add(this.#balancer)
    for (const policy of this.#health) policy.attach(this)
    this.#refresh()
  }

  #join(upstream: PoolUpstream): void {
    this.#members.push(upstream)
    this.#byId.set(upstream.id, upstream)
  }

  /** An upstream that may join, or undefined with the problems recorded. */
  #parse(input: unknown, read: OptionReader): PoolUpstream | undefined {
    const upstream = parseUpstream(input, read, this.#maxConcurrent)
    if (upstream === undefined) return undefined
    if (this.#byId.has(upstream.id)) {
      read.problem('id', upstream.id, 'an id that no other upstream of this pool has; give one of them an `id` of its own')
      return undefined
    }
    return upstream
  }

  // Membership

  get upstreams(): readonly Upstream[] {
    return this.#members
  }

  get(id: string): Upstream | undefined {
    return this.#byId.get(id)
  }

  add(input: UpstreamInput): Upstream {
    const read = new OptionReader('pool.add')
    const upstream = this.#parse(input, read)
    read.check()
    this.#join(upstream as PoolUpstream)
    this.#refresh()
    return upstream as PoolUpstream
  }

  remove(id: string, options?: LeaveOptions): Promise<void> {
    const deadline = readLeave('pool.remove', options)
    const upstream = this.#byId.get(id)
    if (upstream === undefined) return Promise.resolve()
    this.#byId.delete(id)
    this.#members.splice(this.#members.indexOf(upstream), 1)
    upstream.gone = true
    this.#setState(upstream, 'draining', 'removed')
    this.#refresh()
    this.transport.forget?.(upstream)
    return this.#idle(upstream, deadline)
  }

  drain(id: string, options?: LeaveOptions): Promise<void> {
    const deadline = readLeave('pool.drain', options)
    const upstream = this.#byId.get(id)
    if (upstream === undefined) return Promise.resolve()
    upstream.draining = true
    this.#settleState(upstream, 'drained by the application')
    return this.#idle(upstream, deadline)
  }

  undrain(id: string): void {
    const upstream = this.#byId.get(id)
    if (upstream === undefined) return
    upstream.draining = false
    // Nobody waits for it to be empty any more, and no deadline cuts what it does from now on.
    settleIdle(upstream)
    this.#settleState(upstream, 'undrained by the application')
  }

  setWeight(id: string, weight: number): void {
    const read = new OptionReader('pool.setWeight')
    const upstream = this.#byId.get(id)
    if (upstream === undefined) read.problem('id', id, 'the id of a member of this pool')
    const value = read.number('weight', weight, 1, { min: 0, max: 65_535, integer: true })
    read.check()
    if (upstream === undefined || upstream.weight === value) return
    upstream.weight = value
    this.#refresh()
  }

  #idle(upstream: PoolUpstream, deadline: number): Promise<void> {
    if (upstream.inflight === 0) return Promise.resolve()
    const { promise, resolve } = Promise.withResolvers<void>()
    let timer: unknown
    if (deadline >= 0)
      timer = this.clock.setTimeout(() => {
        for (let attempt = upstream.running; attempt !== undefined; ) {
          const { next } = attempt
          attempt.cut()
          attempt = next
        }
      }, deadline)
    upstream.onIdle ??= []
    upstream.onIdle.push(() => {
      this.clock.clearTimeout(timer)
      resolve()
    })
    return promise
  }

  /** Links a running attempt to its upstream, so that a deadline finds it. */
  enter(attempt: Attempt): void {
    const own = attempt.upstream as PoolUpstream
    const first = own.running
    attempt.next = first
    if (first !== undefined) first.previous = attempt
    own.running = attempt
  }

  #leave(attempt: Attempt, own: PoolUpstream): void {
    const { previous, next } = attempt
    if (previous !== undefined) previous.next = next
    else if (own.running === attempt) own.running = next
    if (next !== undefined) next.previous = previous
    attempt.previous = undefined
    attempt.next = undefined
  }

  // Health

  setDown(upstream: Upstream, policy: HealthPolicy, reason: string, options: DownOptions = {}): boolean {
    const own = upstream as PoolUpstream
    if (own.gone) return false
    if (
      options.keepLast === true &&
      own.state === 'up' &&
      !this.#members.some((other) => other !== own && other.state === 'up' && other.weight > 0)
    )
      return false
    own.votes ??= new Map()
    own.votes.set(policy, { reason, soft: options.soft ?? false })
    this.#settleState(own, reason)
    return true
  }

  setUp(upstream: Upstream, policy: HealthPolicy, reason: string): void {
    const own = upstream as PoolUpstream
    if (own.gone || own.votes === undefined || !own.votes.delete(policy)) return
    if (own.votes.size === 0) own.votes = undefined
    this.#settleState(own, reason)
  }

  #settleState(upstream: PoolUpstream, reason: string): void {
    const state: UpstreamState = upstream.draining ? 'draining' : upstream.votes === undefined ? 'up' : 'down'
    if (state === upstream.state) return
    this.#setState(upstream, state, reason)
    this.#refresh()
  }

  #setState(upstream: PoolUpstream, to: UpstreamState, reason: string): void {
    const from = upstream.state
    if (from === to) return
    upstream.state = to
    if (upstreamState.hasSubscribers) upstreamState.publish({ pool: this.name, upstream, from, to, reason })
  }

  /** The tier in use, to the balancer. */
  #refresh(): void {
    let lowest = Number.POSITIVE_INFINITY
    for (const member of this.#members) if (member.state === 'up' && member.weight > 0 && member.priority < lowest) lowest = member.priority
    this.#inUse = this.#members.filter((member) => member.state === 'up' && member.weight > 0 && member.priority === lowest)
    this.#balancer.update(this.#inUse)
    this.#wake()
  }

  // The data path

  /**
   * Chooses and takes an upstream: affinity first, then the balancer, then, for a retry, whoever is left anywhere. Undefined when nobody is
   * pickable now. Every upstream returned must be given to `release` once.
   */
  pick(exchange: Exchange): Upstream | undefined {
    let upstream: Upstream | undefined
    if (exchange.affinity !== undefined) {
      const wanted = this.#byId.get(exchange.affinity)
      if (wanted !== undefined && wanted.state !== 'down' && isPickable(wanted, exchange)) upstream = wanted
    }
    upstream ??= this.#balancer.pick(exchange)
    if (upstream === undefined && exchange.tried.length > 0) upstream = this.#lastResort(exchange)
    if (upstream === undefined) return undefined
    ;(upstream as PoolUpstream).inflight++
    this.#balancer.acquire?.(upstream)
    return upstream
  }

  /** For retries: any other tier, then upstreams that are down on suspicion only; the least busy. */
  #lastResort(exchange: Exchange): PoolUpstream | undefined {
    let best: PoolUpstream | undefined
    let bestRank = Number.POSITIVE_INFINITY
    for (const member of this.#members) {
      if (member.weight === 0 || !isPickable(member, exchange)) continue
      if (member.state !== 'up' && !(member.state === 'down' && member.softDown)) continue
      const rank = (member.state === 'up' ? 0 : 2e6) + member.priority * 1000 + Math.min(member.inflight, 999)
      if (rank < bestRank) {
        best = member
        bestRank = rank
      }
    }
    return best
  }

  /** Is there anybody whom waiting could bring? */
  get hasUp(): boolean {
    return this.#members.some((member) => member.state === 'up' && member.weight > 0)
  }

  /** True when a new exchange must queue behind others, whoever is free. */
  get hasWaiters(): boolean {
    return this.#queue !== undefined && this.#queue.size > 0
  }

  /** Waits for a slot. `settle` is called without an error when it is worth calling `pick` again. */
  wait(exchange: Exchange, settle: (error: ProxyError | undefined) => void): Waiter | ProxyError {
    if (!this.hasUp) return new ProxyError('ERR_NO_UPSTREAM')
    return this.#queue?.enter(exchange, settle) ?? new ProxyError('ERR_QUEUE_FULL')
  }

  leave(waiter: Waiter): void {
    this.#queue?.leave(waiter)
  }

  /** The attempt ended; policies and the balancer learn from it. */
  release(attempt: Attempt): void {
    const own = attempt.upstream as PoolUpstream
    this.#leave(attempt, own)
    own.inflight--
    if (attempt.headMs !== undefined) own.observe(attempt.headMs)
    this.#balancer.release?.(own, attempt)
    for (let i = 0; i < this.#observers.length; i++) this.#observers[i]?.onAttempt?.(attempt)
    if (own.inflight === 0 && own.onIdle !== undefined) settleIdle(own)
    this.#wake()
  }

  #wake(): void {
    const queue = this.#queue
    if (queue === undefined || queue.size === 0) return
    if (!this.hasUp) queue.fail(() => new ProxyError('ERR_NO_UPSTREAM'))
    // Room may have come for several at once. Each one that is let go takes its slot before the next is looked at; a balancer that finds
    // nobody all the same must not keep us here.
    else for (let left = queue.size; left > 0 && queue.wake((waiter) => this.#hasRoomFor(waiter.exchange)); left--) {}
  }

  /** Would `pick` find somebody? The same rules, in the same order. */
  #hasRoomFor(exchange: Exchange): boolean {
    if (exchange.affinity !== undefined) {
      const wanted = this.#byId.get(exchange.affinity)
      if (wanted !== undefined && wanted.state !== 'down' && isPickable(wanted, exchange)) return true
    }
    if (this.#inUse.some((member) => isPickable(member, exchange))) return true
    return exchange.tried.length > 0 && this.#lastResort(exchange) !== undefined
  }

  stats(): PoolStats {
    return {
      name: this.name,
      waiting: this.#queue?.size ?? 0,
      upstreams: this.#members.map(({ id, state, weight, inflight, latencyMs }) => ({ id, state, weight, inflight, latencyMs })),
    }
  }

  /** For the check that no two pools share one. */
  get balancer(): Balancer {
    return this.#balancer
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const policy of this.#health) await policy.close?.()
    this.#queue?.fail(() => new ProxyError('ERR_DRAINING'))
    if (this.#ownsTransport) await this.transport.close?.()
  }
}

function settleIdle(upstream: PoolUpstream): void {
  const callbacks = upstream.onIdle ?? []
  upstream.onIdle = undefined
  for (const callback of callbacks) callback()
}
