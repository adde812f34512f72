/**
 * The demo: three backends of different speed, each a process of its own, a proxy in front, a little traffic, and a table that shows where it
 * goes. Kill a backend and watch: nobody's request fails, and when it is back it takes its share again. Ctrl-C drains.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { Agent, createServer, get } from 'node:http'
import { fileURLToPath } from 'node:url'
import { leastConnections } from '@weir/balancer'
import { createProxy } from '@weir/core'
import { Board } from './demo/board.ts'

const specs = [
  { name: 'a', latency: 3 },
  { name: 'b', latency: 10 },
  { name: 'c', latency: 30 },
]
const restartAfter = 6000
let stopping = false

async function startBackend(name: string, latency: number, port: number): Promise<{ child: ChildProcess; port: number }> {
  const child = fork(fileURLToPath(new URL('./demo/backend.ts', import.meta.url)), [name, String(latency), String(port)])
  const [message] = (await once(child, 'message')) as [{ port: number }]
  return { child, port: message.port }
}

const backends = await Promise.all(specs.map(async (spec) => ({ ...spec, ...(await startBackend(spec.name, spec.latency, 0)) })))
const upstreams = backends.map(({ name, port }) => ({ id: name, url: `http://127.0.0.1:${port}` }))
const proxy = createProxy({ upstreams, balancer: leastConnections() })
const server = proxy.attach(createServer())
server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1')
const listening = await Promise.race([once(server, 'listening').then(() => true), once(server, 'error').then(() => false)])
if (!listening) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
}
const origin = `http://127.0.0.1:${(server.address() as { port: number }).port}`
const board = new Board(proxy, new Map(specs.map(({ name, latency }) => [name, `${name} (${latency} ms)`])))

// A backend that dies is started again on its port, as a supervisor would.
function watch(index: number): void {
  const backend = backends[index] as (typeof backends)[number]
  const comeBack = async (): Promise<void> => {
    if (stopping) return
    board.note(`\nbackend ${backend.name} is gone; it comes back in ${restartAfter / 1000} s`)
    await new Promise((resolve) => setTimeout(resolve, restartAfter))
    if (stopping) return
    backend.child = (await startBackend(backend.name, backend.latency, backend.port)).child
    board.note(`\nbackend ${backend.name} is back, kill it again: kill -9 ${backend.child.pid}`)
    watch(index)
  }
  backend.child.once('exit', () => void comeBack())
}
for (const index of backends.keys()) watch(index)

const line = (label: string, text: string): string => `  ${label.padEnd(34)}${text}`
console.log(`Weir demo on ${origin}\n`)
console.log(line('a request', `curl -i ${origin}/hello`))
console.log(line('an event stream', `curl -N ${origin}/events`))
console.log(line('a WebSocket and the stream, live', `open ${origin}/ in a browser`))
console.log(line('load', `npx autocannon -c 50 -d 10 ${origin}/hello`))
for (const { name, child } of backends) console.log(line(`kill backend ${name} (back after 6 s)`, `kill -9 ${child.pid}`))
console.log(line('drain and end', 'Ctrl-C'))

// About a hundred requests a second, so that the table moves without anybody's doing.
const agent = new Agent({ keepAlive: true, maxSockets: 16 })
const traffic = setInterval(() => {
  board.clientRequests++
  const failed = (): void => void board.clientErrors++
  get(`${origin}/hello`, { agent }, (res) => res.resume().statusCode === 200 || failed()).on('error', failed)
}, 10)
const drawing = setInterval(() => board.draw(), 1000)

async function end(): Promise<void> {
  if (stopping) return
  stopping = true
  clearInterval(traffic)
  clearInterval(drawing)
  board.note(`\ndraining: ${proxy.stats().inflight} exchanges and ${proxy.stats().tunnels} tunnels have 3 s`)
  server.close()
  await proxy.close({ deadline: '3s' })
  board.stop()
  agent.destroy()
  for (const { child } of backends) child.kill()
  console.log('drained')
}
process.on('SIGINT', () => void end())
process.on('SIGTERM', () => void end())
