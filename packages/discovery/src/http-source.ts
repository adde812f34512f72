/**
 * Upstreams from an HTTP endpoint: a registry, a control plane, a bucket. Asked again at an interval, or when the answer says that it has expired; with
 * `If-None-Match`, so that an unchanged list costs a few bytes. What comes is not trusted: it is bounded in time and length, checked like a file, and
 * never better than no answer when it is wrong: then the last good list stays.
 */
import { type Agent, type OutgoingHttpHeaders, validateHeaderName, validateHeaderValue } from 'node:http'
import { type Duration, type MaybePromise, OptionReader, type Size, type UpstreamInput } from '@weir/core'
import { addressGuard } from './address-guard.ts'
import { DiscoveryError, messageOf } from './discovery-error.ts'
import { Feed } from './feed.ts'
import { freshMs, retryAfterMs } from './freshness.ts'
import { type Fetched, fetchOnce, TooLarge } from './http-fetch.ts'
import { type DiscoverySource, sourceOf } from './list-iterator.ts'
import { type Parse, parseJson, readList } from './list-text.ts'
import { type Answer, poll } from './poll.ts'
import { questionOptions, remoteProblems } from './remote-list.ts'
import { type PaceOptions, paceKeys, readPace, readSource, type SourceOptions, type SourceSettings, sourceKeys } from './source-options.ts'

type Headers = Readonly<Record<string, string>>

export interface HttpSourceOptions extends SourceOptions, PaceOptions {
  /** `http:` or `https:`, without credentials: those go into `headers`. Redirects are not followed. */
  readonly url: string | URL
  /** How long a list is good for when the answer has no `Cache-Control: max-age`. Default 30 s. */
  readonly interval?: Duration
  /** Never asks sooner than this after an answer, whatever `max-age` says. At least 1 ms, default 1 s. */
  readonly minInterval?: Duration
  /** Never waits longer than this, whatever `max-age` or `Retry-After` says. Default 10 min. */
  readonly maxInterval?: Duration
  /** Fields of the request, or a function that gives them for each: for tokens that change. */
  readonly headers?: Headers | (() => MaybePromise<Headers>)
  /** For the whole answer. Default 10 s. */
  readonly timeout?: Duration
  /** A longer answer is refused. Default 1 MiB. */
  readonly maxSize?: Size
  /**
   * Names of the probe options that the list may set in `meta.health`, where active checks look for them; a list that sets others is refused.
   * `'all'`: whoever writes the list may have probes sent anywhere that the guard and the pool's `allowAddress` let pass, with any content, and
   * have them believe any certificate. Default: those that say how to ask the upstream itself (`port`, `path`, `method`, `host`, `secure`, `service`, ...) and
   * what its answer must be; not `address`, `servername`, `tls`, `headers`, `send`, `maxBody`.
   */
  readonly probeOptions?: readonly string[] | 'all'
  /** For another format: gets the body as text, returns the list or a promise of it, throws when it cannot. Default `JSON.parse`. */
  readonly parse?: Parse
  /** Of `node:http` or `node:https`, for certificates, proxies and the like. Closed by whoever made it. Default: none; a connection per request. */
  readonly agent?: Agent
}

const ownKeys = ['url', 'interval', 'minInterval', 'maxInterval', 'headers', 'timeout', 'maxSize', 'probeOptions', 'parse', 'agent']

interface HttpSettings {
  readonly url: URL
  readonly interval: number
  readonly minInterval: number
  readonly maxInterval: number
  readonly headers: Headers | (() => MaybePromise<Headers>)
  readonly timeout: number
  readonly maxSize: number
  readonly probeOptions: readonly string[] | 'all'
  readonly parse: Parse
  readonly agent: Agent | undefined
}

/**
 * Keeps a pool in step with an endpoint that answers 200 with a JSON list, of the same shape as `upstreams`. Addresses in it go through `guard`;
 * host names do not, so give the pool `allowAddress` as well.
 *
 * @throws OptionsError
 */
export function httpSource(options: HttpSourceOptions): DiscoverySource {
  const read = new OptionReader('httpSource')
  const given = read.object<HttpSourceOptions>(options, [...sourceKeys, ...paceKeys, ...ownKeys])
  const url = readUrl(given.url, read)
  const source = readSource(given, read, `http:${url.host}${url.pathname}`, addressGuard())
  const pace = readPace(given, read)
  const minInterval = read.duration('minInterval', given.minInterval, 1000, { min: 1 })
  const settings: HttpSettings = {
    url,
    interval: read.duration('interval', given.interval, Math.max(30_000, minInterval), { min: minInterval }),
    minInterval,
    maxInterval: read.duration('maxInterval', given.maxInterval, Math.max(600_000, minInterval), { min: minInterval }),
    headers: readHeaders(given.headers, read),
    timeout: read.duration('timeout', given.timeout, 10_000, { min: 1 }),
    maxSize: read.size('maxSize', given.maxSize, 1024 ** 2, { min: 2 }),
    probeOptions: readProbeOptions(given.probeOptions, read),
    parse: read.function('parse', given.parse, parseJson),
    agent: given.agent,
  }
  if (given.agent !== undefined && typeof (given.agent as { addRequest?: unknown } | null)?.addRequest !== 'function')
    read.problem('agent', given.agent, 'an Agent of node:http or node:https')
  read.check()
  return sourceOf((outlet) => {
    const asking = new Asking(settings, source)
    const question = {
      code: 'ERR_DISCOVERY_HTTP',
      longestPause: settings.maxInterval,
      ask: () => asking.ask(),
      cancel: () => asking.cancel(),
    } as const
    return poll(new Feed(source, outlet), question, pace, source)
  })
}

class Asking {
  readonly #settings: HttpSettings
  readonly #source: SourceSettings
  readonly #controller = new AbortController()
  /** The last good list, and what the server calls its version. */
  #last: { readonly list: readonly UpstreamInput[]; readonly etag: string | undefined; readonly modified: string | undefined } | undefined

  constructor(settings: HttpSettings, source: SourceSettings) {
    this.#settings = settings
    this.#source = source
  }

  cancel(): void {
    this.#controller.abort()
  }

  async ask(): Promise<Answer> {
    const { url, interval, minInterval, maxInterval, probeOptions, parse } = this.#settings
    const { status, headers, body } = await this.#fetch()
    const fresh = Math.min(Math.max(freshMs(headers) ?? interval, minInterval), maxInterval)
    // The list is given again, and not "as before": the guard may have refused what the server calls unchanged.
    if (status === 304 && this.#last !== undefined) return { list: this.#last.list, freshMs: fresh }
    if (status !== 200) {
      const retry = retryAfterMs(headers, Date.now())
      throw this.#error('ERR_DISCOVERY_HTTP', `answered ${status}`, retry === undefined ? {} : { retryAfterMs: retry })
    }
    const coding = headers['content-encoding']?.toLowerCase() ?? 'identity'
    if (coding !== 'identity') throw this.#error('ERR_DISCOVERY_HTTP', `answered with the coding ${coding}, which was not asked for`)
    const what = url.origin + url.pathname
    const list = await readList(body, parse, this.#source.name, what)
    const problems = remoteProblems(list, probeOptions)
    if (problems.length > 0)
      throw new DiscoveryError('ERR_DISCOVERY_LIST', this.#source.name, `${what} says what a fetched list may not say`, { problems })
    this.#last = { list, etag: headers.etag, modified: headers['last-modified'] }
    return { list, freshMs: fresh }
  }

  async #fetch(): Promise<Fetched> {
    const { url, agent, timeout, maxSize, headers: own } = this.#settings
    const { clock } = this.#source
    const headers: OutgoingHttpHeaders = { accept: 'application/json', 'accept-encoding': 'identity' }
    for (const [name, value] of Object.entries(typeof own === 'function' ? await own() : own)) headers[name.toLowerCase()] = value
    if (this.#last?.etag !== undefined) headers['if-none-match'] = this.#last.etag
    else if (this.#last?.modified !== undefined) headers['if-modified-since'] = this.#last.modified
    try {
      return await fetchOnce({ url, headers, agent, timeout, maxSize, clock, signal: this.#controller.signal })
    } catch (cause) {
      throw this.#error(cause instanceof TooLarge ? 'ERR_DISCOVERY_TOO_LARGE' : 'ERR_DISCOVERY_HTTP', messageOf(cause), { cause })
    }
  }

  /** Queries of URLs hold tokens, now and then: they are in no message. */
  #error(
    code: 'ERR_DISCOVERY_HTTP' | 'ERR_DISCOVERY_TOO_LARGE',
    what: string,
    options?: { cause?: unknown; retryAfterMs?: number },
  ): DiscoveryError {
    const { origin, pathname } = this.#settings.url
    return new DiscoveryError(code, this.#source.name, `${origin}${pathname}: ${what}`, options)
  }
}

function readUrl(value: unknown, read: OptionReader): URL {
  const url = typeof value === 'string' || value instanceof URL ? URL.parse(String(value)) : null
  if (url !== null && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '') return url
  const secret = url !== null && (url.username !== '' || url.password !== '')
  read.problem(
    'url',
    secret ? `${url.protocol}//***@${url.host}` : value,
    'an http: or https: URL without credentials; give those in `headers`',
  )
  return new URL('http://invalid.invalid')
}

function readHeaders(value: unknown, read: OptionReader): HttpSettings['headers'] {
  if (typeof value === 'function') return value as () => MaybePromise<Headers>
  if (value === undefined) return {}
  if (typeof value !== 'object' || value === null) {
    read.problem('headers', value, "an object such as { authorization: 'Bearer ...' }, or a function that returns one")
    return {}
  }
  for (const [name, field] of Object.entries(value)) {
    try {
      validateHeaderName(name)
      validateHeaderValue(name, field as string)
      if (typeof field !== 'string') throw new TypeError('not text')
    } catch {
      read.at('headers').problem(name, '(not shown)', 'the name of a header field, with text as its value')
    }
  }
  return value as Headers
}

function readProbeOptions(value: unknown, read: OptionReader): HttpSettings['probeOptions'] {
  if (value === undefined) return questionOptions
  if (value === 'all') return value
  if (Array.isArray(value) && value.every((name) => typeof name === 'string' && name !== '')) return value
  read.problem('probeOptions', value, "a list of names such as ['port', 'path'], or 'all'")
  return questionOptions
}
