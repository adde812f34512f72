/**
 * An upstream that says byte for byte what the test tells it to, and remembers byte for byte what it was told. The script runs once per
 * connection and reads like the conversation: read a request, send half a head, reset. For upstreams that behave, with faults here and
 * there, `testUpstream` is shorter.
 */
import type { RawRequest } from './http1.ts'
import { type ListenerTls, listen } from './listener.ts'
import { type UpstreamConnection, upstreamConnection } from './upstream-connection.ts'
import { defaultDeadline, noDeadline, Watch } from './watch.ts'
import { Wire, WireError } from './wire.ts'

/** Runs once per connection. What it throws is thrown again by `close()`, except when the other side just ended the connection. */
export type UpstreamScript = (connection: UpstreamConnection, upstream: RawUpstream) => Promise<void> | void

export interface RawUpstreamOptions {
  readonly tls?: ListenerTls
  /** Listens on a Unix socket in the temporary directory, `socketPath`, instead of a port. */
  readonly unix?: boolean
  /** Longest that any one wait may take, milliseconds. Default 5000. */
  readonly deadline?: number
}

export interface RawUpstream extends AsyncDisposable {
  /** 0 for a Unix socket. */
  readonly port: number
  /** `http://127.0.0.1:port`, `https://localhost:port`, or `unix:/path`. */
  readonly url: string
  readonly socketPath: string | undefined
  /** Every connection accepted so far, open or not, in order. */
  readonly connections: readonly UpstreamConnection[]
  /** Every request that `readRequest` has read, in order; `raw` holds its bytes. */
  readonly requests: readonly RawRequest[]
  /** Connections that the other side has not ended. */
  readonly open: number
  /** The nth connection (from 1), as soon as it is there. */
  connection(number: number, deadline?: number): Promise<UpstreamConnection>
  /** The nth request (from 1), as soon as `readRequest` has read it. */
  request(number: number, deadline?: number): Promise<RawRequest>
  /** From now on connections are refused; those that exist go on. The port stays reserved. */
  stopListening(): Promise<void>
  /** Listens on the same port again. */
  listenAgain(): Promise<void>
  /** Stops listening, closes every connection and waits for the scripts. Throws what a script threw. Idempotent. */
  close(): Promise<void>
}

/** Starts an upstream on 127.0.0.1. A script that is only bytes is sent in answer to every request. */
export async function rawUpstream(script: UpstreamScript | string | Uint8Array, options: RawUpstreamOptions = {}): Promise<RawUpstream> {
  const { tls, unix = false, deadline = defaultDeadline } = options
  const run: UpstreamScript = typeof script === 'function' ? script : everyRequest(() => script)
  const wires: Wire[] = []
  const connections: UpstreamConnection[] = []
  const requests: RawRequest[] = []
  const running = new Set<Promise<void>>()
  const failures: unknown[] = []
  const watch = new Watch()
  let closing: Promise<void> | undefined

  const listener = await listen({ tls, unix }, (socket, tcp) => {
    const wire = new Wire(socket, deadline, tcp)
    wires.push(wire)
    const connection = upstreamConnection(wire, wires.length, (request) => {
      requests.push(request)
      watch.changed()
    })
    connections.push(connection)
    watch.changed()
    const done = (async () => {
      await run(connection, upstream)
      // The script has said its part. As an ordinary server would, close our side when the client closes its own.
      await connection.stall()
      wire.end()
    })()
      .catch((error: unknown) => {
        if (!(error instanceof WireError && error.reason === 'ended')) failures.push(error)
        wire.destroy()
      })
      .finally(() => {
        running.delete(done)
        watch.changed()
      })
    running.add(done)
  })

  const shut = async (): Promise<void> => {
    const stopped = listener.close()
    for (const wire of wires) wire.destroy()
    await stopped
    await watch.until(
      () => (running.size === 0 ? true : undefined),
      deadline,
      () => new Error(`${running.size} upstream script(s) went on after their connection had ended`),
    )
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1) throw new AggregateError(failures, 'several upstream scripts failed')
  }
  const close = (): Promise<void> => {
    closing ??= shut()
    return closing
  }

  const nth = <T>(list: readonly T[], number: number, what: string, limit: number): Promise<T> =>
    watch.until(
      () => list[number - 1],
      limit,
      () => new Error(`${what} ${number} did not come within ${limit} ms; there were ${list.length}`),
    )

  const upstream: RawUpstream = {
    get port() {
      return listener.port
    },
    get url() {
      return listener.url
    },
    socketPath: listener.socketPath,
    connections,
    requests,
    get open() {
      return wires.filter((wire) => wire.ending === 'open').length
    },
    connection: (number, limit = deadline) => nth(connections, number, 'connection', limit),
    request: (number, limit = deadline) => nth(requests, number, 'request', limit),
    stopListening: () => listener.stop(),
    listenAgain: () => listener.again(),
    close,
    [Symbol.asyncDispose]: close,
  }
  return upstream
}

type Answer = string | Uint8Array | undefined

/** A script that answers one request after the other: sends what `answer` returns; undefined leaves the sending to `answer` itself. */
export function everyRequest(answer: (request: RawRequest, connection: UpstreamConnection) => Answer | Promise<Answer>): UpstreamScript {
  return async (connection) => {
    for (;;) {
      // A kept connection may idle for as long as the test runs.
      const bytes = await answer(await connection.readRequest(noDeadline), connection)
      if (bytes !== undefined) await connection.send(bytes)
    }
  }
}
