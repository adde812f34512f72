/**
 * Keys that are turned away for a time, put there while the proxy runs: by code (an admin endpoint, a detector), or by a rate limit whose refusals do
 * not impress somebody. A refused request still costs a decision and an answer; a banned one costs a look into a map.
 *
 * Of this process, and gone with it. Bounded: when it is full, the ban that was longest not hit makes room and is counted.
 */
import {
  type Clock,
  type Duration,
  type Exchange,
  type MaybePromise,
  OptionReader,
  parseDuration,
  type Reply,
  readClock,
  type Stage,
} from '@weir/core'
import { LRUCache } from 'lru-cache'
import { type BanEvent, bans, keyHash } from './events.ts'
import { type ExemptOption, readExempt } from './exempt.ts'
import { seconds } from './fields.ts'
import { ipKey } from './ip-key.ts'
import { boundedKey, type KeyOption, readKey } from './key.ts'
import type { Limit } from './limit.ts'
import { isPromise } from './maybe-promise.ts'
import { memoryStore, readMaxEntries } from './memory-store.ts'
import { readStatus } from './rate-limit-options.ts'

export interface BanListOptions {
  /** What is banned. Default `ip`. The rate limit that fills the list may count by another key. */
  readonly key?: KeyOption
  /** Who is never turned away. Default: nobody. */
  readonly exempt?: ExemptOption
  /** Bits of an IPv6 address that make one client. Default 64. */
  readonly ipv6Prefix?: number
  /** Default 403. With 429 the answer tells when the ban ends (`Retry-After`), which is more than an attacker should know. */
  readonly status?: number
  /** Most bans at once. Default 100,000. */
  readonly maxEntries?: number
  /** Lets everybody through and publishes who would have been turned away. Default false. */
  readonly dryRun?: boolean
  /** For order and events. Default `banList`. */
  readonly name?: string
  /** Default: real time. */
  readonly clock?: Clock
}

export interface Ban {
  readonly key: string
  readonly reason: string
  /** Milliseconds that are left. */
  readonly leftMs: number
}

/** When refusals become a ban. */
export interface BanRule {
  /** So many refusals ... */
  readonly refusals: number
  /** ... within this time, from the first of them ... */
  readonly within: Duration
  /** ... ban for this long. */
  readonly duration: Duration
  /** For events and `list()`. Default `too many refusals`. */
  readonly reason?: string
}

export interface BanListStats {
  readonly refused: number
  readonly dryRefused: number
  readonly entries: number
  /** Bans that were forgotten before their time for lack of room. */
  readonly evictions: number
}

export interface BanList extends Stage {
  /**
   * Bans a key; an address where the key is `ip`, in any spelling, and with IPv6 its whole prefix. A second ban replaces the first.
   *
   * @throws OptionsError when `duration` is none
   */
  ban(key: string, duration: Duration, reason?: string): void
  /** Bans whoever sent this. Nothing happens to those without a key. @throws OptionsError when `duration` is none */
  banClient(exchange: Exchange, duration: Duration, reason?: string): MaybePromise<void>
  /** @returns false when it was not banned */
  unban(key: string): boolean
  /** Those that hold now; the one that ends first comes first. */
  list(): Ban[]
  /** For `onRefused` of `rateLimit`. @throws OptionsError */
  after(rule: BanRule): (exchange: Exchange) => void
  stats(): BanListStats
}

interface Entry {
  readonly key: string
  readonly until: number
  readonly reason: string
}

/** @throws OptionsError */
export function banList(options?: BanListOptions): BanList {
  const read = new OptionReader('banList')
  const given = read.object<BanListOptions>(options, ['key', 'exempt', 'ipv6Prefix', 'status', 'maxEntries', 'dryRun', 'name', 'clock'])
  const ipv6Prefix = read.number('ipv6Prefix', given.ipv6Prefix, 64, { min: 16, max: 128, integer: true })
  const keyOf = readKey(read, 'key', given.key, ipv6Prefix)
  const byIp = given.key === undefined || given.key === 'ip'
  const exempt = readExempt(read, given.exempt)
  const status = readStatus(read, given.status, 403)
  const maxEntries = readMaxEntries(read, given.maxEntries)
  const dryRun = read.boolean('dryRun', given.dryRun, false)
  const name = read.name('name', given.name, 'banList')
  const clock = readClock(given.clock, read)
  read.check()

  let refused = 0
  let dryRefused = 0
  let evictions = 0
  const entries = new LRUCache<string, Entry>({
    max: maxEntries,
    dispose: (entry, _key, why) => {
      if (why === 'evict' && entry.until > clock.now()) evictions++
    },
  })
  const kept = (key: string): string => boundedKey(byIp ? ipKey(key, ipv6Prefix) : key)

  const publish = (action: BanEvent['action'], key: string, reason: string, leftMs: number): void => {
    if (bans.hasSubscribers) bans.publish({ stage: name, action, keyHash: keyHash(key), reason, leftMs } satisfies BanEvent)
  }

  const put = (key: string, ms: number, reason: string): void => {
    entries.set(key, { key, until: clock.now() + ms, reason })
    publish('ban', key, reason, ms)
  }

  const check = (key: string | undefined): Reply | undefined => {
    if (key === undefined) return undefined
    const bounded = boundedKey(key)
    const entry = entries.get(bounded)
    if (entry === undefined) return undefined
    const leftMs = entry.until - clock.now()
    if (leftMs <= 0) {
      entries.delete(bounded)
      return undefined
    }
    publish(dryRun ? 'dry' : 'refused', bounded, entry.reason, leftMs)
    if (dryRun) {
      dryRefused++
      return undefined
    }
    refused++
    const wait = status === 429 || status === 503 ? { 'Retry-After': String(seconds(leftMs)) } : null
    return { status, headers: { 'Content-Type': 'text/plain', ...wait }, body: 'Forbidden\n' }
  }

  return {
    name,
    handle(exchange): MaybePromise<Reply | undefined> {
      if (entries.size === 0 || exempt?.(exchange) === true) return undefined
      const key = keyOf(exchange)
      return isPromise(key) ? key.then(check) : check(key)
    },
    ban(key, duration, reason = '') {
      put(kept(key), readBanDuration(duration), reason)
    },
    banClient(exchange, duration, reason = '') {
      const ms = readBanDuration(duration)
      const banned = (key: string | undefined): void => {
        if (key !== undefined) put(boundedKey(key), ms, reason)
      }
      const key = keyOf(exchange)
      return isPromise(key) ? key.then(banned) : banned(key)
    },
    unban(key) {
      const entry = entries.peek(kept(key))
      if (entry === undefined) return false
      entries.delete(entry.key)
      const leftMs = entry.until - clock.now()
      if (leftMs <= 0) return false
      publish('unban', entry.key, entry.reason, leftMs)
      return true
    },
    list() {
      const now = clock.now()
      const running = [...entries.values()].filter(({ until }) => until > now)
      return running.map(({ key, reason, until }) => ({ key, reason, leftMs: until - now })).toSorted((a, b) => a.leftMs - b.leftMs)
    },
    after(rule) {
      const { limit, ms, reason } = readBanRule(rule, name)
      const counts = memoryStore({ maxEntries, clock })
      const refusedOnce = (key: string | undefined): void => {
        if (key === undefined) return
        const bounded = boundedKey(key)
        const [verdict] = counts.take([{ limit, key: bounded, cost: 1 }])
        if (verdict?.remaining === 0 && verdict.allowed) put(bounded, ms, reason)
      }
      return (exchange) => {
        if (exempt?.(exchange) === true) return
        const key = keyOf(exchange)
        // A key that cannot be found out bans nobody, and is no reason to end the process.
        if (isPromise(key)) key.then(refusedOnce, () => {})
        else refusedOnce(key)
      }
    },
    stats: () => ({ refused, dryRefused, entries: entries.size, evictions }),
  }
}

/** No timer is set for a ban, so it may be as long as one likes. */
function readBanDuration(value: Duration): number {
  const ms = parseDuration(value)
  if (ms !== undefined && ms > 0) return ms
  const read = new OptionReader('ban')
  read.problem('duration', value, "a duration above 0: a number of milliseconds, or a string like '10m', '30d'")
  read.check()
  return 0
}

/** So many refusals within a time are a fixed window that is used up. */
function readBanRule(rule: BanRule, stage: string): { limit: Limit; ms: number; reason: string } {
  const read = new OptionReader('banList.after')
  const given = read.object<BanRule>(rule, ['refusals', 'within', 'duration', 'reason'])
  for (const name of ['refusals', 'within', 'duration'] as const)
    if (given[name] === undefined) read.problem(name, undefined, name === 'refusals' ? 'a whole number from 1' : "a duration such as '1m'")
  const refusals = read.number('refusals', given.refusals, 1, { min: 1, max: 1_000_000, integer: true })
  const windowMs = read.duration('within', given.within, 1000, { min: 1, max: 1e12 })
  const ms = read.duration('duration', given.duration, 1000, { min: 1, max: 1e12 })
  const reason = read.name('reason', given.reason, 'too many refusals')
  read.check()
  return {
    limit: { id: `${stage}:after`, name: stage, algorithm: 'fixed-window', quota: refusals, windowMs, burst: refusals, maxDelayMs: 0 },
    ms,
    reason,
  }
}
