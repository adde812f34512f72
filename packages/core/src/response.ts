/**
 * From a head to bytes at the client. There is one way out for everything: an upstream's response, a stage's reply and an error answer all
 * become a `ProxyResponse`, pass the hooks, and are committed here. A response that no hook and no rule wants to see takes a shorter path:
 * its fields are filtered once and handed to node as they are.
 */
import { Readable } from 'node:stream'
import type { Attempt } from './attempt.ts'
import { ChainedPump, hold, letGo, ResponsePump } from './body.ts'
import { showHead, writeHead } from './client-head.ts'
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import { asksToClose, keepEndToEnd, type ResponseScan } from './hop-by-hop.ts'
import { hasResponseHooks, runResponseHooks, stageError } from './pipeline.ts'
import { type PublicFace, rewriteRedirects } from './redirect.ts'
import { lengthLast } from './reply-fields.ts'
import { dropLength, frameBody, toldLength } from './response-framing.ts'
import { expectReply, ResponseHead, replyFields, type Stash, statusHasBody } from './response-head.ts'
import type { CompiledRoute } from './route.ts'
import type { Reply } from './stage.ts'
import { respondFields } from './stored-reply.ts'
import type { UpstreamCall } from './transport/transport.ts'
import type { PoolUpstream, Upstream } from './upstream.ts'

/** An upstream answered. Called from the parser's tick; `attempt` feeds the pump afterwards. */
export function respondUpstream(exchange: LiveExchange, attempt: Attempt, status: number, reason: string, raw: string[]): void {
  const { length, coded } = prepareFields(exchange, attempt.upstream, status, raw)
  // RFC 9112 §6.1: Weir asks for no other, and what it cannot decode it cannot hand on without the field that says so.
  if (coded) {
    attempt.cancel(new ProxyError('ERR_UPSTREAM_CODING'))
    return
  }
  const edit = exchange.route?.responseEdit
  if (edit === undefined && !hasResponseHooks(exchange)) {
    if (!writeHead(exchange, status, reason, raw)) {
      attempt.cancel(new ProxyError('ERR_UPSTREAM_STATUS'))
      return
    }
    const hasBody = statusHasBody(exchange.method, status)
    exchange.pump = new ResponsePump(exchange.res, exchange, attempt.call, hasBody ? length : -1)
    attempt.relay(exchange.pump)
    if (hasBody && length < 0) showHeadSoon(exchange)
    return
  }
  const head = new ResponseHead(exchange.method, status, reason, raw, attempt.upstream)
  const { hasBody } = head
  const done = (error: ProxyError | undefined): void => {
    // The upstream died, or the exchange was cut short, while a hook thought about the head: that has been answered.
    if (attempt.over) return
    if (error !== undefined) {
      attempt.drop()
      exchange.core.fail(exchange, error)
      return
    }
    // Replaced, or given a status that has no body.
    if (head.replacement !== undefined || hasBody !== head.hasBody) {
      attempt.drop()
      commitReply(exchange, head, head.replacement ?? { status: head.status })
      return
    }
    const pump = commit(exchange, head, attempt.call, length)
    // Refused by node: that has been answered already.
    if (pump === undefined) attempt.cancelQuietly(exchange.error ?? new ProxyError('ERR_UPSTREAM_STATUS'))
    else {
      attempt.relay(pump)
      if (attempt.held) letGo(attempt.call)
      if (head.hasBody && (length < 0 || head.isTransformed)) showHeadSoon(exchange)
    }
  }
  if (!runHooks(exchange, head, done)) {
    attempt.held = true
    hold(attempt.call)
  }
}

/**
 * Node keeps a head until something follows it. What has no length may be a stream that is silent for long (an `EventSource` is open when it has the head),
 * so its head goes out alone unless a first byte, or the end, came in the same tick.
 */
function showHeadSoon(exchange: LiveExchange): void {
  process.nextTick(() => {
    if (!exchange.finished && !exchange.pumped && exchange.pump?.bytes === 0) showHead(exchange)
  })
}

/** 101: hooks may edit the fields (a session cookie) or refuse by `replace`. `done` gets the fields, or undefined when something else was answered. */
export function runUpgradeHooks(
  exchange: LiveExchange,
  attempt: Attempt,
  fields: string[],
  done: (fields: readonly string[] | undefined) => void,
): void {
  const head = new ResponseHead(exchange.method, 101, '', fields, attempt.upstream)
  runHooks(exchange, head, (error) => {
    if (error === undefined && head.replacement === undefined) {
      done(head.headers.raw)
      return
    }
    done(undefined)
    attempt.finishTunnel(error)
    if (error !== undefined) exchange.core.fail(exchange, error)
    else commitReply(exchange, head, head.replacement as Reply)
  })
}

/** What a status retry had put aside. */
export function respondStash(exchange: LiveExchange, stash: Stash): void {
  exchange.upstream = stash.upstream
  const fields = stash.headers
  if (prepareFields(exchange, stash.upstream, stash.status, fields).coded) {
    exchange.core.fail(exchange, new ProxyError('ERR_UPSTREAM_CODING', { upstream: stash.upstream }))
    return
  }
  respondBuffered(
    exchange,
    new ResponseHead(exchange.method, stash.status, stash.reason, fields, stash.upstream),
    Buffer.concat(stash.chunks),
  )
}

/** A stage, or the proxy itself, answers. */
export function respondReply(exchange: LiveExchange, reply: Reply): void {
  if (reply.fields !== undefined && respondFields(exchange, reply, reply.fields)) return
  if (reply.body instanceof Readable) {
    exchange.replyBody?.destroy()
    exchange.replyBody = reply.body
  }
  if (!checkReply(exchange, reply)) return
  const head = new ResponseHead(exchange.method, reply.status, '', replyFields(reply), undefined)
  runHooks(exchange, head, (error) => {
    if ((error !== undefined || head.replacement !== undefined) && reply.body instanceof Readable) reply.body.destroy()
    if (error !== undefined) exchange.core.fail(exchange, error)
    else commitReply(exchange, head, head.replacement ?? reply)
  })
}

function respondBuffered(exchange: LiveExchange, head: ResponseHead, body: Buffer): void {
  runHooks(exchange, head, (error) => {
    if (error !== undefined) exchange.core.fail(exchange, error)
    else commitReply(exchange, head, head.replacement ?? { status: head.status, body })
  })
}

function runHooks(exchange: LiveExchange, head: ResponseHead, done: (error: ProxyError | undefined) => void): boolean {
  let settled = false
  const { failing } = exchange
  const finish = (error: ProxyError | undefined): void => {
    if (settled) return
    settled = true
    if (exchange.deciding === head) exchange.deciding = undefined
    // The exchange has ended while a hook took its time, or another answer is on its way.
    if (exchange.finished || exchange.answered || exchange.failing !== failing) {
      head.abandon()
      return
    }
    exchange.thinking = false
    if (error === undefined) head.seal()
    else head.abandon()
    if (error === undefined) {
      try {
        exchange.route?.responseEdit?.(head.headers, exchange)
      } catch (cause) {
        head.abandon()
        done(stageError('headers.response', cause))
        return
      }
      if (head.hasBody && !statusHasBody(exchange.method, head.status)) head.dropBody()
    }
    done(error)
  }
  // An answer to a failed hook must not run the hooks again: that is how one throw becomes a loop.
  if (exchange.error?.code === 'ERR_STAGE' || exchange.thinking || !hasResponseHooks(exchange)) {
    finish(undefined)
    return true
  }
  const atOnce = runResponseHooks(exchange, head, exchange.hooks, finish)
  // Time is up: a hook that wants more of it is not waited for.
  const code = exchange.error?.code
  if (!atOnce && (code === 'ERR_DEADLINE' || code === 'ERR_DRAINING')) finish(undefined)
  else if (!atOnce && !settled) {
    exchange.thinking = true
    exchange.deciding = head
  }
  return atOnce
}

function checkReply(exchange: LiveExchange, reply: Reply): boolean {
  try {
    expectReply(reply)
    return true
  } catch (cause) {
    exchange.core.fail(exchange, new ProxyError('ERR_STAGE', { message: `A reply cannot be sent: ${(cause as Error).message}`, cause }))
    return false
  }
}

function commitReply(exchange: LiveExchange, head: ResponseHead, reply: Reply): void {
  const { body } = reply
  if (body instanceof Readable && head.hasBody && (body.destroyed || body.readableEnded)) {
    const cause = body.errored ?? new Error('it was closed or read before it was sent')
    exchange.core.fail(exchange, stageError('the body of a reply', cause))
    return
  }
  const bytes =
    body === undefined || body instanceof Readable
      ? undefined
      : typeof body === 'string'
        ? Buffer.from(body)
        : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const isStream = body instanceof Readable
  // What a GET would have.
  if (exchange.method === 'HEAD' && statusMayHaveLength(head.status) && !isStream && !head.headers.has('content-length'))
    head.headers.set('Content-Length', String(bytes?.length ?? 0))
  if (isStream && !head.hasBody) body.destroy()
  const pump = commit(
    exchange,
    head,
    isStream && head.hasBody ? body : undefined,
    isStream ? toldLength(replyFields(reply)) : (bytes?.length ?? 0),
  )
  if (pump === undefined) {
    if (body instanceof Readable) body.destroy()
    return
  }
  if (head.hasBody && body instanceof Readable) return
  if (head.hasBody && bytes !== undefined && bytes.length > 0) pump.write(bytes)
  pump.end(undefined)
}

function statusMayHaveLength(status: number): boolean {
  return status >= 200 && status !== 204 && status !== 304
}

/**
 * Sends the head as the hooks left it. Undefined when node refused it; the exchange has failed then.
 * @param length of the body that is to come, before transforms; -1 when nobody knows
 */
function commit(
  exchange: LiveExchange,
  head: ResponseHead,
  sender: UpstreamCall | Readable | undefined,
  length: number,
): ResponsePump | undefined {
  // Hooks may have set what belongs to the connection or frames the message; only their wish to close it is heard.
  if (asksToClose(head.headers.get('connection') ?? '')) exchange.res.shouldKeepAlive = false
  const fields = [...head.headers.raw]
  const { disposition } = keepEndToEnd(fields, exchange.facts?.takesTrailers === true && head.hasBody)
  const told = head.isTransformed ? -1 : length
  frameBody(fields, head, statusHasBody(exchange.method, head.status), told)
  if (disposition) lengthLast(fields)
  if (!Number.isInteger(head.status) || !writeHead(exchange, head.status, head.reason, fields)) {
    exchange.core.fail(exchange, new ProxyError(head.upstream === undefined ? 'ERR_STAGE' : 'ERR_UPSTREAM_STATUS'))
    return undefined
  }
  const { steps } = head
  const plain = steps === undefined && !(sender instanceof Readable)
  const pump = plain
    ? new ResponsePump(exchange.res, exchange, sender, head.hasBody ? told : -1)
    : new ChainedPump(exchange.res, exchange, sender, told, steps ?? [], head.hasBody)
  pump.ahead = head.ahead
  exchange.pump = pump
  return pump
}

/** Keeps what may go on of an upstream's head, framing and redirects put right for this client. In place; returns what the scan found. */
function prepareFields(exchange: LiveExchange, upstream: Upstream, status: number, fields: string[]): ResponseScan {
  const { route, facts } = exchange
  const found = keepEndToEnd(fields, facts?.takesTrailers === true && statusHasBody(exchange.method, status))
  // RFC 9110 §8.6: no Content-Length on 1xx and 204.
  if (status === 204 && found.length >= 0) dropLength(fields)
  if (found.disposition) lengthLast(fields)
  if (found.urls && route?.rewriteRedirects === true) rewriteRedirects(fields, faceOf(exchange, route, upstream as PoolUpstream))
  return found
}

function faceOf(exchange: LiveExchange, route: CompiledRoute, upstream: PoolUpstream): PublicFace {
  return {
    proto: exchange.scheme,
    host: exchange.facts?.host,
    base: upstream.base + route.addPrefix,
    prefix: route.stripPrefix,
    authority: upstream.authority.toLowerCase(),
    address: upstream.url.host,
  }
}
