/**
 * How many at once per key, where a rate limit says how many per time: a client that opens a hundred slow downloads stays far below any rate. A
 * tunnel counts until it ends. Nothing to remember but who is here now, so memory is bounded by the exchanges themselves.
 *
 * Of this process only: a count of what is in flight elsewhere would be wrong for ever after a crash there. (@weir/health's `concurrencyLimit` protects
 * the upstreams from all clients together; this protects clients from each other.)
 */
import { type Exchange, type Hooks, type MaybePromise, OptionReader, type Reply, type Stage } from '@weir/core'
import { decisions, keyHash, type RateLimitDecision } from './events.ts'
import { type ExemptOption, readExempt } from './exempt.ts'
import { type KeyOption, readKey } from './key.ts'
import { isPromise } from './maybe-promise.ts'
import { readStatus } from './rate-limit-options.ts'

export interface InflightLimitOptions {
  /** Most exchanges of one key at once, tunnels included. A whole number from 1. HTTP/2 clients send dozens at once on a single page. */
  readonly limit: number
  /** Who is counted together. Default `ip`. */
  readonly key?: KeyOption
  /** Who is never limited. Default: nobody. */
  readonly exempt?: ExemptOption
  /** Bits of an IPv6 address that make one client. Default 64. */
  readonly ipv6Prefix?: number
  /** Status of a refusal. Default 429. */
  readonly status?: number
  /** Counts and publishes, refuses nobody. Default false. */
  readonly dryRun?: boolean
  /** For order and events. Default `inflightLimit`. */
  readonly name?: string
}

export interface InflightLimitStats {
  readonly allowed: number
  readonly refused: number
  readonly dryRefused: number
  readonly exempt: number
  /** Exchanges here now, and the keys that they belong to. */
  readonly inflight: number
  readonly keys: number
}

export interface InflightLimitStage extends Stage {
  stats(): InflightLimitStats
}

/** One exchange's place. */
class Place implements Hooks {
  readonly #counts: Map<string, number>
  readonly #key: string
  #taken = true

  constructor(counts: Map<string, number>, key: string) {
    this.#counts = counts
    this.#key = key
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }

  onFinish(): void {
    if (!this.#taken) return
    this.#taken = false
    const left = (this.#counts.get(this.#key) ?? 1) - 1
    if (left > 0) this.#counts.set(this.#key, left)
    else this.#counts.delete(this.#key)
  }
}

/** @throws OptionsError */
export function inflightLimit(options: InflightLimitOptions): InflightLimitStage {
  const read = new OptionReader('inflightLimit')
  const given = read.object<InflightLimitOptions>(options, ['limit', 'key', 'exempt', 'ipv6Prefix', 'status', 'dryRun', 'name'])
  if (given.limit === undefined) read.problem('limit', given.limit, 'a whole number from 1')
  const limit = read.number('limit', given.limit, 1, { min: 1, integer: true })
  const ipv6Prefix = read.number('ipv6Prefix', given.ipv6Prefix, 64, { min: 16, max: 128, integer: true })
  const keyOf = readKey(read, 'key', given.key, ipv6Prefix)
  const exempt = readExempt(read, given.exempt)
  const status = readStatus(read, given.status, 429)
  const dryRun = read.boolean('dryRun', given.dryRun, false)
  const name = read.name('name', given.name, 'inflightLimit')
  read.check()

  const counts = new Map<string, number>()
  const total = { allowed: 0, refused: 0, dryRefused: 0, exempt: 0 }

  const publish = (exchange: Exchange, key: string, allowed: boolean, remaining: number): void => {
    if (!decisions.hasSubscribers) return
    const verdict = allowed ? 'allowed' : dryRun ? 'dry' : 'refused'
    const message: RateLimitDecision = {
      exchange,
      stage: name,
      limit: name,
      verdict,
      cost: 1,
      remaining,
      retryAfterMs: 0,
      delayMs: 0,
      keyHash: keyHash(key),
      store: 'memory',
    }
    decisions.publish(message)
  }

  const decide = (exchange: Exchange, key: string | undefined): Reply | Hooks | undefined => {
    if (key === undefined) {
      total.exempt++
      return undefined
    }
    const before = counts.get(key) ?? 0
    const allowed = before < limit
    publish(exchange, key, allowed, allowed ? limit - before - 1 : 0)
    if (allowed) total.allowed++
    else if (dryRun) total.dryRefused++
    else {
      total.refused++
      // Nobody knows when a place is free; a second keeps clients from asking in a loop.
      return { status, headers: { 'Retry-After': '1', 'Content-Type': 'text/plain' }, body: 'Too many requests at once\n' }
    }
    return new Place(counts, key)
  }

  return {
    name,
    handle(exchange): MaybePromise<Reply | Hooks | undefined> {
      if (exempt?.(exchange) === true) {
        total.exempt++
        return undefined
      }
      const key = keyOf(exchange)
      return isPromise(key) ? key.then((late) => decide(exchange, late)) : decide(exchange, key)
    },
    stats() {
      let inflight = 0
      for (const count of counts.values()) inflight += count
      return { ...total, inflight, keys: counts.size }
    },
  }
}
