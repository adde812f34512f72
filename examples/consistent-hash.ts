/** The same key to the same server: what moves when a server leaves, and what a bound on load does with a key that is hot. */
import { boundedLoad, hash } from '@weir/balancer'
import { type Balancer, createProxy } from '@weir/core'
import { faults, testUpstream } from '@weir/testing'

const names = ['a', 'b', 'c', 'd']
const servers = await Promise.all(names.map((name) => testUpstream({ '/hot': faults.stall(30, name), '*': name })))
const upstreams = servers.map(({ url }, i) => ({ id: names[i] as string, url }))
const rooms = Array.from({ length: 400 }, (_, i) => `room-${i}`)

function proxyWith(balancer: Balancer) {
  return createProxy({ upstreams, balancer })
}

await using proxy = proxyWith(hash({ key: 'header:x-room' }))
async function places(): Promise<string[]> {
  const seen: string[] = []
  for (const room of rooms) seen.push((await proxy.inject({ url: '/', headers: { 'X-Room': room } })).text())
  return seen
}
const counts = (seen: string[]): Record<string, number> =>
  Object.fromEntries(names.map((name) => [name, seen.filter((found) => found === name).length]))

const before = await places()
console.log('rooms per server:', counts(before))

await proxy.pool?.drain('d')
const without = await places()
const moved = rooms.filter((_, i) => before[i] !== without[i]).length
console.log(
  `d leaves: ${moved} rooms move, all of them from d:`,
  rooms.every((_, i) => before[i] === without[i] || before[i] === 'd'),
)
proxy.pool?.undrain('d')
const after = await places()
console.log(
  'd is back, and has its rooms again:',
  rooms.every((_, i) => before[i] === after[i]),
)

/** Forty requests of one room at once. */
async function hot(balancer: Balancer): Promise<Record<string, number>> {
  await using crowded = proxyWith(balancer)
  const ask = async () => (await crowded.inject({ url: '/hot', headers: { 'X-Room': 'everybody' } })).text()
  return counts(await Promise.all(Array.from({ length: 40 }, ask)))
}
console.log('one hot room, by hash alone:    ', await hot(hash({ key: 'header:x-room' })))
console.log('one hot room, with bounded load:', await hot(boundedLoad(hash({ key: 'header:x-room' }), { factor: 1.25 })))

await Promise.all(servers.map((server) => server.close()))
