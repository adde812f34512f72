/** E3. What an upstream says to its own next hop, by way of `Connection`, ends at the proxy; on HTTP/2 such a field would even kill the stream. */
import { everyRequest, type RawUpstream, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { startProxy, transports } from './setup.ts'

const get = 'GET / HTTP/1.1\r\nHost: public.test\r\n\r\n'

function upstreamWith(...lines: string[]): Promise<RawUpstream> {
  return rawUpstream(everyRequest(() => `HTTP/1.1 200 OK\r\n${lines.map((line) => `${line}\r\n`).join('')}Content-Length: 2\r\n\r\nok`))
}

/** Name and values of every field that the client got, by either protocol. */
interface Seen {
  readonly status: number
  readonly body: string
  all(name: string): string[]
}

describe.each(transports)('E3 over %s: A response field named by the upstream in Connection', (_, transport) => {
  describe.each<[protocol: string, ask: (upstream: RawUpstream) => Promise<Seen>]>([
    [
      'HTTP/1.1',
      async (upstream) => {
        await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
        const response = await rawRequest(running.port, get)
        return { status: response.status, body: response.text(), all: response.all }
      },
    ],
    [
      'HTTP/2',
      async (upstream) => {
        await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
        await using client = await h2Client(running.port)
        const response = await client.request()
        expect(response.reset).toBe(0)
        return { status: response.status, body: response.body.toString(), all: response.all }
      },
    ],
  ])('is removed for a client on %s', (protocol, ask) => {
    it.each<[spelling: string, lines: string[]]>([
      ['alone', ['Connection: X-Hop']],
      ['in another case', ['Connection: x-HOP']],
      ['beside close', ['Connection: close, X-Hop']],
      ['beside keep-alive', ['Connection: Keep-Alive,X-Hop']],
      ['between empty elements', ['Connection: ,, X-Hop ,']],
      ['on the second Connection line', ['Connection: keep-alive', 'Connection: X-Hop']],
    ])('when named %s', async (_spelling, lines) => {
      await using upstream = await upstreamWith('X-Hop: 1', ...lines, 'x-hop: 2', 'X-Hop-Too: 3', 'X-Public: 4')
      const seen = await ask(upstream)
      expect([seen.status, seen.body]).toEqual([200, 'ok'])
      expect(seen.all('x-hop')).toEqual([])
      expect(seen.all('x-hop-too')).toEqual(['3'])
      expect(seen.all('x-public')).toEqual(['4'])
      expect(seen.all('connection').join()).not.toMatch(/hop/i)
      if (protocol === 'HTTP/2') expect(seen.all('connection')).toEqual([])
    })

    it('also when it is a well-known one', async () => {
      await using upstream = await upstreamWith('Connection: Set-Cookie, ETag', 'Set-Cookie: a=1', 'Set-Cookie: b=2', 'ETag: "x"')
      const seen = await ask(upstream)
      expect([seen.status, seen.body]).toEqual([200, 'ok'])
      expect([...seen.all('set-cookie'), ...seen.all('etag')]).toEqual([])
    })

    it('but naming the framing changes no framing', async () => {
      await using upstream = await upstreamWith('Connection: Content-Length, Transfer-Encoding')
      const seen = await ask(upstream)
      expect([seen.status, seen.body]).toEqual([200, 'ok'])
    })

    it('but naming a field that response rules set does not remove that', async () => {
      await using upstream = await upstreamWith('Connection: X-Frame-Options', 'X-Frame-Options: ALLOWALL')
      const rules = { headers: { response: { set: { 'X-Frame-Options': 'DENY' } } } }
      await using running = await startProxy({ upstreams: [upstream.url], ...rules }, { transport })
      expect((await rawRequest(running.port, get)).all('x-frame-options')).toEqual(['DENY'])
    })
  })

  it('is removed before a hook sees it', async () => {
    await using upstream = await upstreamWith('Connection: X-Hop', 'X-Hop: 1', 'X-Public: 2')
    const seen: string[] = []
    const look = () => ({
      onResponse: (response: { headers: Iterable<[string, string]> }) => void seen.push(...[...response.headers].flat()),
    })
    await using running = await startProxy({ upstreams: [upstream.url], use: [look] }, { transport })
    await rawRequest(running.port, get)
    expect(seen.map((text) => text.toLowerCase())).not.toContain('x-hop')
    expect(seen).toContain('X-Public')
  })

  it('is removed from HEAD and 304 answers, too', async () => {
    await using upstream = await rawUpstream(
      everyRequest(({ method }) =>
        method === 'HEAD'
          ? 'HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 7\r\n\r\n'
          : 'HTTP/1.1 304 Not Modified\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n',
      ),
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const head = await rawRequest(running.port, 'HEAD / HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect([head.status, head.header('content-length'), head.all('x-hop')]).toEqual([200, '7', []])
    const unchanged = await rawRequest(running.port, get)
    expect([unchanged.status, unchanged.all('x-hop')]).toEqual([304, []])
  })
})
