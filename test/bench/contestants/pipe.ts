/** The floor for bytes in bulk and for tunnels: two sockets and two pipes, no HTTP at all. */
import { connect, createServer } from 'node:net'
import { serve, upstream } from './serve.ts'

const { hostname, port } = new URL(upstream)

serve(
  createServer({ noDelay: true }, (client) => {
    const server = connect({ host: hostname, port: Number(port), noDelay: true })
    client.pipe(server).pipe(client)
    client.on('error', () => server.destroy())
    server.on('error', () => client.destroy())
    client.on('close', () => server.destroy())
    server.on('close', () => client.destroy())
  }),
)
