/**
 * E24. `HEAD`, `1xx`, `204` and `304` responses never carry a body, and `304`/`HEAD` keep `Content-Length`.
 *
 * Whether a message has a body is decided by more than its fields, and two parties who decide it differently read each other's next message
 * wrongly. So every case is followed by another request on the same connection, on both sides of the proxy.
 */
import { everyRequest, type RawResponse, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get, head, ok } from './messages.ts'
import { startProxy, transports } from './observed.ts'

interface Case {
  readonly name: string
  readonly method?: string
  /** What the upstream sends: a head, and nothing behind it. */
  readonly answer: string
  readonly status: number
  readonly length: string | undefined
  /** The parsers in use cannot tell in time that nothing follows, and close: dear, but right. */
  readonly closes?: true
}

const cases: readonly Case[] = [
  { name: 'HEAD with a length', method: 'HEAD', answer: 'HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n', status: 200, length: '1234' },
  { name: 'HEAD with a length of 0', method: 'HEAD', answer: 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', status: 200, length: '0' },
  {
    name: 'HEAD without a length',
    method: 'HEAD',
    answer: 'HTTP/1.1 200 OK\r\nX-Sized: no\r\n\r\n',
    status: 200,
    length: undefined,
    closes: true,
  },
  {
    name: 'HEAD, chunked',
    method: 'HEAD',
    answer: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
    status: 200,
    length: undefined,
  },
  { name: 'HEAD, not found', method: 'HEAD', answer: 'HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n', status: 404, length: '99' },
  {
    name: '304 with a length',
    answer: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: "a"\r\n\r\n',
    status: 304,
    length: '1234',
    closes: true,
  },
  { name: '304 without a length', answer: 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', status: 304, length: undefined },
  {
    name: '304, chunked',
    answer: 'HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n',
    status: 304,
    length: undefined,
    closes: true,
  },
  { name: '304 to HEAD', method: 'HEAD', answer: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n', status: 304, length: '1234' },
  { name: '204', answer: 'HTTP/1.1 204 No Content\r\n\r\n', status: 204, length: undefined },
  // RFC 9110 §8.6: a 204 has no Content-Length; one that an upstream sends nevertheless does not go on.
  { name: '204 with a length of 0', answer: 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', status: 204, length: undefined },
]

/** The case at `/case`, a usual answer for everything else. */
const upstreamFor = ({ answer }: Case): Promise<Awaited<ReturnType<typeof rawUpstream>>> =>
  rawUpstream(everyRequest((request) => (request.target === '/case' ? answer : ok('next'))))

function expectBodiless(response: RawResponse, { status, length }: Case): void {
  expect(response.status).toBe(status)
  expect(response.header('content-length')).toBe(length)
  expect(response.header('transfer-encoding')).toBe(undefined)
  expect(response.body).toHaveLength(0)
  expect(response.complete).toBe(true)
}

describe.each(transports)('E24 over %s', (_name, transport) => {
  it.each(cases)('$name', async (given) => {
    await using upstream = await upstreamFor(given)
    await using proxy = await startProxy({ upstreams: [upstream.url], retry: false }, { transport })
    await using client = await rawConnect(proxy.port)
    const method = given.method ?? 'GET'
    void client.write(head(method, '/case'))
    expectBodiless(await client.readResponse({ method }), given)
    void client.write(get('/next'))
    expect((await client.readResponse()).text()).toBe('next')
    // The upstream's connection was of use for the second request as well.
    if (given.closes === undefined) expect(upstream.connections).toHaveLength(1)
    // Both in one packet: the second answer must follow the first without a byte in between.
    void client.write(head(method, '/case') + get('/next'))
    expectBodiless(await client.readResponse({ method }), given)
    expect((await client.readResponse()).text()).toBe('next')
    expect(client.unread).toHaveLength(0)
  })

  it.each(cases)('$name, with hooks that ask for a transform and a tap', async (given) => {
    const { PassThrough } = await import('node:stream')
    await using upstream = await upstreamFor(given)
    const ended: boolean[] = []
    await using proxy = await startProxy(
      {
        upstreams: [upstream.url],
        use: [
          () => ({
            onResponse: (response) => {
              response.tap({ onEnd: (complete) => void ended.push(complete) })
              response.transform(new PassThrough())
            },
          }),
        ],
      },
      { transport },
    )
    await using client = await rawConnect(proxy.port)
    const method = given.method ?? 'GET'
    void client.write(head(method, '/case'))
    expectBodiless(await client.readResponse({ method }), given)
    expect(ended).toEqual([true])
    void client.write(get('/next'))
    expect((await client.readResponse()).text()).toBe('next')
  })

  it.each(cases)('$name, to an HTTP/2 client', async (given) => {
    await using upstream = await upstreamFor(given)
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(proxy.port)
    const response = await client.request({ ':method': given.method ?? 'GET', ':path': '/case' })
    expect(response).toMatchObject({ status: given.status, reset: 0, trailers: [] })
    expect(response.body).toHaveLength(0)
    expect(response.all('content-length')).toEqual(given.length === undefined ? [] : [given.length])
  })

  it.each(cases)('$name, to an HTTP/1.0 client that wants to stay', async (given) => {
    await using upstream = await upstreamFor(given)
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(proxy.port, `${given.method ?? 'GET'} /case HTTP/1.0\r\nHost: localhost\r\n\r\n`, { until: 'close' })
    expectBodiless(response, given)
    expect(response.raw.toString('latin1').split('\r\n\r\n')[1]).toBe('')
  })

  it('1xx: relayed as heads, without a body, however many', async () => {
    const hints =
      'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\nLink: </c.css>\r\n\r\n'
    await using upstream = await rawUpstream(everyRequest(() => hints + ok('done')))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(get() + get())
    for (let i = 0; i < 2; i++) {
      const response = await client.readResponse()
      expect(response.interims.map(({ status, headers }) => [status, headers])).toEqual([
        [103, ['Link', '</a.css>']],
        [102, []],
        [103, ['Link', '</b.css>', 'Link', '</c.css>']],
      ])
      expect(response.text()).toBe('done')
    }
  })

  it('1xx in front of a response without a body', async () => {
    await using upstream = await rawUpstream(
      everyRequest((request) =>
        request.method === 'HEAD'
          ? 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n'
          : 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n',
      ),
    )
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    for (const method of ['HEAD', 'GET']) {
      void client.write(head(method, '/'))
      const response = await client.readResponse({ method })
      expect(response.interims).toHaveLength(1)
      expect([response.status, response.body.length]).toEqual([method === 'HEAD' ? 200 : 304, 0])
    }
  })

  describe('bytes that an upstream sends behind such a response', () => {
    const poison = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'
    const wrong: readonly Case[] = [
      { name: 'HEAD', method: 'HEAD', answer: 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n', status: 200, length: '6' },
      { name: '204', answer: 'HTTP/1.1 204 No Content\r\n\r\n', status: 204, length: undefined },
      { name: '304', answer: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n', status: 304, length: '6' },
      { name: 'a whole body', answer: ok(''), status: 200, length: '0' },
    ]

    it.each(
      wrong.flatMap((given) => [
        { ...given, bytes: 'junk!!', what: 'junk' },
        { ...given, bytes: poison, what: 'a response' },
      ]),
    )('$name, then $what: never reach a client, and never answer another request', async (given) => {
      await using upstream = await rawUpstream(
        everyRequest((request) => (request.target === '/case' ? given.answer + given.bytes : ok('clean'))),
      )
      // One at a time: the next request waits at the pool and is sent in the very tick in which the first one ends.
      await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1 }, { transport })
      const method = given.method ?? 'GET'
      await using first = await rawConnect(proxy.port)
      await using second = await rawConnect(proxy.port)
      void first.write(head(method, '/case'))
      void second.write(get('/next'))
      expectBodiless(await first.readResponse({ method }), given)
      expect((await second.readResponse()).text()).toBe('clean')
      void first.write(get('/next'))
      expect((await first.readResponse()).text()).toBe('clean')
      expect(Buffer.concat([first.received, second.received]).toString('latin1')).not.toMatch(/poison|junk/)
    })
  })

  it('answers that the proxy makes itself follow the same rules', async () => {
    await using proxy = await startProxy(
      {
        upstreams: [],
        use: [
          (exchange) => {
            if (exchange.url === '/204') return { status: 204, body: 'not sent' }
            if (exchange.url === '/304') return { status: 304, headers: { ETag: '"a"' }, body: 'not sent' }
            if (exchange.url === '/ok') return { status: 200, body: 'seven!!' }
            return undefined
          },
        ],
      },
      { transport },
    )
    await using client = await rawConnect(proxy.port)
    for (const [method, path, status, length] of [
      ['GET', '/204', 204, undefined],
      ['GET', '/304', 304, undefined],
      ['HEAD', '/304', 304, undefined],
      ['HEAD', '/ok', 200, '7'],
      ['HEAD', '/nobody-there', 503, '24'],
    ] as const) {
      void client.write(head(method, path))
      const response = await client.readResponse({ method })
      expect([response.status, response.body.length, response.header('transfer-encoding')]).toEqual([status, 0, undefined])
      expect(response.header('content-length')).toBe(length)
    }
    void client.write(get('/ok'))
    expect((await client.readResponse()).text()).toBe('seven!!')
  })
})
