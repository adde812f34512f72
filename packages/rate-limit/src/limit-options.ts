/** Options of one limit, and what they are read into. */
import type { Duration, Exchange, HeaderList, OptionReader, Outcome } from '@weir/core'
import { type KeyFunction, type KeyOption, readKey } from './key.ts'
import type { AlgorithmName, Limit } from './limit.ts'

/** Zero or more units. What it throws, and what is no such number, ends the exchange with a 500. Synchronous. */
export type CostFunction = (exchange: Exchange) => number
/**
 * What a request has cost after all, in total and not on top; undefined for what was charged. `headers` are those of the response, undefined when there
 * was none. Synchronous; what it throws becomes a process warning, and the charge stands.
 */
export type SettleFunction = (outcome: Outcome, exchange: Exchange, headers: HeaderList | undefined) => number | undefined

export interface LimitBase {
  /** So many units (requests, unless `cost` says otherwise) per `window`. A whole number from 1. */
  readonly limit: number
  /** Milliseconds or `'1s'`, `'10m'`, `'1d'`; from 1 ms. */
  readonly window: Duration
  /** Who is counted together. Default `ip`: the client's address. Not for clients behind one NAT, nor for those that authenticate: take their key. */
  readonly key?: KeyOption
  /** Units per request, charged before it is let through. Default 1. A function where requests differ; 0 charges nothing. */
  readonly cost?: number | CostFunction
}

export interface BucketLimit extends LimitBase {
  /** Default `gcra`. `token-bucket` allows the same, and keeps two numbers where `gcra` keeps one. */
  readonly algorithm?: 'gcra' | 'token-bucket'
  /** The most at one moment. Default: `limit`. Smaller for an even flow; larger lets a client that was still catch up. */
  readonly burst?: number
  readonly settle?: SettleFunction
  readonly maxDelay?: never
  readonly maxWaiting?: never
}

export interface WindowLimit extends LimitBase {
  /** `fixed-window` for quotas that people read off a contract; not where twice the limit around a window's end does harm. `sliding-window` has no such seam. */
  readonly algorithm: 'fixed-window' | 'sliding-window'
  readonly settle?: SettleFunction
  readonly burst?: never
  readonly maxDelay?: never
  readonly maxWaiting?: never
}

export interface LeakyLimit extends LimitBase {
  /** Makes requests wait for their turn instead of refusing them. Not where clients have short timeouts. At most one of `limits`. */
  readonly algorithm: 'leaky-bucket'
  /** The longest that a request waits; what would wait longer is refused. Default 1 s. 0 refuses whatever comes too early. */
  readonly maxDelay?: Duration
  /** Most requests that wait at once, of all keys together; one more is refused. Default 1000. Each holds a connection and its head in memory. */
  readonly maxWaiting?: number
  readonly burst?: never
  readonly settle?: never
}

export type LimitOptions = BucketLimit | WindowLimit | LeakyLimit
/** In a list every limit has a name: clients see it in `RateLimit`, shared stores count under it. Printable ASCII without quotes and backslashes. */
export type NamedLimit = LimitOptions & { readonly name: string }

/** A limit with what decides whom it concerns and what a request costs. */
export interface Rule {
  readonly limit: Limit
  readonly keyOf: KeyFunction
  readonly cost: number | CostFunction
  readonly settle: SettleFunction | undefined
  readonly maxWaiting: number
}

/** Options that a list of limits may take from the stage. */
export interface LimitDefaults {
  readonly key?: KeyOption | undefined
  readonly cost?: number | CostFunction | undefined
  readonly settle?: SettleFunction | undefined
}

export const limitNames: readonly string[] = ['limit', 'window', 'key', 'cost', 'algorithm', 'burst', 'settle', 'maxDelay', 'maxWaiting']

const names: readonly AlgorithmName[] = ['gcra', 'token-bucket', 'fixed-window', 'sliding-window', 'leaky-bucket']

/** Every option that any of the algorithms has. */
type Given = Partial<
  LimitBase & { algorithm: AlgorithmName; burst: number; settle: SettleFunction; maxDelay: Duration; maxWaiting: number }
>

export function readRule(
  read: OptionReader,
  options: Partial<LimitOptions>,
  stage: string,
  name: string,
  defaults: LimitDefaults,
  ipv6Prefix: number,
): Rule {
  const given = options as Given
  const algorithm = read.oneOf('algorithm', given.algorithm, names, 'gcra')
  const quota = required(read, 'limit', given.limit, 'a whole number from 1')
    ? read.number('limit', given.limit, 1, { min: 1, max: 999_999_999_999, integer: true })
    : 1
  const windowMs = required(read, 'window', given.window, "a duration such as '1s'")
    ? read.duration('window', given.window, 1000, { min: 1, max: 1e12 })
    : 1000
  const bucket = algorithm === 'gcra' || algorithm === 'token-bucket'
  const leaky = algorithm === 'leaky-bucket'
  if (given.burst !== undefined && !bucket)
    read.problem('burst', given.burst, `nothing for ${algorithm}: only gcra and token-bucket have a burst`)
  if (given.maxDelay !== undefined && !leaky)
    read.problem('maxDelay', given.maxDelay, `nothing for ${algorithm}: only leaky-bucket lets requests wait`)
  if (given.maxWaiting !== undefined && !leaky)
    read.problem('maxWaiting', given.maxWaiting, `nothing for ${algorithm}: only leaky-bucket lets requests wait`)
  if (given.settle !== undefined && leaky)
    read.problem('settle', given.settle, 'nothing for leaky-bucket: turns that were given out cannot be moved')
  const burst = bucket ? read.number('burst', given.burst, quota, { min: 1, max: 999_999_999_999, integer: true }) : quota
  const cost = given.cost ?? defaults.cost ?? 1
  if (typeof cost !== 'function') {
    // One that can never be paid is a proxy that refuses everything.
    read.number('cost', cost, 1, leaky ? { min: 0, max: 1e12 } : { min: 0, max: burst })
  }
  return {
    limit: {
      id: `${stage}:${name}`,
      name,
      algorithm,
      quota,
      windowMs,
      burst,
      maxDelayMs: leaky ? read.duration('maxDelay', given.maxDelay, 1000, { max: 600_000 }) : 0,
    },
    keyOf: readKey(read, 'key', given.key ?? defaults.key, ipv6Prefix),
    cost,
    settle: leaky ? undefined : read.optionalFunction('settle', given.settle ?? defaults.settle),
    maxWaiting: leaky ? read.number('maxWaiting', given.maxWaiting, 1000, { min: 0, max: 1_000_000, integer: true }) : 0,
  }
}

function required(read: OptionReader, name: string, value: unknown, expected: string): boolean {
  if (value === undefined) read.problem(name, value, expected)
  return value !== undefined
}
