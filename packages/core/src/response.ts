/**
 * From a head to bytes at the client. There is one way out for everything: an upstream's response, a stage's reply and an error answer all
 * become a `ProxyResponse`, pass the hooks, and are committed here. A response that no hook and no rule wants to see takes a shorter path:
 * its fields are filtered once and handed to node as they are.
 */
import type { ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { Duplex } from 'node:stream'
import { Readable } from 'node:stream'
import { type BodyStep, ChainedPump, hold, letGo, ResponsePump } from './body.ts'
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import type { Attempt } from './forward.ts'
import { checkField, HeaderList, isField } from './headers.ts'
import { keepEndToEnd, type ResponseScan } from './hop-by-hop.ts'
import { hasResponseHooks, runResponseHooks, stageError } from './pipeline.ts'
import { type PublicFace, rewriteRedirects } from './redirect.ts'
import { isHttp2 } from './request-check.ts'
import type { CompiledRoute } from './route.ts'
import type { BodyTap, ProxyResponse, Reply } from './stage.ts'
import type { UpstreamCall } from './transport/transport.ts'
import type { PoolUpstream, Upstream } from './upstream.ts'

/** A real response that is kept while a retry for its status runs: when the retry fails, this is what the client gets. */
export class Stash {
  readonly status: number
  readonly reason: string
  readonly headers: string[]
  readonly upstream: Upstream
  chunks: Buffer[] = []
  bytes: number = 0
  complete: boolean = false
  /** Set when tries have run out before this was complete; called when it is, or will never be. */
  onSettled: (() => void) | undefined = undefined

  constructor(status: number, reason: string, headers: string[], upstream: Upstream) {
    this.status = status
    this.reason = reason
    this.headers = headers
    this.upstream = upstream
  }
}

class ResponseHead implements ProxyResponse {
  status: number
  reason: string
  headers: HeaderList
  hasBody: boolean
  readonly upstream: Upstream | undefined
  steps: BodyStep[] | undefined = undefined
  replacement: Reply | undefined = undefined
  readonly #method: string

  constructor(method: string, status: number, reason: string, headers: readonly string[], upstream: Upstream | undefined) {
    this.status = status
    this.reason = reason
    this.headers = new HeaderList(headers)
    this.hasBody = statusHasBody(method, status)
    this.upstream = upstream
    this.#method = method
  }

  transform(stream: Duplex): void {
    if (!this.hasBody) {
      stream.destroy()
      return
    }
    this.steps ??= []
    this.steps.push({ transform: stream })
    this.headers.delete('content-length')
  }

  tap(tap: BodyTap): void {
    this.steps ??= []
    this.steps.push({ tap })
  }

  replace(reply: Reply): void {
    for (const step of this.steps ?? []) if ('transform' in step) step.transform.destroy()
    this.steps = undefined
    this.replacement = reply
    this.status = reply.status
    this.reason = ''
    this.headers = new HeaderList(replyFields(reply))
    this.hasBody = statusHasBody(this.#method, reply.status)
  }
}

function statusHasBody(method: string, status: number): boolean {
  return method !== 'HEAD' && status >= 200 && status !== 204 && status !== 304
}

/** An upstream answered. Called from the parser's tick; `attempt` feeds the pump afterwards. */
export function respondUpstream(exchange: LiveExchange, attempt: Attempt, status: number, reason: string, raw: string[]): void {
  const { length } = prepareFields(exchange, attempt.upstream, status, raw)
  const edit = exchange.route?.responseEdit
  if (edit === undefined && !hasResponseHooks(exchange)) {
    if (!writeHead(exchange, status, reason, raw)) {
      attempt.cancel(new ProxyError('ERR_UPSTREAM_STATUS'))
      return
    }
    exchange.pump = new ResponsePump(exchange.res, exchange, attempt.call, statusHasBody(exchange.method, status) ? length : -1)
    attempt.relay(exchange.pump)
    return
  }
  const head = new ResponseHead(exchange.method, status, reason, raw, attempt.upstream)
  const done = (error: ProxyError | undefined): void => {
    // The upstream died, or the exchange was cut short, while a hook thought about the head: that has been answered.
    if (attempt.over) return
    if (error !== undefined) {
      attempt.drop()
      exchange.core.fail(exchange, error)
      return
    }
    if (head.replacement !== undefined) {
      attempt.drop()
      commitReply(exchange, head, head.replacement)
      return
    }
    const pump = commit(exchange, head, attempt.call)
    // Refused by node: that has been answered already.
    if (pump === undefined) attempt.cancelQuietly(exchange.error ?? new ProxyError('ERR_UPSTREAM_STATUS'))
    else {
      attempt.relay(pump)
      if (attempt.held) letGo(attempt.call)
    }
  }
  if (!runHooks(exchange, head, done)) {
    attempt.held = true
    hold(attempt.call)
  }
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
  prepareFields(exchange, stash.upstream, stash.status, fields)
  respondBuffered(
    exchange,
    new ResponseHead(exchange.method, stash.status, stash.reason, fields, stash.upstream),
    Buffer.concat(stash.chunks),
  )
}

/** A stage, or the proxy itself, answers. */
export function respondReply(exchange: LiveExchange, reply: Reply): void {
  if (!checkReply(exchange, reply)) return
  const head = new ResponseHead(exchange.method, reply.status, '', replyFields(reply), undefined)
  runHooks(exchange, head, (error) => {
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
  const finish = (error: ProxyError | undefined): void => {
    if (exchange.finished || settled) return
    settled = true
    exchange.thinking = false
    if (error === undefined) {
      try {
        exchange.route?.responseEdit?.(head.headers, exchange)
      } catch (cause) {
        done(stageError('headers.response', cause))
        return
      }
    }
    done(error)
  }
  // An answer to a failed hook must not run the hooks again: that is how one throw becomes a loop.
  if (exchange.error?.code === 'ERR_STAGE' || exchange.thinking || !hasResponseHooks(exchange)) {
    finish(undefined)
    return true
  }
  const atOnce = runResponseHooks(exchange, head, (exchange.hooks?.length ?? 0) - 1, finish)
  // Time is up: a hook that wants more of it is not waited for.
  const code = exchange.error?.code
  if (!atOnce && (code === 'ERR_DEADLINE' || code === 'ERR_DRAINING')) finish(undefined)
  else if (!atOnce && !settled) exchange.thinking = true
  return atOnce
}

function checkReply(exchange: LiveExchange, reply: Reply): boolean {
  try {
    if (!Number.isInteger(reply.status) || reply.status < 200 || reply.status > 599)
      throw new RangeError(`status ${reply.status} is not from 200 to 599`)
    for (const [name, value] of Object.entries(reply.headers ?? {})) for (const line of [value].flat()) checkField(name, line)
    return true
  } catch (cause) {
    exchange.core.fail(exchange, new ProxyError('ERR_STAGE', { message: `A reply cannot be sent: ${(cause as Error).message}`, cause }))
    return false
  }
}

function commitReply(exchange: LiveExchange, head: ResponseHead, reply: Reply): void {
  const { body } = reply
  const bytes =
    body === undefined || body instanceof Readable
      ? undefined
      : typeof body === 'string'
        ? Buffer.from(body)
        : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const transformed = head.steps?.some((step) => 'transform' in step) === true
  if (
    !transformed &&
    statusMayHaveLength(head.status) &&
    !(body instanceof Readable) &&
    !(exchange.method === 'HEAD' && head.headers.has('content-length'))
  )
    head.headers.set('Content-Length', String(bytes?.length ?? 0))
  if (body instanceof Readable && !head.hasBody) body.destroy()
  const pump = commit(exchange, head, body instanceof Readable && head.hasBody ? body : undefined)
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

/** Sends the head as the hooks left it. Undefined when node refused it; the exchange has failed then. */
function commit(exchange: LiveExchange, head: ResponseHead, sender: UpstreamCall | Readable | undefined): ResponsePump | undefined {
  // Hooks may have set what belongs to the connection or frames the message; only their wish to close it is heard.
  if (/(?:^|,)\s*close\s*(?:,|$)/i.test(head.headers.get('connection') ?? '')) exchange.res.shouldKeepAlive = false
  const fields = [...head.headers.raw]
  if (keepEndToEnd(fields, exchange.facts?.takesTrailers === true && head.hasBody).disposition) lengthLast(fields)
  if (!Number.isInteger(head.status) || !writeHead(exchange, head.status, head.reason, fields)) {
    exchange.core.fail(exchange, new ProxyError(head.upstream === undefined ? 'ERR_STAGE' : 'ERR_UPSTREAM_STATUS'))
    return undefined
  }
  const { steps } = head
  const length = head.hasBody && steps === undefined ? lengthOf(fields) : -1
  const plain = steps === undefined && !(sender instanceof Readable)
  const pump = plain
    ? new ResponsePump(exchange.res, exchange, sender, length)
    : new ChainedPump(exchange.res, exchange, sender, length, steps ?? [], head.hasBody)
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

/** Behind a Content-Length node reads Content-Disposition as latin1 and writes it as UTF-8, which changes its octets. */
function lengthLast(fields: string[]): void {
  for (let i = fields.length - 2; i >= 0; i -= 2) if (isField(fields[i] as string, 'content-length')) fields.push(...fields.splice(i, 2))
}

function faceOf(exchange: LiveExchange, route: CompiledRoute, upstream: PoolUpstream): PublicFace {
  const { connection, facts } = exchange
  const proto = connection?.proto ?? 'http'
  // Several proxies make a list of it; the first one met the client. Anything but the two schemes is not put into a URL.
  const told =
    connection?.trusted === true ? (exchange.headers.get('x-forwarded-proto') ?? '').split(',', 1)[0]?.trim().toLowerCase() : undefined
  return {
    proto: told === 'http' || told === 'https' ? told : proto,
    host: facts?.host,
    base: upstream.base + route.addPrefix,
    prefix: route.stripPrefix,
    authority: upstream.authority.toLowerCase(),
  }
}

function dropLength(fields: string[]): void {
  for (let i = fields.length - 2; i >= 0; i -= 2) if (isField(fields[i] as string, 'content-length')) fields.splice(i, 2)
}

/** `Content-Length` of a flat list, -1 when there is none. */
function lengthOf(fields: readonly string[]): number {
  for (let i = 0; i < fields.length; i += 2) if (isField(fields[i] as string, 'content-length')) return Number(fields[i + 1])
  return -1
}

function replyFields(reply: Reply): string[] {
  const out: string[] = []
  let typed = reply.body === undefined || typeof reply.body !== 'string'
  for (const [name, value] of Object.entries(reply.headers ?? {})) {
    if (isField(name, 'content-type')) typed = true
    if (isField(name, 'content-length') || isField(name, 'transfer-encoding') || isField(name, 'connection')) continue
    for (const line of typeof value === 'string' ? [value] : value) out.push(name, line)
  }
  if (!typed) out.push('Content-Type', 'text/plain; charset=utf-8')
  return out
}

/** False when node refused the head (a status or an octet that HTTP forbids); nothing was sent then. */
function writeHead(exchange: LiveExchange, status: number, reason: string, fields: readonly string[]): boolean {
  const { res } = exchange
  exchange.status = status
  try {
    if (status < 200 || status > 999) return false
    if (isHttp2(exchange.req)) writeHttp2Head(res as unknown as Http2ServerResponse, status, fields)
    else {
      if (exchange.core.closing || exchange.kind === 'upgrade') {
        res.shouldKeepAlive = false
      }
      // The types want an object, but node takes the flat list, which alone keeps order and duplicates.
      if (reason === '') res.writeHead(status, fields as unknown as string[])
      else res.writeHead(status, reason, fields as unknown as string[])
    }
  } catch {
    // What node has taken over of the refused head would spoil the answer that follows.
    if (isHttp2(exchange.req)) for (const name of res.getHeaderNames()) res.removeHeader(name)
    else res.statusMessage = ''
    return false
  }
  exchange.answered = true
  return true
}

/** Fields that node:http2 writes once only. */
const singleValued: ReadonlySet<string> = new Set(
  (
    'access-control-allow-credentials access-control-max-age access-control-request-method age authorization content-encoding content-language ' +
    'content-length content-location content-md5 content-range content-type date dnt etag expires from host if-match if-modified-since ' +
    'if-none-match if-range if-unmodified-since last-modified location max-forwards proxy-authorization range referer retry-after tk ' +
    'upgrade-insecure-requests user-agent x-content-type-options'
  ).split(' '),
)

/** Node's HTTP/2 response takes names once: lines of one name are grouped, since its array form keeps only the last. */
function writeHttp2Head(res: Http2ServerResponse, status: number, fields: readonly string[]): void {
  const grouped: Record<string, string | string[]> = Object.create(null)
  for (let i = 0; i < fields.length; i += 2) {
    const name = (fields[i] as string).toLowerCase()
    const value = fields[i + 1] as string
    const present = grouped[name]
    if (present === undefined) grouped[name] = value
    // The first line counts: node throws at a second one of these.
    else if (singleValued.has(name)) continue
    else if (typeof present === 'string') grouped[name] = [present, value]
    else present.push(value)
  }
  res.writeHead(status, grouped)
}

/** Ends the client's connection so that what was sent cannot be taken for complete. */
export function resetClient(exchange: LiveExchange): void {
  const { req, res } = exchange
  if (isHttp2(req)) {
    // RFC 9113 §8.1: an incomplete response ends with an error; INTERNAL_ERROR is 2.
    ;(res as unknown as Http2ServerResponse).stream?.close(2)
    return
  }
  const socket = (res as ServerResponse).socket ?? req.socket
  // Only a reset shows the truncation of a body that ends with the connection (HTTP/1.0); for the others it does no harm.
  if (socket !== null && !('encrypted' in socket) && typeof socket.resetAndDestroy === 'function' && socket.remoteAddress !== undefined)
    socket.resetAndDestroy()
  else socket?.destroy()
}
