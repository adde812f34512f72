/**
 * GCRA, the generic cell rate algorithm (ITU-T I.371). It remembers one number: when the client would be done if it kept to the rate with what it
 * has had so far (the "theoretical arrival time"). A request pushes that time on by its share of the window; it is allowed while that time is no
 * further away than the burst allows.
 *
 * It promises: in any stretch of `d` milliseconds, however placed, at most `burst + quota * d / window`. It guarantees: who keeps to the rate is never
 * refused, and who has been still for `burst` units' time gets `burst` at once.
 *
 * `a`: the theoretical arrival time. `b`, `c`: not used.
 */
import { type Algorithm, type Limit, LimitStep, slack } from './limit.ts'

function step(allowed: boolean, doneAt: number, retryAfterMs: number, now: number, interval: number, limit: Limit): LimitStep {
  const left = limit.burst - Math.max(0, doneAt - now) / interval
  const remaining = Math.max(0, Math.floor(left + slack))
  const resetMs = remaining >= limit.burst ? 0 : (remaining + 1 - left) * interval
  return new LimitStep(allowed, remaining, retryAfterMs, resetMs, 0, now, doneAt, 0, 0)
}

export const gcra: Algorithm = {
  numbers: 1,

  take(state, now, cost, limit) {
    const interval = limit.windowMs / limit.quota
    const from = Math.max(state.a, now)
    const until = from + cost * interval
    const over = until - now - limit.burst * interval
    if (over <= slack * interval) return step(true, until, 0, now, interval, limit)
    return step(false, state.a, cost > limit.burst ? Number.POSITIVE_INFINITY : over, now, interval, limit)
  },

  adjust(state, now, difference, chargedAt, limit) {
    const interval = limit.windowMs / limit.quota
    // Had the charge been smaller, the bucket might have been full meanwhile and its refill lost: at worst as much as flowed since then. Only the
    // rest is given back, or a client could store up refunds and spend them at one moment.
    const change = difference >= 0 ? difference * interval : Math.min(0, difference * interval + Math.max(0, now - chargedAt))
    return step(true, Math.max(now, Math.max(state.a, now) + change), 0, now, interval, limit)
  },

  expiresAt: ({ a }) => a,
}
