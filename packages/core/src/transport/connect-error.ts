/**
 * What went wrong between the proxy and an upstream, in Weir's words. Sockets, TLS, node:http and undici each report failures in their own
 * vocabulary, and one system code can mean different things: a reset while TLS is being agreed is a TLS failure, before the head it may be a
 * stale pooled connection, behind the head it is a truncated body. So the code is decided by the system code *and* by how far the call had
 * come, and what decides is how safe a second try is: a code whose row in errors.ts says `retry: true` may only be given where it is
 * certain that the upstream has not seen the request.
 */
import type { ErrorCode } from '../errors.ts'
import { errorTable, ProxyError } from '../errors.ts'
import type { Upstream } from '../upstream.ts'

/** How far a call had come: no connection yet, waiting for the final head, or behind it. */
export type CallPhase = 'connect' | 'head' | 'body'

/** Codes that mean one thing wherever they are met. */
const fixed: Readonly<Record<string, ErrorCode>> = {
  ECONNREFUSED: 'ERR_CONNECT_REFUSED',
  ENOTFOUND: 'ERR_DNS',
  EAI_AGAIN: 'ERR_DNS',
  EAI_FAIL: 'ERR_DNS',
  EAI_NODATA: 'ERR_DNS',
  ENODATA: 'ERR_DNS',
  ESERVFAIL: 'ERR_DNS',
  UND_ERR_CONNECT_TIMEOUT: 'ERR_CONNECT_TIMEOUT',
  ERR_SOCKET_CONNECTION_TIMEOUT: 'ERR_CONNECT_TIMEOUT',
  UND_ERR_HEADERS_TIMEOUT: 'ERR_HEAD_TIMEOUT',
  UND_ERR_BODY_TIMEOUT: 'ERR_BODY_TIMEOUT',
  UND_ERR_REQ_CONTENT_LENGTH_MISMATCH: 'ERR_REQUEST_NOT_SENT',
  UND_ERR_INVALID_ARG: 'ERR_REQUEST_NOT_SENT',
  UND_ERR_NOT_SUPPORTED: 'ERR_REQUEST_NOT_SENT',
  UND_ERR_DESTROYED: 'ERR_REQUEST_NOT_SENT',
  UND_ERR_CLOSED: 'ERR_REQUEST_NOT_SENT',
  ERR_INVALID_CHAR: 'ERR_REQUEST_NOT_SENT',
  ERR_INVALID_HTTP_TOKEN: 'ERR_REQUEST_NOT_SENT',
  ERR_UNESCAPED_CHARACTERS: 'ERR_REQUEST_NOT_SENT',
  ERR_HTTP_INVALID_HEADER_VALUE: 'ERR_REQUEST_NOT_SENT',
  ERR_HTTP_CONTENT_LENGTH_MISMATCH: 'ERR_REQUEST_NOT_SENT',
  ERR_HTTP_TRAILER_INVALID: 'ERR_REQUEST_NOT_SENT',
  ERR_INVALID_ARG_TYPE: 'ERR_REQUEST_NOT_SENT',
  ERR_INVALID_ARG_VALUE: 'ERR_REQUEST_NOT_SENT',
}

/** No route, no interface, no descriptor, no socket file. On an established connection the same codes mean that it broke. */
const unreachable: ReadonlySet<string> = new Set([
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EHOSTDOWN',
  'ENETDOWN',
  'EADDRNOTAVAIL',
  'EADDRINUSE',
  'EAFNOSUPPORT',
  'EINVAL',
  'EMFILE',
  'ENFILE',
  'ENOBUFS',
  'ENOENT',
  'ENOTSOCK',
  'EACCES',
  'EPERM',
])

// The names of OpenSSL's X509_V_ERR_* as Node reports them.
const certificate =
  /^(?:CERT_|CRL_|UNABLE_TO_|ERROR_IN_C|DEPTH_ZERO_SELF_SIGNED_CERT$|SELF_SIGNED_CERT_IN_CHAIN$|INVALID_CA$|INVALID_PURPOSE$|PATH_LENGTH_EXCEEDED$|HOSTNAME_MISMATCH$|ERR_TLS_CERT_ALTNAME_)/
const tls = /^(?:EPROTO$|ERR_SSL_|ERR_TLS_)/
// TLS 1.3 lets a client send its request before the server has judged the client's certificate: these alerts come with the head awaited,
// and mean that the server has read nothing. Other alerts (a bad record) can come at any time and do not.
const handshakeAlert =
  /ALERT_.*(?:CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE|PROTOCOL_VERSION|INSUFFICIENT_SECURITY|UNRECOGNIZED_NAME)/

interface SystemError {
  readonly name?: unknown
  readonly code?: unknown
  readonly syscall?: unknown
  readonly message?: unknown
}

/**
 * The `ProxyError` of a failure that a socket, TLS, node:http or undici reported, with that failure as `cause`.
 * @param phase `connect` until the connection (TLS included) is there, `head` until the final head, then `body`
 * @param upstream named by the error; its scheme tells a failed handshake from a reset
 */
export function toProxyError(error: unknown, phase: CallPhase, upstream?: Upstream): ProxyError {
  if (ProxyError.is(error)) return error
  const code = codeOf(error, phase, upstream)
  const detail = messageOf(error)
  return new ProxyError(code, {
    cause: error,
    upstream,
    ...(detail === '' ? {} : { message: `${errorTable[code].text} ${detail}` }),
  })
}

function codeOf(error: unknown, phase: CallPhase, upstream: Upstream | undefined): ErrorCode {
  const { name: kind, code: name, syscall, message } = (typeof error === 'object' && error !== null ? error : {}) as SystemError
  const inner = (error as { errors?: unknown } | null | undefined)?.errors
  if (Array.isArray(inner) && inner.length > 0) return ofAddresses(inner, upstream)
  // undici's parser errors mostly come without their code.
  if (kind === 'HTTPParserError') return ofParser(name, message, phase)
  if (typeof name !== 'string') return broken(phase, message, upstream)

  const known = fixed[name]
  if (known !== undefined) return known
  // `syscall` decides over the caller's idea of the phase: a connect call that failed has sent nothing.
  const connecting = phase === 'connect' || syscall === 'connect'
  if (name === 'ETIMEDOUT') return connecting ? 'ERR_CONNECT_TIMEOUT' : broken(phase, message, upstream)
  if (unreachable.has(name)) return connecting ? 'ERR_UNREACHABLE' : broken(phase, message, upstream)
  if (certificate.test(name)) return 'ERR_TLS_CERTIFICATE'
  if (tls.test(name)) {
    if (phase === 'connect' || (phase === 'head' && handshakeAlert.test(name))) return 'ERR_TLS'
    return broken(phase, message, upstream)
  }
  if (name.startsWith('HPE_')) return ofParser(name, message, phase)
  if (name === 'UND_ERR_HEADERS_OVERFLOW') return phase === 'body' ? 'ERR_UPSTREAM_BODY' : 'ERR_UPSTREAM_HEAD'
  // undici also says this when a head is malformed behind its Content-Length line.
  if (name === 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH') return phase === 'body' ? 'ERR_UPSTREAM_BODY' : 'ERR_UPSTREAM_PROTOCOL'
  return broken(phase, message, upstream)
}

/** The connection broke, or something unknown happened to it. */
function broken(phase: CallPhase, message: unknown, upstream: Upstream | undefined): ErrorCode {
  const text = typeof message === 'string' ? message : ''
  if (text === 'bad upgrade') return 'ERR_UPGRADE_RESPONSE'
  if (phase === 'body') return 'ERR_UPSTREAM_BODY'
  if (text === 'bad response') return 'ERR_UPSTREAM_PROTOCOL'
  if (text.includes('before secure TLS connection')) return 'ERR_TLS'
  if (phase === 'connect' && upstream?.url.protocol === 'https:') return 'ERR_TLS'
  return 'ERR_UPSTREAM_RESET'
}

function ofParser(name: unknown, message: unknown, phase: CallPhase): ErrorCode {
  if (phase === 'body') return 'ERR_UPSTREAM_BODY'
  if (name === 'HPE_HEADER_OVERFLOW') return 'ERR_UPSTREAM_HEAD'
  if (name === 'HPE_INVALID_EOF_STATE') return 'ERR_UPSTREAM_RESET'
  if (name === 'HPE_INVALID_STATUS' || String(message).includes('Invalid status code')) return 'ERR_UPSTREAM_STATUS'
  return 'ERR_UPSTREAM_PROTOCOL'
}

// A name with several addresses failed at each: a refusal says most (a host is there), then a silence, then a missing route.
const informative: readonly ErrorCode[] = ['ERR_CONNECT_REFUSED', 'ERR_CONNECT_TIMEOUT', 'ERR_UNREACHABLE']

function ofAddresses(errors: readonly unknown[], upstream: Upstream | undefined): ErrorCode {
  const codes = errors.map((error) => codeOf(error, 'connect', upstream))
  return informative.find((code) => codes.includes(code)) ?? (codes[0] as ErrorCode)
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return error === undefined ? '' : `(${String(error)})`
  const inner = (error as { errors?: unknown }).errors
  // An AggregateError's own message is empty.
  if (Array.isArray(inner) && inner.length > 0) return `(${inner.map((e) => (e instanceof Error ? e.message : String(e))).join('; ')})`
  return error.message === '' ? '' : `(${error.message})`
}
