/**
 * One try, and the sink of its transport call. A small state machine: it waits for a head; then it relays to the client, or holds while
 * asynchronous hooks decide, or stashes (its status is being retried), or discards (a hook replaced the response).
 *
 * Its modes and all that may happen in each of them stand in one class, long as that makes it: which callback means what is decided by the mode, and
 * a mode that were changed from elsewhere could bring an attempt back that is over.
 */
import type { ResponsePump } from './body.ts'
import { ProxyError } from './errors.ts'
import { attemptFinish, exchangeFinish } from './events.ts'
import type { AttemptOutcome } from './exchange.ts'
import type { LiveExchange } from './exchange-live.ts'
import { giveUp, isRepeatable, retryAfter, takeRetry } from './forward.ts'
import { HeaderList } from './headers.ts'
import { endToEndTrailers } from './hop-by-hop.ts'
import { respondUpstream } from './response.ts'
import { Stash } from './response-head.ts'
import { backoffDelay, parseRetryAfter, retriesError } from './retry.ts'
import type { CompiledRoute } from './route.ts'
import type { PendingTunnel, UpgradeSink, UpstreamCall } from './transport/transport.ts'
import type { Upstream } from './upstream.ts'

/** Body bytes that are read into nothing so that a connection can be kept; beyond it a new connection is cheaper. */
const discardLimit = 65_536

type AttemptMode = 'waiting' | 'holding' | 'relaying' | 'stashing' | 'discarding' | 'over'

/** One try, and the sink of its transport call. */
export class Attempt implements UpgradeSink, AttemptOutcome {
  readonly upstream: Upstream
  readonly number: number
  readonly startedAt: number
  readonly queuedMs: number
  /** The try before this one. */
  readonly before: Attempt | undefined
  headMs: number | undefined = undefined
  status: number | undefined = undefined
  error: ProxyError | undefined = undefined
  call: UpstreamCall = idleCall
  /** The call was paused for hooks. */
  held: boolean = false
  #mode: AttemptMode = 'waiting'
  #pump: ResponsePump | undefined = undefined
  #stash: Stash | undefined = undefined
  #queued: Buffer[] | undefined = undefined
  #ended = false
  #trailers: string[] | undefined = undefined
  #discarded = 0
  #endedAt: number | undefined = undefined
  /** How long the client had been waited for when this began, and when the head came or it ended without one. */
  readonly #waitedBefore: number
  #waited: number | undefined = undefined
  /** Intrusive list of the upstream's running attempts, kept by the pool. */
  previous: Attempt | undefined = undefined
  next: Attempt | undefined = undefined
  readonly #exchange: LiveExchange

  constructor(exchange: LiveExchange, upstream: Upstream, queuedMs: number) {
    this.#exchange = exchange
    this.upstream = upstream
    this.number = exchange.tries + 1
    this.before = exchange.latest
    // In the turn of its request the clock says when that came, and is not read again (docs/decisions/0024); whatever waited before is not the upstream's.
    this.startedAt = exchange.core.clock.now()
    this.queuedMs = queuedMs
    this.#waitedBefore = exchange.incoming === undefined ? 0 : exchange.incoming.waitedMs
  }

  get over(): boolean {
    return this.#mode === 'over'
  }

  get uploadMs(): number {
    const { incoming } = this.#exchange
    if (incoming === undefined) return 0
    return Math.max(0, Math.min(this.headMs ?? this.durationMs, (this.#waited ?? incoming.waitedMs) - this.#waitedBefore))
  }

  get reused(): boolean {
    return this.call.reused
  }

  get connectMs(): number | undefined {
    return this.call.connectMs
  }

  get lookupMs(): number | undefined {
    return this.call.connectPhases?.lookupMs
  }

  get tcpMs(): number | undefined {
    return this.call.connectPhases?.tcpMs
  }

  get tlsMs(): number | undefined {
    return this.call.connectPhases?.tlsMs
  }

  /** The upstream's deadline to leave has passed. */
  cut(): void {
    const { tunnel, hedge } = this.#exchange
    const error = new ProxyError('ERR_DRAINING', { upstream: this.upstream })
    // Another is to answer, or has: this one's answer was put aside, or is read for the connection's sake only.
    if (this.#mode === 'stashing' || this.#mode === 'discarding') this.cancelQuietly(error)
    else if (tunnel !== undefined) tunnel.destroy(error)
    else if (hedge?.contested === true) this.lose(error)
    else this.cancel(error)
  }

  get tunnelling(): boolean {
    return this.#exchange.tunnel !== undefined
  }

  /** The upstream is given up while this runs: as if it had broken off. */
  lose(error: ProxyError): void {
    const { tunnel } = this.#exchange
    if (tunnel !== undefined) tunnel.destroy(error)
    else if (this.#mode !== 'over') {
      this.call.abort()
      this.onError(error)
    }
  }

  /** Worked out when asked: most attempts end without anybody wanting to know, and a clock read is not free. */
  get durationMs(): number {
    return (this.#endedAt ?? this.#exchange.core.clock.now()) - this.startedAt
  }

  onStart(call: UpstreamCall): void {
    this.call = call
  }

  onInterim(status: number, headers: string[]): void {
    if (this.#mode === 'waiting' && this.#exchange.hedge?.contested !== true)
      this.#exchange.core.relayInterim(this.#exchange, status, headers)
  }

  onHead(status: number, reason: string, headers: string[]): void {
    if (this.#mode !== 'waiting') return
    const exchange = this.#exchange
    const route = exchange.route as CompiledRoute
    this.headMs = exchange.core.clock.now() - this.startedAt
    if (exchange.incoming !== undefined) this.#waited = exchange.incoming.waitedMs
    this.status = status
    if (route.pool.watchesHeads) {
      route.pool.onHead(this, status, headers)
      // A policy may have taken the upstream down, and this attempt with it.
      if (this.over) return
    }
    if (exchange.hedge !== undefined) {
      if (route.retry.statuses?.has(status) === true && exchange.hedge.leave(this)) {
        this.#putAside(status, reason, headers)
        return
      }
      exchange.hedge?.won(this)
      if (this.over) return
    }
    if (route.retry.statuses?.has(status) === true && this.#retryStatus(route, status, reason, headers)) return
    exchange.incoming?.commit()
    exchange.stash = undefined
    exchange.upstream = this.upstream
    this.#mode = 'holding'
    respondUpstream(exchange, this, status, reason, headers)
  }

  onData(chunk: Buffer, reclaim?: (chunk: Buffer) => void): void {
    switch (this.#mode) {
      case 'relaying':
        this.#pump?.write(chunk, reclaim)
        return
      case 'holding':
        this.#queued ??= []
        this.#queued.push(chunk)
        return
      case 'stashing': {
        const stash = this.#stash as Stash
        stash.bytes += chunk.length
        if (stash.bytes <= discardLimit) stash.chunks.push(chunk)
        else this.cancelQuietly()
        return
      }
      case 'discarding':
        this.#discarded += chunk.length
        if (this.#discarded > discardLimit) this.cancelQuietly()
        return
      case 'waiting':
      case 'over':
        return
    }
  }

  onEnd(trailers: string[] | undefined): void {
    const relayable = trailers === undefined || !this.#exchange.facts?.takesTrailers ? undefined : endToEndTrailers(trailers)
    switch (this.#mode) {
      case 'relaying': {
        const pump = this.#pump
        this.#mode = 'over'
        pump?.end(relayable)
        this.#release()
        return
      }
      case 'holding':
        this.#ended = true
        this.#trailers = relayable
        return
      case 'stashing':
        ;(this.#stash as Stash).complete = true
        this.#finish()
        return
      case 'discarding':
        this.#finish()
        return
      case 'waiting':
      case 'over':
        return
    }
  }

  onUpgrade(headers: string[], tunnel: PendingTunnel): void {
    if (this.#mode !== 'waiting') {
      tunnel.socket.destroy()
      return
    }
    this.headMs = this.#exchange.core.clock.now() - this.startedAt
    this.status = 101
    const { pool } = this.#exchange.route as CompiledRoute
    if (pool.watchesHeads) {
      pool.onHead(this, 101, headers)
      if (this.over) {
        tunnel.socket.destroy()
        return
      }
    }
    this.#exchange.upstream = this.upstream
    this.#mode = 'holding'
    // The transport's part is over: what there is to abort from here on is the socket that waits to be joined.
    this.call = new SwitchedCall(this.call, tunnel)
    this.#exchange.core.openTunnel(this.#exchange, this, headers, tunnel)
  }

  onError(error: ProxyError): void {
    const mode = this.#mode
    if (mode === 'over') return
    error.upstream ??= this.upstream
    error.attempt ??= this.number
    this.error = error
    this.#finish()
    const exchange = this.#exchange
    if (exchange.finished) return
    switch (mode) {
      case 'waiting':
        if (exchange.hedge?.leave(this) !== true) this.#retryError(error)
        return
      case 'stashing':
      case 'discarding':
        return
      default:
        exchange.core.breakOff(exchange, error)
    }
  }

  /** The response goes to the client from here on. */
  relay(pump: ResponsePump): void {
    this.#pump = pump
    this.#mode = 'relaying'
    const queued = this.#queued
    if (queued !== undefined) {
      this.#queued = undefined
      for (const chunk of queued) pump.write(chunk)
    }
    if (this.#ended) this.onEnd(this.#trailers)
  }

  /** The response is not wanted; what little is left of it is read so that the connection can be used again. */
  drop(): void {
    if (this.#mode === 'over') return
    this.#mode = 'discarding'
    this.#queued = undefined
    if (this.#ended) this.#finish()
    else if (this.held) this.cancelQuietly()
  }

  /** Ends the call and fails the exchange with `error`. */
  cancel(error: ProxyError): void {
    if (this.#mode === 'over') return
    error.upstream ??= this.upstream
    this.error = error
    this.call.abort()
    this.#finish()
    if (!this.#exchange.finished) this.#exchange.core.breakOff(this.#exchange, error)
  }

  /** Ends the call; the exchange goes on (or has ended). */
  cancelQuietly(error?: ProxyError): void {
    if (this.#mode === 'over') return
    this.error ??= error
    this.call.abort()
    this.#finish()
  }

  /** A tunnel has taken over and says when it has ended. */
  finishTunnel(error: ProxyError | undefined): void {
    this.error = error
    this.#finish()
  }

  #finish(): void {
    if (this.#mode === 'over') return
    this.#mode = 'over'
    this.#waited ??= this.#exchange.incoming?.waitedMs
    this.#release()
    const stash = this.#stash
    if (stash === undefined) return
    if (!stash.complete && this.#exchange.stash === stash) this.#exchange.stash = undefined
    stash.onSettled?.()
  }

  #release(): void {
    const { core, route } = this.#exchange
    const observed = attemptFinish.hasSubscribers
    if (observed || this.#exchange.hooks !== undefined || exchangeFinish.hasSubscribers) this.#endedAt = core.clock.now()
    const { pool } = route as CompiledRoute
    pool.release(this)
    if (observed) attemptFinish.publish({ exchange: this.#exchange, attempt: this })
  }

  #retryError(error: ProxyError): void {
    const exchange = this.#exchange
    const route = exchange.route as CompiledRoute
    if (!retriesError(route.retry, error, this.call.sent, isRepeatable(exchange, route)) || !takeRetry(exchange, route)) {
      giveUp(exchange, error)
      return
    }
    exchange.tried = [...exchange.tried, this.upstream]
    // Another server may answer at once; the same one is given a moment.
    retryAfter(exchange, !route.pool.allTried(exchange) ? 0 : backoffDelay(route.retry, exchange.tries + 1, exchange.core.random))
  }

  /** The client gets this only if nothing better comes. */
  #putAside(status: number, reason: string, headers: string[]): void {
    this.#stash = new Stash(status, reason, headers, this.upstream)
    this.#exchange.stash = this.#stash
    this.#mode = 'stashing'
  }

  #retryStatus(route: CompiledRoute, status: number, reason: string, headers: string[]): boolean {
    const exchange = this.#exchange
    if (exchange.kind === 'upgrade' || !isRepeatable(exchange, route)) return false
    const asked = parseRetryAfter(new HeaderList(headers).get('retry-after'), Date.now())
    if (asked !== undefined && asked > route.retry.maxRetryAfter) return false
    if (!takeRetry(exchange, route)) return false
    exchange.tried = [...exchange.tried, this.upstream]
    this.#putAside(status, reason, headers)
    retryAfter(exchange, asked ?? backoffDelay(route.retry, exchange.tries + 1, exchange.core.random))
    return true
  }
}

/** Of a call whose connection has switched to another protocol. */
class SwitchedCall implements UpstreamCall {
  readonly reused: boolean
  readonly connectMs: number | undefined
  readonly connectPhases: UpstreamCall['connectPhases']
  readonly sent: boolean
  readonly #tunnel: PendingTunnel

  constructor({ reused, connectMs, connectPhases, sent }: UpstreamCall, tunnel: PendingTunnel) {
    this.reused = reused
    this.connectMs = connectMs
    this.connectPhases = connectPhases
    this.sent = sent
    this.#tunnel = tunnel
  }

  pause(): void {}

  resume(): void {}

  abort(): void {
    this.#tunnel.socket.destroy()
  }
}

const idleCall: UpstreamCall = { abort() {}, pause() {}, resume() {}, reused: false, connectMs: undefined, sent: false }
