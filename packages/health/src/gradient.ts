/**
 * How many requests at once a server works best with, found by watching response times (after Envoy's adaptive concurrency filter, which is after
 * Netflix's gradient limits). Up to some number at once, more in flight means more done per second at the same time each; beyond it, more
 * in flight only means a longer queue inside the server. So: learn the time of an unloaded server, then keep the number where times are
 * not much above it.
 *
 *   gradient = (best + tolerance) / now        limit = limit x gradient + headroom, headroom = sqrt(limit)
 *
 * The best time is measured anew every so often with few at a time, since a limit that is always in use would slowly take its own queue for
 * normal. Pure but for the histogram, which belongs to the current stretch of time.
 */
import type { LatencyHistogram } from './latency-histogram.ts'

export interface GradientSettings {
  readonly minLimit: number
  readonly maxLimit: number
  /** The limit while the best time is measured. */
  readonly measureLimit: number
  /** Samples that make a measurement. */
  readonly measureSamples: number
  /** From the end of one measurement to the next, milliseconds. */
  readonly measureEvery: number
  /** Milliseconds over which samples are gathered for one step. */
  readonly step: number
  /** Fewer samples than this in a step change nothing. */
  readonly minSamples: number
  readonly quantile: number
  /** Share by which times may be above the best. */
  readonly tolerance: number
}

export type Gradient =
  /** `limit` is what it goes on with afterwards. */
  | { readonly kind: 'measuring'; readonly limit: number; readonly since: number }
  | { readonly kind: 'adjusting'; readonly limit: number; readonly best: number; readonly measureAt: number; readonly stepAt: number }

export function firstGradient(now: number, limit: number): Gradient {
  return { kind: 'measuring', limit, since: now }
}

export function limitOf(gradient: Gradient, { measureLimit }: GradientSettings): number {
  return gradient.kind === 'measuring' ? Math.min(measureLimit, Math.floor(gradient.limit)) : Math.floor(gradient.limit)
}

/** Does a request that began then belong to the current stretch? One sent before the limit came down for a measurement has still waited in the queue. */
export function takesSample(state: Gradient, startedAt: number): boolean {
  return state.kind === 'adjusting' || startedAt >= state.since
}

/**
 * The step at `now`, with the samples of the stretch that ends; empties the histogram when a new one begins.
 *
 * @param jitter from 0 to 1, puts the measurements of several proxies apart
 */
export function nextGradient(
  state: Gradient,
  now: number,
  jitter: number,
  histogram: LatencyHistogram,
  settings: GradientSettings,
): Gradient {
  switch (state.kind) {
    case 'measuring': {
      if (histogram.total < settings.measureSamples) return state
      const best = histogram.quantile(settings.quantile)
      histogram.reset()
      const measureAt = now + settings.measureEvery * (1 + 0.15 * jitter)
      return { kind: 'adjusting', limit: state.limit, best, measureAt, stepAt: now + settings.step }
    }
    case 'adjusting': {
      if (now >= state.measureAt) {
        histogram.reset()
        return { kind: 'measuring', limit: state.limit, since: now }
      }
      if (now < state.stepAt) return state
      const stepAt = now + settings.step
      if (histogram.total < settings.minSamples) return { ...state, stepAt }
      const limit = adjusted(state.limit, state.best, histogram.quantile(settings.quantile), settings)
      histogram.reset()
      return { ...state, limit, stepAt }
    }
  }
}

function adjusted(limit: number, best: number, now: number, { tolerance, minLimit, maxLimit }: GradientSettings): number {
  // Bounded, so that one odd step neither halves the limit twice over nor more than doubles it.
  const gradient = Math.min(2, Math.max(0.5, (best * (1 + tolerance)) / now))
  const next = limit * gradient
  return Math.min(maxLimit, Math.max(minLimit, next + Math.sqrt(next)))
}
