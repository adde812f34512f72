/**
 * The default transport: HTTP/1.1 over undici's `dispatch`, whose callbacks the Transport port mirrors.
 *
 * The settings are a proxy's, not a client's: `reset: false`, since undici would otherwise close the connection after every HEAD and every
 * body on GET or DELETE; one request per connection; `allowH2` off; no retry, cache, redirect or decompress interceptor; and a constant
 * `servername`, because undici would take SNI from the client's Host. Connections are in undici-connection.ts, a request's life is in
 * undici-call.ts. What undici cannot express goes through node:http, upgrades through http-proxy-3.
 */
import { isIP } from 'node:net'
import { type Duration, OptionReader, type Size } from '../options.ts'
import type { Upstream } from '../upstream.ts'
import type { AddressCheck } from './address-check.ts'
import { Deadlines } from './deadlines.ts'
import { upgradeWithHttpProxy } from './http-proxy-upgrade.ts'
import { nodeHttp } from './node-http.ts'
import { readTlsOptions, type UpstreamTlsOptions } from './tls.ts'
import type { ResponseSink, Transport, UpgradeRequest, UpgradeSink, UpstreamRequest } from './transport.ts'
import { FreeList, type UndiciSettings } from './undici-connection.ts'

export interface UndiciTransportOptions {
  readonly tls?: UpstreamTlsOptions
  /** How long an idle connection is kept; choose it below the upstream's own. An upstream's `Keep-Alive: timeout` shortens it. Default 4 s. */
  readonly keepAliveTimeout?: Duration
  /** Idle connections kept per upstream; they close by themselves after `keepAliveTimeout`, the least used first. Default 4,096. */
  readonly maxIdle?: number
  /** Requests after which a connection is closed; 0 for no limit. Default 0. */
  readonly maxRequests?: number
  /**
   * How long a connection is used at most; one that is in use then closes behind its response. So a name that points elsewhere by now is looked up again, and a
   * balancer of connections gets new ones to spread. Up to a tenth less, at random, or those that were opened together would all close at once. 0 for no
   * limit. Default 1 h.
   */
  readonly maxAge?: Duration
  /** Largest response head in bytes. Default 64 KiB. */
  readonly maxHeaderSize?: Size
  /** Local address to connect from. */
  readonly localAddress?: string
  /** Asked with every address before it is connected to: see `PoolOptions.allowAddress`. Default: all. */
  readonly allowAddress?: AddressCheck
}

/** @throws OptionsError */
export function undiciTransport(options?: UndiciTransportOptions): Transport {
  const read = new OptionReader('undiciTransport')
  const given = read.object<UndiciTransportOptions>(options, [
    'tls',
    'keepAliveTimeout',
    'maxIdle',
    'maxRequests',
    'maxAge',
    'maxHeaderSize',
    'localAddress',
    'allowAddress',
  ])
  const settings: UndiciSettings = {
    keepAliveTimeout: read.duration('keepAliveTimeout', given.keepAliveTimeout, 4000, { min: 1 }),
    maxIdle: read.number('maxIdle', given.maxIdle, 4096, { min: 0, integer: true }),
    maxRequests: read.number('maxRequests', given.maxRequests, 0, { min: 0, integer: true }),
    maxAge: read.duration('maxAge', given.maxAge, 3_600_000),
    maxHeaderSize: read.size('maxHeaderSize', given.maxHeaderSize, 65_536, { min: 1024 }),
    localAddress: given.localAddress,
    allowAddress: read.optionalFunction('allowAddress', given.allowAddress),
    tls: readTlsOptions(given.tls, read.at('tls')),
  }
  if (given.localAddress !== undefined && isIP(given.localAddress) === 0) read.problem('localAddress', given.localAddress, 'an IP address')
  read.check()

  const lists = new Map<Upstream, FreeList>()
  const deadlines = new Deadlines()
  const plain = { ...settings, maxConnections: Number.POSITIVE_INFINITY }
  const rare = nodeHttp(plain)
  const upgrades = upgradeWithHttpProxy(plain)
  const listOf = (upstream: Upstream): FreeList => {
    let list = lists.get(upstream)
    if (list === undefined) {
      list = new FreeList(upstream, settings, deadlines)
      lists.set(upstream, list)
    }
    return list
  }
  return {
    name: 'undici',
    allowAddress: settings.allowAddress,
    send(request: UpstreamRequest, upstream: Upstream, sink: ResponseSink): void {
      // undici can neither write `*` as a target nor send trailers, and it holds the head of a request back until the first bytes of its body
      // are there, which leaves an upstream that answers on the head alone without a question.
      const { body } = request
      if (request.path === '*' || (body !== undefined && (body.hasTrailers || body.ready === false))) rare.send(request, upstream, sink)
      else listOf(upstream).send(request, sink)
    },
    upgrade(request: UpgradeRequest, upstream: Upstream, sink: UpgradeSink): void {
      upgrades.upgrade(request, upstream, sink)
    },
    forget(upstream) {
      lists.get(upstream)?.close()
      lists.delete(upstream)
      rare.forget(upstream)
      upgrades.forget(upstream)
    },
    async close() {
      for (const list of lists.values()) list.close()
      lists.clear()
      deadlines.stop()
      await rare.close()
      upgrades.close()
    },
  }
}
