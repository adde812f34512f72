/** Active checks: a server whose health page fails is taken out before clients notice, and comes back gently (slow start). */
import { subscribe } from 'node:diagnostics_channel'
import { createProxy, type Upstream } from '@weir/core'
import { activeCheck, type ProbeMessage, slowStart } from '@weir/health'
import { testUpstream } from '@weir/testing'

await using a = await testUpstream({ '/healthz': { body: '{"status":"ok"}' }, '*': 'a' })
await using b = await testUpstream({ '/healthz': { body: '{"status":"ok"}' }, '*': 'b' })

const [down, up] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
subscribe('weir:upstream:state', (message) => {
  const { upstream, from, to, reason } = message as { upstream: Upstream; from: string; to: string; reason: string }
  console.log(`  ${upstream.id}: ${from} -> ${to}, ${reason}`)
  if (upstream.id === 'b' && to === 'down') down.resolve()
  if (upstream.id === 'b' && to === 'up') up.resolve()
})
subscribe('weir:health:probe', (message) => {
  const { upstream, error } = message as ProbeMessage
  if (error !== undefined) console.log(`  probe of ${upstream.id}: ${(error as Error).message}`)
})

await using proxy = createProxy({
  upstreams: [
    { id: 'a', url: a.url },
    { id: 'b', url: b.url },
  ],
  health: [
    // Scaled down to a demonstration: seconds are usual.
    activeCheck({ path: '/healthz', body: /"status":\s*"ok"/, interval: 50, edgeInterval: 20, rise: 2, fall: 2 }),
    slowStart({ window: '10s' }),
  ],
})
await proxy.start()
console.log('started:', proxy.health().status)

async function shares(title: string): Promise<void> {
  const answers: Record<string, number> = {}
  for (let i = 0; i < 100; i++) {
    const name = (await proxy.inject({ url: '/' })).text()
    answers[name] = (answers[name] ?? 0) + 1
  }
  console.log(title, answers)
}

await shares('both are well:')
// It goes on answering requests, but says that it should get none.
b.route('/healthz', { body: '{"status":"overloaded"}' })
await down.promise
await shares('b is out:')
b.route('/healthz', { body: '{"status":"ok"}' })
await up.promise
await shares('b is back, with a tenth of its share to begin with:')
console.log(proxy.health().pools[0]?.upstreams.map(({ id, state, weight, reason }) => `${id} ${state} ${weight}: ${reason}`))
