/** fast-proxy; with `undici` its undici mode (a `Pool`, as many connections as asked for), else its own keep-alive agent. */
import { createServer } from 'node:http'
import fastProxy from 'fast-proxy'
import { serve, upstream } from './serve.ts'

const undici = process.argv.includes('undici') ? { undici: { connections: 1024, pipelining: 1 } } : {}
const { proxy } = fastProxy({ base: upstream, ...undici })
serve(createServer((req, res) => proxy(req, res, req.url as string, {})))
