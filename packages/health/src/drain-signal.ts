/**
 * A server that knows it is about to go can say so on any response: with a field, as Envoy's `x-envoy-immediate-health-check-fail`, or with a
 * status. It then gets no new clients, while those with affinity to it stay until they are done, and no check has to be waited for.
 */
import { type Duration, type HealthControl, type HealthPolicy, OptionReader, type Upstream } from '@weir/core'
import { findField } from './find-field.ts'
import { readFieldName } from './http-probe.ts'
import { readStatuses, type StatusMatches } from './status-match.ts'

export interface DrainSignalOptions {
  /** A response with this field, whatever its value, is the signal. */
  readonly header?: string
  /** A response with one of these statuses is the signal. Not one that a single bad request can cause. */
  readonly status?: StatusMatches
  /** How long a signal holds; each one begins it anew. A server that changes its mind, or a new one at its address, is used again after it. Default 60 s. */
  readonly duration?: Duration
  /** For events. Default `drainSignal`. */
  readonly name?: string
}

/** @throws OptionsError */
export function drainSignal(options: DrainSignalOptions): HealthPolicy {
  const read = new OptionReader('drainSignal')
  const given = read.object<DrainSignalOptions>(options, ['header', 'status', 'duration', 'name'])
  const header = readFieldName(read, 'header', given.header)
  const statuses = given.status === undefined ? undefined : readStatuses(read, 'status', given.status, [])
  const duration = read.duration('duration', given.duration, 60_000, { min: 1 })
  const name = read.name('name', given.name, 'drainSignal')
  if (given.header === undefined && given.status === undefined) read.problem('', given, 'a `header` or a `status` that is the signal')
  read.check()

  const draining = new Map<Upstream, { until: number; timer: unknown }>()
  let pool: HealthControl | undefined
  let closed = false

  const wait = (upstream: Upstream, control: HealthControl, ms: number): unknown =>
    control.clock.setTimeout(() => {
      const entry = draining.get(upstream)
      if (entry === undefined) return
      const left = entry.until - control.clock.now()
      if (left > 0) entry.timer = wait(upstream, control, left)
      else {
        draining.delete(upstream)
        control.setDraining(upstream, policy, false, 'its drain signal is over')
      }
    }, ms)

  const signalled = (upstream: Upstream, control: HealthControl, reason: string): void => {
    const entry = draining.get(upstream)
    const until = control.clock.now() + duration
    // Every response may carry the signal: the timer is left to find out by itself that there is more to wait.
    if (entry !== undefined) entry.until = until
    else {
      draining.set(upstream, { until, timer: wait(upstream, control, duration) })
      control.setDraining(upstream, policy, true, reason)
    }
  }

  const policy: HealthPolicy = {
    name,
    attach(control) {
      pool = control
    },
    onUpstream({ upstream, to }) {
      if (to !== undefined) return
      pool?.clock.clearTimeout(draining.get(upstream)?.timer)
      draining.delete(upstream)
    },
    onHead(upstream, status, headers) {
      if (pool === undefined || closed) return
      if (statuses?.(status) === true) signalled(upstream, pool, `signals with status ${status} that it drains`)
      else if (header !== undefined && findField(headers, header) !== undefined)
        signalled(upstream, pool, `signals with ${header} that it drains`)
    },
    close() {
      closed = true
      for (const { timer } of draining.values()) pool?.clock.clearTimeout(timer)
      draining.clear()
    },
  }
  return policy
}
