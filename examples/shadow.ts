/** Shadow traffic: a rewrite gets a copy of the requests, and its answers are compared with the real ones. Clients never notice it. */
import { type ShadowResult, shadow } from '@weir/balancer'
import { createProxy, ProxyError } from '@weir/core'
import { faults, testUpstream } from '@weir/testing'

await using current = await testUpstream({
  '/price': { headers: { 'X-Took': '12' }, body: '{"price":10,"at":"12:00:01"}' },
  '/stock': { body: '{"stock":3}' },
  '*': 'ok',
})
await using rewrite = await testUpstream({
  '/price': { headers: { 'X-Took': '7' }, body: '{"price":10,"at":"12:00:02"}' },
  '/stock': { status: 404, body: '{"error":"?"}' },
  '/slow': faults.stall(),
})

const results: ShadowResult[] = []
let wanted = { count: 0, resolve: (): void => {} }
const stage = shadow({
  upstreams: [rewrite.url],
  timeout: '200ms',
  // What is known to differ is evened out on both sides; what is left is news.
  ignoreHeaders: ['date', 'content-length', 'x-took'],
  normalise: (answer) => ({ ...answer, body: Buffer.from(answer.body.toString().replace(/"at":"[^"]*"/, '"at":"-"')) }),
  onResult: (result) => {
    results.push(result)
    if (results.length === wanted.count) wanted.resolve()
  },
})
await using proxy = createProxy({ upstreams: [current.url], use: [stage] })

async function ask(...paths: string[]): Promise<void> {
  const all = Promise.withResolvers<void>()
  wanted = { count: results.length + paths.length, resolve: all.resolve }
  for (const url of paths) {
    const from = performance.now()
    const { status } = await proxy.inject({ url })
    console.log(`client: ${url} ${status} in ${Math.round(performance.now() - from)} ms`)
  }
  await all.promise
}

await ask('/price', '/stock', '/slow')
await rewrite.kill()
await ask('/price')

for (const { url, shadow: answer, differences } of results) {
  const verdict = ProxyError.is(answer) ? `no answer: ${answer.code}` : differences.length === 0 ? 'the same' : 'different'
  console.log(`shadow: ${url} ${verdict}`, ...differences)
}
// Posts are not copied unless `methods` says so: a copied order is a second order.
await proxy.inject({ method: 'POST', url: '/orders', body: '{}' })
console.log(stage.stats())
