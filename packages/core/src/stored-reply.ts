/** A reply that is at hand, fields and bytes, on its way to a client: a hit of a cache above all. */
import { ResponsePump } from './body.ts'
import { writeHead } from './client-head.ts'
import { ProxyError } from './errors.ts'
import type { LiveExchange } from './exchange-live.ts'
import { keepEndToEnd } from './hop-by-hop.ts'
import { hasResponseHooks } from './pipeline.ts'
import { lengthLast, ReplyFields } from './reply-fields.ts'
import { isHttp2 } from './request-check.ts'
import { statusHasBody } from './response-head.ts'
import type { Reply } from './stage.ts'

/**
 * The short way of a reply whose fields and body are at hand, when nobody wants to see it: a hit of a cache, that is, which is asked to cost no more than an
 * answer of node's own. False: it has to take the long way.
 */
export function respondFields(exchange: LiveExchange, reply: Reply, fields: readonly string[] | ReplyFields): boolean {
  const { status, body } = reply
  if (!(body instanceof Uint8Array) || exchange.route?.responseEdit !== undefined || hasResponseHooks(exchange)) return false
  if (status < 200 || !statusHasBody(exchange.method, status)) return false
  const { list, length } = fields instanceof ReplyFields ? fields : kept(fields as string[])
  if (length !== body.length) return false
  if (!writeHead(exchange, status, '', list)) {
    exchange.core.fail(exchange, new ProxyError('ERR_STAGE', { message: 'A reply cannot be sent: node refused its status or a field.' }))
    return true
  }
  const pump = new ResponsePump(exchange.res, exchange, undefined, length)
  exchange.pump = pump
  if (length > 0 && reply.latin1?.length === length) pump.endWith(reply.latin1)
  else {
    if (length > 0) pump.write(body instanceof Buffer ? body : Buffer.from(body.buffer, body.byteOffset, length))
    pump.end(undefined)
  }
  if (isSent(exchange)) exchange.core.finish(exchange)
  return true
}

/** Of a list that is ours. */
function kept(list: string[]): { list: string[]; length: number } {
  const { length, disposition } = keepEndToEnd(list, false)
  if (disposition) lengthLast(list)
  return { list, length }
}

/** Everything has gone to the system and nothing is to come: the exchange is over, and nobody has to be told when. */
function isSent({ req, res, facts }: LiveExchange): boolean {
  if (isHttp2(req) || facts?.hasBody === true) return false
  // Null while the answers to earlier requests of the connection are waited for.
  const { socket } = res
  return socket !== null && socket !== undefined && socket.writableLength === 0 && socket.errored === null && !socket.destroyed
}
