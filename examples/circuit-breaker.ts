/** A circuit breaker: when what is tried fails, clients get a 503 at once instead of a timeout later; a few trials find out when it is over. */
import { subscribe } from 'node:diagnostics_channel'
import { createProxy } from '@weir/core'
import { type BreakerMessage, circuitBreaker } from '@weir/health'
import { faults, testUpstream } from '@weir/testing'

await using service = await testUpstream({ '*': 'fine' })

const waiting = new Map<string, () => void>()
const entered = (state: string): Promise<void> => new Promise((resolve) => waiting.set(state, resolve))
subscribe('weir:health:breaker', (message) => {
  const { from, to, reason } = message as BreakerMessage
  console.log(`  circuit ${from} -> ${to}: ${reason}`)
  waiting.get(to)?.()
})

await using proxy = createProxy({
  upstreams: [service.url],
  timeouts: { head: '100ms' },
  retry: false,
  // Scaled down: by default it is open for 5 s at first, and traffic grows back over 10 s.
  health: [circuitBreaker({ errorRatio: { threshold: 0.5, minRequests: 10 }, open: 1000, trials: 2, recovery: 100 })],
})

async function ask(title: string, requests: number): Promise<void> {
  const from = performance.now()
  const answers: Record<string, number> = {}
  for (let i = 0; i < requests; i++) {
    const { status, headers } = await proxy.inject({ url: '/' })
    const code = /details="(\w+)"/.exec(headers.get('proxy-status') ?? '')?.[1]
    const key = code === undefined ? String(status) : `${status} ${code}`
    answers[key] = (answers[key] ?? 0) + 1
  }
  console.log(title, answers, `${((performance.now() - from) / requests).toFixed(1)} ms each`)
}

await ask('all is well:', 5)
service.route('*', faults.stall())
await ask('what is behind it hangs:', 6)
const halfOpen = entered('half-open')
const before = service.count()
await ask('the circuit is open:', 20)
console.log('of these the service saw', service.count() - before)

service.route('*', 'fine')
const closed = entered('closed')
await halfOpen
await ask('trials:', 2)
await closed
await ask('closed again:', 20)
