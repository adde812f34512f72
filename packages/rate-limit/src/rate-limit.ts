/**
 * The stage: who is it (key), what does it cost, does the store allow it, and what is said about it. What is counted, and how, is elsewhere: a limit
 * is arithmetic (`limit.ts` and its siblings), a store is where numbers lie (`store.ts`), and a store that fails is dealt with in `guarded-store.ts`.
 *
 * Synchronous as long as the key and the store are; a request then costs no promise.
 */
import type { Exchange, Hooks, MaybePromise, Reply, Stage } from '@weir/core'
import { publishDecision } from './events.ts'
import { limitItems, policyItem, retryAfter } from './fields.ts'
import { GuardedStore, type Ruling } from './guarded-store.ts'
import { boundedKey } from './key.ts'
import { LimitStep, type Verdict } from './limit.ts'
import { FieldHooks, type HookContext, PricedCharge, policies, SettlingHooks } from './limit-hooks.ts'
import type { Rule } from './limit-options.ts'
import { isPromise, whenThere } from './maybe-promise.ts'
import { type RateLimitOptions, type RateLimitSettings, readRateLimitOptions } from './rate-limit-options.ts'
import { TurnQueue } from './turn-queue.ts'

/** Since the stage was made. */
export interface RateLimitStats {
  readonly allowed: number
  readonly refused: number
  /** Would have been refused, but for `dryRun`. */
  readonly dryRefused: number
  /** Not limited: on the list, or without a key. */
  readonly exempt: number
  /** Had to wait for their turn, and got it. */
  readonly delayed: number
  /** Left while they waited for their turn. */
  readonly abandoned: number
  /** Wait now. */
  readonly waiting: number
  /** Charges that were corrected after the response. */
  readonly settled: number
  /** Calls of the store that threw, or answered nonsense. */
  readonly storeErrors: number
  /** Calls of the store that took too long. */
  readonly storeTimeouts: number
  /** Keys in memory, as far as the store tells. */
  readonly entries: number
  /** Keys that were forgotten for lack of room while their limit was running. Not 0: raise `maxEntries`. */
  readonly evictions: number
}

export interface RateLimitStage extends Stage {
  stats(): RateLimitStats
}

/** @throws OptionsError */
export function rateLimit(options: RateLimitOptions): RateLimitStage {
  const limiter = new Limiter(readRateLimitOptions(options))
  return { name: limiter.name, handle: (exchange) => limiter.handle(exchange), stats: () => limiter.stats() }
}

type Answer = Reply | Hooks | undefined

class Limiter {
  readonly name: string
  readonly #settings: RateLimitSettings
  readonly #rules: readonly Rule[]
  readonly #policies: readonly string[]
  readonly #store: GuardedStore
  readonly #queue: TurnQueue | undefined
  readonly #hooks: HookContext
  #allowed = 0
  #refused = 0
  #dryRefused = 0
  #exempt = 0
  #delayed = 0
  #abandoned = 0
  #settled = 0

  constructor(settings: RateLimitSettings) {
    const { name, rules, store, onStoreError, storeTimeout, maxEntries, clock } = settings
    this.name = name
    this.#settings = settings
    this.#rules = rules
    this.#policies = rules.map(({ limit }) => policyItem(limit))
    this.#store = new GuardedStore({ stage: name, store, action: onStoreError, timeoutMs: storeTimeout, maxEntries, clock })
    const leaky = rules.find(({ limit }) => limit.algorithm === 'leaky-bucket')
    this.#queue = leaky === undefined ? undefined : new TurnQueue(clock, leaky.maxWaiting)
    this.#hooks = {
      store: this.#store,
      // Clients that read `r=0` slow down by themselves: that would not be dry.
      fields: settings.headers && !settings.dryRun,
      keepUpstreamHeaders: settings.keepUpstreamHeaders,
      settled: () => void this.#settled++,
    }
  }

  handle(exchange: Exchange): MaybePromise<Answer> {
    if (this.#settings.exempt?.(exchange) === true) {
      this.#exempt++
      return undefined
    }
    const charges: PricedCharge[] = []
    const keyed = this.#collect(exchange, charges, 0)
    return isPromise(keyed) ? keyed.then(() => this.#decide(exchange, charges)) : this.#decide(exchange, charges)
  }

  stats(): RateLimitStats {
    const { entries, evictions } = this.#store.stats()
    return {
      allowed: this.#allowed,
      refused: this.#refused,
      dryRefused: this.#dryRefused,
      exempt: this.#exempt,
      delayed: this.#delayed,
      abandoned: this.#abandoned,
      waiting: this.#queue?.waiting ?? 0,
      settled: this.#settled,
      storeErrors: this.#store.errors,
      storeTimeouts: this.#store.timeouts,
      entries,
      evictions,
    }
  }

  /** The charges of all rules that concern this exchange, from `from` on. */
  #collect(exchange: Exchange, charges: PricedCharge[], from: number): MaybePromise<void> {
    for (let i = from; i < this.#rules.length; i++) {
      const key = (this.#rules[i] as Rule).keyOf(exchange)
      if (isPromise(key))
        return key.then((late) => {
          this.#charge(exchange, charges, i, late)
          return this.#collect(exchange, charges, i + 1)
        })
      this.#charge(exchange, charges, i, key)
    }
  }

  #charge(exchange: Exchange, charges: PricedCharge[], i: number, key: string | undefined): void {
    if (key === undefined) return
    const { limit, cost, settle } = this.#rules[i] as Rule
    const units = typeof cost === 'function' ? cost(exchange) : cost
    if (!(Number.isFinite(units) && units >= 0)) throw new TypeError(`cost of ${limit.name} returned ${units}, which is no cost`)
    charges.push(new PricedCharge(limit, boundedKey(key), units, this.#policies[i] as string, settle))
  }

  #decide(exchange: Exchange, charges: PricedCharge[]): MaybePromise<Answer> {
    if (charges.length === 0) {
      this.#exempt++
      return undefined
    }
    return whenThere(this.#store.take(charges), (ruling) => this.#conclude(exchange, charges, ruling))
  }

  #conclude(exchange: Exchange, charges: PricedCharge[], ruling: Ruling): MaybePromise<Answer> {
    const { dryRun, onStoreError } = this.#settings
    if (ruling.verdicts === undefined) {
      if (onStoreError === 'allow') {
        this.#allowed++
        return undefined
      }
      if (this.#countRefusal()) return undefined
      return { status: 503, headers: { 'Retry-After': '1', 'Content-Type': 'text/plain' }, body: 'Service unavailable\n' }
    }
    const late = ruling.verdicts.findIndex(({ delayMs }) => delayMs > 0)
    const queue = late < 0 || dryRun ? undefined : this.#queue
    if (queue?.full && ruling.verdicts.every(({ allowed }) => allowed)) return this.#noRoom(exchange, charges, ruling, late)
    const { verdicts } = ruling
    publishDecision(exchange, this.name, dryRun, charges, verdicts, ruling.by.name)
    if (verdicts.some(({ allowed }) => !allowed)) return this.#countRefusal() ? undefined : this.#refuse(exchange, charges, verdicts)
    if (queue === undefined) {
      this.#allowed++
      return this.#watch(charges, ruling)
    }
    return this.#wait(exchange, charges, ruling, queue, late)
  }

  /** @returns true when it is only counted */
  #countRefusal(): boolean {
    if (this.#settings.dryRun) this.#dryRefused++
    else this.#refused++
    return this.#settings.dryRun
  }

  #watch(charges: readonly PricedCharge[], ruling: Ruling): Hooks | undefined {
    for (const charge of charges) if (charge.settle !== undefined) return new SettlingHooks(this.#hooks, charges, ruling)
    return this.#hooks.fields ? new FieldHooks(this.#hooks, charges, ruling) : undefined
  }

  async #wait(exchange: Exchange, charges: readonly PricedCharge[], ruling: Ruling, queue: TurnQueue, late: number): Promise<Answer> {
    const charge = charges[late] as PricedCharge
    const verdict = ruling.verdicts?.[late] as Verdict
    const { windowMs, quota } = charge.limit
    const ready = await queue.wait(charge.key, verdict.delayMs, (charge.cost * windowMs) / quota, exchange.signal)
    if (ready) {
      this.#allowed++
      this.#delayed++
    } else {
      this.#abandoned++
      // Its place, and not what other limits charged: or asking and leaving would be free.
      this.#store.adjust(ruling.by, charge, -charge.cost, verdict.at)
    }
    return this.#watch(charges, ruling)
  }

  /** Allowed, but there is no room to wait: what was charged a moment ago is given back, and it is a refusal. */
  #noRoom(exchange: Exchange, charges: readonly PricedCharge[], ruling: Ruling, late: number): Answer {
    const given = ruling.verdicts ?? []
    charges.forEach((charge, i) => void this.#store.adjust(ruling.by, charge, -charge.cost, (given[i] as Verdict).at))
    const verdicts = given.map((verdict, i) =>
      i === late ? new LimitStep(false, 0, verdict.delayMs, verdict.delayMs, 0, verdict.at, 0, 0, 0) : verdict,
    )
    publishDecision(exchange, this.name, false, charges, verdicts, ruling.by.name)
    this.#countRefusal()
    return this.#refuse(exchange, charges, verdicts)
  }

  #refuse(exchange: Exchange, charges: readonly PricedCharge[], verdicts: readonly Verdict[]): Reply {
    const { onRefused, status } = this.#settings
    if (onRefused !== undefined) {
      const limits = charges.filter((_, i) => !(verdicts[i] as Verdict).allowed).map(({ limit }) => limit.name)
      onRefused(exchange, { limits, retryAfterMs: Math.max(...verdicts.map(({ retryAfterMs }) => retryAfterMs)) })
    }
    const headers: Record<string, string> = { 'Content-Type': 'text/plain' }
    const wait = retryAfter(verdicts)
    if (wait !== undefined) headers['Retry-After'] = String(wait)
    if (this.#hooks.fields) {
      exchange.locals.rateLimitFields = true
      headers['RateLimit-Policy'] = policies(charges)
      headers.RateLimit = limitItems(charges, verdicts, true)
    }
    return { status, headers, body: 'Too many requests\n' }
  }
}
