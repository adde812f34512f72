/** Options that all sources have, and what they are read into. */
import type { Clock, Duration, OptionReader } from '@weir/core'
import type { DiscoveryError } from './discovery-error.ts'

/** May this address be used? Gets an IPv4 or IPv6 address without brackets. See `addressGuard`. */
export type Guard = (address: string) => boolean

export interface SourceOptions {
  /** For events and errors. Default: kind and place, `dns:app.internal`. */
  readonly name?: string
  /**
   * Upstreams whose address it refuses, in their URL or in `meta.health.address`, are left out and reported. It sees addresses only: what a host *name*
   * in a list points to is known when a connection is made, so give the same function to the pool as `allowAddress`. `false`: every address is used.
   * Default: `addressGuard()`, but `false` for files.
   */
  readonly guard?: Guard | false
  /**
   * What happens when the very first look fails. `throw` (the default): the iterator throws, the pool reports it, answers 503 and opens
   * the source again after a pause of 1 to 30 s. `wait`: the source goes on by itself, and the first requests wait with it, at most 10 s. After the first
   * list a failure never throws.
   */
  readonly firstFailure?: 'throw' | 'wait'
  /** Called with every failure, also those after which the last good list is kept. What it throws becomes a process warning. */
  readonly onError?: (error: DiscoveryError) => void
  /** For tests. */
  readonly clock?: Clock
  /** For jitter: gives numbers from 0 up to, not including, 1. Default `Math.random`. */
  readonly random?: () => number
}

export interface SourceSettings {
  readonly name: string
  readonly guard: Guard | undefined
  readonly firstFailure: 'throw' | 'wait'
  readonly onError: ((error: DiscoveryError) => void) | undefined
  readonly clock: Clock
  readonly random: () => number
}

export const sourceKeys: readonly string[] = ['name', 'guard', 'firstFailure', 'onError', 'clock', 'random']

export function readSource(given: SourceOptions, read: OptionReader, name: string, guard: Guard | undefined): SourceSettings {
  return {
    name: read.name('name', given.name, name),
    guard: given.guard === false ? undefined : (read.optionalFunction('guard', given.guard) ?? guard),
    firstFailure: read.oneOf('firstFailure', given.firstFailure, ['throw', 'wait'] as const, 'throw'),
    onError: read.optionalFunction('onError', given.onError),
    clock: readClock(given.clock, read),
    random: read.function('random', given.random, Math.random),
  }
}

/** How a source that asks again and again does it. */
export interface PaceOptions {
  /**
   * Up to this share of every pause is added to it at random, so that processes which started together do not ask together. From 0 to 1,
   * default 0.1.
   */
  readonly jitter?: number
  /** After a failure: `min` (default 1 s), doubled with each further one up to `max` (default 30 s). */
  readonly retry?: { readonly min?: Duration; readonly max?: Duration }
}

export interface Pace {
  readonly jitter: number
  readonly retryMin: number
  readonly retryMax: number
}

export const paceKeys: readonly string[] = ['jitter', 'retry']

export function readPace(given: PaceOptions, read: OptionReader): Pace {
  const at = read.at('retry')
  const retry = at.object<{ min?: Duration; max?: Duration }>(given.retry, ['min', 'max'])
  const retryMin = at.duration('min', retry.min, 1000, { min: 1 })
  return {
    jitter: read.number('jitter', given.jitter, 0.1, { min: 0, max: 1 }),
    retryMin,
    retryMax: at.duration('max', retry.max, Math.max(30_000, retryMin), { min: retryMin }),
  }
}

/** Real time. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (fn, ms) => setTimeout(fn, ms).unref(),
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
}

function readClock(value: unknown, read: OptionReader): Clock {
  if (value === undefined) return systemClock
  const clock = value as Partial<Clock> | null
  const usable = [clock?.now, clock?.setTimeout, clock?.clearTimeout].every((method) => typeof method === 'function')
  if (usable) return clock as Clock
  read.problem('clock', value, 'an object with now, setTimeout and clearTimeout')
  return systemClock
}
