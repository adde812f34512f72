/**
 * E4. A connection on one side of a proxy says nothing about the one on the other side: who wants to close closes its own. A proxy that
 * passes `Connection: close` on either loses its pool to one client, or its clients' connections to one upstream.
 */
import { everyRequest, type RawUpstream, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, transports } from './setup.ts'

const get = (...fields: string[]): string => `GET / HTTP/1.1\r\nHost: public.test\r\n${fields.map((line) => `${line}\r\n`).join('')}\r\n`

/** Answers with this and closes. */
function closingUpstream(response: string): Promise<RawUpstream> {
  return rawUpstream(async (connection) => {
    await connection.readRequest()
    await connection.send(response)
    connection.end()
  })
}

describe.each(transports)("E4 over %s: The upstream's end of its connection", (_, transport) => {
  it.each([
    ['by Connection: close', 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'],
    [
      'by Connection: close, on a chunked body',
      'HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    ],
    ['as HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['as the end of a body without length', 'HTTP/1.1 200 OK\r\n\r\nok'],
    ['as the end of an HTTP/1.0 body', 'HTTP/1.0 200 OK\r\n\r\nok'],
    ['with no word about it', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'],
  ])("%s does not close the client's", async (_how, answer) => {
    await using upstream = await closingUpstream(answer)
    await using running = await startProxy({ upstreams: [upstream.url], retry: { attempts: 3 } }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 1; i <= 3; i++) {
      void client.write(get())
      const response = await client.readResponse()
      expect([response.status, response.text(), response.complete]).toEqual([200, 'ok', true])
      expect(response.header('connection')).not.toBe('close')
      // The proxy has seen this connection end before it is asked again: how a dead one is reused is not the matter here.
      await (await upstream.connection(i)).closed
    }
    expect(client.ending).toBe('open')
    expect(upstream.connections.length).toBe(3)
  })

  it("does not close the client's when the proxy answers an error for it", async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      connection.end()
    })
    await using running = await startProxy({ upstreams: [upstream.url], health: [], retry: false }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 2; i++) {
      void client.write(get())
      expect((await client.readResponse()).status).toBe(502)
    }
    expect(client.ending).toBe('open')
  })

  it("does not end an HTTP/2 client's session", async () => {
    await using upstream = await closingUpstream('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok')
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    for (let i = 1; i <= 3; i++) {
      const response = await client.request()
      expect([response.status, response.body.toString(), response.reset]).toEqual([200, 'ok', 0])
      await (await upstream.connection(i)).closed
    }
    expect(client.session.closed).toBe(false)
  })
})

describe.each(transports)("E4 over %s: The client's end of its connection", (_, transport) => {
  it.each([
    ['by Connection: close', get('Connection: close')],
    ['by Connection: close among others', get('Connection: X-A, close')],
    ['by Proxy-Connection: close', get('Proxy-Connection: close', 'Connection: close')],
    ['as HTTP/1.0', 'GET / HTTP/1.0\r\nHost: public.test\r\n\r\n'],
  ])('%s does not close the pooled one', async (_how, request) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    for (let i = 0; i < 3; i++) {
      const response = await rawRequest(running.port, request, { until: 'close' })
      expect([response.status, response.text(), response.complete, response.ending]).toEqual([200, 'ok', true, 'fin'])
    }
    expect(upstream.requests.length).toBe(3)
    expect(upstream.connections.length).toBe(1)
    expect(upstream.open).toBe(1)
    for (const seen of upstream.requests) {
      expect(seen.version).toBe('1.1')
      expect(seen.header('connection') ?? 'keep-alive').toBe('keep-alive')
    }
  })

  it.each(['HEAD', 'GET', 'OPTIONS', 'DELETE'])('%s keeps the pooled one, too', async (method) => {
    await using upstream = await rawUpstream(
      everyRequest((request) => `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${request.method === 'HEAD' ? '' : 'ok'}`),
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 3; i++) {
      void client.write(`${method} / HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      expect((await client.readResponse({ method })).status).toBe(200)
    }
    expect(upstream.connections.length).toBe(1)
    expect(client.ending).toBe('open')
  })

  it('by leaving after the response keeps the pooled one, too', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    for (const leave of ['end', 'reset', 'destroy'] as const) {
      const client = await rawConnect(running.port)
      void client.write(get())
      expect((await client.readResponse()).status).toBe(200)
      client[leave]()
    }
    await rawRequest(running.port, get())
    expect(upstream.requests.length).toBe(4)
    expect(upstream.connections.length).toBe(1)
  })
})
