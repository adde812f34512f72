/**
 * What a balancing strategy needs to see, without a socket: upstreams whose load can be set, and exchanges with a client and a list of
 * upstreams already tried. Both have every field of the real ones, because a strategy of your own may read any of them.
 */
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { type AttemptOutcome, type Exchange, HeaderList, type Upstream, type UpstreamState } from '@weir/core'

export interface StubUpstreamOptions {
  /** Default `a`. When it is a URL, it is the address too; otherwise that is `http://upstream.test/`. */
  readonly id?: string
  /** Default 1. */
  readonly weight?: number
  /** Default: `weight`. */
  readonly configuredWeight?: number
  /** Default 0. */
  readonly inflight?: number
  /** Default `Infinity`. */
  readonly maxConcurrent?: number
  /** Default 0. */
  readonly latencyMs?: number
  readonly meta?: Readonly<Record<string, unknown>>
}

/** An upstream as a pool would present it; the test plays the pool, so what a pool changes can be set. */
export interface StubUpstream extends Upstream {
  weight: number
  state: UpstreamState
  degraded: boolean
  inflight: number
  maxConcurrent: number
  latencyMs: number
}

// A class, so that `full` follows `inflight` as it does in a pool, and all stubs share one shape, which the strategies' speed depends on.
class Stub implements StubUpstream {
  readonly id: string
  readonly url: URL
  readonly host: string | undefined = undefined
  weight: number
  readonly configuredWeight: number
  readonly priority: number = 0
  state: UpstreamState = 'up'
  degraded: boolean = false
  inflight: number
  maxConcurrent: number
  latencyMs: number
  readonly meta: Readonly<Record<string, unknown>>

  constructor(options: StubUpstreamOptions) {
    this.id = options.id ?? 'a'
    this.url = new URL(URL.canParse(this.id) ? this.id : 'http://upstream.test')
    this.weight = options.weight ?? 1
    this.configuredWeight = options.configuredWeight ?? this.weight
    this.inflight = options.inflight ?? 0
    this.maxConcurrent = options.maxConcurrent ?? Number.POSITIVE_INFINITY
    this.latencyMs = options.latencyMs ?? 0
    this.meta = options.meta ?? {}
  }

  get full(): boolean {
    return this.inflight >= this.maxConcurrent
  }
}

export function stubUpstream(options: StubUpstreamOptions = {}): StubUpstream {
  return new Stub(options)
}

/** One upstream per weight, with the ids `a`, `b` ... `z`, `u26`, `u27` ... */
export function stubUpstreams(weights: readonly number[]): StubUpstream[] {
  return weights.map((weight, index) => stubUpstream({ id: index < 26 ? String.fromCharCode(97 + index) : `u${index}`, weight }))
}

export interface StubExchangeOptions {
  /** Default `192.0.2.1`. */
  readonly clientIp?: string
  /** Default: none. */
  readonly tried?: readonly Upstream[]
  /** Default `GET`. */
  readonly method?: string
  /** Default `/`. */
  readonly url?: string
  readonly hashKey?: string
}

/** An exchange that has a client and a request, and no connection behind it. */
export function stubExchange(options: StubExchangeOptions = {}): Exchange {
  const method = options.method ?? 'GET'
  const url = options.url ?? '/'
  // A socket that was never opened holds no handle: nothing to close.
  const req = new IncomingMessage(new Socket())
  req.method = method
  req.url = url
  return {
    kind: 'request',
    req,
    method,
    hasBody: false,
    url,
    headers: new HeaderList([]),
    clientIp: options.clientIp ?? '192.0.2.1',
    scheme: 'http',
    viaTrustedProxy: false,
    startedAt: 0,
    signal: new AbortController().signal,
    route: undefined,
    tried: options.tried ?? [],
    upstream: undefined,
    affinity: undefined,
    hashKey: options.hashKey,
    locals: {},
    parent: undefined,
    tapRequest: () => {},
    dropTrailers: () => {},
    transformRequest: () => {},
    readBody: () => undefined,
    outlive: () => {},
    fork: () => {
      throw new Error('a fixture cannot be forked')
    },
    fail: () => {},
  }
}

/** The outcome that `release` is told: status 200 after 1 ms. */
export function stubOutcome(upstream: Upstream): AttemptOutcome {
  return {
    upstream,
    number: 1,
    startedAt: 0,
    queuedMs: 0,
    connectMs: undefined,
    lookupMs: undefined,
    tcpMs: undefined,
    tlsMs: undefined,
    headMs: 1,
    uploadMs: 0,
    durationMs: 1,
    reused: true,
    status: 200,
    error: undefined,
  }
}
