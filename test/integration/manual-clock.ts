/** Time that stands still until it is told to move. Sockets do not know of it; everything that takes a `clock` does. */
import type { Clock } from '@weir/core'

export interface ManualClock extends Clock {
  /** Moves time on and runs what is due, in order. */
  advance(ms: number): void
  /** Delays of the timers that wait, from now, in order. */
  readonly pending: readonly number[]
}

interface Timer {
  readonly at: number
  readonly fn: () => void
}

export function manualClock(start = 1000): ManualClock {
  let now = start
  const timers = new Set<Timer>()
  const sorted = (): Timer[] => [...timers].sort((a, b) => a.at - b.at)
  return {
    now: () => now,
    setTimeout: (fn, ms) => {
      const timer = { at: now + ms, fn }
      timers.add(timer)
      return timer
    },
    clearTimeout: (handle) => void timers.delete(handle as Timer),
    advance: (ms) => {
      const end = now + ms
      for (let [next] = sorted(); next !== undefined && next.at <= end; [next] = sorted()) {
        timers.delete(next)
        now = next.at
        next.fn()
      }
      now = end
    },
    get pending() {
      return sorted().map((timer) => timer.at - now)
    },
  }
}
