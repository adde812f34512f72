/**
 * A fixed window: `quota` per window, and then everything anew. A client's window begins with its first request, not on the full minute, so that not
 * everybody comes back at the same moment.
 *
 * It promises: at most `quota` in each of a client's windows, and so at most `2 * quota` in any stretch as long as one (the end of one window and the
 * beginning of the next, at one moment if the client means harm). It guarantees: who has been still for a window gets `quota`.
 *
 * `a`: taken in this window. `b`: when it began. `c`: not used.
 */
import { type Algorithm, type Limit, type LimitState, LimitStep, slack } from './limit.ts'

function step(allowed: boolean, taken: number, began: number, retryAfterMs: number, now: number, limit: Limit): LimitStep {
  const remaining = Math.max(0, Math.floor(limit.quota - taken + slack))
  const end = began + limit.windowMs
  return new LimitStep(allowed, remaining, retryAfterMs, taken > 0 ? end - now : 0, 0, now, taken, began, 0)
}

/** A window in which nothing was taken has not begun. */
const runs = (state: Readonly<LimitState>, now: number, limit: Limit): boolean => state.a > 0 && now < state.b + limit.windowMs

export const fixedWindow: Algorithm = {
  numbers: 2,

  take(state, now, cost, limit) {
    const current = runs(state, now, limit)
    const taken = current ? state.a : 0
    const began = current ? state.b : now
    if (taken + cost <= limit.quota + slack) return step(true, taken + cost, began, 0, now, limit)
    const retry = cost > limit.quota ? Number.POSITIVE_INFINITY : began + limit.windowMs - now
    return step(false, taken, began, retry, now, limit)
  },

  adjust(state, now, difference, chargedAt, limit) {
    const current = runs(state, now, limit)
    const taken = current ? state.a : 0
    const began = current ? state.b : now
    // A charge of a window that is over weighs nothing any more.
    const change = difference >= 0 || (current && chargedAt >= began) ? difference : 0
    return step(true, Math.max(0, taken + change), began, 0, now, limit)
  },

  expiresAt: ({ b }, { windowMs }) => b + windowMs,
}
