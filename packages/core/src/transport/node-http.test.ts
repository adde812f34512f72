/** What undici cannot put on the wire. */
import assert from 'node:assert/strict'
import { everyRequest, rawUpstream } from '@weir/testing'
import { describe, it } from 'vitest'
import { BufferedBody, type RequestBody } from '../body.ts'
import { OptionReader } from '../options.ts'
import type { Upstream } from '../upstream.ts'
import type { ConnectionSettings } from './connections.ts'
import { nodeHttp } from './node-http.ts'
import { readTlsOptions } from './tls.ts'
import type { UpstreamRequest } from './transport.ts'

const settings: ConnectionSettings = {
  tls: readTlsOptions(undefined, new OptionReader('test')),
  keepAliveTimeout: 4000,
  maxRequests: 0,
  maxAge: 0,
  maxConnections: 256,
  maxHeaderSize: 65_536,
  localAddress: undefined,
  allowAddress: undefined,
}

/** Sends each request in turn; resolves with what arrived, and on how many connections. */
async function arrive(...requests: Partial<UpstreamRequest>[]): Promise<{ raw: string[]; connections: number }> {
  await using upstream = await rawUpstream(everyRequest(() => 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
  const to = { id: upstream.url, url: new URL(upstream.url) } as Upstream
  const sender = nodeHttp(settings)
  for (const request of requests) {
    await new Promise<void>((resolve, reject) => {
      const full = {
        method: 'GET',
        path: '/',
        headers: ['Host', 'x'],
        body: undefined,
        timeouts: { connect: 1000, head: 1000, idle: 1000 },
        ...request,
      }
      sender.send(full, to, { onStart() {}, onInterim() {}, onHead() {}, onData() {}, onEnd: () => resolve(), onError: reject })
    })
  }
  const connections = upstream.connections.length
  await sender.close()
  for (const connection of upstream.connections) await connection.closed
  return { raw: upstream.requests.map(({ raw }) => raw.toString('latin1')), connections }
}

function withTrailers(text: string, length: number | undefined, trailers: string[]): RequestBody {
  const whole = new BufferedBody(Buffer.from(text))
  return {
    length,
    hasTrailers: true,
    open: (reader) => whole.open({ onChunk: (chunk) => reader.onChunk(chunk), onEnd: () => reader.onEnd(trailers), onError: () => {} }),
  }
}

describe('node:http for the rare request', () => {
  it('sends the target *, over a kept connection', async () => {
    const { raw, connections } = await arrive({ method: 'OPTIONS', path: '*' }, { method: 'OPTIONS', path: '*' })
    assert.deepEqual(raw, Array(2).fill('OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n'))
    assert.equal(connections, 1)
  })

  it('sends trailers with case, order and repetition', async () => {
    const { raw } = await arrive({
      method: 'PUT',
      headers: ['Host', 'x', 'Trailer', 'X-Sum'],
      body: withTrailers('abc', undefined, ['X-Sum', '1', 'x-sum', '\xe9']),
    })
    assert.deepEqual(raw, [
      'PUT / HTTP/1.1\r\nHost: x\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-sum: \xe9\r\n\r\n',
    ])
  })

  it('drops trailers, and their announcement, of a body whose length is given', async () => {
    const { raw } = await arrive({
      method: 'PUT',
      headers: ['Host', 'x', 'Trailer', 'X-Sum', 'Content-Length', '3'],
      body: withTrailers('abc', 3, ['X-Sum', '1']),
    })
    assert.deepEqual(raw, ['PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc'])
  })

  it('does not send a trailer that would be another field or request', async () => {
    await assert.rejects(
      arrive({ method: 'PUT', body: withTrailers('abc', undefined, ['X', 'a\r\nEvil: 1']) }),
      (error: { code?: unknown }) => error.code === 'ERR_REQUEST_NOT_SENT',
    )
  })

  it('frames a request without body by its method, and never as chunked', async () => {
    const { raw } = await arrive({ method: 'GET' }, { method: 'DELETE' }, { method: 'POST' }, { method: 'PURGE' })
    assert.deepEqual(
      raw.map((text) => [/content-length: \d+/i.exec(text)?.[0], /transfer-encoding/i.test(text)]),
      [
        [undefined, false],
        [undefined, false],
        ['Content-Length: 0', false],
        ['Content-Length: 0', false],
      ],
    )
  })
})
