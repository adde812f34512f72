/** Changing response bodies on the way: streaming with `transform`, looking without changing with `tap`, another answer with `replace`. */
import { Transform } from 'node:stream'
import { createProxy, type Stage } from '@weir/core'
import { testUpstream } from '@weir/testing'

/** Upper case for plain text, chunk by chunk: nothing is collected, back-pressure is carried by core. */
const shout: Stage = {
  name: 'shout',
  handle: () => ({
    onResponse(response) {
      const { headers } = response
      // A body in a content coding is not text yet.
      if (!response.hasBody || !headers.get('content-type')?.startsWith('text/plain') || headers.has('content-encoding')) return
      response.transform(new Transform({ transform: (chunk: Buffer, _, done) => done(null, chunk.toString('latin1').toUpperCase()) }))
      // The validator belonged to other bytes. Content-Length is core's to drop.
      headers.delete('etag')
    },
  }),
}

/** Counts the bytes as the client gets them: it stands outside, so it sees what `shout` made. */
const meter: Stage = {
  name: 'meter',
  handle: () => ({
    onResponse(response, exchange) {
      let bytes = 0
      response.tap({
        onChunk(chunk) {
          bytes += chunk.length
        },
        onEnd: (complete) => console.log(`  ${exchange.url}: ${bytes} bytes, ${complete ? 'complete' : 'broken off'}`),
      })
    },
  }),
}

/** Hides what the service says about its failures. */
const errorPage: Stage = {
  name: 'error-page',
  handle: () => ({
    onResponse(response) {
      if (response.status >= 500) response.replace({ status: response.status, body: 'We are sorry.\n' })
    },
  }),
}

await using service = await testUpstream({
  '/greeting': { headers: { 'Content-Type': 'text/plain', ETag: '"1"' }, body: 'good morning' },
  '/broken': { status: 500, body: 'at Object.<anonymous> (/srv/app.js:3:1)' },
})
await using proxy = createProxy({ upstreams: [service.url], use: [meter, errorPage, shout] })

for (const url of ['/greeting', '/broken']) {
  const response = await proxy.inject({ url })
  console.log(response.status, response.text().trim(), 'etag:', response.headers.get('etag'))
}
