/**
 * E8. `OPTIONS *` asks about the server as a whole (RFC 9110 §9.3.7). `/*` is a path like any other, and a different question; most HTTP
 * clients can send only the latter.
 */
import { everyRequest, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, transports } from './setup.ts'

const options = 'OPTIONS * HTTP/1.1\r\nHost: public.test\r\n\r\n'

describe.each(transports)('E8 over %s: OPTIONS *', (_, transport) => {
  it('is forwarded as *', async () => {
    await using upstream = await rawUpstream(everyRequest(() => 'HTTP/1.1 200 OK\r\nAllow: GET, HEAD\r\nContent-Length: 0\r\n\r\n'))
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, options)
    expect([response.status, response.header('allow')]).toEqual([200, 'GET, HEAD'])
    expect(upstream.requests.map(({ line }) => line)).toEqual(['OPTIONS * HTTP/1.1'])
    expect(upstream.requests[0]?.all('host')).toEqual(['public.test'])
    expect(upstream.requests[0]?.all('x-forwarded-for')).toEqual(['127.0.0.1'])
  })

  it('is forwarded as * between other requests of a connection', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (const line of ['OPTIONS *', 'GET /*', 'OPTIONS /*', 'OPTIONS *', 'OPTIONS /']) {
      void client.write(`${line} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
    }
    expect(upstream.requests.map(({ method, target }) => `${method} ${target}`)).toEqual([
      'OPTIONS *',
      'GET /*',
      'OPTIONS /*',
      'OPTIONS *',
      'OPTIONS /',
    ])
  })

  it.each([
    ['a base path', { base: '/base', route: {} }],
    ['a prefix to add', { base: '', route: { addPrefix: '/add' } }],
    ['a prefix to take off', { base: '', route: { stripPrefix: '/strip' } }],
    ['all of them', { base: '/base', route: { addPrefix: '/add', stripPrefix: '/strip' } }],
    ['a rewrite', { base: '', route: { rewrite: () => '/elsewhere' } }],
  ])('is no path, so it has nothing to do with %s', async (_what, { base, route }) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ routes: [{ pool: { upstreams: [`${upstream.url}${base}`] }, ...route }] }, { transport })
    expect((await rawRequest(running.port, options)).status).toBe(200)
    expect(upstream.requests.map(({ target }) => target)).toEqual(['*'])
  })

  it('is forwarded as * from HTTP/2', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    expect((await client.request({ ':method': 'OPTIONS', ':path': '*' })).status).toBe(200)
    expect(upstream.requests.map(({ method, target }) => `${method} ${target}`)).toEqual(['OPTIONS *'])
  })

  it('is forwarded as * with a body', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, 'OPTIONS * HTTP/1.1\r\nHost: public.test\r\nContent-Length: 2\r\n\r\nhi')
    expect(response.status).toBe(200)
    expect(upstream.requests.map((request) => [request.target, request.text()])).toEqual([['*', 'hi']])
  })

  it('is answered locally when a stage does', async () => {
    await using upstream = await okUpstream()
    const answer = ({ method, url }: { method: string; url: string }) =>
      method === 'OPTIONS' && url === '*' ? { status: 204, headers: { Allow: 'GET' } } : undefined
    await using running = await startProxy({ upstreams: [upstream.url], use: [answer] }, { transport })
    const response = await rawRequest(running.port, options)
    expect([response.status, response.header('allow')]).toEqual([204, 'GET'])
    await rawRequest(running.port, 'OPTIONS /* HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect(upstream.requests.map(({ target }) => target)).toEqual(['/*'])
  })
})

describe('E8: the target *', () => {
  it.each(['GET', 'HEAD', 'POST', 'DELETE', 'PUT'])('of a %s means nothing and is refused with 400', async (method) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    await using client = await rawConnect(running.port)
    void client.write(`${method} * HTTP/1.1\r\nHost: public.test\r\n\r\n`)
    expect((await client.readResponse({ method })).status).toBe(400)
    expect(upstream.connections).toEqual([])
  })

  it.each(['**', '*/', '*?q=1', '*a'])('with something behind it is refused with 400: %s', async (target) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    expect((await rawRequest(running.port, `OPTIONS ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)).status).toBe(400)
    expect(upstream.connections).toEqual([])
  })
})
