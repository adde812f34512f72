/** Options of `rateLimit`, and what they are read into. */
import { type Clock, type Duration, type Exchange, OptionReader, readClock } from '@weir/core'
import { type ExemptOption, readExempt } from './exempt.ts'
import type { StoreErrorAction } from './guarded-store.ts'
import type { KeyOption } from './key.ts'
import {
  type CostFunction,
  type LimitDefaults,
  type LimitOptions,
  limitNames,
  type NamedLimit,
  type Rule,
  readRule,
  type SettleFunction,
} from './limit-options.ts'
import { memoryStore, readMaxEntries } from './memory-store.ts'
import type { RateLimitStore } from './store.ts'

/** What `onRefused` is told. */
export interface Refusal {
  /** Names of the limits that refused. */
  readonly limits: readonly string[]
  /** Milliseconds until it would be allowed; `Infinity` for never. */
  readonly retryAfterMs: number
}

export interface RateLimitStageOptions {
  /** For order, events, and as part of the names that a shared store counts under; in the quick form also the policy's name. Default `rateLimit`, policy `default`. */
  readonly name?: string
  /** Who is never limited: addresses and CIDR ranges, or a function of the exchange. Default: nobody. Not by a header that anybody can send. */
  readonly exempt?: ExemptOption
  /** Bits of an IPv6 address that make one client, 16 to 128. Default 64. 128 lets each client have 2^64 addresses; below 48 is whole providers. */
  readonly ipv6Prefix?: number
  /** Status of a refusal, 400 to 599. Default 429. 503 for clients that know no 429. */
  readonly status?: number
  /** `RateLimit` and `RateLimit-Policy` on every response. Default true. `Retry-After` comes with a refusal either way. Off where limits are a secret. */
  readonly headers?: boolean
  /** Fields of these names that the upstream set: `replace` them, or `keep` them and add none. Default `replace`. */
  readonly upstreamHeaders?: 'replace' | 'keep'
  /** Decides, counts and publishes, and refuses nobody, delays nobody, tells clients nothing. Default false. */
  readonly dryRun?: boolean
  /** Called for every refusal, not in a dry run: `banList().after(...)`, an alarm. Synchronous. Default: none. */
  readonly onRefused?: (exchange: Exchange, refusal: Refusal) => void
  /** Where it is remembered. Default: a memory of this process. Whoever made it closes it. */
  readonly store?: RateLimitStore
  /**
   * What happens to requests while the store throws or does not answer: `allow` them, `deny` them (503), or decide with a memory of this process's own.
   * Default `local`. `deny` only where a request too many is worse than an outage.
   */
  readonly onStoreError?: StoreErrorAction
  /** How long a call of the store may take. Default 100 ms. Requests wait as long when it hangs. */
  readonly storeTimeout?: Duration
  /** Most keys that this process remembers of each limit: of the default store, and of the one that decides when a shared one fails. Default 100,000. */
  readonly maxEntries?: number
  /** Default: real time. */
  readonly clock?: Clock
}

/** One limit, written right here. */
export type QuickRateLimit = LimitOptions & RateLimitStageOptions & { readonly limits?: never }

/** Several limits: a request passes if all of them allow it, and one that is refused by any is charged to none. */
export interface ManyRateLimits extends RateLimitStageOptions {
  /** At least one. */
  readonly limits: readonly NamedLimit[]
  /** For limits without their own. */
  readonly key?: KeyOption
  /** For limits without their own. */
  readonly cost?: number | CostFunction
  /** For limits without their own, but for leaky buckets. */
  readonly settle?: SettleFunction
  readonly limit?: never
  readonly window?: never
}

export type RateLimitOptions = QuickRateLimit | ManyRateLimits

export interface RateLimitSettings {
  readonly name: string
  readonly rules: readonly Rule[]
  readonly exempt: ((exchange: Exchange) => boolean) | undefined
  readonly status: number
  readonly headers: boolean
  readonly keepUpstreamHeaders: boolean
  readonly dryRun: boolean
  readonly onRefused: ((exchange: Exchange, refusal: Refusal) => void) | undefined
  readonly store: RateLimitStore
  readonly onStoreError: StoreErrorAction
  readonly storeTimeout: number
  readonly maxEntries: number
  readonly clock: Clock
}

const stageNames: readonly string[] = [
  'name',
  'exempt',
  'ipv6Prefix',
  'status',
  'headers',
  'upstreamHeaders',
  'dryRun',
  'onRefused',
  'store',
  'onStoreError',
  'storeTimeout',
  'maxEntries',
  'clock',
]

/** @throws OptionsError */
export function readRateLimitOptions(options: RateLimitOptions): RateLimitSettings {
  const read = new OptionReader('rateLimit')
  if (options === undefined) read.problem('', options, '{ limit, window }, or { limits: [...] }')
  const many = typeof options === 'object' && options !== null && options.limits !== undefined
  const known = many ? [...stageNames, 'limits', 'key', 'cost', 'settle'] : [...stageNames, ...limitNames]
  const given = read.object<RateLimitOptions>(options, known)
  const name = policyName(read, 'name', given.name, 'rateLimit')
  const ipv6Prefix = read.number('ipv6Prefix', given.ipv6Prefix, 64, { min: 16, max: 128, integer: true })
  const clock = readClock(given.clock, read)
  const maxEntries = readMaxEntries(read, given.maxEntries)
  const settings: RateLimitSettings = {
    name,
    rules: many
      ? readRules(read, given as ManyRateLimits, name, ipv6Prefix)
      : options === undefined
        ? []
        : [readRule(read, given as Partial<LimitOptions>, name, given.name === undefined ? 'default' : name, {}, ipv6Prefix)],
    exempt: readExempt(read, given.exempt),
    status: readStatus(read, given.status, 429),
    headers: read.boolean('headers', given.headers, true),
    keepUpstreamHeaders: read.oneOf('upstreamHeaders', given.upstreamHeaders, ['replace', 'keep'] as const, 'replace') === 'keep',
    dryRun: read.boolean('dryRun', given.dryRun, false),
    onRefused: read.optionalFunction('onRefused', given.onRefused),
    store: readStore(read, given.store, maxEntries, clock),
    onStoreError: read.oneOf('onStoreError', given.onStoreError, ['allow', 'deny', 'local'] as const, 'local'),
    storeTimeout: read.duration('storeTimeout', given.storeTimeout, 100, { min: 1, max: 60_000 }),
    maxEntries,
    clock,
  }
  read.check()
  return settings
}

export const readStatus = (read: OptionReader, value: number | undefined, fallback: number): number =>
  read.number('status', value, fallback, { min: 400, max: 599, integer: true })

function readRules(read: OptionReader, given: ManyRateLimits, stage: string, ipv6Prefix: number): Rule[] {
  const { limits } = given
  if (!Array.isArray(limits) || limits.length === 0) {
    read.problem('limits', limits, 'a list of at least one { name, limit, window }')
    return []
  }
  const defaults: LimitDefaults = { key: given.key, cost: given.cost, settle: given.settle }
  const seen = new Set<string>()
  const rules = limits.map((entry: NamedLimit, i) => {
    const reader = read.at('limits').at(i)
    const limit = reader.object<NamedLimit>(entry ?? (null as unknown as NamedLimit), ['name', ...limitNames])
    if (limit.name === undefined) reader.problem('name', limit.name, 'a name of its own')
    const name = policyName(reader, 'name', limit.name, `limit${i}`)
    if (seen.has(name)) reader.problem('name', name, 'a name that no other limit of this list has')
    seen.add(name)
    return readRule(reader, limit, stage, name, defaults, ipv6Prefix)
  })
  // One line to wait in: two would have to be left together and entered together.
  if (rules.filter(({ limit }) => limit.algorithm === 'leaky-bucket').length > 1)
    read.problem(
      'limits',
      limits.map(({ name }: NamedLimit) => name),
      'at most one leaky-bucket',
    )
  return rules
}

/** It becomes a Structured Fields string, and is kept free of what would need escaping there. */
function policyName(read: OptionReader, path: string, value: string | undefined, fallback: string): string {
  const name = read.name(path, value, fallback)
  if (/^[ !#-[\]-~]+$/.test(name)) return name
  read.problem(path, value, 'printable ASCII without quotes and backslashes')
  return fallback
}

function readStore(read: OptionReader, value: RateLimitStore | undefined, maxEntries: number, clock: Clock): RateLimitStore {
  if (value === undefined) return memoryStore({ maxEntries, clock })
  if (typeof value === 'object' && value !== null && typeof value.take === 'function' && typeof value.adjust === 'function') return value
  read.problem('store', value, 'a RateLimitStore: an object with name, take and adjust')
  return memoryStore({ maxEntries, clock })
}
