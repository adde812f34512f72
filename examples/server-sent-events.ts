/** An event stream passes through event by event; when its reader leaves, the upstream is told at once. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy } from '@weir/core'
import { events, testUpstream } from '@weir/testing'

// Sends three events and then stays open, silent, as event streams do.
await using service = await testUpstream({ '/ticks': events(['one', 'two', 'three'], { everyMs: 50 }) })

await using proxy = createProxy({
  routes: [
    // Silence is normal here. Better than switching the limit off: a heartbeat comment of the upstream, below the limit.
    { match: { path: '/ticks' }, pool: { upstreams: [service.url] }, timeouts: { idle: 0 } },
  ],
})
const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
await once(server, 'listening')

const reader = new AbortController()
const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/ticks`, { signal: reader.signal })
console.log(response.status, response.headers.get('content-type'))
const startedAt = performance.now()
let seen = 0
for await (const chunk of (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
  console.log(`after ${Math.round(performance.now() - startedAt)} ms:`, JSON.stringify(chunk))
  seen += chunk.split('\n\n').length - 1
  if (seen === 3) break
}

console.log('requests at the upstream:', service.active)
reader.abort()
await service.until((upstream) => upstream.active === 0)
console.log('after the reader left:', service.active)
server.close()
