/**
 * The proxy's own readiness, for the balancer in front of it: ready while it takes work and enough of its upstreams can do it. A proxy that drains
 * says so first and closes later, so that whoever sends to it can stop in time. This is readiness, not liveness: restarting a proxy because
 * its upstreams are down helps nobody.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { OptionReader, type ReverseProxy } from '@weir/core'

export interface ReadyOptions {
  /**
   * Upstreams that must be up in each pool: a number, or a share such as `'50%'`. Those that get no new work, draining or of weight 0, count
   * for neither side. Default 1.
   */
  readonly minUp?: number | `${number}%`
  /** Names of the pools that count. Default: all. */
  readonly pools?: readonly string[]
}

/** What the listener answers, as JSON. It names pools and numbers, no addresses. */
export interface ReadyReport {
  readonly status: 'ready' | 'unavailable' | 'draining'
  readonly pools: readonly { readonly name: string; readonly up: number; readonly of: number; readonly ready: boolean }[]
}

export type ReadyListener = (req: IncomingMessage, res: ServerResponse) => void

/**
 * A request listener: 200 while the proxy is ready, 503 while it is not. GET and HEAD; mount it on a path or a port of its own, since it does not look at
 * the path. @throws OptionsError
 */
export function readyHandler(proxy: Pick<ReverseProxy, 'health'>, options?: ReadyOptions): ReadyListener {
  const read = new OptionReader('readyHandler')
  const given = read.object<ReadyOptions>(options, ['minUp', 'pools'])
  const needed = readMinUp(read, given.minUp)
  if (given.pools !== undefined && (!Array.isArray(given.pools) || given.pools.length === 0))
    read.problem('pools', given.pools, 'a list of pool names')
  const known = new Set(typeof proxy?.health === 'function' ? proxy.health().pools.map(({ name }) => name) : [])
  if (typeof proxy?.health !== 'function') read.problem('proxy', proxy, 'a proxy made by createProxy')
  // A name that nobody has would never be missed.
  else
    for (const name of Array.isArray(given.pools) ? given.pools : [])
      if (!known.has(name)) read.problem('pools', name, `one of ${[...known].join(', ')}`)
  read.check()
  const counts = (name: string): boolean => given.pools === undefined || given.pools.includes(name)

  const report = (): ReadyReport => {
    const { status, pools } = proxy.health()
    const counted = pools
      .filter(({ name }) => counts(name))
      .map(({ name, upstreams }) => {
        // Draining, or of weight 0: only who has affinity comes there, and nobody else would miss it.
        const serving = upstreams.filter(({ state, weight }) => state !== 'draining' && weight > 0)
        const up = serving.filter(({ state }) => state === 'up').length
        const of = serving.length
        return { name, up, of, ready: up >= needed(of) }
      })
    const ready = counted.every((pool) => pool.ready)
    return { status: status === 'draining' ? 'draining' : ready ? 'ready' : 'unavailable', pools: counted }
  }

  return function ready(req, res) {
    if (req.method !== 'GET' && req.method !== 'HEAD') {
      res.writeHead(405, { Allow: 'GET, HEAD' }).end()
      return
    }
    const found = report()
    const body = `${JSON.stringify(found)}\n`
    res.writeHead(found.status === 'ready' ? 200 : 503, {
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(body),
      'Cache-Control': 'no-store',
    })
    res.end(req.method === 'HEAD' ? undefined : body)
  }
}

/** How many of so many must be up. At least one: a pool without anybody is not ready, whatever the share. */
function readMinUp(read: OptionReader, value: unknown): (of: number) => number {
  if (typeof value === 'string') {
    const share = /^\d+(?:\.\d+)?%$/.test(value) ? Number(value.slice(0, -1)) / 100 : Number.NaN
    if (share > 0 && share <= 1) return (of) => Math.max(1, Math.ceil(share * of - 1e-9))
    read.problem('minUp', value, "a share from above '0%' to '100%', or a whole number")
    return () => 1
  }
  const count = read.number('minUp', value, 1, { min: 1, integer: true })
  return () => count
}
