/** Rate limits: two at once, told to the client in fields; a cost that is known only afterwards; and a ban for whoever does not stop. */
import { createProxy } from '@weir/core'
import { banList, rateLimit } from '@weir/rate-limit'
import { testUpstream } from '@weir/testing'

await using service = await testUpstream({
  '/cheap': { headers: { 'X-Rows': '1' }, body: 'one row' },
  '/dear': { headers: { 'X-Rows': '40' }, body: 'forty rows' },
})

const bans = banList()
const limits = rateLimit({
  limits: [
    // At most 5 at one moment, and 5 per second from then on.
    { name: 'burst', limit: 5, window: '1s' },
    // 100 rows per hour. What a query costs is known when the service has answered it.
    { name: 'rows', limit: 100, window: '1h', settle: (_outcome, _exchange, headers) => Number(headers?.get('x-rows') ?? 0) },
  ],
  key: { header: 'X-API-Key' },
  onRefused: bans.after({ refusals: 5, within: '1m', duration: '10m' }),
})

await using proxy = createProxy({ upstreams: [service.url], use: [bans, limits] })

async function ask(user: string, url: string): Promise<void> {
  const { status, headers } = await proxy.inject({ url, headers: { Host: 'localhost', 'X-API-Key': user } })
  const wait = headers.get('retry-after')
  console.log(`  ${user} ${url} ${status}  ${headers.get('ratelimit') ?? ''}${wait === undefined ? '' : `  (again in ${wait} s)`}`)
}

console.log('what it says:', (await proxy.inject({ url: '/cheap' })).headers.get('ratelimit-policy'))

console.log('dear queries use up the rows:')
for (let i = 0; i < 4; i++) await ask('ann', '/dear')

console.log('many cheap ones use up the burst, and nobody else notices:')
for (let i = 0; i < 6; i++) await ask('bob', '/cheap')
await ask('eve', '/cheap')

console.log('who does not stop is banned, by address:')
for (let i = 0; i < 4; i++) await ask('bob', '/cheap')
console.log(bans.list())

console.log(limits.stats())
