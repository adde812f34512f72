/**
 * The store of `@weir/rate-limit` on Redis or Valkey: many proxies, one limit. A decision is one script and one round trip, however many limits it is
 * about, and is made by the server's clock, so that the proxies' clocks do not matter. It is as consistent as Redis is: exact while there is one primary;
 * after a fail-over the promoted replica knows what had reached it, so that what was admitted in the last moments before may be admitted once more.
 */
import { OptionReader } from '@weir/core'
import type { Charge, Limit, RateLimitStore, Verdict } from '@weir/rate-limit'
import { keyText } from './key-text.ts'
import { type LinkOptions, linkKeys, readLink } from './link-options.ts'
import { adjustScript, takeScript } from './rate-limit-script.ts'
import { RedisStoreError } from './redis-error.ts'
import { RedisLink } from './redis-link.ts'

export interface RedisRateLimitOptions extends LinkOptions {
  /**
   * On a cluster, what decides where a key lives. `key`: the client's key, so that the load spreads, and several limits of one stage are decided at once when
   * they have the same key. `prefix`: everything of this store on one node; for stages whose limits have different keys. Default `key`.
   */
  readonly shardBy?: 'key' | 'prefix'
}

/** @throws OptionsError */
export function redisRateLimitStore(options: RedisRateLimitOptions): RateLimitStore {
  const read = new OptionReader('redisRateLimitStore')
  const given = read.object<RedisRateLimitOptions>(options ?? {}, [...linkKeys, 'shardBy'])
  const settings = readLink(read, given)
  const shardBy = read.oneOf('shardBy', given.shardBy, ['key', 'prefix'] as const, 'key')
  read.check()
  const { client, prefix } = settings
  const link = new RedisLink('rate-limit', settings)
  // The algorithm is part of it: what one remembers says nothing to another.
  const limitText = ({ id, algorithm }: Limit): string => `${keyText(id)}:${algorithm}`
  const nameOf = (limit: Limit, key: string): string =>
    shardBy === 'prefix' ? `{${prefix}}:${limitText(limit)}:${keyText(key)}` : `${prefix}:{${keyText(key)}}:${limitText(limit)}`

  return {
    name: `redis (${client.name})`,
    async take(charges) {
      const [first] = charges
      if (first === undefined) return []
      if (client.cluster && shardBy === 'key' && charges.some(({ key }) => key !== first.key))
        throw new RedisStoreError(
          'ERR_REDIS_CROSS_SLOT',
          'On a cluster, limits with different keys cannot be decided at once: give the store `shardBy: "prefix"`, or use a stage for each.',
        )
      const answer = await link.run(
        takeScript,
        charges.map(({ limit, key }) => nameOf(limit, key)),
        charges.flatMap(({ limit, cost }) => [...argumentsOf(limit), String(cost)]),
      )
      return verdictsOf(answer, charges)
    },
    async adjust(limit, key, difference, chargedAt) {
      await link.run(adjustScript, [nameOf(limit, key)], [...argumentsOf(limit), String(difference), String(chargedAt)])
    },
  }
}

function argumentsOf({ algorithm, quota, windowMs, burst, maxDelayMs }: Limit): string[] {
  return [algorithm, String(quota), String(windowMs), String(burst), String(maxDelayMs)]
}

const width = 5

function verdictsOf(answer: unknown, charges: readonly Charge[]): Verdict[] {
  const numbers = Array.isArray(answer) ? answer.map((text) => (text === 'inf' ? Number.POSITIVE_INFINITY : Number(text))) : []
  if (numbers.length !== charges.length * width + 1 || numbers.some(Number.isNaN))
    throw new RedisStoreError('ERR_REDIS_REPLY', `not a list of ${charges.length} verdicts`)
  const at = numbers.at(-1) as number
  return charges.map((_, i) => {
    const [allowed, remaining, retryAfterMs, resetMs, delayMs] = numbers.slice(i * width, (i + 1) * width) as [
      number,
      number,
      number,
      number,
      number,
    ]
    return { allowed: allowed === 1, remaining, retryAfterMs, resetMs, delayMs, at }
  })
}
