/** Two workers of one cluster, one limit, no Redis: the numbers lie in the primary. */
import cluster from 'node:cluster'
import { fromPrimary, serveStores } from '@weir/cluster'
import { createProxy } from '@weir/core'
import { memoryStore, type RateLimitStore, rateLimit } from '@weir/rate-limit'
import { testUpstream } from '@weir/testing'

if (cluster.isPrimary) {
  const service = serveStores({ limits: memoryStore() })
  let [admitted, reports] = [0, 0]
  for (let i = 0; i < 2; i++)
    cluster.fork().on('message', (message: { admitted?: number }) => {
      if (message.admitted === undefined) return
      console.log(`a worker let ${message.admitted} of 6 requests through`)
      admitted += message.admitted
      if (++reports < 2) return
      console.log(`together: ${admitted}, and the limit is 5`)
      service.close()
      cluster.disconnect()
    })
} else {
  const store = fromPrimary<RateLimitStore>('limits', ['take', 'adjust'])
  await using service = await testUpstream({ '*': 'hello' })
  await using proxy = createProxy({
    upstreams: [service.url],
    use: [rateLimit({ limit: 5, window: '1m', key: () => 'everybody', store, storeTimeout: '5s' })],
  })
  const answers = await Promise.all(Array.from({ length: 6 }, () => proxy.inject({ url: '/' })))
  process.send?.({ admitted: answers.filter(({ status }) => status === 200).length })
  await store.close?.()
}
