/**
 * An upstream is one server of a pool: an address, a weight, and what the proxy knows of it now. The pool alone changes it; balancers and
 * stages read it. `inflight` is the number that most strategies stand on, so it counts from the pick to the end of the body, not to the
 * head: a server that streams is busy.
 */

import { isDeepStrictEqual } from 'node:util'
import type { Attempt } from './attempt.ts'
import type { OptionReader } from './options.ts'
import type { Verdicts } from './verdicts.ts'

export type UpstreamState = 'up' | 'down' | 'draining'

export interface Upstream {
  /** Stable over restarts and reordering; cookies and hash rings use it, never a list index. Default: the URL without a trailing slash. */
  readonly id: string
  readonly url: URL
  /** The name that it goes by, when that is not the host of `url`: see `UpstreamOptions.host`. */
  readonly host: string | undefined
  /** The share it has now: the configured weight, times the factors of health policies (a slow start). Above 0 it need not be whole. */
  readonly weight: number
  /** As configured, or set with `pool.setWeight`. */
  readonly configuredWeight: number
  /** 0 is used first; a tier is used only while every lower tier has nobody `up`. `backup: true` is priority 1. */
  readonly priority: number
  readonly state: UpstreamState
  /** Up, but used only while nobody is who is not degraded. */
  readonly degraded: boolean
  /** Exchanges in flight; released at the end of the body. */
  readonly inflight: number
  /** Most exchanges at once, limits of health policies included; `Infinity` when not limited. */
  readonly maxConcurrent: number
  /** True at `maxConcurrent`: a balancer must skip it. */
  readonly full: boolean
  /** Moving average of the time to the response head in milliseconds; 0 before the first response. */
  readonly latencyMs: number
  readonly meta: Readonly<Record<string, unknown>>
}

/** How an upstream is written in `upstreams`: a URL, or a URL with settings. `unix:/run/app.sock` names a Unix socket. */
export type UpstreamInput = string | URL | UpstreamOptions

export interface UpstreamOptions {
  /** `http:`, `https:` or `unix:`. A path is a base that every request stays under. No query, no fragment, no credentials. */
  readonly url: string | URL
  /** Default: the URL, normalised. Give your own when addresses change but identity stays. */
  readonly id?: string
  /**
   * The name the server goes by, `app.internal` or `app.internal:8443`, when `url` holds only an address: sent as `Host` with
   * `hostHeader: 'upstream'`, and over TLS the server name that is asked for and that the certificate must have. Default: the host of `url`.
   */
  readonly host?: string
  /** Relative share of requests, a whole number from 0 to 65535; 0 receives none but keeps affinity. Default 1. */
  readonly weight?: number
  /** Tier, from 0; see `Upstream.priority`. Default 0. */
  readonly priority?: number
  /** Shorthand for `priority: 1`. */
  readonly backup?: boolean
  /** Most exchanges at once to this upstream. Default: the pool's `maxConcurrent`. */
  readonly maxConcurrent?: number
  readonly meta?: Readonly<Record<string, unknown>>
}

/** The pool's own, changeable upstream. */
export class PoolUpstream implements Upstream {
  readonly id: string
  readonly url: URL
  readonly host: string | undefined
  weight: number
  configuredWeight: number
  priority: number
  state: UpstreamState = 'up'
  degraded: boolean = false
  inflight: number = 0
  maxConcurrent: number
  configuredLimit: number
  latencyMs: number = 0
  meta: Readonly<Record<string, unknown>>
  /** Base path, '' when none. */
  readonly base: string
  /** `host:port` for the Host field, port only when not the default. */
  readonly authority: string
  /** What health policies say of it. */
  verdicts: Verdicts | undefined = undefined
  /** The application drains it. */
  draining: boolean = false
  /** Has left the pool; attempts may still run. */
  gone: boolean = false
  /** Why it is in its state; undefined as long as nothing happened to it. */
  reason: string | undefined = undefined
  /** Since when, milliseconds of the epoch. */
  since: number = Date.now()
  /** First of the intrusive list of running attempts. */
  running: Attempt | undefined = undefined
  /** Called when `inflight` reaches 0 while draining or gone. */
  onIdle: (() => void)[] | undefined = undefined

  constructor(
    url: URL,
    id: string,
    host: string | undefined,
    weight: number,
    priority: number,
    maxConcurrent: number,
    meta: Readonly<Record<string, unknown>>,
  ) {
    this.id = id
    this.url = url
    this.host = host
    this.weight = weight
    this.configuredWeight = weight
    this.priority = priority
    this.maxConcurrent = maxConcurrent
    this.configuredLimit = maxConcurrent
    this.meta = meta
    const unix = url.protocol === 'unix:'
    this.base = unix ? '' : url.pathname.replace(/\/+$/, '')
    this.authority = host ?? (unix ? 'localhost' : url.host)
  }

  get full(): boolean {
    return this.inflight >= this.maxConcurrent
  }

  /** Takes over what may change without its being another server; true when anything did. */
  adopt(next: PoolUpstream): boolean {
    const same =
      this.configuredWeight === next.configuredWeight &&
      this.priority === next.priority &&
      this.configuredLimit === next.configuredLimit &&
      isDeepStrictEqual(this.meta, next.meta)
    if (same) return false
    this.configuredWeight = next.configuredWeight
    this.priority = next.priority
    this.configuredLimit = next.configuredLimit
    this.meta = next.meta
    this.rate()
    return true
  }

  /** Weight and cap anew, after either the configured ones or what policies say has changed. */
  rate(): void {
    this.weight = this.configuredWeight * (this.verdicts?.factor ?? 1)
    this.maxConcurrent = Math.min(this.configuredLimit, this.verdicts?.limit ?? Number.POSITIVE_INFINITY)
  }

  /** Moving average over about the last ten responses: enough to show and to compare, cheap enough for every request. */
  observe(headMs: number): void {
    this.latencyMs = this.latencyMs === 0 ? headMs : this.latencyMs + (headMs - this.latencyMs) * 0.1
  }
}

function isHost(value: unknown): boolean {
  const match = typeof value === 'string' ? /^[a-z0-9._-]+(?::(\d{1,5}))?$/i.exec(value) : null
  return match !== null && Number(match[1] ?? 0) <= 65_535
}

const upstreamKeys = ['url', 'id', 'host', 'weight', 'priority', 'backup', 'maxConcurrent', 'meta']

/** Reads one entry of `upstreams`; undefined when it was wrong, with the problems recorded. */
export function parseUpstream(input: unknown, read: OptionReader, maxConcurrent: number): PoolUpstream | undefined {
  const shorthand = typeof input === 'string' || input instanceof URL
  const given = shorthand
    ? ({ url: input } as UpstreamOptions)
    : (read.object(input as UpstreamOptions | undefined, upstreamKeys) as UpstreamOptions)
  const name = shorthand ? '' : 'url'
  const url = parseUrl(given.url, name, read)
  if (given.backup !== undefined && given.priority !== undefined)
    read.problem('backup', given.backup, '`priority` or `backup`, not both (backup: true is priority: 1)')
  const backup = read.boolean('backup', given.backup, false)
  const priority = read.number('priority', given.priority, backup ? 1 : 0, { min: 0, max: 1000, integer: true })
  const weight = read.number('weight', given.weight, 1, { min: 0, max: 65_535, integer: true })
  const limit = read.number('maxConcurrent', given.maxConcurrent, maxConcurrent, { min: 1 })
  if (given.id !== undefined && (typeof given.id !== 'string' || given.id === '')) read.problem('id', given.id, 'a non-empty string')
  if (given.host !== undefined && !isHost(given.host))
    read.problem('host', given.host, "a host name with or without a port, such as 'app.internal:8443'")
  if (given.meta !== undefined && (typeof given.meta !== 'object' || given.meta === null)) read.problem('meta', given.meta, 'an object')
  if (url === undefined) return undefined
  return new PoolUpstream(url, given.id ?? url.href.replace(/\/+$/, ''), given.host, weight, priority, limit, given.meta ?? {})
}

function parseUrl(value: unknown, name: string, read: OptionReader): URL | undefined {
  const expected = "a URL such as 'http://10.0.0.1:3000', 'https://api.internal' or 'unix:/run/app.sock'"
  let url: URL
  try {
    if (typeof value !== 'string' && !(value instanceof URL)) throw new TypeError('not a URL')
    url = new URL(value)
  } catch {
    read.problem(name, value, expected)
    return undefined
  }
  const known =
    url.protocol === 'http:' || url.protocol === 'https:' || (url.protocol === 'unix:' && url.host === '' && url.pathname.length > 1)
  if (!known) read.problem(name, value, expected)
  else if (url.username !== '' || url.password !== '')
    read.problem(name, `${url.protocol}//***@${url.host}`, 'a URL without credentials; send them with `headers.request.set`')
  else if (url.search !== '' || url.hash !== '') read.problem(name, value, 'a URL without query and fragment; rewrite targets with a route')
  else return url
  return undefined
}
