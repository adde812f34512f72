/** Testing a configuration without a network: `inject` on the client's side, a function on the upstream's. */
import assert from 'node:assert/strict'
import { createProxy } from '@weir/core'
import { fakeTransport } from '@weir/testing'

const transport = fakeTransport(({ method, path }, upstream) => ({ body: `${upstream.id} ${method} ${path}` }))

await using proxy = createProxy({
  transport,
  upstreams: [{ id: 'web', url: 'http://web.internal' }],
  routes: [
    {
      match: { path: '/api' },
      stripPrefix: true,
      pool: { upstreams: [{ id: 'api', url: 'http://api.internal/v1' }], transport },
    },
  ],
})

assert.equal((await proxy.inject({ url: '/api/users?x=%20' })).text(), 'api GET /v1/users?x=%20')
assert.equal((await proxy.inject({ url: '/apix' })).text(), 'web GET /apix')

// What is ambiguous is refused before anybody sees it.
const climbing = await proxy.inject({ url: '/api/%2e%2e/secret' })
assert.equal(climbing.status, 400)
assert.equal(climbing.headers.get('proxy-status'), 'weir; error=http_request_error; details="ERR_TARGET"')
const twoHosts = await proxy.inject({ headers: { Host: ['web.example', 'admin.example'] } })
assert.match(twoHosts.headers.get('proxy-status') ?? '', /ERR_HOST/)

assert.equal(transport.requests.length, 2)
console.log('all as expected')
