/** Options of `circuitBreaker`, and what they are read into. */
import { type Duration, OptionReader } from '@weir/core'
import type { CircuitTimes } from './circuit.ts'
import { readStatuses, type StatusMatches, type StatusSet } from './status-match.ts'

export interface CircuitBreakerOptions {
  /** One circuit for the pool, which then answers 503 at once, or one per upstream, which is then left out. Default `pool`. */
  readonly scope?: 'pool' | 'upstream'
  /** How far back counts reach. Default 10 s. */
  readonly window?: Duration
  /** Share of failures that trips, once `minRequests` are in the window; `false` for never. Default 0.5 of at least 20. */
  readonly errorRatio?: { readonly threshold?: number; readonly minRequests?: number } | false
  /** Failures in a row that trip; `false` for never. Default `false`. */
  readonly consecutive?: number | false
  /** Trips when the `quantile` (default 0.5) of the times to the response head is above `above`, once `minRequests` (default 20) are in the window. Default: off. */
  readonly latency?: { readonly above: Duration; readonly quantile?: number; readonly minRequests?: number } | false
  /** Answers that are failures; no answer at all always is. Default `5xx`. */
  readonly status?: StatusMatches
  /** How long it stays open the first time; twice as long each time that a trial fails. Default 5 s. */
  readonly open?: Duration
  /** The longest that it stays open. Default 60 s. */
  readonly maxOpen?: Duration
  /** Requests let through at once after that, and passes that it takes. Default 3. */
  readonly trials?: number
  /** Over which traffic then grows back to all of it; 0 for at once. Default 10 s. */
  readonly recovery?: Duration
  /** Only tells, on `weir:health:breaker`, and stops nothing. Default false. */
  readonly dryRun?: boolean
  /** For `scope: 'pool'`: which requests get through while recovering. Default: the pool's. */
  readonly random?: () => number
  /** For events. Default `circuitBreaker`. */
  readonly name?: string
}

export interface BreakerSettings extends CircuitTimes {
  readonly name: string
  readonly scope: 'pool' | 'upstream'
  readonly window: number
  readonly errorRatio: { readonly threshold: number; readonly minRequests: number } | undefined
  /** `Infinity` for never. */
  readonly consecutive: number
  readonly latency: { readonly above: number; readonly quantile: number; readonly minRequests: number } | undefined
  readonly isFailure: StatusSet
  readonly dryRun: boolean
  readonly random: (() => number) | undefined
}

/** @throws OptionsError */
export function readBreakerOptions(options: CircuitBreakerOptions | undefined): BreakerSettings {
  const read = new OptionReader('circuitBreaker')
  const given = read.object<CircuitBreakerOptions>(options, [
    'scope',
    'window',
    'errorRatio',
    'consecutive',
    'latency',
    'status',
    'open',
    'maxOpen',
    'trials',
    'recovery',
    'dryRun',
    'random',
    'name',
  ])
  const open = read.duration('open', given.open, 5000, { min: 1 })
  const settings: BreakerSettings = {
    name: read.name('name', given.name, 'circuitBreaker'),
    scope: read.oneOf('scope', given.scope, ['pool', 'upstream'] as const, 'pool'),
    window: read.duration('window', given.window, 10_000, { min: 10 }),
    errorRatio: given.errorRatio === false ? undefined : readErrorRatio(read.at('errorRatio'), given.errorRatio),
    consecutive:
      given.consecutive === undefined || given.consecutive === false
        ? Number.POSITIVE_INFINITY
        : read.number('consecutive', given.consecutive, 5, { min: 1, integer: true }),
    latency: given.latency === undefined || given.latency === false ? undefined : readLatency(read.at('latency'), given.latency),
    isFailure: readStatuses(read, 'status', given.status, '5xx'),
    open,
    maxOpen: read.duration('maxOpen', given.maxOpen, Math.max(open, 60_000), { min: open }),
    trials: read.number('trials', given.trials, 3, { min: 1, max: 10_000, integer: true }),
    recovery: read.duration('recovery', given.recovery, 10_000),
    dryRun: read.boolean('dryRun', given.dryRun, false),
    random: given.random,
  }
  if (given.random !== undefined && typeof given.random !== 'function')
    read.problem('random', given.random, 'a function such as Math.random')
  if (settings.errorRatio === undefined && settings.latency === undefined && settings.consecutive === Number.POSITIVE_INFINITY)
    read.problem('', '(nothing that trips)', '`errorRatio`, `consecutive` or `latency`')
  read.check()
  return settings
}

const volume = { min: 1, max: 0xffff_ffff, integer: true }

function readErrorRatio(read: OptionReader, options: object | undefined): BreakerSettings['errorRatio'] {
  const given = read.object<{ threshold?: number; minRequests?: number }>(options, ['threshold', 'minRequests'])
  return {
    threshold: read.number('threshold', given.threshold, 0.5, { min: 0.01, max: 1 }),
    minRequests: read.number('minRequests', given.minRequests, 20, volume),
  }
}

function readLatency(read: OptionReader, options: object): BreakerSettings['latency'] {
  const given = read.object<{ above?: Duration; quantile?: number; minRequests?: number }>(options, ['above', 'quantile', 'minRequests'])
  if (given.above === undefined) read.problem('above', undefined, "a duration such as '500ms'")
  return {
    above: read.duration('above', given.above, 1000, { min: 1 }),
    quantile: read.number('quantile', given.quantile, 0.5, { min: 0, max: 0.999 }),
    minRequests: read.number('minRequests', given.minRequests, 20, volume),
  }
}
