/** 1xx heads from the upstream to the client. Node can write 102 and 103-with-link only, so the head is written as bytes (h1) or a HEADERS frame (h2). */
import { STATUS_CODES } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { LiveExchange } from './exchange-live.ts'
import { endToEndResponseFields } from './hop-by-hop.ts'
import { NoClient } from './no-client.ts'
import { isHttp2 } from './request-check.ts'

/** So many for one request; what comes beyond is dropped, for it waits in memory where a client does not read, and nobody is told to stop. */
const mostInterims = 64

export function relayInterim(exchange: LiveExchange, status: number, headers: readonly string[]): void {
  const { req, res } = exchange
  // RFC 9110 §15.2: never to an HTTP/1.0 client; and a head that is on its way cannot be overtaken.
  if (exchange.answered || exchange.finished || exchange.kind === 'upgrade' || NoClient.is(res) || status < 102 || status > 199) return
  if (++exchange.interims > mostInterims) return
  const fields = endToEndResponseFields(headers)
  if (isHttp2(req)) {
    const grouped: Record<string, string | number | string[]> = { ':status': status }
    for (let i = 0; i < fields.length; i += 2) {
      const name = (fields[i] as string).toLowerCase()
      const present = grouped[name]
      grouped[name] = present === undefined ? (fields[i + 1] as string) : ([present, fields[i + 1]].flat() as string[])
    }
    try {
      ;(res as unknown as Http2ServerResponse).stream.additionalHeaders(grouped as never)
    } catch {
      // The stream has gone: the final response will find out.
    }
    return
  }
  if (req.httpVersionMinor === 0) return
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Interim'}\r\n`
  for (let i = 0; i < fields.length; i += 2) head += `${fields[i]}: ${fields[i + 1]}\r\n`
  // A pipelined request's response has no socket yet; its hints would only mix into the answer before it.
  res.socket?.write(`${head}\r\n`, 'latin1')
}
