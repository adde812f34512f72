/** Two proxies, one cache: what one has fetched, the other serves; what one invalidates, is gone for both. */
// needs: redis-server
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { responseCache } from '@weir/cache'
import { createProxy } from '@weir/core'
import { fromIoredis, redisCacheStore } from '@weir/redis'
import { testUpstream } from '@weir/testing'
import { Redis } from 'ioredis'

// A server of our own, on a port that is free.
const probe = createServer().listen(0, '127.0.0.1')
await once(probe, 'listening')
const { port } = probe.address() as { port: number }
probe.close()
const server = spawn('redis-server', ['--port', String(port), '--save', ''], { stdio: 'ignore' })

const redis = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 50 })
redis.on('error', () => {}) // it is still starting
await new Promise((resolve) => redis.once('ready', resolve))

let prices = 0
await using shop = await testUpstream({
  '*': (_req, res) => {
    prices++
    res.writeHead(200, { 'Cache-Control': 'max-age=600', 'Cache-Tag': 'prices' })
    res.end(`price list ${prices}`)
  },
})
const nodes = [1, 2].map(() => {
  // In earnest each proxy is a process of its own, with a client of its own.
  const cache = responseCache({ store: redisCacheStore({ client: fromIoredis(redis) }) })
  return { cache, proxy: createProxy({ upstreams: [shop.url], use: [cache] }) }
})

const url = 'http://shop.example/prices'
const ask = async (node: number): Promise<string> => {
  const answer = await nodes[node]?.proxy.inject({ url: '/prices', headers: { Host: 'shop.example' } })
  return `proxy ${node + 1}: ${String(answer?.body)} (${answer?.headers.get('cache-status')})`
}
console.log(await ask(0))
// It is stored while its client has it already.
while ((await nodes[1]?.cache.get(url)) === undefined) await ask(0)
console.log(await ask(1))
console.log('invalidated:', await nodes[1]?.cache.invalidateTag('prices'))
console.log(await ask(0))

for (const { proxy } of nodes) await proxy.close()
redis.disconnect()
server.kill()
