/**
 * The attempt loop. It alone knows whether bytes were sent, whether the body can be replayed and whether the client has seen a head, so
 * retry, health, balancing and deadlines meet here and nowhere else.
 *
 * An attempt is the sink of one transport call and a small state machine: it waits for a head; then it relays to the client, or holds while
 * asynchronous hooks decide, or stashes (its status is being retried), or discards (a hook replaced the response). A retry happens at an
 * error or at a head, never after the first byte has gone to the client.
 */
import { BufferedBody, IncomingBody, type ResponsePump } from './body.ts'
import { consumedBody } from './consumed-body.ts'
import { ProxyError } from './errors.ts'
import { attemptFinish, exchangeFinish } from './events.ts'
import type { AttemptOutcome } from './exchange.ts'
import type { LiveExchange } from './exchange-live.ts'
import { HeaderList } from './headers.ts'
import { endToEndRequestFields, endToEndTrailers } from './hop-by-hop.ts'
import { stageError } from './pipeline.ts'
import type { RequestFacts } from './request-check.ts'
import { respondStash, respondUpstream, Stash } from './response.ts'
import { backoffDelay, parseRetryAfter, retriesError } from './retry.ts'
import type { CompiledRoute } from './route.ts'
import { hasPrefix, joinBase, refuseClimbing, stripPrefix } from './target.ts'
import type { PendingTunnel, UpgradeSink, UpstreamCall } from './transport/transport.ts'
import type { PoolUpstream, Upstream } from './upstream.ts'

/** Body bytes that are read into nothing so that a connection can be kept; beyond it a new connection is cheaper. */
const discardLimit = 65_536

type AttemptMode = 'waiting' | 'holding' | 'relaying' | 'stashing' | 'discarding' | 'over'

/** Before the first try: the body, the budget. */
export function startForwarding(exchange: LiveExchange): void {
  const { core } = exchange
  const route = exchange.route as CompiledRoute
  route.retry.budget?.onRequest(exchange.startedAt)
  try {
    openBody(exchange, route)
  } catch (error) {
    core.fail(exchange, ProxyError.is(error) ? error : new ProxyError('ERR_BODY_CONSUMED', { cause: error }))
    return
  }
  if (exchange.incoming === undefined) nextAttempt(exchange, 0)
  // Body bytes that came in one packet with the head are there when this tick is over, and not before.
  else
    process.nextTick(() => {
      if (!exchange.finished) nextAttempt(exchange, 0)
    })
}

function openBody(exchange: LiveExchange, route: CompiledRoute): void {
  const facts = exchange.facts as RequestFacts
  const { req, core } = exchange
  if (!facts.hasBody || exchange.body !== undefined) return
  if (facts.length !== undefined && facts.length > route.maxBodySize) throw new ProxyError('ERR_BODY_TOO_LARGE')
  if (req.readableEnded || req.readableDidRead) {
    const bytes = consumedBody(req)
    if (bytes.length > route.maxBodySize) throw new ProxyError('ERR_BODY_TOO_LARGE')
    exchange.body = new BufferedBody(bytes)
    return
  }
  exchange.incoming = new IncomingBody(req, facts.length, facts.announcesTrailers, route.maxBodySize, route.retry.replayBuffer, (error) => {
    if (ProxyError.is(error) && error.code === 'ERR_BODY_TOO_LARGE') cutShort(exchange, error)
    // Answered already: what becomes of the rest of the upload, the response's own end will tell.
    else if (!exchange.pumped) core.clientGone(exchange)
  })
  exchange.body = exchange.incoming
}

/** Ends a running exchange from outside the attempt: a deadline, a body limit. */
export function cutShort(exchange: LiveExchange, error: ProxyError): void {
  if (exchange.finished) return
  const { attempt } = exchange
  if (attempt !== undefined && !attempt.over) attempt.cancel(error)
  else exchange.core.fail(exchange, error)
}

/** Chooses an upstream and sends, or waits for one. `queuedMs` is how long this try has waited already. */
function nextAttempt(exchange: LiveExchange, queuedMs: number): void {
  const route = exchange.route as CompiledRoute
  const { pool } = route
  let upstream: Upstream | undefined
  try {
    if (queuedMs > 0 || exchange.attempts.length > 0 || !pool.hasWaiters) {
      upstream = pool.pick(exchange)
      if (
        upstream === undefined &&
        exchange.tried.length > 0 &&
        pool.upstreams.every((other) => other.state !== 'up' || exchange.tried.includes(other))
      ) {
        // Everybody was tried (and is not merely full): better the same again than nobody.
        exchange.tried = []
        upstream = pool.pick(exchange)
      }
    }
  } catch (cause) {
    exchange.core.fail(exchange, stageError('balancer', cause))
    return
  }
  if (upstream !== undefined) {
    send(exchange, route, upstream, queuedMs)
    return
  }
  const since = exchange.core.clock.now()
  const waiter = pool.wait(exchange, (error) => {
    exchange.waiter = undefined
    if (exchange.finished) return
    if (error !== undefined) exchange.core.fail(exchange, error)
    else nextAttempt(exchange, queuedMs + Math.max(exchange.core.clock.now() - since, 0.001))
  })
  if (ProxyError.is(waiter)) giveUp(exchange, waiter)
  else exchange.waiter = waiter
}

function send(exchange: LiveExchange, route: CompiledRoute, upstream: Upstream, queuedMs: number): void {
  const attempt = new Attempt(exchange, upstream, queuedMs)
  exchange.attempts = exchange.attempts.length === 0 ? [attempt] : [...exchange.attempts, attempt]
  exchange.attempt = attempt
  route.pool.enter(attempt)
  let path: string
  let headers: readonly string[]
  try {
    path = targetFor(exchange, route, upstream as PoolUpstream)
    headers = fieldsFor(exchange, route, upstream as PoolUpstream)
  } catch (cause) {
    attempt.cancel(stageError('onAttempt', cause))
    return
  }
  if (exchange.owesContinue && exchange.body !== undefined) {
    // Policy has passed and somebody will read the body: now, and only now, is the client asked to send it.
    exchange.owesContinue = false
    exchange.res.writeContinue()
  }
  const { transport } = route.pool
  if (exchange.kind === 'request')
    transport.send(
      { method: exchange.method, path, headers, body: exchange.body, timeouts: route.limits, fresh: metStale(exchange) },
      upstream,
      attempt,
    )
  else if (transport.upgrade === undefined)
    attempt.cancel(new ProxyError('ERR_REQUEST_NOT_SENT', { message: `The transport ${transport.name} carries no upgrades.` }))
  else {
    const protocol = (exchange.facts as RequestFacts).upgrade as string
    transport.upgrade(
      { method: exchange.method, path, headers, timeouts: route.limits, protocol, client: exchange.socket as never },
      upstream,
      attempt,
    )
  }
}

/** The last try died on a pooled connection: the others in that pool are as old, or the upstream has restarted. */
function metStale(exchange: LiveExchange): boolean {
  const last = exchange.attempts.at(-2)
  return last?.reused === true && last.error?.code === 'ERR_UPSTREAM_RESET'
}

function targetFor(exchange: LiveExchange, route: CompiledRoute, upstream: PoolUpstream): string {
  let { url } = exchange
  if (url === '*') return url
  if (route.stripPrefix !== '' && hasPrefix(url, route.stripPrefix)) url = stripPrefix(url, route.stripPrefix)
  if (route.rewrite !== undefined) {
    url = route.rewrite(url, exchange)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: a target must not hold them
    if (typeof url !== 'string' || url.charCodeAt(0) !== 0x2f || /[\x00-\x20\x7f#]/.test(url))
      throw new ProxyError('ERR_STAGE', {
        message: `rewrite returned ${JSON.stringify(url)}; it must return a target that starts with a slash.`,
      })
  }
  const base = upstream.base + route.addPrefix
  if (base !== '' || route.stripPrefix !== '') refuseClimbing(url)
  return joinBase(base, url)
}

function fieldsFor(exchange: LiveExchange, route: CompiledRoute, upstream: PoolUpstream): readonly string[] {
  const { core, hooks } = exchange
  const facts = exchange.facts as RequestFacts
  const connection = exchange.connection as NonNullable<LiveExchange['connection']>
  const fields = endToEndRequestFields(exchange.headers.raw, facts.connection, !connection.trusted)
  const policy = route.hostHeader
  if (policy !== 'client' || facts.host === undefined) setHost(fields, typeof policy === 'object' ? policy.fixed : upstream.authority)
  if (exchange.body !== undefined) {
    if (facts.length === undefined && exchange.body.length !== undefined) fields.push('Content-Length', String(exchange.body.length))
    else if (facts.length !== undefined && facts.length !== exchange.body.length) setLength(fields, exchange.body.length as number)
    if (exchange.body.hasTrailers) for (const line of exchange.headers.getAll('trailer')) fields.push('Trailer', line)
  }
  core.forwarding.write(fields, connection, facts.host, route.stripPrefix === '' ? undefined : route.stripPrefix)
  if (facts.takesTrailers && exchange.kind === 'request') fields.push('TE', 'trailers')
  if (core.via !== undefined) fields.push('Via', `${exchange.req.httpVersion} ${core.via}`)
  if (hooks === undefined && route.requestEdit === undefined) return fields
  const list = new HeaderList(fields)
  if (hooks !== undefined) for (const hook of hooks) hook.onAttempt?.(list, upstream)
  route.requestEdit?.(list, exchange)
  return list.raw
}

function setHost(fields: string[], host: string): void {
  for (let i = 0; i < fields.length; i += 2)
    if ((fields[i] as string).length === 4 && (fields[i] as string).toLowerCase() === 'host') {
      fields[i + 1] = host
      return
    }
  fields.unshift('Host', host)
}

function setLength(fields: string[], length: number): void {
  for (let i = 0; i < fields.length; i += 2) if ((fields[i] as string).toLowerCase() === 'content-length') fields[i + 1] = String(length)
}

/** Tries have run out: the last real response, if one was kept whole, else the error. */
function giveUp(exchange: LiveExchange, error: ProxyError): void {
  const { stash } = exchange
  if (stash === undefined || error.code === 'ERR_STAGE') exchange.core.fail(exchange, error)
  else if (stash.complete) {
    exchange.stash = undefined
    respondStash(exchange, stash)
  } else {
    // Its body is still on its way. Its own timeouts, and the deadline, bound the wait.
    stash.onSettled = () => {
      if (!exchange.finished) giveUp(exchange, error)
    }
  }
}

/** May this request be processed twice? */
function isRepeatable(exchange: LiveExchange, route: CompiledRoute): boolean {
  return route.retry.methods.has(exchange.method) || (route.retry.idempotencyKey && exchange.headers.has('idempotency-key'))
}

/** Everything but the reason: tries left, body whole, budget. Takes a retry out of the budget when it says yes. */
function takeRetry(exchange: LiveExchange, route: CompiledRoute): boolean {
  const { retry } = route
  if (exchange.attempts.length >= retry.attempts || exchange.core.aborting) return false
  if (exchange.incoming !== undefined && !exchange.incoming.replayable) return false
  return retry.budget === undefined || retry.budget.tryRetry(exchange.core.clock.now())
}

function retryAfter(exchange: LiveExchange, delay: number): void {
  if (delay <= 0) {
    nextAttempt(exchange, 0)
    return
  }
  exchange.backoffTimer = exchange.core.clock.setTimeout(() => {
    exchange.backoffTimer = undefined
    if (!exchange.finished) nextAttempt(exchange, 0)
  }, delay)
}

/** One try, and the sink of its transport call. */
export class Attempt implements UpgradeSink, AttemptOutcome {
  readonly upstream: Upstream
  readonly number: number
  readonly startedAt: number
  readonly queuedMs: number
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
  /** Intrusive list of the upstream's running attempts, kept by the pool. */
  previous: Attempt | undefined = undefined
  next: Attempt | undefined = undefined
  readonly #exchange: LiveExchange

  constructor(exchange: LiveExchange, upstream: Upstream, queuedMs: number) {
    this.#exchange = exchange
    this.upstream = upstream
    this.number = exchange.attempts.length + 1
    // The first try begins with the exchange unless it had to wait: stages run in between, but they are microseconds.
    this.startedAt = this.number === 1 && queuedMs === 0 && exchange.hooks === undefined ? exchange.startedAt : exchange.core.clock.now()
    this.queuedMs = queuedMs
  }

  get over(): boolean {
    return this.#mode === 'over'
  }

  get reused(): boolean {
    return this.call.reused
  }

  get connectMs(): number | undefined {
    return this.call.connectMs
  }

  /** The upstream's deadline to leave has passed. */
  cut(): void {
    const { tunnel } = this.#exchange
    if (tunnel === undefined) this.cancel(new ProxyError('ERR_DRAINING', { upstream: this.upstream }))
    else tunnel.destroy(new ProxyError('ERR_DRAINING', { upstream: this.upstream }))
  }

  /** Worked out when asked: most attempts end without anybody wanting to know, and a clock read is not free. */
  get durationMs(): number {
    return (this.#endedAt ?? this.#exchange.core.clock.now()) - this.startedAt
  }

  onStart(call: UpstreamCall): void {
    this.call = call
  }

  onInterim(status: number, headers: string[]): void {
    if (this.#mode === 'waiting') this.#exchange.core.relayInterim(this.#exchange, status, headers)
  }

  onHead(status: number, reason: string, headers: string[]): void {
    if (this.#mode !== 'waiting') return
    const exchange = this.#exchange
    const route = exchange.route as CompiledRoute
    this.headMs = exchange.core.clock.now() - this.startedAt
    this.status = status
    if (route.retry.statuses?.has(status) === true && this.#retryStatus(route, status, reason, headers)) return
    exchange.incoming?.commit()
    exchange.stash = undefined
    exchange.upstream = this.upstream
    this.#mode = 'holding'
    respondUpstream(exchange, this, status, reason, headers)
  }

  onData(chunk: Buffer): void {
    switch (this.#mode) {
      case 'relaying':
        this.#pump?.write(chunk)
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
    this.#exchange.upstream = this.upstream
    this.#mode = 'holding'
    // The transport's part is over: what there is to abort from here on is the socket that waits to be joined.
    const { reused, connectMs, sent } = this.call
    this.call = { reused, connectMs, sent, pause() {}, resume() {}, abort: () => void tunnel.socket.destroy() }
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
        this.#retryError(error)
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
    const others = route.pool.upstreams.some((upstream) => upstream.state === 'up' && !exchange.tried.includes(upstream))
    retryAfter(exchange, others ? 0 : backoffDelay(route.retry, exchange.attempts.length + 1, exchange.core.random))
  }

  #retryStatus(route: CompiledRoute, status: number, reason: string, headers: string[]): boolean {
    const exchange = this.#exchange
    if (exchange.kind === 'upgrade' || !isRepeatable(exchange, route)) return false
    const asked = parseRetryAfter(new HeaderList(headers).get('retry-after'), Date.now())
    if (asked !== undefined && asked > route.retry.maxRetryAfter) return false
    if (!takeRetry(exchange, route)) return false
    exchange.tried = [...exchange.tried, this.upstream]
    this.#stash = new Stash(status, reason, headers, this.upstream)
    exchange.stash = this.#stash
    this.#mode = 'stashing'
    retryAfter(exchange, asked ?? backoffDelay(route.retry, exchange.attempts.length + 1, exchange.core.random))
    return true
  }
}

const idleCall: UpstreamCall = { abort() {}, pause() {}, resume() {}, reused: false, connectMs: undefined, sent: false }
