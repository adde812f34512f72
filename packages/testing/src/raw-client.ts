/**
 * The client that a proxy meets: bytes on a TCP (or TLS, or Unix) connection. It sends exactly what the test wrote, well-formed or not, and
 * reports exactly what came back, including how the connection ended. One request: `rawRequest`. Several on one connection, half a request,
 * a slow reader, a reset: `rawConnect`.
 */
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { type RawHead, type RawResponse, readHead, readResponse } from './http1.ts'
import { defaultDeadline } from './watch.ts'
import { type Ending, Wire } from './wire.ts'

export interface RawConnectOptions {
  /** Default `127.0.0.1`. */
  readonly host?: string
  /** Unix socket to connect to; the port is ignored then. */
  readonly socketPath?: string
  /** TLS. `ca` is trusted in place of the system's; `verify: false` accepts any certificate. Default name: `localhost`. */
  readonly tls?:
    | boolean
    | { readonly ca?: string; readonly servername?: string; readonly verify?: boolean; readonly alpn?: readonly string[] }
  /** Longest that any one wait may take, milliseconds. Default 5000. */
  readonly deadline?: number
}

export interface RawConnection extends AsyncDisposable {
  /** Strings are latin1. Resolves true when the kernel has taken all of it, false when the connection broke. Need not be awaited. */
  write(bytes: string | Uint8Array): Promise<boolean>
  /** The next head: a status line and its fields, interim or final. The body stays unread. */
  readHead(deadline?: number): Promise<RawHead>
  /** The next response whole, with the interims before it. Say the request's `method` when it was HEAD. */
  readResponse(options?: { readonly method?: string; readonly deadline?: number }): Promise<RawResponse>
  /** Exactly this many of the bytes that come next. */
  readBytes(count: number, deadline?: number): Promise<Buffer>
  /** Up to and including this text. */
  readThrough(text: string, deadline?: number): Promise<Buffer>
  /** All there is until the connection ends. */
  readToEnd(deadline?: number): Promise<Buffer>
  /** Waits until this text has come, without consuming anything. */
  sees(text: string, deadline?: number): Promise<void>
  /** Everything received so far, read or not. */
  readonly received: Buffer
  readonly unread: Buffer
  /** Bytes that the kernel has accepted. */
  readonly written: number
  /** `open` until the other side ended; then how it did. */
  readonly ending: Ending
  /** How the other side ended, as soon as it has; rejects at the deadline. A paused connection learns nothing. */
  readonly closed: Promise<Ending>
  readonly localPort: number
  /** The protocol that TLS agreed on; false when none. */
  readonly alpn: string | false
  /** FIN: nothing more will be sent, but what comes is still read. */
  end(): void
  /** RST. */
  reset(): void
  /** Stops and starts reading: a slow reader. */
  pause(): void
  resume(): void
  /** Closes at once. */
  destroy(): void
}

/** Opens a connection. Whoever opens it closes it: `await using`, `end`, `reset` or `destroy`. Rejects with the socket's own error. */
export async function rawConnect(port: number, options: RawConnectOptions = {}): Promise<RawConnection> {
  const { host = '127.0.0.1', socketPath, tls = false, deadline = defaultDeadline } = options
  const tcp = connectTcp(
    socketPath === undefined ? { port, host, allowHalfOpen: true, noDelay: true } : { path: socketPath, allowHalfOpen: true },
  )
  const socket = tls === false ? tcp : overTls(tcp, tls === true ? {} : tls)
  const wire = new Wire(socket, deadline, tcp)
  const ready = tls === false ? 'connect' : 'secureConnect'
  let connected = false
  socket.once(ready, () => {
    connected = true
    wire.changed()
  })
  try {
    await wire.waitFor(`waiting for ${ready}`, () => {
      if (wire.ending !== 'open') throw wire.error ?? wire.failure('ended', `waiting for ${ready}`)
      return connected || undefined
    })
  } catch (error) {
    wire.destroy()
    throw error
  }
  return connection(wire, tcp)
}

function overTls(tcp: Socket, tls: Exclude<RawConnectOptions['tls'], boolean | undefined>): Socket {
  return connectTls({
    socket: tcp,
    servername: tls.servername ?? 'localhost',
    rejectUnauthorized: tls.verify ?? true,
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.alpn === undefined ? {} : { ALPNProtocols: [...tls.alpn] }),
  })
}

function connection(wire: Wire, tcp: Socket): RawConnection {
  const localPort = tcp.localPort ?? 0
  return {
    write: (bytes) => wire.write(bytes),
    readHead: (deadline) => readHead(wire, deadline),
    readResponse: ({ method = 'GET', deadline } = {}) => readResponse(wire, method, deadline),
    readBytes: (count, deadline) => wire.readBytes(count, deadline),
    readThrough: (text, deadline) => wire.readThrough(text, deadline),
    readToEnd: (deadline) => wire.readToEnd(deadline),
    sees: (text, deadline) => wire.sees(text, deadline),
    get received() {
      return wire.received
    },
    get unread() {
      return wire.unread
    },
    get written() {
      return wire.written
    },
    get ending() {
      return wire.ending
    },
    get closed() {
      return wire.closed
    },
    localPort,
    alpn: 'alpnProtocol' in wire.socket ? ((wire.socket.alpnProtocol as string | false | null) ?? false) : false,
    end: () => wire.end(),
    reset: () => wire.reset(),
    pause: () => wire.pause(),
    resume: () => wire.resume(),
    destroy: () => wire.destroy(),
    [Symbol.asyncDispose]: async () => wire.destroy(),
  }
}

export interface RawRequestOptions extends RawConnectOptions {
  /**
   * `response` (the default): one final response, then the connection is closed. `close`: read on until the other side closes; `ending` says
   * how and `raw` holds every byte that came, so a second answer that nobody asked for shows.
   */
  readonly until?: 'response' | 'close'
}

/** Sends these bytes as they are and reads the response. The request's method is taken from the bytes, so HEAD is understood. */
export async function rawRequest(port: number, bytes: string | Uint8Array, options: RawRequestOptions = {}): Promise<RawResponse> {
  const { until = 'response', ...connectOptions } = options
  await using connection = await rawConnect(port, connectOptions)
  void connection.write(bytes)
  const method = (typeof bytes === 'string' ? bytes : Buffer.from(bytes).toString('latin1')).split(' ', 1)[0] as string
  const response = await connection.readResponse({ method })
  if (until === 'response') return response
  const ending = await connection.closed
  return { ...response, ending, raw: connection.received }
}
