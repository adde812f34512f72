/**
 * A stored response without its body: plain data, so that every store can write it down. Times are milliseconds since the epoch of the machine that stored
 * it; a lifetime and an age are kept instead of an expiry, because both are asked for.
 */

/** See `CacheStore`. Two entries of one `id` are the same body. */
export interface CacheEntry {
  /** Of this body, unique in its store. */
  readonly id: string
  /** What it is stored under; the variants of a resource share it. */
  readonly key: string
  /** `https://shop.example/a?b`. */
  readonly url: string
  readonly status: number
  /** Flat list of names and values, end-to-end fields only, without `Age`. */
  readonly fields: readonly string[]
  /** Name of the route that it came through. */
  readonly route: string
  /** What the request said in the fields that `Vary` names: flat list of lower-case names and normalised values. Empty without `Vary`. */
  readonly vary: readonly string[]
  /**
   * When it was asked for. A store that several processes share needs it to tell what was asked for before something was invalidated; without it the age of
   * the response has to do, which is as coarse as `Date`.
   */
  readonly requestedAt?: number
  /** When the response came, or was last confirmed by a 304. */
  readonly storedAt: number
  /** Its age then, milliseconds (RFC 9111 §4.2.3). */
  readonly initialAge: number
  /** Freshness lifetime, milliseconds (RFC 9111 §4.2.1). */
  readonly lifetime: number
  /** May be served stale for this long while it is being revalidated, milliseconds (RFC 5861). */
  readonly staleWhileRevalidate: number
  /** May be served stale for this long when the upstream fails, milliseconds (RFC 5861). */
  readonly staleIfError: number
  /** Never without asking the upstream: `no-cache`. */
  readonly noCache: boolean
  /** Never stale, whoever allows it: `must-revalidate`, `proxy-revalidate`, `s-maxage`, `no-cache`. */
  readonly mustRevalidate: boolean
  /** May answer requests with `Authorization`: `public`, `s-maxage`, `must-revalidate` (RFC 9111 §3.5). */
  readonly forAuthorized: boolean
  readonly etag: string | undefined
  readonly lastModified: string | undefined
  /** Lower-case `Content-Language`, when it names one. */
  readonly language: string | undefined
  readonly tags: readonly string[]
  /** Bytes of body. */
  readonly size: number
}

/** Milliseconds (RFC 9111 §4.2.3). */
export function ageOf(entry: Pick<CacheEntry, 'initialAge' | 'storedAt'>, now: number): number {
  // A clock that was set back makes nothing younger than it came.
  return entry.initialAge + Math.max(0, now - entry.storedAt)
}

/** How long it is still fresh, milliseconds; negative: for how long it has been stale. */
export function freshFor(entry: Pick<CacheEntry, 'initialAge' | 'storedAt' | 'lifetime'>, now: number): number {
  return entry.lifetime - ageOf(entry, now)
}

/** As if it had just become stale: what a soft purge leaves. */
export function staled(entry: CacheEntry, now: number): CacheEntry {
  return freshFor(entry, now) <= 0 ? entry : { ...entry, lifetime: Math.max(0, ageOf(entry, now)) }
}

// What V8 takes besides the characters: a string's header, an array's slot; a Buffer with its ArrayBuffer and the allocator's share; the entry, its lists and
// the places that it has in the store's tables.
const perString = 24
const perSlot = 8
const perEntry = 1200

/** Bytes that it takes in memory, body included, as near as can be told. Always at least 1. */
export function weightOf(entry: CacheEntry): number {
  let bytes = perEntry + entry.size + entry.key.length + entry.url.length + 2 * perString
  for (const list of [entry.fields, entry.vary, entry.tags]) for (const text of list) bytes += text.length + perString + perSlot
  return bytes
}
