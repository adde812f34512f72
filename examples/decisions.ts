/** Why did it go there? One record per pick, as JSON; and the same traffic played to another strategy. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { hash, leastConnections, roundRobin } from '@weir/balancer'
import { createProxy, type Decision } from '@weir/core'
import { type DecisionRecord, replayDecisions, testUpstream } from '@weir/testing'

const answer = (ms: number) => (_req: unknown, res: { end(text: string): unknown }) => void setTimeout(() => res.end('ok'), ms)
await using quick = await testUpstream(answer(2))
await using slow = await testUpstream(answer(12))
await using spare = await testUpstream(answer(2))

await using proxy = createProxy({
  upstreams: [
    { id: 'quick', url: quick.url },
    { id: 'slow', url: slow.url, maxConcurrent: 10 },
    { id: 'spare', url: spare.url, backup: true },
  ],
  balancer: roundRobin(),
})

// The fields of a request hold cookies and credentials: keep those that a strategy needs, and no others.
const lines: string[] = []
const write = (message: unknown): void => {
  const decision = message as Decision
  const user = decision.exchange.headers.get('x-user')
  const request = { ...decision.request, headers: user === undefined ? [] : ['x-user', user] }
  lines.push(JSON.stringify({ ...decision, request }))
}
subscribe('weir:decision', write)
const ask = (i: number) => proxy.inject({ url: `/${i}`, headers: { 'X-User': `user-${(i * i) % 37}` } })
for (let batch = 0; batch < 20; batch++) await Promise.all(Array.from({ length: 30 }, (_, i) => ask(batch * 30 + i)))
unsubscribe('weir:decision', write)

const records = lines.map((line) => JSON.parse(line) as DecisionRecord)
const full = records.find(({ candidates }) => candidates.some(({ excluded }) => excluded === 'full')) as DecisionRecord
console.log(`${records.length} decisions; in one of them, ${full.chosen} was chosen by the ${full.by}:`)
for (const { id, inflight, excluded } of full.candidates) console.log(`  ${id}: ${inflight} in flight, ${excluded ?? 'could be picked'}`)

for (const balancer of [roundRobin(), leastConnections(), hash({ key: 'header:x-user' })]) {
  const { asked, agreed, replayed } = replayDecisions(records, balancer)
  console.log(`${balancer.name}: decides ${agreed} of ${asked} alike,`, replayed.counts)
}
