/**
 * A leaky bucket as a queue: requests leave it evenly spaced, `quota` per window, and one that comes too early waits for its turn instead of being
 * refused. For upstreams that suffer from bursts. The waiting itself is done in turn-queue.ts; here it is only worked out how long.
 *
 * It promises: two requests that follow each other are let through at least `cost of the first * window / quota` apart; nobody waits longer than
 * `maxDelay`. It guarantees: who keeps to the rate never waits; turns are given out in the order of arrival.
 *
 * `a`: when the next turn is free. `b`, `c`: not used.
 */
import { type Algorithm, type Limit, LimitStep, slack } from './limit.ts'

function step(allowed: boolean, free: number, delayMs: number, retryAfterMs: number, now: number, limit: Limit): LimitStep {
  const interval = limit.windowMs / limit.quota
  const places = (limit.maxDelayMs - Math.max(0, free - now)) / interval + 1
  const remaining = Math.max(0, Math.floor(places + slack))
  const most = Math.floor(limit.maxDelayMs / interval + 1 + slack)
  const resetMs = remaining >= most ? 0 : (remaining + 1 - places) * interval
  return new LimitStep(allowed, remaining, retryAfterMs, resetMs, delayMs, now, free, 0, 0)
}

export const leakyBucket: Algorithm = {
  numbers: 1,

  take(state, now, cost, limit) {
    const interval = limit.windowMs / limit.quota
    const turn = Math.max(state.a, now)
    const over = turn - now - limit.maxDelayMs
    if (over > slack * interval) return step(false, state.a, 0, over, now, limit)
    return step(true, turn + cost * interval, turn - now, 0, now, limit)
  },

  /** For whoever leaves while waiting: the turn lies in the future, so all of it comes back. Turns that have begun cannot be moved (see `settle`). */
  adjust(state, now, difference, _chargedAt, limit) {
    const interval = limit.windowMs / limit.quota
    return step(true, Math.max(now, Math.max(state.a, now) + difference * interval), 0, 0, now, limit)
  },

  expiresAt: ({ a }) => a,
}
