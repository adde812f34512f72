/** What an active check says of one upstream, and how a pool is told: all of it through `HealthControl`, and only what has changed. */
import type { HealthControl, HealthPolicy, Upstream } from '@weir/core'
import { reasonOf } from './probe.ts'
import type { TargetHealth } from './target-health.ts'

interface Up {
  readonly kind: 'up'
  readonly degraded: boolean
  readonly draining: boolean
}

export type Verdict = Up | { readonly kind: 'down'; readonly reason: string; readonly error: unknown }

export type OnDown = 'keep' | 'tunnels' | 'all'

/** What counts where nobody asks, or has asked yet. */
export const unchecked: Up = { kind: 'up', degraded: false, draining: false }

export function verdictOf(health: TargetHealth): Verdict {
  switch (health.kind) {
    case 'pending':
      return { kind: 'down', reason: 'waits for its first health check', error: undefined }
    case 'up':
      return health
    case 'down':
      if (health.error === undefined) return { kind: 'down', reason: 'waits for its health checks to pass', error: undefined }
      return { kind: 'down', reason: `health check failed: ${reasonOf(health.error)}`, error: health.error }
  }
}

export function sameVerdict(a: Verdict, b: Verdict): boolean {
  if (a.kind === 'down') return b.kind === 'down' && a.reason === b.reason
  return b.kind === 'up' && a.degraded === b.degraded && a.draining === b.draining
}

export function applyVerdict(
  pool: HealthControl,
  policy: HealthPolicy,
  upstream: Upstream,
  before: Verdict,
  verdict: Verdict,
  onDown: OnDown,
): void {
  const was = before.kind === 'up' ? before : unchecked
  if (verdict.kind === 'down') {
    // What runs is cut once, when it goes down, not again with each new reason.
    const cut = before.kind === 'up' && onDown !== 'keep' ? { cut: onDown } : {}
    pool.setDown(upstream, policy, verdict.reason, { error: verdict.error, ...cut })
    if (was.degraded) pool.setDegraded(upstream, policy, false, verdict.reason)
    if (was.draining) pool.setDraining(upstream, policy, false, verdict.reason)
    return
  }
  // First what holds traffic back, then up: nothing may slip in between.
  if (verdict.draining !== was.draining) pool.setDraining(upstream, policy, verdict.draining, said('draining', verdict.draining))
  if (verdict.degraded !== was.degraded) pool.setDegraded(upstream, policy, verdict.degraded, said('degraded', verdict.degraded))
  if (before.kind === 'down') pool.setUp(upstream, policy, verdict === unchecked ? 'not checked' : 'health check passed')
}

const said = (what: string, now: boolean): string => `health check says ${what}${now ? '' : ' no more'}`
