/**
 * An exchange is one request or upgrade and everything that Weir knows about it. Stages, balancers and hooks all receive the same object.
 * Every field exists from construction, in one order: objects of one shape keep the engine's property access monomorphic on the hot path
 * (`exchange-live.test.ts` guards it).
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { ProxyError, TerminationReason } from './errors.ts'
import type { HeaderList } from './headers.ts'
import type { Route } from './route.ts'
import type { Hooks, MaybePromise, RequestTap, Stage } from './stage.ts'
import type { Upstream } from './upstream.ts'

/** Facts that stages pass to each other. Open for declaration merging: `declare module '@weir/core' { interface ExchangeLocals { user?: User } }`. */
// biome-ignore lint/suspicious/noEmptyInterface: open for declaration merging
export interface ExchangeLocals {}

export interface Exchange {
  readonly kind: 'request' | 'upgrade'
  readonly req: IncomingMessage
  readonly method: string
  /** The request has a body, or announces one. */
  readonly hasBody: boolean
  /** Origin-form target, byte-exact unless a stage rewrites it: to one that begins with a slash, or the exchange fails with `ERR_STAGE`. */
  url: string
  /** Copy-on-write over the raw fields: case, order and duplicates survive. */
  readonly headers: HeaderList
  /** The client's address after the trusted-proxy rules: no port, no brackets, v4-mapped forms folded to IPv4. */
  readonly clientIp: string
  /** How the client reached us: `https` over TLS, or when a trusted proxy says so (`X-Forwarded-Proto`, of a list the first). */
  readonly scheme: 'http' | 'https'
  /** The peer is one of `trustedProxies`: what it says in `Forwarded` and `X-Forwarded-*` goes on to the upstream. */
  readonly viaTrustedProxy: boolean
  /** `performance.now()` at arrival, milliseconds. */
  readonly startedAt: number
  /** Made on first use; aborts on disconnect or deadline. */
  readonly signal: AbortSignal
  readonly route: Route | undefined
  /** Upstreams that this exchange may not be sent to again, oldest first. */
  readonly tried: readonly Upstream[]
  readonly upstream: Upstream | undefined
  /** Wanted upstream id, best effort: used when that upstream is not down, not full and not tried. */
  affinity: string | undefined
  hashKey: string | undefined
  readonly locals: ExchangeLocals
  /** The exchange that this one was forked from; undefined for a client's own. */
  readonly parent: Exchange | undefined
  /**
   * Lets `tap` see the request's body as it comes from the client; it can neither slow nor change it. To be called from `handle`. A request without a
   * body, and one that a stage answers, never calls it; what it throws ends the exchange with a 500.
   */
  tapRequest(tap: RequestTap): void
  /**
   * Keeps trailers of the request from the upstream whose names, as they were sent, `matches`. They come behind the body, when `headers` has long been sent; whoever
   * takes a field off there, so that nobody but the proxy can set it, means these as well. To be called from `handle`; what it throws ends the exchange with a 500.
   */
  dropTrailers(matches: (name: string) => boolean): void
  /**
   * Passes the request's body through `stream` on its way to the upstream: once, however often it is tried. To be called from `handle`; of several, the
   * first called comes first. Core carries back-pressure, drops `Content-Length`, holds the route's `maxBodySize` on both sides, and destroys `stream` when the
   * exchange ends (at once when there is no body). Its error ends the exchange: a `ProxyError` as it is, any other as a 500. Fields that speak of the bytes
   * are the caller's to adjust. Taps see what the client sent.
   */
  transformRequest(stream: Duplex): void
  /**
   * Reads the request's body into memory, from `handle`; it is forwarded from there afterwards. Undefined when it is longer than `limit` bytes, or of unknown
   * length, which it is behind a `transformRequest`: it is left unread then. A request without a body gives an empty one.
   */
  readBody(limit: number): MaybePromise<Uint8Array | undefined>
  /**
   * Asked when the client leaves before the response has ended: with true the exchange goes on without it, for whoever taps the response, and ends as one
   * whose client left. When its deadline passes or a stage fails it in the middle of
   * the answer, its client is broken off and the same holds. The proxy's `close` ends it. Not asked while the request's body is not complete. Of several, one that says true is enough.
   */
  outlive(wanted: () => boolean): void
  /**
   * A request of the proxy's own in the name of this one: it has the same target, fields and (a copy of) `locals`, but no client and no body, and passes only the stages behind
   * `stage`, then an upstream of the same route. `hooks` see its response, outermost.
   */
  fork(stage: Stage, request: ForkRequest, hooks: Hooks): Exchange
  /**
   * Ends the exchange now, whatever it waits for: with the answer that belongs to `error` while nothing has been sent, else by breaking the client's
   * connection off. The upstream's part is cancelled. Nothing happens to an exchange that has ended.
   */
  fail(error: ProxyError): void
}

/** What a fork asks for; what is not given is as in the exchange it comes from. */
export interface ForkRequest {
  readonly method?: string
  readonly url?: string
  /** Called once, before the fork starts, with its own copy of the fields. */
  readonly edit?: (headers: HeaderList) => void
}

/** One try. All durations are milliseconds; undefined means that the phase was not reached. */
export interface AttemptOutcome {
  readonly upstream: Upstream
  /** 1 for the first try. */
  readonly number: number
  /** `performance.now()` when the try began. */
  readonly startedAt: number
  /** Waited for a free slot before this try. */
  readonly queuedMs: number
  /** Name lookup, TCP and TLS together; undefined on a reused connection. */
  readonly connectMs: number | undefined
  /** The parts of `connectMs`: name lookup, TCP, TLS (0 where there was none). Undefined where that is, and from transports that cannot tell. */
  readonly lookupMs: number | undefined
  readonly tcpMs: number | undefined
  readonly tlsMs: number | undefined
  /** From the start of the try to the final response head. */
  readonly headMs: number | undefined
  /**
   * Of that, how long the client was waited for while it sent its body; 0 without one. Not while a connection was made, nor while the upstream took no more: that is
   * the upstream's time. Whoever judges it by its time takes this off, or clients that upload slowly would make it look slow.
   */
  readonly uploadMs: number
  /** From the start of the try to its end. */
  readonly durationMs: number
  readonly reused: boolean
  /** Status of the final head, when there was one. */
  readonly status: number | undefined
  /** Why the try failed; a client that left is an error with source `client` and says nothing about the upstream. */
  readonly error: ProxyError | undefined
}

/** How an exchange ended. */
export interface Outcome {
  /** Status that the client received, or was to receive: 499 when it left first. */
  readonly status: number
  readonly reason: TerminationReason
  readonly error: ProxyError | undefined
  readonly upstream: Upstream | undefined
  readonly attempts: readonly AttemptOutcome[]
  /** Body bytes sent to the client (tunnel: both directions are counted by the tunnel's own event). */
  readonly bytesOut: number
  /** Arrival to end, milliseconds. */
  readonly durationMs: number
}
