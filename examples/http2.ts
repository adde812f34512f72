/** HTTP/2 and HTTP/1.1 on one TLS port; upstreams are spoken to in HTTP/1.1. */
import { once } from 'node:events'
import { connect, createSecureServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { createProxy } from '@weir/core'
import { certificates, type Echo, echo, testUpstream } from '@weir/testing'

await using service = await testUpstream(echo())
await using proxy = createProxy({ upstreams: [service.url] })

// A certificate made on the spot; yours comes from files or from an ACME client.
const { ca, localhost } = certificates()
const server = proxy.attach(createSecureServer({ ...localhost, allowHTTP1: true })).listen(0, '127.0.0.1')
await once(server, 'listening')

const session = connect(`https://localhost:${(server.address() as AddressInfo).port}`, { ca })
const streams = ['/one', '/two'].map((path) => session.request({ ':path': path, 'x-note': 'on one connection' }))
for (const stream of streams) {
  let text = ''
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const [head] = (await once(stream, 'response')) as [Record<string, unknown>]
  await once(stream, 'end')
  const { url, rawHeaders } = JSON.parse(text) as Echo
  const host = rawHeaders[rawHeaders.indexOf('Host') + 1]
  console.log(`${session.alpnProtocol} ${head[':status']}: the upstream got ${url} with Host: ${host}`)
}

session.close()
server.close()
