/** A canary: 10 % of the users get the new version, always the same ones; the share grows while traffic runs. */
import { trafficSplit } from '@weir/balancer'
import { createPool, createProxy } from '@weir/core'
import { outlierDetection } from '@weir/health'
import { testUpstream } from '@weir/testing'

await using one = await testUpstream({ '*': 'v1' })
await using two = await testUpstream({ '*': 'v2' })

// Each arm is a pool of its own, with health policies of its own: a bad canary does not spoil the statistics of the rest.
const stable = createPool({ name: 'stable', upstreams: [one.url], health: [outlierDetection()] })
const canary = createPool({ name: 'canary', upstreams: [two.url], health: [outlierDetection()] })
const traffic = trafficSplit({ key: ['cookie:uid', 'clientIp'], arms: { stable: 90, canary: 10 } })
await using proxy = createProxy({
  routes: [
    // Testers ask for it by name; a client can write this, so it is a wish and no secret.
    { name: 'wished', match: { header: { 'X-Version': 'v2' } }, pool: canary },
    { name: 'canary', match: traffic.is('canary'), pool: canary },
    { name: 'stable', pool: stable },
  ],
})

const users = Array.from({ length: 500 }, (_, i) => `user-${i}`)
async function versions(): Promise<Map<string, string>> {
  const seen = new Map<string, string>()
  for (const uid of users) seen.set(uid, (await proxy.inject({ url: '/', headers: { Cookie: `uid=${uid}` } })).text())
  return seen
}
const count = (seen: Map<string, string>): number => [...seen.values()].filter((version) => version === 'v2').length

const first = await versions()
console.log(`${count(first)} of ${users.length} users have v2`)
const again = await versions()
console.log(
  'and keep it:',
  users.every((uid) => first.get(uid) === again.get(uid)),
)

traffic.setWeights({ stable: 70, canary: 30 })
const more = await versions()
console.log(`at 30 %: ${count(more)}`)
console.log(
  'nobody had to go back:',
  users.every((uid) => first.get(uid) !== 'v2' || more.get(uid) === 'v2'),
)

console.log('a tester:', (await proxy.inject({ url: '/', headers: { 'X-Version': 'v2' } })).text())
traffic.setWeights({ canary: 0 })
console.log(`at 0 %: ${count(await versions())}`)

await proxy.close()
await Promise.all([stable.close(), canary.close()])
