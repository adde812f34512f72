/**
 * Open this first: it reads as the life of a request, and is longer than other files so that it can be read in one piece.
 *
 *   handle      the head arrives; what is ambiguous is refused            request-check.ts
 *   route       the first route that accepts it, or `next`, or 404        route.ts
 *   stages      inward until one replies                                  pipeline.ts
 *   forward     pick an upstream, send, retry                             forward.ts, pool.ts, retry.ts, transport/
 *   respond     head through the hooks, body through the pump             response.ts, body.ts
 *   finish      exactly once: the last byte, an error, or a lost client   here
 *
 * An upgrade takes the same way up to its 101 (upgrade.ts).
 */
import type { EventEmitter } from 'node:events'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Http2SecureServer, Http2Server, Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import type { Duplex } from 'node:stream'
import { attachTo } from './attach.ts'
import type { Attempt } from './attempt.ts'
import { endUpload, resetClient } from './client-head.ts'
import { type Clock, holdTime, letTimeGo } from './clock.ts'
import { errorReply } from './error-reply.ts'
import { ProxyError } from './errors.ts'
import { exchangeFinish, exchangeStart } from './events.ts'
import type { ForkRequest, Outcome } from './exchange.ts'
import { LiveExchange } from './exchange-live.ts'
import { cutShort, startForwarding } from './forward.ts'
import type { Forwarding } from './forwarded.ts'
import { filterFields, HeaderList } from './headers.ts'
import { withoutNominated } from './hop-by-hop.ts'
import { type InjectedRequest, type InjectedResponse, inject } from './inject.ts'
import { relayInterim } from './interim-relay.ts'
import { NoClient } from './no-client.ts'
import { type Duration, OptionReader } from './options.ts'
import { HookChain, isPromise, runErrorHooks, runStages, type StageSink, stageError } from './pipeline.ts'
import { whenClosed } from './pipelined.ts'
import type { Pool } from './pool.ts'
import type { PoolHealthReport, PoolStats } from './pool-options.ts'
import { type ProxyOptions, readProxyOptions, type Settings } from './proxy-options.ts'
import { checkRequest, isHttp2, type RequestFacts } from './request-check.ts'
import { respondReply } from './response.ts'
import type { CompiledRoute } from './route.ts'
import type { Hooks, Reply, Stage } from './stage.ts'
import type { PendingTunnel } from './transport/transport.ts'
import { hasBodyFraming, isWebSocketRequest, openTunnel, responseOn, Tunnels, watchClient } from './upgrade.ts'
import { expectTarget } from './upstream-request.ts'

/** How long the rest of a refused upload is read, so that its sender gets to see the answer. */
const lingering = 5000

/** How long an answer made at the deadline has to reach its client. */
const answerGrace = 1000

/** What frames the body of the request that a fork comes from. */
const framing: ReadonlySet<string> = new Set(['content-length', 'transfer-encoding', 'expect', 'trailer'])

/** The servers that `attach` accepts. */
export type AttachableServer = Server | Http2Server | Http2SecureServer

export interface CloseOptions {
  /** How long exchanges and tunnels in flight may go on. Default 10 s. */
  readonly deadline?: Duration
}

export interface ProxyStats {
  readonly inflight: number
  readonly tunnels: number
  readonly pools: readonly PoolStats[]
}

export interface ProxyHealth {
  /**
   * `up`: every pool has somebody who is up; `degraded`: all can serve, but at least one only because it fails open, or with degraded upstreams alone;
   * `down`: at least one pool has nobody to send to; `draining`: `close` was called.
   */
  readonly status: 'up' | 'degraded' | 'down' | 'draining'
  readonly pools: readonly PoolHealthReport[]
}

/** A request listener with a few methods. `req` and `res` are node's, of HTTP/1 or of the HTTP/2 compatibility API. */
export interface ReverseProxy extends AsyncDisposable {
  // biome-ignore lint/suspicious/noExplicitAny: node types the listeners of http and http2 apart, frameworks extend them further
  (req: any, res: any, next?: (error?: unknown) => void): void
  /** For `server.on('upgrade', proxy.upgrade)`. Sockets that no route takes are left alone when somebody else listens, else answered 404. */
  readonly upgrade: (req: IncomingMessage, socket: Duplex, head: Buffer) => void
  /** Mounts requests, upgrades and `Expect: 100-continue` on a server and checks its timeouts; returns the server. */
  attach<S extends AttachableServer>(server: S): S
  /** One request without sockets: through node's parser and the whole proxy. The upstream side is the pool's transport. */
  inject(request: InjectedRequest): Promise<InjectedResponse>
  /** The pool of `upstreams` (or `pool`); undefined with routes only. */
  readonly pool: Pool | undefined
  /** Starts the pools (sources, health policies), then the stages in order. The first request does it otherwise, and waits for it. */
  start(): Promise<void>
  /** Drains: 503 for new work, what runs may end until the deadline, then it is cut; stages close in reverse. Idempotent. */
  close(options?: CloseOptions): Promise<void>
  stats(): ProxyStats
  /** How the proxy and every pool that its routes use are, for a health endpoint or a person. */
  health(): ProxyHealth
}

/** @throws OptionsError with everything that was wrong */
export function createProxy(options: ProxyOptions): ReverseProxy {
  const core = new ProxyCore(readProxyOptions(options))
  const listener = (req: IncomingMessage, res: ServerResponse, next?: (error?: unknown) => void): void => core.handle(req, res, next, false)
  const proxy = Object.assign(listener, {
    upgrade: (req: IncomingMessage, socket: Duplex, head: Buffer): void => core.upgrade(req, socket, head),
    attach: <S extends AttachableServer>(server: S): S => {
      core.onClosing.push(attachTo(server, core))
      return server
    },
    inject: (request: InjectedRequest): Promise<InjectedResponse> => inject(core, request),
    pool: core.settings.defaultPool,
    start: (): Promise<void> => core.start(),
    close: (given?: CloseOptions): Promise<void> => core.close(given),
    stats: (): ProxyStats => core.stats(),
    health: (): ProxyHealth => core.health(),
    [Symbol.asyncDispose]: (): Promise<void> => core.close(),
  })
  return proxy
}

/** The running proxy, as the rest of core sees it. */
export class ProxyCore implements StageSink {
  readonly settings: Settings
  readonly clock: Clock
  readonly random: () => number
  readonly forwarding: Forwarding
  readonly via: string | undefined
  readonly tunnels: Tunnels = new Tunnels()
  /** New work is refused. */
  closing: boolean = false
  /** The deadline has passed: nothing is retried any more. */
  aborting: boolean = false
  /** Called when draining begins; what they return is called when it is over. */
  readonly onClosing: (() => () => void)[] = []
  #running: LiveExchange | undefined
  #inflight = 0
  #started: Promise<void> | true | undefined
  #startedStages = 0
  #stop: AbortController | undefined
  #closed: Promise<void> | undefined
  #onDrained: (() => void) | undefined
  #graceTimer: unknown

  constructor(settings: Settings) {
    this.settings = settings
    this.clock = settings.clock
    this.random = settings.random
    this.forwarding = settings.forwarding
    this.via = settings.via
    if (!settings.stages.some((stage) => stage.start !== undefined) && !settings.pools.some((pool) => pool.startable)) this.#started = true
  }

  // Life of a request

  /** @param owesContinue the event was `checkContinue`: the 100 is Weir's to send */
  handle(req: IncomingMessage, res: ServerResponse, next: ((error?: unknown) => void) | undefined, owesContinue: boolean): void {
    const exchange = new LiveExchange(this, 'request', req, res, this.clock.now())
    exchange.owesContinue = owesContinue
    holdTime(this.clock, exchange)
    try {
      if (this.#admit(exchange, next)) this.#watch(exchange)
    } finally {
      letTimeGo()
    }
  }

  /** CONNECT: node hands over the bare socket, and would close it without a word if nobody listened. */
  refuseConnect(req: IncomingMessage, socket: Duplex): void {
    socket.on('error', () => {})
    const exchange = new LiveExchange(this, 'request', req, responseOn(req, socket), this.clock.now())
    if (this.#meet(exchange)) this.fail(exchange, new ProxyError('ERR_METHOD'))
    this.#watch(exchange)
  }

  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    // First of all: a reset before this line's next one would otherwise end the process.
    socket.on('error', () => {})
    const tunnel = isWebSocketRequest(req) && !hasBodyFraming(req)
    const res = responseOn(req, socket)
    const exchange = new LiveExchange(this, tunnel ? 'upgrade' : 'request', req, res, this.clock.now())
    exchange.socket = socket
    exchange.upgradeHead = head
    if (!tunnel && hasBodyFraming(req)) {
      // Node has taken its parser off: whatever frames this body, it can no longer be read safely.
      if (this.#meet(exchange)) this.fail(exchange, new ProxyError('ERR_UPGRADE_REQUEST'))
      this.#watch(exchange)
      return
    }
    if (this.#admit(exchange, undefined)) this.#watch(exchange)
  }

  /** False when it is somebody else's, or nobody's. */
  #admit(exchange: LiveExchange, next: ((error?: unknown) => void) | undefined): boolean {
    const { req } = exchange
    let route: CompiledRoute | undefined
    try {
      const connection = this.forwarding.connection(req)
      if (connection.refused) return false
      exchange.connection = connection
      const facts = checkRequest(req, connection)
      exchange.facts = facts
      exchange.url = facts.url
      exchange.headers = new HeaderList(withoutNominated(facts.raw, facts.connection))
      exchange.clientIp = this.forwarding.clientIp(connection, exchange.headers)
      route = this.settings.router.find(exchange, facts.host)
      exchange.route = route
    } catch (cause) {
      exchange.headers = new HeaderList(req.rawHeaders)
      if (!this.#meet(exchange)) return true
      const error = stageError('route', cause)
      if (error.source === 'client' && !isHttp2(req)) {
        // RFC 9112 §9.6: no further request of a connection that is going to be closed. Pipelined bytes may be the smuggled part.
        exchange.res.shouldKeepAlive = false
        if (exchange.connection !== undefined) exchange.connection.refused = true
      }
      this.fail(exchange, error)
      return true
    }
    if (route === undefined) {
      if (next !== undefined) {
        // What others do with it may take any time.
        letTimeGo()
        next()
        return false
      }
      if (exchange.socket !== undefined && this.#leaveToOthers(exchange)) return false
    }
    if (!this.#meet(exchange)) return true
    if (this.closing) this.fail(exchange, new ProxyError('ERR_DRAINING'))
    else if (route === undefined) this.fail(exchange, new ProxyError('ERR_NO_ROUTE'))
    else if (this.#started === true) this.#enter(exchange, route)
    else
      this.start().then(
        () => {
          if (!exchange.finished) this.#enter(exchange, route)
        },
        (cause) => this.fail(exchange, stageError('start', cause)),
      )
    return true
  }

  /** Another `upgrade` listener may know this socket. */
  #leaveToOthers(exchange: LiveExchange): boolean {
    const server = (exchange.req.socket as { server?: Server } | null)?.server
    if (server === undefined || server.listenerCount('upgrade') < 2) return false
    exchange.res.detachSocket(exchange.socket as never)
    return true
  }

  #begin(exchange: LiveExchange): void {
    exchange.next = this.#running
    if (this.#running !== undefined) this.#running.previous = exchange
    this.#running = exchange
    this.#inflight++
    const { res, socket } = exchange
    if (socket !== undefined)
      exchange.stopWatching = watchClient(socket, () => {
        // It goes on without this client.
        if (exchange.res === res) this.clientGone(exchange)
      })
    if (exchangeStart.hasSubscribers) exchangeStart.publish({ exchange })
  }

  /** Begins it, unless its client has left while whoever calls us waited for something: nobody would say so again. False: it is over. */
  #meet(exchange: LiveExchange): boolean {
    this.#begin(exchange)
    if (!hasLeft(exchange)) return true
    this.clientGone(exchange)
    return false
  }

  /**
   * From now on its client's end is its own. Called when the event that began it has been dealt with, before which nothing closes: what has been answered and sent
   * by then needs no listener.
   */
  #watch(exchange: LiveExchange): void {
    if (exchange.finished) return
    const { req, res } = exchange
    // Node's response to an HTTP/2 HEAD never says that it has closed; the stream does.
    const source: EventEmitter = isHttp2(req) && !NoClient.is(res) ? (req as unknown as Http2ServerRequest).stream : res
    const closed = (): void => {
      // It goes on without this client.
      if (exchange.res === res) this.#onClientClosed(exchange)
    }
    source.on('close', closed)
    if (source === res && res.socket === null && !NoClient.is(res)) res.once('socket', whenClosed(req.socket, closed))
  }

  #enter(exchange: LiveExchange, route: CompiledRoute, first = 0): void {
    const { total } = route.timeouts
    if (total > 0) {
      const left = Math.max(0, total - (this.clock.now() - exchange.startedAt))
      exchange.deadlineTimer = this.clock.setTimeout(() => cutShort(exchange, new ProxyError('ERR_DEADLINE')), left)
    }
    if (route.stages === undefined) startForwarding(exchange)
    else runStages(exchange, route.stages, first, this)
  }

  onReply(exchange: LiveExchange, reply: Reply): void {
    if (!exchange.finished && !exchange.failing) respondReply(exchange, reply)
  }

  onPassed(exchange: LiveExchange): void {
    if (!exchange.finished && !exchange.failing) startForwarding(exchange)
  }

  onStageError(exchange: LiveExchange, error: ProxyError): void {
    this.fail(exchange, error)
  }

  onLateHooks(exchange: LiveExchange, hooks: Hooks): void {
    this.#tellFinish(hooks, this.#outcomeOf(exchange), exchange)
  }

  relayInterim(exchange: LiveExchange, status: number, headers: string[]): void {
    relayInterim(exchange, status, headers)
  }

  openTunnel(exchange: LiveExchange, attempt: Attempt, headers: string[], tunnel: PendingTunnel): void {
    openTunnel(this, exchange, attempt, headers, tunnel)
  }

  // Failure

  /** The exchange cannot succeed. Nothing was sent: answer; else break off. */
  fail(exchange: LiveExchange, error: ProxyError): void {
    if (exchange.finished) return
    exchange.hedge?.stop(error)
    if (exchange.answered) {
      this.breakOff(exchange, error)
      return
    }
    const again = exchange.error?.code === 'ERR_STAGE' && error.code === 'ERR_STAGE'
    exchange.failing = true
    // Its place in the queue is somebody else's from now on, not only when its answer has been written.
    if (exchange.waiter !== undefined) exchange.route?.pool.leave(exchange.waiter)
    exchange.waiter = undefined
    exchange.error = error
    // RFC 9110 §15.5.9: whoever was too slow is not waited for any longer.
    if (error.status === 408 && !isHttp2(exchange.req)) exchange.res.shouldKeepAlive = false
    if (again) {
      this.#bareError(exchange)
      return
    }
    if (exchange.hooks === undefined) respondReply(exchange, errorReply(error, this.settings.name))
    else runErrorHooks(exchange, error, exchange.hooks, (reply) => respondReply(exchange, reply ?? errorReply(error, this.settings.name)))
  }

  /** The client has seen a head: what follows must look broken. */
  breakOff(exchange: LiveExchange, error: ProxyError): void {
    if (exchange.finished) return
    if (!exchange.answered) {
      this.fail(exchange, error)
      return
    }
    exchange.error = error
    exchange.brokenOff = true
    exchange.attempt?.cancelQuietly(error)
    exchange.pump?.abort()
    resetClient(exchange)
  }

  /** The answer to a failure failed too. */
  #bareError(exchange: LiveExchange): void {
    exchange.answered = true
    exchange.status = 500
    try {
      exchange.res.writeHead(500)
      exchange.res.end()
      exchange.pumped = true
    } catch {
      resetClient(exchange)
    }
  }

  // ResponsePump reports through the exchange

  #onClientClosed(exchange: LiveExchange): void {
    if (exchange.finished || exchange.tunnel !== undefined) return
    const { res } = exchange
    // An HTTP/2 stream that Weir closed over an unfinished upload counts as aborted; its answer is what tells.
    const written = isHttp2(exchange.req)
      ? (res as unknown as Http2ServerResponse).stream?.writableFinished !== false
      : // Node 22 says so also of bytes that a connection which is gone has never sent.
        res.writableFinished && !exchange.req.socket.errored
    const complete = exchange.pumped && written
    if (complete) this.finish(exchange)
    else this.clientGone(exchange)
  }

  /** The client left: cancel in this turn, and hold nothing against the upstream. Unless somebody else wants the response. */
  clientGone(exchange: LiveExchange): void {
    if (exchange.finished || exchange.tunnel !== undefined) return
    if (exchange.wanted !== undefined && this.#outlives(exchange)) return
    if (exchange.error === undefined || (exchange.error.source === 'client' && !exchange.brokenOff)) {
      exchange.error = new ProxyError('ERR_CLIENT_ABORTED', { upstream: exchange.upstream })
      exchange.status = 499
    }
    exchange.hedge?.stop(exchange.error)
    exchange.attempt?.cancelQuietly(exchange.error)
    exchange.pump?.abort()
    exchange.socket?.destroy()
    this.finish(exchange)
  }

  #outlives(exchange: LiveExchange): boolean {
    const { incoming, res } = exchange
    if (exchange.kind === 'upgrade' || NoClient.is(res) || exchange.pumped || exchange.failing || exchange.error !== undefined) return false
    if ((incoming !== undefined && !incoming.complete) || exchange.wanted?.() !== true) return false
    this.#leave(exchange, new ProxyError('ERR_CLIENT_ABORTED', { upstream: exchange.upstream }))
    return true
  }

  #leave(exchange: LiveExchange, error: ProxyError): void {
    exchange.left = error
    // A bare one has nobody else to close it.
    exchange.socket?.destroy()
    exchange.res = NoClient.response()
    exchange.res.on('close', () => this.#onClientClosed(exchange))
    exchange.pump?.divert(exchange.res)
  }

  /** The exchange is to end in the middle of its answer, and others want the rest: this client's connection is broken off, and it goes on. */
  leave(exchange: LiveExchange, error: ProxyError): boolean {
    if (exchange.wanted === undefined || !exchange.answered || error.code === 'ERR_DRAINING') return false
    const { res, req } = exchange
    if (!this.#outlives(exchange)) return false
    resetClient({ req, res } as LiveExchange)
    exchange.left = error
    return true
  }

  /** A request of our own in the name of `parent`, from the stage behind `stage` on. */
  fork(parent: LiveExchange, stage: Stage, request: ForkRequest, hooks: Hooks): LiveExchange {
    const route = parent.route as CompiledRoute
    const index = route.stages?.indexOf(stage) ?? -1
    if (index < 0) throw new TypeError(`fork: the stage ${stage.name} is not one of this exchange's route`)
    const exchange = new LiveExchange(this, 'request', parent.req, NoClient.response(), this.clock.now())
    exchange.parent = parent
    exchange.method = request.method ?? parent.method
    exchange.url = request.url ?? parent.url
    if (request.url !== undefined) expectTarget(request.url, "A fork's url")
    exchange.connection = parent.connection
    exchange.facts = (parent.facts as RequestFacts).withoutBody(exchange.url)
    exchange.clientIp = parent.clientIp
    exchange.route = route
    exchange.affinity = parent.affinity
    exchange.hashKey = parent.hashKey
    Object.assign(exchange.locals, parent.locals)
    exchange.headers = new HeaderList(filterFields(parent.headers.raw, (name) => !framing.has(name.toLowerCase())))
    request.edit?.(exchange.headers)
    exchange.hooks = new HookChain(hooks, undefined)
    this.#begin(exchange)
    if (this.closing) this.fail(exchange, new ProxyError('ERR_DRAINING'))
    else this.#enter(exchange, route, index + 1)
    this.#watch(exchange)
    return exchange
  }

  // End

  /** Exactly once. */
  finish(exchange: LiveExchange): void {
    if (exchange.finished) return
    exchange.finished = true
    if (exchange.left !== undefined) {
      exchange.error ??= exchange.left
      if (exchange.left.code === 'ERR_CLIENT_ABORTED') exchange.status = 499
    }
    exchange.replyBody?.destroy()
    exchange.deciding?.abandon()
    exchange.stopWatching?.()
    if (exchange.waiter !== undefined) exchange.route?.pool.leave(exchange.waiter)
    if (exchange.backoffTimer !== undefined) this.clock.clearTimeout(exchange.backoffTimer)
    if (exchange.deadlineTimer !== undefined) this.clock.clearTimeout(exchange.deadlineTimer)
    if (exchange.attempt !== undefined && !exchange.attempt.over) exchange.attempt.cancelQuietly(exchange.error)
    // An earlier one may still read the rest of an answer that was put aside.
    for (let attempt = exchange.latest?.before; attempt !== undefined; attempt = attempt.before)
      if (!attempt.over) attempt.cancelQuietly(exchange.error)
    if (exchange.requestTransforms !== undefined) exchange.dropTransforms()
    this.#letUploadRunOut(exchange)
    if (exchange.error !== undefined) exchange.abortSignal(exchange.error)
    if (exchange.hooks !== undefined || exchangeFinish.hasSubscribers) this.#report(exchange)
    this.#unlink(exchange)
  }

  #outcomeOf(exchange: LiveExchange): Outcome {
    return {
      status: exchange.status,
      reason: exchange.error?.code ?? 'completed',
      error: exchange.error,
      upstream: exchange.upstream,
      attempts: exchange.attempts,
      bytesOut: exchange.pump?.bytes ?? exchange.tunnelBytes,
      durationMs: this.clock.now() - exchange.startedAt,
    }
  }

  #tellFinish(hooks: Hooks, outcome: Outcome, exchange: LiveExchange): void {
    // There is nobody left to answer to, and the other hooks must still hear of the end.
    const warn = (cause: unknown): void =>
      process.emitWarning(`An onFinish hook threw: ${cause instanceof Error ? cause.message : String(cause)}`, { code: 'WEIR_ON_FINISH' })
    try {
      const result: unknown = hooks.onFinish?.(outcome, exchange)
      if (isPromise(result)) result.then(undefined, warn)
    } catch (cause) {
      warn(cause)
    }
  }

  #report(exchange: LiveExchange): void {
    const outcome = this.#outcomeOf(exchange)
    for (let link = exchange.hooks; link !== undefined; link = link.outer) this.#tellFinish(link.hooks, outcome, exchange)
    if (exchangeFinish.hasSubscribers) exchangeFinish.publish({ exchange, outcome })
  }

  #letUploadRunOut(exchange: LiveExchange): void {
    const { req, incoming } = exchange
    if (req.complete || exchange.kind === 'upgrade' || exchange.facts?.hasBody !== true) return
    if (isHttp2(req)) {
      endUpload(exchange.res)
      return
    }
    const { socket } = req
    if (socket === null || socket.destroyed) return
    if (incoming === undefined) req.resume()
    else incoming.discard()
    const timer = setTimeout(() => socket.destroy(), lingering)
    timer.unref()
    req.once('close', () => clearTimeout(timer))
    req.once('end', () => clearTimeout(timer))
  }

  #unlink(exchange: LiveExchange): void {
    if (exchange.previous === undefined) this.#running = exchange.next
    else exchange.previous.next = exchange.next
    if (exchange.next !== undefined) exchange.next.previous = exchange.previous
    exchange.previous = undefined
    exchange.next = undefined
    this.#inflight--
    if (this.#inflight === 0) this.#onDrained?.()
  }

  // Lifecycle

  start(): Promise<void> {
    if (this.#started === true) return Promise.resolve()
    // A failure is not for ever: whatever a stage waits for may be there when the next request comes.
    this.#started ??= this.#startStages().catch((error) => {
      this.#started = undefined
      throw error
    })
    return this.#started
  }

  async #startStages(): Promise<void> {
    this.#stop ??= new AbortController()
    const { stages, pools } = this.settings
    await Promise.all(pools.map((pool) => pool.start()))
    // Where an earlier start failed, the next goes on: no stage is started twice.
    while (this.#startedStages < stages.length) {
      const result = stages[this.#startedStages]?.start?.({ signal: this.#stop.signal })
      if (isPromise<void>(result)) await result
      this.#startedStages++
    }
    this.#started = true
  }

  close(options?: CloseOptions): Promise<void> {
    if (this.#closed === undefined) {
      const read = new OptionReader('proxy.close')
      const deadline = read.duration('deadline', read.object<CloseOptions>(options, ['deadline']).deadline, 10_000)
      read.check()
      this.#closed = this.#drain(deadline)
    }
    return this.#closed
  }

  async #drain(deadline: number): Promise<void> {
    this.closing = true
    for (let exchange = this.#running; exchange !== undefined; ) {
      const { next } = exchange
      // Of our own, and for nobody.
      if (exchange.parent !== undefined && exchange.wanted?.() !== true) cutShort(exchange, new ProxyError('ERR_DRAINING'))
      exchange = next
    }
    const afterwards = this.onClosing.map((begin) => begin())
    if (this.#inflight > 0) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#onDrained = resolve
      const timer = this.clock.setTimeout(() => this.#cutAll(), deadline)
      await promise
      this.clock.clearTimeout(timer)
      this.clock.clearTimeout(this.#graceTimer)
    }
    this.#stop?.abort()
    for (const done of afterwards) done()
    // One that fails must not leave the others open.
    const failures: unknown[] = []
    const parts = [...[...this.settings.stages].reverse(), ...this.settings.ownPools]
    for (const part of parts) {
      try {
        await part.close?.()
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0)
      throw failures.length === 1 ? failures[0] : new AggregateError(failures, 'Several parts of the proxy failed to close.')
  }

  #cutAll(): void {
    this.aborting = true
    this.tunnels.destroyAll(() => new ProxyError('ERR_DRAINING'))
    for (let exchange = this.#running; exchange !== undefined; ) {
      const { next } = exchange
      if (exchange.tunnel === undefined) {
        cutShort(exchange, new ProxyError('ERR_DRAINING'))
        if (!exchange.pumped) this.#giveUpClient(exchange)
      }
      exchange = next
    }
    // Answers that were just written get a moment; one that its client does not read would keep the drain waiting for ever.
    if (this.#inflight > 0)
      this.#graceTimer = this.clock.setTimeout(() => {
        for (let exchange = this.#running; exchange !== undefined; ) {
          const { next } = exchange
          this.#giveUpClient(exchange)
          exchange = next
        }
      }, answerGrace)
  }

  #giveUpClient(exchange: LiveExchange): void {
    if (exchange.finished) return
    resetClient(exchange)
    this.finish(exchange)
  }

  stats(): ProxyStats {
    return { inflight: this.#inflight, tunnels: this.tunnels.size, pools: this.settings.pools.map((pool) => pool.stats()) }
  }

  health(): ProxyHealth {
    const pools = this.settings.pools.map((pool) => pool.health())
    const sound = pools.map(({ upstreams }) => upstreams.some(({ state, degraded, weight }) => state === 'up' && !degraded && weight > 0))
    const down = this.settings.pools.some((pool) => !pool.hasUsable)
    return { status: this.closing ? 'draining' : down ? 'down' : sound.every(Boolean) ? 'up' : 'degraded', pools }
  }
}

function hasLeft({ req, res, socket }: LiveExchange): boolean {
  if (isHttp2(req)) return (req as unknown as Partial<Http2ServerRequest>).stream?.destroyed !== false
  return res.destroyed || (socket ?? req.socket)?.destroyed === true
}
