/** Options of `outlierDetection`, and what they are read into. */
import { type Duration, OptionReader } from '@weir/core'

export interface OutlierOptions {
  /** How often rates and times are compared. Rows of errors are acted on at once. Default 10 s. */
  readonly interval?: Duration
  /** How long an outlier stays out the first time; the second time twice as long, and so on. Default 30 s. */
  readonly baseEjection?: Duration
  /** The longest that it stays out. Default 5 min. */
  readonly maxEjection?: Duration
  /** Most of the pool that may be out at once, as a share; but one always may, while another is up. Default 0.1. */
  readonly maxEjected?: number
  /**
   * Answers 500 to 599 in a row that eject; `false` for never. Default `false`: a plain 500 is as often the request's fault, and one client that
   * repeats a poisonous request would eject server after server.
   */
  readonly serverErrors?: number | false
  /** Answers 502, 503 or 504 in a row that eject; `false` for never. Default 5. */
  readonly gatewayErrors?: number | false
  /** Failures to get an answer (refused, reset, too late, not HTTP) in a row that eject; `false` for never. Default 5. */
  readonly localErrors?: number | false
  /** Share of an interval's requests that fail (no answer, or 5xx). Default 0.85 of at least 50. */
  readonly failureRatio?: { readonly threshold?: number; readonly minRequests?: number } | false
  /**
   * Share of an interval's requests that succeed, against the others: below the mean by more than `deviations` (default 1.9) standard deviations,
   * and by `margin` (default 0.05). Looks only when `minHosts` (default 5) upstreams had `minRequests` (default 100).
   */
  readonly successRate?:
    | { readonly deviations?: number; readonly margin?: number; readonly minHosts?: number; readonly minRequests?: number }
    | false
  /**
   * Time to the response head, against the others: the upstream's `quantile` (default 0.5) over the interval above `factor` (default 3) times the
   * median of all of theirs, and above `floor` (default 50 ms). Looks only when `minHosts` (default 3) had `minRequests` (default 100).
   * Default: off. Not where upstreams do different work.
   */
  readonly latency?:
    | {
        readonly quantile?: number
        readonly factor?: number
        readonly floor?: Duration
        readonly minHosts?: number
        readonly minRequests?: number
      }
    | boolean
  /** Only tells, on `weir:health:outlier`, and ejects nobody. Default false. */
  readonly dryRun?: boolean
  /** For events. Default `outlierDetection`. */
  readonly name?: string
}

export interface OutlierSettings {
  readonly name: string
  readonly interval: number
  readonly base: number
  readonly max: number
  readonly maxEjected: number
  /** `Infinity` for never. */
  readonly serverErrors: number
  readonly gatewayErrors: number
  readonly localErrors: number
  readonly failureRatio: { readonly threshold: number; readonly minRequests: number } | undefined
  readonly successRate:
    | { readonly deviations: number; readonly margin: number; readonly minHosts: number; readonly minRequests: number }
    | undefined
  readonly latency:
    | {
        readonly quantile: number
        readonly factor: number
        readonly floor: number
        readonly minHosts: number
        readonly minRequests: number
      }
    | undefined
  readonly dryRun: boolean
}

/** @throws OptionsError */
export function readOutlierOptions(options: OutlierOptions | undefined): OutlierSettings {
  const read = new OptionReader('outlierDetection')
  const given = read.object<OutlierOptions>(options, [
    'interval',
    'baseEjection',
    'maxEjection',
    'maxEjected',
    'serverErrors',
    'gatewayErrors',
    'localErrors',
    'failureRatio',
    'successRate',
    'latency',
    'dryRun',
    'name',
  ])
  const row = (name: 'serverErrors' | 'gatewayErrors' | 'localErrors', fallback: number): number => {
    const value = given[name]
    if (value === false) return Number.POSITIVE_INFINITY
    return read.number(name, value, fallback, { min: 1, max: 1_000_000, integer: true })
  }
  const base = read.duration('baseEjection', given.baseEjection, 30_000, { min: 1 })
  const settings: OutlierSettings = {
    name: read.name('name', given.name, 'outlierDetection'),
    interval: read.duration('interval', given.interval, 10_000, { min: 1 }),
    base,
    max: read.duration('maxEjection', given.maxEjection, Math.max(base, 300_000), { min: base }),
    maxEjected: read.number('maxEjected', given.maxEjected, 0.1, { min: 0, max: 1 }),
    serverErrors: row('serverErrors', Number.POSITIVE_INFINITY),
    gatewayErrors: row('gatewayErrors', 5),
    localErrors: row('localErrors', 5),
    failureRatio: given.failureRatio === false ? undefined : readFailureRatio(read.at('failureRatio'), given.failureRatio),
    successRate: given.successRate === false ? undefined : readSuccessRate(read.at('successRate'), given.successRate),
    latency:
      given.latency === undefined || given.latency === false
        ? undefined
        : readLatency(read.at('latency'), given.latency === true ? undefined : given.latency),
    dryRun: read.boolean('dryRun', given.dryRun, false),
  }
  read.check()
  return settings
}

const volume = { min: 1, max: 0xffff_ffff, integer: true }

function readFailureRatio(read: OptionReader, options: object | undefined): OutlierSettings['failureRatio'] {
  const given = read.object<{ threshold?: number; minRequests?: number }>(options, ['threshold', 'minRequests'])
  return {
    threshold: read.number('threshold', given.threshold, 0.85, { min: 0.01, max: 1 }),
    minRequests: read.number('minRequests', given.minRequests, 50, volume),
  }
}

function readSuccessRate(read: OptionReader, options: object | undefined): OutlierSettings['successRate'] {
  type Given = { deviations?: number; margin?: number; minHosts?: number; minRequests?: number }
  const given = read.object<Given>(options, ['deviations', 'margin', 'minHosts', 'minRequests'])
  return {
    deviations: read.number('deviations', given.deviations, 1.9, { min: 0 }),
    margin: read.number('margin', given.margin, 0.05, { min: 0, max: 1 }),
    minHosts: read.number('minHosts', given.minHosts, 5, { min: 2, integer: true }),
    minRequests: read.number('minRequests', given.minRequests, 100, volume),
  }
}

function readLatency(read: OptionReader, options: object | undefined): OutlierSettings['latency'] {
  type Given = { quantile?: number; factor?: number; floor?: Duration; minHosts?: number; minRequests?: number }
  const given = read.object<Given>(options, ['quantile', 'factor', 'floor', 'minHosts', 'minRequests'])
  return {
    quantile: read.number('quantile', given.quantile, 0.5, { min: 0.01, max: 1 }),
    factor: read.number('factor', given.factor, 3, { min: 1 }),
    floor: read.duration('floor', given.floor, 50),
    minHosts: read.number('minHosts', given.minHosts, 3, { min: 3, integer: true }),
    minRequests: read.number('minRequests', given.minRequests, 100, volume),
  }
}
