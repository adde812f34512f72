/** One backend of the demo, a process of its own: a page, JSON, an event stream and a WebSocket echo, each after this backend's own latency. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocketServer } from 'ws'
import { page } from './page.ts'

const [name = 'a', latency = '5', port = '0'] = process.argv.slice(2)

const server = createServer((req, res) => {
  sleep(Number(latency) * (0.75 + Math.random() / 2)).then(
    () => answer(req, res),
    () => res.destroy(),
  )
})

function answer(req: IncomingMessage, res: ServerResponse): void {
  if (req.url === '/events') {
    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    const timer = setInterval(() => res.write(`data: ${JSON.stringify({ backend: name, time: new Date().toISOString() })}\n\n`), 500)
    res.on('close', () => clearInterval(timer))
    return
  }
  if (req.url === '/') {
    res.setHeader('content-type', 'text/html; charset=utf-8')
    res.end(page)
    return
  }
  res.setHeader('content-type', 'application/json')
  res.end(`${JSON.stringify({ backend: name, pid: process.pid, path: req.url, client: req.headers['x-forwarded-for'] })}\n`)
}

const sockets = new WebSocketServer({ server })
sockets.on('connection', (socket) => socket.on('message', (message) => socket.send(`${name}: ${message}`)))

server.listen(Number(port), '127.0.0.1', () => process.send?.({ port: (server.address() as { port: number }).port }))
process.on('disconnect', () => process.exit(0))
// Ctrl-C reaches every process of the terminal; the proxy needs its backends to drain, and ends them afterwards.
process.on('SIGINT', () => {})
