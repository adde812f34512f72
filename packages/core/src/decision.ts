/**
 * Why a request went where it went. One record per pick on the channel `weir:decision`: everybody who was there, who was left out and for what
 * reason, and who was chosen. It is plain data (but for `exchange`), so that it can be kept, and played again with another strategy:
 * `replayDecisions` of `@weir/testing`. Nobody listening costs one property read per pick.
 */
import type { Balancer } from './balancer.ts'
import { decisions } from './events.ts'
import type { Exchange } from './exchange.ts'
import type { LiveExchange } from './exchange-live.ts'
import type { PoolUpstream, Upstream, UpstreamState } from './upstream.ts'

/**
 * Why somebody could not be picked: `weight` is 0; `down` or `draining`; a better `tier` is in use; `degraded` while others are not; `tried` by this
 * exchange before; `full`: at its concurrency cap.
 */
export type Exclusion = 'weight' | 'down' | 'draining' | 'tier' | 'degraded' | 'tried' | 'full'

/** Who chose: the exchange's affinity, the strategy, or a retry with nobody else left; `none` when there was nobody to choose. */
export type ChoiceBy = 'affinity' | 'balancer' | 'last-resort' | 'none'

export interface Candidate {
  readonly id: string
  readonly url: string
  readonly weight: number
  readonly priority: number
  readonly state: UpstreamState
  /** Before this pick. */
  readonly inflight: number
  readonly maxConcurrent: number
  readonly latencyMs: number
  readonly meta: Readonly<Record<string, unknown>>
  /** Undefined: it could have been picked. */
  readonly excluded: Exclusion | undefined
  /** What the strategy says of it: why it did not come into question (another subset, arm or zone, not drawn, above its bound), or what was compared. */
  readonly note: string | undefined
  /** What a health policy or the application gave as the reason of its state. */
  readonly reason: string | undefined
}

export interface Decision {
  readonly pool: string
  readonly balancer: string
  /** Milliseconds of the clock that `startedAt` uses. */
  readonly at: number
  /** 1 for the first try. */
  readonly attempt: number
  readonly request: {
    readonly method: string
    readonly url: string
    readonly clientIp: string
    readonly hashKey: string | undefined
    readonly affinity: string | undefined
    /** The flat field list of the request, cookies and credentials included: think before it is written anywhere. */
    readonly headers: readonly string[]
  }
  readonly candidates: readonly Candidate[]
  /** Id of the upstream. */
  readonly chosen: string | undefined
  readonly by: ChoiceBy
  /** The live exchange; not part of the record when it is written as JSON. */
  readonly exchange: Exchange
}

/** Publishes the decision. Call before the upstream is taken. */
export function recordDecision(
  pool: string,
  balancer: Balancer,
  members: readonly PoolUpstream[],
  usable: readonly PoolUpstream[],
  inUse: readonly PoolUpstream[],
  exchange: Exchange,
  chosen: Upstream | undefined,
  by: ChoiceBy,
): void {
  const { method, url, clientIp, hashKey, affinity, headers, tried } = exchange
  const asked = by === 'balancer'
  const record = {
    pool,
    balancer: balancer.name,
    at: performance.now(),
    // What was tried is forgotten when everybody has been.
    attempt: ((exchange as Partial<LiveExchange>).tries ?? tried.length) + 1,
    request: { method, url, clientIp, hashKey, affinity, headers: headers.raw },
    candidates: members.map((member): Candidate => {
      const { id, weight, priority, state, inflight, maxConcurrent, latencyMs, meta, reason } = member
      const excluded = exclusionOf(member, usable, inUse, exchange)
      return {
        id,
        url: member.url.href,
        weight,
        priority,
        state,
        inflight,
        maxConcurrent,
        latencyMs,
        meta,
        excluded,
        note: excluded === undefined && asked ? noteOf(balancer, member, exchange) : undefined,
        reason,
      }
    }),
    chosen: chosen?.id,
    by: chosen === undefined ? 'none' : by,
  } satisfies Omit<Decision, 'exchange'>
  Object.defineProperty(record, 'exchange', { value: exchange })
  decisions.publish(record)
}

/** It is for a person who looks; what goes wrong in it is not for the exchange to suffer from. */
function noteOf(balancer: Balancer, upstream: Upstream, exchange: Exchange): string | undefined {
  try {
    return balancer.explain?.(upstream, exchange)
  } catch (cause) {
    return `${balancer.name} could not explain it: ${cause instanceof Error ? cause.message : String(cause)}`
  }
}

function exclusionOf(
  member: PoolUpstream,
  usable: readonly PoolUpstream[],
  inUse: readonly PoolUpstream[],
  exchange: Exchange,
): Exclusion | undefined {
  if (member.weight === 0) return 'weight'
  if (!inUse.includes(member)) {
    if (member.state !== 'up' && !usable.includes(member)) return member.state
    return member.degraded ? 'degraded' : 'tier'
  }
  if (exchange.tried.includes(member)) return 'tried'
  return member.full ? 'full' : undefined
}
