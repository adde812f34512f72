/**
 * The connections to one upstream, one undici `Client` each, on a free list.
 *
 * Last in, first out: the warmest connection is used first and the surplus ages out. undici's own `Pool` would scan its clients linearly for a
 * free one, which shows from about 100 connections on.
 */
import { isIP, type Socket } from 'node:net'
import { buildConnector, Client, type Dispatcher } from 'undici'
import { ProxyError } from '../errors.ts'
import type { Upstream } from '../upstream.ts'
import { type AddressCheck, checkedLookup, refusedAddress } from './address-check.ts'
import { BodyStream } from './body-stream.ts'
import { toProxyError } from './connect-error.ts'
import { type ConnectPhases, timeConnecting } from './connect-phases.ts'
import { whenAged } from './connection-age.ts'
import type { Deadlines, Watched } from './deadlines.ts'
import { type readTlsOptions, serverNameOf } from './tls.ts'
import type { ResponseSink, UpstreamRequest } from './transport.ts'
import { UndiciCall } from './undici-call.ts'
import { WireFilter } from './wire-filter.ts'

export interface UndiciSettings {
  readonly keepAliveTimeout: number
  readonly maxIdle: number
  readonly maxRequests: number
  readonly maxAge: number
  readonly maxHeaderSize: number
  readonly localAddress: string | undefined
  readonly allowAddress: AddressCheck | undefined
  readonly tls: ReturnType<typeof readTlsOptions>
}

export class FreeList {
  readonly upstream: Upstream
  readonly origin: string
  /** SNI and certificate name; constant, or undici would reconnect whenever the client's Host changes. */
  readonly servername: string
  readonly deadlines: Deadlines
  /** One object for all requests: undici reads it out in its Request constructor and does not keep it. */
  readonly options: DispatchOptions
  readonly #settings: UndiciSettings
  readonly #free: UndiciConnection[] = []
  /** Clients without a connection. */
  readonly #closed: UndiciConnection[] = []
  #retired = false

  constructor(upstream: Upstream, settings: UndiciSettings, deadlines: Deadlines) {
    this.upstream = upstream
    this.deadlines = deadlines
    const { url } = upstream
    this.origin = url.protocol === 'unix:' ? 'http://localhost' : url.origin
    this.servername = serverNameOf(upstream, settings.tls.servername) || 'localhost'
    this.#settings = settings
    this.options = {
      path: '',
      method: 'GET',
      headers: [],
      body: null,
      reset: false,
      blocking: false,
      idempotent: false,
      servername: this.servername,
      // Kept by the call: see deadlines.ts, and undici's are off by up to a second.
      headersTimeout: 0,
      bodyTimeout: 0,
    }
  }

  send(request: UpstreamRequest, sink: ResponseSink): void {
    const connection = this.#take(request.fresh === true)
    connection.send(request, sink)
  }

  #take(fresh: boolean): UndiciConnection {
    const free = this.#free
    if (fresh) {
      for (const connection of free) connection.discard()
      free.length = 0
    }
    return free.pop() ?? this.#closed.pop() ?? new UndiciConnection(this, this.#settings)
  }

  /** Its socket has gone while it was idle: worth less than any that is open, but more than a new client, which is costly to make. */
  cool(connection: UndiciConnection): void {
    // The oldest close first, and they are in front.
    const at = this.#free.indexOf(connection)
    if (at < 0) return
    this.#free.splice(at, 1)
    if (this.#closed.length < keptClosed) this.#closed.push(connection)
  }

  /** The call is over; its connection may serve another. */
  give(connection: UndiciConnection): void {
    if (this.#retired || connection.aged || this.#free.length >= this.#settings.maxIdle) connection.discard()
    else if (connection.open) this.#free.push(connection)
    else if (this.#closed.length < keptClosed) this.#closed.push(connection)
  }

  /** It has been open for as long as it may. One that is in use is given back when it is done. */
  age(connection: UndiciConnection): void {
    const at = this.#free.indexOf(connection)
    if (at < 0) return
    this.#free.splice(at, 1)
    connection.discard()
  }

  close(): void {
    this.#retired = true
    this.#closed.length = 0
    for (const connection of this.#free) connection.discard()
    this.#free.length = 0
  }
}

/** Clients without a connection that are kept for the next rise in traffic. */
const keptClosed = 256

const noFields: string[] = []

type DispatchOptions = Dispatcher.DispatchOptions & { servername: string }

/** One connection at a time, remade by undici when it has gone. */
export class UndiciConnection implements Watched {
  readonly list: FreeList
  readonly filter: WireFilter = new WireFilter()
  open: boolean = false
  /** The present socket is older than any may be. */
  aged: boolean = false
  /** Responses that the present socket has carried. */
  served: number = 0
  /** Of the present socket. */
  connectPhases: ConnectPhases | undefined = undefined
  socket: Socket | undefined = undefined
  /** Why the present socket failed. */
  broken: Error | undefined = undefined
  running: UndiciCall | undefined = undefined
  watched: boolean = false
  readonly #client: Client
  readonly #allowAddress: AddressCheck | undefined
  readonly #maxAge: number
  #connectTimeout = 0
  /** The socket until it is connected: undici would leave it trying when the client is destroyed. */
  #connecting: Socket | undefined = undefined

  constructor(list: FreeList, settings: UndiciSettings) {
    this.list = list
    this.#allowAddress = settings.allowAddress
    this.#maxAge = settings.maxAge
    const { url } = list.upstream
    const connect = buildConnector({
      ...settings.tls.connect,
      // Over TLS it is the decrypted bytes that count, which come out of OpenSSL in pieces of 16 KiB and smaller.
      ...(url.protocol === 'https:' ? null : { onread: this.filter.onread }),
      ...(url.protocol === 'unix:' ? { socketPath: decodeURIComponent(url.pathname) } : null),
      ...(settings.localAddress === undefined ? null : { localAddress: settings.localAddress }),
      ...(settings.allowAddress === undefined ? null : { lookup: checkedLookup(settings.allowAddress) }),
      allowH2: false,
      // The port's own timer covers connecting, since the limit is the request's and not the connection's.
      timeout: 0,
      maxCachedSessions: 1,
    } as buildConnector.BuildOptions)
    this.#client = new Client(list.origin, {
      // Nothing is pipelined: a connection is lent to one call at a time, and `idempotent: false` below would keep a second one waiting. But at 1, undici
      // looks at every connection once more in a later phase of the loop, and tells everybody that it is free again: 2 % of a small request.
      pipelining: 2,
      allowH2: false,
      keepAliveTimeout: settings.keepAliveTimeout,
      keepAliveMaxTimeout: settings.keepAliveTimeout,
      keepAliveTimeoutThreshold: 1000,
      maxHeaderSize: settings.maxHeaderSize,
      maxRequestsPerClient: settings.maxRequests,
      connect: (options, callback) => this.#connect(connect, options, callback),
    })
    this.#client.on('disconnect', () => {
      this.open = false
      this.list.cool(this)
    })
  }

  /** The request of `call` goes out. */
  expect(call: UndiciCall, mayHaveBody: boolean): void {
    this.running = call
    this.filter.expect(call, mayHaveBody)
    this.list.deadlines.watch(this)
  }

  /**
   * `call` is over. A connection outlives thousands of calls, and what it still referred to would be promoted to the old generation with all that
   * hangs on it: measured at 512 connections, that made garbage collection the largest single cost.
   */
  release(call: UndiciCall): void {
    if (this.running !== call) return
    this.running = undefined
    this.filter.release()
  }

  send(request: UpstreamRequest, sink: ResponseSink): void {
    const call = new UndiciCall(this, sink, request)
    sink.onStart(call)
    if (call.aborted) {
      this.list.give(this)
      return
    }
    call.dispatched = true
    this.#connectTimeout = request.timeouts.connect
    const { options } = this.list
    options.method = request.method as Dispatcher.HttpMethod
    options.path = request.path
    options.headers = request.headers as string[]
    if (request.body === undefined) options.body = null
    else {
      call.upload = new BodyStream(request.body)
      options.body = call.upload as unknown as NonNullable<DispatchOptions['body']>
    }
    try {
      this.#client.dispatch(options, call)
    } catch (error) {
      call.fail(toProxyError(error, 'head', this.list.upstream))
    }
    options.body = null
    // The request is undici's now; see `release` for why nothing of it is kept.
    options.headers = noFields
  }

  /** Ends the connection whatever it does. Its calls hear an error, which an aborted call does not pass on. */
  discard(): void {
    this.open = false
    this.#connecting?.destroy()
    this.#client.destroy().catch(() => {})
  }

  #connect(connect: buildConnector.connector, options: buildConnector.Options, callback: buildConnector.Callback): void {
    const startedAt = performance.now()
    const limit = this.#connectTimeout
    let timer: NodeJS.Timeout | undefined
    this.served = 0
    this.aged = false
    const refused = refusedAddress(this.list.upstream, this.#allowAddress)
    if (refused !== undefined) {
      process.nextTick(callback, refused, null)
      return
    }
    const socket = connect({ ...options, servername: isIP(this.list.servername) === 0 ? this.list.servername : '' }, (error, connected) => {
      clearTimeout(timer)
      this.#connecting = undefined
      if (error !== null || connected === null) {
        callback(error ?? new Error('no socket'), null)
        return
      }
      this.open = true
      this.connectPhases = phases()
      // Before undici's own listener: it takes the reset of a body that ends with the connection for its end.
      this.broken = undefined
      connected.on('error', (cause: Error) => {
        this.broken = cause
      })
      this.filter.attach(connected)
      this.socket = connected
      whenAged(connected, this.#maxAge, () => {
        if (this.socket !== connected) return
        this.aged = true
        this.list.age(this)
      })
      callback(null, connected)
    }) as unknown as Socket
    const phases = timeConnecting(socket, startedAt)
    this.#connecting = socket
    socket.once('close', () => clearTimeout(timer))
    if (limit > 0) timer = setTimeout(() => socket.destroy(new ProxyError('ERR_CONNECT_TIMEOUT', { upstream: this.list.upstream })), limit)
  }
}
