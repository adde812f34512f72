/** http-proxy-3 with an agent that keeps connections: how its documentation says to run it under load. `default` leaves the agent out. */
import { Agent, createServer } from 'node:http'
import { createProxyServer } from 'http-proxy-3'
import { serve, upstream } from './serve.ts'

const agent = process.argv.includes('default') ? undefined : new Agent({ keepAlive: true, maxFreeSockets: 2048 })
const proxy = createProxyServer({ target: upstream, ws: true, ...(agent && { agent }) })
proxy.on('error', (_error, _req, res) => res?.destroy())

const server = createServer((req, res) => proxy.web(req, res))
server.on('upgrade', (req, socket, head) => proxy.ws(req, socket, head))
serve(server)
