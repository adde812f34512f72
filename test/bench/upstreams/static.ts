/** Stands in for nginx: answers every request with the same 1 KiB. With a number as argument it listens on so many ports. */
import { createServer } from 'node:http'

const body = 'x'.repeat(1024)
const count = Number(process.argv[2] ?? 1)

const ports = await Promise.all(
  Array.from({ length: count }, () => {
    const server = createServer({ keepAliveTimeout: 3_600_000 }, (_req, res) => {
      res.writeHead(200, ['Content-Type', 'text/plain', 'Content-Length', String(body.length)])
      res.end(body, 'latin1')
    })
    return new Promise<number>((resolve) => {
      server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => resolve((server.address() as { port: number }).port))
    })
  }),
)
process.once('disconnect', () => process.exit(0))
process.send?.({ port: ports[0], ports })
