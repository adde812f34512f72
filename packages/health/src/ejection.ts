/**
 * How long an outlier stays out: each time longer than the time before, up to a cap, and forgotten again at the pace of one step per quiet
 * interval. Pure; after Envoy's outlier detection.
 */

export type Ejection =
  | { readonly kind: 'admitted'; readonly times: number; readonly since: number }
  | { readonly kind: 'ejected'; readonly times: number; readonly until: number }

export interface EjectionTimes {
  readonly base: number
  readonly max: number
  /** A quiet one takes a step back. */
  readonly interval: number
}

export type EjectionEvent = { readonly kind: 'eject'; readonly now: number } | { readonly kind: 'time'; readonly now: number }

export function newcomer(now: number): Ejection {
  return { kind: 'admitted', times: 0, since: now }
}

export function nextEjection(state: Ejection, event: EjectionEvent, { base, max, interval }: EjectionTimes): Ejection {
  switch (state.kind) {
    case 'admitted': {
      const { times, since } = state
      if (event.kind === 'eject') {
        // No further than the cap needs: a long bad day must not take as long to be forgotten.
        const next = Math.min(times + 1, Math.ceil(max / base))
        return { kind: 'ejected', times: next, until: event.now + Math.min(base * next, max) }
      }
      return times > 0 && event.now - since >= interval ? { kind: 'admitted', times: times - 1, since: event.now } : state
    }
    case 'ejected':
      if (event.kind === 'eject' || event.now < state.until) return state
      return { kind: 'admitted', times: state.times, since: event.now }
  }
}
