/**
 * The request as one upstream gets it: target and fields. Made anew for every attempt, because base path, `Host` and what hooks set may differ
 * from one upstream to the next, and because one attempt's edits must not show in another's.
 */
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import { filterFields, HeaderList, isField } from './headers.ts'
import { asksToClose, endToEndRequestFields } from './hop-by-hop.ts'
import { runAttemptHooks } from './pipeline.ts'
import type { RequestFacts } from './request-check.ts'
import type { CompiledRoute } from './route.ts'
import { hasPrefix, joinBase, refuseClimbing, stripPrefix } from './target.ts'
import type { PoolUpstream } from './upstream.ts'

export function targetFor(exchange: LiveExchange, route: CompiledRoute, upstream: PoolUpstream): string {
  let { url } = exchange
  if (url !== exchange.facts?.url) expectTarget(url, "A stage's exchange.url")
  if (url === '*') return url
  if (route.stripPrefix !== '' && hasPrefix(url, route.stripPrefix)) url = stripPrefix(url, route.stripPrefix)
  if (route.rewrite !== undefined) {
    url = route.rewrite(url, exchange)
    expectTarget(url, 'What rewrite returned')
  }
  const base = upstream.base + route.addPrefix
  if (base !== '' || route.stripPrefix !== '') refuseClimbing(url)
  return joinBase(base, url)
}

/** @throws ProxyError ERR_STAGE */
export function expectTarget(url: unknown, what: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a target must not hold them
  if (typeof url === 'string' && url.charCodeAt(0) === 0x2f && !/[\x00-\x20\x7f#]/.test(url)) return
  throw new ProxyError('ERR_STAGE', {
    message: `${what} is ${JSON.stringify(url)}; a target starts with a slash and has no spaces, control characters or #.`,
  })
}

export function fieldsFor(exchange: LiveExchange, route: CompiledRoute, upstream: PoolUpstream): readonly string[] {
  const { core, hooks } = exchange
  const facts = exchange.facts as RequestFacts
  const connection = exchange.connection as NonNullable<LiveExchange['connection']>
  const fields = endToEndRequestFields(exchange.headers.raw, !connection.trusted)
  const policy = route.hostHeader
  if (policy !== 'client' || facts.host === undefined) setHost(fields, typeof policy === 'object' ? policy.fixed : upstream.authority)
  if (exchange.body !== undefined) {
    const { length } = exchange.body
    // Without one it is chunked; who made it so has taken the field off.
    if (length !== undefined && facts.length === undefined) fields.push('Content-Length', String(length))
    else if (length !== undefined && facts.length !== length) setLength(fields, length)
    if (exchange.body.hasTrailers) for (const line of exchange.headers.getAll('trailer')) fields.push('Trailer', line)
  }
  core.forwarding.write(fields, connection, facts.host, route.stripPrefix === '' ? undefined : route.stripPrefix)
  if (facts.takesTrailers && exchange.kind === 'request') fields.push('TE', 'trailers')
  if (core.via !== undefined) fields.push('Via', `${exchange.req.httpVersion} ${core.via}`)
  // Nobody but the proxy has had a hand in it.
  if (hooks === undefined && route.requestEdit === undefined && route.stages === undefined) return fields
  const list = new HeaderList(fields)
  if (hooks !== undefined) runAttemptHooks(hooks, list, upstream)
  route.requestEdit?.(list, exchange)
  return framed(list.raw, exchange)
}

/** What stages may not decide, who would make the upstream read one request as two: where it ends, and what its connection is. Only their wish to close that is heard. */
const framing: ReadonlySet<string> = new Set([
  'upgrade',
  'expect',
  'connection',
  'keep-alive',
  'content-length',
  'http2-settings',
  'proxy-connection',
  'transfer-encoding',
])
const longest = 17

function framed(fields: readonly string[], { body, kind }: LiveExchange): readonly string[] {
  const length = body === undefined ? 0 : body.length
  let told: string | undefined
  let wrong = false
  let close = false
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    if (name.length > longest || !framing.has(name.toLowerCase())) continue
    if (told === undefined && isField(name, 'content-length')) told = fields[i + 1]
    else wrong = true
    if (isField(name, 'connection') && asksToClose(fields[i + 1] as string)) close = kind === 'request'
  }
  // A transport adds a length of 0 where one is expected.
  if (!wrong && (told === undefined ? body === undefined || length === undefined : told === String(length))) return fields
  const out = filterFields(fields, (name) => name.length > longest || !framing.has(name.toLowerCase()))
  if (body !== undefined && length !== undefined) out.push('Content-Length', String(length))
  if (close) out.push('Connection', 'close')
  return out
}

function setHost(fields: string[], host: string): void {
  for (let i = 0; i < fields.length; i += 2)
    if ((fields[i] as string).length === 4 && (fields[i] as string).toLowerCase() === 'host') {
      fields[i + 1] = host
      return
    }
  fields.unshift('Host', host)
}

function setLength(fields: string[], length: number): void {
  for (let i = 0; i < fields.length; i += 2) if ((fields[i] as string).toLowerCase() === 'content-length') fields[i + 1] = String(length)
}
