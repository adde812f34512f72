/** Options of `forwardAuth`, and what they are read into. */
import { type Clock, type Duration, OptionReader, readClock } from '@weir/core'
import type { AuthTlsOptions } from './auth-request.ts'
import { readFieldName, readFieldNames } from './field-names.ts'

export interface ForwardAuthCache {
  /** How long a decision holds. That is also how long a withdrawn right goes on. */
  readonly ttl: Duration
  /** Decisions kept. Default 10,000. */
  readonly max?: number
  /** Request fields by which decisions differ. Default: `requestHeaders`. One that the service looks at and that is not here gives one user the rights of another. */
  readonly key?: readonly string[]
  /** What else they differ by. Default `['method', 'url', 'client']`: all that the service is told. `url` includes the host. */
  readonly vary?: readonly ('method' | 'url' | 'client')[]
}

export interface ForwardAuthOptions {
  /** The service, `http:` or `https:`. It is asked with GET and without the body. */
  readonly url: string | URL
  /** Request fields that it gets. Default `Authorization` and `Cookie`. It also gets `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri` and `-For`, which are ours. */
  readonly requestHeaders?: readonly string[]
  /** Fields of its 2xx that go to the upstream; client copies come off. Default: none. */
  readonly responseHeaders?: readonly string[]
  /** Fields of its 401, 403 or redirect that go to the client. Default `WWW-Authenticate`; with `redirects` `Location` and `Set-Cookie` too. */
  readonly relayHeaders?: readonly string[]
  /** Its 302, 303 and 307 with a `Location` go to the client: a way to a login page. Default false: they are errors, 502. */
  readonly redirects?: boolean
  /** The field of its 2xx that becomes `exchange.locals.auth.subject`. Default: none. */
  readonly subjectHeader?: string
  /** Until its head. Default 5 s. */
  readonly timeout?: Duration
  /** Questions at once, and connections. Default 100. */
  readonly concurrency?: number
  /** Questions that may wait; what comes beyond is answered 503. Default 1000. */
  readonly maxWaiting?: number
  /** Remembers decisions. Default false. Answers with `Set-Cookie` or `Cache-Control: no-store` are not remembered, nor are errors. */
  readonly cache?: ForwardAuthCache | false
  /** What happens when the service fails: no answer (503), another answer than those above (502). Default `'deny'`. `'allow'` lets everybody in whenever the service is down. */
  readonly onError?: 'deny' | 'allow'
  readonly tls?: AuthTlsOptions
  /** Decides, counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'forwardAuth'`. */
  readonly name?: string
  /** Tests move it. Default: the real one. */
  readonly clock?: Clock
}

export interface ForwardAuthSettings {
  readonly url: URL
  readonly requestHeaders: readonly string[]
  readonly responseHeaders: readonly string[]
  readonly relayHeaders: readonly string[]
  readonly redirects: boolean
  readonly subjectHeader: string | undefined
  readonly timeout: number
  readonly concurrency: number
  readonly maxWaiting: number
  readonly cache: { readonly ttl: number; readonly max: number } | undefined
  readonly keyFields: readonly string[]
  readonly vary: ReadonlySet<string>
  readonly failsOpen: boolean
  readonly tls: AuthTlsOptions | undefined
  readonly dryRun: boolean
  readonly name: string
  readonly clock: Clock
}

const keys = [
  'url',
  'requestHeaders',
  'responseHeaders',
  'relayHeaders',
  'redirects',
  'subjectHeader',
  'timeout',
  'concurrency',
  'maxWaiting',
  'cache',
  'onError',
  'tls',
  'dryRun',
  'name',
  'clock',
]
const facts = ['method', 'url', 'client'] as const

/** @throws OptionsError */
export function readForwardAuth(options: ForwardAuthOptions): ForwardAuthSettings {
  const read = new OptionReader('forwardAuth')
  const given = read.object<ForwardAuthOptions>(options, keys)
  const redirects = read.boolean('redirects', given.redirects, false)
  const requestHeaders = readFieldNames(read, 'requestHeaders', given.requestHeaders, ['Authorization', 'Cookie'])
  const cache = given.cache === false || given.cache === undefined ? undefined : readCache(read.at('cache'), given.cache)
  const settings: ForwardAuthSettings = {
    url: readUrl(read, given.url),
    requestHeaders,
    responseHeaders: readFieldNames(read, 'responseHeaders', given.responseHeaders, []),
    relayHeaders: readFieldNames(
      read,
      'relayHeaders',
      given.relayHeaders,
      redirects ? ['WWW-Authenticate', 'Location', 'Set-Cookie'] : ['WWW-Authenticate'],
    ),
    redirects,
    subjectHeader: readFieldName(read, 'subjectHeader', given.subjectHeader),
    timeout: read.duration('timeout', given.timeout, 5000, { min: 1 }),
    concurrency: read.number('concurrency', given.concurrency, 100, { min: 1, max: 10_000, integer: true }),
    maxWaiting: read.number('maxWaiting', given.maxWaiting, 1000, { min: 0, max: 1_000_000, integer: true }),
    cache,
    keyFields: cache?.key ?? requestHeaders,
    vary: cache?.vary ?? new Set(facts),
    failsOpen: read.oneOf('onError', given.onError, ['deny', 'allow'] as const, 'deny') === 'allow',
    tls: given.tls === undefined ? undefined : read.at('tls').object<AuthTlsOptions>(given.tls, ['ca', 'cert', 'key', 'servername']),
    dryRun: read.boolean('dryRun', given.dryRun, false),
    name: read.name('name', given.name, 'forwardAuth'),
    clock: readClock(given.clock, read),
  }
  read.check()
  return settings
}

function readUrl(read: OptionReader, value: unknown): URL {
  const url = typeof value === 'string' || value instanceof URL ? URL.parse(String(value)) : null
  if (url !== null && (url.protocol === 'http:' || url.protocol === 'https:') && url.username === '') return url
  read.problem('url', value, "an address such as 'http://127.0.0.1:4180/check', without user information")
  return new URL('http://invalid.invalid')
}

function readCache(
  read: OptionReader,
  options: ForwardAuthCache,
): { readonly ttl: number; readonly max: number; readonly key: readonly string[] | undefined; readonly vary: ReadonlySet<string> } {
  const given = read.object<ForwardAuthCache>(options, ['ttl', 'max', 'key', 'vary'])
  if (given.ttl === undefined) read.problem('ttl', given.ttl, 'how long a decision holds')
  const vary: unknown = given.vary ?? facts
  if (!Array.isArray(vary) || !vary.every((fact) => facts.includes(fact))) read.problem('vary', vary, `a list of ${facts.join(', ')}`)
  return {
    ttl: read.duration('ttl', given.ttl, 1, { min: 1 }),
    max: read.number('max', given.max, 10_000, { min: 1, max: 10_000_000, integer: true }),
    key: given.key === undefined ? undefined : readFieldNames(read, 'key', given.key, []),
    vary: new Set(Array.isArray(vary) ? vary : []),
  }
}
