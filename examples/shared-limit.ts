/** Two proxies, one limit: what one admits, the other does not admit again. */
// needs: redis-server
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { createProxy } from '@weir/core'
import { rateLimit } from '@weir/rate-limit'
import { fromIoredis, redisRateLimitStore } from '@weir/redis'
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

await using service = await testUpstream({ '*': 'hello' })
const proxies = [1, 2].map(() =>
  createProxy({
    upstreams: [service.url],
    // In earnest each proxy is a process of its own, with a client of its own.
    use: [rateLimit({ limit: 5, window: '1m', key: () => 'everybody', store: redisRateLimitStore({ client: fromIoredis(redis) }) })],
  }),
)

const answers = await Promise.all([0, 1, 0, 1, 0, 1, 0, 1].map(async (which) => proxies[which]?.inject({ url: '/' })))
console.log('of eight requests at once over two proxies:')
for (const status of [200, 429]) console.log(`  ${status}: ${answers.filter((answer) => answer?.status === status).length}`)

for (const proxy of proxies) await proxy.close()
redis.disconnect()
server.kill()
