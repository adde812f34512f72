/** A server dies under load: no GET fails, the dead one is set aside after a few failures, and comes back by itself. */
import { channel } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy, failureMemory, type Outcome } from '@weir/core'
import { testUpstream } from '@weir/testing'

await using a = await testUpstream({ '*': 'a' }, { name: 'a' })
await using b = await testUpstream({ '*': 'b' }, { name: 'b' })

let tries = 0
const count = {
  onFinish(outcome: Outcome): void {
    tries += outcome.attempts.length
  },
}
await using proxy = createProxy({
  upstreams: [
    { id: 'a', url: a.url },
    { id: 'b', url: b.url },
  ],
  health: [failureMemory({ failures: 3, penalty: '200ms' })],
  use: [() => count],
})
const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
await once(server, 'listening')
const { port } = server.address() as AddressInfo

const stateChanges = channel('weir:upstream:state')
const back = Promise.withResolvers<void>()
stateChanges.subscribe((message) => {
  const { upstream, from, to, reason } = message as { upstream: { id: string }; from: string; to: string; reason: string }
  console.log(`  ${upstream.id}: ${from} -> ${to} (${reason})`)
  if (to === 'up') back.resolve()
})

async function load(requests: number): Promise<void> {
  tries = 0
  const answers = { a: 0, b: 0, failed: 0 }
  for (let i = 0; i < requests; i++) {
    const response = await fetch(`http://127.0.0.1:${port}/`)
    const name = await response.text()
    answers[response.ok ? (name as 'a' | 'b') : 'failed']++
  }
  console.log(requests, 'requests,', tries, 'tries:', answers)
}

await load(20)
await a.kill()
await load(20)
await a.restart()
await back.promise
await load(20)
server.close()
