/**
 * Upgrades. An upgrade is an exchange like any other until the 101: same checks, same stages, same attempt loop, and if anybody answers
 * something else (a stage, the upstream, an error) it is an ordinary response, written by an ordinary `ServerResponse` that is put on the
 * bare socket. After the 101 it is a tunnel: two sockets that live and die together, a row in the registry, an idle timer.
 */
import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Attempt } from './attempt.ts'
import { ProxyError } from './errors.ts'
import { tunnelClose } from './events.ts'
import type { LiveExchange } from './exchange-live.ts'
import { endToEndResponseFields } from './hop-by-hop.ts'
import type { ProxyCore } from './proxy.ts'
import { runUpgradeHooks } from './response.ts'
import type { PendingTunnel } from './transport/transport.ts'

/** Is this the upgrade that Weir tunnels? Everything else (h2c above all) is answered as the plain request that it also is. */
export function isWebSocketRequest(req: IncomingMessage): boolean {
  return (
    req.method === 'GET' &&
    req.httpVersionMajor === 1 &&
    req.httpVersionMinor >= 1 &&
    (req.headers.upgrade ?? '').trim().toLowerCase() === 'websocket'
  )
}

export function hasBodyFraming(req: IncomingMessage): boolean {
  return req.headers['transfer-encoding'] !== undefined || (req.headers['content-length'] ?? '0') !== '0'
}

/** A response for a socket that node has already let go of. */
export function responseOn(req: IncomingMessage, socket: Duplex): ServerResponse {
  const res = new ServerResponse(req)
  res.shouldKeepAlive = false
  res.assignSocket(socket as Socket)
  // Node took the listener that does this off the socket when it handed the upgrade over.
  const drain = (): void => void res.emit('drain')
  socket.on('drain', drain)
  const detach = res.detachSocket.bind(res)
  res.detachSocket = (detached) => {
    socket.off('drain', drain)
    detach(detached)
  }
  res.on('finish', () => (socket as Socket).destroySoon?.())
  return res
}

/** So much of what a client sends before its 101 is read to see its end behind it. A client that follows RFC 6455 sends nothing before it. */
const earlyBytes = 16 * 1024

/**
 * Watches a client whose socket nobody reads until its answer is there: its end would go unseen. The end shows when all before it has been read, so that is
 * taken, up to a limit, behind which an end is seen by the timeouts only. Returns the way to stop, which puts what was taken back into the socket.
 */
export function watchClient(socket: Duplex, onGone: () => void): () => void {
  const taken: Buffer[] = []
  let size = 0
  const take = (): void => {
    while (size < earlyBytes) {
      const chunk = socket.read() as Buffer | null
      if (chunk === null) return
      taken.push(chunk)
      size += chunk.length
    }
  }
  socket.on('readable', take)
  socket.on('end', onGone)
  socket.on('close', onGone)
  return () => {
    socket.off('readable', take)
    socket.off('end', onGone)
    socket.off('close', onGone)
    if (size > 0 && socket.readable) socket.unshift(Buffer.concat(taken))
  }
}

/** The running tunnels of a proxy. */
export class Tunnels {
  readonly #running = new Set<Tunnel>()

  get size(): number {
    return this.#running.size
  }

  add(tunnel: Tunnel): void {
    this.#running.add(tunnel)
  }

  remove(tunnel: Tunnel): void {
    this.#running.delete(tunnel)
  }

  /** The deadline has passed. */
  destroyAll(error: () => ProxyError): void {
    for (const tunnel of [...this.#running]) tunnel.destroy(error())
  }
}

const ignore = (): void => {}

/** 101 from the upstream: let the hooks see it, then join both sides. */
export function openTunnel(core: ProxyCore, exchange: LiveExchange, attempt: Attempt, headers: string[], pending: PendingTunnel): void {
  const socket = exchange.socket as Socket
  const upgrade = fieldValue(headers, 'upgrade') ?? 'websocket'
  const refused = (): void => {
    pending.socket.destroy()
  }
  pending.socket.on('error', ignore)
  runUpgradeHooks(exchange, attempt, endToEndResponseFields(headers), (fields) => {
    // It may have failed while a hook took its time, and be on the way to another answer.
    if (fields === undefined || exchange.finished || exchange.failing || socket.destroyed) {
      refused()
      return
    }
    exchange.answered = true
    exchange.status = 101
    exchange.stopWatching?.()
    // The deadline was for the answer; a tunnel has an idle limit of its own.
    if (exchange.deadlineTimer !== undefined) core.clock.clearTimeout(exchange.deadlineTimer)
    exchange.stopWatching = undefined
    exchange.res.detachSocket(socket)
    // What waits for an answer that will not come is not kept for the life of the tunnel.
    exchange.res.removeAllListeners()
    if (exchange.upgradeHead !== undefined && exchange.upgradeHead.length > 0) socket.unshift(exchange.upgradeHead)
    exchange.upgradeHead = undefined
    exchange.tunnel = new Tunnel(core, exchange, attempt, socket, pending.socket)
    pending.open(['Connection', 'Upgrade', 'Upgrade', upgrade, ...fields])
    exchange.tunnel.watch()
  })
}

function fieldValue(fields: readonly string[], lower: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) if ((fields[i] as string).toLowerCase() === lower) return fields[i + 1]
  return undefined
}

/** Two joined sockets. */
export class Tunnel {
  readonly #core: ProxyCore
  readonly #exchange: LiveExchange
  readonly #attempt: Attempt
  readonly #client: Socket
  readonly #upstream: Duplex
  readonly #readBefore: number
  #writtenBefore = 0
  readonly #openedAt: number
  #error: ProxyError | undefined
  #open = 2

  constructor(core: ProxyCore, exchange: LiveExchange, attempt: Attempt, client: Socket, upstream: Duplex) {
    this.#core = core
    this.#exchange = exchange
    this.#attempt = attempt
    this.#client = client
    this.#upstream = upstream
    this.#readBefore = client.bytesRead ?? 0
    this.#openedAt = core.clock.now()
    core.tunnels.add(this)
  }

  /** The 101 has been written. */
  watch(): void {
    const client = this.#client
    this.#writtenBefore = client.bytesWritten ?? 0
    const upstream = this.#upstream
    const idle = this.#exchange.route?.timeouts.tunnelIdle ?? 0
    // Every byte in either direction passes the client's socket, so its inactivity timer is the tunnel's.
    if (idle > 0) {
      client.setTimeout(idle, () => this.destroy(new ProxyError('ERR_TUNNEL_IDLE')))
    }
    // The transport has tied the two sides to one fate; here it is only seen when both are gone, and why.
    for (const side of [client, upstream]) {
      // A client that resets says nothing about the upstream.
      const code = side === client ? 'ERR_CLIENT_ABORTED' : 'ERR_TUNNEL_BROKEN'
      side.on('error', (cause) => {
        this.#error ??= new ProxyError(code, { cause, upstream: this.#attempt.upstream })
      })
      side.on('close', () => this.#sideClosed())
      if (side.closed) this.#sideClosed()
    }
  }

  #sideClosed(): void {
    this.#open--
    if (this.#open === 0) this.#finish()
  }

  destroy(error: ProxyError): void {
    this.#error ??= error
    this.#client.destroy()
    this.#upstream.destroy()
  }

  #finish(): void {
    this.#core.tunnels.remove(this)
    const bytesIn = (this.#client.bytesRead ?? 0) - this.#readBefore
    const bytesOut = (this.#client.bytesWritten ?? 0) - this.#writtenBefore
    if (tunnelClose.hasSubscribers)
      tunnelClose.publish({
        exchange: this.#exchange,
        bytesIn,
        bytesOut,
        durationMs: this.#core.clock.now() - this.#openedAt,
        reason: this.#error?.code ?? 'completed',
      })
    this.#attempt.finishTunnel(this.#error)
    this.#exchange.error = this.#error
    this.#exchange.tunnelBytes = bytesOut
    this.#core.finish(this.#exchange)
  }
}
