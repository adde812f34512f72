/**
 * Which pool serves a request. Routes are tried in list order and the first that matches wins, because that is the one rule that nobody has
 * to look up; the index below only skips routes that cannot match (by exact host, then by first path segment), so that a thousand routes
 * cost what one does.
 *
 * Paths are matched as raw bytes and by whole segments: `/api` covers `/api/x`, not `/apix` and not `/%61pi`.
 */
import type { Exchange } from './exchange.ts'
import type { HeaderEdit } from './header-rules.ts'
import type { OptionReader } from './options.ts'
import type { LivePool, Pool } from './pool.ts'
import type { RetryPolicy } from './retry.ts'
import type { Stage } from './stage.ts'
import { hasPrefix } from './target.ts'
import type { TransportTimeouts } from './transport/transport.ts'

/** A route as stages see it. */
export interface Route {
  readonly name: string
  readonly pool: Pool
}

/** All given parts must hold. An empty match holds always. */
export interface RouteMatch {
  /** `api.example.com`, or `*.example.com` for any name below it; several: one must hold. Case, port and a trailing dot do not matter. */
  readonly host?: string | readonly string[]
  /** Path prefix by whole segments, `/api`; `/` holds for every path. */
  readonly path?: string | readonly string[]
  readonly method?: string | readonly string[]
  /** Field name to exact value, or to `true` for "is present". */
  readonly header?: Readonly<Record<string, string | true>>
}

export type HostHeader = 'client' | 'upstream' | { readonly fixed: string }

export interface Timeouts {
  readonly connect: number
  readonly head: number
  readonly idle: number
  readonly total: number
  readonly tunnelIdle: number
}

export interface CompiledRoute extends Route {
  readonly index: number
  readonly pool: LivePool
  readonly hosts: readonly string[] | undefined
  readonly paths: readonly string[] | undefined
  readonly methods: ReadonlySet<string> | undefined
  readonly headers: readonly (readonly [string, string | true])[] | undefined
  readonly accepts: ((exchange: Exchange) => boolean) | undefined
  /** Of the proxy and the route, in order; undefined when none. */
  readonly stages: readonly Stage[] | undefined
  readonly stripPrefix: string
  readonly addPrefix: string
  readonly rewrite: ((url: string, exchange: Exchange) => string) | undefined
  readonly timeouts: Timeouts
  /** The part of them that a transport needs, the per-try timeout included. */
  readonly limits: TransportTimeouts
  readonly retry: RetryPolicy
  readonly requestEdit: HeaderEdit | undefined
  readonly responseEdit: HeaderEdit | undefined
  readonly hostHeader: HostHeader
  readonly rewriteRedirects: boolean
  readonly maxBodySize: number
}

export type MatchFields = Pick<CompiledRoute, 'hosts' | 'paths' | 'methods' | 'headers' | 'accepts'>

const hostRule = /^(?:\*\.)?[a-z0-9_](?:[a-z0-9\-._]*[a-z0-9_])?$|^\[[0-9a-f:.]+\]$/

export function compileMatch(match: unknown, read: OptionReader): MatchFields {
  const open: MatchFields = { hosts: undefined, paths: undefined, methods: undefined, headers: undefined, accepts: undefined }
  if (match === undefined) return open
  if (typeof match === 'function') return { ...open, accepts: match as (exchange: Exchange) => boolean }
  const given = read.object<RouteMatch>(match as RouteMatch, ['host', 'path', 'method', 'header'])
  const list = (name: string, value: unknown): string[] | undefined => {
    if (value === undefined) return undefined
    const values = Array.isArray(value) ? value : [value]
    if (values.length > 0 && values.every((entry) => typeof entry === 'string' && entry !== '')) return values
    read.problem(name, value, 'a non-empty string or a list of them')
    return undefined
  }
  const hosts = list('host', given.host)?.map((host) => (host.includes('/') ? host : normaliseHost(host)))
  for (const host of hosts ?? [])
    if (!hostRule.test(host)) read.problem('host', host, "a host name such as 'api.example.com' or '*.example.com', without port or scheme")
  const paths = list('path', given.path)
  for (const path of paths ?? [])
    if (!path.startsWith('/') || /[?#\s]/.test(path)) read.problem('path', path, "a path prefix that starts with a slash, such as '/api'")
  const methods = list('method', given.method)
  const headers: [string, string | true][] = []
  const wanted: unknown = given.header ?? {}
  if (typeof wanted !== 'object' || Array.isArray(given.header) || given.header === null)
    read.problem('header', given.header, "an object such as { 'x-version': 'beta' }")
  else
    for (const [name, value] of Object.entries(wanted as object)) {
      if (typeof value === 'string' || value === true) headers.push([name.toLowerCase(), value])
      else read.problem('header', { [name]: value }, 'an exact value, or true for "is present"')
    }
  return {
    hosts,
    paths: paths?.map((path) => path.replace(/\/+$/, '')),
    methods: methods === undefined ? undefined : new Set(methods.map((method) => method.toUpperCase())),
    headers: headers.length === 0 ? undefined : headers,
    accepts: undefined,
  }
}

/** Lower case, without port and trailing dot. */
export function normaliseHost(host: string): string {
  let name = host
  const colon = name.lastIndexOf(':')
  if (colon > 0 && name.indexOf(']', colon) < 0 && (name.charCodeAt(0) === 0x5b || name.indexOf(':') === colon)) name = name.slice(0, colon)
  if (name.charCodeAt(name.length - 1) === 0x2e) name = name.slice(0, -1)
  return name.toLowerCase()
}

/** Routes that share a host, by the first segment of their path; `any` holds the ones without a usable segment. */
class PathIndex {
  readonly bySegment = new Map<string, CompiledRoute[]>()
  readonly any: CompiledRoute[] = []

  add(route: CompiledRoute): void {
    const segments = new Set(route.paths?.map(firstSegment))
    if (route.paths === undefined || segments.has('')) this.any.push(route)
    else
      for (const segment of segments) {
        const list = this.bySegment.get(segment)
        if (list === undefined) this.bySegment.set(segment, [route])
        else list.push(route)
      }
  }
}

export class Router {
  readonly #hosts = new Map<string, PathIndex>()
  readonly #wildcards = new Map<string, PathIndex>()
  readonly #anyHost = new PathIndex()
  /** The only route, when it accepts everything: the usual case needs no look-up. */
  readonly #only: CompiledRoute | undefined

  constructor(routes: readonly CompiledRoute[]) {
    for (const route of routes) {
      if (route.hosts === undefined) this.#anyHost.add(route)
      for (const host of route.hosts ?? []) {
        const [map, key] = host.startsWith('*.') ? [this.#wildcards, host.slice(2)] : [this.#hosts, host]
        let index = map.get(key)
        if (index === undefined) {
          index = new PathIndex()
          map.set(key, index)
        }
        index.add(route)
      }
    }
    const [first] = routes
    const open =
      first !== undefined &&
      first.hosts === undefined &&
      (first.paths === undefined || first.paths.includes('')) &&
      first.methods === undefined &&
      first.headers === undefined &&
      first.accepts === undefined
    this.#only = open ? first : undefined
  }

  /** The first route in list order that accepts the exchange. */
  find(exchange: Exchange, host: string | undefined): CompiledRoute | undefined {
    if (this.#only !== undefined) return this.#only
    const segment = firstSegment(exchange.url)
    let best = firstMatch(this.#anyHost, segment, exchange, undefined)
    if (host !== undefined && (this.#hosts.size > 0 || this.#wildcards.size > 0)) {
      const name = normaliseHost(host)
      const exact = this.#hosts.get(name)
      if (exact !== undefined) best = firstMatch(exact, segment, exchange, best)
      if (this.#wildcards.size > 0)
        for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
          const index = this.#wildcards.get(name.slice(dot + 1))
          if (index !== undefined) best = firstMatch(index, segment, exchange, best)
        }
    }
    return best
  }
}

function firstSegment(path: string): string {
  if (path.charCodeAt(0) !== 0x2f) return ''
  for (let i = 1; i < path.length; i++) {
    const code = path.charCodeAt(i)
    if (code === 0x2f || code === 0x3f) return path.slice(1, i)
  }
  return path.slice(1)
}

function firstMatch(index: PathIndex, segment: string, exchange: Exchange, best: CompiledRoute | undefined): CompiledRoute | undefined {
  const list = segment === '' ? undefined : index.bySegment.get(segment)
  return scan(index.any, exchange, list === undefined ? best : scan(list, exchange, best))
}

function scan(list: readonly CompiledRoute[], exchange: Exchange, best: CompiledRoute | undefined): CompiledRoute | undefined {
  for (const route of list) {
    if (best !== undefined && route.index >= best.index) return best
    if (accepts(route, exchange)) return route
  }
  return best
}

function accepts(route: CompiledRoute, exchange: Exchange): boolean {
  if (route.paths !== undefined && !route.paths.some((path) => path === '' || hasPrefix(exchange.url, path))) return false
  if (route.methods !== undefined && !route.methods.has(exchange.method)) return false
  if (route.headers !== undefined)
    for (const [name, value] of route.headers) {
      const found = exchange.headers.get(name)
      if (found === undefined || (value !== true && found !== value)) return false
    }
  return route.accepts === undefined || route.accepts(exchange)
}
