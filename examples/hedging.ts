/** Hedging: a request that takes long is sent to a second server as well, and the first answer wins. Four in a hundred are slow here. */
import { roundRobin } from '@weir/balancer'
import { createProxy, type Outcome, type RetryOptions } from '@weir/core'
import { testUpstream } from '@weir/testing'

/** Every twenty-fifth request takes 150 ms, on each server at another time: a pause, not an overload. */
function hiccups(count: number) {
  return testUpstream((_req, res) => void setTimeout(() => res.end('ok'), ++count % 25 === 0 ? 150 : 2))
}
await using a = await hiccups(0)
await using b = await hiccups(8)
await using c = await hiccups(16)
const upstreams = [a.url, b.url, c.url]

async function run(title: string, retry: RetryOptions): Promise<void> {
  let tries = 0
  const lost: string[] = []
  const watch = {
    onFinish({ attempts }: Outcome): void {
      tries += attempts.length
      for (const { error } of attempts) if (error !== undefined) lost.push(error.code)
    },
  }
  await using proxy = createProxy({ upstreams, balancer: roundRobin(), retry, use: [() => watch] })
  const times: number[] = []
  for (let i = 0; i < 300; i++) {
    const from = performance.now()
    await proxy.inject({ url: '/' })
    times.push(performance.now() - from)
  }
  times.sort((x, y) => x - y)
  const at = (share: number): string => `${Math.round(times[Math.floor(times.length * share)] as number)} ms`
  console.log(
    `${title}: p50 ${at(0.5)}, p95 ${at(0.95)}, p99 ${at(0.99)}; ${tries} tries for ${times.length} requests; failed tries:`,
    new Set(lost),
  )
}

await run('without', {})
// Near the 95th percentile of what the servers take. The budget keeps hedges at 10 % of the requests (default: 5 %).
await run('hedged ', { hedge: { after: '20ms', budget: { ratio: 0.1 } } })

// A request that must not be processed twice is never hedged, however slow it is.
await using slow = await testUpstream((_req, res) => void setTimeout(() => res.end('stored'), 60))
await using proxy = createProxy({ upstreams: [slow.url, a.url], balancer: roundRobin(), retry: { hedge: { after: 10 } } })
for (let i = 0; i < 4; i++) await proxy.inject({ method: 'POST', url: '/orders', body: '{}' })
console.log('POSTs seen by both servers together:', slow.count() + a.requests.filter(({ method }) => method === 'POST').length)
