/** The options that all stores of this package share. */
import { type Clock, type Duration, type OptionReader, readClock } from '@weir/core'
import type { RedisClient } from './client.ts'

export interface LinkOptions {
  /** From `fromIoredis` or `fromNodeRedis`. */
  readonly client: RedisClient
  /** Begins every key; without braces. Two proxies share what they remember when they have the same. Default `weir`. */
  readonly prefix?: string
  /** How long a call may take. Choose it below the `timeout` of the feature (100 ms), or that one comes first. Default 80 ms; of the cache 200 ms. */
  readonly timeout?: Duration
  /** Calls that may wait for an answer at once; beyond it they fail at once. It bounds what a server that hangs costs in memory. Default 1,000. */
  readonly maxPending?: number
  /** So many failures in a row, and the server is left alone for `retryAfter`. Default 5. */
  readonly failures?: number
  /** After that one call is let through, and its answer decides. Default 1 s. */
  readonly retryAfter?: Duration
  /** Default: real time. */
  readonly clock?: Clock
}

export interface LinkSettings {
  readonly client: RedisClient
  readonly prefix: string
  readonly timeout: number
  readonly maxPending: number
  readonly failures: number
  readonly retryAfter: number
  readonly clock: Clock
}

export const linkKeys: readonly string[] = ['client', 'prefix', 'timeout', 'maxPending', 'failures', 'retryAfter', 'clock']

/** Problems are recorded in `read`. @param timeout the default, milliseconds */
export function readLink(read: OptionReader, given: Partial<LinkOptions>, timeout: number = 80): LinkSettings {
  const { client, prefix = 'weir' } = given
  if (typeof client !== 'object' || client === null || typeof client.evalSha !== 'function')
    read.problem('client', client === undefined ? undefined : typeof client, 'fromIoredis(client) or fromNodeRedis(client)')
  if (typeof prefix !== 'string' || prefix === '' || /[{}]/.test(prefix))
    read.problem('prefix', prefix, 'a non-empty string without braces')
  return {
    client: client as RedisClient,
    prefix,
    timeout: read.duration('timeout', given.timeout, timeout, { min: 1 }),
    maxPending: read.number('maxPending', given.maxPending, 1000, { min: 1, integer: true }),
    failures: read.number('failures', given.failures, 5, { min: 1, integer: true }),
    retryAfter: read.duration('retryAfter', given.retryAfter, 1000, { min: 1 }),
    clock: readClock(given.clock, read),
  }
}
