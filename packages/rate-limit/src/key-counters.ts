/**
 * What each client has been doing, for whoever decides about it: a filter rule, a ban, an admin page. How many requests, how many now per time, how many of
 * them ended in errors, what is in flight, and counters of the service's own. It decides nothing itself. The table that HAProxy calls a stick table; its
 * other half, key to server, is `keyAffinity` of @weir/sticky.
 *
 * A rate is counted in two windows, this one and the last by the share of it that a sliding window still covers: two numbers per rate, right for
 * even traffic, and never more than the last window's unevenness off.
 */
import {
  type Clock,
  type Duration,
  type Exchange,
  type Hooks,
  type MaybePromise,
  OptionReader,
  type Outcome,
  readClock,
  type Stage,
} from '@weir/core'
import { LRUCache } from 'lru-cache'
import { type ExemptOption, readExempt } from './exempt.ts'
import { ipKey } from './ip-key.ts'
import { boundedKey, type KeyOption, readKey } from './key.ts'
import { KeyTally } from './key-tally.ts'
import { isPromise } from './maybe-promise.ts'
import { readMaxEntries } from './memory-store.ts'

export interface KeyCountersOptions<C extends string = never> {
  /** What rates are per. Default 10 s. */
  readonly window?: Duration
  /** Who is counted together. Default `ip`. */
  readonly key?: KeyOption
  /** Counters of your own, raised with `add`. Default: none. */
  readonly counters?: readonly C[]
  /** Who is not counted. Default: nobody. */
  readonly exempt?: ExemptOption
  /** Bits of an IPv6 address that make one client. Default 64. */
  readonly ipv6Prefix?: number
  /** Most keys that are remembered, about 350 bytes each; the one longest not seen makes room. Default 100,000. */
  readonly maxEntries?: number
  /** How long after its last request a key is forgotten; not below two windows. Default 10 min. */
  readonly idle?: Duration
  /** For order. Default `keyCounters`. */
  readonly name?: string
  /** Default: real time. */
  readonly clock?: Clock
}

export interface Count {
  /** Since the key was first seen. */
  readonly total: number
  /** Per window, now. */
  readonly rate: number
}

export interface KeyCounts<C extends string = never> {
  /** As it is kept: above 64 characters its hash. */
  readonly key: string
  /** Exchanges here now, tunnels included. */
  readonly inflight: number
  readonly requests: Count
  /** Answered with 4xx, whoever answered; not those whose client left. */
  readonly clientErrors: Count
  /** Answered with 5xx. */
  readonly serverErrors: Count
  /** Body bytes sent. */
  readonly bytesOut: Count
  readonly counters: Readonly<Record<C, Count>>
  /** Milliseconds since it was first seen, and since its last request. */
  readonly ageMs: number
  readonly idleMs: number
}

/** What keys can be put in order by. */
export type KeyCountsOrder<C extends string = never> = 'inflight' | 'requests' | 'clientErrors' | 'serverErrors' | 'bytesOut' | C

export interface KeyCountersStats {
  readonly entries: number
  /** Keys that were forgotten before their time for lack of room. */
  readonly evictions: number
}

export interface KeyCounters<C extends string = never> extends Stage {
  /** Of whoever sent this, itself included, in stages behind this one. Undefined when it is not counted, or has been forgotten. */
  of(exchange: Exchange): KeyCounts<C> | undefined
  /** An address, in any spelling, where the key is `ip`. */
  get(key: string): KeyCounts<C> | undefined
  /** Raises a counter of your own. Nothing happens to who is not counted. @throws RangeError for a counter that was not declared, or no number */
  add(exchange: Exchange, counter: C, amount?: number): void
  /** The keys with the highest rate (of `inflight`: the most), highest first. Looks at all of them. Default: 10, by `requests`. */
  top(count?: number, by?: KeyCountsOrder<C>): KeyCounts<C>[]
  /** Forgets a key. @returns false when there was nothing */
  delete(key: string): boolean
  clear(): void
  stats(): KeyCountersStats
}

/** Where each kind of count stands in an entry. */
const builtIn = ['requests', 'clientErrors', 'serverErrors', 'bytesOut'] as const
const [requests, clientErrors, serverErrors, bytesOut] = [0, 1, 2, 3] as const

/** @throws OptionsError */
export function keyCounters<const C extends string = never>(options?: KeyCountersOptions<C>): KeyCounters<C> {
  const read = new OptionReader('keyCounters')
  const given = read.object<KeyCountersOptions<C>>(options, [
    'window',
    'key',
    'counters',
    'exempt',
    'ipv6Prefix',
    'maxEntries',
    'idle',
    'name',
    'clock',
  ])
  const windowMs = read.duration('window', given.window, 10_000, { min: 1 })
  const ipv6Prefix = read.number('ipv6Prefix', given.ipv6Prefix, 64, { min: 16, max: 128, integer: true })
  const keyOf = readKey(read, 'key', given.key, ipv6Prefix)
  const byIp = given.key === undefined || given.key === 'ip'
  const exempt = readExempt(read, given.exempt)
  const maxEntries = readMaxEntries(read, given.maxEntries)
  const idleMs = read.duration('idle', given.idle, Math.max(600_000, 2 * windowMs), { min: 2 * windowMs })
  const name = read.name('name', given.name, 'keyCounters')
  const clock = readClock(given.clock, read)
  const own = readCounters(read, given.counters)
  read.check()

  const kinds: readonly string[] = [...builtIn, ...own]
  let evictions = 0
  const entries = new LRUCache<string, KeyTally>({
    max: maxEntries,
    dispose: (entry, _key, why) => {
      if (why === 'evict' && clock.now() - entry.lastAt < idleMs) evictions++
    },
  })
  /** Whom each exchange was counted for. Not found out again: stages in between may have changed what the key is made of. */
  const seenBy = new WeakMap<Exchange, KeyTally>()
  const windowAt = (now: number): number => Math.floor(now / windowMs)

  /** Brought up to date; undefined when it was forgotten. */
  const find = (key: string, now: number): KeyTally | undefined => {
    const entry = entries.peek(key)
    if (entry === undefined) return undefined
    if (entry.inflight === 0 && now - entry.lastAt >= idleMs) {
      entries.delete(key)
      return undefined
    }
    entry.roll(windowAt(now))
    return entry
  }

  const tell = (entry: KeyTally, now: number): KeyCounts<C> => {
    entry.roll(windowAt(now))
    const fading = 1 - (now / windowMs - entry.window)
    const count = (kind: number): Count => ({
      total: entry.total(kind),
      rate: entry.rate(kind, fading),
    })
    return {
      key: entry.key,
      inflight: entry.inflight,
      requests: count(requests),
      clientErrors: count(clientErrors),
      serverErrors: count(serverErrors),
      bytesOut: count(bytesOut),
      counters: Object.fromEntries(own.map((counter, i) => [counter, count(builtIn.length + i)])) as Record<C, Count>,
      ageMs: now - entry.firstAt,
      idleMs: now - entry.lastAt,
    }
  }

  class Visit implements Hooks {
    readonly #entry: KeyTally
    #over = false

    constructor(entry: KeyTally) {
      this.#entry = entry
      entry.inflight++
    }

    onFinish({ status, bytesOut: bytes }: Outcome): void {
      if (this.#over) return
      this.#over = true
      const entry = this.#entry
      const now = clock.now()
      entry.inflight--
      entry.lastAt = now
      entry.roll(windowAt(now))
      if (status >= 500) entry.add(serverErrors, 1)
      else if (status >= 400 && status !== 499) entry.add(clientErrors, 1)
      entry.add(bytesOut, bytes)
    }
  }

  const enter = (exchange: Exchange, unbounded: string | undefined): Hooks | undefined => {
    if (unbounded === undefined) return undefined
    const key = boundedKey(unbounded)
    const now = clock.now()
    let entry = find(key, now)
    if (entry === undefined) {
      entry = new KeyTally(key, kinds.length, now, windowAt(now))
      entries.set(key, entry)
    } else entries.get(key)
    entry.lastAt = now
    entry.add(requests, 1)
    seenBy.set(exchange, entry)
    return new Visit(entry)
  }

  /** Brought up to date. */
  const entryOf = (exchange: Exchange, now: number): KeyTally | undefined => {
    const entry = seenBy.get(exchange)
    return entry === undefined || entries.peek(entry.key) !== entry ? undefined : find(entry.key, now)
  }

  const kept = (key: string): string => boundedKey(byIp ? ipKey(key, ipv6Prefix) : key)

  return {
    name,
    handle(exchange): MaybePromise<Hooks | undefined> {
      if (exempt?.(exchange) === true) return undefined
      const key = keyOf(exchange)
      return isPromise(key) ? key.then((late) => enter(exchange, late)) : enter(exchange, key)
    },
    of(exchange) {
      const now = clock.now()
      const entry = entryOf(exchange, now)
      return entry === undefined ? undefined : tell(entry, now)
    },
    get(key) {
      const now = clock.now()
      const entry = find(kept(key), now)
      return entry === undefined ? undefined : tell(entry, now)
    },
    add(exchange, counter, amount = 1) {
      const at = own.indexOf(counter)
      if (at < 0) throw new RangeError(`keyCounters: no counter ${JSON.stringify(counter)}; declared: ${own.join(', ') || 'none'}`)
      if (!Number.isFinite(amount)) throw new RangeError(`keyCounters: ${String(amount)} is nothing to add to ${counter}`)
      entryOf(exchange, clock.now())?.add(builtIn.length + at, amount)
    },
    top(count = 10, by = 'requests') {
      const now = clock.now()
      const kind = kinds.indexOf(by)
      if (kind < 0 && by !== 'inflight')
        throw new RangeError(`keyCounters: no order ${JSON.stringify(by)}; known: inflight, ${kinds.join(', ')}`)
      const rated: { entry: KeyTally; rate: number }[] = []
      for (const key of [...entries.keys()]) {
        const entry = find(key, now)
        if (entry === undefined) continue
        const fading = 1 - (now / windowMs - entry.window)
        const rate = kind < 0 ? entry.inflight : entry.rate(kind, fading)
        if (rate > 0) rated.push({ entry, rate })
      }
      rated.sort((a, b) => b.rate - a.rate)
      return rated.slice(0, count).map(({ entry }) => tell(entry, now))
    },
    delete: (key) => entries.delete(kept(key)),
    clear: () => entries.clear(),
    stats: () => ({ entries: entries.size, evictions }),
  }
}

function readCounters<C extends string>(read: OptionReader, value: readonly C[] | undefined): readonly C[] {
  if (value === undefined) return []
  const fine =
    Array.isArray(value) &&
    value.length <= 16 &&
    value.every((counter, i) => typeof counter === 'string' && /^[A-Za-z_][A-Za-z0-9_]*$/.test(counter) && value.indexOf(counter) === i) &&
    !value.some((counter) => counter === 'inflight' || (builtIn as readonly string[]).includes(counter))
  if (fine) return value
  read.problem('counters', value, `up to 16 different names, such as ['logins'], none of them inflight, ${builtIn.join(', ')}`)
  return []
}
