/** Shutting down: what runs may finish, new work is refused, and the deadline is kept. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy } from '@weir/core'
import { faults, testUpstream } from '@weir/testing'

await using service = await testUpstream({
  '/report': faults.stall(300, 'the report'),
  '/endless': faults.stall(),
})

async function serve() {
  const proxy = createProxy({ upstreams: [service.url] })
  const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const ask = (path: string): Promise<string> =>
    fetch(base + path).then(
      async (response) => `${response.status} ${(await response.text()).trim()}`,
      () => 'connection broken off',
    )
  return { proxy, server, ask }
}

const first = await serve()
const report = first.ask('/report')
await service.until((upstream) => upstream.active === 1)

// The listener goes on for the moment, so that a load balancer in front gets to see the 503 and looks elsewhere.
const closed = first.proxy.close({ deadline: '5s' })
console.log('new work:', await first.ask('/report'))
console.log('running: ', await report)
await closed
first.server.close()
console.log('closed, still running:', first.proxy.stats().inflight)

const second = await serve()
const endless = second.ask('/endless')
await service.until((upstream) => upstream.active === 1)
second.server.close()
await second.proxy.close({ deadline: '100ms' })
console.log('at the deadline:', await endless)
