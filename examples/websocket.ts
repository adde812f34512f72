/** WebSockets: same routes, same stages, same balancing as requests up to the 101; a counted tunnel after it. */
import { channel } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy, type Stage } from '@weir/core'
import { WebSocket, WebSocketServer } from 'ws'

const upstream = createServer().listen(0, '127.0.0.1')
new WebSocketServer({ server: upstream }).on('connection', (socket) => {
  socket.on('message', (data) => socket.send(`echo: ${data}`))
})
await once(upstream, 'listening')

/** A stage refuses an upgrade as it refuses a request: with an ordinary answer. */
const token: Stage = {
  name: 'token',
  handle: (exchange) => (exchange.headers.get('x-token') === 'good' ? undefined : { status: 403, body: 'no' }),
}

const proxy = createProxy({
  upstreams: [`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`],
  timeouts: { tunnelIdle: '1m' },
  use: [token],
})
const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/chat`

channel('weir:tunnel:close').subscribe((message) => {
  const { bytesIn, bytesOut, reason } = message as { bytesIn: number; bytesOut: number; reason: string }
  console.log(`tunnel closed: ${bytesIn} bytes in, ${bytesOut} bytes out, ${reason}`)
})

const refused = new WebSocket(url)
const [, response] = (await once(refused, 'unexpected-response')) as [unknown, IncomingMessage]
console.log('without token:', response.statusCode)
refused.on('error', () => {}).terminate()

const client = new WebSocket(url, { headers: { 'X-Token': 'good' } })
await once(client, 'open')
client.send('hello')
const [data] = (await once(client, 'message')) as [Buffer]
console.log(data.toString(), '- open tunnels:', proxy.stats().tunnels)

client.close()
await once(client, 'close')
server.close()
await proxy.close() // waits for tunnels that are still open, up to its deadline
upstream.close()
