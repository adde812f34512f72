/** The head as node writes it to the client, and the end of a connection whose response must not look complete. */
import type { ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { LiveExchange } from './exchange-live.ts'
import { NoClient } from './no-client.ts'
import { isHttp2 } from './request-check.ts'

/** False when node refused the head (a status or an octet that HTTP forbids); nothing was sent then. */
export function writeHead(exchange: LiveExchange, status: number, reason: string, fields: readonly string[]): boolean {
  const { res } = exchange
  exchange.status = status
  try {
    if (status < 200 || status > 999) return false
    if (isHttp2(exchange.req) && !NoClient.is(res)) writeHttp2Head(res as unknown as Http2ServerResponse, status, fields)
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

/** Sends the head that was written, before anything follows it. */
export function showHead({ req, res }: LiveExchange): void {
  if (isHttp2(req)) res.flushHeaders()
  // `flushHeaders` would write it as UTF-8, which changes octets.
  else res.write('', 'latin1')
}

/** Fields that node:http2 writes once only. */
export const singleValued: ReadonlySet<string> = new Set(
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

/**
 * Tells a client of HTTP/2 that the rest of its upload is not needed (RFC 9113 §8.1: NO_ERROR behind a complete response). Node would wait for the response
 * by itself, but a stream that waits to be closed cannot be reset any more, and its client may never read.
 */
export function endUpload(res: ServerResponse): void {
  const { stream } = res as unknown as Http2ServerResponse
  if (stream === undefined || stream.closed) return
  // In a turn of its own: Node 22 and 26 would drop a head that has no body and has not left yet.
  const close = (): void =>
    void setImmediate(() => {
      if (!stream.closed) stream.close(0)
    })
  if (stream.writableFinished) close()
  else stream.once('finish', close)
}

/** Node 22 makes an ordinary end of a reset that comes within two turns of a write. */
const resetsEarly = Number.parseInt(process.versions.node, 10) < 24

/** Ends the client's connection so that what was sent cannot be taken for complete. */
export function resetClient(exchange: LiveExchange): void {
  const { req, res } = exchange
  if (NoClient.is(res)) {
    res.destroy()
    return
  }
  if (isHttp2(req)) {
    const { stream } = res as unknown as Http2ServerResponse
    // RFC 9113 §8.1: an incomplete response ends with an error; INTERNAL_ERROR is 2.
    const close = (): void => stream?.close(2)
    // In the tick in which it got its head, node would send the end first if the request has ended, and the answer would look complete and empty.
    if (exchange.pump !== undefined && exchange.pump.bytes > 0) close()
    else setImmediate(close)
    return
  }
  // Answers to earlier requests of the connection are still on their way: this one's turn is when it breaks.
  if (exchange.kind === 'request' && res.socket === null && !res.writableFinished && !req.socket.destroyed) {
    res.once('socket', () => resetClient(exchange))
    return
  }
  const socket = (res as ServerResponse).socket ?? req.socket
  // Only a reset shows the truncation of a body that ends with the connection (HTTP/1.0); for the others it does no harm.
  if (socket !== null && !('encrypted' in socket) && typeof socket.resetAndDestroy === 'function' && socket.remoteAddress !== undefined) {
    if (resetsEarly) setImmediate(() => setImmediate(() => socket.resetAndDestroy()))
    else socket.resetAndDestroy()
  } else socket?.destroy()
}
