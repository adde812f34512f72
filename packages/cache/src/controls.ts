/** The cache as the application holds it: a typed collection that can be read, asked and emptied, in the same process and at once. */

import { Readable } from 'node:stream'
import { HeaderList, type InjectedRequest, type MaybePromise, type ReverseProxy } from '@weir/core'
import type { CacheSettings } from './cache-options.ts'
import { ageOf, type CacheEntry, freshFor, staled } from './entry.ts'
import { parseUrl } from './key.ts'
import type { Invalidation } from './store.ts'
import { givenTags } from './tags.ts'
import { matches } from './vary.ts'

export interface CachedResponse {
  readonly status: number
  readonly headers: HeaderList
  readonly body: Uint8Array
  /** Seconds. */
  readonly age: number
  /** Seconds; negative when it is stale. */
  readonly freshFor: number
  readonly tags: readonly string[]
}

/** An entry as predicates and lists see it. */
export interface CachedEntry {
  readonly key: string
  readonly url: string
  readonly status: number
  readonly headers: HeaderList
  readonly tags: readonly string[]
  /** Bytes of body. */
  readonly size: number
  /** Seconds. */
  readonly age: number
  /** Seconds; negative when it is stale. */
  readonly freshFor: number
}

export interface InvalidateOptions {
  /** Makes it stale instead of removing it: it can still be revalidated, and be served while that happens or when the upstream fails. Default false. */
  readonly soft?: boolean
}

export interface WarmOptions {
  /** Requests at a time. Default 4. */
  readonly concurrency?: number
  /** Sent with each of them. */
  readonly headers?: InjectedRequest['headers']
  readonly signal?: AbortSignal
}

export interface CacheControls {
  /**
   * What would be served for a GET of this URL with these fields, stale or not; undefined when nothing is stored. What a trusted proxy in front adds that is part of
   * the key (`X-Forwarded-Prefix`, say) belongs to the fields.
   */
  get(url: string | URL, headers?: Readonly<Record<string, string>>): Promise<CachedResponse | undefined>
  /**
   * Every variant of a URL, absolute: `https://shop.example/a?b=c`. @returns how many there were; what was on its way into the store goes as well, and may not be counted
   * @throws TypeError for what is no such URL
   */
  purge(url: string | URL, options?: InvalidateOptions): Promise<number>
  /** For keys of one's own. */
  purgeKey(key: string, options?: InvalidateOptions): Promise<number>
  /** Everything with this tag, or with any of these. When it resolves, no request gets what was stored before, nor what was on its way. */
  invalidateTag(tag: string | readonly string[], options?: InvalidateOptions): Promise<number>
  /** A group of an origin (RFC 9875). */
  invalidateGroup(origin: string | URL, group: string, options?: InvalidateOptions): Promise<number>
  /** Everything that the predicate holds for. It looks at all there is. */
  invalidate(predicate: (entry: CachedEntry) => boolean, options?: InvalidateOptions): Promise<number>
  entries(): AsyncIterable<CachedEntry>
  clear(): Promise<void>
  /**
   * Fetches URLs through `proxy`, so that they are there before somebody asks. @returns how many were answered with less than 400
   * @throws TypeError for https URLs without `X-Forwarded-Proto` in `headers`, which 127.0.0.1 has to be trusted with: nothing here speaks TLS
   */
  warm(proxy: ReverseProxy, urls: Iterable<string | URL>, options?: WarmOptions): Promise<number>
}

export interface ControlHost {
  readonly settings: CacheSettings
  readonly counts: { invalidated: number }
  find(key: string): MaybePromise<readonly CacheEntry[]>
  invalidateKey(key: string, how: Invalidation): Promise<number>
  /** By the URL, and what is stored for it under other keys. */
  invalidateUrl(url: string, key: string, how: Invalidation): Promise<number>
  /** When what is being stored now is stored. */
  settled(): Promise<void>
  invalidateTag(tag: string, how: Invalidation): Promise<number>
  obsoleteAll(): void
}

export function controls(host: ControlHost): CacheControls {
  const { settings } = host
  const { store, keys, now } = settings
  const how = (options: InvalidateOptions | undefined): Invalidation =>
    options?.soft === true ? { kind: 'stale', now: now() } : { kind: 'delete' }

  async function* entries(): AsyncGenerator<CachedEntry> {
    for await (const entry of store.entries()) yield seen(entry, now())
  }

  return {
    async get(url, fields = {}) {
      const headers = new HeaderList(Object.entries(fields).flat())
      const found = (await host.find(keys.asTold(parseUrl(url), headers))).find((entry) => matches(entry.vary, headers, entry.language))
      if (found === undefined) return undefined
      const body = await store.body(found, 0, found.size)
      if (body === undefined) return undefined
      const bytes = body instanceof Readable ? Buffer.concat(await body.toArray()) : body
      const at = now()
      return {
        status: found.status,
        headers: new HeaderList(found.fields),
        body: bytes,
        age: Math.floor(ageOf(found, at) / 1000),
        freshFor: freshFor(found, at) / 1000,
        tags: givenTags(found.tags),
      }
    },
    purge: async (url, options) => await host.invalidateUrl(parseUrl(url), keys.forUrl(parseUrl(url)), how(options)),
    purgeKey: (key, options) => host.invalidateKey(key, how(options)),
    async invalidateTag(tag, options) {
      let count = 0
      for (const one of typeof tag === 'string' ? [tag] : tag) count += await host.invalidateTag(one, how(options))
      return count
    },
    invalidateGroup: async (origin, group, options) => await host.invalidateTag(`${originUrl(origin)} "${group}"`, how(options)),
    async invalidate(predicate, options) {
      // What is on its way cannot be asked: it is not stored.
      host.obsoleteAll()
      await host.settled()
      let count = 0
      for await (const entry of store.entries()) {
        if (!predicate(seen(entry, now()))) continue
        count++
        await (options?.soft === true ? store.update(staled(entry, now())) : store.remove(entry))
      }
      host.counts.invalidated += count
      return count
    },
    entries: () => entries(),
    async clear() {
      host.obsoleteAll()
      await host.settled()
      await store.clear()
    },
    async warm(proxy, urls, options = {}) {
      const waiting = [...urls].map(parseUrl)
      const names = Object.keys(options.headers ?? {}).map((name) => name.toLowerCase())
      if (waiting.some((url) => url.startsWith('https:')) && !names.includes('x-forwarded-proto'))
        throw new TypeError(
          "warm: to fetch https URLs, list 127.0.0.1 in trustedProxies and give headers: { 'X-Forwarded-Proto': 'https' }",
        )
      let answered = 0
      const worker = async (): Promise<void> => {
        for (let url = waiting.pop(); url !== undefined; url = waiting.pop()) {
          if (options.signal?.aborted === true) return
          const { host: name, pathname, search } = new URL(url)
          const response = await proxy.inject({ url: pathname + search, headers: { ...options.headers, host: name } })
          if (response.status < 400) answered++
        }
      }
      await Promise.all(Array.from({ length: Math.max(1, options.concurrency ?? 4) }, worker))
      return answered
    },
  }
}

function originUrl(origin: string | URL): string {
  return parseUrl(origin).replace(/^(https?:\/\/[^/]+).*$/, '$1')
}

function seen(entry: CacheEntry, now: number): CachedEntry {
  const { key, url, status, fields, size } = entry
  return {
    key,
    url,
    status,
    headers: new HeaderList(fields),
    tags: givenTags(entry.tags),
    size,
    age: Math.floor(ageOf(entry, now) / 1000),
    freshFor: freshFor(entry, now) / 1000,
  }
}
