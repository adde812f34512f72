/** Readiness for whoever stands in front: 200 while the proxy takes work and enough upstreams are up, 503 otherwise and while it drains. */
import { subscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy } from '@weir/core'
import { activeCheck, readyHandler } from '@weir/health'
import { faults, testUpstream } from '@weir/testing'

await using a = await testUpstream({ '/healthz': 'ok', '/report': faults.stall(200, 'the report') })
await using b = await testUpstream({ '/healthz': 'ok', '/report': faults.stall(200, 'the report') })

const proxy = createProxy({
  upstreams: [
    { id: 'a', url: a.url },
    { id: 'b', url: b.url },
  ],
  health: [activeCheck({ path: '/healthz', interval: 30, edgeInterval: 10, fall: 2, initial: 'pending' })],
})
// A port of its own: the public one must not tell.
const admin = createServer(readyHandler(proxy, { minUp: 1 })).listen(0, '127.0.0.1')
await once(admin, 'listening')
const url = `http://127.0.0.1:${(admin.address() as AddressInfo).port}/ready`

async function ready(title: string): Promise<void> {
  const response = await fetch(url)
  console.log(title.padEnd(26), response.status, (await response.text()).trim())
}
const stateIs = (id: string, to: string): Promise<void> =>
  new Promise((resolve) => {
    subscribe('weir:upstream:state', (message) => {
      const event = message as { upstream: { id: string }; to: string }
      if (event.upstream.id === id && event.to === to) resolve()
    })
  })

await ready('nothing is known yet:')
const known = Promise.all([stateIs('a', 'up'), stateIs('b', 'up')])
await proxy.start()
await known
await ready('checks have passed:')

const gone = Promise.all([stateIs('a', 'down'), stateIs('b', 'down')])
await Promise.all([a.kill(), b.kill()])
await gone
await ready('both are down:')

const back = stateIs('a', 'up')
await a.restart()
await back
const report = proxy.inject({ url: '/report' })
await a.until(({ requests }) => requests.some(({ path }) => path === '/report'))
const closed = proxy.close()
await ready('draining:')
console.log('what ran is finished:     ', (await report).text())
await closed
admin.close()
