/** Options of `responseCache`, read and checked once. */
import { type Clock, type Duration, type Exchange, OptionReader, readClock, type Size } from '@weir/core'
import { type KeyFunction, type KeyOptions, Keys } from './key.ts'
import { memoryStore } from './memory-store.ts'
import type { StorageRules } from './storage.ts'
import type { CacheStore } from './store.ts'

/** Of a response's head, for a rule that decides whether it is stored. */
export interface ResponseFacts {
  readonly status: number
  /** The value of a field; several lines are joined with commas. */
  header(name: string): string | undefined
}

export interface CollapseOptions {
  /** Longest that a request waits for the head of another one's response before it goes to the upstream itself. Default 5 s. */
  readonly timeout?: Duration
}

interface CommonOptions {
  /** For messages, `order` and `Cache-Status`. Default `weir`. */
  readonly name?: string
  /** Largest body that is stored, bytes. A larger one is passed on. Default 8 MiB. */
  readonly maxObjectSize?: Size
  /** What a response is stored under: changes to the usual key, or a function of it. Default: scheme, host, path and query. */
  readonly key?: KeyOptions | KeyFunction
  /** Requests that neither read nor write the cache. */
  readonly bypass?: (exchange: Exchange) => boolean
  /** Responses that are not stored, whatever they say. Called with the head of one that could be. */
  readonly noStore?: (response: ResponseFacts, exchange: Exchange) => boolean
  /**
   * Whether clients may ask for less than the cache has, by `Cache-Control: no-cache, max-age, min-fresh, max-stale, only-if-cached` and `Pragma`. Default false:
   * any client could otherwise send every request to the upstream. A client's `no-store` is always heeded.
   */
  readonly clientControl?: boolean | ((exchange: Exchange) => boolean)
  /** A response with `Set-Cookie`: `pass` (default) does not store it, `strip` stores it without the field, `keep` gives every client the same cookie. */
  readonly setCookie?: 'pass' | 'strip' | 'keep'
  /** Longest lifetime that is guessed from `Last-Modified` (RFC 9111 §4.2.2) where nothing is said. 0: none. Default 1 d. */
  readonly heuristicLimit?: Duration
  /** Stale responses are served for this long while one request revalidates, where the response says nothing about it. Default 0. */
  readonly staleWhileRevalidate?: Duration
  /** Stale responses are served for this long when the upstream fails, where the response says nothing about it. Default 0: only where it does. */
  readonly staleIfError?: Duration
  /** Lifetimes by status for responses that state none: `{ 404: '10s', 503: '1s' }`. Default: none. */
  readonly negative?: Readonly<Record<number, Duration>>
  /** How long it is remembered that a key's response cannot be stored, so that requests for it do not wait for each other. Default 2 m. */
  readonly uncacheableFor?: Duration
  /** Requests for one thing that is not there wait for one of them. Default on. */
  readonly collapse?: boolean | CollapseOptions
  /** A fill goes on when its client leaves although nobody else waits for it. Default false. */
  readonly finishAborted?: boolean
  /** Stored at the nth request for it within about an hour. Default 1: at once. */
  readonly minUses?: number
  /** A hit in the last part of a lifetime, 0.1 being the last tenth, starts a refresh in the background. Default 0: none. */
  readonly refreshAhead?: number
  /** Fields with directives for this cache that go before `Cache-Control` (RFC 9213), the most specific first. Default `['CDN-Cache-Control']`. */
  readonly targets?: readonly string[]
  /** Fields with the tags of a response. `Cache-Groups` (RFC 9875) is always read. Default `['Cache-Tag', 'Surrogate-Key']`. */
  readonly tagHeaders?: readonly string[]
  /** Clients get the fields of `tagHeaders`, too. Default false. */
  readonly exposeTags?: boolean
  /** Adds to `Cache-Status` (RFC 9211). `{ key: true }` with the key, for debugging: it may hold what clients need not know. Default true. */
  readonly cacheStatus?: boolean | { readonly key: boolean }
  /** Longest that a call of the store may take; then a lookup is a miss, and a change counts as not done. Default 1 s. */
  readonly storeTimeout?: Duration
  /** Largest body of a QUERY request that is made part of the key, bytes. 0: QUERY is not cached. Default 64 KiB. */
  readonly maxQueryBody?: Size
  /** For tests. */
  readonly clock?: Clock
}

/** Where it is kept has to be said: a size for memory, or a store. */
export type CacheOptions = CommonOptions &
  (
    | { /** Bytes of memory for everything stored, overhead included. */ readonly maxSize: Size; readonly store?: undefined }
    | {
        /** `memoryStore`, `diskStore`, `tieredStore`, `redisCacheStore` or your own. */
        readonly store: CacheStore
        readonly maxSize?: undefined
      }
  )

export interface CacheSettings {
  readonly name: string
  readonly store: CacheStore
  readonly keys: Keys
  readonly rules: StorageRules
  readonly bypass: ((exchange: Exchange) => boolean) | undefined
  readonly noStore: ((response: ResponseFacts, exchange: Exchange) => boolean) | undefined
  readonly heedsClient: (exchange: Exchange) => boolean
  readonly uncacheableFor: number
  /** Milliseconds; undefined: no collapsing. */
  readonly collapseTimeout: number | undefined
  readonly finishAborted: boolean
  readonly minUses: number
  readonly refreshAhead: number
  readonly cacheStatus: boolean
  /** `Cache-Status` tells the key. */
  readonly keyStatus: boolean
  readonly maxQueryBody: number
  readonly storeTimeout: number
  readonly clock: Clock
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

const known = [
  'name',
  'store',
  'maxSize',
  'maxObjectSize',
  'key',
  'bypass',
  'noStore',
  'clientControl',
  'setCookie',
  'heuristicLimit',
  'staleWhileRevalidate',
  'staleIfError',
  'negative',
  'uncacheableFor',
  'collapse',
  'finishAborted',
  'minUses',
  'refreshAhead',
  'targets',
  'tagHeaders',
  'exposeTags',
  'cacheStatus',
  'maxQueryBody',
  'storeTimeout',
  'clock',
] as const satisfies readonly (keyof CacheOptions)[]

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const fieldToken = /^[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*$/
const day = 86_400_000

/** @throws OptionsError */
export function readCacheOptions(options: CacheOptions): CacheSettings {
  const read = new OptionReader('responseCache')
  const given = read.object<CacheOptions>(options, known)
  const clock = readClock(given.clock, read)
  const name = read.name('name', given.name, 'weir')
  if (!fieldToken.test(name))
    read.problem('name', name, 'a token, as it stands in Cache-Status: letters, digits and -._ beginning with a letter')
  const maxObjectSize = read.size('maxObjectSize', given.maxObjectSize, 8 << 20, { min: 1 })
  const tagHeaders = readNames(read, 'tagHeaders', given.tagHeaders, ['Cache-Tag', 'Surrogate-Key'])
  const exposeTags = read.boolean('exposeTags', given.exposeTags, false)
  const settings: CacheSettings = {
    name,
    store: readStore(read, given),
    keys: readKey(read, given.key),
    rules: {
      targets: readNames(read, 'targets', given.targets, ['CDN-Cache-Control']),
      setCookie: read.oneOf('setCookie', given.setCookie, ['pass', 'strip', 'keep'], 'pass'),
      heuristicLimit: read.duration('heuristicLimit', given.heuristicLimit, day),
      staleWhileRevalidate: read.duration('staleWhileRevalidate', given.staleWhileRevalidate, 0),
      staleIfError: read.duration('staleIfError', given.staleIfError, 0),
      maxObjectSize,
      negative: readNegative(read.at('negative'), given.negative),
      tagHeaders,
      hidden: new Set(exposeTags ? [] : tagHeaders.map((header) => header.toLowerCase())),
    },
    bypass: read.optionalFunction('bypass', given.bypass),
    noStore: read.optionalFunction('noStore', given.noStore),
    heedsClient: readClientControl(read, given.clientControl),
    uncacheableFor: read.duration('uncacheableFor', given.uncacheableFor, 120_000),
    collapseTimeout: readCollapse(read, given.collapse),
    finishAborted: read.boolean('finishAborted', given.finishAborted, false),
    minUses: read.number('minUses', given.minUses, 1, { min: 1, max: 15, integer: true }),
    refreshAhead: read.number('refreshAhead', given.refreshAhead, 0, { min: 0, max: 0.9 }),
    ...readCacheStatus(read, given.cacheStatus),
    maxQueryBody: read.size('maxQueryBody', given.maxQueryBody, 65_536),
    storeTimeout: read.duration('storeTimeout', given.storeTimeout, 1000, { min: 1 }),
    clock,
    now: given.clock === undefined ? Date.now : epoch(clock),
  }
  read.check()
  return settings
}

/** A test's clock runs from the moment the cache is made. */
function epoch(clock: Clock): () => number {
  const offset = Date.now() - clock.now()
  return () => offset + clock.now()
}

function readStore(read: OptionReader, given: Partial<CacheOptions>): CacheStore {
  const { store, maxSize } = given
  if (store !== undefined && maxSize !== undefined) read.problem('maxSize', maxSize, 'nothing beside store, which has its own bound')
  if (store === undefined && maxSize === undefined) read.problem('maxSize', undefined, "a size such as '256MiB', or a store instead of it")
  if (store !== undefined) {
    const methods = ['find', 'body', 'put', 'update', 'remove', 'invalidate', 'invalidateTag', 'entries', 'clear', 'stats'] as const
    if (typeof store === 'object' && store !== null && methods.every((method) => typeof store[method] === 'function')) return store
    read.problem('store', store, `a cache store: an object with ${methods.join(', ')}`)
  }
  return memoryStore({ maxSize: read.size('maxSize', maxSize, 1 << 20, { min: 4096 }) })
}

function readKey(read: OptionReader, value: KeyOptions | KeyFunction | undefined): Keys {
  if (typeof value === 'function') return new Keys({}, value)
  const at = read.at('key')
  const given = at.object<KeyOptions>(value, ['query', 'sortQuery', 'headers', 'cookies', 'version'])
  const { query } = given
  const rule =
    typeof query === 'object' && query !== null ? ('ignore' in query ? query.ignore : 'only' in query ? query.only : undefined) : query
  if (query !== undefined && query !== 'all' && query !== 'none' && !isStrings(rule))
    at.problem('query', query, "'all', 'none', { ignore: ['utm_*'] } or { only: ['page'] }")
  at.boolean('sortQuery', given.sortQuery, false)
  readNames(at, 'headers', given.headers, [])
  if (given.cookies !== undefined && !isStrings(given.cookies)) at.problem('cookies', given.cookies, 'a list of cookie names')
  if (given.version !== undefined) at.name('version', given.version, '')
  return new Keys(given, undefined)
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === 'string' && entry !== '')
}

function readNames(read: OptionReader, name: string, value: readonly string[] | undefined, fallback: readonly string[]): readonly string[] {
  if (value === undefined) return fallback
  if (isStrings(value) && value.every((entry) => token.test(entry))) return value
  read.problem(name, value, 'a list of header field names')
  return fallback
}

function readNegative(read: OptionReader, value: CommonOptions['negative']): ReadonlyMap<number, number> {
  const found = new Map<number, number>()
  if (value === undefined) return found
  if (typeof value !== 'object' || value === null) {
    read.problem('', value, "an object of statuses and durations, { 404: '10s' }")
    return found
  }
  for (const [status, lifetime] of Object.entries(value)) {
    if (!/^[2-5]\d\d$/.test(status) || status === '206') read.problem(status, status, 'a final status other than 206')
    else found.set(Number(status), read.duration(status, lifetime, 0))
  }
  return found
}

function readClientControl(read: OptionReader, value: CommonOptions['clientControl']): (exchange: Exchange) => boolean {
  if (typeof value === 'function') return value
  const heeds = read.boolean('clientControl', value, false)
  return () => heeds
}

function readCollapse(read: OptionReader, value: CommonOptions['collapse']): number | undefined {
  if (value === false) return undefined
  if (value === true) return 5000
  const at = read.at('collapse')
  return at.duration('timeout', at.object<CollapseOptions>(value, ['timeout']).timeout, 5000, { min: 1 })
}

function readCacheStatus(read: OptionReader, value: CacheOptions['cacheStatus']): Pick<CacheSettings, 'cacheStatus' | 'keyStatus'> {
  if (typeof value !== 'object') return { cacheStatus: read.boolean('cacheStatus', value, true), keyStatus: false }
  const inner = read.at('cacheStatus')
  return { cacheStatus: true, keyStatus: inner.boolean('key', inner.object<{ key: boolean }>(value, ['key']).key, false) }
}
