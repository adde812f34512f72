/**
 * Run by lifecycle.test.ts with `--expose-gc`: creates, uses and closes a thousand proxies on one server and prints as JSON what the process held
 * before and after: handles, timers, listeners of every emitter that an embedder shares, and the proxies themselves.
 */
import { createHook } from 'node:async_hooks'
import { channel } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { createProxy, failureMemory, httpProxyTransport, undiciTransport } from '../../../packages/core/src/index.ts'

const rounds = Number(process.argv[2])
const timers = new Set<number>()
createHook({
  init: (id, type) => {
    if (type === 'Timeout') timers.add(id)
  },
  destroy: (id) => void timers.delete(id),
}).enable()

const upstream = createServer((req, res) => {
  if (req.url !== '/reset') res.end('fine')
  else req.socket.resetAndDestroy()
})
upstream.on('upgrade', (_req, socket) => {
  socket.on('error', () => {})
  socket.on('end', () => socket.end()).resume()
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
})
const server = createServer()
for (const each of [upstream, server]) {
  each.listen(0, '127.0.0.1')
  await once(each, 'listening')
}
const portOf = (given: Server): number => (given.address() as AddressInfo).port
const url = `http://127.0.0.1:${portOf(upstream)}`

const statuses = new Set<string>()

/** One request on a connection of its own; resolves when both are over. */
async function ask(lines: string): Promise<void> {
  const client = connect(portOf(server), '127.0.0.1')
  client.on('error', () => {})
  client.write(lines)
  const [first] = (await once(client, 'data')) as [Buffer]
  statuses.add(`${lines.split(' HTTP', 1)[0]}: ${first.toString().slice(9, 12)}`)
  client.resume()
  if (lines.includes('websocket')) client.end()
  await once(client, 'close')
}

const alive: WeakRef<object>[] = []
async function round(i: number): Promise<void> {
  const transport = i % 3 === 0 ? httpProxyTransport() : i % 3 === 1 ? undiciTransport() : undefined
  const proxy = createProxy({
    upstreams: [url, { url: `${url}/base`, backup: true }],
    health: [failureMemory({ failures: 1, penalty: '1h' })],
    timeouts: { total: '1h', head: '1h', idle: '1h', tunnelIdle: '1h' },
    use: [
      {
        name: 'background',
        handle: (exchange) => ({ onFinish: () => void exchange.signal.aborted }),
        start: ({ signal }) => signal.addEventListener('abort', () => {}),
        close() {},
      },
    ],
    ...(transport === undefined ? null : { transport }),
  })
  alive.push(new WeakRef(proxy))
  proxy.attach(server)
  await proxy.start()
  // Every tenth does some work of each kind; the others come and go.
  if (i % 10 === 0) {
    await ask('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    await ask('GET /reset HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    await ask('POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi')
    await ask('GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
  }
  await proxy.close()
  await transport?.close?.()
}

const events = ['request', 'checkContinue', 'upgrade', 'connect', 'session', 'connection', 'close', 'clientError']
const channels = ['exchange:start', 'exchange:finish', 'attempt:finish', 'upstream:state', 'tunnel:close']
async function held(): Promise<Record<string, unknown>> {
  // What closes in the background may do so; what never closes is what we look for.
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => setTimeout(resolve, 100))
    ;(globalThis as { gc?: () => void }).gc?.()
  }
  const connections = await new Promise<number>((resolve) => upstream.getConnections((_error, count) => resolve(count)))
  return {
    handles: process
      .getActiveResourcesInfo()
      .filter((name) => !/^(Pipe|TTY|File|FS|Immediate|Tick)/.test(name))
      .sort(),
    connections,
    timers: timers.size,
    process: process
      .eventNames()
      .map((name) => `${String(name)} ${process.listenerCount(name)}`)
      .sort(),
    server: events.map((name) => `${name} ${server.listenerCount(name)}`),
    channels: channels.map((name) => channel(`weir:${name}`).hasSubscribers),
    proxies: alive.filter((ref) => ref.deref() !== undefined).length,
  }
}

// Once for whatever is made on first use and kept for good.
for (let i = 0; i < 30; i++) await round(i)
const before = await held()
for (let i = 0; i < rounds; i++) await round(i)
const after = await held()
server.close()
upstream.close()
process.on('exit', () => process.stdout.write(JSON.stringify({ before, after, statuses: [...statuses].sort() })))
