/** May this response be stored for others (RFC 9111 §3), and as what. Whatever is not certain is not stored. */
import type { HeaderList } from '@weir/core'
import type { CacheEntry } from './entry.ts'
import { type Directives, directivesOf, initialAge, lifetimeOf } from './freshness.ts'
import { tagsOf } from './tags.ts'
import { selectingFields, varyNames } from './vary.ts'

/** Why a response was not stored. */
export type NotStored =
  | 'method'
  | 'status'
  | 'no-store'
  | 'private'
  | 'authorization'
  | 'set-cookie'
  | 'vary'
  | 'no-lifetime'
  | 'too-large'
  | 'too-many-tags'
  | 'rule'
  | 'admission'
  | 'incomplete'

export interface StorageRules {
  readonly targets: readonly string[]
  readonly setCookie: 'pass' | 'strip' | 'keep'
  /** Milliseconds. */
  readonly heuristicLimit: number
  readonly staleWhileRevalidate: number
  readonly staleIfError: number
  readonly maxObjectSize: number
  /** Status to milliseconds, for responses without explicit freshness. */
  readonly negative: ReadonlyMap<number, number>
  readonly tagHeaders: readonly string[]
  /** Lower-case names of fields that clients do not get. */
  readonly hidden: ReadonlySet<string>
}

export interface RequestView {
  readonly method: string
  /** Name of the route: what one route's upstreams said is not for another's clients. */
  readonly route: string
  readonly headers: HeaderList
  readonly noStore: boolean
  readonly authorized: boolean
}

export interface ResponseView {
  readonly status: number
  readonly headers: HeaderList
}

/** What it would be stored as, but for `id` and `size`, which are known at its end. */
export type Draft = Omit<CacheEntry, 'id' | 'size'>

const unvaried: readonly string[] = []

const understood: ReadonlySet<number> = new Set([
  200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 409, 410, 414, 415, 421, 422, 451, 500, 501, 502, 503, 504,
])

/** Fields that say something about this one message, or that a cache writes itself. */
const neverKept: ReadonlySet<string> = new Set([
  'age',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
  'proxy-connection',
])

export function draftOf(
  key: string,
  url: string,
  request: RequestView,
  response: ResponseView,
  rules: StorageRules,
  requestedAt: number,
  now: number,
  confirmed = false,
): Draft | NotStored {
  const { status, headers } = response
  const directives = directivesOf(headers, rules.targets)
  const refusal = forbids(request, status, headers, directives, rules)
  if (refusal !== undefined) return refusal
  const names = varyNames(headers)
  if (names === '*') return 'vary'
  const found = lifetimeOf(status, headers, directives, now, rules.heuristicLimit)
  const negative = found?.explicit === true || directives.noCache ? undefined : rules.negative.get(status)
  const lifetime = negative ?? found?.ms
  const etag = headers.get('etag')
  const lastModified = headers.get('last-modified')
  const hasValidator = etag !== undefined || lastModified !== undefined
  // What a 304 has left without a lifetime is stale at once, and can be confirmed again.
  if (lifetime === undefined && !(directives.noCache && hasValidator) && !confirmed) return 'no-lifetime'
  if ((lifetime ?? 0) <= 0 && !hasValidator && (directives.staleWhileRevalidate ?? 0) === 0) return 'no-lifetime'
  // RFC 9111 §3: an answer to a POST only with explicit freshness, and as what a GET of its own URL would get.
  if (request.method === 'POST' && (status !== 200 || found?.explicit !== true || found.ms <= 0)) return 'method'
  if (Number(headers.get('content-length') ?? 0) > rules.maxObjectSize) return 'too-large'
  const tags = tagsOf(headers, rules.tagHeaders, url)
  if (tags === undefined) return 'too-many-tags'
  const never = directives.noCache || directives.mustRevalidate || directives.proxyRevalidate
  // RFC 9111 §5.2.2.10: it implies `proxy-revalidate`. Beside an explicit window it is what everybody means by it, a lifetime for shared caches.
  const unasked = never || directives.sMaxAge !== undefined
  const language = headers.get('content-language')?.trim().toLowerCase()
  return {
    key,
    url,
    status,
    fields: keptFields(headers, directives, rules, now),
    route: request.route,
    vary: names === undefined ? unvaried : selectingFields(names, request.headers),
    requestedAt,
    storedAt: now,
    initialAge: initialAge(headers, requestedAt, now),
    lifetime: lifetime ?? 0,
    staleWhileRevalidate: never ? 0 : window(directives.staleWhileRevalidate, unasked ? 0 : rules.staleWhileRevalidate),
    staleIfError: never ? 0 : window(directives.staleIfError, unasked ? 0 : rules.staleIfError),
    noCache: directives.noCache,
    mustRevalidate: unasked,
    forAuthorized: permitsAuthorized(directives),
    etag,
    lastModified,
    language: language === undefined || language.includes(',') ? undefined : language,
    tags,
  }
}

/** What the response says, else the cache's own default, milliseconds. */
function window(stated: number | undefined, fallback: number): number {
  return stated === undefined ? fallback : stated * 1000
}

/** RFC 9111 §3.5. */
function permitsAuthorized(directives: Directives): boolean {
  return directives.public || directives.sMaxAge !== undefined || directives.mustRevalidate
}

function forbids(
  request: RequestView,
  status: number,
  headers: HeaderList,
  directives: Directives,
  rules: StorageRules,
): NotStored | undefined {
  if (request.noStore) return 'no-store'
  if (status < 200 || status === 206 || status === 304 || status === 226) return 'status'
  if (directives.mustUnderstand) {
    // RFC 9111 §5.2.2.3: for those who know the status `no-store` is meant for the others.
    if (!understood.has(status)) return 'status'
  } else if (directives.noStore) return 'no-store'
  if (directives.private) return 'private'
  if (request.authorized && !permitsAuthorized(directives)) return 'authorization'
  if (rules.setCookie === 'pass' && headers.has('set-cookie')) return 'set-cookie'
  return undefined
}

/** RFC 9111 §3.1. Core has taken off what belongs to the connection. */
function keptFields(headers: HeaderList, directives: Directives, rules: Pick<StorageRules, 'setCookie' | 'hidden'>, now: number): string[] {
  const kept: string[] = []
  let dated = false
  for (const [name, value] of headers) {
    const lower = name.toLowerCase()
    if (neverKept.has(lower) || rules.hidden.has(lower) || directives.withheld.includes(lower)) continue
    if (lower === 'set-cookie' && rules.setCookie !== 'keep') continue
    if (lower === 'date') dated = true
    kept.push(intern(name), value)
  }
  // RFC 9110 §6.6.1: whoever has a clock adds what is missing.
  if (!dated) kept.push('Date', new Date(now).toUTCString())
  return kept
}

const names = new Map<string, string>()

/** One string for a name that every response has. Bounded: an upstream may make names up. */
function intern(name: string): string {
  const known = names.get(name)
  if (known !== undefined) return known
  if (names.size < 500) names.set(name, name)
  return name
}

/** RFC 9111 §3.2: a 304's fields in place of the stored ones of the same names. */
export function mergedFields(stored: readonly string[], update: readonly string[]): string[] {
  const replaced = new Set<string>()
  for (let i = 0; i < update.length; i += 2) {
    const lower = (update[i] as string).toLowerCase()
    if (!boundToBody.has(lower)) replaced.add(lower)
  }
  const merged: string[] = []
  for (let i = 0; i < stored.length; i += 2)
    if (!replaced.has((stored[i] as string).toLowerCase())) merged.push(stored[i] as string, stored[i + 1] as string)
  for (let i = 0; i < update.length; i += 2)
    if (!boundToBody.has((update[i] as string).toLowerCase())) merged.push(update[i] as string, update[i + 1] as string)
  return merged
}

/** They describe the bytes that are stored, and those stay. */
const boundToBody: ReadonlySet<string> = new Set(['content-length', 'content-encoding', 'content-range', 'transfer-encoding', 'age'])
