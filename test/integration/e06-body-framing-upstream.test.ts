/**
 * E6. A body on a method that seldom has one. Forwarded without its framing, the body is the next request on the pooled connection, and the
 * attacker has written it: the upstream here reads strictly, and each case asks for something else on the same connection afterwards.
 */
import { everyRequest, type RawUpstream, rawConnect, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { startProxy, transports } from './setup.ts'

const smuggled = 'GET /admin HTTP/1.1\r\nHost: public.test\r\nX-Evil: 1\r\n\r\n'
const binary = Buffer.from(Uint8Array.from({ length: 70_000 }, (_, i) => (i * 31) % 256))

const bodies: readonly (readonly [what: string, body: Buffer])[] = [
  ['a request', Buffer.from(smuggled)],
  ['a terminator', Buffer.from('0\r\n\r\n')],
  ['one byte', Buffer.from('x')],
  ['70 kB of every octet', binary],
]

function chunked(body: Buffer, size: number): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at < body.length; at += size) {
    const piece = body.subarray(at, at + size)
    parts.push(Buffer.from(`${piece.length.toString(16)};ext=1\r\n`), piece, Buffer.from('\r\n'))
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')])
}

function strictUpstream(): Promise<RawUpstream> {
  return rawUpstream(everyRequest(({ method }) => `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${method === 'HEAD' ? '' : 'ok'}`))
}

/** What the strict parser of the upstream made of it, framing fields counted. */
function seen(upstream: RawUpstream): { line: string; framed: number; body: Buffer }[] {
  return upstream.requests.map((request) => ({
    line: `${request.method} ${request.target}`,
    framed: request.all('content-length').length + request.all('transfer-encoding').length,
    body: request.body,
  }))
}

const methods = ['DELETE', 'OPTIONS', 'GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'QUERY', 'PROPFIND']

describe.each(transports)('E6 over %s: A body', (_, transport) => {
  describe.each(methods)('of a chunked %s', (method) => {
    it.each(bodies)('arrives as it was, framed exactly once: %s', async (_what, body) => {
      await using upstream = await strictUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(running.port)
      for (const size of [body.length, 1000]) {
        void client.write(`${method} /body HTTP/1.1\r\nHost: public.test\r\nTransfer-Encoding: chunked\r\n\r\n`)
        void client.write(chunked(body, size))
        expect((await client.readResponse({ method })).status).toBe(200)
        void client.write('GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n')
        expect((await client.readResponse()).status).toBe(200)
      }
      const [first, next, second] = seen(upstream)
      for (const request of [first, second]) {
        expect(request?.line).toBe(`${method} /body`)
        expect(request?.framed).toBe(1)
        expect(request?.body.equals(body)).toBe(true)
      }
      expect([next?.line, next?.body.length]).toEqual(['GET /next', 0])
      expect(upstream.requests.length).toBe(4)
    })

    it('without a byte in it leaves nothing behind', async () => {
      await using upstream = await strictUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(running.port)
      void client.write(`${method} /body HTTP/1.1\r\nHost: public.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`)
      expect((await client.readResponse({ method })).status).toBe(200)
      void client.write('GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n')
      expect((await client.readResponse()).status).toBe(200)
      expect(seen(upstream).map(({ line, body }) => [line, body.length])).toEqual([
        [`${method} /body`, 0],
        ['GET /next', 0],
      ])
      expect(seen(upstream)[0]?.framed).toBeLessThanOrEqual(1)
    })
  })

  it.each(methods)('with a length, of a %s, arrives as it was, framed exactly once', async (method) => {
    await using upstream = await strictUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(`${method} /body HTTP/1.1\r\nHost: public.test\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`)
    expect((await client.readResponse({ method })).status).toBe(200)
    void client.write('GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect((await client.readResponse()).status).toBe(200)
    expect(seen(upstream)).toEqual([
      { line: `${method} /body`, framed: 1, body: Buffer.from(smuggled) },
      { line: 'GET /next', framed: 0, body: Buffer.alloc(0) },
    ])
    expect(upstream.requests[0]?.all('content-length')).toEqual([String(smuggled.length)])
  })

  it.each(methods)('that does not exist, of a %s, gets no framing that promises one', async (method) => {
    await using upstream = await strictUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(`${method} /none HTTP/1.1\r\nHost: public.test\r\n\r\n`)
    expect((await client.readResponse({ method })).status).toBe(200)
    const [request] = upstream.requests
    expect(request?.all('transfer-encoding')).toEqual([])
    expect([[], ['0']]).toContainEqual(request?.all('content-length'))
  })

  it.each(['DELETE', 'OPTIONS', 'GET', 'POST'])('of an HTTP/2 %s arrives as it was, framed exactly once', async (method) => {
    await using upstream = await strictUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    for (const headers of [{}, { 'content-length': String(smuggled.length) }]) {
      const response = await client.request({ ':method': method, ':path': '/body', ...headers }, smuggled)
      expect([response.status, response.reset]).toEqual([200, 0])
      expect((await client.request({ ':path': '/next' })).status).toBe(200)
    }
    const body = { line: `${method} /body`, framed: 1, body: Buffer.from(smuggled) }
    const next = { line: 'GET /next', framed: 0, body: Buffer.alloc(0) }
    expect(seen(upstream)).toEqual([body, next, body, next])
    expect(upstream.requests[2]?.all('content-length')).toEqual([String(smuggled.length)])
  })

  it('that a stage has put another length on does not desynchronise the connection', async () => {
    await using upstream = await strictUpstream()
    const lie = () => ({ onAttempt: (headers: { set(name: string, value: string): unknown }) => void headers.set('Content-Length', '3') })
    await using running = await startProxy({ upstreams: [upstream.url], use: [lie] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(`POST /body HTTP/1.1\r\nHost: public.test\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`)
    const response = await client.readResponse()
    // Sent with its real length, or not at all.
    expect([200, 500, 502]).toContain(response.status)
    for (const request of seen(upstream)) expect(request).toEqual({ line: 'POST /body', framed: 1, body: Buffer.from(smuggled) })
  })
})
