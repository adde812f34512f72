/**
 * A token bucket: it holds `burst` tokens, `quota` new ones drip in per window, a request takes as many as it costs. The same promise and the same
 * guarantee as `gcra`, written the way that most people know it; two numbers to remember instead of one.
 *
 * It promises: in any stretch of `d` milliseconds at most `burst + quota * d / window`. It guarantees: who keeps to the rate is never refused, and who
 * has been still until the bucket is full gets `burst` at once.
 *
 * `a`: tokens missing from a full bucket (so that nothing remembered means a full one). `b`: when that was so. `c`: not used.
 */
import { type Algorithm, type Limit, type LimitState, LimitStep, slack } from './limit.ts'

function missing(state: Readonly<LimitState>, now: number, limit: Limit): number {
  return Math.max(0, state.a - (Math.max(0, now - state.b) * limit.quota) / limit.windowMs)
}

function step(allowed: boolean, taken: number, retryAfterMs: number, now: number, before: Readonly<LimitState>, limit: Limit): LimitStep {
  const interval = limit.windowMs / limit.quota
  const left = limit.burst - taken
  const remaining = Math.max(0, Math.floor(left + slack))
  const resetMs = remaining >= limit.burst ? 0 : (remaining + 1 - left) * interval
  // A clock that went back must not let the same stretch of time drip twice.
  const since = Math.max(now, before.b)
  return new LimitStep(allowed, remaining, retryAfterMs, resetMs, 0, now, taken, since, 0)
}

export const tokenBucket: Algorithm = {
  numbers: 2,

  take(state, now, cost, limit) {
    const before = missing(state, now, limit)
    const over = before + cost - limit.burst
    if (over <= slack) return step(true, before + cost, 0, now, state, limit)
    const interval = limit.windowMs / limit.quota
    return step(false, before, cost > limit.burst ? Number.POSITIVE_INFINITY : over * interval, now, state, limit)
  },

  adjust(state, now, difference, chargedAt, limit) {
    const refilled = (Math.max(0, now - chargedAt) * limit.quota) / limit.windowMs
    // What the bucket may have run over for meanwhile is not given back: see gcra.ts.
    const change = difference >= 0 ? difference : Math.min(0, difference + refilled)
    return step(true, Math.max(0, missing(state, now, limit) + change), 0, now, state, limit)
  },

  expiresAt: ({ a, b }, { quota, windowMs }) => b + (a * windowMs) / quota,
}
