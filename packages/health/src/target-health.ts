/**
 * What a row of probe results makes of one target. Pure: a result goes in, the next state comes out, and neither clock nor socket is near, so
 * that every sequence of results can be tried. Thresholds make it sluggish on purpose: one lost packet must not move traffic, and one lucky
 * answer of a server that is falling over must not bring traffic back.
 */
import type { ProbeResult } from './probe.ts'

export type TargetHealth =
  /** Nothing is known: not routable, and the first result decides alone. */
  | { readonly kind: 'pending' }
  /** `failures` in a row, fewer than `fall`. */
  | { readonly kind: 'up'; readonly failures: number; readonly degraded: boolean; readonly draining: boolean }
  /** `passes` in a row, fewer than `rise`; `error` is the last failure, undefined before the first one. */
  | { readonly kind: 'down'; readonly passes: number; readonly error: unknown }

export type ProbeEvent =
  | { readonly kind: 'passed'; readonly result: ProbeResult | undefined }
  | { readonly kind: 'failed'; readonly error: unknown }

export interface Thresholds {
  /** Passes in a row that bring a target up. */
  readonly rise: number
  /** Failures in a row that take it down. */
  readonly fall: number
}

export type InitialState = 'up' | 'down' | 'pending'

export function initialHealth(initial: InitialState): TargetHealth {
  switch (initial) {
    case 'up':
      return { kind: 'up', failures: 0, degraded: false, draining: false }
    case 'down':
      return { kind: 'down', passes: 0, error: undefined }
    case 'pending':
      return { kind: 'pending' }
  }
}

export function nextHealth(health: TargetHealth, event: ProbeEvent, { rise, fall }: Thresholds): TargetHealth {
  switch (health.kind) {
    case 'pending':
      return event.kind === 'passed' ? upAfter(event.result) : { kind: 'down', passes: 0, error: event.error }
    case 'up':
      if (event.kind === 'passed') return upAfter(event.result)
      if (health.failures + 1 >= fall) return { kind: 'down', passes: 0, error: event.error }
      return { ...health, failures: health.failures + 1 }
    case 'down':
      if (event.kind === 'failed') return { kind: 'down', passes: 0, error: event.error }
      if (health.passes + 1 >= rise) return upAfter(event.result)
      return { ...health, passes: health.passes + 1 }
  }
}

/** Between two states: worth asking again sooner. */
export function inTransition(health: TargetHealth): boolean {
  return (health.kind === 'up' && health.failures > 0) || (health.kind === 'down' && health.passes > 0)
}

function upAfter(result: ProbeResult | undefined): TargetHealth {
  return { kind: 'up', failures: 0, degraded: result?.degraded === true, draining: result?.draining === true }
}
