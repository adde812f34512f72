/** Header rules, forwarding fields, the Host policy, and redirects put right: all without a stage. */
import { createProxy } from '@weir/core'
import { type Echo, echo, testUpstream } from '@weir/testing'

await using service = await testUpstream({
  '/headers': echo(),
  '/old': (_req, res) => void res.writeHead(302, { Location: `${service.url}/new?a=1` }).end(),
  '*': { headers: { 'X-Powered-By': 'Somebody', Server: 'inside/1.0' }, body: 'ok' },
})

await using proxy = createProxy({
  trustedProxies: ['loopback'],
  forwarding: { xForwarded: true, forwarded: true, by: '_edge1' },
  via: 'edge-1',
  routes: [
    {
      match: { path: '/app' },
      stripPrefix: true,
      pool: { upstreams: [service.url] },
      hostHeader: { fixed: 'app.internal' },
      headers: {
        request: {
          remove: ['X-Debug'],
          rename: { 'X-Old': 'X-New' },
          set: { 'X-Route': (exchange) => exchange.route?.name, 'X-Env': 'prod' },
          setIfMissing: { 'X-Request-Id': () => crypto.randomUUID() },
        },
        response: { remove: ['X-Powered-By', 'Server'], set: { 'X-Content-Type-Options': 'nosniff' } },
      },
    },
  ],
})

const got = await proxy.inject({
  url: '/app/headers',
  headers: {
    host: 'www.example.com',
    'X-Debug': '1',
    'X-Old': 'kept',
    'X-Forwarded-For': '203.0.113.7',
    Connection: 'close, X-Hop',
    'X-Hop': '1',
  },
})
const { url, rawHeaders } = JSON.parse(got.text()) as Echo
console.log(`the upstream got ${url} with`)
for (let i = 0; i < rawHeaders.length; i += 2) console.log(`  ${rawHeaders[i]}: ${rawHeaders[i + 1]}`)

const redirect = await proxy.inject({ url: '/app/old', headers: { host: 'www.example.com' } })
console.log('location:', redirect.headers.get('location'))

const plain = await proxy.inject({ url: '/app/' })
console.log('the client got', [...plain.headers].map(([name]) => name).join(', '))
