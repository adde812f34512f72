/**
 * One request that went to an upstream, as the cache sees it: the hooks of its exchange. It decides what becomes of the answer: stored and shared, passed on, or
 * replaced by what is stored. Whatever happens, those who wait for it hear of it. One class, long as it is: each way that an answer can go has to leave the same few
 * fields behind, and an end that forgets one of them shows only beside the others.
 */
import {
  type Exchange,
  HeaderList,
  type Hooks,
  type MaybePromise,
  ProxyError,
  type ProxyResponse,
  type Reply,
  ReplyFields,
} from '@weir/core'
import type { Asked } from './answer.ts'
import type { CacheSettings } from './cache-options.ts'
import { type Forwarded, type Forwarding, forwardStatus, keyParameter } from './cache-status.ts'
import { type CacheEntry, freshFor } from './entry.ts'
import type { CacheDecision } from './events.ts'
import type { Fill } from './fill.ts'
import type { Target } from './key.ts'
import type { SearchRules } from './no-vary-search.ts'
import { servesOnError } from './reuse.ts'
import { type Draft, draftOf, mergedFields, type NotStored } from './storage.ts'
import { pathTag, tagsOf, urlTag } from './tags.ts'

/** The request of a fetch. */
export interface Wanted extends Asked {
  readonly route: string
  readonly noStore: boolean
  readonly authorized: boolean
}

/** What a fetch needs of the cache that it belongs to. */
export interface FetchHost {
  readonly settings: CacheSettings
  readonly search: SearchRules
  readonly counts: {
    revalidated: number
    staleHits: number
    stored: number
    storeErrors: number
    notStored: Partial<Record<NotStored, number>>
  }
  ended(fill: Fill): void
  uncacheable(fill: Fill): void
  cacheable(fill: Fill): void
  refreshFailed(fill: Fill): void
  /** A change of the store that has begun: an invalidation waits for it. */
  pending(change: Promise<void>): void
  stillValid(fill: Fill, tags: readonly string[]): boolean
  admits(key: string): boolean
  fromStore(asked: Asked, entry: CacheEntry, now: number, status?: string): MaybePromise<Reply | undefined>
  /** All of it anew, for a client that got a 304 for a body that is no longer there. */
  again(exchange: Exchange, target: Target): Promise<Reply>
  tell(exchange: Exchange, outcome: CacheDecision['outcome'], key: string | undefined): void
}

const conditions = ['if-none-match', 'if-modified-since', 'if-match', 'if-unmodified-since', 'if-range', 'range'] as const

/** RFC 5861 §4: what counts as an error, besides no answer at all. */
const errors: ReadonlySet<number> = new Set([500, 502, 503, 504])

let ids = 0
/** Different in every process that writes to a store. */
const origin = `${Date.now().toString(36)}${Math.floor(Math.random() * 2 ** 32).toString(36)}`

export class Fetch implements Hooks {
  readonly #host: FetchHost
  readonly #target: Target
  readonly #wanted: Wanted
  /** What is stored and may be confirmed, or be served if this fails. */
  readonly #entry: CacheEntry | undefined
  /** Undefined for what is only passed through. */
  readonly #fill: Fill | undefined
  readonly #why: Forwarded
  readonly #background: boolean
  readonly #requestedAt: number
  /** Of a fork: whether the answer is wanted though nobody knows how long it is. */
  anyLength: ((draft: Draft) => boolean) | undefined = undefined
  #asksToConfirm = false
  #succeeded = false
  /** The store has not said yet that it has it. */
  #storing = false

  constructor(
    host: FetchHost,
    target: Target,
    wanted: Wanted,
    entry: CacheEntry | undefined,
    fill: Fill | undefined,
    why: Forwarded,
    background: boolean,
  ) {
    this.#host = host
    this.#target = target
    this.#wanted = wanted
    this.#entry = entry
    this.#fill = fill
    this.#why = why
    this.#background = background
    this.#requestedAt = host.settings.now()
  }

  /** Asks for all of it, or whether the stored one still holds. */
  prepare(headers: HeaderList): void {
    for (const name of conditions) headers.delete(name)
    const { etag, lastModified } = this.#entry ?? {}
    if (etag !== undefined) headers.set('If-None-Match', etag)
    if (lastModified !== undefined) headers.set('If-Modified-Since', lastModified)
    this.#asksToConfirm = etag !== undefined || lastModified !== undefined
  }

  onResponse(response: ProxyResponse, exchange: Exchange): MaybePromise<void> {
    const now = this.#host.settings.now()
    const entry = this.#entry
    if (entry !== undefined && response.upstream !== undefined) {
      if (response.status === 304 && this.#asksToConfirm) return this.#confirmed(entry, response, exchange, now)
      if (errors.has(response.status) && servesOnError(entry, now)) {
        const forwarding: Forwarding = { why: 'stale', status: response.status, detail: 'stale-if-error' }
        const reply = this.#stale(entry, exchange, now, forwarding)
        if (reply instanceof Promise) return reply.then((made) => void (made !== undefined && response.replace(made)))
        if (reply !== undefined) response.replace(reply)
        return undefined
      }
    }
    if (this.#fill !== undefined && response.upstream === undefined) {
      this.#fill.settle({ kind: 'failed' })
      this.#host.ended(this.#fill)
      if (this.#background) exchange.fail(nobodyWaits())
    }
    const stored = this.#fill !== undefined && response.upstream !== undefined && this.#take(this.#fill, response, exchange, now)
    for (const name of this.#host.settings.rules.hidden) response.headers.delete(name)
    if (this.#host.settings.cacheStatus) response.headers.append('Cache-Status', this.#status({ why: this.#why, stored }))
    return undefined
  }

  onError(error: ProxyError, exchange: Exchange): MaybePromise<Reply | undefined> {
    const now = this.#host.settings.now()
    const entry = this.#entry
    if (entry !== undefined && error.source !== 'client' && error.code !== 'ERR_STAGE' && servesOnError(entry, now))
      return this.#stale(entry, exchange, now, { why: 'stale', detail: 'stale-if-error' })
    this.#fill?.settle({ kind: 'failed' })
    return undefined
  }

  onFinish(): void {
    const fill = this.#fill
    if (fill === undefined) return
    // Broke off before there was a body, or its client left and nobody else wanted it.
    fill.end(false)
    if (!this.#storing) this.#host.ended(fill)
    if (this.#background && !this.#succeeded) this.#host.refreshFailed(fill)
  }

  /** @returns whether it is going to be stored */
  #take(fill: Fill, response: ProxyResponse, exchange: Exchange, now: number): boolean {
    const { settings } = this.#host
    const { rules } = settings
    const draft = this.#judge(response, exchange, now)
    if (typeof draft === 'string') {
      this.#count(draft)
      const failing = response.status >= 500
      // The one that is stored has been superseded by one that must not be.
      if (this.#entry !== undefined && supersedes(response.status) && !this.#wanted.noStore) this.#forget(this.#entry)
      if (!failing && !this.#wanted.noStore) this.#host.uncacheable(fill)
      fill.settle({ kind: failing ? 'failed' : 'uncacheable' })
      this.#host.ended(fill)
      // Nobody has asked for this one.
      if (this.#background) exchange.fail(nobodyWaits())
      return false
    }
    const admitted = this.#host.admits(this.#target.key)
    if (!admitted) this.#count('admission')
    const length = response.headers.get('content-length')
    const expected = length === undefined || !response.hasBody ? undefined : Number(length)
    if (this.#background)
      fill.onUnwanted = () => {
        if (fill.overflown) queueMicrotask(() => exchange.fail(nobodyWaits()))
      }
    if (this.#background && this.#entry === undefined && expected === undefined && response.hasBody && this.anyLength?.(draft) !== true) {
      // Forked for somebody who wants a part, or has another one, and is better served by itself than by a body of whatever length.
      this.#host.uncacheable(fill)
      fill.settle({ kind: 'uncacheable' })
      this.#host.ended(fill)
      exchange.fail(nobodyWaits())
      return false
    }
    this.#succeeded = true
    const shareable = isShareable(draft, now)
    if (!shareable) {
      // Stored to be revalidated; whoever waits has to ask for itself, and so has everybody who comes.
      this.#host.uncacheable(fill)
      fill.settle({ kind: 'uncacheable' })
    }
    fill.draft = draft
    fill.length = response.hasBody ? expected : 0
    // Not at once: a stage further out may still answer something else, and then there is no body to read along.
    const share = (): void => {
      if (shareable) fill.share()
    }
    response.readAhead(rules.maxObjectSize)
    response.tap({
      onChunk: (chunk) => {
        share()
        const before = fill.overflown
        fill.push(chunk)
        if (!fill.overflown || before) return
        this.#count('too-large')
        this.#host.uncacheable(fill)
        this.#host.ended(fill)
      },
      onEnd: (complete) => {
        if (complete) share()
        const whole = fill.end(complete)
        if (whole === undefined) {
          if (!complete) this.#count('incomplete')
        } else if (admitted && (expected === undefined || expected === whole.length)) {
          this.#store(fill, draft, whole)
          return
        }
        this.#host.ended(fill)
      },
    })
    return admitted
  }

  #judge(response: ProxyResponse, exchange: Exchange, now: number): Draft | NotStored {
    const { settings } = this.#host
    const { url } = this.#target
    const said = settings.keys.plainUrl ? response.headers.get('no-vary-search') : undefined
    const key = (said === undefined ? undefined : this.#host.search.learn(this.#target.key, said)) ?? this.#target.key
    const plain = draftOf(key, url, this.#wanted, response, settings.rules, this.#requestedAt, now)
    if (typeof plain === 'string') return plain
    const draft = { ...plain, tags: this.#tagged(plain.tags, key, url) }
    if (settings.noStore === undefined) return draft
    const { status, headers } = response
    try {
      return settings.noStore({ status, header: (name) => headers.get(name) }, exchange) ? 'rule' : draft
    } catch {
      // In doubt not; and no client is to blame for it.
      return 'rule'
    }
  }

  /** With what a purge of the URL finds it by, when it is not stored under the URL's own key. */
  #tagged(tags: readonly string[], key: string, url: string): readonly string[] {
    if (key !== this.#target.key) return [...tags, pathTag(url)]
    const several = this.#wanted.method === 'QUERY' || this.#host.settings.keys.several || this.#target.told !== ''
    return several ? [...tags, urlTag(url)] : tags
  }

  #store(fill: Fill, draft: Draft, body: Buffer): void {
    const host = this.#host
    if (!host.stillValid(fill, draft.tags)) {
      host.ended(fill)
      return
    }
    const entry: CacheEntry = { ...draft, fields: sized(draft, body.length), id: `${origin}-${(ids++).toString(36)}`, size: body.length }
    this.#storing = true
    const kept = (done: boolean): void => {
      this.#storing = false
      // A purge that came while a slow store took it.
      if (done && !host.stillValid(fill, draft.tags)) this.#forget(entry)
      // Not before: until it is in the store it is had from here, and what is invalidated is remembered for what is on its way.
      host.ended(fill)
      if (!done) {
        this.#count('admission')
        return
      }
      host.counts.stored++
      if (isShareable(entry, host.settings.now())) host.cacheable(fill)
    }
    this.#change(
      () => host.settings.store.put(entry, body),
      kept,
      () => {
        this.#storing = false
        host.ended(fill)
      },
    )
  }

  /** RFC 9111 §4.3.4. */
  #confirmed(entry: CacheEntry, response: ProxyResponse, exchange: Exchange, now: number): MaybePromise<void> {
    const host = this.#host
    const { rules } = host.settings
    const cookies = rules.setCookie === 'keep' ? [] : response.headers.getAll('set-cookie')
    const update = new HeaderList(response.headers.raw)
    if (cookies.length > 0) update.delete('set-cookie')
    // RFC 9110 §6.6.1; the stored one is of the time when all of it came.
    if (!update.has('date')) update.set('Date', new Date(now).toUTCString())
    const fresh = this.#freshened(entry, update, now)
    this.#succeeded = true
    host.counts.revalidated++
    host.tell(exchange, 'revalidated', this.#target.key)
    if (fresh === undefined) {
      if (!this.#wanted.noStore) this.#forget(entry)
      this.#fill?.settle({ kind: 'uncacheable' })
    } else {
      if (fresh !== entry && this.#fill !== undefined && host.stillValid(this.#fill, fresh.tags))
        this.#change(() => host.settings.store.update(fresh), nothing)
      this.#fill?.settle(isShareable(fresh, now) ? { kind: 'stored', entry: fresh } : { kind: 'uncacheable' })
    }
    if (this.#fill !== undefined) host.ended(this.#fill)
    if (this.#background) return undefined
    const line = this.#status({ why: this.#why, status: 304 })
    const send = (reply: Reply): void => {
      const { fields: given = [] } = reply
      const fields = [...(given instanceof ReplyFields ? given.list : given)]
      for (const cookie of cookies) fields.push('Set-Cookie', cookie)
      response.replace({ ...reply, fields })
    }
    // A 304 about another representation: nothing that is stored is what the client wants.
    const reply = fresh === entry ? undefined : host.fromStore(this.#wanted, fresh ?? entry, now, line)
    if (reply !== undefined && !(reply instanceof Promise)) {
      send(reply)
      return undefined
    }
    return Promise.resolve(reply)
      .then((made) => made ?? host.again(exchange, this.#target))
      .then(send)
  }

  /** The entry as the 304 leaves it; the same one when the 304 is about another representation; undefined when it may not be kept any more. */
  #freshened(entry: CacheEntry, update: HeaderList, now: number): CacheEntry | undefined {
    const { settings } = this.#host
    const tag = update.get('etag')
    if (tag !== undefined && entry.etag !== undefined && !confirms(tag, entry.etag)) return entry
    const headers = new HeaderList(mergedFields(entry.fields, update.raw))
    // The stored `Age` went when it was stored, and the 304's own counts for it.
    const age = update.get('age')
    if (age !== undefined) headers.set('Age', age)
    const draft = draftOf(
      entry.key,
      entry.url,
      this.#wanted,
      { status: entry.status, headers },
      settings.rules,
      this.#requestedAt,
      now,
      true,
    )
    if (typeof draft === 'string') return undefined
    const tags = tagsOf(update, settings.rules.tagHeaders, entry.url) ?? entry.tags
    const own = entry.tags.filter((tag) => tag.startsWith('\n'))
    return { ...draft, tags: tags.length > 0 ? [...tags, ...own] : entry.tags, id: entry.id, size: entry.size }
  }

  #stale(entry: CacheEntry, exchange: Exchange, now: number, forwarding: Forwarding): MaybePromise<Reply | undefined> {
    const host = this.#host
    this.#fill?.settle({ kind: 'stale', entry })
    if (this.#fill !== undefined) host.ended(this.#fill)
    if (this.#background) return undefined
    host.counts.staleHits++
    host.tell(exchange, 'stale', this.#target.key)
    return host.fromStore(this.#wanted, entry, now, this.#status(forwarding))
  }

  #status(forwarding: Forwarding): string {
    const { name, keyStatus } = this.#host.settings
    const status = forwardStatus(name, forwarding)
    return keyStatus ? status + keyParameter(this.#target.key) : status
  }

  #forget(entry: CacheEntry): void {
    this.#change(() => this.#host.settings.store.remove(entry), nothing)
  }

  #change(act: () => MaybePromise<boolean>, done: (result: boolean) => void, otherwise?: () => void): void {
    const failed = (): void => {
      otherwise?.()
      this.#host.counts.storeErrors++
    }
    try {
      const result = act()
      if (result instanceof Promise) this.#host.pending(result.then(done, failed))
      else done(result)
    } catch {
      failed()
    }
  }

  #count(reason: NotStored): void {
    const { notStored } = this.#host.counts
    notStored[reason] = (notStored[reason] ?? 0) + 1
  }
}

/** May others have it who asked at the same time? RFC 9111 §4: a response that may not be used without asking does not answer them. */
function isShareable(entry: Draft, now: number): boolean {
  return !entry.noCache && freshFor(entry, now) > 0
}

/** Is a 304 with this tag about the response that has the stored one? A strong one only by being the same (RFC 9111 §4.3.4). */
function confirms(tag: string, stored: string): boolean {
  return tag === stored || (tag.startsWith('W/') && tag.slice(2) === stored.replace(/^W\//, ''))
}

/** Does an answer with this status say something about the resource, and not about who asked, or how often? */
function supersedes(status: number): boolean {
  return status < 400 || status === 404 || status === 410
}

function nothing(): void {}

/** Ends a request of the cache's own whose answer is of no use. */
export function nobodyWaits(): ProxyError {
  return new ProxyError('ERR_CLIENT_ABORTED', {
    message: 'The answer to a request of the cache cannot be stored, and nobody else waits for it.',
  })
}

/** With the length that is known now: a body that streams from a store has it from here. */
function sized(draft: Draft, size: number): readonly string[] {
  const { fields, status } = draft
  if (status === 204) return fields
  for (let i = 0; i < fields.length; i += 2) if ((fields[i] as string).toLowerCase() === 'content-length') return fields
  return [...fields, 'Content-Length', String(size)]
}
