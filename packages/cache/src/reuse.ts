/** May this stored response answer this request, now (RFC 9111 §4)? A request can ask for less than the response allows, and never for more. */
import type { RequestDirectives } from './cache-control.ts'
import { ageOf, type CacheEntry, freshFor } from './entry.ts'

export type Reuse =
  /** As it is. */
  | 'fresh'
  /** Stale, and the client said that it takes it (`max-stale`). */
  | 'stale-wanted'
  /** Stale, but to be served at once while somebody asks the upstream. */
  | 'stale-while-revalidate'
  /** Ask the upstream first. */
  | 'revalidate'

export function reuseOf(entry: CacheEntry, request: RequestDirectives, now: number): Reuse {
  if (entry.noCache || request.noCache) return 'revalidate'
  const left = freshFor(entry, now)
  if (request.maxAge !== undefined && ageOf(entry, now) > request.maxAge * 1000)
    return allowsStale(entry, request, left) ? 'stale-wanted' : 'revalidate'
  if (request.maxAge === 0) return 'revalidate'
  if (request.minFresh !== undefined && left < request.minFresh * 1000) return 'revalidate'
  if (left > 0) return 'fresh'
  if (allowsStale(entry, request, left)) return 'stale-wanted'
  return -left < entry.staleWhileRevalidate ? 'stale-while-revalidate' : 'revalidate'
}

function allowsStale(entry: CacheEntry, request: RequestDirectives, left: number): boolean {
  return request.maxStale !== undefined && !entry.mustRevalidate && left <= 0 && -left <= request.maxStale * 1000
}

/** The upstream failed: may this be served instead? */
export function servesOnError(entry: CacheEntry, now: number): boolean {
  return !entry.noCache && -freshFor(entry, now) < entry.staleIfError
}
