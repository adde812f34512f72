import type { OptionReader } from './options.ts'

/** Time is injected so that tests can move it; the real one never keeps a process alive. */
export interface Clock {
  /** Monotonic milliseconds. */
  now(): number
  setTimeout(fn: () => void, ms: number): unknown
  clearTimeout(handle: unknown): void
}

const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (fn, ms) => {
    const timer = setTimeout(fn, ms)
    timer.unref()
    return timer
  },
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
}

/** Reads an option `clock`: the real time when it is not given; a wrong one is a problem in `read`. For packages with a clock of their own. */
export function readClock(value: unknown, read: OptionReader): Clock {
  if (value === undefined) return systemClock
  const clock = value as Partial<Clock> | null
  if (
    typeof clock === 'object' &&
    typeof clock?.now === 'function' &&
    typeof clock.setTimeout === 'function' &&
    typeof clock.clearTimeout === 'function'
  )
    return clock as Clock
  read.problem('clock', value, 'an object with now, setTimeout and clearTimeout')
  return systemClock
}
