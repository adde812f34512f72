/** For those who come from http-proxy: requests through http-proxy-3 itself, behind Weir's routing, retries and checks. */
import { createProxy, httpProxyTransport, undiciTransport } from '@weir/core'
import { certificates, type Echo, echo, testUpstream } from '@weir/testing'

await using service = await testUpstream(echo(), { tls: true })

for (const make of [httpProxyTransport, undiciTransport]) {
  // Both are held to one conformance suite: nothing else in the configuration changes. A transport is closed by whoever made it.
  const transport = make({ tls: { ca: certificates().ca }, keepAliveTimeout: '4s' })
  const proxy = createProxy({ upstreams: [service.url], transport, hostHeader: 'upstream' })

  // A chunked DELETE, and a path that nobody may tidy up: two things that http-proxy-3 by itself would change.
  const response = await proxy.inject({
    method: 'DELETE',
    url: '/a//b%2Fc/../d?q="x"',
    headers: { 'Transfer-Encoding': 'chunked' },
    body: '4\r\nsome\r\n7\r\n pieces\r\n0\r\n\r\n',
  })
  const { method, url, body } = JSON.parse(response.text()) as Echo
  console.log(`${transport.name}: ${response.status} ${method} ${url} "${body}"`)

  await proxy.close()
  await transport.close?.()
}
