/** For those who come from http-proxy: requests through http-proxy-3 itself, behind Weir's routing, retries and checks. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createProxy, httpProxyTransport, undiciTransport } from '@weir/core'
import { certificates, type Echo, echo, testUpstream } from '@weir/testing'

await using service = await testUpstream(echo(), { tls: true })

for (const make of [httpProxyTransport, undiciTransport]) {
  // Both are held to one conformance suite: nothing else in the configuration changes. A transport is closed by whoever made it.
  const transport = make({ tls: { ca: certificates().ca }, keepAliveTimeout: '4s' })
  const proxy = createProxy({ upstreams: [service.url], transport, hostHeader: 'upstream' })
  const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
  await once(server, 'listening')

  // A chunked DELETE and a path that nobody may tidy up: two things that http-proxy-3 by itself would change.
  const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/a//b%2Fc?q="x"`, {
    method: 'DELETE',
    body: new Blob(['some ', 'pieces']).stream(),
    duplex: 'half',
  })
  const { method, url, body, rawHeaders } = (await response.json()) as Echo
  const host = rawHeaders[rawHeaders.indexOf('Host') + 1]
  console.log(`${transport.name}: ${response.status} ${method} ${url} "${body}" host ${host === new URL(service.url).host ? 'of the upstream' : host}`)

  server.close()
  await proxy.close()
  await transport.close?.()
}
