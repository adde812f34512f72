/** Watching a proxy from outside through `node:diagnostics_channel`: no stage, no cost while nobody listens. */
import { subscribe } from 'node:diagnostics_channel'
import { type AttemptOutcome, createProxy, type Exchange, type Outcome, type Upstream } from '@weir/core'
import { faults, refusedPort, testUpstream } from '@weir/testing'

const ms = (value: number | undefined): string => (value === undefined ? '-' : `${value.toFixed(1)} ms`)

subscribe('weir:attempt:finish', (message) => {
  const { attempt } = message as { exchange: Exchange; attempt: AttemptOutcome }
  const { number, upstream, status, error, connectMs, headMs, durationMs, reused } = attempt
  console.log(
    `  try ${number} at ${upstream.id}: ${status ?? error?.code}, connect ${reused ? 'reused' : ms(connectMs)}, head ${ms(headMs)}, total ${ms(durationMs)}`,
  )
})
subscribe('weir:exchange:finish', (message) => {
  const { exchange, outcome } = message as { exchange: Exchange; outcome: Outcome }
  console.log(
    `${exchange.method} ${exchange.url} -> ${outcome.status} ${outcome.reason}, ${outcome.bytesOut} bytes in ${ms(outcome.durationMs)}`,
  )
})
subscribe('weir:upstream:state', (message) => {
  const { pool, upstream, from, to, reason } = message as { pool: string; upstream: Upstream; from: string; to: string; reason: string }
  console.log(`  ${pool}/${upstream.id} ${from} -> ${to}: ${reason}`)
})

await using dead = await refusedPort()
await using service = await testUpstream({
  '/': 'hello',
  '/slow': faults.stall(),
  '/cut': faults.resetAt(1000),
})
await using proxy = createProxy({
  name: 'edge',
  upstreams: [
    { id: 'dead', url: dead.url },
    { id: 'live', url: service.url },
  ],
  timeouts: { head: '100ms' },
})

for (let i = 0; i < 6; i++) await proxy.inject({ url: '/' })
const slow = await proxy.inject({ url: '/slow' })
console.log('the client is told:', slow.status, slow.headers.get('proxy-status'))
await proxy.inject({ url: '/cut' }).catch((error: Error) => console.log('the client sees:', error.message))
console.log(proxy.stats())
