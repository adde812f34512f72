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
  const [type = '', ...parameters] = (req.headers['content-type'] ?? '')
    .toLowerCase()
    .split(';')
    .map((part) => part.trim())
  // Body parsers unpack what was encoded, and nobody can tell whether the bytes they keep are packed.
  const encoding = req.headers['content-encoding']
  if (encoding === undefined || encoding.toLowerCase() === 'identity') {
    for (const value of [rawBody, body])
      if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    const charset = parameters
      .find((part) => part.startsWith('charset='))
      ?.slice(8)
      .replaceAll('"', '')
    // Text is written as UTF-8: where the request names another charset, its bytes were others.
    if (charset === undefined || charset === 'utf-8' || charset === 'utf8' || charset === 'us-ascii') {
      const text = typeof rawBody === 'string' ? rawBody : rewrite(body, type)
      if (text !== undefined) return Buffer.from(text)
    }
  }
  throw new ProxyError('ERR_BODY_CONSUMED', {
    message: `The body of this ${type || 'untyped'} request was consumed before the proxy and cannot be rebuilt. Mount the proxy before the body parser, or keep the bytes as req.rawBody.`,
  })
}

/** The parsed value in the media type that it came in; undefined where that would be a guess. */
function rewrite(body: unknown, type: string): string | undefined {
  if (body === undefined || body === null) return undefined
  if (type === 'application/json' || type.endsWith('+json')) {
    // A string may be the text of a JSON document or a JSON document that is a string.
    if (typeof body === 'string') return undefined
    try {
      return JSON.stringify(body)
    } catch {
      return undefined
    }
  }
  if (typeof body === 'string') return body
  if (type !== 'application/x-www-form-urlencoded' || !isFlat(body)) return undefined
  const form = new URLSearchParams()
  for (const [name, value] of Object.entries(body)) for (const entry of [value].flat()) form.append(name, String(entry))
  return form.toString()
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
