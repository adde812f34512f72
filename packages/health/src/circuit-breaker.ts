/**
 * Circuit breaking: when most of what is tried fails, trying less helps both sides; the server gets room to recover, and clients an answer now
 * instead of a timeout later. For the pool that is a 503 at once (`ERR_CIRCUIT_OPEN`); for an upstream it is being left out until a few trials
 * have passed, and then growing back. Unlike outlier detection it does not compare: it knows limits, and also acts when everybody is bad.
 */
import { channel } from 'node:diagnostics_channel'
import { type HealthControl, type HealthPolicy, ProxyError, type Upstream } from '@weir/core'
import { Breaker, type BreakerEffects } from './breaker.ts'
import { type BreakerSettings, type CircuitBreakerOptions, readBreakerOptions } from './breaker-options.ts'
import type { Circuit } from './circuit.ts'

/** On `weir:health:breaker`, for every change of state. */
export interface BreakerMessage {
  readonly pool: string
  readonly policy: string
  /** Undefined: the pool's circuit. */
  readonly upstream: Upstream | undefined
  readonly from: Circuit['kind']
  readonly to: Circuit['kind']
  readonly reason: string
  readonly error: unknown
  readonly dryRun: boolean
}

const changed = channel('weir:health:breaker')

/** An upstream's weight grows back in so many steps: each one has the balancer build its tables anew. */
const steps = 10

/** @throws OptionsError */
export function circuitBreaker(options?: CircuitBreakerOptions): HealthPolicy {
  const settings = readBreakerOptions(options)
  return settings.scope === 'pool' ? poolBreaker(settings) : upstreamBreaker(settings)
}

function publish(
  control: HealthControl,
  { name: policy, dryRun }: BreakerSettings,
  upstream: Upstream | undefined,
  from: Circuit,
  to: Circuit,
  reason: string,
  error: unknown,
): void {
  if (!changed.hasSubscribers) return
  changed.publish({ pool: control.name, policy, upstream, from: from.kind, to: to.kind, reason, error, dryRun } satisfies BreakerMessage)
}

function poolBreaker(settings: BreakerSettings): HealthPolicy {
  let breaker: Breaker | undefined
  let random = settings.random ?? Math.random
  return {
    name: settings.name,
    attach(control) {
      random = settings.random ?? control.random
      breaker = new Breaker(settings, control.clock, {
        enter(from, to, reason, error) {
          publish(control, settings, undefined, from, to, reason, error)
          return true
        },
      })
    },
    admit() {
      if (breaker === undefined || settings.dryRun) return undefined
      switch (breaker.circuit.kind) {
        case 'closed':
          return undefined
        case 'open':
          return new ProxyError('ERR_CIRCUIT_OPEN')
        case 'half-open':
          return breaker.hasRoom ? undefined : new ProxyError('ERR_CIRCUIT_OPEN')
        case 'recovering':
          return random() < breaker.share ? undefined : new ProxyError('ERR_CIRCUIT_OPEN')
      }
    },
    onAcquire: () => breaker?.begun(),
    onHead: (_upstream, _status, _headers, attempt) => breaker?.head(attempt),
    onAttempt: (outcome) => breaker?.ended(outcome),
    close: () => breaker?.close(),
  }
}

function upstreamBreaker(settings: BreakerSettings): HealthPolicy {
  const breakers = new Map<Upstream, Breaker>()
  const ramps = new Map<Upstream, unknown>()
  let pool: HealthControl | undefined
  let closed = false

  const ramp = (upstream: Upstream, step: number, control: HealthControl): void => {
    control.setWeightFactor(upstream, policy, Math.max(0.1, step / steps))
    if (step < steps)
      ramps.set(
        upstream,
        control.clock.setTimeout(() => ramp(upstream, step + 1, control), settings.recovery / steps),
      )
    else ramps.delete(upstream)
  }

  const stopRamp = (upstream: Upstream, control: HealthControl): void => {
    control.clock.clearTimeout(ramps.get(upstream))
    ramps.delete(upstream)
  }

  const effects = (upstream: Upstream, control: HealthControl): BreakerEffects => ({
    enter(from, to, reason, error) {
      const accepted = settings.dryRun || act(upstream, control, to, reason, error)
      publish(
        control,
        settings,
        upstream,
        from,
        accepted ? to : { kind: 'closed' },
        accepted ? reason : `${reason}, but it is the last one`,
        error,
      )
      return accepted
    },
  })

  const act = (upstream: Upstream, control: HealthControl, to: Circuit, reason: string, error: unknown): boolean => {
    stopRamp(upstream, control)
    switch (to.kind) {
      case 'open': {
        const accepted = control.setDown(upstream, policy, `circuit open: ${reason}`, { keepLast: true, error })
        control.setLimit(upstream, policy, Number.POSITIVE_INFINITY)
        control.setWeightFactor(upstream, policy, 1)
        return accepted
      }
      case 'half-open':
        // First what keeps it small, then up.
        keepLimit(upstream)
        control.setWeightFactor(upstream, policy, 0.1)
        control.setUp(upstream, policy, 'circuit half-open')
        return true
      case 'recovering':
        control.setLimit(upstream, policy, Number.POSITIVE_INFINITY)
        ramp(upstream, 0, control)
        return true
      case 'closed':
        control.setLimit(upstream, policy, Number.POSITIVE_INFINITY)
        control.setWeightFactor(upstream, policy, 1)
        return true
    }
  }

  /** Old exchanges end, and trials are judged, while it is half-open. */
  const keepLimit = (upstream: Upstream): void => {
    const breaker = breakers.get(upstream)
    if (breaker?.circuit.kind === 'half-open' && !settings.dryRun && !closed) pool?.setLimit(upstream, policy, Math.max(1, breaker.limit))
  }

  const join = (upstream: Upstream, control: HealthControl): void =>
    void breakers.set(upstream, new Breaker(settings, control.clock, effects(upstream, control)))

  const policy: HealthPolicy = {
    name: settings.name,
    attach(control) {
      pool = control
      for (const upstream of control.upstreams) join(upstream, control)
    },
    onUpstream({ upstream, from, to }) {
      if (pool === undefined || closed) return
      if (from === undefined) join(upstream, pool)
      else if (to === undefined) {
        breakers.get(upstream)?.close()
        breakers.delete(upstream)
        stopRamp(upstream, pool)
      }
    },
    onAcquire: (upstream) => breakers.get(upstream)?.begun(),
    onHead(upstream, _status, _headers, attempt) {
      breakers.get(upstream)?.head(attempt)
      keepLimit(upstream)
    },
    onAttempt(outcome) {
      breakers.get(outcome.upstream)?.ended(outcome)
      keepLimit(outcome.upstream)
    },
    close() {
      closed = true
      for (const breaker of breakers.values()) breaker.close()
      for (const timer of ramps.values()) pool?.clock.clearTimeout(timer)
      breakers.clear()
      ramps.clear()
    },
  }
  return policy
}
