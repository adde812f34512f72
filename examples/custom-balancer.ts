/** A strategy of your own: told about membership in `update`, asked in `pick`. Here: the fastest server, now and then another to learn. */
import { type Balancer, createProxy, isPickable, type Upstream } from '@weir/core'
import { balancerConformance, faults, testUpstream } from '@weir/testing'

/** @param explore share of picks that go to anybody, from 0 to 1 @param random numbers from 0 to 1 */
function fastest(explore: number, random: () => number = Math.random): Balancer {
  let available: readonly Upstream[] = []
  return {
    name: 'fastest',
    update(upstreams) {
      available = upstreams
    },
    // Runs for every attempt: no allocation, no promise. `isPickable` leaves out who is full, and who was tried before.
    pick(exchange) {
      const start = Math.floor(random() * available.length)
      const exploring = random() < explore
      let best: Upstream | undefined
      for (let i = 0; i < available.length; i++) {
        const upstream = available[(start + i) % available.length] as Upstream
        if (!isPickable(upstream, exchange)) continue
        if (exploring) return upstream
        if (best === undefined || upstream.latencyMs < best.latencyMs) best = upstream
      }
      return best
    },
  }
}

// The suite that every strategy of Weir passes runs on yours too. A strategy that ignores weights says so with a wide `deviation`.
const suite = balancerConformance('fastest', ({ random }) => fastest(0.1, random), {
  deviation: (_expected, picks) => picks,
  load: 'ignored',
})
for (const { run } of suite) await run()
console.log(`${suite.length} conformance cases passed`)

await using quick = await testUpstream({ '*': 'quick' })
await using slow = await testUpstream({ '*': faults.stall(20, 'slow') })
await using proxy = createProxy({
  upstreams: [
    { id: 'quick', url: quick.url },
    { id: 'slow', url: slow.url },
  ],
  balancer: fastest(0.1),
})
for (let i = 0; i < 50; i++) await proxy.inject({ url: '/' })
console.log('quick:', quick.count(), 'slow:', slow.count())
