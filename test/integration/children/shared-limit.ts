/**
 * One of several proxy processes that share a limit: sends so many requests at once through a proxy of its own and prints how many were let through.
 * Arguments: port of the Redis server, prefix, limit, requests.
 */
import { createProxy } from '@weir/core'
import { rateLimit } from '@weir/rate-limit'
import { fromIoredis, redisRateLimitStore } from '@weir/redis'
import { fakeTransport } from '@weir/testing'
import { Redis } from 'ioredis'

const [port, prefix, limit, requests] = process.argv.slice(2)
const redis = new Redis({ host: '127.0.0.1', port: Number(port) })
await new Promise((resolve) => redis.once('ready', resolve))
const proxy = createProxy({
  upstreams: ['http://app.test'],
  transport: fakeTransport(),
  use: [
    rateLimit({
      limit: Number(limit),
      window: '1h',
      algorithm: 'fixed-window',
      key: () => 'everybody',
      store: redisRateLimitStore({ client: fromIoredis(redis), prefix: prefix as string, timeout: '5s' }),
      storeTimeout: '6s',
      onStoreError: 'deny',
    }),
  ],
})
const answers = await Promise.all(Array.from({ length: Number(requests) }, () => proxy.inject({ url: '/' })))
const count = (wanted: number): number => answers.filter(({ status }) => status === wanted).length
await proxy.close()
redis.disconnect()
process.stdout.write(JSON.stringify({ admitted: count(200), refused: count(429), failed: count(503) }))
