/**
 * A `Transport` without a network: the test says what the upstream answers, and everything of the proxy above the port runs as it does in
 * earnest. It keeps the port's rules (`onStart` inside `send`, one ending, silence after abort, nothing while paused); what it cannot show is
 * what sockets do, for which there are `testUpstream` and `rawUpstream`.
 */
import type {
  Clock,
  ErrorCode,
  MaybePromise,
  RequestBody,
  ResponseSink,
  Transport,
  Upstream,
  UpstreamCall,
  UpstreamRequest,
} from '@weir/core'
import { HeaderList, ProxyError } from '@weir/core'

/** What an upstream answers. Everything is optional: `{}` is an empty 200. */
export interface FakeResponse {
  /** Default 200. */
  readonly status?: number
  /** Default: none. */
  readonly reason?: string
  /** A record, or a flat list where case and order matter. `Content-Length` is added when nothing frames the body and it is in one piece. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>> | readonly string[]
  /** A list is delivered chunk by chunk. */
  readonly body?: string | Uint8Array | readonly (string | Uint8Array)[]
  /** Flat list, behind the body. */
  readonly trailers?: readonly string[]
  /** 1xx heads before the final one. */
  readonly interim?: readonly { readonly status: number; readonly headers?: readonly string[] }[]
  /** Fails with this: in place of the head when no `status` is given, else in place of the end. */
  readonly error?: ErrorCode | ProxyError
}

/** A request as it was given to the transport, its body read to the end. */
export interface FakeRequest {
  readonly method: string
  readonly path: string
  readonly headers: HeaderList
  readonly body: Buffer
  readonly trailers: readonly string[] | undefined
  readonly upstream: Upstream
}

/** Called when the request's body has been read. A promise that never settles is an upstream that never answers. */
export type Respond = (request: FakeRequest, upstream: Upstream) => MaybePromise<FakeResponse>

export interface FakeTransport extends Transport {
  /** Everything sent so far, retries included, in order. */
  readonly requests: readonly FakeRequest[]
  /** Calls that have neither ended nor been aborted. */
  readonly open: number
  /** Calls that were aborted. */
  readonly aborted: number
  readonly closed: boolean
}

export interface FakeTransportOptions {
  /** With a clock, `timeouts.head` holds: ERR_HEAD_TIMEOUT when `respond` takes longer. Default: no timeouts. */
  readonly clock?: Clock
}

export function fakeTransport(respond: FakeResponse | Respond = {}, options: FakeTransportOptions = {}): FakeTransport {
  const answer: Respond = typeof respond === 'function' ? respond : () => respond
  const requests: FakeRequest[] = []
  const used = new Set<string>()
  let open = 0
  let aborted = 0
  let closed = false
  return {
    name: 'fake',
    send(request, upstream, sink) {
      open++
      const reused = used.has(upstream.id)
      used.add(upstream.id)
      const call = new FakeCall(sink, upstream, reused, (wasAborted) => {
        open--
        if (wasAborted) aborted++
      })
      sink.onStart(call)
      if (call.over) return
      call.limit(options.clock, request.timeouts.head)
      const sent = (body: Buffer, trailers: readonly string[] | undefined): void => {
        const { method, path, headers } = request
        const seen: FakeRequest = { method, path, headers: new HeaderList([...headers]), body, trailers, upstream }
        requests.push(seen)
        // Later than `send`, as from a socket, and earlier than anything a test could wait for.
        queueMicrotask(() => void ask(answer, seen, request, call))
      }
      if (request.body === undefined) sent(Buffer.alloc(0), undefined)
      else call.read(request.body, sent)
    },
    forget() {},
    close() {
      closed = true
    },
    requests,
    get open() {
      return open
    },
    get aborted() {
      return aborted
    },
    get closed() {
      return closed
    },
  }
}

async function ask(answer: Respond, seen: FakeRequest, request: UpstreamRequest, call: FakeCall): Promise<void> {
  let response: FakeResponse
  try {
    const given = answer(seen, seen.upstream)
    response = given instanceof Promise ? await given : given
  } catch (cause) {
    call.fail(new ProxyError('ERR_UPSTREAM_RESET', { message: `respond threw: ${String(cause)}`, cause, upstream: seen.upstream }))
    return
  }
  call.deliver(response, request.method)
}

class FakeCall implements UpstreamCall {
  readonly reused: boolean
  readonly connectMs: number | undefined
  sent = false
  over = false
  readonly #sink: ResponseSink
  readonly #upstream: Upstream
  readonly #onOver: (aborted: boolean) => void
  #paused = false
  #steps: (() => void)[] = []
  #running = false
  #stopReading: (() => void) | undefined
  #clearLimit: (() => void) | undefined

  constructor(sink: ResponseSink, upstream: Upstream, reused: boolean, onOver: (aborted: boolean) => void) {
    this.#sink = sink
    this.#upstream = upstream
    this.reused = reused
    this.connectMs = reused ? undefined : 0
    this.#onOver = onOver
  }

  abort(): void {
    this.#end(true)
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#run()
  }

  limit(clock: Clock | undefined, ms: number): void {
    if (clock === undefined || ms === 0) return
    const handle = clock.setTimeout(() => this.fail(new ProxyError('ERR_HEAD_TIMEOUT', { upstream: this.#upstream })), ms)
    this.#clearLimit = () => clock.clearTimeout(handle)
  }

  read(body: RequestBody, done: (bytes: Buffer, trailers: readonly string[] | undefined) => void): void {
    const chunks: Buffer[] = []
    const flow = body.open({
      onChunk: (chunk) => {
        this.sent = true
        chunks.push(Buffer.from(chunk))
        return true
      },
      onEnd: (trailers) => {
        if (!this.over) done(Buffer.concat(chunks), trailers)
      },
      // The exchange knows already; what is left is to let go.
      onError: () => this.#end(true),
    })
    this.#stopReading = () => flow.close()
    flow.resume()
  }

  deliver(response: FakeResponse, method: string): void {
    if (this.over) return
    this.sent = true
    this.#clearLimit?.()
    const { status = 200, reason = '', body, trailers, interim = [], error } = response
    const sink = this.#sink
    for (const head of interim) this.#steps.push(() => sink.onInterim(head.status, [...(head.headers ?? [])]))
    if (error === undefined || response.status !== undefined) {
      this.#steps.push(() => sink.onHead(status, reason, responseFields(response)))
      if (method !== 'HEAD' && status !== 204 && status !== 304) {
        for (const chunk of chunksOf(body)) if (chunk.length > 0) this.#steps.push(() => sink.onData(chunk))
      }
    }
    this.#steps.push(() => {
      if (error !== undefined) this.fail(typeof error === 'string' ? new ProxyError(error, { upstream: this.#upstream }) : error)
      else if (this.#end(false)) sink.onEnd(trailers === undefined ? undefined : [...trailers])
    })
    this.#run()
  }

  fail(error: ProxyError): void {
    if (this.#end(false)) this.#sink.onError(error)
  }

  #run(): void {
    // A callback may pause, resume or abort: only the outermost loop goes on.
    if (this.#running) return
    this.#running = true
    while (!this.#paused && !this.over && this.#steps.length > 0) this.#steps.shift()?.()
    this.#running = false
  }

  #end(aborted: boolean): boolean {
    if (this.over) return false
    this.over = true
    this.#steps = []
    this.#clearLimit?.()
    this.#stopReading?.()
    this.#onOver(aborted)
    return true
  }
}

function chunksOf(body: FakeResponse['body']): Buffer[] {
  if (body === undefined) return []
  const list = typeof body === 'string' || body instanceof Uint8Array ? [body] : body
  return list.map((chunk) => (typeof chunk === 'string' ? Buffer.from(chunk) : Buffer.from(chunk)))
}

function responseFields({ headers = {}, body, trailers, status }: FakeResponse): string[] {
  const flat = Array.isArray(headers)
    ? [...(headers as readonly string[])]
    : Object.entries(headers as Readonly<Record<string, string | readonly string[]>>).flatMap(([name, value]) =>
        (typeof value === 'string' ? [value] : value).flatMap((line) => [name, line]),
      )
  const framed = flat.some((part, i) => i % 2 === 0 && /^(content-length|transfer-encoding)$/i.test(part))
  if (framed || trailers !== undefined || body === undefined || status === 204 || status === 304) return flat
  if (typeof body === 'string' || body instanceof Uint8Array) flat.push('Content-Length', String(Buffer.byteLength(body)))
  return flat
}
