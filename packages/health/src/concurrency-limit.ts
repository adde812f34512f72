/**
 * Hard caps: so much at once, and not one more. A pool's `maxConcurrent` and queue make exchanges wait for an upstream; these refuse at once
 * (`ERR_OVERLOADED`, 503), since beyond some number waiting only turns an overload into timeouts. Retries have a cap of their own: they are load
 * that the proxy makes itself, and most of it when there is too much already.
 */
import { type Exchange, type HealthControl, type HealthPolicy, OptionReader, ProxyError, type Upstream } from '@weir/core'

export interface ConcurrencyLimitOptions {
  /** Most attempts in flight in the pool, tunnels included. Default: no limit. */
  readonly requests?: number
  /** Refuses while so many exchanges wait for an upstream. Default: no limit but the pool's `queue.limit`. */
  readonly waiting?: number
  /** Most retries (and hedges) in flight in the pool. Default: no limit. */
  readonly retries?: number
  /** Most attempts in flight per upstream; who finds all of them full waits in the pool's queue. Default: no limit. */
  readonly perUpstream?: number
  /** For events. Default `concurrencyLimit`. */
  readonly name?: string
}

/** @throws OptionsError */
export function concurrencyLimit(options: ConcurrencyLimitOptions): HealthPolicy {
  const read = new OptionReader('concurrencyLimit')
  const given = read.object<ConcurrencyLimitOptions>(options, ['requests', 'waiting', 'retries', 'perUpstream', 'name'])
  const none = Number.POSITIVE_INFINITY
  const requests = read.number('requests', given.requests, none, { min: 1 })
  const waiting = read.number('waiting', given.waiting, none, { min: 1 })
  const retries = read.number('retries', given.retries, none, { min: 0 })
  const perUpstream = read.number('perUpstream', given.perUpstream, none, { min: 1 })
  const name = read.name('name', given.name, 'concurrencyLimit')
  if (Math.min(requests, waiting, retries, perUpstream) === none)
    read.problem('', given, 'at least one limit: requests, waiting, retries, perUpstream')
  read.check()

  let pool: HealthControl | undefined
  let retrying = 0
  // `tried` says who was tried, not whether: it begins anew once everybody was. Kept for those with a cap on retries only.
  const seen = new WeakSet<Exchange>()

  const limit = (upstream: Upstream): void => {
    if (perUpstream !== none) pool?.setLimit(upstream, policy, perUpstream)
  }

  const policy: HealthPolicy = {
    name,
    attach(control) {
      pool = control
      for (const upstream of control.upstreams) limit(upstream)
    },
    onUpstream({ upstream, from }) {
      if (from === undefined) limit(upstream)
    },
    admit(exchange) {
      if (pool === undefined) return undefined
      if (pool.inflight >= requests || pool.waiting >= waiting) return new ProxyError('ERR_OVERLOADED')
      return retrying >= retries && seen.has(exchange) ? new ProxyError('ERR_OVERLOADED') : undefined
    },
    ...(retries === none
      ? null
      : {
          onAcquire(_upstream: Upstream, exchange: Exchange) {
            if (seen.has(exchange)) retrying++
            else seen.add(exchange)
          },
          onAttempt({ number }) {
            if (number > 1) retrying--
          },
        }),
  }
  return policy
}
