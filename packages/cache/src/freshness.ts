/** How old a response is and how long it stays fresh (RFC 9111 §4.2), for a shared cache. */
import type { HeaderList } from '@weir/core'
import { parseDirectives, type ResponseDirectives, responseDirectives } from './cache-control.ts'
import { parseHttpDate } from './http-date.ts'
import { targetedDirectives } from './structured-field.ts'

/** Statuses that may be cached without being told so (RFC 9110 §15.1), but for 206, which is never stored here. */
const heuristicallyCacheable: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])

/** RFC 9111 §4.2.2 suggests a tenth of the time since the last change. */
const heuristicShare = 0.1

export interface Directives extends ResponseDirectives {
  /** From a targeted field (RFC 9213): `Cache-Control` and `Expires` do not count then. */
  readonly targeted: boolean
}

/** @param targets field names, the most specific first */
export function directivesOf(headers: HeaderList, targets: readonly string[]): Directives {
  for (const target of targets) {
    const field = headers.get(target)
    const directives = field === undefined ? undefined : targetedDirectives(field)
    if (directives !== undefined) return { ...responseDirectives(directives), targeted: true }
  }
  return { ...responseDirectives(parseDirectives(headers.get('cache-control') ?? '')), targeted: false }
}

/** Milliseconds (RFC 9111 §4.2.3). @param requestedAt @param now when the head came, both ms since the epoch */
export function initialAge(headers: HeaderList, requestedAt: number, now: number): number {
  const date = parseHttpDate(headers.get('date') ?? '', now)
  const apparent = date === undefined ? 0 : Math.max(0, now - date)
  return Math.max(apparent, statedAge(headers) * 1000 + Math.max(0, now - requestedAt))
}

/** Seconds. RFC 9111 §5.1: of several members the first, and what is no whole number is ignored. */
function statedAge(headers: HeaderList): number {
  const first = headers.get('age')?.split(',', 1)[0]?.trim()
  return first !== undefined && /^[0-9]+$/.test(first) ? Math.min(Number(first), 2_147_483_648) : 0
}

export interface Lifetime {
  /** Milliseconds. */
  readonly ms: number
  /** By a directive or `Expires`, not by a guess. */
  readonly explicit: boolean
}

/** RFC 9111 §4.2.1, in its order: `s-maxage`, `max-age`, `Expires`, and for want of all of them a guess of at most `heuristicLimit` ms. */
export function lifetimeOf(
  status: number,
  headers: HeaderList,
  directives: Directives,
  now: number,
  heuristicLimit: number,
): Lifetime | undefined {
  const seconds = directives.sMaxAge ?? directives.maxAge
  if (seconds !== undefined) return { ms: seconds * 1000, explicit: true }
  if (directives.targeted) return undefined
  const expires = headers.getAll('expires')
  const date = parseHttpDate(headers.get('date') ?? '', now) ?? now
  if (expires.length > 0) {
    // Of several the first counts; one that is no date has passed.
    const at = parseHttpDate(expires[0] as string, now)
    return { ms: at === undefined ? 0 : Math.max(0, at - date), explicit: true }
  }
  if (heuristicLimit === 0 || (!heuristicallyCacheable.has(status) && !directives.public)) return undefined
  const modified = parseHttpDate(headers.get('last-modified') ?? '', now)
  if (modified === undefined || modified > date) return undefined
  return { ms: Math.min((date - modified) * heuristicShare, heuristicLimit), explicit: false }
}
