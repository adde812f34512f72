import type { OptionReader } from './options.ts'

/** Time is injected so that tests can move it; the real one never keeps a process alive. */
export interface Clock {
  /** Monotonic milliseconds. */
  now(): number
  setTimeout(fn: () => void, ms: number): unknown
  clearTimeout(handle: unknown): void
}

/** The request whose turn it is. */
let arriving: { readonly startedAt: number } | undefined

const systemClock: Clock = {
  now: () => (arriving === undefined ? performance.now() : arriving.startedAt),
  setTimeout: (fn, ms) => {
    const timer = setTimeout(fn, ms)
    timer.unref()
    return timer
  },
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
}

/**
 * From here to `letTimeGo`, which has to come in the same turn, it is when `exchange` arrived: all that stages, stores and balancers do with a request before they wait
 * for anything takes microseconds, and looking at the clock each time is a good part of that (60 ns, where a decision of a rate limit takes 130). It holds for
 * the real time only: whoever brings a clock decides what it says.
 */
export function holdTime(clock: Clock, exchange: { readonly startedAt: number }): void {
  if (clock === systemClock) arriving = exchange
}

export function letTimeGo(): void {
  arriving = undefined
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
