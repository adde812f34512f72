/**
 * Cross-origin requests (the Fetch standard, "CORS protocol"). A browser asks before it sends what a form could not, and the proxy answers such a
 * preflight itself; on the actual response it says who may read it. CORS protects users of browsers, and keeps nobody else out: it is no
 * access control for the service, and a request from a foreign origin is still forwarded.
 *
 * Two rules have no option. `*` never goes together with credentials: the origin that asked is named instead, and only if it is listed. And
 * `Vary: Origin` is on every response, or a cache would hand the permission of one origin to another.
 */
import { type Duration, type Exchange, type Hooks, OptionReader, type ProxyResponse, type Reply } from '@weir/core'
import { type CorsOrigin, type OriginCheck, readOrigins } from './cors-origins.ts'
import type { AccessStage } from './gate.ts'

export interface CorsOptions {
  /** Who may read: `'*'`, origins, patterns, functions, or a list of these. Required, since the answer is never obvious. `'null'` (sandboxes, files) is never allowed. */
  readonly origins: CorsOrigin | readonly CorsOrigin[]
  /** Cookies and `Authorization` may be sent along. Default false. Not with `origins: '*'`. */
  readonly credentials?: boolean
  /** For preflights. Default GET, HEAD, POST, PUT, PATCH, DELETE. */
  readonly methods?: readonly string[]
  /** Request fields beyond the safe ones. `'any'` says yes to all that are asked for. Default `Content-Type`, and `Authorization` with `credentials`. */
  readonly allowHeaders?: readonly string[] | 'any'
  /** Response fields that scripts may read. Default: none beyond the safe ones. */
  readonly exposeHeaders?: readonly string[]
  /** How long a browser may remember a preflight. Default 10 m; Chromium caps it at 2 h. */
  readonly maxAge?: Duration
  /** Answers preflights of public pages for a private network (`Access-Control-Request-Private-Network`) with yes. Default false. */
  readonly privateNetwork?: boolean
  /** For order. Default `'cors'`. */
  readonly name?: string
}

export interface CorsStats {
  /** Preflights answered, and how many of them with no. */
  readonly preflights: number
  readonly refused: number
  /** Responses that an origin was allowed to read. */
  readonly shared: number
}

const keys = ['origins', 'credentials', 'methods', 'allowHeaders', 'exposeHeaders', 'maxAge', 'privateNetwork', 'name']
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const owned = ['Access-Control-Allow-Origin', 'Access-Control-Allow-Credentials', 'Access-Control-Expose-Headers']

/** @throws OptionsError */
export function cors(options: CorsOptions): AccessStage<CorsStats> {
  const read = new OptionReader('cors')
  const given = read.object<CorsOptions>(options, keys)
  const name = read.name('name', given.name, 'cors')
  const origins = readOrigins(read, given.origins)
  const credentials = read.boolean('credentials', given.credentials, false)
  if (credentials && origins === '*')
    read.problem('credentials', true, 'a list of `origins`: with credentials everybody could act for your users')
  const methods = readTokens(read, 'methods', given.methods, ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'])
  const anyHeader = given.allowHeaders === 'any'
  const allowed = anyHeader
    ? []
    : readTokens(read, 'allowHeaders', given.allowHeaders, credentials ? ['Content-Type', 'Authorization'] : ['Content-Type'])
  const exposed = readTokens(read, 'exposeHeaders', given.exposeHeaders, []).join(', ')
  const maxAge = String(Math.floor(read.duration('maxAge', given.maxAge, 600_000) / 1000))
  const privateNetwork = read.boolean('privateNetwork', given.privateNetwork, false)
  read.check()

  const stats = { preflights: 0, refused: 0, shared: 0 }
  const allowedLower = new Set(allowed.map((field) => field.toLowerCase()))
  const mayAsk = (list: string): boolean =>
    list
      .split(',')
      .map((field) => field.trim().toLowerCase())
      .every((field) => field === '' || (token.test(field) && (anyHeader || allowedLower.has(field))))

  const preflight = (exchange: Exchange, origin: string, method: string): Reply => {
    stats.preflights++
    const headers: Record<string, string> = {
      Vary: `Origin, Access-Control-Request-Method, Access-Control-Request-Headers${privateNetwork ? ', Access-Control-Request-Private-Network' : ''}`,
    }
    const permission = permits(origins, origin, exchange)
    const wanted = exchange.headers.get('access-control-request-headers') ?? ''
    if (permission === undefined || !methods.includes(method) || !mayAsk(wanted)) {
      stats.refused++
      // Without the fields the browser does not send the request. A 4xx would say the same, and is told to nobody.
      return { status: 204, headers }
    }
    headers['Access-Control-Allow-Origin'] = permission
    headers['Access-Control-Allow-Methods'] = methods.join(', ')
    if (wanted !== '') headers['Access-Control-Allow-Headers'] = anyHeader ? wanted : allowed.join(', ')
    if (credentials) headers['Access-Control-Allow-Credentials'] = 'true'
    headers['Access-Control-Max-Age'] = maxAge
    if (privateNetwork && exchange.headers.get('access-control-request-private-network') === 'true')
      headers['Access-Control-Allow-Private-Network'] = 'true'
    return { status: 204, headers }
  }

  const share = (response: ProxyResponse, exchange: Exchange): void => {
    const { headers } = response
    addVary(response)
    // What the upstream says of it would be a second opinion, and two values make browsers refuse.
    for (const field of owned) headers.delete(field)
    const origin = exchange.headers.get('origin')
    const permission = origin === undefined ? undefined : permits(origins, origin, exchange)
    if (permission === undefined) return
    stats.shared++
    headers.set('Access-Control-Allow-Origin', permission)
    if (credentials) headers.set('Access-Control-Allow-Credentials', 'true')
    if (exposed !== '') headers.set('Access-Control-Expose-Headers', exposed)
  }
  const hooks: Hooks = { onResponse: share }

  return {
    name,
    handle(exchange) {
      if (exchange.method === 'OPTIONS') {
        const origin = exchange.headers.get('origin')
        const method = exchange.headers.get('access-control-request-method')
        if (origin !== undefined && method !== undefined) return preflight(exchange, origin, method)
      }
      return hooks
    },
    stats: () => ({ ...stats }),
  }
}

/** What `Access-Control-Allow-Origin` says, or undefined. */
function permits(origins: OriginCheck | '*', origin: string, exchange: Exchange): string | undefined {
  if (origins === '*') return '*'
  return origins(origin, exchange) ? origin : undefined
}

function addVary({ headers }: ProxyResponse): void {
  const vary = headers.get('vary')
  if (vary === undefined) headers.set('Vary', 'Origin')
  else if (!/(?:^|,)\s*(?:origin|\*)\s*(?:,|$)/i.test(vary)) headers.set('Vary', `${vary}, Origin`)
}

function readTokens(read: OptionReader, name: string, value: unknown, fallback: readonly string[]): readonly string[] {
  if (value === undefined) return fallback
  if (Array.isArray(value) && value.every((entry) => typeof entry === 'string' && token.test(entry))) return value as string[]
  read.problem(name, value, 'a list of names')
  return fallback
}
