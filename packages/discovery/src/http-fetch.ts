/**
 * One GET with a limit to everything: time, length, hops. Redirects are not followed, since they would lead wherever the answer says; codings are not
 * taken, since a few KiB can unpack to as much memory as there is. Its connection does not keep the process alive, and is not kept.
 */
import { type Agent, type IncomingHttpHeaders, type OutgoingHttpHeaders, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { Clock } from '@weir/core'

export interface Fetching {
  readonly url: URL
  readonly headers: OutgoingHttpHeaders
  readonly agent: Agent | undefined
  /** For the whole of it, milliseconds. */
  readonly timeout: number
  readonly maxSize: number
  readonly clock: Clock
  readonly signal: AbortSignal
}

export interface Fetched {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Uint8Array
}

export class TooLarge extends Error {}

/** Rejects when there is no whole answer: with node's errors, `TooLarge`, or what `signal` was aborted with. */
export function fetchOnce({ url, headers, agent, timeout, maxSize, clock, signal }: Fetching): Promise<Fetched> {
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? requestHttps : requestHttp
    const request = send(url, { headers, agent: agent ?? false, signal })
    const timer = clock.setTimeout(() => fail(new Error(`no whole answer within ${timeout} ms`)), timeout)
    const fail = (error: Error): void => {
      clock.clearTimeout(timer)
      reject(error)
      request.destroy()
    }
    request.on('socket', (socket) => void socket.unref())
    request.on('error', fail)
    request.on('upgrade', (_response, socket) => {
      socket.destroy()
      fail(new Error('the protocol was switched'))
    })
    request.on('response', (response) => {
      const chunks: Buffer[] = []
      let length = 0
      response.on('error', fail)
      response.on('data', (chunk: Buffer) => {
        length += chunk.length
        if (length > maxSize) fail(new TooLarge(`the answer is longer than ${maxSize} bytes (\`maxSize\`)`))
        else chunks.push(chunk)
      })
      response.on('end', () => {
        clock.clearTimeout(timer)
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) })
      })
    })
    request.end()
  })
}
