/**
 * A sliding window from two counters: this window's count, and the last one's by the share of it that the sliding window still covers. As if the last
 * window's requests had come evenly; two numbers instead of a list of times.
 *
 * It promises: at most `quota` in each window on the clock, and in any stretch of `d` milliseconds (up to a window) at most `quota * (1 + d / window)`.
 * So no more than `quota` at one moment, wherever it lies: the double burst of fixed windows cannot happen. Exactly `quota` in every stretch as long as a
 * window it does not promise; that would take the time of every request. It guarantees: who has been still for two windows gets `quota`; who
 * spaces requests evenly, `quota - 1` per window, is never refused.
 *
 * `a`: taken in the last window. `b`: taken in this one. `c`: this one's number, counted from time 0.
 */
import { type Algorithm, type Limit, type LimitState, LimitStep, slack } from './limit.ts'

function step(allowed: boolean, last: number, current: number, index: number, retryAfterMs: number, now: number, limit: Limit): LimitStep {
  const left = limit.quota - last * fading(now, index, limit) - current
  const remaining = Math.max(0, Math.floor(left + slack))
  const resetMs = remaining >= limit.quota ? 0 : wait(last, current, index, remaining + 1, now, limit)
  return new LimitStep(allowed, remaining, retryAfterMs, resetMs, 0, now, last, current, index)
}

/** Milliseconds until there is room for `cost`, which is no more than the quota. */
function wait(last: number, current: number, index: number, cost: number, now: number, limit: Limit): number {
  const room = limit.quota - cost
  // Within this window the last one fades; after it this one does, and after that nothing is left.
  const within = current <= room
  const weight = within ? last : current
  const from = within ? index : index + 1
  const free = within ? room - current : room
  const faded = weight <= 0 ? 0 : Math.min(1, Math.max(0, 1 - free / weight))
  return Math.max(0, (from + faded) * limit.windowMs - now)
}

/** The number of the window that a time belongs to. */
const numberOf = (time: number, limit: Limit): number => Math.floor(time / limit.windowMs)
/** A clock that went back stays in the window that it was in, or the counts would be lost. */
const windowAt = (now: number, state: Readonly<LimitState>, limit: Limit): number => Math.max(numberOf(now, limit), state.c)
/** The share of the last window that a sliding one still covers. */
const fading = (now: number, at: number, limit: Limit): number => Math.min(1, 1 - (now / limit.windowMs - at))
const last = (state: Readonly<LimitState>, at: number): number => (state.c === at ? state.a : state.c === at - 1 ? state.b : 0)
const current = (state: Readonly<LimitState>, at: number): number => (state.c === at ? state.b : 0)

export const slidingWindow: Algorithm = {
  numbers: 3,

  take(state, now, cost, limit) {
    const at = windowAt(now, state, limit)
    const before = last(state, at)
    const taken = current(state, at)
    const weighed = before * fading(now, at, limit) + taken
    if (weighed + cost <= limit.quota + slack) return step(true, before, taken + cost, at, 0, now, limit)
    const retry = cost > limit.quota ? Number.POSITIVE_INFINITY : wait(before, taken, at, cost, now, limit)
    return step(false, before, taken, at, retry, now, limit)
  },

  adjust(state, now, difference, chargedAt, limit) {
    const at = windowAt(now, state, limit)
    const before = last(state, at)
    const taken = current(state, at)
    const charged = numberOf(chargedAt, limit)
    if (difference >= 0 || charged === at) return step(true, before, Math.max(0, taken + difference), at, 0, now, limit)
    // Given back to the window that was charged; one that is over for good weighs nothing any more.
    return step(true, charged === at - 1 ? Math.max(0, before + difference) : before, taken, at, 0, now, limit)
  },

  expiresAt: ({ c }, { windowMs }) => (c + 2) * windowMs,
}
