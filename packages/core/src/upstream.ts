/**
 * An upstream is one server of a pool: an address, a weight, and what the proxy knows of it now. The pool alone changes it; balancers and
 * stages read it. `inflight` is the number that most strategies stand on, so it counts from the pick to the end of the body, not to the
 * head: a server that streams is busy.
 */

export type UpstreamState = 'up' | 'down' | 'draining'

export interface Upstream {
  /** Stable over restarts and reordering; cookies and hash rings use it, never a list index. Default: the URL without a trailing slash. */
  readonly id: string
  readonly url: URL
  readonly weight: number
  /** 0 is used first; a tier is used only while every lower tier has nobody `up`. `backup: true` is priority 1. */
  readonly priority: number
  readonly state: UpstreamState
  /** Exchanges in flight; released at the end of the body. */
  readonly inflight: number
  /** Most exchanges at once, `Infinity` when not limited. */
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
