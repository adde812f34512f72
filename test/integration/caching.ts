/** What the cache's tests share: an origin whose answers a test writes, a proxy with a cache in front of it, and a client that sends any fields. */
import { type IncomingHttpHeaders, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { type CacheOptions, type ResponseCache, responseCache } from '@weir/cache'
import type { ProxyOptions } from '@weir/core'
import { type TestUpstream, testUpstream } from '@weir/testing'
import { type ObservedProxy, startProxy } from './observed.ts'

export interface Response {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export interface Asking {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
  readonly body?: string
  readonly host?: string
}

/** One request on a connection of its own. Rejects when the answer breaks off. */
export function ask(
  port: number,
  path: string,
  { method = 'GET', headers = {}, body, host = 'shop.example' }: Asking = {},
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const req = request(
      { port, host: '127.0.0.1', path, method, agent: false, headers: { host, ...headers } as Record<string, string> },
      (res) => {
        const chunks: Buffer[] = []
        res.on('data', (chunk: Buffer) => chunks.push(chunk))
        res.on('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body: Buffer.concat(chunks).toString('latin1') }))
        res.on('error', reject)
      },
    )
    req.on('error', reject)
    req.end(body)
  })
}

export type Origin = (req: IncomingMessage, res: ServerResponse, count: number) => void

export interface CachedSite extends AsyncDisposable {
  readonly upstream: TestUpstream
  readonly proxy: ObservedProxy
  readonly port: number
  readonly cache: ResponseCache
  /** Requests that the origin has seen. */
  readonly seen: number
  get(path?: string, headers?: Asking['headers'], host?: string): Promise<Response>
}

/** @param origin called with the number of the request, from 1 */
export async function cachedSite(
  origin: Origin,
  options: Partial<CacheOptions> = {},
  proxied: Omit<Partial<ProxyOptions>, 'use'> & { readonly inner?: ProxyOptions['use'] } = {},
): Promise<CachedSite> {
  let count = 0
  const upstream = await testUpstream({
    '*': (req, res) => {
      count++
      // By the cache's clock it would be wrong; it writes one of its own then.
      if (options.clock !== undefined) res.sendDate = false
      origin(req, res, count)
      // What a test does not read would hold the connection up.
      req.resume()
    },
  })
  const cache = responseCache({ ...(options.store === undefined ? { maxSize: '16MiB' } : {}), ...options } as CacheOptions)
  const { inner = [], ...rest } = proxied
  const proxy = await startProxy({ upstreams: [upstream.url], retry: false, ...rest, use: [cache, ...inner] } as ProxyOptions)
  return {
    upstream,
    proxy,
    port: proxy.port,
    cache,
    get seen() {
      return count
    },
    get: (path = '/', headers, host) => ask(proxy.port, path, { ...(headers && { headers }), ...(host !== undefined && { host }) }),
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]()
      await upstream[Symbol.asyncDispose]()
    },
  }
}

/** Answers 200 with these fields and the number of the request as its body. */
export function numbered(fields: Readonly<Record<string, string | readonly string[]>>): Origin {
  return (_req, res, count) => {
    res.writeHead(200, fields as Record<string, string>)
    res.end(`answer ${count}`)
  }
}
