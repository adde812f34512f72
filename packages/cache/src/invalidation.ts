/**
 * What unsafe requests do to what is stored (RFC 9111 §4.4): when one has succeeded, its own URL goes, the URLs in `Location` and `Content-Location` go if they
 * are of the same origin, and so do the groups that the origin names (RFC 9875 §3). The client gets its answer when that is done, so that it reads what it wrote.
 */
import type { Exchange, Hooks, MaybePromise, ProxyResponse } from '@weir/core'
import type { CacheSettings } from './cache-options.ts'
import { forwardStatus } from './cache-status.ts'
import type { Target } from './key.ts'
import type { Invalidation } from './store.ts'
import { parseStringList } from './structured-field.ts'
import { groupTag, originOf } from './tags.ts'

export interface InvalidationHost {
  readonly settings: CacheSettings
  readonly counts: { storeErrors: number }
  invalidateTag(tag: string, how: Invalidation): Promise<number>
  /** May store the answer to a POST for GETs of the same URL; undefined where it is not to be stored. To be asked when the request comes. */
  posting(exchange: Exchange, target: Target): (() => Hooks) | undefined
  invalidateUrl(url: string, key: string, how: Invalidation): Promise<number>
}

const remove: Invalidation = { kind: 'delete' }

export function invalidating(host: InvalidationHost, exchange: Exchange): Hooks | undefined {
  const target = host.settings.keys.of(exchange)
  if (target === undefined) return undefined
  const posting = exchange.method === 'POST' ? host.posting(exchange, target) : undefined
  let posted: Hooks | undefined
  const say = ({ headers }: ProxyResponse): undefined => {
    for (const name of host.settings.rules.hidden) headers.delete(name)
    if (host.settings.cacheStatus) headers.append('Cache-Status', forwardStatus(host.settings.name, { why: 'method' }))
  }
  return {
    onFinish(outcome): void {
      posted?.onFinish?.(outcome, exchange)
    },
    onResponse(response: ProxyResponse): MaybePromise<void> {
      const { status, headers } = response
      if (status < 200 || status >= 400 || response.upstream === undefined) return say(response)
      const urls = new Map([[target.url, target.key]])
      for (const name of ['location', 'content-location']) {
        const url = sameOrigin(headers.get(name), target.url)
        if (url !== undefined && !urls.has(url)) urls.set(url, host.settings.keys.forUrl(url, exchange.headers))
      }
      const work: Promise<number>[] = [...urls].map(([url, key]) => host.invalidateUrl(url, key, remove))
      for (const group of parseStringList(headers.get('cache-group-invalidation') ?? '') ?? [])
        work.push(host.invalidateTag(groupTag(target.url, group), remove))
      const stores = posting !== undefined && sameOrigin(headers.get('content-location'), target.url) === target.url
      return Promise.allSettled(work).then((results) => {
        for (const { status: outcome } of results) if (outcome === 'rejected') host.counts.storeErrors++
        if (!stores) say(response)
        else {
          // Begun only now: what was on its way before is what the request has made obsolete.
          posted = posting()
          // Without an entry there is nothing to wait for.
          void posted.onResponse?.(response, exchange)
        }
      })
    },
  }
}

/** Absolute, when it is of the same origin; undefined else. */
function sameOrigin(reference: string | undefined, base: string): string | undefined {
  if (reference === undefined) return undefined
  let url: URL
  try {
    url = new URL(reference, base)
  } catch {
    return undefined
  }
  url.hash = ''
  return originOf(url.href) === originOf(base) ? url.href : undefined
}
