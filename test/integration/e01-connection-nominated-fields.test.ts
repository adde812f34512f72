/**
 * E1. `Connection` is how a sender says "this field is for you only" (RFC 9110 §7.6.1). It is also how an attacker says "drop the field that
 * your own proxy has set": hence the second half.
 */
import type { StageHandler } from '@weir/core'
import { everyRequest, type RawRequest, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { okUpstream, startProxy, transports } from './setup.ts'

const get = (...fields: string[]): string => `GET / HTTP/1.1\r\nHost: public.test\r\n${fields.map((line) => `${line}\r\n`).join('')}\r\n`

function names(request: RawRequest): string[] {
  return request.headers.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
}

describe.each(transports)('E1 over %s: A request field named in Connection', (_, transport) => {
  describe('never reaches the upstream', () => {
    it.each<[spelling: string, lines: string[]]>([
      ['alone', ['Connection: X-Secret']],
      ['in another case', ['Connection: x-SECRET']],
      ['beside close', ['Connection: close, X-Secret']],
      ['beside keep-alive', ['Connection: X-Secret, keep-alive']],
      ['between empty elements', ['Connection: ,, X-Secret ,']],
      ['behind tabs', ['Connection: keep-alive,\tX-Secret\t']],
      ['on the second Connection line', ['Connection: keep-alive', 'Connection: X-Secret']],
      ['by a Connection field in another case', ['cOnNeCtIoN: X-Secret']],
    ])('named %s', async (_spelling, lines) => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(running.port, get(...lines, 'X-Secret: 1', 'x-secret: 2', 'X-Secret-Too: 3', 'X-Public: 4'))
      expect(response.status).toBe(200)
      const [request] = upstream.requests
      expect(request?.all('x-secret')).toEqual([])
      expect(request?.all('x-secret-too')).toEqual(['3'])
      expect(request?.all('x-public')).toEqual(['4'])
      expect(request?.header('connection') ?? '').not.toMatch(/secret/i)
    })

    it('whether it stands before or behind Connection', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await rawRequest(running.port, get('X-Before: 1', 'Connection: X-Before, X-Behind', 'X-Behind: 2'))
      expect(names(upstream.requests[0] as RawRequest)).not.toContain('x-before')
      expect(names(upstream.requests[0] as RawRequest)).not.toContain('x-behind')
    })

    it('also when it is a well-known one: the sender meant it for us', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await rawRequest(
        running.port,
        get('Connection: Cookie, Authorization, Accept', 'Cookie: a=1', 'Authorization: Basic eA==', 'Accept: */*'),
      )
      const seen = names(upstream.requests[0] as RawRequest)
      for (const name of ['cookie', 'authorization', 'accept']) expect(seen).not.toContain(name)
    })

    it('on an upgrade request', async () => {
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n')
      })
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(
        running.port,
        get(
          'Connection: Upgrade, X-Secret, X-Forwarded-For',
          'Upgrade: websocket',
          'X-Secret: 1',
          'Sec-WebSocket-Key: k',
          'Sec-WebSocket-Version: 13',
        ),
      )
      expect(response.status).toBe(403)
      const [request] = upstream.requests
      expect(request?.all('x-secret')).toEqual([])
      expect(request?.all('upgrade')).toEqual(['websocket'])
      expect(request?.header('connection')?.toLowerCase()).toBe('upgrade')
      expect(request?.all('x-forwarded-for')).toEqual(['127.0.0.1'])
    })
  })

  describe('does not take with it what the proxy itself sets:', () => {
    it('Host', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(running.port, get('Connection: Host'))
      expect(response.status).toBe(200)
      expect(upstream.requests[0]?.all('host')).toEqual(['public.test'])
    })

    it('a Host that the policy writes', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url], hostHeader: { fixed: 'inner.test' } }, { transport })
      await rawRequest(running.port, get('Connection: Host'))
      expect(upstream.requests[0]?.all('host')).toEqual(['inner.test'])
    })

    it('Content-Length, so that the body stays the body', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const smuggled = 'GET /admin HTTP/1.1\r\nHost: public.test\r\n\r\n'
      await using client = await rawConnect(running.port)
      const head = `POST / HTTP/1.1\r\nHost: public.test\r\nConnection: keep-alive, Content-Length\r\nContent-Length: ${smuggled.length}\r\n\r\n`
      void client.write(head + smuggled)
      expect((await client.readResponse()).status).toBe(200)
      void client.write(get())
      expect((await client.readResponse()).status).toBe(200)
      expect(upstream.requests.map(({ method, target }) => `${method} ${target}`)).toEqual(['POST /', 'GET /'])
      expect(upstream.requests[0]?.text()).toBe(smuggled)
    })

    it('Transfer-Encoding, likewise', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const smuggled = 'GET /admin HTTP/1.1\r\nHost: public.test\r\n\r\n'
      await using client = await rawConnect(running.port)
      const head = 'POST / HTTP/1.1\r\nHost: public.test\r\nConnection: keep-alive, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n'
      void client.write(`${head}${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
      void client.write(get())
      expect((await client.readResponse()).status).toBe(200)
      expect(upstream.requests.map(({ method, target }) => `${method} ${target}`)).toEqual(['POST /', 'GET /'])
      expect(upstream.requests[0]?.text()).toBe(smuggled)
    })

    it('the forwarding fields and Via', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url], via: 'edge', forwarding: { forwarded: true } }, { transport })
      await rawRequest(
        running.port,
        get(
          'Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded, Via',
          'X-Forwarded-For: 192.0.2.9',
          'X-Forwarded-Proto: gopher',
          'X-Forwarded-Host: evil.test',
          'Forwarded: for=192.0.2.9',
          'Via: 1.1 nobody',
        ),
      )
      const [request] = upstream.requests
      expect(request?.all('x-forwarded-for')).toEqual(['127.0.0.1'])
      expect(request?.all('x-forwarded-proto')).toEqual(['http'])
      expect(request?.all('x-forwarded-host')).toEqual(['public.test'])
      expect(request?.all('forwarded')).toEqual(['for=127.0.0.1;host=public.test;proto=http'])
      expect(request?.all('via')).toEqual(['1.1 edge'])
    })

    it('the forwarding fields behind a trusted peer', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url], trustedProxies: ['loopback'] }, { transport })
      await rawRequest(running.port, get('Connection: X-Forwarded-For, X-Forwarded-Proto', 'X-Forwarded-For: 192.0.2.9'))
      const [request] = upstream.requests
      // Nor what that peer tells: see E27.
      expect(request?.all('x-forwarded-for')).toEqual(['192.0.2.9, 127.0.0.1'])
      expect(request?.all('x-forwarded-proto')).toEqual(['http'])
    })

    it('credentials and other fields that header rules inject', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy(
        { upstreams: [upstream.url], headers: { request: { set: { Authorization: 'Bearer inner', 'X-Env': 'prod' } } } },
        { transport },
      )
      await rawRequest(running.port, get('Connection: Authorization, X-Env', 'Authorization: Bearer outer', 'X-Env: test'))
      expect(upstream.requests[0]?.all('authorization')).toEqual(['Bearer inner'])
      expect(upstream.requests[0]?.all('x-env')).toEqual(['prod'])
    })

    it('credentials that a stage injects', async () => {
      await using upstream = await okUpstream()
      const credentials = () => ({
        onAttempt: (headers: { set(name: string, value: string): unknown }) => void headers.set('X-User', 'u1'),
      })
      await using running = await startProxy({ upstreams: [upstream.url], use: [credentials] }, { transport })
      await rawRequest(running.port, get('Connection: X-User', 'X-User: root'))
      expect(upstream.requests[0]?.all('x-user')).toEqual(['u1'])
    })

    it('what a stage sets on the request, whatever the client sent under that name', async () => {
      await using upstream = await okUpstream()
      const seen: (string | undefined)[] = []
      const user: StageHandler = ({ headers }) => {
        seen.push(headers.get('x-user'))
        headers.set('X-User', 'u1')
      }
      await using running = await startProxy({ upstreams: [upstream.url], use: [user] }, { transport })
      for (const lines of [[], ['X-User: root'], ['X-User: u1', 'x-user: u1']])
        await rawRequest(running.port, get('Connection: close, X-User', ...lines))
      expect(upstream.requests.map((request) => request.all('x-user'))).toEqual([['u1'], ['u1'], ['u1']])
      // Nominated, it is for this hop and nobody behind it.
      expect(seen).toEqual([undefined, undefined, undefined])
    })

    it('the TE that lets the upstream send trailers', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await rawRequest(running.port, get('Connection: TE', 'TE: trailers'))
      expect(upstream.requests[0]?.all('te')).toEqual(['trailers'])
    })
  })

  it('leaves a request without nominations alone: nothing else is dropped', async () => {
    await using upstream = await rawUpstream(everyRequest(() => 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'))
    await using running = await startProxy({ upstreams: [upstream.url], forwarding: { xForwarded: false } }, { transport })
    await rawRequest(
      running.port,
      get('Accept: a', 'X-One: 1', 'x-one: 2', 'Cookie: c=1', 'User-Agent: raw', 'Connection: keep-alive, , close'),
    )
    const fields = upstream.requests[0]?.fields.filter((line) => !/^(?:connection|host):/i.test(line))
    expect(fields).toEqual(['Accept: a', 'X-One: 1', 'x-one: 2', 'Cookie: c=1', 'User-Agent: raw'])
  })
})
