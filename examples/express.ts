/** Inside an Express application: some paths are the application's own, the others go to a service. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createProxy } from '@weir/core'
import { type Echo, echo, testUpstream } from '@weir/testing'
import express from 'express'

await using service = await testUpstream(echo())

// The match is by the whole path, because `upgrade` events do not pass through Express and are never cut to a mount path.
await using proxy = createProxy({
  routes: [{ match: { path: '/api' }, stripPrefix: true, pool: { upstreams: [service.url] } }],
})

const app = express()
app.use(express.json()) // In front of the proxy: Weir writes the parsed body again.
app.get('/health', (_req, res) => void res.json({ healthy: true }))
app.use(proxy) // Takes /api, calls `next` for everything else.
app.use((_req, res) => void res.status(404).json({ error: 'not found' }))

const server = app.listen(0, '127.0.0.1')
server.on('upgrade', proxy.upgrade) // WebSockets under /api
await once(server, 'listening')
const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

console.log('own route:', await (await fetch(`${base}/health`)).json())
const posted = await fetch(`${base}/api/orders?urgent=1`, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ item: 'weir', count: 2 }),
})
const { method, url, body } = (await posted.json()) as Echo
console.log('proxied:', method, url, body)
console.log('neither:', (await fetch(`${base}/elsewhere`)).status)

server.close()
