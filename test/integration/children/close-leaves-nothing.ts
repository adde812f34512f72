/**
 * Run by e40 in a process of its own, which must end by itself: a proxy with work of every kind in hand is closed, then the servers and
 * clients that the embedder owns. Prints as JSON what is left in between.
 */
import { once } from 'node:events'
import { Agent, createServer, get, type Server } from 'node:http'
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2'
import { type AddressInfo, connect } from 'node:net'
import { createProxy, httpProxyTransport, type Outcome, undiciTransport } from '../../../packages/core/src/index.ts'

const transport = process.argv[2] === 'http-proxy' ? httpProxyTransport() : undiciTransport()
const portOf = (server: unknown): number => ((server as Server).address() as AddressInfo).port
const handles = (): string[] =>
  process
    .getActiveResourcesInfo()
    .filter((name) => !/^(Pipe|TTY|File|FS|Immediate|Tick)/.test(name))
    .sort()

const upstream = createServer((req, res) => {
  if (req.url === '/') res.end('fine')
  else if (req.url === '/half') {
    res.writeHead(200, { 'Content-Length': 100 })
    res.write('half')
  }
})
upstream.on('upgrade', (_req, socket) => {
  socket.on('error', () => {})
  // As every server does that reads its clients.
  socket.on('end', () => socket.end()).resume()
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
})
const server = createServer()
const http2Server = createHttp2Server()
for (const each of [upstream, server, http2Server]) {
  each.listen(0, '127.0.0.1')
  await once(each, 'listening')
}
const before = handles()

const outcomes: string[] = []
const proxy = createProxy({
  upstreams: [`http://127.0.0.1:${portOf(upstream)}`],
  transport,
  timeouts: { total: '60s' },
  use: [() => ({ onFinish: (outcome: Outcome) => void outcomes.push(outcome.reason) })],
})
proxy.attach(server)
proxy.attach(http2Server)

// Finished work: it leaves idle connections to the upstream.
const agent = new Agent({ keepAlive: true })
await Promise.all(
  Array.from({ length: 20 }, async () => {
    const [response] = await once(get({ port: portOf(server), host: '127.0.0.1', agent }), 'response')
    response.resume()
    await once(response, 'end')
  }),
)
// Work in hand: no head yet, half a body, an upload, a tunnel, and a stream of HTTP/2.
const clients = ['GET /stalled', 'GET /half', 'POST /stalled', 'GET /tunnel'].map((line) => {
  const client = connect(portOf(server), '127.0.0.1')
  const extra = line.startsWith('POST')
    ? 'Content-Length: 100\r\n'
    : line.endsWith('tunnel')
      ? 'Connection: Upgrade\r\nUpgrade: websocket\r\n'
      : ''
  client.write(`${line} HTTP/1.1\r\nHost: localhost\r\n${extra}\r\n`)
  client.on('error', () => {})
  client.resume()
  return client
})
const session = connectHttp2(`http://127.0.0.1:${portOf(http2Server)}`)
session.on('error', () => {})
let goaway: number | undefined
session.on('goaway', (code) => {
  goaway = code
})
const stream = session.request({ ':path': '/stalled' })
stream.on('error', () => {})
stream.resume().end()
while (proxy.stats().inflight < 5 || proxy.stats().tunnels < 1) await new Promise((resolve) => setTimeout(resolve, 5))

const closing = proxy.close({ deadline: 100 })
const same = proxy.close() === closing
await closing
await transport.close?.()

const [upstreamConnections] = await new Promise<number[]>((resolve) => {
  // A turn or two for the upstream to hear of it.
  const look = (turns: number): void => {
    upstream.getConnections((_error, count) => {
      if (count === 0 || turns === 0) resolve([count])
      else setTimeout(look, 10, turns - 1)
    })
  }
  look(200)
})
const stats = proxy.stats()
const ended = Promise.all(clients.filter((client) => !client.destroyed).map((client) => once(client, 'close')))
agent.destroy()
await ended
if (!session.destroyed) await once(session, 'close')
const listeners = ['request', 'checkContinue', 'upgrade', 'connect', 'session'].map((event) => `${event} ${server.listenerCount(event)}`)
await new Promise((resolve) => setTimeout(resolve, 50))
const after = handles()
for (const each of [upstream, server, http2Server]) each.close()

process.on('exit', () => {
  const report = {
    before,
    after,
    upstreamConnections,
    inflight: stats.inflight,
    tunnels: stats.tunnels,
    goaway,
    same,
    listeners,
    outcomes: outcomes.sort(),
  }
  process.stdout.write(JSON.stringify(report))
})
