/** Options of `createProxy`: read once, checked whole, compiled into routes. Everything the data path asks is answered here beforehand. */
import { type Clock, readClock } from './clock.ts'
import type { Exchange } from './exchange.ts'
import { compileTrust, Forwarding, type ForwardingOptions, type TrustCheck, type TrustedProxy } from './forwarded.ts'
import { compileHeaderRules, type HeaderRules } from './header-rules.ts'
import { type Duration, OptionReader, type Size } from './options.ts'
import { checkOrder, compileStages } from './pipeline.ts'
import { LivePool, type Pool } from './pool.ts'
import { type PoolOptions, poolKeys } from './pool-options.ts'
import { compileRetry, type RetryOptions } from './retry.ts'
import { type CompiledRoute, compileMatch, type HostHeader, type RouteMatch, Router, type Timeouts } from './route.ts'
import type { Stage, StageLike } from './stage.ts'
import { refuseClimbing } from './target.ts'

export interface TimeoutOptions {
  /** Name lookup, TCP and TLS towards the upstream. Default 5 s. */
  readonly connect?: Duration
  /** From the request to the upstream's response head. Raise it for slow reports; 0 switches it off. Default 60 s. */
  readonly head?: Duration
  /** Silence of the upstream within a body. 0 for event streams without heartbeats. Default 60 s. */
  readonly idle?: Duration
  /** The whole exchange, retries and queue included. Not for event streams and large downloads. Default 0: off. */
  readonly total?: Duration
  /** Silence of a tunnel in both directions. Default 10 min. */
  readonly tunnelIdle?: Duration
}

/** What may be set for the whole proxy and overridden by a route. */
export interface ForwardOptions {
  readonly timeouts?: TimeoutOptions
  /** `false`: never a second try. */
  readonly retry?: RetryOptions | false
  readonly headers?: { readonly request?: HeaderRules; readonly response?: HeaderRules }
  /** What the upstream gets as `Host`: the client's (default), its own address, or a fixed one. */
  readonly hostHeader?: HostHeader
  /** Turn an upstream's own address in Location, Content-Location and Refresh into the public one. Default true. */
  readonly rewriteRedirects?: boolean
  /** Largest request body; more is answered 413. Default: no limit. */
  readonly maxBodySize?: Size
}

export interface RouteOptions extends ForwardOptions {
  /** For events and logs. Default `route<index>`. */
  readonly name?: string
  /** Default: everything. A function must be quick and synchronous; it runs for every request that no earlier route took. */
  readonly match?: RouteMatch | ((exchange: Exchange) => boolean)
  /** A pool made with `createPool` (closed by you), or the options of one (closed by the proxy). */
  readonly pool: Pool | PoolOptions
  /** Stages of this route, inside the proxy's own. */
  readonly use?: readonly StageLike[]
  /** Prefix to take off before forwarding; `true` takes off the one path of `match`. Sent on as `X-Forwarded-Prefix`. */
  readonly stripPrefix?: string | true
  /** Prefix to put on. */
  readonly addPrefix?: string
  /** Any other change of the target, after stripPrefix; gets and returns path and query. */
  readonly rewrite?: (url: string, exchange: Exchange) => string
}

export interface ProxyOptions extends ForwardOptions, Omit<PoolOptions, 'upstreams' | 'clock' | 'random'> {
  /** The upstreams of the default pool. One of `upstreams`, `pool` and `routes` is needed; with `routes` it serves what no route takes. */
  readonly upstreams?: PoolOptions['upstreams']
  readonly pool?: Pool
  readonly routes?: readonly RouteOptions[]
  /** Stages around every route, outermost first. */
  readonly use?: readonly StageLike[]
  /** Peers whose forwarding fields are believed. Default: nobody. */
  readonly trustedProxies?: readonly TrustedProxy[] | TrustCheck
  readonly forwarding?: ForwardingOptions
  /** Adds `Via` with this name to requests. Default: none. */
  readonly via?: string
  /** How the proxy calls itself in `Proxy-Status`. Default `weir`. */
  readonly name?: string
  /** For tests. Default `Math.random`. */
  readonly random?: () => number
  readonly clock?: Clock
}

export interface Settings {
  readonly name: string
  readonly via: string | undefined
  readonly clock: Clock
  readonly random: () => number
  readonly forwarding: Forwarding
  readonly router: Router
  readonly routes: readonly CompiledRoute[]
  /** Every stage once, in start order. */
  readonly stages: readonly Stage[]
  /** Pools that the proxy made and closes. */
  readonly ownPools: readonly LivePool[]
  readonly defaultPool: LivePool | undefined
  /** Every pool that a route may use, once. */
  readonly pools: readonly LivePool[]
}

const forwardKeys = ['timeouts', 'retry', 'headers', 'hostHeader', 'rewriteRedirects', 'maxBodySize']
const routeKeys = [...forwardKeys, 'name', 'match', 'pool', 'use', 'stripPrefix', 'addPrefix', 'rewrite']
/** Options of the default pool that stand beside `upstreams`. */
const poolOwn = ['balancer', 'health', 'maxConcurrent', 'queue', 'transport', 'tls', 'allowAddress'] as const
const proxyKeys = [
  ...new Set([...forwardKeys, ...poolKeys, 'pool', 'routes', 'use', 'trustedProxies', 'forwarding', 'via', 'name', 'random', 'clock']),
]

/** @throws OptionsError with everything that was wrong */
export function readProxyOptions(options: ProxyOptions): Settings {
  const read = new OptionReader('createProxy')
  if (options === undefined || options === null) {
    read.problem('', options, "an object such as { upstreams: ['http://127.0.0.1:3000'] }")
    read.check()
  }
  const given = read.object<ProxyOptions>(options, proxyKeys)
  const clock = readClock(given.clock, read)
  const random = read.function('random', given.random, Math.random)
  const ownPools: LivePool[] = []
  const outer = compileStages(given.use, read)
  if (outer !== undefined) checkOrder(outer, read)
  const shared = readForward(given, undefined, read)
  const routes: CompiledRoute[] = []

  const own = (pool: LivePool, at: OptionReader): void => {
    if (ownPools.some((other) => other.balancer === pool.balancer))
      at.problem('balancer', pool.balancer.name, 'a balancer of its own for every pool: it keeps state about one membership')
    ownPools.push(pool)
  }

  const toPool = (value: unknown, name: string, at: OptionReader): LivePool | undefined => {
    if (value instanceof LivePool) return value
    if (typeof value !== 'object' || value === null || !('upstreams' in value)) {
      at.problem('', value, "a pool made with createPool, or options such as { upstreams: ['http://127.0.0.1:3000'] }")
      return undefined
    }
    const pool = new LivePool({ clock, random, name, ...(value as PoolOptions) }, at)
    own(pool, at)
    return pool
  }

  const addRoute = (route: Partial<RouteOptions>, pool: LivePool | undefined, at: OptionReader): void => {
    const match = compileMatch(route.match, at.at('match'))
    const inner = compileStages(route.use, at)
    const stages = outer === undefined ? inner : inner === undefined ? outer : [...outer, ...inner]
    // The proxy's own list has been checked already: only a route's stages can add to what is wrong.
    if (stages !== undefined && inner !== undefined) checkOrder(stages, at)
    const forward = readForward(route, shared, at)
    const name = at.name('name', route.name, `route${routes.length}`)
    let strip = route.stripPrefix
    if (strip === true) {
      if (match.paths?.length === 1) strip = match.paths[0] as string
      else at.problem('stripPrefix', true, 'a prefix, or true together with exactly one match.path')
    }
    if (route.rewrite !== undefined && typeof route.rewrite !== 'function')
      at.problem('rewrite', route.rewrite, 'a function of target and exchange')
    const stripped = readPrefix('stripPrefix', strip === true || strip === '' ? undefined : strip, at)
    const added = readPrefix('addPrefix', route.addPrefix, at)
    // Without a pool the rest was read for its mistakes only.
    if (pool === undefined) return
    const { timeouts, retry } = forward
    const { perTryTimeout } = retry
    const head = perTryTimeout > 0 && (timeouts.head === 0 || perTryTimeout < timeouts.head) ? Math.ceil(perTryTimeout) : timeouts.head
    routes.push({
      ...match,
      ...forward,
      index: routes.length,
      name,
      pool,
      stages,
      stripPrefix: stripped,
      addPrefix: added,
      rewrite: route.rewrite,
      limits: { connect: timeouts.connect, head, idle: timeouts.idle },
    })
  }

  if (given.routes !== undefined && !Array.isArray(given.routes)) read.problem('routes', given.routes, 'a list of routes')
  else
    (given.routes ?? []).forEach((entry, index) => {
      const at = read.at('routes').at(index)
      const route = at.object<RouteOptions>(entry, routeKeys)
      const pool = toPool(route.pool, typeof route.name === 'string' && route.name !== '' ? route.name : `route${index}`, at.at('pool'))
      addRoute(route, pool, at)
    })

  let defaultPool: LivePool | undefined
  if (given.pool !== undefined) {
    for (const key of ['upstreams', ...poolOwn] as const)
      if (given[key] !== undefined) read.problem(key, '(set)', 'either `pool` or the options of one; give this option to createPool')
    defaultPool = toPool(given.pool, 'default', read.at('pool'))
  } else if (given.upstreams !== undefined) {
    const rest = Object.fromEntries(poolOwn.map((key) => [key, given[key]]).filter(([, value]) => value !== undefined))
    defaultPool = new LivePool({ ...rest, name: 'default', upstreams: given.upstreams, clock, random } as PoolOptions, read)
    own(defaultPool, read)
  } else if (given.routes === undefined)
    read.problem('upstreams', undefined, "at least one of `upstreams`, `pool` and `routes`, such as upstreams: ['http://127.0.0.1:3000']")
  if (defaultPool !== undefined) addRoute({ name: 'default' }, defaultPool, read)

  const forwarding = read.at('forwarding').object<ForwardingOptions>(given.forwarding, ['xForwarded', 'forwarded', 'by'])
  const trust = compileTrust(given.trustedProxies, read)
  for (const [key, value] of Object.entries({ name: given.name, via: given.via }))
    if (value !== undefined && !(typeof value === 'string' && /^[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*$/.test(value)))
      read.problem(key, value, 'a token such as edge-1')
  read.at('forwarding').boolean('xForwarded', forwarding.xForwarded, true)
  read.at('forwarding').boolean('forwarded', forwarding.forwarded, false)
  if (forwarding.by !== undefined && !(typeof forwarding.by === 'string' && /^[\x21-\x7e]+$/.test(forwarding.by)))
    read.at('forwarding').problem('by', forwarding.by, 'an identifier of visible ASCII characters, such as _edge1')
  read.check()
  for (const pool of ownPools) pool.begin()
  return {
    name: given.name ?? 'weir',
    via: given.via,
    clock,
    random,
    forwarding: new Forwarding(trust, forwarding),
    router: new Router(routes),
    routes,
    stages: [...new Set(routes.flatMap((route) => route.stages ?? []))],
    ownPools,
    defaultPool,
    pools: [...new Set(routes.map((route) => route.pool))],
  }
}

function readPrefix(name: string, value: unknown, read: OptionReader): string {
  if (value === undefined) return ''
  let fine = typeof value === 'string' && value.startsWith('/') && !/[?#\s]/.test(value)
  if (fine)
    try {
      refuseClimbing(value as string)
    } catch {
      fine = false
    }
  if (!fine) read.problem(name, value, "a path that starts with a slash, such as '/v1', without query and without ..")
  return fine ? (value as string).replace(/\/+$/, '') : ''
}

function readHostHeader(value: unknown, fallback: HostHeader, read: OptionReader): HostHeader {
  if (value === undefined) return fallback
  if (value === 'client' || value === 'upstream') return value
  const fixed = (value as { fixed?: unknown } | null)?.fixed
  if (typeof fixed === 'string' && /^[A-Za-z0-9\-._[\]:]+$/.test(fixed)) return { fixed }
  read.problem('hostHeader', value, "'client', 'upstream' or { fixed: 'name.example' }")
  return fallback
}

type Forward = Pick<
  CompiledRoute,
  'timeouts' | 'retry' | 'requestEdit' | 'responseEdit' | 'hostHeader' | 'rewriteRedirects' | 'maxBodySize'
>

/** What proxy and routes have in common. A route's own options are read against `base`, so that a mistake is reported where it was made. */
function readForward(given: Partial<ForwardOptions>, base: Forward | undefined, read: OptionReader): Forward {
  const rules = read.at('headers').object<NonNullable<ForwardOptions['headers']>>(given.headers, ['request', 'response'])
  const ownRules = given.headers !== undefined || base === undefined
  return {
    timeouts: readTimeouts(given.timeouts, base?.timeouts, read.at('timeouts')),
    retry: given.retry === undefined && base !== undefined ? base.retry : compileRetry(given.retry, read.at('retry')),
    requestEdit: ownRules ? compileHeaderRules(rules.request, read.at('headers').at('request')) : base.requestEdit,
    responseEdit: ownRules ? compileHeaderRules(rules.response, read.at('headers').at('response')) : base.responseEdit,
    hostHeader: readHostHeader(given.hostHeader, base?.hostHeader ?? 'client', read),
    rewriteRedirects: read.boolean('rewriteRedirects', given.rewriteRedirects, base?.rewriteRedirects ?? true),
    maxBodySize: read.size('maxBodySize', given.maxBodySize, base?.maxBodySize ?? Number.POSITIVE_INFINITY, { min: 0 }),
  }
}

function readTimeouts(value: TimeoutOptions | undefined, base: Timeouts | undefined, read: OptionReader): Timeouts {
  const given = read.object<TimeoutOptions>(value, ['connect', 'head', 'idle', 'total', 'tunnelIdle'])
  return {
    connect: read.duration('connect', given.connect, base?.connect ?? 5000, { min: 1 }),
    head: Math.ceil(read.duration('head', given.head, base?.head ?? 60_000)),
    idle: Math.ceil(read.duration('idle', given.idle, base?.idle ?? 60_000)),
    total: read.duration('total', given.total, base?.total ?? 0),
    tunnelIdle: read.duration('tunnelIdle', given.tunnelIdle, base?.tunnelIdle ?? 600_000),
  }
}
