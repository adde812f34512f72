/** A request as the cache sees it: what it asks for, what it may be given, and how long it waits for others. */
import { type Exchange, HeaderList } from '@weir/core'
import type { Asked } from './answer.ts'
import { type RequestDirectives, requestDirectives } from './cache-control.ts'
import type { CacheEntry } from './entry.ts'
import type { Target } from './key.ts'
import { matches } from './vary.ts'

/** What a request says that matters here. */
export interface Wish extends Asked {
  readonly route: string
  readonly directives: RequestDirectives
  readonly noStore: boolean
  readonly authorized: boolean
  /** It has a field by which some servers take it for another request than it is. */
  readonly overridden: boolean
  /** Fills that came to nothing while it waited. */
  failures: number
  /** It does not wait for others any more. */
  alone: boolean
  /** How long it waits for others, on the clock; undefined before it does. */
  waitsUntil: number | undefined
  /** What the resource varies by, when it was found to. */
  varies: readonly string[] | undefined
  /** Its fields as `Vary` compares them, as far as that was asked. */
  normalized: Map<string, string> | undefined
}

/** Fields that make frameworks answer another method or path than the one that is the key. */
const overrides: ReadonlySet<string> = new Set([
  'x-http-method',
  'x-http-method-override',
  'x-method-override',
  'x-original-url',
  'x-rewrite-url',
])

const nothingAsked: RequestDirectives = requestDirectives(undefined, undefined)

/** @param heeds whether this client's directives count */
export function wishOf(exchange: Exchange, heeds: (exchange: Exchange) => boolean): Wish {
  const { headers } = exchange
  let cacheControl = false
  let pragma = false
  let conditional = false
  // Whoever took the field off has let somebody in by it.
  let authorized = exchange.req.headers.authorization !== undefined
  let overridden = false
  let range: string | undefined
  const { raw } = headers
  // One pass by length first: most requests have none of them.
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    switch (name.length) {
      case 5:
        if (range === undefined && name.toLowerCase() === 'range') range = headers.get('range')
        break
      case 6:
        if (!pragma && name.toLowerCase() === 'pragma') pragma = true
        break
      case 13:
        if (name.toLowerCase() === 'cache-control') cacheControl = true
        else if (name.toLowerCase() === 'if-none-match') conditional = true
        else if (name.toLowerCase() === 'authorization') authorized = true
        else if (overrides.has(name.toLowerCase())) overridden = true
        break
      case 17:
        if (name.toLowerCase() === 'if-modified-since') conditional = true
        else if (overrides.has(name.toLowerCase())) overridden = true
        break
      case 14:
      case 22:
        if (overrides.has(name.toLowerCase())) overridden = true
        break
    }
  }
  const asked = requestDirectives(cacheControl ? headers.get('cache-control') : undefined, pragma ? headers.get('pragma') : undefined)
  return {
    method: exchange.method,
    headers,
    route: exchange.route?.name ?? '',
    conditional,
    range,
    authorized,
    overridden,
    failures: 0,
    alone: false,
    waitsUntil: undefined,
    varies: undefined,
    normalized: undefined,
    noStore: asked.noStore,
    directives: (cacheControl || pragma) && heeds(exchange) ? asked : nothingAsked,
  }
}

/** With the client's own fields, whatever the exchange's are made to ask for. */
export function asSent(wish: Wish): Wish {
  return { ...wish, headers: new HeaderList(wish.headers.raw) }
}

export function fillKey(wish: Wish, target: Target): string {
  return `${wish.route}${wish.authorized ? ' authorized' : ''} ${target.key}`
}

/** The newest that was chosen for a request like this one. */
export function select(entries: readonly CacheEntry[], wish: Wish): CacheEntry | undefined {
  for (const entry of entries) if (suits(entry, wish)) return entry
  return undefined
}

export function suits(entry: Pick<CacheEntry, 'route' | 'vary' | 'forAuthorized' | 'language'>, wish: Wish): boolean {
  if (entry.route !== wish.route || (wish.authorized && !entry.forAuthorized)) return false
  if (entry.vary.length === 0) return true
  wish.normalized ??= new Map()
  return matches(entry.vary, wish.headers, entry.language, wish.normalized)
}
