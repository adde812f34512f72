/** Answers `/o/<id>` with as many bytes as the trace gives that resource, for an hour; says how often it was asked. */
import { createServer } from 'node:http'
import { sizeOf } from '../zipf.ts'

const bytes = Buffer.alloc(65_536, 'x')
let requests = 0
const server = createServer({ keepAliveTimeout: 3_600_000 }, (req, res) => {
  requests++
  const size = sizeOf(Number(req.url?.slice(3)))
  res.writeHead(200, ['Content-Type', 'text/plain', 'Cache-Control', 'max-age=3600', 'Content-Length', String(size)])
  res.end(bytes.subarray(0, size))
})
process.once('disconnect', () => process.exit(0))
process.on('message', () => process.send?.({ requests }))
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => process.send?.({ port: (server.address() as { port: number }).port }))
