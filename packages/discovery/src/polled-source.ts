/**
 * Asking again and again: at once, then after as long as the answer is good for, and after a failure with pauses that grow. Waiting times get
 * some chance added, never taken away: twenty processes that were started together must not ask together for ever, and none may ask before
 * the time that a TTL names.
 *
 * One question at a time: the next is timed from the end of the one before, so a slow server is asked less, not more.
 */
import type { UpstreamSource } from '@weir/core'
import { DiscoveryError } from './discovery-error.ts'
import { tellFailed } from './events.ts'
import { type List, listSource } from './list-source.ts'
import type { SourceSettings } from './source-options.ts'

export interface Answer {
  /** Undefined: as before. */
  readonly list: List | undefined
  /** Milliseconds that it is good for. */
  readonly goodFor: number
  /** A part of it could not be had; it is asked for again as after a failure, when that is sooner. */
  readonly errors?: readonly DiscoveryError[]
}

/** Asks once; rejects with a `DiscoveryError`. Nobody is interested any more once `signal` has aborted. */
export type Ask = (signal: AbortSignal) => Promise<Answer>

/** @param open makes what asks, for each reader its own: it may remember */
export function polledSource(settings: SourceSettings, open: () => Ask, failedAfter?: (error: DiscoveryError) => number): UpstreamSource {
  const { name, clock, onError } = settings
  return listSource(name, (feed) => {
    const ask = open()
    const controller = new AbortController()
    let timer: unknown
    let failures = 0
    const round = async (): Promise<void> => {
      let wait: number
      try {
        const { list, goodFor, errors = [] } = await ask(controller.signal)
        if (controller.signal.aborted) return
        failures = errors.length > 0 ? failures + 1 : 0
        wait = errors.length > 0 ? Math.min(goodFor, pause(settings, failures)) : goodFor
        if (list !== undefined) feed.put(list)
        for (const error of errors) tellFailed(error, onError)
      } catch (thrown) {
        if (controller.signal.aborted) return
        const error = DiscoveryError.is(thrown)
          ? thrown
          : new DiscoveryError('ERR_DISCOVERY_SOURCE', name, String(thrown), { cause: thrown })
        failures++
        wait = Math.max(pause(settings, failures), failedAfter?.(error) ?? 0)
        feed.missing()
        tellFailed(error, onError)
      }
      // Whoever was told may have closed the pool.
      if (!controller.signal.aborted) timer = clock.setTimeout(() => void round(), jittered(settings, wait))
    }
    void round()
    return () => {
      controller.abort()
      clock.clearTimeout(timer)
    }
  })
}

/** Doubles from failure to failure, up to a limit. */
function pause({ backoff }: SourceSettings, failures: number): number {
  return Math.min(backoff.max, backoff.base * 2 ** Math.min(failures - 1, 30))
}

export function jittered({ jitter, random }: { readonly jitter: number; readonly random: () => number }, ms: number): number {
  return ms * (1 + jitter * random())
}
