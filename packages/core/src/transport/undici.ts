/**
 * The default transport: HTTP/1.1 over undici's `dispatch`, whose callbacks the Transport port mirrors.
 *
 * Each upstream has a free list of `Client`s, one connection each, last in first out: the warmest connection is used first and the surplus
 * ages out. undici's own `Pool` would scan its clients linearly for a free one, which shows from about 100 connections on. The settings are
 * a proxy's, not a client's: `reset: false`, since undici would otherwise close the connection after every HEAD and every body on GET or
 * DELETE; one request per connection; `allowH2` off; no retry, cache, redirect or decompress interceptor; and a constant `servername`,
 * because undici would take SNI from the client's Host.
 */
import type { Socket } from 'node:net'
import { isIP } from 'node:net'
import { buildConnector, Client, type Dispatcher } from 'undici'
import { ProxyError } from '../errors.ts'
import { type Duration, OptionReader } from '../options.ts'
import type { Upstream } from '../upstream.ts'
import { BodyStream } from './body-stream.ts'
import { toProxyError } from './connect-error.ts'
import { upgradeWithHttpProxy } from './http-proxy-upgrade.ts'
import { InterimFilter } from './interim.ts'
import { nodeHttp } from './node-http.ts'
import { readTlsOptions, type UpstreamTlsOptions } from './tls.ts'
import type { ResponseSink, Transport, UpgradeRequest, UpgradeSink, UpstreamCall, UpstreamRequest } from './transport.ts'

export interface UndiciTransportOptions {
  readonly tls?: UpstreamTlsOptions
  /** How long an idle connection is kept; choose it below the upstream's own. An upstream's `Keep-Alive: timeout` shortens it. Default 4 s. */
  readonly keepAliveTimeout?: Duration
  /** Idle connections kept per upstream. Default 256. */
  readonly maxIdle?: number
  /** Requests after which a connection is closed; 0 for no limit. Default 0. */
  readonly maxRequests?: number
  /** Largest response head in bytes. Default 64 KiB. */
  readonly maxHeaderSize?: number
  /** Local address to connect from. */
  readonly localAddress?: string
}

interface Settings {
  readonly keepAliveTimeout: number
  readonly maxIdle: number
  readonly maxRequests: number
  readonly maxHeaderSize: number
  readonly localAddress: string | undefined
  readonly tls: ReturnType<typeof readTlsOptions>
}

/** @throws OptionsError */
export function undiciTransport(options?: UndiciTransportOptions): Transport {
  const read = new OptionReader('undiciTransport')
  const given = read.object<UndiciTransportOptions>(options, [
    'tls',
    'keepAliveTimeout',
    'maxIdle',
    'maxRequests',
    'maxHeaderSize',
    'localAddress',
  ])
  const settings: Settings = {
    keepAliveTimeout: read.duration('keepAliveTimeout', given.keepAliveTimeout, 4000, { min: 1 }),
    maxIdle: read.number('maxIdle', given.maxIdle, 256, { min: 0, integer: true }),
    maxRequests: read.number('maxRequests', given.maxRequests, 0, { min: 0, integer: true }),
    maxHeaderSize: read.size('maxHeaderSize', given.maxHeaderSize, 65_536, { min: 1024 }),
    localAddress: given.localAddress,
    tls: readTlsOptions(given.tls, read.at('tls')),
  }
  if (given.localAddress !== undefined && isIP(given.localAddress) === 0) read.problem('localAddress', given.localAddress, 'an IP address')
  read.check()

  const lists = new Map<Upstream, FreeList>()
  const plain = { ...settings, maxConnections: Number.POSITIVE_INFINITY }
  const rare = nodeHttp(plain)
  const upgrades = upgradeWithHttpProxy(plain)
  const listOf = (upstream: Upstream): FreeList => {
    let list = lists.get(upstream)
    if (list === undefined) {
      list = new FreeList(upstream, settings)
      lists.set(upstream, list)
    }
    return list
  }
  return {
    name: 'undici',
    send(request: UpstreamRequest, upstream: Upstream, sink: ResponseSink): void {
      // undici can neither write `*` as a target nor send trailers.
      if (request.path === '*' || request.body?.hasTrailers === true) rare.send(request, upstream, sink)
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
      await rare.close()
      upgrades.close()
    },
  }
}

/** The connections to one upstream. */
class FreeList {
  readonly upstream: Upstream
  readonly origin: string
  /** SNI and certificate name; constant, or undici would reconnect whenever the client's Host changes. */
  readonly servername: string
  readonly #settings: Settings
  readonly #free: Connection[] = []
  #closed = false

  constructor(upstream: Upstream, settings: Settings) {
    this.upstream = upstream
    const { url } = upstream
    this.origin = url.protocol === 'unix:' ? 'http://localhost' : url.origin
    const hostname = url.hostname.replace(/^\[|\]$/g, '')
    this.servername = settings.tls.servername ?? (hostname || 'localhost')
    this.#settings = settings
  }

  send(request: UpstreamRequest, sink: ResponseSink): void {
    const connection = this.#take(request.fresh === true)
    connection.send(request, sink)
  }

  #take(fresh: boolean): Connection {
    const free = this.#free
    if (fresh) {
      for (const connection of free) connection.discard()
      free.length = 0
    }
    for (;;) {
      const connection = free.pop()
      if (connection === undefined) return new Connection(this, this.#settings)
      // A client whose connection has gone is worth less than any that is open.
      if (connection.open || free.length === 0) return connection
      connection.discard()
    }
  }

  /** The call is over; its connection may serve another. */
  give(connection: Connection): void {
    if (this.#closed || this.#free.length >= this.#settings.maxIdle) connection.discard()
    else this.#free.push(connection)
  }

  close(): void {
    this.#closed = true
    for (const connection of this.#free) connection.discard()
    this.#free.length = 0
  }
}

type DispatchOptions = Dispatcher.DispatchOptions & { servername: string }

class Connection {
  readonly list: FreeList
  readonly filter: InterimFilter = new InterimFilter()
  open: boolean = false
  /** Responses that the present socket has carried. */
  served: number = 0
  connectMs: number | undefined = undefined
  /** Why the present socket failed. */
  broken: Error | undefined = undefined
  readonly #client: Client
  readonly #options: DispatchOptions
  #connectTimeout = 0
  /** The socket until it is connected: undici would leave it trying when the client is destroyed. */
  #connecting: Socket | undefined = undefined

  constructor(list: FreeList, settings: Settings) {
    this.list = list
    const { url } = list.upstream
    const connect = buildConnector({
      ...settings.tls.connect,
      ...(url.protocol === 'unix:' ? { socketPath: decodeURIComponent(url.pathname) } : null),
      ...(settings.localAddress === undefined ? null : { localAddress: settings.localAddress }),
      allowH2: false,
      // The port's own timer covers connecting, since the limit is the request's and not the connection's.
      timeout: 0,
      maxCachedSessions: 1,
    } as buildConnector.BuildOptions)
    this.#client = new Client(list.origin, {
      pipelining: 1,
      allowH2: false,
      keepAliveTimeout: settings.keepAliveTimeout,
      keepAliveMaxTimeout: settings.keepAliveTimeout,
      keepAliveTimeoutThreshold: 1000,
      maxHeaderSize: settings.maxHeaderSize,
      maxRequestsPerClient: settings.maxRequests,
      connect: (options, callback) => this.#connect(connect, options, callback),
    })
    this.#client.on('disconnect', () => {
      this.open = false
    })
    // One object for all requests of this connection: undici reads it out in its Request constructor and does not keep it.
    this.#options = { path: '', method: 'GET', headers: [], body: null, reset: false, blocking: false, servername: list.servername }
  }

  send(request: UpstreamRequest, sink: ResponseSink): void {
    const call = new Call(this, sink)
    sink.onStart(call)
    if (call.aborted) {
      this.list.give(this)
      return
    }
    call.dispatched = true
    this.#connectTimeout = request.timeouts.connect
    const options = this.#options
    options.method = request.method as Dispatcher.HttpMethod
    options.path = request.path
    options.headers = request.headers as string[]
    if (request.body === undefined) options.body = null
    else {
      call.upload = new BodyStream(request.body)
      options.body = call.upload as unknown as NonNullable<DispatchOptions['body']>
    }
    const { head, idle } = request.timeouts
    call.arm(head, idle)
    options.headersTimeout = head < exactBelow ? 0 : head
    options.bodyTimeout = idle < exactBelow ? 0 : idle
    try {
      this.#client.dispatch(options, call)
    } catch (error) {
      call.fail(toProxyError(error, 'head', this.list.upstream))
    }
    options.body = null
  }

  /** Ends the connection whatever it does. Its calls hear an error, which an aborted call does not pass on. */
  discard(): void {
    this.open = false
    this.#connecting?.destroy()
    this.#client.destroy().catch(() => {})
  }

  #connect(connect: buildConnector.connector, options: buildConnector.Options, callback: buildConnector.Callback): void {
    const startedAt = performance.now()
    const limit = this.#connectTimeout
    let timer: NodeJS.Timeout | undefined
    this.served = 0
    const socket = connect({ ...options, servername: isIP(this.list.servername) === 0 ? this.list.servername : '' }, (error, connected) => {
      clearTimeout(timer)
      this.#connecting = undefined
      if (error !== null || connected === null) {
        callback(error ?? new Error('no socket'), null)
        return
      }
      this.open = true
      this.connectMs = performance.now() - startedAt
      // Before undici's own listener: it takes the reset of a body that ends with the connection for its end.
      this.broken = undefined
      connected.on('error', (cause: Error) => {
        this.broken = cause
      })
      const { filter } = this
      const read = connected.read
      connected.read = function (this: Socket, size?: number) {
        const chunk: Buffer | null = read.call(this, size)
        return chunk === null ? null : filter.filter(chunk)
      }
      callback(null, connected)
    }) as unknown as Socket
    this.#connecting = socket
    socket.once('close', () => clearTimeout(timer))
    if (limit > 0) timer = setTimeout(() => socket.destroy(new ProxyError('ERR_CONNECT_TIMEOUT', { upstream: this.list.upstream })), limit)
  }
}

/**
 * undici's timers cost nothing per request, and fire up to a second late. That is nothing to a minute and everything to 200 ms, so limits
 * below this many milliseconds get timers of our own.
 */
const exactBelow = 5000

/** One request on one connection: undici's handler on one side, the sink's call on the other. */
class Call implements Dispatcher.DispatchHandler, UpstreamCall {
  aborted: boolean = false
  sent: boolean = false
  reused: boolean = false
  connectMs: number | undefined = undefined
  upload: BodyStream | undefined = undefined
  /** undici has the request. */
  dispatched: boolean = false
  readonly #connection: Connection
  readonly #sink: ResponseSink
  #controller: Dispatcher.DispatchController | undefined
  #head = false
  #done = false
  #paused = false
  /** Limits that undici does not keep for us; 0 for none. */
  #headLimit = 0
  #idleLimit = 0
  #timer: NodeJS.Timeout | undefined = undefined

  constructor(connection: Connection, sink: ResponseSink) {
    this.#connection = connection
    this.#sink = sink
  }

  abort(): void {
    if (this.aborted || this.#done) return
    this.aborted = true
    if (this.#timer !== undefined) this.#stopTimer()
    if (this.#controller === undefined) {
      // Still connecting: undici has no other way to take a waiting request back.
      if (this.dispatched) this.#connection.discard()
    } else this.#controller.abort(new ProxyError('ERR_CLIENT_ABORTED'))
  }

  pause(): void {
    this.#paused = true
    this.#controller?.pause()
  }

  resume(): void {
    if (this.#done) return
    this.#paused = false
    this.#timer?.refresh()
    this.#controller?.resume()
  }

  arm(head: number, idle: number): void {
    if (head < exactBelow) this.#headLimit = head
    if (idle < exactBelow) this.#idleLimit = idle
  }

  onBodySent(): void {
    this.#timer?.refresh()
  }

  #expire(code: 'ERR_HEAD_TIMEOUT' | 'ERR_BODY_TIMEOUT'): void {
    if (this.#done || this.aborted) return
    // A paused reader is not an idle upstream, and an upstream that still waits for the client's body owes no answer yet.
    if (code === 'ERR_BODY_TIMEOUT' && this.#paused) return
    if (code === 'ERR_HEAD_TIMEOUT' && this.upload?.waitsForClient === true) {
      this.#timer?.refresh()
      return
    }
    const { list } = this.#connection
    this.aborted = true
    this.#controller?.abort(new ProxyError(code))
    this.#done = true
    this.#sink.onError(new ProxyError(code, { upstream: list.upstream }))
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.aborted) {
      controller.abort(new ProxyError('ERR_CLIENT_ABORTED'))
      return
    }
    const connection = this.#connection
    this.#controller = controller
    this.sent = true
    this.reused = connection.served > 0
    this.connectMs = this.reused ? undefined : connection.connectMs
    connection.filter.expect()
    if (this.#headLimit > 0) this.#timer = setTimeout(() => this.#expire('ERR_HEAD_TIMEOUT'), this.#headLimit)
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, _headers: unknown, reason?: string): void {
    if (this.aborted) return
    const headers = toStrings(controller.rawHeaders as readonly Buffer[])
    if (status < 200) {
      this.#sink.onInterim(status, headers)
      return
    }
    this.#head = true
    if (this.#timer !== undefined) this.#stopTimer()
    if (this.#idleLimit > 0) this.#timer = setTimeout(() => this.#expire('ERR_BODY_TIMEOUT'), this.#idleLimit)
    this.#sink.onHead(status, reason ?? '', headers)
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.aborted) return
    this.#timer?.refresh()
    this.#sink.onData(chunk)
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    if (this.#connection.broken !== undefined) {
      this.onResponseError(controller, this.#connection.broken)
      return
    }
    this.#done = true
    if (this.#timer !== undefined) this.#stopTimer()
    const connection = this.#connection
    connection.served++
    if (this.aborted) return
    const trailers = controller.rawTrailers as readonly Buffer[] | null
    connection.list.give(connection)
    this.#sink.onEnd(trailers !== null && trailers.length > 0 ? toStrings(trailers) : undefined)
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    if (this.#done) return
    if (this.#timer !== undefined) this.#stopTimer()
    const phase = this.#head ? 'body' : this.sent ? 'head' : 'connect'
    if (this.aborted) {
      this.#done = true
      return
    }
    // Not one that never connected: a retry in this very tick would be put on a client that undici is still clearing up (it asserts that the
    // queue is empty afterwards).
    if (this.sent) this.#connection.list.give(this.#connection)
    this.fail(toProxyError(error, phase, this.#connection.list.upstream))
  }

  #stopTimer(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  fail(error: ProxyError): void {
    if (this.#done || this.aborted) return
    this.#done = true
    this.#sink.onError(error)
  }
}

/** Node documents `toString('latin1')`, which ends in this. */
type Latin1Buffer = Buffer & { latin1Slice(start?: number, end?: number): string }

/** latin1 keeps every octet of a value as one character, so that what arrived is what goes on. */
function toStrings(raw: readonly Buffer[]): string[] {
  const out = new Array<string>(raw.length)
  for (let i = 0; i < raw.length; i++) {
    // The slice itself: `toString` costs a third more in arguments and encoding names, twice per field.
    out[i] = (raw[i] as Latin1Buffer).latin1Slice()
  }
  return out
}
