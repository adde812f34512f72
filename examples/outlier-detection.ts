/** Outlier detection: a server that says it is well and fails real requests is set aside, longer each time; the health page is not asked. */
import { subscribe } from 'node:diagnostics_channel'
import { createProxy } from '@weir/core'
import { type OutlierMessage, outlierDetection } from '@weir/health'
import { testUpstream } from '@weir/testing'

await using a = await testUpstream({ '*': 'a' }, { name: 'a' })
await using b = await testUpstream({ '*': 'b' }, { name: 'b' })
await using c = await testUpstream({ '*': { status: 503, body: 'the database is gone' } }, { name: 'c' })

subscribe('weir:health:outlier', (message) => {
  const { upstream, cause, value, threshold, ejected, ejectedMs } = message as OutlierMessage
  console.log(`  ${upstream.id}: ${cause}, ${value} of ${threshold}: ${ejected ? `out for ${Math.round(ejectedMs)} ms` : 'stays'}`)
})
const back = { resolve: (): void => {} }
subscribe('weir:upstream:state', (message) => {
  if ((message as { to: string }).to === 'up') back.resolve()
})

await using proxy = createProxy({
  upstreams: [
    { id: 'a', url: a.url },
    { id: 'b', url: b.url },
    { id: 'c', url: c.url },
  ],
  // Scaled down: the first ejection is 30 s by default. A tenth of the pool may be out at a time, and one always may.
  health: [outlierDetection({ gatewayErrors: 3, baseEjection: 200 })],
})

async function load(requests: number): Promise<void> {
  const answers: Record<string, number> = {}
  for (let i = 0; i < requests; i++) {
    const { status, headers } = await proxy.inject({ url: '/' })
    const key = `${headers.get('x-upstream')} ${status}`
    answers[key] = (answers[key] ?? 0) + 1
  }
  console.log(answers)
}

// Three answers of 503 in a row, and the rest of the traffic is spared.
const first = Promise.withResolvers<void>()
back.resolve = first.resolve
await load(60)
console.log(
  'health:',
  proxy.health().pools[0]?.upstreams.map(({ id, state, reason }) => `${id} ${state} ${reason ?? ''}`.trim()),
)

// It is taken back without a question, fails again, and is out for twice as long.
await first.promise
const second = Promise.withResolvers<void>()
back.resolve = second.resolve
await load(60)

// It is repaired in time for the next one.
c.route('*', 'c')
await second.promise
await load(60)
