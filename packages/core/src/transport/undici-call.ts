/**
 * One request on one connection: undici's handler on one side, the sink's call on the other.
 *
 * Limits come in two sorts. Long ones are swept (deadlines.ts). Short ones, where half a second more would be a multiple of what was asked
 * for, get a timer each.
 */
import type { Dispatcher } from 'undici'
import { ProxyError } from '../errors.ts'
import type { BodyStream } from './body-stream.ts'
import { toProxyError } from './connect-error.ts'
import { type ConnectPhases, totalOf } from './connect-phases.ts'
import { type Limited, toTicks } from './deadlines.ts'
import type { ResponseSink, TransportTimeouts, UpstreamCall, UpstreamRequest } from './transport.ts'
import type { UndiciConnection } from './undici-connection.ts'
import { prepareForUpload } from './upload-socket.ts'
import type { DirectSink } from './wire-filter.ts'

/** Milliseconds below which a limit is kept exactly. */
const exactBelow = 5000

export class UndiciCall implements Dispatcher.DispatchHandler, UpstreamCall, DirectSink, Limited {
  aborted: boolean = false
  sent: boolean = false
  reused: boolean = false
  connectPhases: ConnectPhases | undefined = undefined
  upload: BodyStream | undefined = undefined
  /** undici has the request. */
  dispatched: boolean = false
  readonly #connection: UndiciConnection
  readonly #sink: ResponseSink
  // Not the request itself: its fields are undici's by now, and would only be carried along until the answer is complete.
  readonly #timeouts: TransportTimeouts
  readonly #mayHaveBody: boolean
  #controller: Dispatcher.DispatchController | undefined
  #head = false
  #done = false
  #paused = false
  ticks: number = 0
  limit: number = Number.POSITIVE_INFINITY
  #timer: NodeJS.Timeout | undefined = undefined

  constructor(connection: UndiciConnection, sink: ResponseSink, request: UpstreamRequest) {
    this.#connection = connection
    this.#sink = sink
    this.#timeouts = request.timeouts
    this.#mayHaveBody = request.method !== 'HEAD'
  }

  get connectMs(): number | undefined {
    return this.connectPhases === undefined ? undefined : totalOf(this.connectPhases)
  }

  abort(): void {
    if (this.aborted || this.#done) return
    this.aborted = true
    this.#disarm()
    if (this.#controller === undefined) {
      // Still connecting: undici has no other way to take a waiting request back.
      if (this.dispatched) this.#connection.discard()
    } else this.#controller.abort(new ProxyError('ERR_CLIENT_ABORTED'))
  }

  pause(): void {
    this.#paused = true
    this.#connection.filter.paused = true
    this.#controller?.pause()
  }

  resume(): void {
    if (this.#done || !this.#paused) return
    const { filter, socket } = this.#connection
    this.#paused = false
    this.ticks = 0
    this.#timer?.refresh()
    filter.paused = false
    this.#controller?.resume()
    // The parser was not paused if the body goes past it: then nobody but us asks for more. First of what is in the socket's buffer; then of the
    // connection itself, because the buffer, past which bytes have gone, takes itself for one that still waits.
    if (filter.direct) {
      socket?.emit('readable')
      if (!this.#paused) socket?._read(0)
    }
  }

  onBodySent(): void {
    this.ticks = 0
    this.#timer?.refresh()
  }

  /** The limit of the phase has passed. */
  expire(): void {
    if (this.#done || this.aborted) return
    // A paused reader is not an idle upstream, and an upstream that still waits for the client's body owes no answer yet.
    if (this.#head ? this.#paused : this.upload?.waitsForClient === true) {
      this.ticks = 0
      this.#timer?.refresh()
      return
    }
    this.#failWith(new ProxyError(this.#head ? 'ERR_BODY_TIMEOUT' : 'ERR_HEAD_TIMEOUT', { upstream: this.#connection.list.upstream }))
  }

  /** Ends the call from our side. */
  #failWith(error: ProxyError): void {
    this.abort()
    this.#done = true
    this.#sink.onError(error)
  }

  /** @param ms limit of the phase that begins, 0 for none */
  #arm(ms: number): void {
    this.ticks = 0
    if (ms === 0 || ms >= exactBelow) this.limit = toTicks(ms)
    else {
      this.limit = Number.POSITIVE_INFINITY
      this.#timer = setTimeout(() => this.#look(), ms)
    }
  }

  /**
   * Timers run before the sockets are read. After a stall of the process, what would have been in time may be waiting there: one look first.
   */
  #look(): void {
    this.ticks = 1
    setImmediate(() => {
      if (this.ticks > 0) this.expire()
    })
  }

  #disarm(): void {
    this.#connection.release(this)
    if (this.#timer !== undefined) this.#stopTimer()
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.aborted) {
      controller.abort(new ProxyError('ERR_CLIENT_ABORTED'))
      return
    }
    const connection = this.#connection
    this.#controller = controller
    this.sent = true
    if (this.upload !== undefined && connection.socket !== undefined) prepareForUpload(connection.socket)
    this.reused = connection.served > 0
    if (!this.reused) this.connectPhases = connection.connectPhases
    connection.expect(this, this.#mayHaveBody)
    this.#arm(this.#timeouts.head)
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, _headers: unknown, reason?: string): void {
    if (this.aborted) return
    const headers = takeStrings(controller.rawHeaders as Buffer[])
    if (status < 100) {
      // The parser lets any three digits through.
      this.#failWith(new ProxyError('ERR_UPSTREAM_STATUS', { upstream: this.#connection.list.upstream }))
      return
    }
    if (status < 200) {
      this.#sink.onInterim(status, headers)
      return
    }
    this.#head = true
    if (this.#timer !== undefined) this.#stopTimer()
    this.#arm(this.#timeouts.idle)
    const { length } = this.#connection.filter
    if (length !== undefined) restoreLength(headers, length)
    this.#sink.onHead(status, reason === undefined || plainReason.test(reason) ? (reason ?? '') : latin1Reason(reason), headers)
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.onDirect(chunk)
  }

  onDirect(chunk: Buffer, reclaim?: (chunk: Buffer) => void): void {
    if (this.aborted) return
    this.ticks = 0
    this.#timer?.refresh()
    this.#sink.onData(chunk, reclaim)
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    if (this.#connection.broken !== undefined) {
      this.onResponseError(controller, this.#connection.broken)
      return
    }
    this.#done = true
    this.#disarm()
    const connection = this.#connection
    connection.served++
    if (this.aborted) return
    const trailers = controller.rawTrailers as Buffer[] | null
    this.#sink.onEnd(trailers !== null && trailers.length > 0 ? takeStrings(trailers) : undefined)
    // Behind `onEnd`: undici is not done with this response before we return, so nobody may have the connection in between.
    connection.list.give(connection)
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    if (this.#done) return
    this.#disarm()
    const phase = this.#head ? 'body' : this.sent ? 'head' : 'connect'
    if (this.aborted) {
      this.#done = true
      return
    }
    // Not one that never connected: a retry in this very tick would be put on a client that undici is still clearing up (it asserts that the
    // queue is empty afterwards).
    if (this.sent) this.#connection.list.give(this.#connection)
    this.fail(toProxyError(error, phase, this.#connection.list.upstream))
  }

  #stopTimer(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  fail(error: ProxyError): void {
    if (this.#done || this.aborted) return
    this.#done = true
    this.#sink.onError(error)
  }
}

/** Node documents `toString('latin1')`, which ends in this. */
type Latin1Buffer = Buffer & { latin1Slice(start?: number, end?: number): string }

/**
 * latin1 keeps every octet of a value as one character, so that what arrived is what goes on. The list is emptied: undici makes it while the
 * connection is idle, so that it is often in the old generation when the buffers of a head are put in, and would keep them from dying young.
 */
function takeStrings(raw: Buffer[]): string[] {
  const out = new Array<string>(raw.length)
  for (let i = 0; i < raw.length; i++) {
    // The slice itself: `toString` costs a third more in arguments and encoding names, twice per field.
    out[i] = (raw[i] as Latin1Buffer).latin1Slice()
  }
  raw.length = 0
  return out
}

const plainReason = /^[\t\x20-\x7e]*$/

/** undici reads the phrase as UTF-8, RFC 9112 §4 allows any octet above 0x7F. What was no UTF-8 is lost: the standard phrase stands in. */
function latin1Reason(reason: string): string {
  return reason.includes('\ufffd') ? '' : Buffer.from(reason, 'utf8').toString('latin1')
}

/** The parser was shown another length: see wire-filter.ts. */
function restoreLength(headers: string[], length: string): void {
  for (let i = 0; i < headers.length; i += 2) if ((headers[i] as string).toLowerCase() === 'content-length') headers[i + 1] = length
}
