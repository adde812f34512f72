/**
 * A pool: the upstreams that serve the same thing, who of them may be picked, and who waits when all are busy. Everything that is worked out
 * (the tier in use, the balancer's tables) is worked out when membership, weight or health changes; a pick reads.
 *
 * Tiers: the upstreams of the lowest `priority` that has anybody up are in use. A retry may look beyond its tier, because an exchange that
 * has seen one server fail is better served by a backup than by an error.
 *
 * Membership, state and picking are in one class because they are one invariant: what may be picked is what is a member, usable and of the tier
 * in use, and each of the three changes it. What health policies say, and to whom they listen, is in pool-health.ts.
 */

import type { Attempt } from './attempt.ts'
import type { Balancer } from './balancer.ts'
import { isPickable } from './balancer.ts'
import { type Clock, readClock } from './clock.ts'
import { type ChoiceBy, recordDecision } from './decision.ts'
import { ProxyError } from './errors.ts'
import { decisions, upstreamState } from './events.ts'
import type { AttemptOutcome, Exchange } from './exchange.ts'
import { type Duration, OptionReader } from './options.ts'
import { type HealthTarget, PoolHealth, warnOf } from './pool-health.ts'
import {
  type LeaveOptions,
  ownedBalancers,
  type PoolHealthReport,
  type PoolOptions,
  type PoolStats,
  poolKeys,
  readBalancer,
  readHealth,
  readLeave,
  readTransport,
} from './pool-options.ts'
import { type AppliedList, isSource, SourceReader } from './pool-source.ts'
import { type Settle, type Waiter, WaitQueue } from './queue.ts'
import type { AddressCheck } from './transport/address-check.ts'
import type { UpstreamTlsOptions } from './transport/tls.ts'
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
  /** Every upstream with its state, and why it is in it. */
  health(): PoolHealthReport
  /**
   * Starts the source of upstreams and the health policies that work on their own; resolves when the source has given its first list (or has
   * failed, or has said nothing for 10 s). The first proxy that uses the pool calls it. Idempotent.
   */
  start(): Promise<void>
  /** Ends the source, health policies and connections. Exchanges in flight go on. Idempotent. */
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

/** Milliseconds between two refreshes for the sake of weights alone. */
const reweighEvery = 10

/** The pool as core uses it. */
export class LivePool implements Pool, HealthTarget {
  readonly name: string
  readonly clock: Clock
  readonly random: () => number
  readonly tls: UpstreamTlsOptions | undefined
  readonly transport: Transport
  readonly #ownsTransport: boolean
  readonly #members: PoolUpstream[] = []
  readonly #byId = new Map<string, PoolUpstream>()
  readonly #balancer: Balancer
  /** What its health policies speak through. */
  readonly policies: PoolHealth
  readonly #queue: WaitQueue | undefined
  /** It is being asked who takes what has become free. */
  #waking = false
  /** Meanwhile more has become free. */
  #wokenAgain = false
  #searching: NodeJS.Immediate | undefined
  readonly #maxConcurrent: number
  readonly #source: SourceReader | undefined
  /** Ids of the members that the source named. */
  #sourced = new Set<string>()
  /** Everybody who may be picked by somebody, of any tier. */
  #usable: readonly PoolUpstream[] = []
  /** The tier in use. */
  #inUse: readonly PoolUpstream[] = []
  #inflight = 0
  #failOpenPicks = 0
  #reweighedAt = Number.NEGATIVE_INFINITY
  #reweighing: unknown
  #started: Promise<void> | undefined
  #begun = false
  #closed = false

  constructor(options: PoolOptions, read: OptionReader) {
    const given = read.object<PoolOptions>(options, poolKeys)
    this.name = read.name('name', given.name, 'pool')
    this.clock = readClock(given.clock, read)
    this.random = read.function('random', given.random, Math.random)
    this.tls = given.tls
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
    this.policies = new PoolHealth(this, readHealth(given.health, read))
    this.#ownsTransport = given.transport === undefined
    for (const option of ['tls', 'allowAddress'] as const)
      if (given.transport !== undefined && given[option] !== undefined)
        read.problem(option, '(set)', `either \`${option}\` or a \`transport\`, which has such an option of its own`)
    this.transport = readTransport(given, read)
    const { upstreams } = given
    this.#source = isSource(upstreams) ? new SourceReader(this.name, upstreams, this.clock, (list) => this.#apply(list)) : undefined
    if (Array.isArray(upstreams))
      for (const [index, input] of upstreams.entries()) {
        const upstream = this.#parse(input, read.at('upstreams').at(index))
        if (upstream !== undefined) this.#join(upstream)
      }
    else if (this.#source === undefined)
      read.problem('upstreams', upstreams, "a list such as ['http://10.0.0.1:3000'], or a source of such lists (an AsyncIterable)")
  }

  /** Options were right: tell the balancer and the policies. */
  begin(): void {
    ownedBalancers.add(this.#balancer)
    this.policies.attach()
    this.refresh()
    this.#begun = true
  }

  /** The first request has to wait for `start`. */
  get startable(): boolean {
    return this.#source !== undefined || this.policies.startable
  }

  start(): Promise<void> {
    if (this.#closed) return Promise.resolve()
    // As with the proxy: a failure is not for ever.
    this.#started ??= (this.#source?.start() ?? Promise.resolve())
      .then(() => (this.#closed ? undefined : this.policies.start()))
      .catch((error) => {
        this.#started = undefined
        throw error
      })
    return this.#started
  }

  #join(upstream: PoolUpstream): void {
    this.#members.push(upstream)
    this.#byId.set(upstream.id, upstream)
    this.policies.tell({ upstream, from: undefined, to: upstream.state, reason: 'joined' })
  }

  #part(upstream: PoolUpstream): void {
    this.#byId.delete(upstream.id)
    this.#members.splice(this.#members.indexOf(upstream), 1)
    this.#sourced.delete(upstream.id)
    upstream.gone = true
    const from = upstream.state
    this.#setState(upstream, 'draining', 'removed', undefined)
    this.policies.tell({ upstream, from, to: undefined, reason: 'removed' })
    try {
      this.transport.forget?.(upstream)
    } catch (cause) {
      warnOf(`forget of the transport ${this.transport.name} threw`, cause)
    }
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
    this.refresh()
    return upstream as PoolUpstream
  }

  remove(id: string, options?: LeaveOptions): Promise<void> {
    const deadline = readLeave('pool.remove', options)
    const upstream = this.#byId.get(id)
    if (upstream === undefined) return Promise.resolve()
    this.#part(upstream)
    this.refresh()
    return this.#idle(upstream, deadline)
  }

  drain(id: string, options?: LeaveOptions): Promise<void> {
    const deadline = readLeave('pool.drain', options)
    const upstream = this.#byId.get(id)
    if (upstream === undefined) return Promise.resolve()
    upstream.draining = true
    this.settle(upstream, 'drained by the application')
    return this.#idle(upstream, deadline)
  }

  undrain(id: string): void {
    const upstream = this.#byId.get(id)
    if (upstream === undefined) return
    upstream.draining = false
    // Nobody waits for it to be empty any more, and no deadline cuts what it does from now on.
    settleIdle(upstream)
    this.settle(upstream, 'undrained by the application')
  }

  setWeight(id: string, weight: number): void {
    const read = new OptionReader('pool.setWeight')
    const upstream = this.#byId.get(id)
    if (upstream === undefined) read.problem('id', id, 'the id of a member of this pool')
    const value = read.number('weight', weight, 1, { min: 0, max: 65_535, integer: true })
    read.check()
    if (upstream === undefined || upstream.configuredWeight === value) return
    upstream.configuredWeight = value
    upstream.rate()
    this.refresh()
  }

  /** A whole list from the source. Nothing is changed when any of it is wrong. @throws OptionsError */
  #apply(list: readonly UpstreamInput[]): AppliedList {
    const read = new OptionReader(`source of ${this.name}`)
    if (!Array.isArray(list)) read.problem('', list, "a list such as ['http://10.0.0.1:3000']")
    const wanted = new Map<string, PoolUpstream>()
    for (const [index, input] of (Array.isArray(list) ? list : []).entries()) {
      const at = read.at('upstreams').at(index)
      const upstream = parseUpstream(input, at, this.#maxConcurrent)
      if (upstream === undefined) continue
      if (wanted.has(upstream.id) || (this.#byId.has(upstream.id) && !this.#sourced.has(upstream.id)))
        at.problem('id', upstream.id, 'an id that no other upstream of this pool has; give one of them an `id` of its own')
      wanted.set(upstream.id, upstream)
    }
    read.check()
    const applied = { added: [] as string[], removed: [] as string[], changed: [] as string[] }
    for (const id of [...this.#sourced]) {
      const own = this.#byId.get(id) as PoolUpstream
      const next = wanted.get(id)
      // The same name at another place is another server.
      if (next === undefined || next.url.href !== own.url.href || next.host !== own.host) {
        this.#part(own)
        applied.removed.push(id)
      } else if (own.adopt(next)) applied.changed.push(id)
    }
    for (const [id, upstream] of wanted) {
      if (this.#byId.has(id)) continue
      this.#sourced.add(id)
      this.#join(upstream)
      applied.added.push(id)
    }
    if (applied.added.length + applied.removed.length + applied.changed.length > 0) this.refresh()
    return applied
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

  // Health: see pool-health.ts

  settle(upstream: PoolUpstream, reason: string, error?: unknown): void {
    const { verdicts } = upstream
    const state: UpstreamState =
      upstream.draining || verdicts?.draining !== undefined ? 'draining' : verdicts?.down === undefined ? 'up' : 'down'
    if (state === upstream.state) {
      // What it is down for, and whether that spares the last, may have changed all the same.
      if (state === 'down') {
        upstream.reason = verdicts?.down?.reason
        this.refresh()
      }
      return
    }
    this.#setState(upstream, state, state === 'down' ? (verdicts?.down?.reason ?? reason) : reason, error)
    this.refresh()
  }

  #setState(upstream: PoolUpstream, to: UpstreamState, reason: string, error: unknown): void {
    const from = upstream.state
    if (from === to) return
    upstream.state = to
    upstream.reason = reason
    upstream.since = Date.now()
    if (upstreamState.hasSubscribers) upstreamState.publish({ pool: this.name, upstream, from, to, reason, error })
    if (!upstream.gone) this.policies.tell({ upstream, from, to, reason })
  }

  /** Who may be picked: the tier in use, to the balancer. Degraded ones are a tier behind all others. */
  refresh(): void {
    this.clock.clearTimeout(this.#reweighing)
    this.#reweighing = undefined
    this.#usable = this.#findUsable()
    let lowest = Number.POSITIVE_INFINITY
    for (const member of this.#usable) lowest = Math.min(lowest, tierOf(member))
    this.#inUse = this.#usable.filter((member) => tierOf(member) === lowest)
    try {
      this.#balancer.update(this.#inUse)
    } catch (cause) {
      // At creation the mistake is the caller's to see. Later on, what changed is not the balancer's to undo.
      if (!this.#begun) throw cause
      warnOf(`update of the balancer ${this.#balancer.name} threw`, cause)
    }
    this.wake()
  }

  /** Many upstreams may ramp at once, each with a timer of its own, and for a strategy with a table each refresh is a rebuild. */
  reweigh(upstream: PoolUpstream): void {
    if (this.#reweighing !== undefined || this.#closed || !this.#usable.includes(upstream)) return
    const now = this.clock.now()
    if (now - this.#reweighedAt >= reweighEvery) {
      this.#reweighedAt = now
      this.refresh()
      return
    }
    this.#reweighing = this.clock.setTimeout(() => {
      this.#reweighedAt = this.clock.now()
      this.refresh()
    }, reweighEvery)
  }

  #findUsable(): PoolUpstream[] {
    const open = this.policies.failOpen
    const usable = this.#members.filter(({ state, weight }) => weight > 0 && (state === 'up' || (open && state === 'down')))
    if (usable.length > 0) return usable
    // Those who were set aside on the condition that somebody else is left.
    return this.#members.filter(({ state, weight, verdicts }) => weight > 0 && state === 'down' && verdicts?.sparesLast === true)
  }

  cut(upstream: PoolUpstream, what: 'tunnels' | 'all'): void {
    for (let attempt = upstream.running; attempt !== undefined; ) {
      const { next } = attempt
      if (what === 'all' || attempt.tunnelling) attempt.lose(new ProxyError('ERR_UPSTREAM_DOWN', { upstream }))
      attempt = next
    }
  }

  get inflight(): number {
    return this.#inflight
  }

  get allowAddress(): AddressCheck | undefined {
    return this.transport.allowAddress
  }

  get waiting(): number {
    return this.#queue?.size ?? 0
  }

  // The data path

  /** Does a health policy keep this exchange from trying? */
  admit(exchange: Exchange): ProxyError | undefined {
    return this.policies.admit(exchange)
  }

  /**
   * Chooses and takes an upstream: affinity first, then the balancer, then, for a retry, whoever is left anywhere. Undefined when nobody is
   * pickable now. @param lastResort false: a retry may not look beyond what the balancer offers. Every upstream returned must be given to `release` once.
   */
  pick(exchange: Exchange, lastResort = true): Upstream | undefined {
    let by: ChoiceBy = 'affinity'
    let upstream: Upstream | undefined = exchange.affinity === undefined ? undefined : this.#wanted(exchange, exchange.affinity)
    if (upstream === undefined) {
      by = 'balancer'
      upstream = this.#balancer.pick(exchange)
      if (upstream === undefined && lastResort && exchange.tried.length > 0) {
        by = 'last-resort'
        upstream = this.#lastResort(exchange)
      }
    }
    if (decisions.hasSubscribers)
      recordDecision(this.name, this.#balancer, this.#members, this.#usable, this.#inUse, exchange, upstream, by)
    if (upstream === undefined) return undefined
    this.#take(upstream as PoolUpstream)
    if (this.policies.failOpen) this.#failOpenPicks++
    this.policies.acquired(upstream, exchange)
    return upstream
  }

  #take(upstream: PoolUpstream): void {
    upstream.inflight++
    this.#inflight++
    try {
      this.#balancer.acquire?.(upstream)
    } catch (cause) {
      // There will be no attempt that gives it back.
      upstream.inflight--
      this.#inflight--
      throw cause
    }
  }

  /** The upstream that this exchange wants: also one that is draining or out of tier, but none that policies call down. */
  #wanted(exchange: Exchange, id: string): PoolUpstream | undefined {
    const wanted = this.#byId.get(id)
    if (wanted === undefined || !isPickable(wanted, exchange)) return undefined
    return wanted.verdicts?.down === undefined || this.policies.failOpen ? wanted : undefined
  }

  /** For retries: any other tier, then upstreams that are down on suspicion only; the least busy. */
  #lastResort(exchange: Exchange): PoolUpstream | undefined {
    let best: PoolUpstream | undefined
    let bestRank = Number.POSITIVE_INFINITY
    for (const member of this.#members) {
      if (member.weight === 0 || !isPickable(member, exchange)) continue
      if (member.state !== 'up' && !(member.state === 'down' && (member.verdicts?.soft === true || this.policies.failOpen))) continue
      const rank = (member.state === 'up' ? 0 : 2e9) + tierOf(member) * 1000 + Math.min(member.inflight, 999)
      if (rank < bestRank) {
        best = member
        bestRank = rank
      }
    }
    return best
  }

  /** Is there anybody whom waiting could bring? */
  get hasUsable(): boolean {
    return this.#usable.length > 0
  }

  /** Is there nobody whom this exchange has not tried? */
  allTried(exchange: Exchange): boolean {
    return this.#usable.every((member) => exchange.tried.includes(member))
  }

  /** Somebody waits; whoever has just been freed is for them. What is free for longer is nobody's of them. */
  get hasWaiters(): boolean {
    return this.#queue !== undefined && this.#queue.size > 0
  }

  /** Waits for a slot, for an exchange for which `pick` has found nobody. */
  wait(exchange: Exchange, settle: Settle): Waiter | ProxyError {
    if (!this.hasUsable) return new ProxyError('ERR_NO_UPSTREAM')
    // Nobody is busy who could become free: the balancer has nobody for this one.
    const bound = exchange.affinity === undefined ? undefined : this.#byId.get(exchange.affinity)
    if (bound?.full !== true && !this.#usable.some(({ full }) => full))
      return new ProxyError('ERR_NO_UPSTREAM', { message: `The balancer ${this.#balancer.name} has no upstream for this request.` })
    return this.#queue?.enter(exchange, settle) ?? new ProxyError('ERR_QUEUE_FULL')
  }

  leave(waiter: Waiter): void {
    this.#queue?.leave(waiter)
  }

  /** Somebody wants to be told of heads. */
  get watchesHeads(): boolean {
    return this.policies.watchesHeads || this.#balancer.onHead !== undefined
  }

  /** A final head has come. */
  onHead(attempt: AttemptOutcome, status: number, headers: readonly string[]): void {
    const { upstream } = attempt
    try {
      this.#balancer.onHead?.(upstream, status, headers)
    } catch (cause) {
      warnOf(`onHead of the balancer ${this.#balancer.name} threw`, cause)
    }
    this.policies.head(upstream, status, headers, attempt)
  }

  /** The attempt ended; policies and the balancer learn from it. */
  release(attempt: Attempt): void {
    const own = attempt.upstream as PoolUpstream
    this.#leave(attempt, own)
    own.inflight--
    this.#inflight--
    if (attempt.headMs !== undefined) own.observe(attempt.headMs - attempt.uploadMs)
    const outcome: AttemptOutcome = attempt
    try {
      this.#balancer.release?.(own, outcome)
    } catch (cause) {
      warnOf(`release of the balancer ${this.#balancer.name} threw`, cause)
    }
    this.policies.ended(outcome)
    if (own.inflight === 0 && own.onIdle !== undefined) settleIdle(own)
    this.wake()
  }

  wake(): void {
    const queue = this.#queue
    if (queue === undefined || queue.size === 0) return
    // What somebody who was let go has begun may be over at once, a thousand times in a row, and each time frees somebody for the next.
    if (this.#waking) {
      this.#wokenAgain = true
      return
    }
    this.#waking = true
    try {
      if (!this.hasUsable) queue.fail(() => new ProxyError('ERR_NO_UPSTREAM'))
      else this.#letGo(queue)
    } finally {
      this.#waking = false
    }
    if (queue.isSearching) this.#searchOn(queue)
  }

  #searchOn(queue: WaitQueue): void {
    this.#searching ??= setImmediate(() => this.#lookOn(queue))
  }

  /** Room may have come for several at once. Each one that is let go takes its slot before the next is looked at. */
  #letGo(queue: WaitQueue): void {
    let went: number
    do {
      this.#wokenAgain = false
      went = 0
      for (let left = queue.size; left > 0 && queue.wake(this.#isReady); left--) went++
    } while (this.#wokenAgain && went > 0 && queue.size > 0 && this.hasUsable)
  }

  /** Those at the front want somebody else. */
  #lookOn(queue: WaitQueue): void {
    this.#searching = undefined
    if (!this.hasUsable) return
    this.#waking = true
    this.#wokenAgain = false
    try {
      queue.lookOn(this.#isReady)
    } finally {
      this.#waking = false
    }
    if (this.#wokenAgain) this.wake()
    if (queue.isSearching) this.#searchOn(queue)
  }

  readonly #isReady = (waiter: Waiter): boolean => this.#hasRoomFor(waiter.exchange)

  /** Would `pick` find somebody? The same rules, in the same order. */
  #hasRoomFor(exchange: Exchange): boolean {
    if (exchange.affinity !== undefined && this.#wanted(exchange, exchange.affinity) !== undefined) return true
    if (this.#inUse.some((member) => isPickable(member, exchange))) return true
    return exchange.tried.length > 0 && this.#lastResort(exchange) !== undefined
  }

  stats(): PoolStats {
    return {
      name: this.name,
      waiting: this.waiting,
      failOpen: this.policies.failOpen,
      failOpenPicks: this.#failOpenPicks,
      upstreams: this.#members.map(({ id, state, weight, inflight, latencyMs }) => ({ id, state, weight, inflight, latencyMs })),
    }
  }

  health(): PoolHealthReport {
    return {
      name: this.name,
      failOpen: this.policies.failOpen,
      upstreams: this.#members.map(({ id, state, degraded, weight, inflight, reason, since, verdicts }) => ({
        id,
        state,
        degraded,
        weight,
        inflight,
        reason,
        since,
        error: verdicts?.down?.error,
      })),
    }
  }

  /** For the check that no two pools share one. */
  get balancer(): Balancer {
    return this.#balancer
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#source?.close()
    this.clock.clearTimeout(this.#reweighing)
    this.#queue?.fail(() => new ProxyError('ERR_DRAINING'))
    clearImmediate(this.#searching)
    try {
      await this.policies.close()
    } finally {
      if (this.#ownsTransport) await this.transport.close?.()
    }
  }
}

/** Priorities end at 1,000; degraded upstreams come behind them all. */
function tierOf(upstream: PoolUpstream): number {
  return upstream.degraded ? upstream.priority + 10_000 : upstream.priority
}

function settleIdle(upstream: PoolUpstream): void {
  const callbacks = upstream.onIdle ?? []
  upstream.onIdle = undefined
  for (const callback of callbacks) callback()
}
