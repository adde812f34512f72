/** What the stages that know somebody tell the stages behind them: `exchange.locals.auth`. */
import type { Exchange, Hooks } from '@weir/core'
import { fieldValue, StampedFields } from './upstream-fields.ts'

export interface AuthFacts {
  readonly scheme: 'basic' | 'apiKey' | 'forward' | 'jwt' | 'certificate'
  /** Who: the user's name, the name of the key, `sub`, the subject of the certificate. `''` where the scheme does not say. */
  readonly subject: string
  /** Of a JWT: all its claims. */
  readonly claims?: Readonly<Record<string, unknown>>
}

declare module '@weir/core' {
  interface ExchangeLocals {
    auth?: AuthFacts
  }
}

/** @param header tells the upstream, percent-encoded where HTTP makes that necessary; undefined for nobody */
export function identify(exchange: Exchange, facts: AuthFacts, header: string | undefined): Hooks | undefined {
  exchange.locals.auth = facts
  return header === undefined ? undefined : new StampedFields([header, fieldValue(facts.subject)])
}
