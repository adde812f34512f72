/** Real time unless a test gives another. Its timers never keep a process alive. */
import type { Clock, OptionReader } from '@weir/core'

const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (fn, ms) => {
    const timer = setTimeout(fn, ms)
    timer.unref()
    return timer
  },
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
}

export function readClock(read: OptionReader, value: Clock | undefined): Clock {
  if (value === undefined) return systemClock
  const { now, setTimeout: set, clearTimeout: clear } = typeof value === 'object' && value !== null ? value : ({} as Partial<Clock>)
  if (typeof now === 'function' && typeof set === 'function' && typeof clear === 'function') return value
  read.problem('clock', value, 'an object with now, setTimeout and clearTimeout')
  return systemClock
}
