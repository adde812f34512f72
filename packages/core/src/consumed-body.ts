/**
 * A body parser in front of the proxy has read the request. The bytes are gone, but what the parser left often says them again: raw bytes if
 * it kept them, else a value that can be written in the same media type. Where that is not certain the request fails at once with a clear
 * error; the alternative is the oldest complaint about Node proxies, a POST that hangs.
 */
import type { IncomingMessage } from 'node:http'
import { ProxyError } from './errors.ts'

interface ParsedRequest extends IncomingMessage {
  body?: unknown
  rawBody?: unknown
}

/** @throws ProxyError ERR_BODY_CONSUMED */
export function consumedBody(req: IncomingMessage): Buffer {
  const { body, rawBody } = req as ParsedRequest
  for (const value of [rawBody, body]) {
    if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    if (typeof value === 'string') return Buffer.from(value)
  }
  const type = (req.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''
  const encoded = req.headers['content-encoding'] !== undefined && req.headers['content-encoding'] !== 'identity'
  if (!encoded && body !== undefined && body !== null) {
    if (type === 'application/json' || type.endsWith('+json')) return Buffer.from(JSON.stringify(body))
    if (type === 'application/x-www-form-urlencoded' && isFlat(body)) {
      const form = new URLSearchParams()
      for (const [name, value] of Object.entries(body)) for (const entry of [value].flat()) form.append(name, String(entry))
      return Buffer.from(form.toString())
    }
  }
  throw new ProxyError('ERR_BODY_CONSUMED', {
    message: `The body of this ${type || 'untyped'} request was consumed before the proxy and cannot be rebuilt. Mount the proxy before the body parser, or keep the bytes as req.rawBody.`,
  })
}

function isFlat(body: unknown): body is Record<string, string | string[]> {
  return (
    typeof body === 'object' &&
    body !== null &&
    Object.values(body).every(
      (value) => typeof value === 'string' || (Array.isArray(value) && value.every((entry) => typeof entry === 'string')),
    )
  )
}
