/**
 * E29. A request whose body was already consumed by a parser is replayed correctly or fails at once, and never hangs.
 *
 * The oldest complaint about proxies in Node: `app.use(express.json())` in front, and every POST waits for ever. Correctly means that the
 * upstream reads what the client sent, under the fields that the client sent with it; where that is not certain, an error is right and a
 * guess is not.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { deflateSync, gzipSync } from 'node:zlib'
import { createProxy, type ProxyOptions } from '@weir/core'
import { everyRequest, type RawResponse, type RawUpstream, rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import express from 'express'
import { describe, expect, it } from 'vitest'
import { head, ok } from './messages.ts'
import { listen, observer, transports, until } from './observed.ts'

type Middleware = (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => void

interface Sent {
  readonly response: RawResponse
  readonly upstream: RawUpstream
  readonly reason: string
}

describe.each(transports)('E29 over %s', (_name, transport) => {
  /** One request through an Express application with these parsers in front of the proxy. */
  async function through(parsers: readonly unknown[], request: string | Buffer, options: Partial<ProxyOptions> = {}): Promise<Sent> {
    await using upstream = await rawUpstream(everyRequest(() => ok('got it')))
    const own = transport()
    const { stage, outcome } = observer()
    await using proxy = createProxy({ upstreams: [upstream.url], transport: own, ...options, use: [stage] })
    const app = express()
    for (const parser of parsers) app.use(parser as Middleware)
    app.use(proxy)
    await using server = await listen(createServer(app))
    const response = await rawRequest(server.port, request)
    const { reason } = await outcome()
    await own.close?.()
    return { response, upstream, reason }
  }

  const bodied = (type: string, body: string | Buffer, ...lines: string[]): Buffer =>
    Buffer.concat([
      Buffer.from(
        head('POST', '/path?q=1', ...(type === '' ? [] : [`Content-Type: ${type}`]), `Content-Length: ${body.length}`, ...lines),
        'latin1',
      ),
      Buffer.from(body as string),
    ])
  const chunked = (type: string, body: string, ...lines: string[]): string =>
    `${head('POST', '/', `Content-Type: ${type}`, 'Transfer-Encoding: chunked', ...lines)}${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`

  /** Replayed: one request, framed once, with these bytes. */
  function expectReplayed({ response, upstream, reason }: Sent, look: (body: Buffer) => void): void {
    expect([response.status, response.text(), reason]).toEqual([200, 'got it', 'completed'])
    expect(upstream.requests).toHaveLength(1)
    const [request] = upstream.requests
    look(request?.body as Buffer)
    expect(request?.all('content-length')).toEqual([String(request?.body.length)])
    expect(request?.header('transfer-encoding')).toBeUndefined()
  }

  /** Failed at once: an answer that says why, and nothing at the upstream. */
  function expectRefused({ response, upstream, reason }: Sent): void {
    expect([response.status, response.header('proxy-status'), reason]).toEqual([
      500,
      'weir; error=proxy_configuration_error; details="ERR_BODY_CONSUMED"',
      'ERR_BODY_CONSUMED',
    ])
    expect(upstream.requests).toHaveLength(0)
  }

  describe('express.json()', () => {
    const value = { name: 'Grüße', list: [1, 2.5, null, { deep: true }], empty: {} }

    it.each(['application/json', 'application/json; charset=utf-8', 'Application/JSON;charset="UTF-8"', 'application/problem+json'])(
      'with a length (%s)',
      async (type) => {
        const sent = await through([express.json({ type: () => true })], bodied(type, Buffer.from(JSON.stringify(value, null, 2))))
        expectReplayed(sent, (body) => expect(JSON.parse(body.toString())).toEqual(value))
        expect(sent.upstream.requests[0]?.header('content-type')).toBe(type)
        expect(sent.upstream.requests[0]?.target).toBe('/path?q=1')
      },
    )

    it('chunked', async () => {
      expectReplayed(await through([express.json()], chunked('application/json', '{"a":1}')), (body) =>
        expect(body.toString()).toBe('{"a":1}'),
      )
    })

    it('with the bytes kept as req.rawBody: exactly those', async () => {
      const text = '{ "id": 12345678901234567890, "id": 2,  "x": 1.0 }'
      const keep = express.json({
        verify: (req, _res, bytes) => {
          ;(req as { rawBody?: Buffer }).rawBody = bytes
        },
      })
      expectReplayed(await through([keep], bodied('application/json', text)), (body) => expect(body.toString()).toBe(text))
    })

    it('of an encoded body: what was unpacked is not sent as packed', async () => {
      for (const parser of [
        express.json(),
        express.json({
          verify: (req, _res, bytes) => {
            ;(req as { rawBody?: Buffer }).rawBody = bytes
          },
        }),
      ]) {
        const sent = await through([parser], bodied('application/json', gzipSync('{"a":1}'), 'Content-Encoding: gzip'))
        if (sent.response.status === 500) expectRefused(sent)
        else {
          // The other right answer: unpacked, and said so.
          expectReplayed(sent, (body) => expect(body.toString()).toBe('{"a":1}'))
          expect(sent.upstream.requests[0]?.header('content-encoding')).toBeUndefined()
        }
      }
    })

    it('in another charset: the bytes are in the charset that the type names, or it fails', async () => {
      const type = 'application/json; charset=utf-16le'
      const sent = await through([express.json()], bodied(type, Buffer.from('{"a":"ü"}', 'utf16le')))
      if (sent.response.status === 500) expectRefused(sent)
      else
        expectReplayed(sent, (body) =>
          expect(JSON.parse(body.toString(sent.upstream.requests[0]?.header('content-type') === type ? 'utf16le' : 'utf8'))).toEqual({
            a: 'ü',
          }),
        )
    })

    it('of a body that is no object', async () => {
      for (const text of ['null', '0', 'false', '""', '"text"', '[]']) {
        const sent = await through([express.json({ strict: false })], bodied('application/json', text))
        if (sent.response.status === 500) expectRefused(sent)
        else expectReplayed(sent, (body) => expect(body.toString()).toBe(text))
      }
    })

    it('that found nothing to parse changes nothing', async () => {
      const empty = await through([express.json()], head('GET', '/'))
      expect([empty.response.status, empty.upstream.requests[0]?.body.length]).toEqual([200, 0])
      const none = await through([express.json()], head('POST', '/', 'Content-Type: application/json', 'Content-Length: 0'))
      expect([none.response.status, none.upstream.requests[0]?.body.length]).toEqual([200, 0])
      const other = await through([express.json()], bodied('text/plain', 'not json'))
      expectReplayed(other, (body) => expect(body.toString()).toBe('not json'))
    })
  })

  describe('express.urlencoded()', () => {
    const type = 'application/x-www-form-urlencoded'

    it.each(['a=1&b=two+words&c=%C3%BC', 'a=1&a=2&a=3', 'a=', 'a%5Bb%5D=1&%26=%3D'])('%s', async (form) => {
      const sent = await through([express.urlencoded({ extended: false })], bodied(type, form))
      expectReplayed(sent, (body) => expect([...new URLSearchParams(body.toString())]).toEqual([...new URLSearchParams(form)]))
    })

    it('extended, flat: the same; nested: what it was cannot be known', async () => {
      const flat = await through([express.urlencoded({ extended: true })], bodied(type, 'a=1&b=2'))
      expectReplayed(flat, (body) => expect(body.toString()).toBe('a=1&b=2'))
      expectRefused(await through([express.urlencoded({ extended: true })], bodied(type, 'a[b]=1&a[c]=2')))
    })

    it('chunked', async () => {
      expectReplayed(await through([express.urlencoded()], chunked(type, 'a=1&b=2')), (body) => expect(body.toString()).toBe('a=1&b=2'))
    })
  })

  describe('express.raw() and express.text()', () => {
    const everything = { type: () => true }

    it('give back every byte', async () => {
      const bytes = Buffer.from(Array.from({ length: 1000 }, (_, i) => (i * 7) & 0xff))
      expectReplayed(await through([express.raw(everything)], bodied('application/octet-stream', bytes)), (body) =>
        expect(body.equals(bytes)).toBe(true),
      )
      expectReplayed(await through([express.raw(everything)], bodied('', bytes)), (body) => expect(body.equals(bytes)).toBe(true))
      expectReplayed(await through([express.text(everything)], bodied('text/plain; charset=utf-8', Buffer.from('Grüße'))), (body) =>
        expect(body.toString()).toBe('Grüße'),
      )
    })

    it('of an encoded body: what was unpacked is not sent as packed', async () => {
      for (const [parser, pack, encoding] of [
        [express.raw(everything), gzipSync, 'gzip'],
        [express.text(everything), deflateSync, 'deflate'],
      ] as const) {
        const sent = await through([parser], bodied('text/plain', pack('plain text'), `Content-Encoding: ${encoding}`))
        if (sent.response.status === 500) expectRefused(sent)
        else {
          expectReplayed(sent, (body) => expect(body.toString()).toBe('plain text'))
          expect(sent.upstream.requests[0]?.header('content-encoding')).toBeUndefined()
        }
      }
    })

    it('of a text in another charset: its bytes, or an error', async () => {
      const bytes = Buffer.from('caf\xe9', 'latin1')
      const sent = await through([express.text(everything)], bodied('text/plain; charset=iso-8859-1', bytes))
      if (sent.response.status === 500) expectRefused(sent)
      else expectReplayed(sent, (body) => expect(body.equals(bytes)).toBe(true))
    })
  })

  describe('what cannot be rebuilt fails at once', () => {
    const multipart = bodied('multipart/form-data; boundary=x', '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n')

    it('a multipart body that somebody read', async () => {
      const reader: Middleware = (req, _res, next) => {
        req.resume()
        req.on('end', () => {
          Object.assign(req, { body: { a: '1' }, files: [] })
          next()
        })
      }
      expectRefused(await through([reader], multipart))
    })

    it('a body that somebody drained, and left nothing of', async () => {
      const drain: Middleware = (req, _res, next) => void req.resume().on('end', () => next())
      for (const type of ['application/json', 'text/plain', 'application/octet-stream', 'application/x-www-form-urlencoded', ''])
        expectRefused(await through([drain], bodied(type, 'some bytes')))
    })

    it('a body of which somebody has read a part', async () => {
      const part: Middleware = (req, _res, next) => {
        req.once('data', () => {
          req.pause()
          next()
        })
      }
      expectRefused(await through([part], bodied('text/plain', 'some bytes')))
    })

    it('the client’s connection stays of use', async () => {
      await using upstream = await rawUpstream(everyRequest(() => ok('fine')))
      await using proxy = createProxy({ upstreams: [upstream.url] })
      const app = express()
      app.use(((req, _res, next) => void req.resume().on('end', () => next())) satisfies Middleware)
      app.use(proxy)
      await using server = await listen(createServer(app))
      await using client = await rawConnect(server.port)
      void client.write(bodied('text/plain', 'some bytes'))
      expect((await client.readResponse()).status).toBe(500)
      void client.write(head('GET', '/'))
      expect((await client.readResponse()).text()).toBe('fine')
    })
  })

  describe('what was only waited with is not consumed', () => {
    it('a middleware that takes its time before the proxy', async () => {
      const wait: Middleware = (_req, _res, next) => void setTimeout(next, 30)
      expectReplayed(await through([wait], bodied('text/plain', 'some bytes')), (body) => expect(body.toString()).toBe('some bytes'))
      const paused: Middleware = (req, _res, next) => {
        req.pause()
        setTimeout(next, 30)
      }
      expectReplayed(await through([paused], bodied('text/plain', 'some bytes')), (body) => expect(body.toString()).toBe('some bytes'))
    })

    it('a large body that goes on arriving meanwhile', async () => {
      const bytes = Buffer.alloc(2_000_000, 'abcdefg')
      const wait: Middleware = (_req, _res, next) => void setTimeout(next, 50)
      expectReplayed(await through([wait], bodied('text/plain', bytes)), (body) => expect(body.equals(bytes)).toBe(true))
    })
  })

  it('a retry sends it again', async () => {
    const bodies: string[] = []
    await using failing = await rawUpstream(async (connection) => {
      bodies.push((await connection.readRequest()).text())
      connection.reset()
    })
    const sent = await through([express.json()], bodied('application/json', '{"a":1}').toString().replace('POST', 'PUT'), {
      upstreams: [failing.url],
      retry: { attempts: 3, backoff: { base: 0, max: 0 } },
    }).catch((error: Error) => error)
    expect(sent).not.toBeInstanceOf(Error)
    expect(bodies).toEqual(['{"a":1}', '{"a":1}', '{"a":1}'])
  })

  it('`maxBodySize` holds for it as well', async () => {
    const sent = await through([express.json()], chunked('application/json', `{"a":"${'x'.repeat(100)}"}`), { maxBodySize: 50 })
    expect([sent.response.status, sent.upstream.requests.length]).toEqual([413, 0])
  })

  it('Expect: 100-continue does not confuse it', async () => {
    await using upstream = await rawUpstream(everyRequest(() => ok('got it')))
    await using proxy = createProxy({ upstreams: [upstream.url] })
    const app = express()
    app.use(express.json())
    app.use(proxy)
    await using server = await listen(createServer(app))
    await using client = await rawConnect(server.port)
    void client.write(head('POST', '/', 'Content-Type: application/json', 'Content-Length: 7', 'Expect: 100-continue'))
    expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
    void client.write('{"a":1}')
    const response = await client.readResponse()
    expect([response.status, response.interims.length]).toEqual([200, 0])
    await until('it has arrived', () => upstream.requests.length === 1)
    expect(upstream.requests[0]?.text()).toBe('{"a":1}')
  })
})
