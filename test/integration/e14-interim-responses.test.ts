/**
 * E14. 1xx heads are messages of their own: a 103 is worth something only while the final response is still being made, so each case holds
 * the upstream back until the client has seen the interim. A 100 that nobody asked for is for the proxy to ignore (RFC 9110 §15.2).
 */
import { everyRequest, type RawUpstream, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { gate, outcomeLog, startProxy, transports } from './setup.ts'

const get = 'GET / HTTP/1.1\r\nHost: public.test\r\n\r\n'
const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const hints = 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\nX-Hint: 1\r\n\r\n'

/** Sends `before`, waits for the gate, sends `after`. */
async function heldUpstream(before: string, after = ok): Promise<{ upstream: RawUpstream; release: () => void }> {
  const { opened, open } = gate()
  const upstream = await rawUpstream(async (connection) => {
    await connection.readRequest()
    await connection.send(before)
    await opened
    await connection.send(after)
  })
  return { upstream, release: () => open() }
}

describe.each(transports)('E14 over %s: An interim response', (_, transport) => {
  it.each([
    ['103 Early Hints', hints, ['Link', '</a.css>; rel=preload', 'Link', '</b.js>; rel=preload', 'X-Hint', '1']],
    ['103 without a field', 'HTTP/1.1 103 Early Hints\r\n\r\n', []],
    ['103 without Link', 'HTTP/1.1 103 Early Hints\r\nX-Hint: 1\r\n\r\n', ['X-Hint', '1']],
    ['102 Processing', 'HTTP/1.1 102 Processing\r\n\r\n', []],
    ['102 with a field', 'HTTP/1.1 102 Processing\r\nX-Hint: 1\r\n\r\n', ['X-Hint', '1']],
    ['104, which is nobody’s yet', 'HTTP/1.1 104 Upload Resumption Supported\r\nLocation: /up/1\r\n\r\n', ['Location', '/up/1']],
    ['199', 'HTTP/1.1 199 Miscellaneous\r\nX-Hint: 1\r\n\r\n', ['X-Hint', '1']],
  ])('reaches the client before the final response: %s', async (_what, interim, headers) => {
    const { upstream, release } = await heldUpstream(interim)
    await using _upstream = upstream
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(get)
    const early = await client.readHead()
    expect(early.line.startsWith(interim.slice(0, 12))).toBe(true)
    expect(early.headers).toEqual(headers)
    expect(client.unread.length).toBe(0)
    release()
    const response = await client.readResponse()
    expect([response.status, response.interims, response.text()]).toEqual([200, [], 'ok'])
    expect(client.unread.length).toBe(0)
  })

  it('reaches an HTTP/2 client before the final response', async () => {
    const { upstream, release } = await heldUpstream(`HTTP/1.1 102 Processing\r\n\r\n${hints}`)
    await using _upstream = upstream
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    const { stream, answer } = client.open()
    stream.end()
    let final = false
    stream.on('response', () => {
      final = true
    })
    await new Promise<void>((resolve) => stream.on('headers', (headers) => headers[':status'] === 103 && resolve()))
    expect(final).toBe(false)
    release()
    const response = await answer
    expect([response.status, response.body.toString(), response.reset]).toEqual([200, 'ok', 0])
    expect(response.interims).toEqual([
      { status: 102, rawHeaders: [] },
      { status: 103, rawHeaders: ['link', '</a.css>; rel=preload', 'link', '</b.js>; rel=preload', 'x-hint', '1'] },
    ])
  })

  it('may come several times, and in the packet of the final response', async () => {
    const all = `HTTP/1.1 102 Processing\r\n\r\n${hints}${hints}HTTP/1.1 100 Continue\r\n\r\n${hints}`
    await using upstream = await rawUpstream(all + ok)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 2; i++) {
      void client.write(get)
      const response = await client.readResponse()
      expect([response.status, response.text()]).toEqual([200, 'ok'])
      expect(response.interims.map(({ status }) => status)).toEqual([102, 103, 103, 103])
    }
  })

  it('is dropped when there are more than anybody wants: a flood of them would wait in memory', async () => {
    await using upstream = await rawUpstream(everyRequest(() => hints.repeat(500) + ok))
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, get.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))
    expect([response.status, response.interims.length]).toEqual([200, 64])
  })

  it('is read in whatever pieces it comes', async () => {
    const bytes = `HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\n${hints}${ok}`
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      for (const byte of bytes) {
        await connection.send(byte)
        await new Promise((resolve) => setImmediate(resolve))
      }
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, get)
    expect([response.status, response.text()]).toEqual([200, 'ok'])
    expect(response.interims.map(({ status }) => status)).toEqual([103])
  })

  it('loses its hop-by-hop and nominated fields', async () => {
    const interim =
      'HTTP/1.1 103 Early Hints\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nLink: </a>\r\nTrailer: X-T\r\n\r\n'
    await using upstream = await rawUpstream(interim + ok)
    await using h1 = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(h1.port, get)
    expect([response.status, response.text()]).toEqual([200, 'ok'])
    expect(response.interims.map(({ headers }) => headers)).toEqual([['Link', '</a>']])
    await using h2 = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(h2.port)
    expect((await client.request()).interims).toEqual([{ status: 103, rawHeaders: ['link', '</a>'] }])
  })

  it('keeps the octets of its values', async () => {
    await using upstream = await rawUpstream(`HTTP/1.1 103 Early Hints\r\nX-Octets: caf\xe9 \xff\r\n\r\n${ok}`)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, get)
    expect(response.interims.map(({ headers }) => headers)).toEqual([['X-Octets', 'caf\xe9 \xff']])
  })

  it('comes before a HEAD, a 304, an error and a chunked answer, too', async () => {
    await using upstream = await rawUpstream(
      everyRequest(({ target, method }) => {
        if (method === 'HEAD') return `${hints}HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n`
        if (target === '/304') return `${hints}HTTP/1.1 304 Not Modified\r\n\r\n`
        if (target === '/500') return `${hints}HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n`
        return `${hints}HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n`
      }),
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (const [method, target, status] of [
      ['HEAD', '/', 200],
      ['GET', '/304', 304],
      ['GET', '/500', 500],
      ['GET', '/', 200],
    ] as const) {
      void client.write(`${method} ${target} HTTP/1.1\r\nHost: public.test\r\n\r\n`)
      const response = await client.readResponse({ method })
      expect([response.status, response.interims.map((interim) => interim.status)]).toEqual([status, [103]])
    }
  })

  it('does not go to an HTTP/1.0 client', async () => {
    await using upstream = await rawUpstream(`HTTP/1.1 102 Processing\r\n\r\n${hints}${ok}`)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, 'GET / HTTP/1.0\r\nHost: public.test\r\nConnection: keep-alive\r\n\r\n')
    expect([response.status, response.interims, response.text()]).toEqual([200, [], 'ok'])
    expect(response.raw.toString('latin1')).not.toMatch(/ 10[23] /)
  })

  it('does not mix into the answer before it when requests are pipelined', async () => {
    const { opened, open } = gate()
    await using upstream = await rawUpstream(
      everyRequest(async ({ target }) => {
        if (target === '/slow') await opened
        return hints + ok
      }),
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write('GET /slow HTTP/1.1\r\nHost: public.test\r\n\r\nGET /fast HTTP/1.1\r\nHost: public.test\r\n\r\n')
    await upstream.request(2)
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(client.received.length).toBe(0)
    open()
    const first = await client.readResponse()
    expect([first.status, first.text(), first.interims.map(({ status }) => status)]).toEqual([200, 'ok', [103]])
    const second = await client.readResponse()
    expect([second.status, second.text()]).toEqual([200, 'ok'])
    expect(client.unread.length).toBe(0)
  })

  it('is no response to hooks, to retries and to the outcome', async () => {
    await using upstream = await rawUpstream(hints + ok)
    const log = outcomeLog()
    const heads: number[] = []
    const look = () => ({ onResponse: (response: { status: number }) => void heads.push(response.status) })
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage, look] }, { transport })
    expect((await rawRequest(running.port, get)).interims.length).toBe(1)
    expect(heads).toEqual([200])
    expect((await log.outcome(1)).status).toBe(200)
  })

  it('before a death of the upstream is followed by 502', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(hints)
      connection.end()
    })
    await using running = await startProxy({ upstreams: [upstream.url], retry: false }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(get)
    const response = await client.readResponse()
    expect([response.status, response.complete]).toEqual([502, true])
  })

  it('passes through an asynchronous stage and a response hook', async () => {
    await using upstream = await rawUpstream(hints + ok)
    const late = async () => {
      await new Promise((resolve) => setImmediate(resolve))
      return { onResponse: async () => new Promise<void>((resolve) => setImmediate(resolve)) }
    }
    await using running = await startProxy({ upstreams: [upstream.url], use: [late] }, { transport })
    const response = await rawRequest(running.port, get)
    expect([response.status, response.text(), response.interims.map(({ status }) => status)]).toEqual([200, 'ok', [103]])
  })
})

describe.each(transports)('E14 over %s: An unsolicited 100', (_, transport) => {
  it.each([
    ['alone', 'HTTP/1.1 100 Continue\r\n\r\n'],
    ['with fields', 'HTTP/1.1 100 Continue\r\nX-A: 1\r\nContent-Length: 5\r\n\r\n'],
    ['without a reason', 'HTTP/1.1 100\r\n\r\n'],
    ['ten times', 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(10)],
  ])('%s does not fail the request, nor reach the client', async (_what, interim) => {
    const { upstream, release } = await heldUpstream(interim, `${interim}${ok}`)
    await using _upstream = upstream
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(get)
    await upstream.request(1)
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(client.received.length).toBe(0)
    release()
    const response = await client.readResponse()
    expect([response.status, response.interims, response.text()]).toEqual([200, [], 'ok'])
  })

  it('does not fail a POST and leaves the pooled connection usable', async () => {
    await using upstream = await rawUpstream(everyRequest(() => `HTTP/1.1 100 Continue\r\n\r\n${ok}`))
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 3; i++) {
      void client.write('POST / HTTP/1.1\r\nHost: public.test\r\nContent-Length: 2\r\n\r\nhi')
      const response = await client.readResponse()
      expect([response.status, response.interims]).toEqual([200, []])
    }
    expect(upstream.connections.length).toBe(1)
  })

  it('does not reach an HTTP/2 client', async () => {
    await using upstream = await rawUpstream(`HTTP/1.1 100 Continue\r\n\r\n${ok}`)
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    const { stream, answer } = client.open()
    stream.end()
    let continued = 0
    stream.on('continue', () => void continued++)
    const response = await answer
    expect([response.status, response.interims, continued]).toEqual([200, [], 0])
  })

  it('behind the response that is complete does not become part of the next one', async () => {
    await using upstream = await rawUpstream(
      everyRequest(async (_request, connection) => {
        await connection.send(ok)
        await connection.send('HTTP/1.1 100 Continue\r\n\r\n')
        return undefined
      }),
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 3; i++) {
      void client.write(get)
      const response = await client.readResponse()
      expect([response.status, response.interims, response.text()]).toEqual([200, [], 'ok'])
      for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
    }
  })

  it('101 is no such thing: switching protocols unasked is a 502', async () => {
    await using upstream = await rawUpstream('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
    await using running = await startProxy({ upstreams: [upstream.url], retry: false }, { transport })
    const response = await rawRequest(running.port, get)
    expect([response.status, response.interims]).toEqual([502, []])
  })
})
