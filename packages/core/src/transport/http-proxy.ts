/**
 * The second transport: HTTP through http-proxy-3's native path, for people who come from it, behind the same port as undici and held to
 * the same conformance suite.
 *
 * http-proxy-3 is used for what it does well, making and owning a ClientRequest, and is never shown the client. It gets a stand-in for
 * request and response, and its own copying of head and body runs into nothing: target and fields reach node through accessors that ignore
 * what it assigns (`proxyOptions`), the body through core's `RequestBody`, the response through `ClientCall`. That leaves none of its known
 * flaws a place to act: the `Content-Length: 0` that it gives a chunked DELETE or OPTIONS, paths rewritten by URL parsing,
 * folded fields, `proxyReq` hooks that `Expect` switches off, a client left waiting when a body breaks off, timeouts that look like resets.
 */
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import { createProxyServer, type ProxyServer } from 'http-proxy-3'
import { type Duration, OptionReader, type Size } from '../options.ts'
import type { AddressCheck } from './address-check.ts'
import type { ConnectionSettings, Line } from './connections.ts'
import type { WireHead } from './framing.ts'
import { proxyOptions } from './http-proxy-options.ts'
import { upgradeWithHttpProxy } from './http-proxy-upgrade.ts'
import { nodeHttp } from './node-http.ts'
import { readTlsOptions, type UpstreamTlsOptions } from './tls.ts'
import type { Transport } from './transport.ts'

export interface HttpProxyTransportOptions {
  readonly tls?: UpstreamTlsOptions
  /** How long an idle connection is kept; choose it below the upstream's own. An upstream's `Keep-Alive: timeout` shortens it. 0 keeps none. Default 4 s. */
  readonly keepAliveTimeout?: Duration
  /** Requests after which a connection is closed; 0 for no limit. Default 0. */
  readonly maxRequests?: number
  /**
   * How long a connection is used at most; one that is in use then closes behind its response. So a name that points elsewhere by now is looked up again, and a
   * balancer of connections gets new ones to spread. Up to a tenth less, at random, or those that were opened together would all close at once. 0 for no
   * limit. Default 1 h.
   */
  readonly maxAge?: Duration
  /** Most connections per upstream; further requests wait, against their `head` timeout. Tunnels do not count. Default 256. */
  readonly maxConnections?: number
  /** Largest response head in bytes. Default 64 KiB. */
  readonly maxHeaderSize?: Size
  /** Local address to connect from. */
  readonly localAddress?: string
  /** Asked with every address before it is connected to: see `PoolOptions.allowAddress`. Default: all. */
  readonly allowAddress?: AddressCheck
}

/**
 * HTTP and WebSockets over http-proxy-3 and node's own client; about twice the cost per request of the default transport.
 * @throws OptionsError
 */
export function httpProxyTransport(options?: HttpProxyTransportOptions): Transport {
  const read = new OptionReader('httpProxyTransport')
  const given = read.object<HttpProxyTransportOptions>(options, [
    'tls',
    'keepAliveTimeout',
    'maxRequests',
    'maxAge',
    'maxConnections',
    'maxHeaderSize',
    'localAddress',
    'allowAddress',
  ])
  if (given.localAddress !== undefined && isIP(given.localAddress) === 0) read.problem('localAddress', given.localAddress, 'an IP address')
  const settings: ConnectionSettings = {
    tls: readTlsOptions(given.tls, read.at('tls')),
    keepAliveTimeout: read.duration('keepAliveTimeout', given.keepAliveTimeout, 4000),
    maxRequests: read.number('maxRequests', given.maxRequests, 0, { min: 0, integer: true }),
    maxAge: read.duration('maxAge', given.maxAge, 3_600_000),
    maxConnections: read.number('maxConnections', given.maxConnections, 256, { min: 1, max: 65_535, integer: true }),
    maxHeaderSize: read.size('maxHeaderSize', given.maxHeaderSize, 65_536, { min: 1024 }),
    localAddress: given.localAddress,
    allowAddress: read.optionalFunction('allowAddress', given.allowAddress),
  }
  read.check()

  const proxy = createProxyServer()
  // Without a listener an `error` event ends the process. Failures reach the sink by way of the ClientRequest.
  proxy.on('error', () => {})
  const sender = nodeHttp(settings, (head, line) => webRequest(proxy, head, line, settings))
  const upgrades = upgradeWithHttpProxy(settings)
  return {
    name: 'http-proxy',
    allowAddress: settings.allowAddress,
    send: sender.send,
    upgrade: upgrades.upgrade,
    forget: sender.forget,
    async close() {
      await sender.close()
      upgrades.close()
    },
  }
}

/** The ClientRequest that http-proxy-3 makes for `head`. */
function webRequest(proxy: ProxyServer, head: WireHead, line: Line, settings: ConnectionSettings): ClientRequest {
  // A switch for its own tests sends everything through `fetch`, which loses fields, trailers and truncation.
  if (process.env.FORCE_FETCH_PATH === 'true') throw new Error('FORCE_FETCH_PATH is set: http-proxy-3 would not use its native path')
  const request = new RequestStandIn(head.method)
  proxy.web(
    request as unknown as IncomingMessage,
    responseStandIn as unknown as ServerResponse,
    proxyOptions(head, line, settings),
    // It calls back instead of emitting: nothing here may depend on who listens to an emitter.
    () => {},
  )
  if (request.made === undefined) throw new Error('http-proxy-3 made no request')
  return request.made
}

/** What http-proxy-3 reads of a client's request: no more than its method. It hands over the ClientRequest by piping the body into it. */
class RequestStandIn {
  readonly method: string
  // An empty URL is one that it does not parse, and the real one it must not.
  readonly url: string = ''
  // Its own, since a pass writes framing fields into it.
  readonly headers: Record<string, string> = {}
  readonly httpVersionMajor: number = 1
  readonly socket: { readonly destroyed: boolean } = { destroyed: false }
  made: ClientRequest | undefined = undefined

  constructor(method: string) {
    this.method = method
  }

  on(): this {
    return this
  }

  pipe(request: ClientRequest): ClientRequest {
    this.made = request
    return request
  }
}

/** What it reads of the client's response, with `selfHandleResponse` on. The client's end is core's to tell, through `abort`. */
const responseStandIn = { on: () => {}, headersSent: false, finished: false, writableFinished: true }
