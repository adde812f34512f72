/** A client for HTTP/2 that hides nothing: field lines as they came, interim heads, trailers, and how the stream ended. */
import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2'
import type { LookupFunction } from 'node:net'
import { certificates } from '@weir/testing'

export interface H2Response {
  readonly status: number
  /** Flat list as received, pseudo-fields left out. */
  readonly rawHeaders: readonly string[]
  all(name: string): string[]
  readonly body: Buffer
  /** Flat list. */
  readonly trailers: readonly string[]
  readonly interims: readonly { readonly status: number; readonly rawHeaders: readonly string[] }[]
  /** Error code of the stream's reset; 0 when it ended in order. */
  readonly reset: number
}

export interface H2Exchange {
  readonly stream: ClientHttp2Stream
  /** Resolves when the stream is closed, however it ended; its status is 0 when there was no head. */
  readonly answer: Promise<H2Response>
}

export interface H2Client extends AsyncDisposable {
  readonly session: ClientHttp2Session
  /** Sends the head and leaves the stream open: body and end are the test's to write. */
  open(headers?: Readonly<Record<string, string | string[]>>, options?: { readonly waitForTrailers?: boolean }): H2Exchange
  /** Resolves when the stream is closed, however it ended. Rejects when it ended without a head. */
  request(
    headers?: Readonly<Record<string, string | string[]>>,
    body?: string | Uint8Array,
    options?: { readonly trailers?: Readonly<Record<string, string>> },
  ): Promise<H2Response>
}

// The server listens on IPv4 only.
const lookup: LookupFunction = (_name, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }])

/** @param scheme `https` trusts the kit's authority */
export async function h2Client(port: number, scheme: 'http' | 'https' = 'http'): Promise<H2Client> {
  const session =
    scheme === 'https' ? connect(`https://localhost:${port}`, { ca: certificates().ca, lookup }) : connect(`http://127.0.0.1:${port}`)
  session.on('error', () => {})
  await once(session, 'connect')
  return {
    session,
    open: (headers = {}, options) => open(session, headers, { endStream: false, ...options }),
    request: (headers = {}, body, options) => request(session, headers, body, options?.trailers),
    [Symbol.asyncDispose]: async () => {
      if (session.destroyed) return
      const closed = once(session, 'close')
      session.destroy()
      await closed
    },
  }
}

async function request(
  session: ClientHttp2Session,
  headers: Readonly<Record<string, string | string[]>>,
  body: string | Uint8Array | undefined,
  trailers: Readonly<Record<string, string>> | undefined,
): Promise<H2Response> {
  const { stream, answer } = open(session, headers, {
    endStream: body === undefined && trailers === undefined,
    waitForTrailers: trailers !== undefined,
  })
  if (trailers !== undefined) stream.on('wantTrailers', () => stream.sendTrailers(trailers))
  if (body !== undefined || trailers !== undefined) stream.end(body)
  const response = await answer
  if (response.status === 0) throw new Error(`the stream ended without a head (code ${stream.rstCode})`)
  return response
}

function open(
  session: ClientHttp2Session,
  headers: Readonly<Record<string, string | string[]>>,
  options: { readonly endStream: boolean; readonly waitForTrailers?: boolean },
): H2Exchange {
  const stream = session.request({ ':path': '/', ...headers }, options)
  const chunks: Buffer[] = []
  const interims: { status: number; rawHeaders: string[] }[] = []
  let status = 0
  let rawHeaders: string[] = []
  let rawTrailers: string[] = []
  stream.on('headers', (fields, _flags, raw) => interims.push({ status: fields[':status'] as number, rawHeaders: plain(raw) }))
  stream.on('response', (fields, _flags, raw) => {
    status = fields[':status'] ?? 0
    rawHeaders = plain(raw)
  })
  stream.on('trailers', (_fields, _flags, raw) => {
    rawTrailers = plain(raw)
  })
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  stream.on('error', () => {})
  const answer = new Promise<H2Response>((resolve) =>
    stream.once('close', () =>
      resolve({
        status,
        rawHeaders,
        all: (name) => rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1] === name.toLowerCase()),
        body: Buffer.concat(chunks),
        trailers: rawTrailers,
        interims,
        reset: stream.rstCode ?? constants.NGHTTP2_NO_ERROR,
      }),
    ),
  )
  return { stream, answer }
}

function plain(raw: readonly string[]): string[] {
  const out: string[] = []
  for (let i = 0; i < raw.length; i += 2) if (!(raw[i] as string).startsWith(':')) out.push(raw[i] as string, raw[i + 1] as string)
  return out
}
