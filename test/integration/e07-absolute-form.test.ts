/**
 * E7. `GET http://elsewhere/ HTTP/1.1` is legal to send to any server (RFC 9112 §3.2.2). A proxy that resolves it is an open proxy; one that
 * passes it on leaves the choice to the next server. Here the elsewhere is a real server, so that a wrong choice shows.
 */
import { type RawUpstream, rawConnect, rawRequest } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, transports } from './setup.ts'

function only(upstream: RawUpstream): { target: string | undefined; host: string[] | undefined; count: number } {
  const [request] = upstream.requests
  return { target: request?.target, host: request?.all('host'), count: upstream.requests.length }
}

describe.each(transports)('E7 over %s: An absolute-form request target', (_, transport) => {
  it('is reduced to origin-form and never selects the upstream, whatever it names', async () => {
    await using upstream = await okUpstream('right')
    await using decoy = await okUpstream('wrong')
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const authority = `127.0.0.1:${decoy.port}`
    const response = await rawRequest(running.port, `GET http://${authority}/path?q=1 HTTP/1.1\r\nHost: ${authority}\r\n\r\n`)
    expect([response.status, response.text()]).toEqual([200, 'right'])
    expect(only(upstream)).toEqual({ target: '/path?q=1', host: [authority], count: 1 })
    expect(decoy.connections).toEqual([])
  })

  it.each<[target: string, host: string, path: string, seenHost: string]>([
    ['http://public.test/a/b', 'public.test', '/a/b', 'public.test'],
    ['http://public.test/', 'public.test', '/', 'public.test'],
    ['http://public.test', 'public.test', '/', 'public.test'],
    ['http://public.test?q=1', 'public.test', '/?q=1', 'public.test'],
    ['http://public.test//a', 'public.test', '//a', 'public.test'],
    ['http://public.test/a/../b/%2e%2e/c', 'public.test', '/a/../b/%2e%2e/c', 'public.test'],
    ['http://public.test/http://evil.test/', 'public.test', '/http://evil.test/', 'public.test'],
    ['http://public.test/a?u=http://evil.test/', 'public.test', '/a?u=http://evil.test/', 'public.test'],
    ['http://public.test:8080/a', 'public.test:8080', '/a', 'public.test:8080'],
    ['http://public.test:80/a', 'public.test', '/a', 'public.test:80'],
    ['http://PUBLIC.test/a', 'public.TEST', '/a', 'PUBLIC.test'],
    ['HTTP://public.test/a', 'public.test', '/a', 'public.test'],
    ['https://public.test/a', 'public.test', '/a', 'public.test'],
    ['http://[::1]:8080/a', '[::1]:8080', '/a', '[::1]:8080'],
    ['http://192.0.2.1/a', '192.0.2.1', '/a', '192.0.2.1'],
  ])('%s beside Host %s arrives as %s with Host %s', async (target, host, path, seenHost) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nX-First: 1\r\nHost: ${host}\r\n\r\n`)
    expect(response.status).toBe(200)
    expect(only(upstream)).toEqual({ target: path, host: [seenHost], count: 1 })
    expect(upstream.requests[0]?.all('x-forwarded-host')).toEqual([seenHost])
    expect(upstream.requests[0]?.all('x-first')).toEqual(['1'])
  })

  it('gives an HTTP/1.0 request without Host its Host', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await rawRequest(running.port, 'GET http://public.test/a HTTP/1.0\r\n\r\n')
    expect(only(upstream)).toEqual({ target: '/a', host: ['public.test'], count: 1 })
  })

  it('of an OPTIONS without a path means the server as a whole', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await rawRequest(running.port, 'OPTIONS http://public.test HTTP/1.1\r\nHost: public.test\r\n\r\n')
    await rawRequest(running.port, 'OPTIONS http://public.test/ HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect(upstream.requests.map(({ target }) => target)).toEqual(['*', '/'])
  })

  it('does not climb out of a base path', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [`${upstream.url}/base`] }, { transport })
    await rawRequest(running.port, 'GET http://public.test/a HTTP/1.1\r\nHost: public.test\r\n\r\n')
    const refused = await rawRequest(running.port, 'GET http://public.test/../a HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect(refused.status).toBe(400)
    expect(only(upstream)).toEqual({ target: '/base/a', host: ['public.test'], count: 1 })
  })

  it('yields to a Host that the policy writes', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url], hostHeader: 'upstream' }, { transport })
    await rawRequest(running.port, 'GET http://public.test/a HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect(only(upstream)).toEqual({ target: '/a', host: [`127.0.0.1:${upstream.port}`], count: 1 })
  })
})

describe('E7: An absolute-form request target', () => {
  it('routes by its authority and path', async () => {
    await using api = await okUpstream('api')
    await using web = await okUpstream('web')
    const routes = [
      { match: { host: 'api.test', path: '/v1' }, pool: { upstreams: [api.url] } },
      { match: { host: 'web.test' }, pool: { upstreams: [web.url] } },
    ]
    await using running = await startProxy({ routes })
    const ask = async (target: string, host: string): Promise<string> =>
      (await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).text()
    expect(await ask('http://api.test/v1/x', 'api.test')).toBe('api')
    expect(await ask('http://web.test/v1/x', 'web.test')).toBe('web')
    expect(await ask('http://other.test/v1/x', 'other.test')).toContain('404')
  })

  it.each<[target: string, host: string]>([
    // Two names for one request: whoever trusts one of them can be misled with the other.
    ['http://evil.test/', 'public.test'],
    ['http://public.test/', 'evil.test'],
    ['http://public.test:8080/', 'public.test'],
    ['http://public.test/', 'public.test:8080'],
    // No authority that a Host may have.
    ['http://user@public.test/', 'public.test'],
    ['http://user:pass@public.test/', 'public.test'],
    ['http://public.test@evil.test/', 'public.test'],
    ['http:///path', 'public.test'],
    ['http://?q', 'public.test'],
    ['http://public.test:port/', 'public.test'],
    ['http://a,b/', 'a,b'],
    ['http://[::1/', '[::1'],
    // No form that a request to a gateway may have.
    ['ftp://public.test/', 'public.test'],
    ['file:///etc/passwd', 'public.test'],
    ['javascript:alert(1)', 'public.test'],
    ['http:/public.test/', 'public.test'],
    ['http:public.test', 'public.test'],
    ['public.test/a', 'public.test'],
    ['public.test:80', 'public.test'],
    ['a', 'public.test'],
    ['?q=1', 'public.test'],
    ['@evil.test/', 'public.test'],
    ['\\\\evil.test/', 'public.test'],
    ['http://public.test/a#fragment', 'public.test'],
    ['http://public.test#fragment', 'public.test'],
  ])('%s beside Host %s is refused with 400', async (target, host) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const response = await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, { until: 'close' })
    expect(response.status).toBe(400)
    expect(upstream.connections).toEqual([])
  })

  it.each(['//evil.test/a', '/\\evil.test/a', '/@evil.test', '/http://evil.test/a', '//user@evil.test:1/a'])(
    'that only looks like one is a path: %s',
    async (target) => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] })
      const response = await rawRequest(running.port, `GET ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect(response.status).toBe(200)
      expect(only(upstream)).toEqual({ target, host: ['public.test'], count: 1 })
    },
  )

  it.each(['http://evil.test/', 'evil.test/', ''])('has no place in HTTP/2: %s', async (path) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { http2: true })
    await using client = await h2Client(running.port)
    const { stream, answer } = client.open({ ':path': path })
    stream.end()
    const response = await answer
    expect(response.status === 400 || response.reset !== 0).toBe(true)
    expect(upstream.connections).toEqual([])
  })

  it('is not asked for by TRACE, which is refused', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const response = await rawRequest(running.port, 'TRACE http://public.test/ HTTP/1.1\r\nHost: public.test\r\n\r\n', { until: 'close' })
    expect(response.status).toBe(405)
    expect(upstream.connections).toEqual([])
  })

  it('is not asked for by CONNECT, which opens nothing', async () => {
    await using decoy = await okUpstream()
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    await using client = await rawConnect(running.port)
    const authority = `127.0.0.1:${decoy.port}`
    void client.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\nGET / HTTP/1.1\r\nHost: ${authority}\r\n\r\n`)
    await client.closed
    // Node closes the connection without a word when nobody listens for CONNECT; an answer, if there is one, must be a refusal.
    expect(client.received.toString('latin1')).toMatch(/^(?:HTTP\/1\.1 (?:400|405|501) .*)?$/s)
    expect([...decoy.connections, ...upstream.connections]).toEqual([])
  })
})
