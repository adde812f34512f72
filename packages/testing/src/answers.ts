/**
 * What a `testUpstream` says to a request. An answer is written as what it is (a status, a text, a handler); a list of answers is given out
 * one per request, the last one for ever, which is how a server that fails twice and then recovers is written: `[503, 503, 200]`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** What a handler may do to its connection beyond what node:http offers. */
export interface Wiretap {
  /** The connection of the request: bytes written here go out as they are. */
  readonly socket: Socket
  /** RST, below TLS too. */
  reset(): void
  /** Runs `act` after `ms` milliseconds, unless the connection closes before. */
  after(ms: number, act: () => void): void
}

export type Handler = (req: IncomingMessage, res: ServerResponse, wire: Wiretap) => void | Promise<void>

export interface FullAnswer {
  /** Default 200. */
  readonly status?: number
  /** A list is a flat one: `[name, value, name, value ...]`, sent in that case and order. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>> | readonly string[]
  readonly body?: string | Uint8Array
}

/** A status (the body is its number), a 200 with this body, a full answer, a handler, or one answer per request. */
export type Answer = number | string | Uint8Array | FullAnswer | Handler | readonly Answer[]

export function handlerOf(answer: Answer): Handler {
  if (typeof answer === 'function') return answer
  if (typeof answer === 'number') return full({ status: answer, ...(answer === 204 || answer === 304 ? {} : { body: String(answer) }) })
  if (typeof answer === 'string' || answer instanceof Uint8Array) return full({ body: answer })
  if (!isList(answer)) return full(answer)
  const handlers = answer.map(handlerOf)
  let asked = 0
  return (req, res, wire) => handlers[Math.min(asked++, handlers.length - 1)]?.(req, res, wire)
}

function isList(answer: Answer): answer is readonly Answer[] {
  return Array.isArray(answer)
}

function full({ status = 200, headers = {}, body }: FullAnswer): Handler {
  return (req, res) => {
    // An unread request body would stop the connection from being used again.
    req.resume()
    res.writeHead(status, flat(headers))
    res.end(body)
  }
}

function flat(headers: NonNullable<FullAnswer['headers']>): string[] {
  if (Array.isArray(headers)) return [...headers]
  return Object.entries(headers).flatMap(([name, value]: [string, string | readonly string[]]) =>
    [value].flat().flatMap((line) => [name, line]),
  )
}

/** What `echo` answers, as JSON. */
export interface Echo {
  readonly method: string
  readonly url: string
  readonly rawHeaders: readonly string[]
  /** The body as UTF-8. */
  readonly body: string
  readonly rawTrailers: readonly string[]
}

/** Answers with what it was asked: `Echo` as JSON. */
export function echo(): Handler {
  return async (req, res) => {
    const chunks: Buffer[] = []
    for await (const chunk of req) chunks.push(chunk as Buffer)
    const { method = '', url = '', rawHeaders, rawTrailers } = req
    const said: Echo = { method, url, rawHeaders, body: Buffer.concat(chunks).toString('utf8'), rawTrailers }
    res.setHeader('Content-Type', 'application/json')
    res.end(JSON.stringify(said))
  }
}

/** A body of this many bytes in 64 KiB steps, as fast as it is read; the byte at i is `i % 251`. `chunked` leaves out Content-Length. */
export function bytes(count: number, options: { readonly chunked?: boolean } = {}): Handler {
  return async (req, res) => {
    req.resume()
    res.writeHead(200, { 'Content-Type': 'application/octet-stream', ...(options.chunked ? {} : { 'Content-Length': count }) })
    for (let sent = 0; sent < count && !res.destroyed; sent += pattern.length) {
      const chunk = patternAt(sent, Math.min(pattern.length, count - sent))
      if (!res.write(chunk)) await drained(res)
    }
    res.end()
  }
}

/** Takes both listeners off again: a long body would otherwise collect one per chunk. */
function drained(res: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      res.off('drain', done).off('close', done)
      resolve()
    }
    res.on('drain', done).on('close', done)
  })
}

const pattern = Buffer.alloc(65536)
const twice = Buffer.from(Uint8Array.from({ length: 65536 + 251 }, (_, i) => i % 251))

/** The bytes that `bytes()` sends from `offset` on, at most 64 KiB: to compare with. */
export function patternAt(offset: number, length: number): Buffer {
  const start = offset % 251
  return twice.subarray(start, start + length)
}

/** A chunked body in these pieces, `everyMs` apart (default 0: one per turn of the event loop), each flushed. Stays open with `open: true`. */
export function pieces(
  list: readonly (string | Uint8Array)[],
  options: { readonly everyMs?: number; readonly open?: boolean; readonly type?: string } = {},
): Handler {
  const { everyMs = 0, open = false, type = 'text/plain' } = options
  return (req, res, wire) => {
    req.resume()
    res.writeHead(200, { 'Content-Type': type })
    res.flushHeaders()
    const next = (index: number): void => {
      if (index < list.length) {
        res.write(list[index])
        wire.after(everyMs, () => next(index + 1))
      } else if (!open) res.end()
    }
    next(0)
  }
}

/** Server-sent events: one `data:` event per entry, `everyMs` apart. Stays open after the last, as event streams do, unless `open: false`. */
export function events(list: readonly string[], options: { readonly everyMs?: number; readonly open?: boolean } = {}): Handler {
  return pieces(
    list.map((data) => `data: ${data}\n\n`),
    { open: true, ...options, type: 'text/event-stream' },
  )
}
