/**
 * Slow start: a server that has just joined or come back has cold caches, an empty connection pool and code that is not compiled yet. Its share
 * grows over a window instead of beginning in full: weight x max(floor, (t / window)^(1 / aggression)), Envoy's formula; with aggression 1 that is
 * a line, above 1 it rises fast at first, below 1 slowly.
 *
 * A ramp is relative. It makes sense only while somebody warm carries the rest, so there is none when a pool starts and everybody is new, nor
 * for the only one that can be used; and those that run end when the last warm one goes.
 */
import { type Duration, type HealthControl, type HealthPolicy, OptionReader, type Upstream } from '@weir/core'

export interface SlowStartOptions {
  /** How long until the whole weight is there. Default 30 s. */
  readonly window?: Duration
  /** Shape: 1 is a line, 2 a square root (fast at first), 0.5 a square (slow at first). Default 1. */
  readonly aggression?: number
  /** The share to begin with, above 0 up to 1. Default 0.1. */
  readonly floor?: number
  /** In how many steps: each has the balancer build its tables anew. Default 20. */
  readonly steps?: number
  /** For events. Default `slowStart`. */
  readonly name?: string
}

type Warmth =
  /** Not up: nothing to ramp. */
  | { readonly kind: 'away' }
  | { readonly kind: 'warm' }
  /** Up and in full use, since nobody warm was there to carry the rest; warm after a window. */
  | { readonly kind: 'warming'; readonly timer: unknown }
  | { readonly kind: 'ramping'; readonly step: number; readonly timer: unknown }

/** @throws OptionsError */
export function slowStart(options?: SlowStartOptions): HealthPolicy {
  const read = new OptionReader('slowStart')
  const given = read.object<SlowStartOptions>(options, ['window', 'aggression', 'floor', 'steps', 'name'])
  const window = read.duration('window', given.window, 30_000, { min: 1 })
  const aggression = read.number('aggression', given.aggression, 1, { min: 0.01, max: 100 })
  const floor = read.number('floor', given.floor, 0.1, { min: 0.001, max: 1 })
  const steps = read.number('steps', given.steps, 20, { min: 1, max: 1000, integer: true })
  const name = read.name('name', given.name, 'slowStart')
  read.check()

  const known = new Map<Upstream, Warmth>()
  let pool: HealthControl | undefined
  let closed = false

  const factorAt = (step: number): number => Math.max(floor, (step / steps) ** (1 / aggression))

  const carries = (other: Upstream, upstream: Upstream): boolean =>
    other !== upstream && other.state === 'up' && other.configuredWeight > 0 && other.priority === upstream.priority && !other.degraded

  const hasWarmPeer = (upstream: Upstream): boolean => {
    for (const [other, warmth] of known) if (warmth.kind === 'warm' && carries(other, upstream)) return true
    return false
  }

  const stop = (warmth: Warmth | undefined): void => {
    if (warmth?.kind === 'ramping' || warmth?.kind === 'warming') pool?.clock.clearTimeout(warmth.timer)
  }

  const warm = (upstream: Upstream): void => {
    stop(known.get(upstream))
    known.set(upstream, { kind: 'warm' })
    pool?.setWeightFactor(upstream, policy, 1)
  }

  const ramp = (upstream: Upstream, step: number, control: HealthControl): void => {
    if (step >= steps || !hasWarmPeer(upstream)) {
      warm(upstream)
      return
    }
    const timer = control.clock.setTimeout(() => ramp(upstream, step + 1, control), window / steps)
    known.set(upstream, { kind: 'ramping', step, timer })
    control.setWeightFactor(upstream, policy, factorAt(step))
  }

  const arrive = (upstream: Upstream, control: HealthControl): void => {
    if (hasWarmPeer(upstream)) ramp(upstream, 0, control)
    else known.set(upstream, { kind: 'warming', timer: control.clock.setTimeout(() => warm(upstream), window) })
  }

  const depart = (upstream: Upstream): void => {
    const before = known.get(upstream)
    stop(before)
    known.set(upstream, { kind: 'away' })
    if (before?.kind === 'ramping') pool?.setWeightFactor(upstream, policy, 1)
    settle()
  }

  /** Those who ramped against one that is gone now may have nobody left to do so against; then all of them end, not all but one. */
  const settle = (): void => {
    const alone = [...known].filter(([upstream, warmth]) => warmth.kind === 'ramping' && !hasWarmPeer(upstream))
    for (const [upstream] of alone) warm(upstream)
  }

  const policy: HealthPolicy = {
    name,
    attach(control) {
      pool = control
      for (const upstream of control.upstreams) known.set(upstream, upstream.state === 'up' ? { kind: 'warm' } : { kind: 'away' })
    },
    onUpstream({ upstream, from, to }) {
      if (pool === undefined || closed) return
      if (to === undefined) {
        depart(upstream)
        known.delete(upstream)
        return
      }
      // Not `to`: another policy may have taken it down since it joined.
      switch (upstream.state) {
        case 'up':
          // Back from draining it is as warm as it was: only new clients stayed away.
          if (from !== 'draining' || known.get(upstream)?.kind === 'away') arrive(upstream, pool)
          return
        case 'down':
          depart(upstream)
          return
        case 'draining':
          if (!known.has(upstream)) known.set(upstream, { kind: 'away' })
          settle()
          return
      }
    },
    close() {
      closed = true
      for (const warmth of known.values()) stop(warmth)
      known.clear()
    },
  }
  return policy
}
