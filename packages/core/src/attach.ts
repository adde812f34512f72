/**
 * Mounting on a server. Besides `request` there are two events that a plain `createServer(proxy)` leaves to node: `upgrade`, without which no
 * WebSocket works, and `checkContinue`, without which node asks the client for its body before any policy has run.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Http2Session } from 'node:http2'
import type { Duplex } from 'node:stream'
import type { AttachableServer, ProxyCore } from './proxy.ts'
import { isHttp2 } from './request-check.ts'
import { isWebSocketRequest } from './upgrade.ts'

/** Returns what to do when draining begins, which returns what to do when it is over. */
export function attachTo(server: AttachableServer, core: ProxyCore): () => () => void {
  checkTimeouts(server as Server)
  const request = (req: IncomingMessage, res: ServerResponse): void => core.handle(req, res, undefined, false)
  const withExpect = (req: IncomingMessage, res: ServerResponse): void => core.handle(req, res, undefined, true)
  const upgrade = (req: IncomingMessage, socket: Duplex, head: Buffer): void => core.upgrade(req, socket, head)
  // HTTP/2 gives a response to answer with where HTTP/1 gives the bare socket.
  const connect = (req: IncomingMessage, side: Duplex | ServerResponse): void =>
    isHttp2(req) ? core.handle(req, side as ServerResponse, undefined, false) : core.refuseConnect(req, side as Duplex)
  const sessions = new Set<Http2Session>()
  const session = (opened: Http2Session): void => {
    sessions.add(opened)
    opened.once('close', () => sessions.delete(opened))
  }
  const emitter = server as Server
  // A proxy that was here before has left its place to this one.
  emitter.off('request', answerClosed)
  emitter.on('request', request)
  emitter.on('checkContinue', withExpect)
  emitter.on('upgrade', upgrade)
  emitter.on('connect', connect)
  emitter.on('session', session)
  // Since Node 22.21 a server can be asked which upgrades it wants. `Upgrade: h2c`, which some clients send with every request, stays a request.
  const chooser = server as { shouldUpgradeCallback?: (req: IncomingMessage) => boolean }
  const chosen = chooser.shouldUpgradeCallback
  if (chosen !== undefined)
    chooser.shouldUpgradeCallback = (req) => isWebSocketRequest(req) || (emitter.listenerCount('upgrade') > 1 && chosen.call(server, req))
  return () => {
    emitter.closeIdleConnections?.()
    for (const open of sessions) open.close()
    return () => {
      emitter.off('request', request)
      emitter.off('checkContinue', withExpect)
      // A server that listens on would leave every request hanging. This listener is the module's and keeps nothing of the proxy.
      if (emitter.listening && emitter.listenerCount('request') === 0) emitter.on('request', answerClosed)
      emitter.off('upgrade', upgrade)
      emitter.off('connect', connect)
      emitter.off('session', session)
      if (chosen !== undefined) chooser.shouldUpgradeCallback = chosen
    }
  }
}

function answerClosed(req: IncomingMessage, res: ServerResponse): void {
  if (!isHttp2(req)) res.shouldKeepAlive = false
  res.writeHead(503, { 'Cache-Control': 'no-store', 'Retry-After': '1' })
  res.end()
}

function checkTimeouts(server: Server): void {
  const warn = (message: string): void => process.emitWarning(message, { code: 'WEIR_SERVER_TIMEOUTS' })
  if (server.timeout > 0)
    warn(
      `server.timeout is ${server.timeout} ms: it cuts event streams and tunnels that are silent for so long. Set it to 0; Weir has timeouts of its own.`,
    )
  if (server.headersTimeout === 0)
    warn('server.headersTimeout is 0: a client may take for ever to send its head. Leave it at 60 s or less.')
  if (server.keepAliveTimeout === 0)
    warn(
      'server.keepAliveTimeout is 0: idle connections are never closed. Set it a little above the idle timeout of the load balancer in front.',
    )
}
