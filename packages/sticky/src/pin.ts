/**
 * One exchange that a session stage looks at: which upstream its session wants, why it may not get it, who answered in the end. The pool decides
 * (`exchange.affinity` is a wish, see pool.ts of core), so what is true of the session afterwards is read from the response and never assumed:
 * a retry, a hedge or a cap may have sent it elsewhere.
 */
import { type Exchange, type HeaderList, type Hooks, ProxyError, type ProxyResponse, type Reply, type Upstream } from '@weir/core'
import type { StageSettings } from './stage-options.ts'

export type MoveReason = 'gone' | 'down' | 'full' | 'failed' | 'unavailable'

/** A class and not a literal: it lives as long as the exchange (docs/decisions/0019). */
export class Pin implements Hooks {
  protected readonly settings: StageSettings
  protected readonly exchange: Exchange
  /** Id of the upstream that has the session; `''` when it is only known that somebody had it, who has left. */
  protected readonly wanted: string | undefined
  #blocked: MoveReason | undefined = undefined
  #refused = false

  constructor(settings: StageSettings, exchange: Exchange, wanted: string | undefined) {
    this.settings = settings
    this.exchange = exchange
    this.wanted = wanted
  }

  /** Asks for the session's upstream. A reply when it cannot be had and nobody else may do. */
  ask(): Reply | this {
    const { wanted, exchange, settings } = this
    if (wanted === undefined) return this
    const pool = exchange.route?.pool
    const upstream = pool?.get(wanted)
    this.#blocked = upstream === undefined ? 'gone' : upstream.state === 'down' ? 'down' : upstream.full ? 'full' : undefined
    if (upstream !== undefined) exchange.affinity = wanted
    if (!settings.strict || this.#blocked === undefined) return this
    // A pool that fails open uses upstreams that are down. Asked only here: it is a report on all of them.
    if (this.#blocked === 'down' && pool?.health().failOpen === true) return this
    settings.journal.tell('refused', exchange, undefined, wanted || undefined, this.#blocked)
    return settings.refusal
  }

  onAttempt(_headers: HeaderList, upstream: Upstream): void {
    if (!this.settings.strict || this.wanted === undefined || upstream.id === this.wanted) return
    // The one place where the choice is known and nothing was sent. The code is one of the proxy's own, so it is not held against the upstream.
    this.#refused = true
    this.settings.journal.tell('refused', this.exchange, undefined, this.wanted || undefined, this.reason)
    throw new ProxyError('ERR_NO_UPSTREAM')
  }

  onResponse(_response: ProxyResponse): void | Promise<void> {}

  onError(): Reply | undefined {
    return this.#refused ? this.settings.refusal : undefined
  }

  /** Why somebody else got the session. */
  protected get reason(): MoveReason {
    const { exchange, wanted } = this
    if (exchange.tried.some(({ id }) => id === wanted)) return 'failed'
    return this.#blocked ?? 'unavailable'
  }

  /** Counts how the session fared. Undefined when the upstream that answered should not have it: it is about to leave. */
  protected settle(upstream: Upstream): 'pinned' | 'moved' | 'new' | undefined {
    const { exchange, wanted, settings } = this
    if (wanted === upstream.id) {
      settings.journal.tell('pinned', exchange, upstream.id)
      return 'pinned'
    }
    if (upstream.state === 'draining') return undefined
    if (wanted === undefined) settings.journal.tell('new', exchange, upstream.id)
    else settings.journal.tell('moved', exchange, upstream.id, wanted || undefined, this.reason)
    return wanted === undefined ? 'new' : 'moved'
  }
}
