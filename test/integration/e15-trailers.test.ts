/**
 * E15. Trailers end a message with what is known only then (a checksum, a status). Relayed, they need a recipient that said it takes them;
 * dropped, their announcement must go with them. And a trailer must not say what only a head may (RFC 9110 §6.5.1).
 */
import { PassThrough } from 'node:stream'
import type { Stage } from '@weir/core'
import { everyRequest, type RawUpstream, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, transports, until } from './setup.ts'

const get = (...fields: string[]): string => `GET / HTTP/1.1\r\nHost: public.test\r\n${fields.map((line) => `${line}\r\n`).join('')}\r\n`

/** A chunked answer that ends with these lines. */
function trailing(trailers: readonly string[], announcement = 'X-Sum, X-Status'): Promise<RawUpstream> {
  const head = `HTTP/1.1 200 OK\r\n${announcement === '' ? '' : `Trailer: ${announcement}\r\n`}Transfer-Encoding: chunked\r\nX-Public: 1\r\n\r\n`
  return rawUpstream(everyRequest(() => `${head}5\r\nhello\r\n6\r\n world\r\n0\r\n${trailers.map((line) => `${line}\r\n`).join('')}\r\n`))
}

const sum = ['X-Sum: abc', 'X-Status: 0', 'x-status: 1']

describe.each(transports)('E15 over %s: Response trailers', (_, transport) => {
  it('reach an HTTP/1.1 client that takes them, with their announcement', async () => {
    await using upstream = await trailing(sum)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 2; i++) {
      void client.write(get('Connection: TE', 'TE: trailers'))
      const response = await client.readResponse()
      expect([response.status, response.text(), response.framing]).toEqual([200, 'hello world', 'chunked'])
      expect(response.all('trailer')).toEqual(['X-Sum, X-Status'])
      expect(response.trailers).toEqual(['X-Sum', 'abc', 'X-Status', '0', 'x-status', '1'])
    }
    expect(upstream.requests[0]?.all('te')).toEqual(['trailers'])
  })

  it('reach it also when the upstream did not announce them', async () => {
    await using upstream = await trailing(sum, '')
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, get('TE: trailers'))
    expect([response.text(), response.trailers.length / 2, response.all('trailer')]).toEqual(['hello world', 3, []])
  })

  it.each([
    ['no TE', get()],
    ['a TE without trailers', get('Connection: TE', 'TE: gzip')],
    ['trailers of no weight', get('Connection: TE', 'TE: trailers-of-another-kind')],
  ])('are dropped, with their announcement, for a client with %s', async (_what, request) => {
    await using upstream = await trailing(sum)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 2; i++) {
      void client.write(request)
      const response = await client.readResponse()
      expect([response.status, response.text(), response.complete]).toEqual([200, 'hello world', true])
      expect([response.trailers, response.all('trailer'), response.all('x-public')]).toEqual([[], [], ['1']])
    }
    expect(client.received.toString('latin1')).not.toMatch(/x-sum/i)
  })

  it('are dropped, with their announcement, for an HTTP/1.0 client, whatever it says', async () => {
    await using upstream = await trailing(sum)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, 'GET / HTTP/1.0\r\nHost: public.test\r\nTE: trailers\r\n\r\n', { until: 'close' })
    expect([response.status, response.framing, response.text(), response.ending]).toEqual([200, 'close', 'hello world', 'fin'])
    expect(response.raw.toString('latin1')).not.toMatch(/x-sum|trailer/i)
  })

  it('reach an HTTP/2 client', async () => {
    await using upstream = await trailing(sum)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    for (const headers of [{}, { te: 'trailers' }]) {
      const response = await client.request(headers)
      expect([response.status, response.body.toString(), response.reset]).toEqual([200, 'hello world', 0])
      expect(response.trailers).toEqual(['x-sum', 'abc', 'x-status', '0', 'x-status', '1'])
    }
  })

  it('reach the client behind a body that a stage transforms', async () => {
    await using upstream = await trailing(sum)
    const stage = () => ({ onResponse: (response: { transform(stream: PassThrough): void }) => response.transform(new PassThrough()) })
    await using running = await startProxy({ upstreams: [upstream.url], use: [stage] }, { transport })
    const response = await rawRequest(running.port, get('TE: trailers'))
    expect([response.text(), response.trailers]).toEqual(['hello world', ['X-Sum', 'abc', 'X-Status', '0', 'x-status', '1']])
  })

  it('are not announced where there can be none', async () => {
    await using upstream = await rawUpstream(
      everyRequest(({ method, target }) => {
        if (target === '/length') return 'HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nok'
        if (target === '/304') return 'HTTP/1.1 304 Not Modified\r\nTrailer: X-Sum\r\n\r\n'
        return `HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n${method === 'HEAD' ? '' : '0\r\n\r\n'}`
      }),
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    for (const [method, target] of [
      ['GET', '/length'],
      ['GET', '/304'],
      ['HEAD', '/'],
    ] as const) {
      await using client = await rawConnect(running.port)
      void client.write(`${method} ${target} HTTP/1.1\r\nHost: public.test\r\nTE: trailers\r\n\r\n`)
      const response = await client.readResponse({ method })
      expect([response.complete, response.all('trailer')]).toEqual([true, []])
    }
  })

  it('do not carry what only a head may say, nor what is per hop', async () => {
    const forbidden = [
      'Transfer-Encoding: identity',
      'Content-Type: text/html',
      'Content-Encoding: gzip',
      'Content-Range: bytes 0-1/2',
      'Set-Cookie: a=1',
      'Location: http://evil.test/',
      'Connection: close',
      'Keep-Alive: timeout=1',
      'Upgrade: h2c',
      'Trailer: X-Sum',
      'TE: trailers',
      'Proxy-Authenticate: Basic',
      'WWW-Authenticate: Basic',
      'Cache-Control: public',
      'Age: 1',
      'Vary: *',
    ]
    await using upstream = await trailing([...forbidden, 'X-Sum: abc'])
    await using h1 = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(h1.port, get('TE: trailers'))
    expect([response.text(), response.trailers]).toEqual(['hello world', ['X-Sum', 'abc']])
    await using h2 = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(h2.port)
    const second = await client.request()
    expect([second.body.toString(), second.trailers]).toEqual(['hello world', ['x-sum', 'abc']])
  })

  it('that hold a Content-Length break the response off', async () => {
    await using upstream = await trailing(['Content-Length: 3', 'X-Sum: abc'])
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(get('TE: trailers'))
    expect(await client.closed).toBe('reset')
    expect(client.received.toString('latin1')).not.toMatch(/\r\n0\r\n|Content-Length/)
  })

  it('keep the octets of their values', async () => {
    await using upstream = await trailing(['X-Octets: caf\xe9 \xff'])
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, get('TE: trailers'))
    expect(response.trailers).toEqual(['X-Octets', 'caf\xe9 \xff'])
  })
})

describe.each(transports)('E15 over %s: Request trailers', (_, transport) => {
  const upload = (...fields: string[]): string =>
    `POST / HTTP/1.1\r\nHost: public.test\r\n${fields.map((line) => `${line}\r\n`).join('')}Transfer-Encoding: chunked\r\n\r\n`

  it('that were announced reach the upstream, with their announcement', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 2; i++) {
      void client.write(`${upload('Trailer: X-Sum, X-Status')}5\r\nhello\r\n0\r\nX-Sum: abc\r\nX-Status: 0\r\n\r\n`)
      expect((await client.readResponse()).status).toBe(200)
    }
    for (const request of upstream.requests) {
      expect(request.text()).toBe('hello')
      expect([request.all('trailer'), request.trailers]).toEqual([['X-Sum, X-Status'], ['X-Sum', 'abc', 'X-Status', '0']])
      expect([...request.all('transfer-encoding'), ...request.all('content-length')]).toEqual(['chunked'])
    }
    expect(upstream.requests.length).toBe(2)
  })

  it('that were announced and did not come leave a whole request', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    expect((await rawRequest(running.port, `${upload('Trailer: X-Sum')}5\r\nhello\r\n0\r\n\r\n`)).status).toBe(200)
    expect([upstream.requests[0]?.text(), upstream.requests[0]?.trailers]).toEqual(['hello', []])
  })

  it('that were not announced do no harm, and are never half of a pair', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    expect((await rawRequest(running.port, `${upload()}5\r\nhello\r\n0\r\nX-Sum: abc\r\n\r\n`)).status).toBe(200)
    const [request] = upstream.requests
    expect([request?.text(), request?.complete, request?.all('trailer')]).toEqual(['hello', true, []])
    expect([[], ['X-Sum', 'abc']]).toContainEqual(request?.trailers)
  })

  it('are not announced where there can be none', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const bytes = 'POST / HTTP/1.1\r\nHost: public.test\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nhi'
    expect((await rawRequest(running.port, bytes)).status).toBe(200)
    expect([upstream.requests[0]?.text(), upstream.requests[0]?.all('trailer')]).toEqual(['hi', []])
  })

  it('reach the upstream from HTTP/2', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    const response = await client.request({ ':method': 'POST', trailer: 'x-sum' }, 'hello', { trailers: { 'x-sum': 'abc' } })
    expect([response.status, response.reset]).toEqual([200, 0])
    const [request] = upstream.requests
    expect([request?.text(), request?.all('trailer'), request?.trailers]).toEqual(['hello', ['x-sum'], ['x-sum', 'abc']])
  })

  it('do not carry what only a head may say, nor what the proxy decides', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const forbidden = [
      'Host: evil.test',
      'Authorization: Basic eA==',
      'Proxy-Authorization: Basic eA==',
      'Cookie: a=1',
      'Connection: X-Sum',
      'Expect: 100-continue',
      'Content-Type: text/html',
      'X-Forwarded-For: 192.0.2.9',
      'X-Forwarded-Proto: https',
      'Forwarded: for=192.0.2.9',
      'X-Real-IP: 192.0.2.9',
    ]
    const bytes = `${upload('Trailer: X-Sum')}5\r\nhello\r\n0\r\n${forbidden.map((line) => `${line}\r\n`).join('')}X-Sum: abc\r\n\r\n`
    await using client = await rawConnect(running.port)
    void client.write(bytes)
    expect((await client.readResponse()).status).toBe(200)
    expect(upstream.requests[0]?.trailers).toEqual(['X-Sum', 'abc'])
  })

  it('go no further when a stage says so by name, over HTTP/1.1 and HTTP/2', async () => {
    const picky: Stage = {
      name: 'picky',
      handle: (exchange) => {
        exchange.dropTrailers((name) => name.toLowerCase() === 'x-user')
        exchange.dropTrailers((name) => name.startsWith('Y-'))
      },
    }
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url], use: [picky] }, { transport })
    await rawRequest(
      running.port,
      `${upload('Trailer: X-Sum')}5\r\nhello\r\n0\r\nX-User: root\r\nX-Sum: abc\r\nY-A: 1\r\nx-user: root\r\n\r\n`,
    )
    await using second = await startProxy({ upstreams: [upstream.url], use: [picky] }, { transport, http2: true })
    await using client = await h2Client(second.port)
    await client.request({ ':method': 'POST', trailer: 'x-sum' }, 'hello', { trailers: { 'x-sum': 'abc', 'x-user': 'root' } })
    expect(upstream.requests.map(({ trailers }) => trailers)).toEqual([
      ['X-Sum', 'abc'],
      ['x-sum', 'abc'],
    ])
    // One that throws ends the exchange, and the connection is not left waiting.
    const broken: Stage = {
      name: 'broken',
      handle: (exchange) =>
        exchange.dropTrailers(() => {
          throw new Error('x')
        }),
    }
    await using third = await startProxy({ upstreams: [upstream.url], use: [broken] }, { transport })
    expect((await rawRequest(third.port, `${upload('Trailer: X-Sum')}5\r\nhello\r\n0\r\nX-Sum: abc\r\n\r\n`)).status).toBe(500)
    expect((await rawRequest(third.port, `${upload('Trailer: X-Sum')}5\r\nhello\r\n0\r\n\r\n`)).status).toBe(200)
    await until('all ended', () => third.proxy.stats().inflight === 0)
  })

  it('that hold a Content-Length make the request malformed', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, `${upload('Trailer: X-Sum')}5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n`)
    expect(response.status).toBe(400)
    expect(upstream.requests).toEqual([])
  })
})
