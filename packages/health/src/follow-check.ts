/**
 * One check for several pools. An application with an API pool and an assets pool on the same servers would otherwise ask each server twice; the
 * follower asks nobody and repeats, for its own pool, what the leader says of the upstream with the same id.
 *
 * The follower is told whose verdict may have changed and looks it up, so that it cannot hold one that the leader has taken back.
 */
import type { HealthControl, HealthPolicy, MaybePromise, Upstream } from '@weir/core'
import { applyVerdict, type OnDown, sameVerdict, unchecked, type Verdict } from './verdict.ts'

export interface Leader {
  /** Idempotent; the promise is over when something is known. */
  start(): MaybePromise<void>
  /** What the check says now; `unchecked` of whom it does not know. */
  verdict(id: string): Verdict
  subscribe(follower: (id: string) => void): () => void
}

export function followCheck(name: string, onDown: OnDown, leader: Leader): HealthPolicy {
  const own = new Map<string, { readonly upstream: Upstream; verdict: Verdict }>()
  let pool: HealthControl | undefined
  let unsubscribe: (() => void) | undefined

  const repeat = (id: string): void => {
    const member = own.get(id)
    if (member === undefined || pool === undefined) return
    const before = member.verdict
    const verdict = leader.verdict(id)
    if (sameVerdict(before, verdict)) return
    member.verdict = verdict
    applyVerdict(pool, policy, member.upstream, before, verdict, onDown)
  }
  const join = (upstream: Upstream): void => {
    own.set(upstream.id, { upstream, verdict: unchecked })
    repeat(upstream.id)
  }

  const policy: HealthPolicy = {
    name,
    attach(control) {
      pool = control
      for (const upstream of control.upstreams) join(upstream)
      unsubscribe = leader.subscribe(repeat)
    },
    start: () => leader.start(),
    onUpstream({ upstream, from, to }) {
      if (to === undefined) own.delete(upstream.id)
      else if (from === undefined) join(upstream)
    },
    close() {
      unsubscribe?.()
    },
  }
  return policy
}
