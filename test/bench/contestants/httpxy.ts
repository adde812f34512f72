/** httpxy with an agent that keeps connections. */
import { Agent, createServer } from 'node:http'
import { createProxyServer } from 'httpxy'
import { serve, upstream } from './serve.ts'

const proxy = createProxyServer({ target: upstream, agent: new Agent({ keepAlive: true, maxFreeSockets: 2048 }) })
proxy.on('error', (_error, _req, res) => res?.destroy())
serve(createServer((req, res) => void proxy.web(req, res)))
