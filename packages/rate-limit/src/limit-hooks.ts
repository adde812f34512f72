/**
 * What a stage that let a request through still wants to see of it: the response's head, for the fields; and, where the cost is settled afterwards,
 * the end. Classes and not literals, since they live as long as the exchange (docs/decisions/0019); two of them, so that nobody pays for an end that
 * is of no interest.
 */
import type { Exchange, HeaderList, Hooks, Outcome, ProxyResponse } from '@weir/core'
import { limitItems, setFields } from './fields.ts'
import type { GuardedStore, Ruling } from './guarded-store.ts'
import type { Verdict } from './limit.ts'
import type { SettleFunction } from './limit-options.ts'
import type { Charge } from './store.ts'

/** What the hooks of all exchanges of a stage share. */
export interface HookContext {
  readonly store: GuardedStore
  /** Set `RateLimit` fields. */
  readonly fields: boolean
  readonly keepUpstreamHeaders: boolean
  /** Called when a charge was corrected. */
  settled(): void
}

/** A charge with what it takes to settle it. */
export class PricedCharge implements Charge {
  readonly limit: Charge['limit']
  readonly key: string
  readonly cost: number
  readonly policy: string
  readonly settle: SettleFunction | undefined

  constructor(limit: Charge['limit'], key: string, cost: number, policy: string, settle: SettleFunction | undefined) {
    this.limit = limit
    this.key = key
    this.cost = cost
    this.policy = policy
    this.settle = settle
  }
}

export class FieldHooks implements Hooks {
  protected readonly context: HookContext
  protected readonly charges: readonly PricedCharge[]
  protected readonly ruling: Ruling

  constructor(context: HookContext, charges: readonly PricedCharge[], ruling: Ruling) {
    this.context = context
    this.charges = charges
    this.ruling = ruling
  }

  onResponse(response: ProxyResponse, exchange: Exchange): void {
    const { verdicts } = this.ruling
    if (!this.context.fields || verdicts === undefined) return
    const { headers } = response
    const add = exchange.locals.rateLimitFields === true
    if (!add && this.context.keepUpstreamHeaders && (headers.has('RateLimit') || headers.has('RateLimit-Policy'))) return
    exchange.locals.rateLimitFields = true
    setFields(headers, policies(this.charges), limitItems(this.charges, verdicts, false), add)
  }
}

export const policies = (charges: readonly PricedCharge[]): string =>
  charges.length === 1 ? (charges[0] as PricedCharge).policy : charges.map(({ policy }) => policy).join(', ')

export class SettlingHooks extends FieldHooks {
  #headers: HeaderList | undefined

  override onResponse(response: ProxyResponse, exchange: Exchange): void {
    this.#headers = response.headers
    super.onResponse(response, exchange)
  }

  onFinish(outcome: Outcome, exchange: Exchange): void {
    const { verdicts, by } = this.ruling
    if (verdicts === undefined) return
    for (let i = 0; i < this.charges.length; i++) {
      const charge = this.charges[i] as PricedCharge
      const total = charge.settle?.(outcome, exchange, this.#headers)
      if (total === undefined) continue
      if (!(Number.isFinite(total) && total >= 0)) throw new TypeError(`settle of ${charge.limit.name} returned ${total}, which is no cost`)
      if (total === charge.cost) continue
      this.context.store.adjust(by, charge, total - charge.cost, (verdicts[i] as Verdict).at)
      this.context.settled()
    }
  }
}
