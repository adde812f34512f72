import { bytes, testUpstream } from '@weir/testing'
import { it } from 'vitest'
import { h2Client } from './h2.ts'
import { startProxy, transports } from './observed.ts'
it.each(transports)('%s', async (_n, transport) => {
  for (const size of [100_000, 1_000_000, 5_000_000]) for (const chunked of [false, true]) {
    await using upstream = await testUpstream({ '/big': bytes(size, {chunked}) })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { http2: true, transport })
    await using client = await h2Client(proxy.port)
    const t = performance.now()
    const r = await client.request({ ':path': '/big' })
    const o = await proxy.outcome()
    console.log(_n, size, chunked, r.status, r.body.length, r.reset, o.reason, o.bytesOut, Math.round(performance.now() - t))
  }
}, 60000)
