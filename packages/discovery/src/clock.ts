/** Reading the `clock` option. Real time by default, with timers that never keep a process alive: a source is not a reason to go on. */
import type { Clock, OptionReader } from '@weir/core'

export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (fn, ms) => {
    const timer = setTimeout(fn, ms)
    timer.unref()
    return timer
  },
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
}

export function readClock(value: Clock | undefined, read: OptionReader): Clock {
  if (value === undefined) return systemClock
  const { now, setTimeout: set, clearTimeout: clear } = (value ?? {}) as Partial<Clock>
  if (typeof now === 'function' && typeof set === 'function' && typeof clear === 'function') return value
  read.problem('clock', value, 'an object with now, setTimeout and clearTimeout')
  return systemClock
}
