/**
 * The head of a request as node:http is to write it. Core hands over fields without framing; exactly one framing field is added here, and
 * never by node, whose default (chunked for every method that may have a body) is decided before it can know that there is none. Lengths
 * that contradict each other are refused: two parties who disagree about where a body ends are what request smuggling is made of.
 */
import { isField } from '../headers.ts'
import type { UpstreamRequest } from './transport.ts'

export interface WireHead {
  readonly method: string
  readonly path: string
  /** Flat list with framing. */
  readonly headers: string[]
  /** Bytes of the body, 0 for none, -1 for chunked. */
  readonly length: number
}

// Nobody expects a body of these, and node adds no framing to them by itself: a `Content-Length: 0` would be noise.
const bodiless: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'])

/** @throws TypeError when `Content-Length` contradicts the body, or the method would turn the connection into a tunnel */
export function frame(request: Omit<UpstreamRequest, 'timeouts'>): WireHead {
  const { method, path, body } = request
  if (method === 'CONNECT') throw new TypeError('CONNECT is not a request that can be sent here')
  const length = body === undefined ? 0 : (body.length ?? -1)
  const headers: string[] = []
  let at = -1
  for (let i = 0; i < request.headers.length; i += 2) {
    const name = request.headers[i] as string
    const value = request.headers[i + 1] as string
    if (isField(name, 'content-length')) {
      if (at >= 0 || !/^\d+$/.test(value) || Number(value) !== length)
        throw new TypeError(`Content-Length ${value} is not the body's ${length === -1 ? 'chunked' : length}`)
      at = headers.length
    } else if (isField(name, 'content-disposition')) {
      // Behind a Content-Length, node reads this value as latin1 and writes it as UTF-8, which changes its octets: let the length follow.
      if (at >= 0) {
        headers.push(...headers.splice(at, 2))
        headers.splice(-2, 0, name, value)
        at = headers.length - 2
        continue
      }
    } else if (isField(name, 'expect')) {
      // The continuation is a matter between client and proxy, and a head with Expect is one that node writes as UTF-8.
      continue
    } else if (length !== -1 && isField(name, 'trailer')) {
      // Only a chunked body has trailers, and node throws at the announcement of others.
      continue
    }
    headers.push(name, value)
  }
  if (length === -1) headers.push('Transfer-Encoding', 'chunked')
  else if (at < 0 && (length > 0 || !bodiless.has(method))) headers.push('Content-Length', String(length))
  return { method, path, headers, length }
}
