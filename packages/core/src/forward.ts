/**
 * The attempt loop. It alone knows whether bytes were sent, whether the body can be replayed and whether the client has seen a head, so
 * retry, health, balancing and deadlines meet here and nowhere else.
 *
 * A retry happens at an error or at a head, never after the first byte has gone to the client (attempt.ts).
 */
import type { IncomingMessage } from 'node:http'
import { Attempt } from './attempt.ts'
import { BufferedBody, IncomingBody } from './body.ts'
import { consumedBody } from './consumed-body.ts'
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import { hedgeFor } from './hedge.ts'
import { stageError } from './pipeline.ts'
import type { RequestFacts } from './request-check.ts'
import { RequestTaps } from './request-taps.ts'
import { respondStash } from './response.ts'
import type { CompiledRoute } from './route.ts'
import type { RequestTap } from './stage.ts'
import type { PoolUpstream, Upstream } from './upstream.ts'
import { fieldsFor, targetFor } from './upstream-request.ts'

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
  if (exchange.requestTaps !== undefined && !showBody(exchange, exchange.requestTaps)) return
  if (route.retry.hedge !== undefined) exchange.hedge = hedgeFor(exchange, route)
  if (exchange.incoming === undefined) nextAttempt(exchange)
  // Body bytes that came in one packet with the head are there when this tick is over, and not before.
  else
    process.nextTick(() => {
      if (!exchange.finished) nextAttempt(exchange)
    })
}

/** To whoever asked to see it. False when one of them threw, and the exchange has failed. */
function showBody(exchange: LiveExchange, taps: readonly RequestTap[]): boolean {
  const { incoming, body } = exchange
  if (incoming !== undefined) for (const tap of taps) incoming.tap(tap)
  else if (body instanceof BufferedBody) body.show(new RequestTaps(taps, (cause) => exchange.fail(stageError('tapRequest', cause))))
  return !exchange.failing && !exchange.finished
}

function openBody(exchange: LiveExchange, route: CompiledRoute): void {
  const facts = exchange.facts as RequestFacts
  const { req } = exchange
  if (!facts.hasBody) return
  // A stage has read it; those behind that one may still change it.
  if (exchange.body instanceof BufferedBody) {
    if (exchange.requestTransforms !== undefined) streamBody(exchange, route, exchange.body.asRequest())
    return
  }
  if (facts.length !== undefined && facts.length > route.maxBodySize) throw new ProxyError('ERR_BODY_TOO_LARGE')
  if (req.readableEnded || req.readableDidRead) {
    const bytes = consumedBody(req)
    if (bytes.length > route.maxBodySize) throw new ProxyError('ERR_BODY_TOO_LARGE')
    const body = new BufferedBody(bytes)
    if (exchange.requestTransforms !== undefined) streamBody(exchange, route, body.asRequest())
    else exchange.body = body
    return
  }
  streamBody(exchange, route, req)
}

function streamBody(exchange: LiveExchange, route: CompiledRoute, source: IncomingMessage): void {
  const { length, announcesTrailers } = exchange.facts as RequestFacts
  const onFailure = (error: Error): void => {
    // Answered already: what becomes of the rest of the upload, the response's own end will tell.
    if (exchange.pumped) return
    if (ProxyError.is(error) && error.code !== 'ERR_CLIENT_ABORTED') cutShort(exchange, error)
    else exchange.core.clientGone(exchange)
  }
  const { maxBodySize, retry } = route
  exchange.incoming = new IncomingBody(
    source,
    length,
    announcesTrailers,
    maxBodySize,
    retry.replayBuffer,
    onFailure,
    exchange.requestTransforms,
    exchange,
  )
  exchange.body = exchange.incoming
}

/** Ends a running exchange from outside the attempt: a deadline, a body limit, a stage's `fail`. */
export function cutShort(exchange: LiveExchange, error: ProxyError): void {
  if (exchange.finished) return
  if (exchange.core.leave(exchange, error)) return
  const { attempt } = exchange
  if (attempt !== undefined && !attempt.over) attempt.cancel(error)
  else exchange.core.fail(exchange, error)
}

/** Chooses an upstream and sends, or waits for one. */
function nextAttempt(exchange: LiveExchange): void {
  if (exchange.failing) return
  const { pool } = exchange.route as CompiledRoute
  // Whoever waits has been asked when somebody became free, so a newcomer takes nothing from them.
  if (tryNow(exchange, 0)) return
  const since = exchange.core.clock.now()
  const waiter = pool.wait(exchange, (error) => {
    if (error === undefined) return tryNow(exchange, Math.max(exchange.core.clock.now() - since, 0.001))
    exchange.waiter = undefined
    if (!exchange.finished) exchange.core.fail(exchange, error)
    return true
  })
  if (!ProxyError.is(waiter)) exchange.waiter = waiter
  // For a retry there is nobody: what the try before met is the reason that its client should hear of.
  else if (waiter.code === 'ERR_NO_UPSTREAM') giveUp(exchange, exchange.latest?.error ?? waiter)
  else giveUp(exchange, waiter)
}

/** Sends, or ends it; false: nobody is free for it. @param queuedMs how long this try has waited */
function tryNow(exchange: LiveExchange, queuedMs: number): boolean {
  const route = exchange.route as CompiledRoute
  const { pool } = route
  let upstream: Upstream | undefined
  try {
    const refused = pool.admit(exchange)
    if (refused !== undefined) {
      stopWaiting(exchange)
      // A retry that is not let through: as above.
      giveUp(exchange, exchange.latest?.error ?? refused)
      return true
    }
    upstream = pool.pick(exchange)
    if (upstream === undefined && exchange.tried.length > 0 && pool.allTried(exchange)) {
      // Everybody was tried (and is not merely full): better the same again than nobody.
      exchange.tried = []
      upstream = pool.pick(exchange)
    }
  } catch (cause) {
    stopWaiting(exchange)
    exchange.core.fail(exchange, stageError('balancer', cause))
    return true
  }
  if (upstream === undefined) return false
  stopWaiting(exchange)
  send(exchange, route, upstream, queuedMs)
  return true
}

function stopWaiting(exchange: LiveExchange): void {
  if (exchange.waiter === undefined) return
  exchange.route?.pool.leave(exchange.waiter)
  exchange.waiter = undefined
}

/** The 100 that the client waits for. False when it has left: the exchange is over. */
export function askForBody(exchange: LiveExchange): boolean {
  exchange.owesContinue = false
  try {
    exchange.res.writeContinue()
    return true
  } catch {
    // An HTTP/2 stream that has gone, and has not said so yet.
    exchange.core.clientGone(exchange)
    return false
  }
}

/** @param upstream taken from the pool for this try */
export function send(exchange: LiveExchange, route: CompiledRoute, upstream: Upstream, queuedMs: number): void {
  const attempt = new Attempt(exchange, upstream, queuedMs)
  exchange.latest = attempt
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
  // A hook has failed the exchange.
  if (attempt.over) return
  if (exchange.owesContinue && exchange.body !== undefined) {
    // Policy has passed and somebody will read the body: now, and only now, is the client asked to send it.
    if (!askForBody(exchange)) return
  }
  exchange.hedge?.add(attempt)
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
  const last = exchange.latest?.before
  return last?.reused === true && last.error?.code === 'ERR_UPSTREAM_RESET'
}

/** Tries have run out: the last real response, if one was kept whole, else the error. */
export function giveUp(exchange: LiveExchange, error: ProxyError): void {
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
export function isRepeatable(exchange: LiveExchange, route: CompiledRoute): boolean {
  return route.retry.methods.has(exchange.method) || (route.retry.idempotencyKey && exchange.headers.has('idempotency-key'))
}

/** Everything but the reason: tries left, body whole, budget. Takes a retry out of the budget when it says yes. */
export function takeRetry(exchange: LiveExchange, route: CompiledRoute): boolean {
  const { retry } = route
  if (exchange.tries >= retry.attempts || exchange.core.aborting) return false
  if (exchange.incoming !== undefined && !exchange.incoming.replayable) return false
  return retry.budget === undefined || retry.budget.tryRetry(exchange.core.clock.now())
}

export function retryAfter(exchange: LiveExchange, delay: number): void {
  if (delay <= 0) {
    nextAttempt(exchange)
    return
  }
  exchange.backoffTimer = exchange.core.clock.setTimeout(() => {
    exchange.backoffTimer = undefined
    if (!exchange.finished) nextAttempt(exchange)
  }, delay)
}
