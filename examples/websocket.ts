/** WebSockets: same routes, same stages, same balancing as requests up to the 101; a counted tunnel after it. */
import { channel } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy, type Stage } from '@weir/core'
import { WebSocketServer } from 'ws'

const upstream = createServer().listen(0, '127.0.0.1')
const sockets = new WebSocketServer({ server: upstream })
sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(`echo: ${data}`)))
await once(upstream, 'listening')

/** A stage refuses an upgrade as it refuses a request: with an ordinary answer. */
const onlyOwnOrigin: Stage = {
  name: 'origin',
  handle(exchange) {
    if (exchange.kind === 'upgrade' && exchange.headers.get('x-token') !== 'good') return { status: 403, body: 'no' }
  },
}

await using proxy = createProxy({
  upstreams: [`http://127.0.0.1:${(upstream.address() as AddressInfo).port}`],
  timeouts: { tunnelIdle: '1m' },
  use: [onlyOwnOrigin],
})
const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/chat`
