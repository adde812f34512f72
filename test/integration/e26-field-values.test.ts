/**
 * E26. Header values with bytes above 0x7F pass through byte-identical, and values with CR, LF or NUL are refused.
 *
 * A value is octets. Whoever reads them as text and writes them as text again must use the same one-byte encoding twice; whoever lets a line
 * end through lets the sender write fields, and responses, of his own.
 */
import { everyRequest, type RawResponse, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get, head, ok } from './messages.ts'
import { startProxy, transports } from './observed.ts'

/** Every octet that a value may hold (RFC 9110 §5.5), the blank ones inside. */
const everyOctet = Buffer.from([
  0x21,
  0x09,
  0x20,
  ...Array.from({ length: 0x7e - 0x20 }, (_, i) => 0x21 + i),
  ...Array.from({ length: 0x80 }, (_, i) => 0x80 + i),
]).toString('latin1')
const values = {
  'every octet': everyOctet,
  latin1: 'caf\xe9',
  'UTF-8': Buffer.from('Grüße, 世界 🌍').toString('latin1'),
  'broken UTF-8': '\xc3\x28\xa0\xff\xfe',
}

const names = ['X-Value', 'Content-Disposition', 'Location', 'Set-Cookie', 'Content-Type', 'ETag', 'Link'] as const

describe.each(transports)('E26 over %s', (_name, transport) => {
  describe.each(Object.entries(values))('%s', (_what, value) => {
    it.each(['Content-Length: 2', 'Transfer-Encoding: chunked'])('passes in a response (%s), in every field', async (framing) => {
      await using upstream = await rawUpstream(
        everyRequest(
          () =>
            `${['HTTP/1.1 200 OK', ...names.map((name) => `${name}: ${value}`), framing].join('\r\n')}\r\n\r\n${framing.endsWith('2') ? 'ok' : '2\r\nok\r\n0\r\n\r\n'}`,
        ),
      )
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(proxy.port, get())
      for (const name of names) expect([name, response.header(name)]).toEqual([name, value])
      expect(response.text()).toBe('ok')
    })

    it.each([
      ['GET', [], ''],
      ['POST', ['Content-Length: 2'], 'hi'],
      ['POST', ['Transfer-Encoding: chunked'], '2\r\nhi\r\n0\r\n\r\n'],
    ] as const)('passes in a request (%s %j), in every field', async (method, framing, body) => {
      await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const request = head(method, '/', ...framing, ...names.map((name) => `${name}: ${value}`), `Cookie: a=${value}`, `Referer: ${value}`)
      const response = await rawRequest(proxy.port, Buffer.from(request + body, 'latin1'))
      expect(response.status).toBe(200)
      const [seen] = upstream.requests
      for (const name of names) expect([name, seen?.header(name)]).toEqual([name, value])
      expect([seen?.header('cookie'), seen?.header('referer')]).toEqual([`a=${value}`, value])
      expect(seen?.text()).toBe(body === '' ? '' : 'hi')
    })

    it('passes through stages, in interim heads and trailers', async () => {
      await using upstream = await rawUpstream(
        everyRequest(
          () =>
            `HTTP/1.1 103 Early Hints\r\nLink: ${value}\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nX-Value: ${value}\r\n\r\n0\r\nX-Sum: ${value}\r\n\r\n`,
        ),
      )
      await using proxy = await startProxy(
        {
          upstreams: [upstream.url],
          use: [
            (exchange) => ({
              onAttempt: (headers) => void headers.set('X-Copied', exchange.headers.get('x-value') ?? ''),
              onResponse: (response) => void response.headers.set('X-Copied', response.headers.get('x-value') ?? ''),
            }),
          ],
        },
        { transport },
      )
      const response = await rawRequest(proxy.port, Buffer.from(get('/', `X-Value: ${value}`, 'TE: trailers', 'Connection: TE'), 'latin1'))
      expect(response.interims[0]?.headers).toEqual(['Link', value])
      expect(response.header('x-copied')).toBe(value)
      expect(response.trailers).toEqual(['X-Sum', value])
      expect(upstream.requests[0]?.header('x-copied')).toBe(value)
    })

    it.each([false, true])('in a reason phrase, which means nothing, is no reason to fail (with hooks: %s)', async (hooked) => {
      await using upstream = await rawUpstream(everyRequest(() => `HTTP/1.1 200 ${value}\r\nContent-Length: 2\r\n\r\nok`))
      const use = hooked ? [() => ({ onResponse: () => {} })] : []
      await using proxy = await startProxy({ upstreams: [upstream.url], use }, { transport })
      const response = await rawRequest(proxy.port, get())
      expect([response.status, response.text()]).toEqual([200, 'ok'])
      expect([value, 'OK']).toContain(response.reason)
    })
  })

  it('to and from an HTTP/2 client', async () => {
    // Node's client gives and takes latin1 strings for octets above 0x7f.
    await using upstream = await rawUpstream(
      everyRequest((request) => ok('ok', `X-Value: ${values.latin1}`, `X-Back: ${request.header('x-value')}`)),
    )
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(proxy.port)
    const response = await client.request({ 'x-value': values.latin1 })
    expect(response.all('x-value')).toEqual([values.latin1])
    expect(upstream.requests[0]?.header('x-value')).toBe(values.latin1)
    expect(response.all('x-back')).toEqual([values.latin1])
  })

  describe('control octets', () => {
    const bad = [
      ['CR', 'a\rb'],
      ['CR at the end', 'a\r'],
      ['LF', 'a\nX-Injected: 1'],
      ['NUL', 'a\0b'],
    ] as const

    it.each(bad)('%s in a request: refused, and no upstream sees it', async (_what, value) => {
      await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const response = await rawRequest(proxy.port, Buffer.from(get('/', `X-Value: ${value}`), 'latin1'), { until: 'close' })
      expect(response.status).toBe(400)
      expect(upstream.connections).toHaveLength(0)
    })

    it.each(bad)('%s in a response: 502, and nothing of it reaches the client', async (_what, value) => {
      await using upstream = await rawUpstream(everyRequest(() => ok('secret', `X-Value: ${value}`, 'X-After: leaked')))
      await using proxy = await startProxy({ upstreams: [upstream.url], retry: false }, { transport })
      const response = await rawRequest(proxy.port, get())
      expect(response.status).toBe(502)
      expect(response.raw.toString('latin1')).not.toMatch(/secret|leaked|injected/i)
    })

    it.each(bad)('%s in an interim head or a trailer: not relayed', async (_what, value) => {
      const scripts = [
        `HTTP/1.1 103 Early Hints\r\nLink: ${value}\r\n\r\n${ok('fine')}`,
        `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nfine\r\n0\r\nX-Sum: ${value}\r\n\r\n`,
      ]
      for (const script of scripts) {
        await using upstream = await rawUpstream(everyRequest(() => script))
        await using proxy = await startProxy({ upstreams: [upstream.url], retry: false }, { transport })
        await using client = await rawConnect(proxy.port)
        void client.write(get('/', 'TE: trailers', 'Connection: TE'))
        // Whole, refused or broken off: but well-formed, and without the injected line.
        const response: RawResponse | undefined = await client.readResponse().catch((error: { reason?: string }) => {
          expect(error.reason).toBe('ended')
          return undefined
        })
        expect(client.received.toString('latin1')).not.toMatch(/injected|\0/i)
        if (response?.complete) expect([200, 502]).toContain(response.status)
      }
    })

    it.each([...bad, ['a character above U+00FF', 'snow ☃'], ['DEL', 'a\x7fb']] as const)(
      '%s from a stage: refused where it is set',
      async (_what, value) => {
        const thrown: unknown[] = []
        const caught = (act: () => void): void => {
          try {
            act()
          } catch (error) {
            thrown.push((error as { code?: string }).code)
          }
        }
        await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
        await using proxy = await startProxy(
          {
            upstreams: [upstream.url],
            use: [
              (exchange) => {
                caught(() => exchange.headers.set('X-Value', value))
                caught(() => exchange.headers.append('X-Value', value))
                return {
                  onAttempt: (headers) => caught(() => headers.set('X-Value', ['fine', value])),
                  onResponse: (response) => caught(() => response.headers.append('X-Value', value)),
                }
              },
            ],
          },
          { transport },
        )
        const response = await rawRequest(proxy.port, get())
        expect(thrown).toEqual(Array(4).fill('ERR_HEADER_VALUE'))
        expect([response.status, response.header('x-value')]).toEqual([200, undefined])
        expect(upstream.requests[0]?.header('x-value')).toBeUndefined()
      },
    )

    it.each(bad)('%s in what a stage lets through uncaught: a 5xx of the proxy’s, not a split message', async (_what, value) => {
      await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
      const ways: Parameters<typeof startProxy>[0][] = [
        { upstreams: [upstream.url], use: [() => ({ onAttempt: (headers) => void headers.set('X-Value', value) })] },
        { upstreams: [upstream.url], use: [() => ({ onResponse: (response) => void response.headers.set('X-Value', value) })] },
        { upstreams: [upstream.url], use: [() => ({ status: 200, headers: { 'X-Value': value } })] },
        {
          upstreams: [upstream.url],
          use: [() => ({ onResponse: (response) => response.replace({ status: 200, headers: { 'X-Value': value } }) })],
        },
        { upstreams: [upstream.url], headers: { request: { set: { 'X-Value': () => value } } } },
        { upstreams: [upstream.url], headers: { response: { set: { 'X-Value': () => value } } } },
      ]
      for (const options of ways) {
        await using proxy = await startProxy(options, { transport })
        const response = await rawRequest(proxy.port, get())
        expect(response.status).toBe(500)
        expect(response.raw.toString('latin1')).not.toMatch(/injected|x-value/i)
        expect((await proxy.outcome()).error?.source).toBe('proxy')
      }
      for (const request of upstream.requests) expect(request.raw.toString('latin1')).not.toMatch(/injected|x-value/i)
    })

    it('in the target of a rewrite: refused as well', async () => {
      await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
      for (const target of ['/a b', '/a\r\nX-Injected: 1', '/a\0', '/a HTTP/1.1\r\n\r\nGET /b', '/a\x7f']) {
        await using proxy = await startProxy({ routes: [{ pool: { upstreams: [upstream.url] }, rewrite: () => target }] }, { transport })
        expect((await rawRequest(proxy.port, get())).status).toBe(500)
      }
      expect(upstream.requests).toEqual([])
    })
  })

  it('octets in the target pass unchanged too', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('ok')))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(proxy.port, Buffer.from('GET /caf\xe9?q=\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n', 'latin1'))
    // A target above 0x7f is no URI (RFC 3986 §2): refused, or forwarded as the bytes that came.
    if (response.status === 200)
      expect(upstream.connections[0]?.received.toString('latin1')).toContain('GET /caf\xe9?q=\xc3\xa9 HTTP/1.1\r\n')
    else expect(response.status).toBe(400)
  })
})
