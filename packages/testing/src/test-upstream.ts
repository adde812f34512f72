/**
 * An upstream that behaves like a real service, since it is one (node:http), until a route is told to fail. Routes are literal paths: it is
 * the proxy's routing that is under test. It counts what it saw, can be killed and come back on its own port, and leaves nothing behind.
 */
import { createServer, type IncomingMessage, type ServerOptions, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Answer, echo, type Handler, handlerOf, type Wiretap } from './answers.ts'
import { certificates } from './certificates.ts'
import { type ListenerTls, listen } from './listener.ts'
import { defaultDeadline, Watch } from './watch.ts'

/**
 * Keys are `METHOD /path`, `/path` for any method, or `*` for everything else; a path that ends with `*` stands for all that begin so. The
 * query takes no part. The most specific key wins. What no key fits is answered 404.
 */
export type Routes = Readonly<Record<string, Answer>>

export interface TestUpstreamOptions {
  /** Sent with every well-behaved answer as `X-Upstream`, to see who answered. */
  readonly name?: string
  /** `true`: the kit's certificate for localhost, `certificates().localhost`. */
  readonly tls?: boolean | ListenerTls
  /** Listens on a Unix socket in the temporary directory instead of a port. */
  readonly unix?: boolean
  /** Settings of the node:http server, such as `keepAliveTimeout`. */
  readonly http?: ServerOptions
  /** Longest that `until` waits, milliseconds. Default 5000. */
  readonly deadline?: number
}

export interface SeenRequest {
  readonly method: string
  readonly url: string
  /** Without the query. */
  readonly path: string
  readonly rawHeaders: readonly string[]
  readonly req: IncomingMessage
}

export interface TestUpstream extends AsyncDisposable {
  /** 0 for a Unix socket. */
  readonly port: number
  /** `http://127.0.0.1:port`, `https://localhost:port` or `unix:/path`. */
  readonly url: string
  readonly socketPath: string | undefined
  /** Every request so far, in order. */
  readonly requests: readonly SeenRequest[]
  /** Requests that fit a key such as `GET /a` or `/a`; all of them without one. */
  count(key?: string): number
  /** Connections that are open now. */
  readonly sockets: number
  /** Connections accepted so far. */
  readonly accepted: number
  /** Requests whose response has neither been sent nor been cut off. */
  readonly active: number
  /** Resolves when `look` is true; looked at whenever a request, a connection or a response begins or ends. */
  until(look: (upstream: TestUpstream) => boolean, deadline?: number): Promise<void>
  /** Gives a route another answer from now on. */
  route(key: string, answer: Answer): void
  /** Refuses connections and resets those that exist. The port stays reserved. */
  kill(): Promise<void>
  /** Refuses connections; those that exist go on. The port stays reserved. */
  stopListening(): Promise<void>
  /** Listens on the same port again. */
  restart(): Promise<void>
  /** Ends everything. Idempotent. */
  close(): Promise<void>
}

/** Starts an upstream on 127.0.0.1. Default: `echo()` for everything. Whoever starts it closes it (`await using`). */
export async function testUpstream(routes: Routes | Handler = echo(), options: TestUpstreamOptions = {}): Promise<TestUpstream> {
  const { name, tls = false, unix = false, deadline = defaultDeadline } = options
  const table = new Map<string, Handler>()
  if (typeof routes === 'function') table.set('*', routes)
  else for (const [key, answer] of Object.entries(routes)) table.set(key, handlerOf(answer))

  const watch = new Watch()
  const requests: SeenRequest[] = []
  /** Connection as node:http sees it, and the TCP socket below it. */
  const sockets = new Map<Socket, Socket>()
  let accepted = 0
  let active = 0
  let closing: Promise<void> | undefined

  const http = createServer({ noDelay: true, ...options.http }, (req, res) => {
    const { method = '', url = '', rawHeaders } = req
    const path = url.split('?', 1)[0] as string
    requests.push({ method, url, path, rawHeaders, req })
    active++
    res.once('close', () => {
      active--
      watch.changed()
    })
    if (name !== undefined) res.setHeader('X-Upstream', name)
    watch.changed()
    answer(
      table,
      method,
      path,
      req,
      res,
      wiretap(req.socket, res, () => reset(req.socket)),
    )
  })

  const reset = (socket: Socket): void => {
    // Only the lower socket, and nothing after it: destroying both in one tick crashes Node 24. A Unix socket cannot be reset.
    const tcp = sockets.get(socket)
    if (tcp === undefined) return
    sockets.delete(socket)
    if (unix) tcp.destroy()
    else tcp.resetAndDestroy()
  }

  const certificate = tls === true ? certificates().localhost : tls === false ? undefined : tls
  const listener = await listen({ tls: certificate, unix }, (socket, tcp) => {
    accepted++
    sockets.set(socket, tcp)
    tcp.on('error', () => {})
    socket.on('error', () => {})
    socket.once('close', () => {
      sockets.delete(socket)
      watch.changed()
    })
    watch.changed()
    http.emit('connection', socket)
  })

  const close = (): Promise<void> => {
    const closed = closing ?? listener.close()
    closing = closed
    for (const socket of sockets.keys()) socket.destroy()
    return closed
  }

  const upstream: TestUpstream = {
    get port() {
      return listener.port
    },
    get url() {
      return listener.url
    },
    socketPath: listener.socketPath,
    requests,
    count: (key) =>
      key === undefined ? requests.length : requests.filter((seen) => key === seen.path || key === `${seen.method} ${seen.path}`).length,
    get sockets() {
      return sockets.size
    },
    get accepted() {
      return accepted
    },
    get active() {
      return active
    },
    until: async (look, limit = deadline) => {
      await watch.until(
        () => look(upstream) || undefined,
        limit,
        () =>
          new Error(
            `not within ${limit} ms: ${String(look)} (requests ${requests.length}, active ${active}, sockets ${sockets.size} of ${accepted})`,
          ),
      )
    },
    route: (key, given) => void table.set(key, handlerOf(given)),
    kill: async () => {
      const stopped = listener.stop()
      for (const socket of sockets.keys()) reset(socket)
      await stopped
    },
    stopListening: () => listener.stop(),
    restart: () => listener.again(),
    close,
    [Symbol.asyncDispose]: close,
  }
  return upstream
}

function answer(table: Map<string, Handler>, method: string, path: string, req: IncomingMessage, res: ServerResponse, wire: Wiretap): void {
  const found = table.get(`${method} ${path}`) ?? table.get(path) ?? prefixed(table, method, path) ?? handlerOf(404)
  void (async () => found(req, res, wire))().catch((error: unknown) => {
    // A client that leaves while the handler reads is no failure of the handler.
    if (res.destroyed || req.destroyed) return
    if (!res.headersSent) res.writeHead(500)
    res.end(`the handler of this test upstream threw: ${String(error)}`)
  })
}

/** Longest prefix; of two equal ones, the one with a method. */
function prefixed(table: Map<string, Handler>, method: string, path: string): Handler | undefined {
  let best: Handler | undefined
  let rank = -1
  for (const [key, handler] of table) {
    if (!key.endsWith('*')) continue
    const space = key.indexOf(' ')
    if (space >= 0 && key.slice(0, space) !== method) continue
    const prefix = key.slice(space + 1, -1)
    const score = prefix.length * 2 + (space >= 0 ? 1 : 0)
    if (!path.startsWith(prefix) || score <= rank) continue
    best = handler
    rank = score
  }
  return best
}

function wiretap(socket: Socket, res: ServerResponse, reset: () => void): Wiretap {
  return {
    socket,
    reset,
    after: (ms, act) => {
      const timer = setTimeout(() => {
        res.off('close', stop)
        act()
      }, ms)
      const stop = (): void => clearTimeout(timer)
      res.once('close', stop)
    },
  }
}
