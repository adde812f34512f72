/**
 * One node:http request on one side, the sink's call on the other. Whoever makes the `ClientRequest` (node alone, or http-proxy-3), this is
 * where its events become the port's callbacks, so that both ways behave alike:
 *
 * - the timeouts are the port's own three, each with its code; a socket timeout could not be told from a reset;
 * - every way in which node lets a request end without a word (a close behind a 101, an abort, a socket gone) ends in `onError`;
 * - what arrives is complete and unaltered, or is an error: node drops response fields beyond the thousandth, and a body that broke off
 *   must not look whole.
 */
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { type ErrorCode, ProxyError } from '../errors.ts'
import type { Upstream } from '../upstream.ts'
import { type CallPhase, toProxyError } from './connect-error.ts'
import { type ConnectPhases, totalOf } from './connect-phases.ts'
import { type ConnectionState, stateOf } from './connections.ts'
import type { ResponseSink, TransportTimeouts, UpstreamCall, UpstreamRequest } from './transport.ts'
import { Upload } from './upload.ts'
import { prepareForUpload } from './upload-socket.ts'

/** More fields than this in one head is an error. Node's own limit drops the rest instead. */
const maxFields = 1000

/** Takes a connection that the upstream switched; false when the switch is not what was asked for. */
export type UpgradeHandler = (headers: string[], socket: Duplex, first: Buffer) => boolean

export class ClientCall implements UpstreamCall {
  reused: boolean = false
  connectPhases: ConnectPhases | undefined = undefined
  sent: boolean = false
  readonly #upstream: Upstream
  readonly #sink: ResponseSink
  readonly #timeouts: TransportTimeouts
  #phase: CallPhase = 'connect'
  #over = false
  #paused = false
  #request: ClientRequest | undefined = undefined
  /** The connection made for this call, as long as node has not handed it over. */
  #socket: Duplex | undefined = undefined
  #connection: ConnectionState | undefined = undefined
  #response: IncomingMessage | undefined = undefined
  #upload: Upload | undefined = undefined
  #connectTimer: NodeJS.Timeout | undefined = undefined
  #headTimer: NodeJS.Timeout | undefined = undefined
  #idleTimer: NodeJS.Timeout | undefined = undefined

  constructor(upstream: Upstream, sink: ResponseSink, timeouts: TransportTimeouts) {
    this.#upstream = upstream
    this.#sink = sink
    this.#timeouts = timeouts
  }

  /** True once the sink has heard its last word, or the call was aborted. */
  get over(): boolean {
    return this.#over
  }

  /**
   * Follows `request`, which must have been made in this very tick: nothing can have happened to it yet.
   * @param fresh the connection that node opened for it, if any
   * @param length of the body as announced, -1 for chunked
   */
  follow(
    request: ClientRequest,
    fresh: Duplex | undefined,
    body: UpstreamRequest['body'],
    length: number,
    onUpgrade?: UpgradeHandler,
  ): void {
    this.#request = request
    this.#socket = fresh
    // 0 lifts node's limit, behind which fields vanish; ours is checked when the head is here, and the head's size bounds both.
    request.maxHeadersCount = 0
    request.on('socket', (socket) => this.#onSocket(socket))
    request.on('error', (error) => this.#onError(error))
    request.on('information', (info) => {
      if (this.#over || info.statusCode === 100 || info.statusCode === 101) return
      this.#sink.onInterim(info.statusCode, info.rawHeaders.slice())
    })
    request.on('response', (response) => this.#onResponse(response))
    // With no listener, node closes the connection of an unasked 101 and tells nobody.
    request.on('upgrade', (response, socket, first) => this.#onUpgrade(response, socket, first, onUpgrade))
    request.on('close', () => {
      if (this.#response === undefined) this.#end('ERR_UPSTREAM_RESET')
    })
    if (body !== undefined) {
      this.#upload = new Upload(request, body, length, {
        onProgress: () => this.#headTimer?.refresh(),
        onBroken: () => this.abort(),
        onInvalid: (error) => this.#fail(new ProxyError('ERR_REQUEST_NOT_SENT', { cause: error, upstream: this.#upstream })),
      })
    }
    if (this.#timeouts.head > 0) this.#headTimer = setTimeout(() => this.#onHeadTimeout(), this.#timeouts.head).unref()
  }

  /** The request could not even be made. The sink hears of it in the next tick, as of every other failure. */
  refuse(error: unknown): void {
    const refusal = ProxyError.is(error) ? error : new ProxyError('ERR_REQUEST_NOT_SENT', { cause: error, upstream: this.#upstream })
    process.nextTick(() => this.#fail(refusal))
  }

  get connectMs(): number | undefined {
    return this.connectPhases === undefined ? undefined : totalOf(this.connectPhases)
  }

  abort(): void {
    if (this.#over) return
    this.#stop()
    this.#destroy()
  }

  pause(): void {
    if (this.#over) return
    this.#paused = true
    this.#response?.pause()
  }

  resume(): void {
    if (this.#over || !this.#paused) return
    this.#paused = false
    this.#idleTimer?.refresh()
    this.#response?.resume()
  }

  #onSocket(socket: Duplex): void {
    if (this.#over) return
    this.#socket = socket
    const connection = stateOf(socket)
    this.#connection = connection
    if (connection === undefined || connection.phases !== undefined) {
      this.reused = connection?.served ?? false
      if (!this.reused) this.connectPhases = connection?.phases
      this.#onConnected()
      return
    }
    if (this.#timeouts.connect > 0) {
      this.#connectTimer = setTimeout(() => this.#end('ERR_CONNECT_TIMEOUT'), this.#timeouts.connect).unref()
    }
    connection.onOpen = () => {
      if (this.#over) return
      clearTimeout(this.#connectTimer)
      this.connectPhases = connection.phases
      this.#onConnected()
    }
  }

  #onConnected(): void {
    this.#phase = 'head'
    this.sent = true
    this.#headTimer?.refresh()
    if (this.#upload !== undefined && this.#socket !== undefined) prepareForUpload(this.#socket)
    this.#upload?.start()
  }

  #onHeadTimeout(): void {
    // Connecting has a limit of its own. Without a connection the request waits for one to be free, which this limit does cover.
    if (this.#phase === 'connect' && this.#connection !== undefined) return
    // As long as the upstream takes what the client sends, it is not the upstream that is slow.
    if (this.#upload !== undefined && !this.#upload.done && !this.#upload.blocked && this.#phase === 'head') this.#headTimer?.refresh()
    else this.#end('ERR_HEAD_TIMEOUT')
  }

  #onResponse(response: IncomingMessage): void {
    if (this.#over) return
    this.#response = response
    if (response.statusCode === 101) {
      this.#end('ERR_UPGRADE_RESPONSE')
      return
    }
    if (response.rawHeaders.length > 2 * maxFields) {
      this.#end('ERR_UPSTREAM_HEAD')
      return
    }
    this.#phase = 'body'
    clearTimeout(this.#headTimer)
    response.on('error', (error) => this.#onError(error))
    response.on('close', () => this.#end('ERR_UPSTREAM_BODY'))
    response.on('end', () => this.#onEnd(response))
    this.#sink.onHead(response.statusCode as number, response.statusMessage ?? '', response.rawHeaders.slice())
    if (this.#over) return
    if (this.#timeouts.idle > 0) {
      this.#idleTimer = setTimeout(() => {
        // A paused reader is not a silent upstream; `resume` starts the timer again.
        if (!this.#paused) this.#end('ERR_BODY_TIMEOUT')
      }, this.#timeouts.idle).unref()
    }
    if (this.#paused) response.pause()
    response.on('data', (chunk: Buffer) => {
      if (this.#over) return
      this.#idleTimer?.refresh()
      this.#sink.onData(chunk)
    })
    // From the first read on, a chunk is delivered in the tick in which it is parsed: one that came in the packet of the head arrives before
    // an error behind it can overtake it.
    response.read(0)
  }

  #onEnd(response: IncomingMessage): void {
    if (this.#over) return
    if (!response.complete) {
      this.#end('ERR_UPSTREAM_BODY')
      return
    }
    if (this.#connection !== undefined) this.#connection.served = true
    const early = this.#upload !== undefined && !this.#upload.done
    this.#stop()
    // Answered before all was sent: the connection is in the middle of a request and of no further use.
    if (early) this.#destroy()
    this.#sink.onEnd(response.rawTrailers.length > 0 ? response.rawTrailers : undefined)
  }

  #onUpgrade(response: IncomingMessage, socket: Duplex, first: Buffer, handler: UpgradeHandler | undefined): void {
    if (this.#over) {
      socket.destroy()
      return
    }
    this.#response = response
    this.#stop()
    if (response.rawHeaders.length <= 2 * maxFields && handler?.(response.rawHeaders.slice(), socket, first) === true) return
    socket.on('error', () => {})
    socket.destroy()
    const code = response.rawHeaders.length > 2 * maxFields ? 'ERR_UPSTREAM_HEAD' : 'ERR_UPGRADE_RESPONSE'
    this.#sink.onError(new ProxyError(code, { upstream: this.#upstream }))
  }

  #onError(error: unknown): void {
    // What is wrong lies behind the message: its end is on its way, and node has taken the connection out of service.
    if (this.#response?.complete === true) return
    if (!this.#over) this.#fail(toProxyError(error, this.#phase, this.#upstream))
  }

  #end(code: ErrorCode): void {
    if (!this.#over) this.#fail(new ProxyError(code, { upstream: this.#upstream }))
  }

  #fail(error: ProxyError): void {
    if (this.#over) return
    this.#stop()
    this.#destroy()
    this.#sink.onError(error)
  }

  /** Nothing more is reported. */
  #stop(): void {
    this.#over = true
    clearTimeout(this.#connectTimer)
    clearTimeout(this.#headTimer)
    clearTimeout(this.#idleTimer)
    this.#upload?.close()
  }

  #destroy(): void {
    this.#request?.destroy()
    // A request that has no socket yet leaves the one that was made for it connecting, and node would keep it.
    this.#socket?.destroy()
  }
}
