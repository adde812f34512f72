/** The inbound floor: node:http answering by itself. What a proxied request costs above this is the upstream's side. */
import { createServer } from 'node:http'
import { serve } from './serve.ts'

const body = 'x'.repeat(1024)

serve(
  createServer((_req, res) => {
    res.writeHead(200, ['Content-Type', 'text/plain', 'Content-Length', String(body.length)])
    res.end(body, 'latin1')
  }),
)
