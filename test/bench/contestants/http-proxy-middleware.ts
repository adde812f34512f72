/** http-proxy-middleware, mounted without a framework (its leanest way) and with an agent that keeps connections. */
import { Agent, createServer } from 'node:http'
import { createProxyMiddleware } from 'http-proxy-middleware'
import { serve, upstream } from './serve.ts'

const middleware = createProxyMiddleware({ target: upstream, agent: new Agent({ keepAlive: true, maxFreeSockets: 2048 }) })
serve(createServer((req, res) => void middleware(req, res, () => res.destroy())))
