/**
 * Application servers that put their own name behind the session id (`JSESSIONID=4711.node1`, `jvmRoute` of Tomcat) need no cookie and no table
 * of ours: the name is read, and the upstream that goes by it is asked for. It is as the client sends it, unsigned; what it can choose is one
 * of this pool's members and nothing else.
 */
import { type Exchange, OptionReader, type Pool, type ProxyResponse } from '@weir/core'
import { readCookieName } from './cookie-attributes.ts'
import { cookieValues } from './cookie-pairs.ts'
import { Pin } from './pin.ts'
import { readStageOptions, type StickyStage, type StickyStageOptions, stageKeys, stageOrder } from './stage-options.ts'
import { readParameter, urlParameter } from './url-parameter.ts'

export interface ApplicationCookieOptions extends StickyStageOptions {
  /** Name of the application's cookie. Default `JSESSIONID`. */
  readonly cookie?: string
  /** Name of a parameter of the URL (`;jsessionid=4711.node1`, or in the query) that holds the same; it counts before the cookie. Default: none. */
  readonly parameter?: string
  /** What stands between the session id and the route; the last one counts. Default `.`. */
  readonly separator?: string
  /** Route to upstream id. Default: the upstream whose `meta.route` it is, else the one whose id it is. */
  readonly routes?: Readonly<Record<string, string>>
}

/** @throws OptionsError */
export function applicationCookie(options: ApplicationCookieOptions = {}): StickyStage {
  const read = new OptionReader('applicationCookie')
  const given = read.object<ApplicationCookieOptions>(options, ['cookie', 'parameter', 'separator', 'routes', ...stageKeys])
  const settings = readStageOptions(read, given, 'applicationCookie')
  const cookie = readCookieName(read, 'cookie', given.cookie, 'JSESSIONID')
  const parameter = readParameter(read, 'parameter', given.parameter)
  const separator = read.name('separator', given.separator, '.')
  const { routes } = given
  if (
    routes !== undefined &&
    (typeof routes !== 'object' || routes === null || !Object.values(routes).every((id) => typeof id === 'string'))
  )
    read.problem('routes', routes, "an object such as { node1: 'http://10.0.0.1:8080' }")
  read.check()

  const upstreamOf = (pool: Pool, route: string): string | undefined => {
    if (routes !== undefined) return Object.hasOwn(routes, route) ? routes[route] : undefined
    return (pool.upstreams.find(({ meta }) => meta.route === route) ?? pool.get(route))?.id
  }
  const wantedBy = (exchange: Exchange): string | undefined => {
    const pool = exchange.route?.pool
    if (pool === undefined) return undefined
    const inUrl = parameter === undefined ? undefined : urlParameter(exchange, parameter)
    const values = cookieValues(exchange.headers, cookie)
    for (const value of inUrl === undefined ? values : [inUrl, ...values]) {
      const at = value.lastIndexOf(separator)
      if (at < 0) continue
      const id = upstreamOf(pool, value.slice(at + separator.length))
      if (id !== undefined) return id
      settings.journal.tell('rejected', exchange, undefined, undefined, 'unknown-route')
    }
    return undefined
  }
  return {
    name: settings.name,
    order: stageOrder,
    handle(exchange) {
      if (settings.skips(exchange)) return undefined
      const wanted = wantedBy(exchange)
      return wanted === undefined ? undefined : new RoutePin(settings, exchange, wanted).ask()
    },
    stats: () => settings.journal.stats(),
  }
}

/** The application itself tells the client where its session is; there is nothing to write. */
class RoutePin extends Pin {
  override onResponse({ upstream }: ProxyResponse): void {
    if (upstream !== undefined) this.settle(upstream)
  }
}
