/** Inside a Fastify application, as an encapsulated plugin: its body parsers do not touch what is proxied. */
import { createProxy, type ReverseProxy } from '@weir/core'
import { type Echo, echo, testUpstream } from '@weir/testing'
import { type FastifyInstance, fastify } from 'fastify'

/** Registers a proxy for everything under the prefix of the plugin. */
function proxyPlugin(proxy: ReverseProxy) {
  return async (scope: FastifyInstance): Promise<void> => {
    scope.removeAllContentTypeParsers()
    // No parser reads the body, so that it streams to the upstream.
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
    for (const path of ['', '/*'])
      scope.all(path, (request, reply) => {
        reply.hijack()
        proxy(request.raw, reply.raw)
      })
  }
}

await using service = await testUpstream(echo())
const proxy = createProxy({
  routes: [{ match: { path: '/api' }, stripPrefix: true, pool: { upstreams: [service.url] } }],
})

const app = fastify()
app.get('/health', () => ({ healthy: true }))
app.register(proxyPlugin(proxy), { prefix: '/api' })
app.server.on('upgrade', proxy.upgrade)
app.addHook('preClose', () => proxy.close()) // before the server waits for its connections, WebSockets among them
const base = await app.listen({ port: 0, host: '127.0.0.1' })

console.log('own route:', await (await fetch(`${base}/health`)).json())
const posted = await fetch(`${base}/api/orders`, { method: 'POST', headers: { 'Content-Type': 'text/plain' }, body: 'two of them' })
const { method, url, body } = (await posted.json()) as Echo
console.log('proxied:', method, url, body)

await app.close()
