/**
 * Every failure that Weir makes or meets is one `ProxyError` with a code from one table. The table is the single source for the status
 * that the client sees, the machine-readable reason of `Proxy-Status` (RFC 9209 §2.3) and the page in docs/errors.md; a test compares the
 * page with the table. Errors are values that travel to `onError` and `onFinish`: nothing here is ever emitted, so nothing can crash a
 * process for want of a listener.
 */
import type { Upstream } from './upstream.ts'

export type ErrorSource = 'client' | 'upstream' | 'proxy'
export type ErrorPhase = 'request' | 'route' | 'stage' | 'queue' | 'connect' | 'send' | 'head' | 'body' | 'tunnel'

export interface ErrorKind {
  readonly status: number
  readonly source: ErrorSource
  readonly phase: ErrorPhase
  /** RFC 9209 proxy error type; undefined where that registry has no name for it. */
  readonly type: string | undefined
  /** Whether a second try is safe whatever the method: `if-reused` means for idempotent methods only (the request may have been processed). */
  readonly retry: boolean | 'if-reused'
  /** The line in docs/errors.md, and the default message. */
  readonly text: string
}

const kind = (
  status: number,
  source: ErrorSource,
  phase: ErrorPhase,
  type: string | undefined,
  retry: boolean | 'if-reused',
  text: string,
): ErrorKind => ({ status, source, phase, type, retry, text })

/** Every code; the table below must name each of them, so adding one here without a row does not compile. */
export type ErrorCode =
  | 'ERR_FRAMING'
  | 'ERR_HOST'
  | 'ERR_TARGET'
  | 'ERR_HEADER_VALUE'
  | 'ERR_METHOD'
  | 'ERR_TRANSFER_CODING'
  | 'ERR_UPGRADE_REQUEST'
  | 'ERR_BODY_TOO_LARGE'
  | 'ERR_BODY_TOO_SLOW'
  | 'ERR_TOO_MANY_FIELDS'
  | 'ERR_TRAILERS_TOO_LARGE'
  | 'ERR_BODY_CODING'
  | 'ERR_BODY_CONSUMED'
  | 'ERR_CLIENT_ABORTED'
  | 'ERR_NO_ROUTE'
  | 'ERR_NO_UPSTREAM'
  | 'ERR_DRAINING'
  | 'ERR_STAGE'
  | 'ERR_CIRCUIT_OPEN'
  | 'ERR_OVERLOADED'
  | 'ERR_QUEUE_FULL'
  | 'ERR_QUEUE_TIMEOUT'
  | 'ERR_DEADLINE'
  | 'ERR_DNS'
  | 'ERR_CONNECT_REFUSED'
  | 'ERR_CONNECT_TIMEOUT'
  | 'ERR_UNREACHABLE'
  | 'ERR_ADDRESS_DENIED'
  | 'ERR_TLS'
  | 'ERR_TLS_CERTIFICATE'
  | 'ERR_UPSTREAM_RESET'
  | 'ERR_HEAD_TIMEOUT'
  | 'ERR_UPSTREAM_PROTOCOL'
  | 'ERR_UPSTREAM_HEAD'
  | 'ERR_UPSTREAM_STATUS'
  | 'ERR_UPSTREAM_CODING'
  | 'ERR_UPGRADE_RESPONSE'
  | 'ERR_UPSTREAM_BODY'
  | 'ERR_BODY_TIMEOUT'
  | 'ERR_UPSTREAM_DOWN'
  | 'ERR_HEDGE_LOST'
  | 'ERR_REQUEST_NOT_SENT'
  | 'ERR_TUNNEL_IDLE'
  | 'ERR_TUNNEL_BROKEN'

// biome-ignore format: one row per line reads as the table it is
export const errorTable: Readonly<Record<ErrorCode, ErrorKind>> = {
  ERR_FRAMING: kind(400, 'client', 'request', 'http_request_error', false, 'The request is framed ambiguously (Content-Length and Transfer-Encoding).'),
  ERR_HOST: kind(400, 'client', 'request', 'http_request_error', false, 'The Host field is missing, repeated, invalid, or contradicts the target.'),
  ERR_TARGET: kind(400, 'client', 'request', 'http_request_error', false, 'The request target is malformed or leaves the allowed base path.'),
  ERR_HEADER_VALUE: kind(400, 'client', 'request', 'http_request_error', false, 'A header field holds an octet that HTTP forbids.'),
  ERR_METHOD: kind(405, 'client', 'request', 'http_request_denied', false, 'The method is refused (CONNECT and TRACE always are).'),
  ERR_TRANSFER_CODING: kind(501, 'client', 'request', 'http_request_error', false, 'The transfer coding is not supported; only chunked is.'),
  ERR_UPGRADE_REQUEST: kind(400, 'client', 'request', 'http_request_error', false, 'The upgrade request is malformed, has a body, or asks for a protocol that is not tunnelled.'),
  ERR_BODY_TOO_LARGE: kind(413, 'client', 'request', 'http_request_error', false, 'The request body is larger than `maxBodySize`.'),
  ERR_BODY_TOO_SLOW: kind(408, 'client', 'request', 'http_request_error', false, 'The request body comes more slowly than the proxy waits for.'),
  ERR_TOO_MANY_FIELDS: kind(431, 'client', 'request', 'http_request_error', false, 'The request has more fields than node:http may have kept.'),
  ERR_TRAILERS_TOO_LARGE: kind(431, 'client', 'request', 'http_request_error', false, 'The trailer section behind the request body is larger than a stage allows.'),
  ERR_BODY_CODING: kind(400, 'client', 'request', 'http_request_error', false, 'The request body cannot be decoded: it is damaged, cut short, or not what `Content-Encoding` says.'),
  ERR_BODY_CONSUMED: kind(500, 'proxy', 'request', 'proxy_configuration_error', false, 'The request body was read before Weir saw it and cannot be rebuilt.'),
  ERR_CLIENT_ABORTED: kind(499, 'client', 'request', undefined, false, 'The client left before the response was complete.'),
  ERR_NO_ROUTE: kind(404, 'proxy', 'route', 'destination_not_found', false, 'No route matches the request.'),
  ERR_NO_UPSTREAM: kind(503, 'proxy', 'route', 'destination_unavailable', false, 'The pool has no upstream that may be used.'),
  ERR_DRAINING: kind(503, 'proxy', 'route', 'destination_unavailable', false, 'The proxy is closing and takes no new work.'),
  ERR_STAGE: kind(500, 'proxy', 'stage', 'proxy_internal_error', false, 'A stage, hook, balancer or store threw.'),
  ERR_CIRCUIT_OPEN: kind(503, 'proxy', 'queue', 'destination_unavailable', false, 'The circuit breaker of the pool is open.'),
  ERR_OVERLOADED: kind(503, 'proxy', 'queue', 'connection_limit_reached', false, 'A concurrency limit of the pool is reached.'),
  ERR_QUEUE_FULL: kind(503, 'proxy', 'queue', 'connection_limit_reached', false, 'Every upstream is at its concurrency cap and the queue is full.'),
  ERR_QUEUE_TIMEOUT: kind(504, 'proxy', 'queue', 'connection_limit_reached', false, 'No slot became free within `queue.timeout`.'),
  ERR_DEADLINE: kind(504, 'proxy', 'head', 'http_response_timeout', false, 'The total deadline `timeouts.total` passed.'),
  ERR_DNS: kind(502, 'upstream', 'connect', 'dns_error', true, 'The upstream name could not be resolved.'),
  ERR_CONNECT_REFUSED: kind(502, 'upstream', 'connect', 'connection_refused', true, 'The upstream refused the connection.'),
  ERR_CONNECT_TIMEOUT: kind(504, 'upstream', 'connect', 'connection_timeout', true, 'No connection to the upstream within `timeouts.connect`.'),
  ERR_UNREACHABLE: kind(502, 'upstream', 'connect', 'destination_ip_unroutable', true, 'The upstream cannot be reached (route, interface, socket path or file limit).'),
  ERR_ADDRESS_DENIED: kind(502, 'upstream', 'connect', 'destination_ip_prohibited', true, 'The address of the upstream is not one that the pool may connect to.'),
  ERR_TLS: kind(502, 'upstream', 'connect', 'tls_protocol_error', true, 'The TLS handshake with the upstream failed.'),
  ERR_TLS_CERTIFICATE: kind(502, 'upstream', 'connect', 'tls_certificate_error', true, 'The certificate of the upstream is not trusted.'),
  ERR_UPSTREAM_RESET: kind(502, 'upstream', 'head', 'connection_terminated', 'if-reused', 'The upstream closed the connection before a response head.'),
  ERR_HEAD_TIMEOUT: kind(504, 'upstream', 'head', 'http_response_timeout', 'if-reused', 'No response head within `timeouts.head`.'),
  ERR_UPSTREAM_PROTOCOL: kind(502, 'upstream', 'head', 'http_protocol_error', false, 'The upstream answered something that is not HTTP/1.1.'),
  ERR_UPSTREAM_HEAD: kind(502, 'upstream', 'head', 'http_response_header_section_size', false, 'The response head is too large or has too many fields.'),
  ERR_UPSTREAM_STATUS: kind(502, 'upstream', 'head', 'http_protocol_error', false, 'The upstream answered with a status or reason phrase that HTTP forbids.'),
  ERR_UPSTREAM_CODING: kind(502, 'upstream', 'head', 'http_response_transfer_coding', false, 'The response has a transfer coding other than chunked, which nobody asked for.'),
  ERR_UPGRADE_RESPONSE: kind(502, 'upstream', 'head', 'http_upgrade_failed', false, 'The upstream switched protocols wrongly or unasked.'),
  ERR_UPSTREAM_BODY: kind(502, 'upstream', 'body', 'http_response_incomplete', false, 'The response body broke off.'),
  ERR_BODY_TIMEOUT: kind(504, 'upstream', 'body', 'http_response_timeout', false, 'No body byte from the upstream within `timeouts.idle`.'),
  ERR_UPSTREAM_DOWN: kind(502, 'upstream', 'head', 'destination_unavailable', 'if-reused', 'The upstream was taken down while it worked on the request.'),
  ERR_HEDGE_LOST: kind(502, 'proxy', 'head', undefined, false, 'Another try of the same request answered first; seen by policies and events only.'),
  ERR_REQUEST_NOT_SENT: kind(502, 'proxy', 'send', 'proxy_internal_error', false, 'The request could not be written in HTTP/1.1.'),
  ERR_TUNNEL_IDLE: kind(504, 'proxy', 'tunnel', 'connection_timeout', false, 'The tunnel was silent for `timeouts.tunnelIdle`.'),
  ERR_TUNNEL_BROKEN: kind(502, 'upstream', 'tunnel', 'connection_terminated', false, 'A side of the tunnel broke.'),
}

/** Why an exchange ended: `completed`, or the code of its error. `ERR_CLIENT_ABORTED` is a client that left. */
export type TerminationReason = 'completed' | ErrorCode

const brand = Symbol.for('weir.ProxyError')

export interface ProxyErrorOptions {
  readonly message?: string
  readonly cause?: unknown
  readonly upstream?: Upstream | undefined
  readonly attempt?: number | undefined
}

export class ProxyError extends Error {
  override readonly name: string = 'ProxyError'
  readonly code: ErrorCode
  readonly source: ErrorSource
  readonly phase: ErrorPhase
  /** Status of the default answer. */
  readonly status: number
  readonly retry: boolean | 'if-reused'
  /** RFC 9209 error type for `Proxy-Status`. */
  readonly type: string | undefined
  /** The message names upstreams and belongs in logs; it is never sent to a client. */
  upstream: Upstream | undefined
  attempt: number | undefined

  constructor(code: ErrorCode, options: ProxyErrorOptions = {}) {
    const row = errorTable[code]
    super(options.message ?? row.text, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.source = row.source
    this.phase = row.phase
    this.status = row.status
    this.retry = row.retry
    this.type = row.type
    this.upstream = options.upstream
    this.attempt = options.attempt
    Object.defineProperty(this, brand, { value: true })
  }

  /** True for errors of every copy of this package: two copies in one process have two classes. */
  static is(value: unknown): value is ProxyError {
    return typeof value === 'object' && value !== null && brand in value
  }
}
