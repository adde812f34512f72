/**
 * What a response says of the machines behind the proxy: product names with versions, which tell an attacker what to try, and fields by which
 * servers steer a proxy (`X-Accel-*`), which no client should ever see. Error pages of frameworks say more still: paths, queries, stack traces.
 *
 * Put it first, so that it is the last to see a response: a cache inside may need what is taken off here.
 */
import { type Exchange, type Hooks, OptionReader, type ProxyResponse, type Reply, type Stage } from '@weir/core'
import { FieldPatterns, readPatterns } from './field-names.ts'
import { refusal } from './gate.ts'

/** Taken off unless kept. */
const identityFields: readonly string[] = [
  'Server',
  'X-Powered-By',
  'X-AspNet*',
  'X-Generator',
  'X-Runtime',
  'X-Rack-*',
  'X-Drupal-*',
  'X-Varnish*',
  'X-Backend*',
  'X-Upstream*',
  'X-Served-By',
  'X-Accel-*',
  'X-Sendfile*',
  'X-LiteSpeed-*',
  'X-Envoy-*',
  'X-Debug-*',
]

export interface HideIdentityOptions {
  /** More names and patterns to take off. Default: none. */
  readonly remove?: readonly string[]
  /** Names and patterns that stay, whatever else says. Default: none. */
  readonly keep?: readonly string[]
  /** `Via` names the proxies behind this one. `'keep'` where somebody looks for loops in it. Default `'drop'`. */
  readonly via?: 'drop' | 'keep'
  /** A `Server` of your own on every response. Default: none at all, which RFC 9110 §10.2.4 allows. */
  readonly server?: string
  /** Sets `Date` where it is missing, as RFC 9110 §6.6.1 asks of a recipient with a clock. Default true. */
  readonly date?: boolean
  /**
   * Replaces bodies of 5xx that an upstream made: `true` by a line with the status, or a function that gives another answer, or undefined to
   * let this one through. `Retry-After` is kept. Default false: an API's own errors may be wanted.
   */
  readonly errorPages?: boolean | ((status: number, exchange: Exchange) => Reply | undefined)
  /** For order. Default `'hideIdentity'`. */
  readonly name?: string
}

export interface HideIdentityStage extends Stage {
  stats(): { readonly responses: number; readonly removed: number; readonly errorPages: number }
}

/** @throws OptionsError */
export function hideIdentity(options?: HideIdentityOptions): HideIdentityStage {
  const read = new OptionReader('hideIdentity')
  const given = read.object<HideIdentityOptions>(options, ['remove', 'keep', 'via', 'server', 'date', 'errorPages', 'name'])
  const name = read.name('name', given.name, 'hideIdentity')
  const via = read.oneOf('via', given.via, ['drop', 'keep'] as const, 'drop')
  const remove = new FieldPatterns([...identityFields, ...readPatterns(read, 'remove', given.remove), ...(via === 'drop' ? ['Via'] : [])])
  const keep = new FieldPatterns(readPatterns(read, 'keep', given.keep))
  const date = read.boolean('date', given.date, true)
  const { server, errorPages = false } = given
  if (server !== undefined && (typeof server !== 'string' || !/^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(server)))
    read.problem('server', server, 'a text of visible ASCII characters')
  if (typeof errorPages !== 'boolean' && typeof errorPages !== 'function')
    read.problem('errorPages', errorPages, 'true, false, or a function of the status and the exchange')
  read.check()

  let responses = 0
  let removed = 0
  let pages = 0

  const hide = (response: ProxyResponse, exchange: Exchange): void => {
    responses++
    // A response that a stage or the proxy made says nothing of an upstream.
    if (errorPages !== false && response.upstream !== undefined && response.status >= 500) {
      const page = errorPages === true ? refusal(response.status) : errorPages(response.status, exchange)
      if (page !== undefined) {
        pages++
        const retryAfter = response.headers.get('retry-after')
        response.replace(page)
        if (retryAfter !== undefined && !response.headers.has('retry-after')) response.headers.set('Retry-After', retryAfter)
      }
    }
    const { headers } = response
    const { raw } = headers
    let drop: Set<string> | undefined
    for (let i = 0; i < raw.length; i += 2) {
      const lower = (raw[i] as string).toLowerCase()
      if (!remove.match(lower) || keep.match(lower)) continue
      removed++
      drop ??= new Set()
      drop.add(lower)
    }
    if (drop !== undefined) for (const field of drop) headers.delete(field)
    if (server !== undefined) headers.set('Server', server)
    if (date && !headers.has('date')) headers.set('Date', new Date().toUTCString())
  }
  const hooks: Hooks = { onResponse: hide }

  return { name, handle: () => hooks, stats: () => ({ responses, removed, errorPages: pages }) }
}
