/**
 * Hedging: when the first try has not answered after a while, a second goes to another upstream, the first head wins and the other try is
 * cancelled ("The Tail at Scale", Dean and Barroso, CACM 56(2), 2013). It trades a little load for the slowest few per cent of latency, so it
 * has a budget of its own: a hedge sent because everybody is slow would make everybody slower.
 *
 * Only for requests that may be processed twice and have no body: two tries cannot both read one upload.
 */
import type { Attempt } from './attempt.ts'
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import { isRepeatable, send } from './forward.ts'
import { warnOf } from './pool-health.ts'
import type { HedgePolicy } from './retry.ts'
import type { CompiledRoute } from './route.ts'
import type { Upstream } from './upstream.ts'

/** The tries of one exchange that run side by side. */
export class Hedge {
  readonly #exchange: LiveExchange
  readonly #policy: HedgePolicy
  readonly #running: Attempt[] = []
  #timer: unknown = undefined
  #sent = 0

  constructor(exchange: LiveExchange, policy: HedgePolicy) {
    this.#exchange = exchange
    this.#policy = policy
  }

  /** Several tries run: what one of them says before its head is not for the client. */
  get contested(): boolean {
    return this.#running.length > 1
  }

  /** A try is about to be sent. */
  add(attempt: Attempt): void {
    this.#running.push(attempt)
    this.#disarm()
    if (this.#sent < this.#policy.attempts) this.#timer = this.#exchange.core.clock.setTimeout(() => this.#fire(), this.#policy.after)
  }

  /** A try is out of the race; true when others go on. */
  leave(attempt: Attempt): boolean {
    const at = this.#running.indexOf(attempt)
    if (at >= 0) this.#running.splice(at, 1)
    const next = this.#running.at(-1)
    if (next === undefined) {
      this.#disarm()
      return false
    }
    const exchange = this.#exchange
    if (exchange.attempt === attempt) exchange.attempt = next
    if (!exchange.tried.includes(attempt.upstream)) exchange.tried = [...exchange.tried, attempt.upstream]
    return true
  }

  /** The first head is there: the rest is cancelled, and nothing is held against them. */
  won(winner: Attempt): void {
    this.#disarm()
    this.#exchange.hedge = undefined
    this.#exchange.attempt = winner
    for (const attempt of this.#running) if (attempt !== winner) attempt.cancelQuietly(new ProxyError('ERR_HEDGE_LOST'))
  }

  /** The exchange is over, or has failed as a whole. */
  stop(error: ProxyError | undefined): void {
    this.#disarm()
    this.#exchange.hedge = undefined
    for (const attempt of this.#running) attempt.cancelQuietly(error)
  }

  #disarm(): void {
    this.#exchange.core.clock.clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #fire(): void {
    const exchange = this.#exchange
    const route = exchange.route as CompiledRoute
    const { pool } = route
    this.#timer = undefined
    if (exchange.finished || this.#running.length === 0 || exchange.core.aborting) return
    for (const { upstream } of this.#running) if (!exchange.tried.includes(upstream)) exchange.tried = [...exchange.tried, upstream]
    const { budget } = this.#policy
    const now = exchange.core.clock.now()
    let upstream: Upstream | undefined
    try {
      if (pool.allTried(exchange) || pool.hasWaiters || pool.admit(exchange) !== undefined) return
      if (budget?.tryRetry(now) === false) return
      upstream = pool.pick(exchange, false)
    } catch (cause) {
      // The first try goes on: it needs nobody who throws here.
      warnOf('a balancer or health policy threw while a hedge was chosen', cause)
    }
    if (upstream === undefined) {
      // Everybody else is full or out of question.
      budget?.giveBack(now)
      return
    }
    this.#sent++
    send(exchange, route, upstream, 0)
  }
}

/** The race that a first try of this exchange may start, or undefined when it must run alone. */
export function hedgeFor(exchange: LiveExchange, route: CompiledRoute): Hedge | undefined {
  const { hedge } = route.retry
  if (hedge === undefined || exchange.kind !== 'request' || exchange.body !== undefined || !isRepeatable(exchange, route)) return undefined
  hedge.budget?.onRequest(exchange.startedAt)
  return new Hedge(exchange, hedge)
}
