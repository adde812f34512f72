/**
 * E28. An HTTP/1.0 client never receives chunked coding and gets a closed connection when the length is unknown.
 *
 * For such a client the end of the connection is the end of the body, so a body that broke off must not end like one that is complete: a reset
 * is all that can tell the two apart.
 */
import { PassThrough, Readable } from 'node:stream'
import { createGzip, gunzipSync } from 'node:zlib'
import { bytes, everyRequest, faults, patternAt, pieces, rawConnect, rawRequest, rawUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { ok } from './messages.ts'
import { startProxy, transports } from './observed.ts'

const old = (path = '/', ...lines: readonly string[]): string =>
  `${[`GET ${path} HTTP/1.0`, 'Host: localhost', ...lines].join('\r\n')}\r\n\r\n`

/** No chunked coding, no matter where it could hide. */
function expectPlain(raw: Buffer): void {
  const text = raw.toString('latin1')
  expect(text).not.toMatch(/transfer-encoding/i)
  expect(text).not.toContain('0\r\n\r\n')
}

describe.each(transports)('E28 over %s', (_name, transport) => {
  it.each([
    ['chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n'],
    [
      'chunked, with trailers',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n',
    ],
  ])('a body that comes %s goes out bare, and ends with the connection', async (_form, answer) => {
    await using upstream = await rawUpstream(everyRequest(() => answer))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    for (const lines of [[], ['Connection: keep-alive'], ['TE: trailers', 'Connection: TE, keep-alive']]) {
      const response = await rawRequest(proxy.port, old('/', ...lines), { until: 'close' })
      expect([response.status, response.text(), response.framing, response.ending]).toEqual([200, 'hello world', 'close', 'fin'])
      expect(response.header('connection')?.toLowerCase()).toBe('close')
      expect(response.header('trailer')).toBeUndefined()
      expectPlain(response.raw)
      expect(response.raw.toString()).not.toContain('X-Sum')
    }
    // The upstream's connection did not have to end for that.
    expect(upstream.connections).toHaveLength(1)
  })

  it('a body that ends with the upstream’s connection does so here', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send('HTTP/1.1 200 OK\r\n\r\nhello world')
      connection.end()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(proxy.port, old(), { until: 'close' })
    expect([response.text(), response.ending]).toEqual(['hello world', 'fin'])
    expectPlain(response.raw)
  })

  it('a large one too', async () => {
    const size = 3_000_000
    await using upstream = await testUpstream({ '/': bytes(size, { chunked: true }) })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(proxy.port, old(), { until: 'close' })
    expect(response.body).toHaveLength(size)
    expect(response.body.subarray(size - 1000)).toEqual(patternAt(size - 1000, 1000))
    expect(response.ending).toBe('fin')
  })

  it('a known length stays, and with it a connection that the client wants to keep', async () => {
    await using upstream = await rawUpstream(everyRequest((request) => ok(`answer to ${request.target}`)))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    for (const path of ['/1', '/2', '/3']) {
      void client.write(old(path, 'Connection: keep-alive'))
      const response = await client.readResponse()
      expect([response.text(), response.framing, response.header('connection')?.toLowerCase()]).toEqual([
        `answer to ${path}`,
        'length',
        'keep-alive',
      ])
    }
    // And one that does not say so is closed, as 1.0 has it.
    const closing = await rawRequest(proxy.port, old('/4'), { until: 'close' })
    expect([closing.text(), closing.ending]).toEqual(['answer to /4', 'fin'])
  })

  it.each([
    ['reset', faults.resetAt(10)],
    ['truncated, by its length', faults.truncated('length')],
    ['truncated, without its last chunk', faults.truncated('chunked')],
    ['broken in its chunks', faults.badChunk()],
  ])('a body that is %s does not end like a whole one', async (_how, fault) => {
    await using upstream = await testUpstream({ '/': fault })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry: false }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(old())
    // With a length the client can count; without one only a reset tells.
    const ending = await client.closed
    const text = client.received.toString('latin1')
    if (!/content-length: \d+\r\n/i.test(text)) expect(ending).toBe('reset')
    else if (text.startsWith('HTTP/1.1 200')) expect(text.slice(text.indexOf('\r\n\r\n') + 4).length).toBeLessThan(1000)
    expect((await proxy.outcome()).reason).not.toBe('completed')
  })

  it('no interim responses', async () => {
    await using upstream = await rawUpstream(
      everyRequest(() => `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${ok('done')}`),
    )
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(proxy.port, old('/', 'Expect: 100-continue'), { until: 'close' })
    expect(response.interims).toEqual([])
    expect(response.raw.toString('latin1').match(/HTTP\/1\.[01] \d/g)).toHaveLength(1)
    expect(response.text()).toBe('done')
  })

  it('what stages make follows the same rules: streams, transforms, texts, errors', async () => {
    await using upstream = await testUpstream({
      '/gzip': pieces(['hello ', 'world']),
      '/plain': { headers: { 'Content-Length': '11' }, body: 'hello world' },
      '/pass': 'hello world',
    })
    await using proxy = await startProxy(
      {
        upstreams: [upstream.url],
        use: [
          (exchange) => {
            if (exchange.url === '/stream') return { status: 200, body: Readable.from(['hello ', 'world']) }
            if (exchange.url === '/text') return { status: 200, body: 'hello world' }
            if (exchange.url === '/throw') throw new Error('stage')
            return {
              onResponse: (response) => {
                if (exchange.url === '/gzip') {
                  response.headers.set('Content-Encoding', 'gzip')
                  response.transform(createGzip())
                } else if (exchange.url === '/pass') response.transform(new PassThrough())
              },
            }
          },
        ],
      },
      { transport },
    )
    for (const [path, known] of [
      ['/stream', false],
      ['/text', true],
      ['/gzip', false],
      ['/pass', false],
      ['/plain', true],
      ['/throw', true],
    ] as const) {
      const response = await rawRequest(proxy.port, old(path), { until: 'close' })
      expectPlain(response.raw)
      expect([path, response.header('content-length') !== undefined]).toEqual([path, known])
      const body = path === '/gzip' ? gunzipSync(response.body).toString() : response.text()
      expect(body).toBe(path === '/throw' ? '500 Internal Server Error\n' : 'hello world')
      expect(response.ending).toBe('fin')
    }
  })

  it('a status line in 1.1 is fine, but nothing that only 1.1 has', async () => {
    await using upstream = await rawUpstream(
      everyRequest(() => 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n'),
    )
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(proxy.port, old(), { until: 'close' })
    expect(response.header('keep-alive')).toBeUndefined()
    // What the upstream gets is 1.1, with a Host even if the client had none.
    await rawRequest(proxy.port, 'GET / HTTP/1.0\r\n\r\n')
    expect(upstream.requests.map((request) => request.version)).toEqual(['1.1', '1.1'])
    expect(upstream.requests[1]?.header('host')).toBe(new URL(upstream.url).host)
  })
})
