/**
 * What a client sees of a failure: a status, a short text that says nothing of the inside, and the machine-readable reason in `Proxy-Status`
 * (RFC 9209), so that operators can tell a refused connection from a slow one without a log.
 */
import type { ProxyError } from './errors.ts'
import type { Reply } from './stage.ts'

const phrases: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  413: 'Content Too Large',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

export function errorReply(error: ProxyError, proxyName: string): Reply {
  const headers: Record<string, string> = { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store' }
  headers['Proxy-Status'] =
    error.type === undefined ? `${proxyName}; details="${error.code}"` : `${proxyName}; error=${error.type}; details="${error.code}"`
  if (error.code === 'ERR_METHOD') headers.Allow = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY'
  if (error.status === 503) headers['Retry-After'] = '1'
  return { status: error.status, headers, body: `${error.status} ${phrases[error.status] ?? 'Error'}\n` }
}
