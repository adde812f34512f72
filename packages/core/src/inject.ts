/**
 * One request through the whole proxy without a socket. The bytes go through node's own server and parser over an in-memory duplex, so that
 * what is tested is what runs; only the network is missing.
 */
import { createServer } from 'node:http'
import { Duplex } from 'node:stream'
import { HeaderList } from './headers.ts'
import type { ProxyCore } from './proxy.ts'

export interface InjectedRequest {
  /** Default `GET`. */
  readonly method?: string
  /** Request target. Default `/`. */
  readonly url?: string
  /** Default `Host: localhost`. A list of values sends several lines. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
  readonly body?: string | Uint8Array
  /** Address of the client. Default `127.0.0.1`. */
  readonly remoteAddress?: string
}

export interface InjectedResponse {
  readonly status: number
  readonly reason: string
  readonly headers: HeaderList
  readonly body: Buffer
  readonly trailers: HeaderList
  /** 1xx heads, in order. */
  readonly interim: readonly { readonly status: number; readonly headers: HeaderList }[]
  text(): string
}

class MemorySocket extends Duplex {
  readonly remoteAddress: string
  readonly sent: Buffer[] = []

  constructor(remoteAddress: string) {
    super()
    this.remoteAddress = remoteAddress
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.sent.push(chunk)
    done()
  }

  setTimeout(): this {
    return this
  }

  setNoDelay(): this {
    return this
  }

  setKeepAlive(): this {
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  destroySoon(): void {
    this.end(() => this.destroy())
  }
}

/** Rejects when the connection broke before the response was complete. */
export function inject(core: ProxyCore, request: InjectedRequest): Promise<InjectedResponse> {
  const socket = new MemorySocket(request.remoteAddress ?? '127.0.0.1')
  const { promise, resolve, reject } = Promise.withResolvers<InjectedResponse>()
  const server = createServer((req, res) => {
    res.once('finish', () => setImmediate(() => socket.destroy()))
    core.handle(req, res, undefined, false)
  })
  server.on('checkContinue', (req, res) => {
    res.once('finish', () => setImmediate(() => socket.destroy()))
    core.handle(req, res, undefined, true)
  })
  server.on('clientError', (error) => reject(error))
  socket.on('close', () => {
    const parsed = parseResponse(Buffer.concat(socket.sent), request.method ?? 'GET')
    if (parsed === undefined) reject(new Error('The connection was broken off before the response was complete.'))
    else resolve(parsed)
  })
  socket.on('error', () => {})
  server.emit('connection', socket)
  socket.push(serialise(request))
  return promise
}

function serialise(request: InjectedRequest): Buffer {
  const body = request.body === undefined ? undefined : Buffer.from(request.body as string)
  let head = `${request.method ?? 'GET'} ${request.url ?? '/'} HTTP/1.1\r\n`
  const names = new Set<string>()
  for (const [name, value] of Object.entries(request.headers ?? {})) {
    names.add(name.toLowerCase())
    for (const line of typeof value === 'string' ? [value] : value) head += `${name}: ${line}\r\n`
  }
  if (!names.has('host')) head += 'Host: localhost\r\n'
  if (body !== undefined && !names.has('content-length') && !names.has('transfer-encoding')) head += `Content-Length: ${body.length}\r\n`
  return Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), body ?? Buffer.alloc(0)])
}

function parseResponse(bytes: Buffer, method: string): InjectedResponse | undefined {
  const interim: { status: number; headers: HeaderList }[] = []
  let at = 0
  for (;;) {
    const end = bytes.indexOf('\r\n\r\n', at)
    if (end < 0) return undefined
    const [line = '', ...fields] = bytes.toString('latin1', at, end).split('\r\n')
    const match = /^HTTP\/1\.[01] (\d{3}) ?(.*)$/.exec(line)
    if (match === null) return undefined
    const status = Number(match[1])
    const headers = new HeaderList(splitFields(fields))
    at = end + 4
    if (status < 200) {
      interim.push({ status, headers })
      continue
    }
    const rest = bytes.subarray(at)
    const content = readBody(rest, headers, method === 'HEAD' || status === 204 || status === 304)
    if (content === undefined) return undefined
    return { status, reason: match[2] as string, headers, interim, ...content, text: () => content.body.toString() }
  }
}

function splitFields(lines: readonly string[]): string[] {
  return lines.flatMap((line) => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon), line.slice(colon + 1).trim()]
  })
}

function readBody(bytes: Buffer, headers: HeaderList, empty: boolean): { body: Buffer; trailers: HeaderList } | undefined {
  const none = new HeaderList([])
  if (empty) return { body: Buffer.alloc(0), trailers: none }
  const length = headers.get('content-length')
  if (length !== undefined) return bytes.length < Number(length) ? undefined : { body: bytes.subarray(0, Number(length)), trailers: none }
  if (headers.get('transfer-encoding') !== 'chunked') return { body: bytes, trailers: none }
  const chunks: Buffer[] = []
  let at = 0
  for (;;) {
    const end = bytes.indexOf('\r\n', at)
    if (end < 0) return undefined
    const size = Number.parseInt(bytes.toString('latin1', at, end), 16)
    at = end + 2
    if (size === 0) {
      const tail = bytes.toString('latin1', at)
      const stop = tail.startsWith('\r\n') ? 0 : tail.indexOf('\r\n\r\n')
      if (stop < 0) return undefined
      return { body: Buffer.concat(chunks), trailers: new HeaderList(splitFields(tail.slice(0, stop).split('\r\n').filter(Boolean))) }
    }
    if (bytes.length < at + size + 2) return undefined
    chunks.push(bytes.subarray(at, at + size))
    at += size + 2
  }
}
