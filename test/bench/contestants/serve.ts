/** What every Node contestant has in common: it listens on a port of its own, says which, and ends when whoever started it is gone. */
import type { Server } from 'node:net'

/** URLs of the upstreams, from the command line. */
export const upstreams: readonly string[] = process.argv.slice(2).filter((argument) => argument.startsWith('http://'))
export const upstream: string = upstreams[0] ?? 'http://127.0.0.1:1'

export function serve(server: Server): void {
  process.once('disconnect', () => process.exit(0))
  // Asked before memory is read (the process then runs with --expose-gc): what is left afterwards is held, not garbage.
  process.on('message', () => {
    for (let i = 0; i < 3; i++) globalThis.gc?.()
    const { heapUsed, external } = process.memoryUsage()
    process.send?.({ held: heapUsed + external })
  })
  // The backlog lets a wave of hundreds of connections in without SYN retries, which would be measured as a slow proxy.
  server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
    process.send?.({ port: (server.address() as { port: number }).port })
  })
}
