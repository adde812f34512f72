/** Testing a configuration without a network: `inject` on the client's side, a transport of a few lines on the upstream's. */
import assert from 'node:assert/strict'
import { createProxy, type Transport } from '@weir/core'

/** Answers every request with where it was to go. */
const echoTransport: Transport = {
  name: 'echo',
  send(request, upstream, sink) {
    let aborted = false
    sink.onStart({
      abort() {
        aborted = true
      },
      pause() {},
      resume() {},
      reused: false,
      connectMs: 0,
      sent: true,
    })
    queueMicrotask(() => {
      if (aborted) return
      const body = Buffer.from(`${upstream.id} ${request.method} ${request.path}`)
      sink.onHead(200, 'OK', ['Content-Type', 'text/plain', 'Content-Length', String(body.length)])
      sink.onData(body)
      sink.onEnd(undefined)
    })
  },
}

await using proxy = createProxy({
  transport: echoTransport,
  upstreams: [{ id: 'web', url: 'http://web.internal' }],
  routes: [
    {
      match: { path: '/api' },
      stripPrefix: true,
      pool: { upstreams: [{ id: 'api', url: 'http://api.internal/v1' }], transport: echoTransport },
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
console.log('all as expected')
