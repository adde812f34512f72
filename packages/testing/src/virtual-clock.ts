/**
 * Time that moves only when the test says so. Given to whatever takes a `clock`, it turns "wait five seconds and hope" into "five seconds
 * later", and two tests that differ by a millisecond into two tests.
 */
import { setImmediate as nextTurn } from 'node:timers'
import type { Clock } from '@weir/core'

export interface VirtualClock extends Clock {
  /** Timers that have not run and were not cleared. */
  readonly pending: number
  /**
   * Moves time on by `ms` milliseconds. Every timer that becomes due runs at its own moment, in order; after each, whatever promises it
   * settled go on before the next timer runs. What a timer throws is thrown here.
   */
  advance(ms: number): Promise<void>
  /** Moves on to the next timer, however far away; false when there is none. */
  advanceToNext(): Promise<boolean>
}

interface Timer {
  readonly due: number
  readonly order: number
  readonly fn: () => void
}

/** More timers than this in one `advance` are one that sets itself again at once. */
const runaway = 100_000

/** @param start what `now()` says at first, milliseconds. Default 0. */
export function virtualClock(start = 0): VirtualClock {
  const timers = new Set<Timer>()
  let now = start
  let made = 0

  const next = (): Timer | undefined => {
    let first: Timer | undefined
    for (const timer of timers) {
      if (first === undefined || timer.due < first.due || (timer.due === first.due && timer.order < first.order)) first = timer
    }
    return first
  }
  // A turn of the event loop lets every promise go on that can, however long its chain.
  const settle = (): Promise<void> => new Promise((resolve) => void nextTurn(resolve))

  const clock: VirtualClock = {
    now: () => now,
    setTimeout: (fn, ms) => {
      const timer: Timer = { due: now + Math.max(0, Number.isNaN(ms) ? 0 : ms), order: made++, fn }
      timers.add(timer)
      return timer
    },
    clearTimeout: (handle) => void timers.delete(handle as Timer),
    get pending() {
      return timers.size
    },
    advance: async (ms) => {
      if (!(ms >= 0)) throw new RangeError(`time moves forward: advance(${ms})`)
      const end = now + ms
      await settle()
      for (let ran = 0; ; ran++) {
        const timer = next()
        if (timer === undefined || timer.due > end) break
        if (ran === runaway) throw new Error(`${runaway} timers ran within ${ms} ms of virtual time: one sets itself again without delay`)
        timers.delete(timer)
        now = Math.max(now, timer.due)
        timer.fn()
        await settle()
      }
      now = end
    },
    advanceToNext: async () => {
      await settle()
      const timer = next()
      if (timer === undefined) return false
      await clock.advance(Math.max(0, timer.due - now))
      return true
    },
  }
  return clock
}
