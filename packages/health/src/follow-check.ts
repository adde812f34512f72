/**
 * One check for several pools. An application with an API pool and an assets pool on the same servers would otherwise ask each server twice; the
 * follower asks nobody and repeats, for its own pool, what the leader says of the upstream with the same id.
 */
import type { HealthControl, HealthPolicy, Upstream } from '@weir/core'
import { applyVerdict, type OnDown, sameVerdict, unchecked, type Verdict } from './verdict.ts'

export interface Leader {
  start(): void
  verdicts(): readonly (readonly [id: string, verdict: Verdict])[]
  subscribe(follower: (id: string, verdict: Verdict) => void): () => void
}

export function followCheck(name: string, onDown: OnDown, leader: Leader): HealthPolicy {
  const verdicts = new Map<string, Verdict>()
  const own = new Map<string, Upstream>()
  let pool: HealthControl | undefined
  let unsubscribe: (() => void) | undefined

  const repeat = (id: string, verdict: Verdict): void => {
    const before = verdicts.get(id) ?? unchecked
    const upstream = own.get(id)
    if (upstream === undefined || pool === undefined || sameVerdict(before, verdict)) return
    verdicts.set(id, verdict)
    applyVerdict(pool, policy, upstream, before, verdict, onDown)
  }
  const catchUp = (): void => {
    for (const [id, verdict] of leader.verdicts()) repeat(id, verdict)
  }

  const policy: HealthPolicy = {
    name,
    attach(control) {
      pool = control
      for (const upstream of control.upstreams) own.set(upstream.id, upstream)
      unsubscribe = leader.subscribe(repeat)
      catchUp()
    },
    start: () => leader.start(),
    onUpstream({ upstream, from, to }) {
      if (to === undefined) {
        own.delete(upstream.id)
        verdicts.delete(upstream.id)
      } else if (from === undefined) {
        own.set(upstream.id, upstream)
        catchUp()
      }
    },
    close() {
      unsubscribe?.()
    },
  }
  return policy
}
