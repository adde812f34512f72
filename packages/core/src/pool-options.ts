/** Options of a pool, and what they are read into. */
import type { Balancer } from './balancer.ts'
import type { Clock } from './clock.ts'
import { failureMemory } from './failure-memory.ts'
import type { HealthPolicy } from './health.ts'
import { type Duration, OptionReader } from './options.ts'
import type { UpstreamSource } from './pool-source.ts'
import { roundRobin } from './round-robin.ts'
import type { AddressCheck } from './transport/address-check.ts'
import type { UpstreamTlsOptions } from './transport/tls.ts'
import type { Transport } from './transport/transport.ts'
import { undiciTransport } from './transport/undici.ts'
import type { UpstreamInput, UpstreamState } from './upstream.ts'

export interface PoolOptions {
  /** For events and logs. Default `pool`. */
  readonly name?: string
  /**
   * The ones that are there at the start (an empty list is allowed and answers 503 until somebody is added), or a source that goes on giving whole
   * lists: any `AsyncIterable`, such as those of `@weir/discovery`.
   */
  readonly upstreams: readonly UpstreamInput[] | UpstreamSource
  /** Default: smooth weighted round robin. An instance belongs to one pool. */
  readonly balancer?: Balancer
  /** Health policies, in any order. Default `[failureMemory()]`; `[]` switches all of it off. */
  readonly health?: readonly HealthPolicy[]
  /** Most exchanges at once per upstream. Default: no limit. */
  readonly maxConcurrent?: number
  /** Who waits when every upstream is at its cap: at most `limit` (default 1,000) for at most `timeout` (default 5 s). `false`: 503 at once. */
  readonly queue?: { readonly limit?: number; readonly timeout?: Duration } | false
  /** How requests travel. Default `undiciTransport({ tls })`. A transport given here is closed by whoever made it. */
  readonly transport?: Transport
  /** TLS towards the upstreams, for the default transport. */
  readonly tls?: UpstreamTlsOptions
  /**
   * May the default transport connect to this address? Asked with the address itself when an upstream's URL holds one, and with every address that its
   * name resolves to, at the moment of connecting: what a name pointed to when it was checked earlier is not what it points to now. Default: all.
   */
  readonly allowAddress?: AddressCheck
  /** For tests. */
  readonly clock?: Clock
  /** For tests. Default `Math.random`. */
  readonly random?: () => number
}

export interface LeaveOptions {
  /** How long exchanges in flight and tunnels may go on; after that they are cut. Default: as long as they need. */
  readonly deadline?: Duration
}

export interface PoolStats {
  readonly name: string
  readonly waiting: number
  /** Upstreams that are down are used all the same, because too few are up. */
  readonly failOpen: boolean
  /** Picks made in that state since the pool was created: traffic that nobody vouched for. */
  readonly failOpenPicks: number
  readonly upstreams: readonly {
    readonly id: string
    readonly state: UpstreamState
    readonly weight: number
    readonly inflight: number
    readonly latencyMs: number
  }[]
}

export interface PoolHealthReport {
  readonly name: string
  /** Upstreams that are down are used all the same, because too few are up. */
  readonly failOpen: boolean
  readonly upstreams: readonly {
    readonly id: string
    readonly state: UpstreamState
    readonly degraded: boolean
    /** The effective weight. */
    readonly weight: number
    readonly inflight: number
    /** Why it is in this state; undefined when it never left its first. */
    readonly reason: string | undefined
    /** Since when, milliseconds of the epoch. */
    readonly since: number
    /** What made a policy say "down", while it is. */
    readonly error: unknown
  }[]
}

export const poolKeys: readonly string[] = [
  'name',
  'upstreams',
  'balancer',
  'health',
  'maxConcurrent',
  'queue',
  'transport',
  'tls',
  'allowAddress',
  'clock',
  'random',
]

/** Every balancer that has a pool. */
export const ownedBalancers: WeakSet<Balancer> = new WeakSet<Balancer>()

/** Milliseconds, -1 for none. @throws OptionsError */
export function readLeave(factory: string, options: LeaveOptions | undefined): number {
  const read = new OptionReader(factory)
  const deadline = read.duration('deadline', read.object<LeaveOptions>(options, ['deadline']).deadline, -1)
  read.check()
  return deadline
}

export function readBalancer(value: unknown, read: OptionReader): Balancer {
  if (value === undefined) return roundRobin()
  const balancer = value as Partial<Balancer> | null
  if (typeof balancer !== 'object' || typeof balancer?.update !== 'function' || typeof balancer.pick !== 'function') {
    read.problem('balancer', value, 'a strategy such as roundRobin() (mind the call), or an object with name, update and pick')
    return roundRobin()
  }
  if (ownedBalancers.has(balancer as Balancer))
    read.problem('balancer', balancer.name, 'a balancer of its own for every pool: it keeps state about one membership')
  return balancer as Balancer
}

export function readHealth(value: unknown, read: OptionReader): readonly HealthPolicy[] {
  if (value === undefined) return [failureMemory()]
  if (!Array.isArray(value) || !value.every((policy) => typeof policy?.attach === 'function')) {
    read.problem('health', value, 'a list of health policies such as [failureMemory({ failures: 5 })], or []')
    return []
  }
  return value
}

export function readTransport(given: Partial<PoolOptions>, read: OptionReader): Transport {
  if (given.transport !== undefined) {
    if (typeof given.transport?.send === 'function') return given.transport
    read.problem('transport', given.transport, 'a transport such as undiciTransport() or httpProxyTransport()')
  }
  try {
    return undiciTransport({
      ...(given.tls === undefined ? null : { tls: given.tls }),
      ...(given.allowAddress === undefined ? null : { allowAddress: given.allowAddress }),
    })
  } catch (error) {
    read.absorb(error)
    return undiciTransport()
  }
}
