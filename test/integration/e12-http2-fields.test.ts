/**
 * E12. Between HTTP/2 and HTTP/1.1 the same message is written differently (RFC 9113 §8.2, §8.3): pseudo-fields become the request line and
 * Host, and the fields that describe a connection have no place in HTTP/2, where a client must treat a message with one as malformed.
 */
import { everyRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, transports } from './setup.ts'

/** RFC 9113 §8.2.2, and what goes by the same name. */
const connectionSpecific = ['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade']

function connectionFields(rawHeaders: readonly string[]): string[] {
  return rawHeaders.filter((name, i) => i % 2 === 0 && connectionSpecific.includes(name.toLowerCase()))
}

describe.each(transports)('E12 over %s: An HTTP/2 request', (_, transport) => {
  describe.each([
    ['in clear', false],
    ['over TLS', true],
  ])('%s', (_how, https) => {
    it('has its :authority as Host, once, and no pseudo-field', async () => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true, https })
      await using client = await h2Client(running.port, https ? 'https' : 'http')
      const response = await client.request({ ':authority': 'public.test:8443', ':path': '/a?b', 'x-a': '1', 'user-agent': 'u' })
      expect([response.status, response.reset]).toEqual([200, 0])
      const [request] = upstream.requests
      expect(request?.line).toBe('GET /a?b HTTP/1.1')
      expect(request?.all('host')).toEqual(['public.test:8443'])
      expect(request?.fields.filter((line) => line.startsWith(':') || /^(?:method|path|scheme|authority):/i.test(line))).toEqual([])
      expect([request?.all('x-a'), request?.all('user-agent')]).toEqual([['1'], ['u']])
      expect(request?.all('x-forwarded-proto')).toEqual([https ? 'https' : 'http'])
      expect(request?.all('x-forwarded-host')).toEqual(['public.test:8443'])
    })
  })

  it('shows no pseudo-field to stages and hooks', async () => {
    await using upstream = await okUpstream()
    const seen: string[] = []
    const names = (list: Iterable<[string, string]>): void => void seen.push(...[...list].map(([name]) => name))
    const look = (exchange: { headers: Iterable<[string, string]> }) => {
      names(exchange.headers)
      return { onAttempt: names, onResponse: (response: { headers: Iterable<[string, string]> }) => names(response.headers) }
    }
    await using running = await startProxy({ upstreams: [upstream.url], use: [look] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    await client.request({ ':authority': 'public.test', 'x-a': '1' })
    expect(seen).toContain('x-a')
    expect(seen.filter((name) => name.startsWith(':'))).toEqual([])
  })

  it('has its cookie crumbs put together', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    await client.request({ cookie: ['a=1', 'b=2', 'c="3; 4"'] })
    expect(upstream.requests[0]?.all('cookie')).toEqual(['a=1; b=2; c="3; 4"'])
  })

  it('keeps several lines of other fields apart and in order', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    await client.request({ 'x-many': ['1', '2', '3'] })
    expect(upstream.requests[0]?.all('x-many').join(', ')).toBe('1, 2, 3')
  })

  it('has no connection option of its own upstream', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    await client.request({ te: 'trailers' })
    const [request] = upstream.requests
    expect(request?.header('connection') ?? 'keep-alive').toBe('keep-alive')
    expect(request?.all('te')).toEqual(['trailers'])
    for (const name of ['upgrade', 'http2-settings', 'keep-alive', 'proxy-connection']) expect(request?.all(name)).toEqual([])
  })

  it('with an authority that HTTP/1.1 could not carry as Host is refused', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    for (const authority of ['user@public.test', 'a.test,b.test', 'a.test/x']) {
      const { stream, answer } = client.open({ ':authority': authority })
      stream.end()
      const response = await answer
      expect(response.status === 400 || response.reset !== 0).toBe(true)
    }
    expect(upstream.connections).toEqual([])
  })
})

describe.each(transports)('E12 over %s: An HTTP/2 response', (_, transport) => {
  it.each<[what: string, answer: string]>([
    ['Connection', 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'],
    ['Keep-Alive', 'HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok'],
    ['Keep-Alive that nobody nominates', 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok'],
    ['Proxy-Connection', 'HTTP/1.1 200 OK\r\nProxy-Connection: keep-alive\r\nContent-Length: 2\r\n\r\nok'],
    ['Upgrade', 'HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok'],
    ['Transfer-Encoding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'],
    ['the end of the connection for a length', 'HTTP/1.1 200 OK\r\n\r\nok'],
  ])('carries no connection-specific field when the upstream sent %s', async (_what, answer) => {
    const warned: string[] = []
    const onWarning = (warning: Error): void => void warned.push(warning.message)
    process.on('warning', onWarning)
    onTestFinished(() => void process.off('warning', onWarning))
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(answer)
      connection.end()
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    const response = await client.request()
    expect([response.status, response.body.toString(), response.reset]).toEqual([200, 'ok', 0])
    expect(connectionFields(response.rawHeaders)).toEqual([])
    expect(warned).toEqual([])
  })

  it('carries none on 204, 304 and answers to HEAD', async () => {
    await using upstream = await rawUpstream(
      everyRequest(({ target }) => {
        const fields = 'Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n'
        if (target === '/204') return `HTTP/1.1 204 No Content\r\n${fields}\r\n`
        if (target === '/304') return `HTTP/1.1 304 Not Modified\r\n${fields}Content-Length: 7\r\n\r\n`
        return `HTTP/1.1 200 OK\r\n${fields}Content-Length: 7\r\n\r\n`
      }),
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    for (const [method, path, status] of [
      ['GET', '/204', 204],
      ['GET', '/304', 304],
      ['HEAD', '/', 200],
    ] as const) {
      const response = await client.request({ ':method': method, ':path': path })
      expect([response.status, response.body.length, response.reset]).toEqual([status, 0, 0])
      expect(connectionFields(response.rawHeaders)).toEqual([])
    }
  })

  it('has lower-case names, and several lines of one name stay several', async () => {
    await using upstream = await rawUpstream(
      everyRequest(() => 'HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-Upper: 1\r\nSET-COOKIE: b=2\r\nContent-Length: 2\r\n\r\nok'),
    )
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    const response = await client.request()
    expect(response.all('set-cookie')).toEqual(['a=1', 'b=2'])
    expect(response.all('x-upper')).toEqual(['1'])
    expect(response.rawHeaders.filter((name, i) => i % 2 === 0 && name !== name.toLowerCase())).toEqual([])
  })
})

describe('E12: An HTTP/2 response made by the proxy', () => {
  it('carries no connection-specific field when a stage or a hook sets one', async () => {
    await using upstream = await okUpstream()
    const fields = {
      Connection: 'close',
      'Keep-Alive': 'timeout=1',
      'Proxy-Connection': 'close',
      Upgrade: 'h2c',
      'Transfer-Encoding': 'chunked',
      'X-A': '1',
    }
    const stage = (exchange: { url: string }) => {
      if (exchange.url === '/reply') return { status: 200, headers: fields, body: 'hi' }
      return {
        onResponse: (response: { headers: { set(name: string, value: string): unknown } }) => {
          for (const [name, value] of Object.entries(fields)) response.headers.set(name, value)
        },
      }
    }
    await using running = await startProxy({ upstreams: [upstream.url], use: [stage] }, { http2: true })
    await using client = await h2Client(running.port)
    for (const [path, body] of [
      ['/reply', 'hi'],
      ['/hook', 'ok'],
    ]) {
      const response = await client.request({ ':path': path as string })
      expect([response.status, response.body.toString(), response.reset]).toEqual([200, body, 0])
      expect(connectionFields(response.rawHeaders)).toEqual([])
      expect(response.all('x-a')).toEqual(['1'])
    }
  })

  it('carries none on errors, and while the proxy drains', async () => {
    await using upstream = await rawUpstream((connection) => connection.destroy())
    await using running = await startProxy({ upstreams: [upstream.url], retry: false }, { http2: true })
    await using client = await h2Client(running.port)
    const failed = await client.request()
    expect(failed.status).toBe(502)
    expect(connectionFields(failed.rawHeaders)).toEqual([])
    const refused = await client.request({ ':method': 'TRACE' })
    expect(refused.status).toBe(405)
    expect(connectionFields(refused.rawHeaders)).toEqual([])
  })
})
