/**
 * Outlier detection: upstreams that do worse than they should, judged by real traffic, are set aside for a while. Semantics after Envoy's: rows of
 * errors act at once; rates and response times are compared once per interval, and only where enough requests make them mean something;
 * at most a share of the pool is out at a time, since when many look bad it is rarely the servers; and the last one that is up is never taken.
 */
import { channel } from 'node:diagnostics_channel'
import type { AttemptOutcome, HealthControl, HealthPolicy, Upstream } from '@weir/core'
import { attemptVerdict } from './attempt-verdict.ts'
import { type Ejection, newcomer, nextEjection } from './ejection.ts'
import { LatencyHistogram } from './latency-histogram.ts'
import { type OutlierOptions, readOutlierOptions } from './outlier-options.ts'
import { above, farAboveMedian, farBelowMean, type Outlier, type Sample } from './outlier-statistics.ts'

export type OutlierCause = 'server-errors' | 'gateway-errors' | 'local-errors' | 'failure-ratio' | 'success-rate' | 'latency'

/** On `weir:health:outlier`, for every outlier found. */
export interface OutlierMessage {
  readonly pool: string
  readonly policy: string
  readonly upstream: Upstream
  readonly cause: OutlierCause
  /** A number of errors, a share, or milliseconds, as the cause is. */
  readonly value: number
  readonly threshold: number
  /** False in a dry run, when too many are out already, or when it is the last one up. */
  readonly ejected: boolean
  /** For so many milliseconds; 0 when not ejected. */
  readonly ejectedMs: number
}

const found = channel('weir:health:outlier')

/** What is known of one upstream: three rows, and the counts of the running interval. Changed in place, since every attempt comes by. */
class OutlierRecord {
  readonly upstream: Upstream
  readonly latencies: LatencyHistogram | undefined
  serverErrors = 0
  gatewayErrors = 0
  localErrors = 0
  requests = 0
  failures = 0
  ejection: Ejection
  timer: unknown = undefined

  constructor(upstream: Upstream, now: number, timed: boolean) {
    this.upstream = upstream
    this.latencies = timed ? new LatencyHistogram() : undefined
    this.ejection = newcomer(now)
  }

  forgetInterval(): void {
    this.requests = 0
    this.failures = 0
    this.latencies?.reset()
  }

  forgetRows(): void {
    this.serverErrors = 0
    this.gatewayErrors = 0
    this.localErrors = 0
  }
}

/** @throws OptionsError */
export function outlierDetection(options?: OutlierOptions): HealthPolicy {
  const settings = readOutlierOptions(options)
  const { name, interval, failureRatio, successRate, latency, dryRun } = settings
  const records = new Map<Upstream, OutlierRecord>()
  let pool: HealthControl | undefined
  let ejected = 0
  let sweeper: unknown
  let closed = false

  const eject = (record: OutlierRecord, cause: OutlierCause, outlier: { value: number; threshold: number }, error?: unknown): void => {
    if (pool === undefined || record.ejection.kind === 'ejected') return
    // Found is found, also when it may not go: the next row begins anew.
    record.forgetRows()
    const { clock } = pool
    const next = nextEjection(record.ejection, { kind: 'eject', now: clock.now() }, settings)
    const room = ejected === 0 || (ejected + 1) / pool.upstreams.length <= settings.maxEjected
    const accepted =
      !dryRun &&
      room &&
      next.kind === 'ejected' &&
      pool.setDown(record.upstream, policy, describe(cause, outlier), { soft: true, keepLast: true, error })
    const ejectedMs = accepted && next.kind === 'ejected' ? next.until - clock.now() : 0
    if (accepted) {
      ejected++
      record.ejection = next
      record.timer = clock.setTimeout(() => readmit(record), ejectedMs)
    }
    if (found.hasSubscribers) {
      const { upstream } = record
      const { value, threshold } = outlier
      found.publish({
        pool: pool.name,
        policy: name,
        upstream,
        cause,
        value,
        threshold,
        ejected: accepted,
        ejectedMs,
      } satisfies OutlierMessage)
    }
  }

  const readmit = (record: OutlierRecord): void => {
    if (pool === undefined) return
    // Timers count whole milliseconds and may be a fraction of one early.
    const now = record.ejection.kind === 'ejected' ? Math.max(pool.clock.now(), record.ejection.until) : pool.clock.now()
    record.ejection = nextEjection(record.ejection, { kind: 'time', now }, settings)
    record.timer = undefined
    record.forgetRows()
    record.forgetInterval()
    ejected--
    pool.setUp(record.upstream, policy, 'ejection is over')
  }

  const samples = (minRequests: number, value: (record: OutlierRecord) => number): Sample<OutlierRecord>[] => {
    const list: Sample<OutlierRecord>[] = []
    for (const record of records.values())
      if (record.ejection.kind === 'admitted' && record.requests >= minRequests) list.push({ of: record, value: value(record) })
    return list
  }

  /** @param from when the interval begins */
  const sweepAfter = (control: HealthControl, from: number): void => {
    const due = from + interval
    sweeper = control.clock.setTimeout(() => sweep(control, due), due - control.clock.now())
  }

  /** @param due when it was to be: timers may be a fraction early, and an interval that lacks it would not count as quiet */
  const sweep = (control: HealthControl, due: number): void => {
    const now = Math.max(due, control.clock.now())
    const verdicts: [OutlierCause, Outlier<OutlierRecord>[]][] = []
    if (failureRatio !== undefined)
      verdicts.push([
        'failure-ratio',
        above(
          samples(failureRatio.minRequests, ({ failures, requests }) => failures / requests),
          failureRatio.threshold,
        ),
      ])
    if (successRate !== undefined) {
      const rates = samples(successRate.minRequests, ({ failures, requests }) => 1 - failures / requests)
      if (rates.length >= successRate.minHosts)
        verdicts.push(['success-rate', farBelowMean(rates, successRate.deviations, successRate.margin)])
    }
    if (latency !== undefined) {
      const times = samples(latency.minRequests, ({ latencies }) => latencies?.quantile(latency.quantile) ?? 0).filter(
        ({ of }) => (of.latencies?.total ?? 0) >= latency.minRequests,
      )
      if (times.length >= latency.minHosts) verdicts.push(['latency', farAboveMedian(times, latency.factor, latency.floor)])
    }
    for (const [cause, outliers] of verdicts) for (const outlier of outliers) eject(outlier.of, cause, outlier)
    for (const record of records.values()) {
      record.forgetInterval()
      // The end of an ejection has a timer of its own.
      if (record.ejection.kind === 'admitted') record.ejection = nextEjection(record.ejection, { kind: 'time', now }, settings)
    }
    sweepAfter(control, now)
  }

  const answered = (record: OutlierRecord, status: number, answerMs: number | undefined): void => {
    record.localErrors = 0
    if (status < 500 || status > 599) {
      record.serverErrors = 0
      record.gatewayErrors = 0
      if (answerMs !== undefined) record.latencies?.record(answerMs)
      return
    }
    record.failures++
    const gateway = status >= 502 && status <= 504
    record.gatewayErrors = gateway ? record.gatewayErrors + 1 : 0
    record.serverErrors++
    if (record.gatewayErrors >= settings.gatewayErrors)
      eject(record, 'gateway-errors', { value: record.gatewayErrors, threshold: settings.gatewayErrors })
    else if (record.serverErrors >= settings.serverErrors)
      eject(record, 'server-errors', { value: record.serverErrors, threshold: settings.serverErrors })
  }

  const failed = (record: OutlierRecord, outcome: AttemptOutcome): void => {
    record.failures++
    record.localErrors++
    if (record.localErrors >= settings.localErrors)
      eject(record, 'local-errors', { value: record.localErrors, threshold: settings.localErrors }, outcome.error)
  }

  const join = (upstream: Upstream, control: HealthControl): void =>
    void records.set(upstream, new OutlierRecord(upstream, control.clock.now(), latency !== undefined))

  const policy: HealthPolicy = {
    name,
    attach(control) {
      pool = control
      for (const upstream of control.upstreams) join(upstream, control)
    },
    start() {
      const control = pool
      const sweeps = failureRatio !== undefined || successRate !== undefined || latency !== undefined
      // Also without rates to compare, quiet intervals are what past ejections are forgotten by.
      if (control !== undefined && !closed && (sweeps || settings.max > settings.base)) sweepAfter(control, control.clock.now())
    },
    onUpstream({ upstream, from, to }) {
      if (pool === undefined || closed) return
      if (from === undefined) join(upstream, pool)
      else if (to === undefined) {
        const record = records.get(upstream)
        if (record?.ejection.kind === 'ejected') {
          pool.clock.clearTimeout(record.timer)
          ejected--
        }
        records.delete(upstream)
      }
    },
    onAttempt(outcome) {
      const record = records.get(outcome.upstream)
      // What comes back during an ejection was sent before it, or as a last resort; it is judged by a new row afterwards.
      if (record === undefined || record.ejection.kind === 'ejected') return
      switch (attemptVerdict(outcome)) {
        case 'ignored':
          return
        case 'answered':
          record.requests++
          answered(record, outcome.status ?? 0, outcome.headMs === undefined ? undefined : outcome.headMs - outcome.uploadMs)
          return
        case 'failed':
          record.requests++
          failed(record, outcome)
          return
      }
    },
    close() {
      closed = true
      pool?.clock.clearTimeout(sweeper)
      for (const { timer } of records.values()) pool?.clock.clearTimeout(timer)
      records.clear()
    },
  }
  return policy
}

function describe(cause: OutlierCause, { value, threshold }: { readonly value: number; readonly threshold: number }): string {
  const share = (part: number): string => `${Math.round(part * 1000) / 10} %`
  switch (cause) {
    case 'server-errors':
      return `outlier: ${value} answers 5xx in a row`
    case 'gateway-errors':
      return `outlier: ${value} answers 502, 503 or 504 in a row`
    case 'local-errors':
      return `outlier: ${value} requests in a row without an answer`
    case 'failure-ratio':
      return `outlier: ${share(value)} of requests failed, limit ${share(threshold)}`
    case 'success-rate':
      return `outlier: ${share(value)} of requests succeeded, the others' ${share(threshold)} at least`
    case 'latency':
      return `outlier: ${Math.round(value)} ms to the head, the others allow ${Math.round(threshold)} ms`
  }
}
