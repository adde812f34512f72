/**
 * HTTP/1.1 read the strict way. A test's parser must not forgive: what a lenient one repairs (two framing fields, a bare LF, a folded line)
 * is what a proxy test exists to find. So anything outside RFC 9112 rejects with `malformed`, and names, case, order and duplicates stay as
 * they were on the wire.
 */
import type { Ending, Wire } from './wire.ts'

export interface RawHead {
  /** Request line or status line. */
  readonly line: string
  /** Field lines as received, latin1, without CRLF. */
  readonly fields: readonly string[]
  /** Flat list `[name, value, name, value ...]`; optional whitespace around values is gone. */
  readonly headers: readonly string[]
}

/** What delimits a body: `none` (there is none), its announced length, chunked coding, or the end of the connection. */
export type Framing = 'none' | 'length' | 'chunked' | 'close'

export interface RawBody {
  readonly framing: Framing
  readonly body: Buffer
  /** Flat list. */
  readonly trailers: readonly string[]
  /** False when the connection ended before the framing said so. */
  readonly complete: boolean
}

export interface RawMessage extends RawHead, RawBody {
  readonly version: string
  /** The values of every line of this field, in order. */
  all(name: string): string[]
  /** All lines of a field joined with `, `; undefined when there is none. */
  header(name: string): string | undefined
  /** The body as UTF-8. */
  text(): string
  /** The message's bytes; for a response, its interim responses included. */
  readonly raw: Buffer
  /** How the connection stood when the message had been read. */
  readonly ending: Ending
}

export interface RawRequest extends RawMessage {
  readonly method: string
  readonly target: string
}

export interface RawResponse extends RawMessage {
  readonly status: number
  readonly reason: string
  /** 1xx heads that came before the final one. */
  readonly interims: readonly (RawHead & { readonly status: number })[]
}

export function fieldValues(headers: readonly string[], name: string): string[] {
  const lower = name.toLowerCase()
  const values: string[] = []
  for (let i = 0; i < headers.length; i += 2) if (headers[i]?.toLowerCase() === lower) values.push(headers[i + 1] as string)
  return values
}

/** Reads one head, the empty line included. */
export async function readHead(wire: Wire, deadline?: number): Promise<RawHead> {
  const bytes = await wire.readThrough('\r\n\r\n', deadline)
  const [line = '', ...fields] = bytes.toString('latin1', 0, bytes.length - 4).split('\r\n')
  if (/[\r\n]/.test(line)) throw wire.failure('malformed', `bare CR or LF in ${JSON.stringify(line)}`)
  return { line, fields, headers: parseFields(wire, fields) }
}

export async function readRequest(wire: Wire, deadline?: number): Promise<RawRequest> {
  const start = wire.position
  const head = await readHead(wire, deadline)
  const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ ]+) HTTP\/(\d\.\d)$/.exec(head.line)
  if (match === null) throw wire.failure('malformed', `not a request line: ${JSON.stringify(head.line)}`)
  const body = await readBody(wire, requestFraming(wire, head), head, deadline)
  const [, method = '', target = '', version = ''] = match
  return { method, target, version, ...message(wire, start, head, body) }
}

/** @param method of the request; a response to HEAD has no body, whatever its fields say */
export async function readResponse(wire: Wire, method: string, deadline?: number): Promise<RawResponse> {
  const start = wire.position
  const interims: (RawHead & { status: number })[] = []
  for (;;) {
    const head = await readHead(wire, deadline)
    const match = /^HTTP\/(\d\.\d) (\d{3}) (.*)$/.exec(head.line)
    if (match === null) throw wire.failure('malformed', `not a status line: ${JSON.stringify(head.line)}`)
    const [, version = '', digits = '', reason = ''] = match
    const status = Number(digits)
    if (status < 200 && status !== 101) {
      interims.push({ status, ...head })
      continue
    }
    const body = await readBody(wire, responseFraming(wire, head, status, method), head, deadline)
    return { status, reason, version, interims, ...message(wire, start, head, body) }
  }
}

function message(wire: Wire, start: number, head: RawHead, body: RawBody): Omit<RawMessage, 'version'> {
  return {
    ...head,
    ...body,
    all: (name) => fieldValues(head.headers, name),
    header: (name) => {
      const values = fieldValues(head.headers, name)
      return values.length === 0 ? undefined : values.join(', ')
    },
    text: () => body.body.toString('utf8'),
    raw: wire.received.subarray(start, wire.position),
    ending: wire.ending,
  }
}

function parseFields(wire: Wire, fields: readonly string[]): string[] {
  const headers: string[] = []
  for (const field of fields) {
    const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n]*?)[ \t]*$/.exec(field)
    if (match === null) throw wire.failure('malformed', `not a field line: ${JSON.stringify(field)}`)
    headers.push(match[1] as string, match[2] as string)
  }
  return headers
}

function requestFraming(wire: Wire, head: RawHead): Framing {
  return explicitFraming(wire, head) ?? 'none'
}

function responseFraming(wire: Wire, head: RawHead, status: number, method: string): Framing {
  if (method === 'HEAD' || status === 101 || status === 204 || status === 304) return 'none'
  return explicitFraming(wire, head) ?? 'close'
}

function explicitFraming(wire: Wire, head: RawHead): Framing | undefined {
  const codings = fieldValues(head.headers, 'transfer-encoding')
  const lengths = fieldValues(head.headers, 'content-length')
  if (codings.length + lengths.length === 0) return undefined
  // One framing field, once: RFC 9112 §6.3 knows ways to choose between two, and every smuggling attack lives on two parties choosing differently.
  if (codings.length + lengths.length > 1) throw wire.failure('malformed', `framed more than once: ${[...codings, ...lengths].join(' | ')}`)
  if (codings.length > 0) {
    if (codings[0]?.toLowerCase() !== 'chunked') throw wire.failure('malformed', `transfer coding ${codings[0]}`)
    return 'chunked'
  }
  if (!/^\d+$/.test(lengths[0] as string)) throw wire.failure('malformed', `content length ${lengths[0]}`)
  return 'length'
}

/** Reads a body; a connection that ends too early gives `complete: false`, not a rejection. */
async function readBody(wire: Wire, framing: Framing, head: RawHead, deadline?: number): Promise<RawBody> {
  if (framing === 'none') return { framing, body: Buffer.alloc(0), trailers: [], complete: true }
  if (framing === 'close') {
    const body = await wire.readToEnd(deadline)
    return { framing, body, trailers: [], complete: wire.ending === 'fin' }
  }
  if (framing === 'length') {
    const length = Number(fieldValues(head.headers, 'content-length')[0])
    const enough = await availableOrEnded(wire, `waiting for a body of ${length} bytes`, (unread) => unread.length >= length, deadline)
    return { framing, body: wire.take(length), trailers: [], complete: enough }
  }
  return readChunked(wire, deadline)
}

async function readChunked(wire: Wire, deadline?: number): Promise<RawBody> {
  const chunks: Buffer[] = []
  const cut = (): RawBody => ({ framing: 'chunked', body: Buffer.concat(chunks), trailers: [], complete: false })
  for (;;) {
    if (!(await availableOrEnded(wire, 'waiting for a chunk size', (unread) => unread.includes('\r\n'), deadline))) return cut()
    const line = wire
      .take(wire.unread.indexOf('\r\n') + 2)
      .toString('latin1')
      .slice(0, -2)
    const match = /^([0-9a-fA-F]{1,13})(?:[ \t]*;[^\r\n]*)?$/.exec(line)
    if (match === null) throw wire.failure('malformed', `chunk size ${JSON.stringify(line)}`)
    const size = Number.parseInt(match[1] as string, 16)
    if (size === 0) break
    const whole = await availableOrEnded(wire, `waiting for a chunk of ${size} bytes`, (unread) => unread.length >= size + 2, deadline)
    chunks.push(wire.take(whole ? size : Math.min(size, wire.unread.length)))
    if (!whole) return cut()
    const end = wire.take(2).toString('latin1')
    if (end !== '\r\n') throw wire.failure('malformed', `chunk ends with ${JSON.stringify(end)}`)
  }
  const fields: string[] = []
  for (;;) {
    if (!(await availableOrEnded(wire, 'waiting for the end of the trailers', (unread) => unread.includes('\r\n'), deadline))) return cut()
    const line = wire
      .take(wire.unread.indexOf('\r\n') + 2)
      .toString('latin1')
      .slice(0, -2)
    if (line === '') break
    fields.push(line)
  }
  return { framing: 'chunked', body: Buffer.concat(chunks), trailers: parseFields(wire, fields), complete: true }
}

function availableOrEnded(wire: Wire, what: string, ready: (unread: Buffer) => boolean, deadline?: number): Promise<boolean> {
  return wire.waitFor(
    what,
    () => {
      if (ready(wire.unread)) return true
      return wire.ending === 'open' ? undefined : false
    },
    deadline,
  )
}
