/**
 * What a response is stored under. The default is all that decides which resource is asked for: scheme, host, path and query, byte for byte as it is sent on.
 * Two requests that may get different answers must not share a key, and what is not in the key must not change the answer: that is how caches are poisoned.
 */
import { createHash } from 'node:crypto'
import type { Exchange, HeaderList } from '@weir/core'

export interface KeyOptions {
  /** Query parameters that count. Default `'all'`, byte for byte. `ignore`: all but these; `only`: none but these; `'none'`. */
  readonly query?: 'all' | 'none' | { readonly ignore: readonly string[] } | { readonly only: readonly string[] }
  /** Puts the query's parameters in order of their names. Default false. */
  readonly sortQuery?: boolean
  /** Request fields that count besides, as if each response had them in `Vary`. */
  readonly headers?: readonly string[]
  /** Cookies that count. */
  readonly cookies?: readonly string[]
  /** In front of every key: another one, and everything stored before is out of sight. */
  readonly version?: string
}

/** Given the usual key, the one to use; undefined: this request has nothing to do with the cache. */
export type KeyFunction = (exchange: Exchange, key: string) => string | undefined

/** What a request asks for: what responses are stored under, and invalidated by. */
export interface Target {
  readonly url: string
  readonly key: string
  /** What a trusted proxy said of the request is part of the key: the same URL may have other ones. */
  readonly told: string
}

/** Targets whose keys are at hand. */
const maxRecent = 4096
const maxRecentPath = 512

export class Keys {
  readonly #options: KeyOptions
  readonly #custom: KeyFunction | undefined
  readonly #plain: boolean
  readonly #prefix: string
  /** A key is a URL with lines behind it, and not whatever a function made. */
  get plainUrl(): boolean {
    return this.#custom === undefined
  }
  /** More than the URL counts: a URL may have several keys. */
  get several(): boolean {
    return !this.#alone
  }
  /** Nothing but the URL counts. */
  readonly #alone: boolean
  readonly #recent = new Map<string, Target & { readonly host: string; readonly scheme: string }>()

  constructor(options: KeyOptions, custom: KeyFunction | undefined) {
    this.#options = options
    this.#custom = custom
    this.#plain = (options.query ?? 'all') === 'all' && options.sortQuery !== true
    this.#alone = custom === undefined && options.headers === undefined && options.cookies === undefined
    this.#prefix = options.version === undefined ? '' : `${options.version} `
  }

  of(exchange: Exchange): Target | undefined {
    const host = exchange.headers.get('host')
    // Without a host (HTTP/1.0) nobody can tell whose resource it is.
    if (host === undefined) return undefined
    const { scheme, url: path } = exchange
    const told = exchange.viaTrustedProxy ? toldBy(exchange.headers, scheme, host) : ''
    // To put a key together and to hash it costs more than all else that a hit does here; those of what is asked for often are at hand.
    const known = this.#recent.get(path)
    if (known !== undefined && known.host === host && known.scheme === scheme && known.told === told) return known
    const url = urlOf(scheme, host, path)
    if (this.#alone) {
      const target = { url, key: this.forUrl(url) + told, told, host, scheme }
      if (this.#recent.size >= maxRecent) this.#recent.clear()
      if (path.length <= maxRecentPath) this.#recent.set(path, target)
      return target
    }
    const usual = this.forUrl(url, exchange.headers) + told
    const key = this.#custom === undefined ? usual : this.#custom(exchange, usual)
    return key === undefined ? undefined : { url, key, told }
  }

  /** @param headers for those that count; without it they are absent */
  forUrl(url: string, headers?: HeaderList): string {
    let key = this.#prefix + (this.#plain ? url : this.#withQuery(url))
    for (const name of this.#options.headers ?? []) key += `\n${headers?.get(name) ?? ''}`
    if (this.#options.cookies !== undefined) key += `\n${pickCookies(headers?.getAll('cookie').join(';') ?? '', this.#options.cookies)}`
    return key
  }

  /** As a request for it with these fields would have it, through a proxy that is trusted. */
  asTold(url: string, headers: HeaderList): string {
    const { protocol, host } = new URL(url)
    return this.forUrl(url, headers) + toldBy(headers, protocol.slice(0, -1), host)
  }

  /** `https://a/b?c` as the options see its query. */
  #withQuery(url: string): string {
    const mark = url.indexOf('?')
    if (mark < 0) return url
    const query = keptParameters(url.slice(mark + 1), this.#options)
    return query === '' ? url.slice(0, mark) : `${url.slice(0, mark)}?${query}`
  }
}

/** For QUERY (RFC 10008): the body is part of what is asked for, and so is what it is written in. */
export function queryTarget(target: Target, exchange: Exchange, body: Uint8Array): Target {
  const hash = createHash('sha256')
  for (const name of ['content-type', 'content-encoding', 'content-language', 'content-location'])
    hash.update(`${exchange.headers.get(name) ?? ''}\n`)
  return { ...target, key: `QUERY ${hash.update(body).digest('base64url')} ${target.key}` }
}

/** Who asked, and not what for: an address, and the chain of them. */
const ofTheClient: ReadonlySet<string> = new Set(['x-forwarded-for'])

/**
 * Under which name, port, prefix or scheme the client found us, in the words of the proxy in front: upstreams make links of it, and look up whose site it is. The
 * names that are the request's own add nothing.
 */
function toldBy(headers: HeaderList, scheme: string, host: string): string {
  let told = ''
  const { raw } = headers
  for (let i = 0; i < raw.length; i += 2) {
    const sent = raw[i] as string
    // Most fields are none of them, and are not lower-cased to find that out: `f` or `x`, in either case.
    const first = sent.charCodeAt(0) | 0x20
    if (first !== 0x66 && first !== 0x78) continue
    const name = sent.toLowerCase()
    const value = raw[i + 1] as string
    if (name === 'forwarded') {
      for (const pair of value.match(/(?:host|proto)=(?:"(?:[^"\\]|\\.)*"|[^;,\s]*)/gi) ?? []) told += `\nforwarded: ${pair}`
    } else if (name.startsWith('x-forwarded-') && !ofTheClient.has(name)) {
      if (value !== ownOf(name, scheme, host)) told += `\n${name}: ${value}`
    }
  }
  return told
}

/** What adds nothing under this name: the upstream would take the same for granted. */
function ownOf(name: string, scheme: string, host: string): string | undefined {
  switch (name) {
    case 'x-forwarded-proto':
      return scheme
    case 'x-forwarded-host':
      return host
    case 'x-forwarded-port':
      return /:(\d+)$/.exec(host)?.[1] ?? (scheme === 'https' ? '443' : '80')
    default:
      return undefined
  }
}

/** One spelling for one resource: the host in lower case, without the scheme's own port. */
function urlOf(scheme: string, host: string, path: string): string {
  let name = lowered(host)
  if (scheme === 'http' ? name.endsWith(':80') : name.endsWith(':443')) name = name.slice(0, name.lastIndexOf(':'))
  return `${scheme}://${name}${path}`
}

let lastHost = ''
let lastLowered = ''

/** Most requests in a row are for one host. */
function lowered(host: string): string {
  if (host !== lastHost) {
    lastHost = host
    lastLowered = host.toLowerCase()
  }
  return lastLowered
}

/** @throws TypeError when it is no absolute http or https URL */
export function parseUrl(url: string | URL): string {
  const text = String(url)
  const match = /^(https?):\/\/([^/?#]+)([^#]*)/i.exec(text)
  if (match === null) throw new TypeError(`${JSON.stringify(text)} is no absolute http or https URL, such as 'https://shop.example/a?b=c'`)
  const path = match[3] as string
  return urlOf((match[1] as string).toLowerCase(), match[2] as string, path.startsWith('/') ? path : `/${path}`)
}

function keptParameters(query: string, options: KeyOptions): string {
  const { query: rule = 'all', sortQuery = false } = options
  if (rule === 'none') return ''
  const keeps =
    rule === 'all'
      ? () => true
      : 'only' in rule
        ? (name: string) => rule.only.includes(name)
        : (name: string) =>
            !rule.ignore.some((pattern) => (pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern))
  const parameters = query.split('&').filter((parameter) => parameter !== '' && keeps(nameOf(parameter)))
  return (sortQuery ? sorted(parameters) : parameters).join('&')
}

function nameOf(parameter: string): string {
  const name = parameter.split('=', 1)[0] as string
  if (!/[%+]/.test(name)) return name
  try {
    return decodeURIComponent(name.replaceAll('+', ' '))
  } catch {
    return name
  }
}

/** By name; of one name in the order in which they came, for that may mean something. */
function sorted(parameters: readonly string[]): string[] {
  return parameters
    .map((parameter) => ({ parameter, name: nameOf(parameter) }))
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
    .map(({ parameter }) => parameter)
}

function pickCookies(field: string, names: readonly string[]): string {
  const found: string[] = []
  for (const pair of field.split(';')) {
    const text = pair.trim()
    if (names.includes(text.split('=', 1)[0] as string)) found.push(text)
  }
  return found.sort().join(';')
}
