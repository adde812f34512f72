/**
 * E2. The fields that concern one connection only (RFC 9110 §7.6.1, RFC 9112) are the proxy's to write on each side, whether or not their
 * sender also nominates them in `Connection`.
 */
import { everyRequest, rawRequest, rawUpstream, refusedPort } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, transports, until } from './setup.ts'

const get = (...fields: string[]): string => `GET / HTTP/1.1\r\nHost: public.test\r\n${fields.map((line) => `${line}\r\n`).join('')}\r\n`

describe.each(transports)('E2 over %s: Hop-by-hop fields', (_, transport) => {
  describe('of the request do not reach the upstream:', () => {
    it.each([
      ['Keep-Alive', 'timeout=77, max=3'],
      ['keep-ALIVE', 'timeout=77'],
      ['Proxy-Connection', 'keep-alive'],
      ['Proxy-Authorization', 'Basic c2VjcmV0'],
      ['Proxy-Authenticate', 'Basic realm="x"'],
      ['Proxy-Authentication-Info', 'nextnonce="x"'],
      ['Upgrade', 'h2c'],
      ['Upgrade', 'TLS/1.0'],
      ['HTTP2-Settings', 'AAMAAABkAAQCAAAAAAIAAAAA'],
      ['TE', 'gzip, deflate;q=0.5'],
      ['Trailer', 'X-Checksum'],
    ])('%s: %s', async (name, value) => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(running.port, get(`${name}: ${value}`, 'X-Public: 1'))
      expect(response.status).toBe(200)
      expect(upstream.requests[0]?.all(name)).toEqual([])
      expect(upstream.requests[0]?.all('x-public')).toEqual(['1'])
    })

    it('Upgrade: h2c with everything that belongs to it is answered as the plain request that it also is', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(
        running.port,
        get('Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA'),
      )
      expect([response.status, response.text()]).toEqual([200, 'ok'])
      expect(upstream.requests[0]?.all('upgrade')).toEqual([])
      expect(upstream.requests[0]?.all('http2-settings')).toEqual([])
      expect(upstream.requests[0]?.header('connection') ?? 'keep-alive').toBe('keep-alive')
    })

    it("the client's Transfer-Encoding: the one that arrives is the transport's, once", async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await rawRequest(running.port, 'POST / HTTP/1.1\r\nHost: public.test\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n')
      expect(upstream.requests[0]?.all('transfer-encoding')).toEqual(['chunked'])
      expect(upstream.requests[0]?.text()).toBe('abc')
    })

    it('Connection: what arrives are the options of this connection', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await rawRequest(running.port, get('Connection: close', 'Connection: X-Something'))
      expect(upstream.requests[0]?.all('connection').join() || 'keep-alive').toBe('keep-alive')
    })

    it.each([
      ['trailers', 'trailers'],
      ['Trailers', 'trailers'],
      ['gzip, trailers', 'trailers'],
      ['trailers, deflate;q=0.5', 'trailers'],
      ['trailers;q=0.5', 'trailers'],
    ])('TE: %s, but for trailers', async (sent, seen) => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await rawRequest(running.port, get('Connection: TE', `TE: ${sent}`))
      expect(upstream.requests[0]?.all('te').map((value) => value.toLowerCase())).toEqual([seen])
    })

    it('TE on two lines is one list', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      await rawRequest(running.port, get('Connection: TE', 'TE: trailers', 'TE: gzip'))
      expect(upstream.requests[0]?.all('te').map((value) => value.toLowerCase())).toEqual(['trailers'])
    })

    it('not even when they come over HTTP/2', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
      await using client = await h2Client(running.port)
      const response = await client.request({
        'proxy-authorization': 'Basic c2VjcmV0',
        'proxy-authenticate': 'Basic',
        te: 'trailers',
        'x-public': '1',
      })
      expect(response.status).toBe(200)
      const [request] = upstream.requests
      expect(request?.all('proxy-authorization')).toEqual([])
      expect(request?.all('proxy-authenticate')).toEqual([])
      expect(request?.all('te')).toEqual(['trailers'])
      expect(request?.all('x-public')).toEqual(['1'])
    })
  })

  describe('of the response do not reach the client:', () => {
    const responseFields: readonly (readonly [name: string, value: string])[] = [
      ['Keep-Alive', 'timeout=77, max=3'],
      ['Proxy-Connection', 'close'],
      ['Proxy-Authenticate', 'Basic realm="inner"'],
      ['Proxy-Authorization', 'Basic c2VjcmV0'],
      ['Proxy-Authentication-Info', 'nextnonce="x"'],
      ['Upgrade', 'h2,h2c'],
      ['TE', 'gzip'],
      ['Trailer', 'X-Checksum'],
    ]

    it.each(responseFields)('%s: %s', async (name, value) => {
      await using upstream = await rawUpstream(
        everyRequest(() => `HTTP/1.1 200 OK\r\n${name}: ${value}\r\nContent-Length: 2\r\nX-Public: 1\r\n\r\nok`),
      )
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(running.port, get())
      expect([response.status, response.text()]).toEqual([200, 'ok'])
      // Node announces its own keep-alive timeout under the same name.
      expect(response.all(name)).not.toContain(value)
      if (name !== 'Keep-Alive') expect(response.all(name)).toEqual([])
      expect(response.all('x-public')).toEqual(['1'])
    })

    it.each(responseFields)('%s: %s, on HTTP/2', async (name, value) => {
      await using upstream = await rawUpstream(
        everyRequest(() => `HTTP/1.1 200 OK\r\n${name}: ${value}\r\nContent-Length: 2\r\nX-Public: 1\r\n\r\nok`),
      )
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
      await using client = await h2Client(running.port)
      const response = await client.request()
      expect([response.status, response.body.toString(), response.reset]).toEqual([200, 'ok', 0])
      expect(response.all(name)).toEqual([])
      expect(response.all('x-public')).toEqual(['1'])
    })

    it("the upstream's Transfer-Encoding: the client's framing is its own", async () => {
      await using upstream = await rawUpstream(
        everyRequest(() => 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nok\r\n0\r\n\r\n'),
      )
      await using h1 = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(h1.port, get())
      expect([response.framing, response.all('transfer-encoding'), response.text()]).toEqual(['chunked', ['chunked'], 'ok'])
      expect(response.raw.includes('ext=1')).toBe(false)

      await using h2 = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
      await using client = await h2Client(h2.port)
      const second = await client.request()
      expect([second.status, second.body.toString(), second.all('transfer-encoding')]).toEqual([200, 'ok', []])
    })

    it.each([
      ['Transfer-Encoding: gzip, chunked', '2\r\nok\r\n0\r\n\r\n'],
      ['Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked', '2\r\nok\r\n0\r\n\r\n'],
      ['Transfer-Encoding: x-mine, chunked', '2\r\nok\r\n0\r\n\r\n'],
      ['Transfer-Encoding: gzip', 'ok'],
    ])('%s: its client would take coded bytes for the plain ones', async (field, sent) => {
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.send(`HTTP/1.1 200 OK\r\n${field}\r\n\r\n${sent}`)
        if (!field.includes('chunked')) connection.end()
        await connection.stall()
      })
      for (const options of [{}, { use: [() => ({ onResponse: () => {} })] }] as const) {
        await using running = await startProxy({ upstreams: [upstream.url], ...options }, { transport })
        const response = await rawRequest(running.port, get())
        expect(response.status).toBe(502)
        expect(response.header('proxy-status')).toMatch(/error=(?:http_response_transfer_coding|http_protocol_error)/)
      }
      await until('no connection is kept', () => upstream.open === 0)
    })

    it('Transfer-Encoding: gzip, chunked, of an answer that was put aside while another server was tried', async () => {
      await using upstream = await rawUpstream(
        everyRequest(() => 'HTTP/1.1 503 Busy\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'),
      )
      await using dead = await refusedPort()
      const upstreams = [upstream.url, { url: dead.url, backup: true }]
      await using running = await startProxy({ upstreams, retry: { attempts: 2, on: [503] } }, { transport })
      const response = await rawRequest(running.port, get())
      expect(response.status).toBe(502)
      expect(response.header('proxy-status')).toMatch(/error=(?:http_response_transfer_coding|http_protocol_error)/)
    })

    it('a word that is no coding is noise', async () => {
      await using upstream = await rawUpstream(async (connection) => {
        await connection.readRequest()
        await connection.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: abcdefg\r\n\r\nok')
        connection.end()
      })
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(running.port, get())
      expect([response.status, response.text(), response.all('transfer-encoding')]).toEqual([200, 'ok', ['chunked']])
    })

    it.each(['Transfer-Encoding: Chunked', 'Transfer-Encoding:  chunked '])('%s is the one that everybody knows', async (field) => {
      await using upstream = await rawUpstream(everyRequest(() => `HTTP/1.1 200 OK\r\n${field}\r\n\r\n2\r\nok\r\n0\r\n\r\n`))
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      expect((await rawRequest(running.port, get())).text()).toBe('ok')
    })

    it("a web server's `Connection: Upgrade` beside a 200 does not disturb an HTTP/2 client", async () => {
      await using upstream = await rawUpstream(
        everyRequest(
          () =>
            'HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok',
        ),
      )
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
      await using client = await h2Client(running.port)
      const response = await client.request()
      expect([response.status, response.body.toString(), response.reset]).toEqual([200, 'ok', 0])
      for (const name of ['connection', 'upgrade', 'keep-alive']) expect(response.all(name)).toEqual([])
    })
  })
})
