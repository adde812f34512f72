/**
 * WebSockets through http-proxy-3's `ws()`, for every transport. `ws()` makes the request to the upstream, and joins the two sockets when
 * the upstream has switched. In between it would answer the client by itself, or not at all: a failed connection closes the client's
 * socket, another answer than 101 is relayed without back-pressure, a client that leaves before the 101 leaves the upstream's socket behind.
 *
 * So its three listeners are taken off the request as soon as `ws()` has returned, in the same tick and before anything can happen. Errors
 * and other answers then take the way of every request (`ClientCall`), which leaves the client untouched, so that another upstream can be
 * tried. Its `upgrade` listener is kept, and called when core opens the tunnel.
 */
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { createProxyServer, type ProxyServer, type ServerOptions } from 'http-proxy-3'
import { ProxyError } from '../errors.ts'
import { isField } from '../headers.ts'
import type { Upstream } from '../upstream.ts'
import { ClientCall } from './client-call.ts'
import { ClientSide } from './client-side.ts'
import { type ConnectionSettings, Connections } from './connections.ts'
import { frame } from './framing.ts'
import { proxyOptions } from './http-proxy-options.ts'
import type { PendingTunnel, UpgradeRequest, UpgradeSink } from './transport.ts'
import { tie } from './tunnel.ts'

export interface UpgradeSettings extends Pick<ConnectionSettings, 'tls' | 'maxHeaderSize' | 'localAddress' | 'allowAddress'> {
  /** Milliseconds without a byte, after one side of a tunnel has ended, until the other is destroyed. Default 5000. */
  readonly linger?: number
}

export interface Upgrades {
  upgrade(request: UpgradeRequest, upstream: Upstream, sink: UpgradeSink): void
  /** The upstream has left the pool. Open tunnels go on. */
  forget(upstream: Upstream): void
  /** Idempotent. Open tunnels go on: whoever opened them ends them. */
  close(): void
}

type Join = (response: IncomingMessage, socket: Duplex, first: Buffer) => void

const nothing = Buffer.alloc(0)

/** Not an arrow in place: http-proxy-3 keeps it for the life of the tunnel, and with it whatever the place it was made in refers to. */
const ignore = (): void => {}

export function upgradeWithHttpProxy(settings: UpgradeSettings): Upgrades {
  const { linger = 5000 } = settings
  // A tunnel owns its connection: none is kept, and none is waited for.
  const full: ConnectionSettings = { ...settings, keepAliveTimeout: 0, maxRequests: 0, maxAge: 0, maxConnections: Number.POSITIVE_INFINITY }
  const connections = new Connections(full)
  const proxy = createProxyServer()
  proxy.on('error', () => {})
  const start = (request: UpgradeRequest, upstream: Upstream, client: ClientSide, call: ClientCall, sink: UpgradeSink): void => {
    const line = connections.to(upstream)
    const headers = [...request.headers, 'Connection', 'Upgrade', 'Upgrade', request.protocol]
    const head = frame({ method: request.method, path: request.path, headers, body: undefined })
    const { made, fresh } = line.watch(() => askUpgrade(proxy, request, client.view, proxyOptions(head, line, full)))
    const [join] = made.listeners('upgrade') as Join[]
    for (const event of ['error', 'upgrade', 'response']) made.removeAllListeners(event)
    let joined = false
    made.once('close', () => {
      if (!joined) client.abandon()
    })
    call.follow(made, fresh, undefined, 0, (fields, socket, first) => {
      if (!switched(fields, request.protocol) || join === undefined) return false
      joined = true
      sink.onUpgrade(fields, new JoinableTunnel(request.client, client, socket, first, join, linger))
      return true
    })
  }

  return {
    upgrade(request, upstream, sink) {
      const client = new ClientSide(request.client)
      const call = new ClientCall(upstream, sink, request.timeouts)
      sink.onStart(call)
      if (call.over) return
      try {
        // `ws()` knows nothing else, and would close the client's socket without a word.
        if (request.method !== 'GET' || request.protocol.toLowerCase() !== 'websocket') {
          throw new ProxyError('ERR_UPGRADE_REQUEST', {
            upstream,
            message: `Only GET with Upgrade: websocket is tunnelled; given ${request.method}, ${request.protocol}`,
          })
        }
        start(request, upstream, client, call, sink)
      } catch (error) {
        client.abandon()
        call.refuse(error)
      }
    },
    forget: (upstream) => connections.forget(upstream),
    close: () => connections.close(),
  }
}

function askUpgrade(proxy: ProxyServer, request: UpgradeRequest, client: Duplex, options: ReturnType<typeof proxyOptions>): ClientRequest {
  const asked = { method: request.method, url: '', headers: { upgrade: request.protocol }, httpVersionMajor: 1, httpVersion: '1.1' }
  const made: ClientRequest[] = []
  const announce = (clientRequest: ClientRequest, _asked: unknown, _client: unknown, used: ServerOptions): void => {
    made.push(clientRequest)
    // Node has its copy; these are http-proxy-3's, who keeps them for the life of the tunnel.
    used.ssl = undefined
  }
  // Emitted inside `ws()`: the only way to get at the request in the tick in which it is made.
  proxy.once('proxyReqWs', announce)
  try {
    proxy.ws(asked as unknown as IncomingMessage, client as Parameters<ProxyServer['ws']>[1], nothing, options, ignore)
  } finally {
    proxy.off('proxyReqWs', announce)
  }
  if (made[0] === undefined) throw new Error('http-proxy-3 made no request')
  return made[0]
}

/** Has the upstream switched to what it was asked for? (RFC 9110 §7.8: it names the protocol in `Upgrade`.) */
function switched(headers: readonly string[], protocol: string): boolean {
  for (let i = 0; i < headers.length; i += 2) {
    if (isField(headers[i] as string, 'upgrade')) return headers[i + 1]?.toLowerCase() === protocol.toLowerCase()
  }
  return false
}

class JoinableTunnel implements PendingTunnel {
  readonly socket: Duplex
  readonly #client: Duplex
  readonly #side: ClientSide
  readonly #linger: number
  /** Until it is opened: http-proxy-3's way to join, and what is done when there is nothing to join any more. */
  #pending: { readonly join: Join; readonly abandon: () => void } | undefined

  constructor(client: Duplex, side: ClientSide, socket: Duplex, first: Buffer, join: Join, linger: number) {
    this.socket = socket
    this.#client = client
    this.#side = side
    this.#linger = linger
    // The bytes behind the 101 belong in front of everything that follows; given to http-proxy-3 as well, they would come twice.
    if (first.length > 0) socket.unshift(first)
    // Node has taken its own listener off: an upstream that breaks now must not end the process.
    socket.on('error', ignore)
    const abandon = (): void => side.abandon()
    socket.on('close', abandon)
    this.#pending = { join, abandon }
  }

  open(headers: readonly string[]): void {
    if (this.#pending === undefined) return
    const { join, abandon } = this.#pending
    this.#pending = undefined
    const socket = this.socket
    socket.off('close', abandon)
    const head = Buffer.from(`HTTP/1.1 101 Switching Protocols\r\n${fieldLines(headers)}\r\n`, 'latin1')
    this.#side.open(head)
    if (!socket.destroyed) {
      bypassView(socket, this.#side.view, this.#client)
      join({ headers: {} } as IncomingMessage, socket, nothing)
    } else this.#client.write(head)
    tie(this.#client, socket, this.#linger)
  }
}

/** The view has done its part when the sockets are piped: piped to the client itself, no chunk takes the way over a Proxy. */
function bypassView(socket: Duplex, view: Duplex, client: Duplex): void {
  const { pipe } = socket
  socket.pipe = ((destination: Duplex) => {
    socket.pipe = pipe
    return socket.pipe(destination === view ? client : destination)
  }) as typeof pipe
}

function fieldLines(headers: readonly string[]): string {
  let lines = ''
  for (let i = 0; i < headers.length; i += 2) lines += `${headers[i]}: ${headers[i + 1]}\r\n`
  return lines
}
