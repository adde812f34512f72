/**
 * The stage. Open this first:
 *
 *   handle     which request is it, and what is stored for it          key.ts, store.ts
 *   #decide    is that good enough                                     reuse.ts
 *   answer     hit: a reply made of the stored response                answer.ts
 *   #fetch     miss: ask the upstream, once for all who want it        fill.ts
 *   Fetch      what becomes of the upstream's answer                   fetch.ts, storage.ts
 *
 * Everything is synchronous until a store returns a promise. One class, long as it is: who joins what is being fetched, and what an invalidation makes of that, are
 * the same few fields, and each rule about them has to be read beside the others.
 */

import { Readable } from 'node:stream'
import { type Exchange, HeaderList, type Hooks, type MaybePromise, type Reply, type Stage } from '@weir/core'
import { LRUCache } from 'lru-cache'
import { type Asked, answer, answerAgain, asksForAll, type Content, hasAlready } from './answer.ts'
import { type CacheOptions, type CacheSettings, readCacheOptions } from './cache-options.ts'
import { type Forwarded, forwardStatus, HitStatus, keyParameter } from './cache-status.ts'
import { type CacheControls, controls } from './controls.ts'
import { type CacheEntry, freshFor } from './entry.ts'
import { type CacheDecision, decisions } from './events.ts'
import { Fetch, type FetchHost, nobodyWaits } from './fetch.ts'
import { Fill, type FillNews } from './fill.ts'
import { FrequencySketch } from './frequency.ts'
import { invalidating } from './invalidation.ts'
import { queryTarget, type Target } from './key.ts'
import { SearchRules } from './no-vary-search.ts'
import { reuseOf } from './reuse.ts'
import type { Draft, NotStored } from './storage.ts'
import type { CacheStore, Invalidation } from './store.ts'
import { pathTag, urlTag } from './tags.ts'
import { matches, selectingFields } from './vary.ts'
import { asSent, fillKey, select, suits, type Wish, wishOf } from './wish.ts'

export interface CacheStats {
  /** Requests answered from a fresh response; from a stale one; from one that the upstream had just confirmed. */
  readonly hits: number
  readonly staleHits: number
  readonly revalidated: number
  /** Requests that read along what another one fetched. */
  readonly collapsed: number
  /** Requests that went to an upstream because nothing usable was there. */
  readonly misses: number
  /** Requests that the cache had nothing to do with. */
  readonly bypassed: number
  /** Requests of the cache's own, to refresh or fill. */
  readonly background: number
  readonly stored: number
  /** Responses that were not stored, by reason. */
  readonly notStored: Readonly<Partial<Record<NotStored, number>>>
  /** Entries that were invalidated. */
  readonly invalidated: number
  /** Calls of the store that failed, and counted as a miss. */
  readonly storeErrors: number
  /** In the store, where it can tell. */
  readonly entries: number
  readonly bytes: number
}

export interface ResponseCache extends Stage, CacheControls {
  /** Since the cache was made. */
  stats(): CacheStats
}

/** @throws OptionsError */
export function responseCache(options: CacheOptions): ResponseCache {
  return new Cache(readCacheOptions(options)).face
}

/** RFC 9110 §9.2.1; whatever else may change something. */
const safe: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'QUERY'])

/** What is in a store, as an answer wants it. */
class Stored implements Content {
  readonly #store: CacheStore
  readonly entry: CacheEntry

  constructor(store: CacheStore, entry: CacheEntry) {
    this.#store = store
    this.entry = entry
  }

  get size(): number {
    return this.entry.size
  }

  open(start: number, end: number): MaybePromise<Uint8Array | Readable | undefined> {
    return this.#store.body(this.entry, start, end)
  }
}

type Counts = { -readonly [K in keyof CacheStats]: CacheStats[K] extends number ? number : Partial<Record<NotStored, number>> }

class Cache implements FetchHost {
  readonly settings: CacheSettings
  readonly face: ResponseCache
  readonly search: SearchRules = new SearchRules()
  readonly counts: Counts = {
    hits: 0,
    staleHits: 0,
    revalidated: 0,
    collapsed: 0,
    misses: 0,
    bypassed: 0,
    background: 0,
    stored: 0,
    notStored: {},
    invalidated: 0,
    storeErrors: 0,
    entries: 0,
    bytes: 0,
  }
  /** What is being fetched, by route and key. */
  readonly #fills = new Map<string, Fill[]>()
  /** Until when it is known that a key's response cannot be shared (hit-for-miss), ms since the epoch. */
  readonly #passes = new LRUCache<string, number>({ max: 50_000, maxSize: 8 << 20, sizeCalculation: (_until, key) => key.length + 100 })
  /** Tags that were invalidated while something was being fetched, and when in the order of things. */
  readonly #lateTags = new Map<string, number>()
  #everythingLate = 0
  #order = 0
  #running = 0
  readonly #uses: FrequencySketch | undefined
  readonly #pending = new Set<Promise<void>>()
  readonly #bypassHooks: ReadonlyMap<Forwarded, Hooks>
  readonly #hitStatus: HitStatus

  constructor(settings: CacheSettings) {
    this.settings = settings
    this.#uses = settings.minUses > 1 ? new FrequencySketch(65_536) : undefined
    this.#hitStatus = new HitStatus(settings.name)
    this.#bypassHooks = new Map((['bypass', 'method'] as const).map((why) => [why, this.#telling(why)]))
    this.face = {
      name: 'response-cache',
      handle: (exchange) => this.handle(exchange),
      start: () => settings.store.start?.(),
      ...controls(this),
      stats: () => ({ ...this.counts, notStored: { ...this.counts.notStored }, ...settings.store.stats() }),
    }
  }

  handle(exchange: Exchange): MaybePromise<Reply | Hooks | undefined> {
    if (exchange.kind !== 'request') return undefined
    const { method } = exchange
    const { settings } = this
    if (!safe.has(method)) return invalidating(this, exchange)
    if (method !== 'GET' && method !== 'HEAD' && method !== 'QUERY') return this.#pass(exchange, 'method')
    if (settings.bypass?.(exchange) === true) return this.#pass(exchange, 'bypass')
    const target = settings.keys.of(exchange)
    if (target === undefined) return this.#pass(exchange, 'bypass')
    if (method === 'QUERY') return this.#query(exchange, target)
    // A GET that means something by its body would be answered as if it had none.
    if (exchange.hasBody) return this.#pass(exchange, 'bypass')
    const wish = wishOf(exchange, this.settings.heedsClient)
    return wish.overridden ? this.#pass(exchange, 'bypass') : this.#look(exchange, target, wish, undefined)
  }

  #pass(exchange: Exchange, why: Forwarded): Hooks | undefined {
    this.counts.bypassed++
    this.tell(exchange, 'bypass', undefined)
    return this.#bypassHooks.get(why)
  }

  #telling(why: Forwarded): Hooks {
    const value = forwardStatus(this.settings.name, { why })
    return {
      onResponse: ({ headers }) => {
        for (const name of this.settings.rules.hidden) headers.delete(name)
        if (this.settings.cacheStatus) headers.append('Cache-Status', value)
      },
    }
  }

  async #query(exchange: Exchange, target: Target): Promise<Reply | Hooks | undefined> {
    const body = this.settings.maxQueryBody === 0 ? undefined : await exchange.readBody(this.settings.maxQueryBody)
    if (body === undefined) return this.#pass(exchange, 'bypass')
    const wish = wishOf(exchange, this.settings.heedsClient)
    if (wish.overridden) return this.#pass(exchange, 'bypass')
    return await this.#look(exchange, queryTarget(target, exchange, body), wish, undefined)
  }

  /** @param not the fill that turned out not to be what this request wants */
  #look(exchange: Exchange, target: Target, wish: Wish, not: Fill | undefined): MaybePromise<Reply | Hooks | undefined> {
    const found = this.find(target.key)
    if (!(found instanceof Promise)) return this.#decide(exchange, target, wish, found, not)
    // A client that has left meanwhile is told nothing, and nothing is begun for it.
    return found.then((entries) => (exchange.signal.aborted ? undefined : this.#decide(exchange, target, wish, entries, not)))
  }

  /** What is stored for it; nothing when the store fails. */
  find(key: string): MaybePromise<readonly CacheEntry[]> {
    const found = this.#findExactly(key)
    const alias = this.search.keyFor(key)
    if (alias === undefined) return found
    if (!(found instanceof Promise)) return found.length > 0 ? found : this.#findExactly(alias)
    return found.then((entries) => (entries.length > 0 ? entries : this.#findExactly(alias)))
  }

  #findExactly(key: string): MaybePromise<readonly CacheEntry[]> {
    try {
      const found = this.settings.store.find(key)
      return found instanceof Promise ? this.inTime(found).catch(() => this.#storeFailed()) : found
    } catch {
      return this.#storeFailed()
    }
  }

  #storeFailed(): readonly CacheEntry[] {
    this.counts.storeErrors++
    return []
  }

  #decide(
    exchange: Exchange,
    target: Target,
    wish: Wish,
    entries: readonly CacheEntry[],
    not: Fill | undefined,
  ): MaybePromise<Reply | Hooks | undefined> {
    const now = this.settings.now()
    const entry = select(entries, wish)
    if (entry !== undefined) {
      const reuse = reuseOf(entry, wish.directives, now)
      if (reuse === 'fresh') {
        if (this.settings.refreshAhead > 0 && freshFor(entry, now) < entry.lifetime * this.settings.refreshAhead)
          this.#refresh(exchange, target, wish, entry)
        return this.#hit(exchange, target, wish, entry, now, 'hits')
      }
      if (reuse === 'stale-wanted') return this.#hit(exchange, target, wish, entry, now, 'staleHits')
      if (reuse === 'stale-while-revalidate' && wish.method !== 'QUERY') {
        this.#refresh(exchange, target, wish, entry)
        return this.#hit(exchange, target, wish, entry, now, 'staleHits')
      }
    }
    if (wish.directives.onlyIfCached) {
      const { cacheStatus, name } = this.settings
      return cacheStatus
        ? { status: 504, headers: { 'Cache-Status': `${name}; detail=only-if-cached` }, body: '' }
        : { status: 504, body: '' }
    }
    return this.#fetch(exchange, target, wish, entry, entries.length > 0, not)
  }

  #hit(
    exchange: Exchange,
    target: Target,
    wish: Wish,
    entry: CacheEntry,
    now: number,
    kind: 'hits' | 'staleHits',
  ): MaybePromise<Reply | Hooks | undefined> {
    const reply = this.fromStore(wish, entry, now)
    if (reply instanceof Promise)
      return reply.then((made) => {
        if (made === undefined) return this.#fetch(exchange, target, wish, undefined, false, undefined)
        this.counts[kind]++
        this.tell(exchange, kind === 'hits' ? 'hit' : 'stale', target.key)
        return made
      })
    // Evicted between its head and its body.
    if (reply === undefined) return this.#fetch(exchange, target, wish, undefined, false, undefined)
    this.counts[kind]++
    this.tell(exchange, kind === 'hits' ? 'hit' : 'stale', target.key)
    return reply
  }

  /** Undefined when its body has gone. */
  fromStore(asked: Asked, entry: CacheEntry, now: number, status?: string): MaybePromise<Reply | undefined> {
    const { settings } = this
    let line = settings.cacheStatus ? (status ?? this.#hitStatus.of(Math.ceil(freshFor(entry, now) / 1000))) : undefined
    if (settings.keyStatus && status === undefined) line += keyParameter(entry.key)
    let made: MaybePromise<Reply | undefined>
    try {
      made =
        (status === undefined ? this.#again(asked, entry, now, line) : undefined) ??
        answer(asked, new Stored(settings.store, entry), now, line)
    } catch {
      this.counts.storeErrors++
      return undefined
    }
    if (!(made instanceof Promise)) return made
    return this.inTime(made).catch(() => {
      this.counts.storeErrors++
      // Too late for this client; what it holds is given back.
      made.then(
        (late) => void (late?.body instanceof Readable && late.body.destroy()),
        () => {},
      )
      return undefined
    })
  }

  /** A short body that is asked for often, where the store has it at hand. */
  #again(asked: Asked, entry: CacheEntry, now: number, cacheStatus: string | undefined): Reply | undefined {
    const { store } = this.settings
    const hot = asksForAll(asked) ? store.hot?.(entry) : undefined
    if (hot === undefined) return undefined
    const body = store.body(entry, 0, entry.size)
    return body instanceof Uint8Array ? answerAgain(entry, hot, body, now, cacheStatus) : undefined
  }

  /** In the background, once at a time. */
  #refresh(exchange: Exchange, target: Target, wish: Wish, entry: CacheEntry): void {
    if (wish.method === 'QUERY') return
    const fills = this.#fills.get(fillKey(wish, target))
    if (fills?.some((fill) => fill.joinable) === true) return
    if ((this.#passes.get(`refresh ${fillKey(wish, target)}`) ?? 0) > this.settings.now()) return
    const fill = this.#begin(wish, target)
    this.#fork(exchange, target, wish, entry, fill)
  }

  /** A refresh came to nothing: the next hit does not try again at once. */
  refreshFailed(fill: Fill): void {
    this.#passes.set(`refresh ${fill.key}`, this.settings.now() + 1000)
  }

  /** @param anyLength whether the answer is wanted though nobody knows how long it is */
  #fork(
    exchange: Exchange,
    target: Target,
    wish: Wish,
    entry: CacheEntry | undefined,
    fill: Fill,
    anyLength?: (draft: Draft) => boolean,
  ): void {
    this.counts.background++
    const fetch = new Fetch(
      this,
      target,
      { ...asSent(wish), method: 'GET', noStore: false, conditional: false, range: undefined },
      entry,
      fill,
      'stale',
      true,
    )
    fetch.anyLength = anyLength
    try {
      // The proxy's close does not wait for what nobody waits for.
      exchange.fork(this.face, { method: 'GET', edit: (headers) => fetch.prepare(headers) }, fetch).outlive(() => fill.wanted)
    } catch {
      // The stage is called by another one, which core does not know to be a cache: there are no requests of its own then.
      fetch.onFinish()
    }
  }

  #fetch(
    exchange: Exchange,
    target: Target,
    wish: Wish,
    entry: CacheEntry | undefined,
    hasVariants: boolean,
    not: Fill | undefined,
  ): MaybePromise<Reply | Hooks | undefined> {
    // Of a fresh one only the client can have wanted it asked for again.
    const wanted = entry !== undefined && !entry.noCache && freshFor(entry, this.settings.now()) > 0
    const why: Forwarded = wanted ? 'request' : entry !== undefined ? 'stale' : hasVariants ? 'vary-miss' : 'uri-miss'
    const key = fillKey(wish, target)
    const alone =
      wish.alone ||
      wish.method === 'HEAD' ||
      wish.noStore ||
      this.settings.collapseTimeout === undefined ||
      (this.#passes.get(key) ?? 0) > this.settings.now()
    if (alone) return this.#goAlone(exchange, target, wish, entry, why)
    for (const fill of this.#fills.get(key) ?? [])
      if (fill !== not && fill.joinable && this.#mayJoin(fill, wish)) return this.#follow(exchange, target, wish, fill)
    if (entry === undefined && (wish.conditional || wish.range !== undefined) && wish.method === 'GET') {
      // The client wants a part, or perhaps nothing; what is stored is the whole.
      const fill = this.#begin(wish, target)
      const asked = asSent(wish)
      this.#fork(exchange, target, wish, undefined, fill, (draft) => hasAlready(asked, draft, this.settings.now()))
      return this.#follow(exchange, target, wish, fill)
    }
    this.counts.misses++
    this.tell(exchange, 'miss', target.key)
    const fill = this.#begin(wish, target)
    const fetch = new Fetch(this, target, asSent(wish), entry, fill, why, false)
    fetch.prepare(exchange.headers)
    exchange.outlive(() => {
      const { finishAborted } = this.settings
      if (!fill.wanted && !(finishAborted && fill.draft !== undefined && !fill.overflown)) return false
      fill.onUnwanted = () => {
        if (!finishAborted || fill.overflown) queueMicrotask(() => exchange.fail(nobodyWaits()))
      }
      return true
    })
    return fetch
  }

  #mayJoin(fill: Fill, wish: Wish): boolean {
    const { draft } = fill
    if (draft !== undefined) return suits(draft, wish) && this.stillValid(fill, draft.tags)
    const { varies } = wish
    // Nobody knows yet what will come, but what it is going to be chosen by.
    const alike =
      varies === undefined || fill.request === undefined || matches(selectingFields(varies, fill.request), wish.headers, undefined)
    return alike && this.stillValid(fill, [])
  }

  /** Not collapsed. What comes may be stored all the same. */
  #goAlone(exchange: Exchange, target: Target, wish: Wish, entry: CacheEntry | undefined, why: Forwarded): Hooks {
    this.counts.misses++
    this.tell(exchange, 'miss', target.key)
    if (wish.method === 'HEAD') return new Fetch(this, target, asSent(wish), entry, undefined, why, false)
    const fetch = new Fetch(this, target, asSent(wish), entry, this.#begin(undefined, target), why, false)
    if (entry !== undefined) fetch.prepare(exchange.headers)
    return fetch
  }

  #begin(wish: Wish | undefined, target: Target): Fill {
    const key = wish === undefined ? '' : fillKey(wish, target)
    const fill = new Fill(key, target.key, this.#order, this.settings.rules.maxObjectSize)
    if (wish !== undefined) fill.request = new HeaderList(wish.headers.raw)
    const present = this.#fills.get(key)
    if (present === undefined) this.#fills.set(key, [fill])
    else present.push(fill)
    this.#running++
    return fill
  }

  /** It is over, or can be joined no more. */
  ended(fill: Fill): void {
    const present = this.#fills.get(fill.key)
    const index = present?.indexOf(fill) ?? -1
    if (present === undefined || index < 0) return
    present.splice(index, 1)
    if (present.length === 0) this.#fills.delete(fill.key)
    this.#running--
    if (this.#running === 0) this.#lateTags.clear()
  }

  uncacheable(fill: Fill): void {
    if (fill.key !== '') this.#passes.set(fill.key, this.settings.now() + this.settings.uncacheableFor)
  }

  cacheable(fill: Fill): void {
    this.#passes.delete(fill.key)
  }

  async again(exchange: Exchange, target: Target): Promise<Reply> {
    const wish = { ...wishOf(exchange, this.settings.heedsClient), conditional: false, range: undefined, alone: true }
    if (wish.method === 'QUERY') return { status: 502, body: '' }
    const fill = this.#begin(wish, target)
    this.#fork(exchange, target, wish, undefined, fill, () => true)
    const made = await this.#follow(exchange, target, wish, fill)
    if (made !== undefined && 'status' in made) return made
    // Its exchange has its hooks already: what was begun for it ends here.
    if (made instanceof Fetch) made.onFinish()
    return { status: 502, body: '' }
  }

  posting(exchange: Exchange, target: Target): (() => Hooks) | undefined {
    const wish = wishOf(exchange, this.settings.heedsClient)
    if (wish.overridden || this.settings.bypass?.(exchange) === true) return undefined
    const sent = asSent(wish)
    return () => new Fetch(this, target, sent, undefined, this.#begin(undefined, target), 'method', false)
  }

  /** @returns whether what this fill brought may still be stored under these tags */
  stillValid(fill: Fill, tags: readonly string[]): boolean {
    if (fill.obsolete || this.#everythingLate > fill.began) return false
    for (const tag of tags) if ((this.#lateTags.get(tag) ?? -1) > fill.began) return false
    return true
  }

  admits(key: string): boolean {
    if (this.#uses === undefined) return true
    this.#uses.count(key)
    return this.#uses.estimate(key) >= this.settings.minUses
  }

  /** Joins what another one fetches. */
  #follow(exchange: Exchange, target: Target, wish: Wish, fill: Fill): MaybePromise<Reply | Hooks | undefined> {
    const { clock, collapseTimeout = 0 } = this.settings
    // One patience for all that it waits for.
    wish.waitsUntil ??= clock.now() + collapseTimeout
    const until = wish.waitsUntil
    return new Promise<Reply | Hooks | undefined>((resolve, reject) => {
      let timer: unknown
      const onNews = (news: FillNews): void => {
        clock.clearTimeout(timer)
        exchange.signal.removeEventListener('abort', onAbort)
        try {
          resolve(this.#learn(exchange, target, wish, fill, news))
        } catch (error) {
          reject(error as Error)
        }
      }
      const waiting = fill.wait(onNews)
      if (typeof waiting !== 'function') {
        resolve(this.#learn(exchange, target, wish, fill, waiting))
        return
      }
      const onAbort = (): void => {
        clock.clearTimeout(timer)
        waiting()
        resolve(undefined)
      }
      exchange.signal.addEventListener('abort', onAbort, { once: true })
      timer = clock.setTimeout(
        () => {
          waiting()
          exchange.signal.removeEventListener('abort', onAbort)
          wish.alone = true
          resolve(this.#look(exchange, target, wish, undefined))
        },
        Math.max(0, until - clock.now()),
      )
    })
  }

  #learn(exchange: Exchange, target: Target, wish: Wish, fill: Fill, news: FillNews): MaybePromise<Reply | Hooks | undefined> {
    const now = this.settings.now()
    const { cacheStatus, keyStatus, name } = this.settings
    const line = cacheStatus
      ? forwardStatus(name, { why: 'uri-miss', collapsed: true }) + (keyStatus ? keyParameter(target.key) : '')
      : undefined
    switch (news.kind) {
      case 'shared': {
        const { draft, length } = fill
        if (draft !== undefined && draft.vary.length > 0) wish.varies = draft.vary.filter((_, i) => i % 2 === 0)
        if (draft === undefined || !fill.joinable || !this.#mayJoin(fill, wish)) return this.#look(exchange, target, wish, fill)
        this.counts.collapsed++
        this.tell(exchange, 'collapsed', target.key)
        return answer(wish, { entry: draft, size: length, open: (start, end) => fill.reader(start, end) }, now, line)
      }
      case 'stored':
      case 'stale': {
        const { entry } = news
        if (!suits(entry, wish) || !this.stillValid(fill, entry.tags)) return this.#look(exchange, target, wish, fill)
        this.counts.collapsed++
        this.tell(exchange, 'collapsed', target.key)
        const reply = this.fromStore(wish, entry, now, line)
        const orElse = (made: Reply | undefined): MaybePromise<Reply | Hooks | undefined> =>
          made ?? this.#goAlone(exchange, target, wish, undefined, 'uri-miss')
        return reply instanceof Promise ? reply.then(orElse) : orElse(reply)
      }
      case 'uncacheable':
        wish.alone = true
        return this.#look(exchange, target, wish, fill)
      case 'failed':
        // Perhaps it was its client: one of those who waited asks again, and the others wait for that one. But not one after the other for ever.
        wish.failures++
        wish.alone = wish.failures > 1
        return this.#look(exchange, target, wish, fill)
    }
  }

  // Invalidation

  /** What is on its way for this key is not stored when it comes. */
  obsoleteKey(key: string): void {
    this.#order++
    const alias = this.search.keyFor(key)
    for (const fills of this.#fills.values())
      for (const fill of fills)
        if (fill.target === key || (alias !== undefined && this.search.keyFor(fill.target) === alias)) fill.obsolete = true
  }

  obsoleteTag(tag: string): void {
    this.#order++
    if (this.#running === 0) return
    this.#lateTags.set(tag, this.#order)
    // One that goes on for hours must not make a list of all that happens.
    if (this.#lateTags.size > maxLateTags) this.obsoleteAll()
  }

  obsoleteAll(): void {
    this.#order++
    this.#everythingLate = this.#order
    this.#lateTags.clear()
  }

  async invalidateKey(key: string, how: Invalidation): Promise<number> {
    this.obsoleteKey(key)
    return await this.#invalidating(async (store) => await store.invalidate(key, how))
  }

  async invalidateUrl(url: string, key: string, how: Invalidation): Promise<number> {
    let count = await this.invalidateKey(key, how)
    // Under other keys of its own, and under what is left of its query.
    count += await this.invalidateTag(urlTag(url), how)
    if (this.search.known > 0) count += await this.invalidateTag(pathTag(url), how)
    return count
  }

  async #invalidating(act: (store: CacheStore) => Promise<number>): Promise<number> {
    const { store } = this.settings
    // What is being stored is stored first; what begins afterwards knows that it comes too late.
    if (this.#pending.size > 0) await this.settled()
    const count = await this.inTime(act(store))
    this.counts.invalidated += count
    return count
  }

  pending(change: Promise<void>): void {
    this.#pending.add(change)
    void change.then(() => this.#pending.delete(change))
  }

  async settled(): Promise<void> {
    await this.inTime(Promise.all(this.#pending)).catch(() => {})
  }

  /** A store that does not answer must not hold up a client. */
  inTime<T>(answer: Promise<T>): Promise<T> {
    const { clock, storeTimeout } = this.settings
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const timer = clock.setTimeout(() => reject(new Error(`The cache's store did not answer within ${storeTimeout} ms.`)), storeTimeout)
    answer.then(
      (value) => {
        clock.clearTimeout(timer)
        resolve(value)
      },
      (error) => {
        clock.clearTimeout(timer)
        reject(error as Error)
      },
    )
    return promise
  }

  async invalidateTag(tag: string, how: Invalidation): Promise<number> {
    this.obsoleteTag(tag)
    return await this.#invalidating(async (store) => await store.invalidateTag(tag, how))
  }

  tell(exchange: Exchange, outcome: CacheDecision['outcome'], key: string | undefined): void {
    if (decisions.hasSubscribers) decisions.publish({ exchange, stage: this.settings.name, outcome, key } satisfies CacheDecision)
  }
}

/** Tags that were invalidated while something is on its way, before all of that counts as invalidated. */
const maxLateTags = 10_000
