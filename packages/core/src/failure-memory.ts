/**
 * The health policy that is on by default: an upstream that fails several attempts in a row is set aside for a while. It is deliberately
 * simple (rates, deviations and ejection caps belong to @weir/health) and deliberately shy:
 * - Only failures that the upstream caused count. A client that left, an overload inside the proxy, or a pooled connection that had gone
 *   stale says nothing about the server.
 * - The last upstream that is up is never set aside: a wrong guess must not turn into an outage.
 * - It comes back on probation: one more failure sets it aside again, one success clears its record.
 */
import type { AttemptOutcome } from './exchange.ts'
import type { HealthControl, HealthPolicy } from './health.ts'
import { type Duration, OptionReader } from './options.ts'
import type { Upstream } from './upstream.ts'

export interface FailureMemoryOptions {
  /** Consecutive failures that set an upstream aside. Default 3. */
  readonly failures?: number
  /** How long it stays aside. Default 10 s. */
  readonly penalty?: Duration
}

/** @throws OptionsError */
export function failureMemory(options?: FailureMemoryOptions): HealthPolicy {
  const read = new OptionReader('failureMemory')
  const given = read.object<FailureMemoryOptions>(options, ['failures', 'penalty'])
  const limit = read.number('failures', given.failures, 3, { min: 1, max: 1_000_000, integer: true })
  const penalty = read.duration('penalty', given.penalty, 10_000, { min: 1 })
  read.check()

  // Weak, since an upstream may leave with its last attempt failed; `suspects` is only the quick way past the look-up.
  const failures = new WeakMap<Upstream, number>()
  let suspects = 0
  const timers = new Map<Upstream, unknown>()
  let pool: HealthControl | undefined
  let closed = false

  const policy: HealthPolicy = {
    name: 'failureMemory',
    attach(control) {
      pool = control
    },
    onAttempt(outcome) {
      if (closed) return
      const { upstream } = outcome
      if (!isUpstreamFailure(outcome)) {
        if (outcome.error === undefined && suspects > 0 && failures.delete(upstream)) suspects--
        return
      }
      const before = failures.get(upstream)
      if (before === undefined) suspects++
      const count = (before ?? 0) + 1
      failures.set(upstream, count)
      if (count < limit || timers.has(upstream) || pool === undefined) return
      const accepted = pool.setDown(upstream, policy, `${count} failures in a row, last ${outcome.error?.code}`, {
        soft: true,
        keepLast: true,
      })
      if (!accepted) return
      timers.set(
        upstream,
        pool.clock.setTimeout(() => {
          timers.delete(upstream)
          // The record stays: this is probation, not acquittal.
          if (failures.has(upstream)) failures.set(upstream, limit - 1)
          pool?.setUp(upstream, policy, 'penalty over')
        }, penalty),
      )
    },
    close() {
      closed = true
      for (const timer of timers.values()) pool?.clock.clearTimeout(timer)
      timers.clear()
    },
  }
  return policy
}

function isUpstreamFailure(outcome: AttemptOutcome): boolean {
  const { error } = outcome
  if (error === undefined || error.source !== 'upstream') return false
  // Cut by another policy: a consequence of a verdict, not a finding.
  if (error.code === 'ERR_UPSTREAM_DOWN') return false
  return !(outcome.reused && error.code === 'ERR_UPSTREAM_RESET')
}
