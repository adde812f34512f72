/**
 * Each known flaw of http-proxy-3, by name, and that it does not show through the transport. Where the flaw can be seen from the upstream,
 * the same request also goes through http-proxy-3 as it is: a case that no longer tells the two apart guards nothing.
 */
import assert from 'node:assert/strict'
import { Agent, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  blackHolePort,
  certificates,
  everyRequest,
  type RawUpstream,
  rawConnect,
  rawUpstream,
  refusedPort,
  type UpstreamScript,
} from '@weir/testing'
import { createProxyServer } from 'http-proxy-3'
import { afterEach, describe, it } from 'vitest'
import { type BodyReader, BufferedBody, type RequestBody } from '../body.ts'
import type { ProxyError } from '../errors.ts'
import { OptionsError } from '../options.ts'
import type { Upstream } from '../upstream.ts'
import { type HttpProxyTransportOptions, httpProxyTransport } from './http-proxy.ts'
import type { ResponseSink, Transport, UpstreamCall, UpstreamRequest } from './transport.ts'

const endings: (() => unknown)[] = []
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end()
})

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

async function upstreamOf(script: UpstreamScript | string, options?: Parameters<typeof rawUpstream>[1]): Promise<RawUpstream> {
  const upstream = await rawUpstream(script, options)
  endings.push(() => upstream.close())
  return upstream
}

function transportOf(options?: HttpProxyTransportOptions): Transport {
  const transport = httpProxyTransport(options)
  endings.push(() => transport.close?.())
  return transport
}

const asUpstream = (url: string): Upstream => ({ id: url, url: new URL(url) }) as Upstream

interface Result {
  readonly call: UpstreamCall
  readonly interims: { status: number; headers: string[] }[]
  head: { status: number; reason: string; headers: string[] } | undefined
  body: string
  trailers: string[] | undefined
  error: ProxyError | undefined
}

interface Run extends Result {
  /** Resolves when the sink has heard its last word. */
  readonly over: Promise<Result>
}

type Asked = Partial<Omit<UpstreamRequest, 'timeouts'>> & { timeouts?: Partial<UpstreamRequest['timeouts']> }

function send(transport: Transport, to: RawUpstream | Upstream, asked: Asked = {}, on: Partial<ResponseSink> = {}): Run {
  let settle = (_: Result): void => {}
  const result = { interims: [], head: undefined, body: '', trailers: undefined, error: undefined } as unknown as Run & {
    call: UpstreamCall
    over: Promise<Result>
  }
  result.over = new Promise((resolve) => {
    settle = resolve
  })
  const sink: ResponseSink = {
    onStart: (call) => {
      result.call = call
      on.onStart?.(call)
    },
    onInterim: (status, headers) => void result.interims.push({ status, headers }),
    onHead: (status, reason, headers) => {
      result.head = { status, reason, headers }
      on.onHead?.(status, reason, headers)
    },
    onData: (chunk) => {
      result.body += chunk.toString('latin1')
      on.onData?.(chunk)
    },
    onEnd: (trailers) => {
      result.trailers = trailers
      settle(result)
    },
    onError: (error) => {
      result.error = error
      settle(result)
    },
  }
  const request = {
    method: 'GET',
    path: '/',
    headers: ['Host', 'up.test'],
    body: undefined,
    ...asked,
    timeouts: { connect: 5000, head: 5000, idle: 5000, ...asked.timeouts },
  }
  transport.send(request, 'id' in to ? to : asUpstream(to.url), sink)
  return result
}

/** Chunked, all of it at once. */
function chunked(text: string, trailers?: string[]): RequestBody {
  const whole = new BufferedBody(Buffer.from(text, 'latin1'))
  const open = (reader: BodyReader) =>
    whole.open({ onChunk: (chunk) => reader.onChunk(chunk), onEnd: () => reader.onEnd(trailers), onError: () => {} })
  return { length: undefined, hasTrailers: trailers !== undefined, open }
}

/** What http-proxy-3 as it is makes of these bytes: what its upstream received, once it has seen `until`. */
async function bare(
  bytes: string,
  until: string,
  prepare: (proxy: ReturnType<typeof createProxyServer>) => void = () => {},
): Promise<string> {
  const upstream = await upstreamOf(async (connection) => void (await connection.sees(until)))
  const agent = new Agent({ keepAlive: true })
  const proxy = createProxyServer({ target: upstream.url, agent })
  proxy.on('error', () => {})
  prepare(proxy as unknown as ReturnType<typeof createProxyServer>)
  const server = createServer((req, res) => proxy.web(req, res))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  endings.push(() => {
    agent.destroy()
    server.close()
    server.closeAllConnections()
  })
  await using client = await rawConnect((server.address() as AddressInfo).port)
  void client.write(bytes)
  await (await upstream.connection(1)).sees(until)
  return (await upstream.connection(1)).received.toString('latin1')
}

/** The bytes of the first request that arrives. */
async function arrives(asked: Asked, options?: HttpProxyTransportOptions): Promise<string> {
  const upstream = await upstreamOf(everyRequest(() => ok))
  const { error } = await send(transportOf(options), upstream, asked).over
  assert.equal(error, undefined)
  return (await upstream.request(1)).raw.toString('latin1')
}

describe('requests, as http-proxy-3 would spoil them', () => {
  const smuggled = '0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n'

  for (const method of ['DELETE', 'OPTIONS']) {
    it(`chunked ${method} with a Content-Length of 0: request smuggling`, async () => {
      const spoilt = await bare(
        `${method} / HTTP/1.1\r\nHost: up.test\r\nTransfer-Encoding: chunked\r\n\r\n${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`,
        '/smuggled',
      )
      assert.match(spoilt, /content-length: 0/i)
      assert.doesNotMatch(spoilt, /transfer-encoding/i)

      const upstream = await upstreamOf(everyRequest(() => ok))
      await send(transportOf(), upstream, { method, body: chunked(smuggled) }).over
      const request = await upstream.request(1)
      assert.equal(request.framing, 'chunked')
      assert.deepEqual(request.all('content-length'), [])
      assert.equal(request.body.toString('latin1'), smuggled)
      assert.equal((await upstream.connection(1)).unread.length, 0)
    })
  }

  it('a body longer than its Content-Length: the rest would be another request', async () => {
    const upstream = await upstreamOf(async (connection) => void (await connection.readToEnd()))
    const body: RequestBody = {
      length: 3,
      hasTrailers: false,
      open: (reader) => new BufferedBody(Buffer.from(`abc${smuggled}`)).open(reader),
    }
    const { error } = await send(transportOf(), upstream, { method: 'POST', headers: ['Host', 'x', 'Content-Length', '3'], body }).over
    assert.equal(error?.code, 'ERR_REQUEST_NOT_SENT')
    await (await upstream.connection(1)).closed
    assert.doesNotMatch((await upstream.connection(1)).received.toString('latin1'), /smuggled/)
  })

  it('a body shorter than its Content-Length: the upstream would wait for the rest', async () => {
    const upstream = await upstreamOf(async (connection) => void (await connection.readHead()))
    const body: RequestBody = { length: 4, hasTrailers: false, open: (reader) => new BufferedBody(Buffer.from('abc')).open(reader) }
    const { error } = await send(transportOf(), upstream, { method: 'POST', body }).over
    assert.equal(error?.code, 'ERR_REQUEST_NOT_SENT')
    assert.notEqual(await (await upstream.connection(1)).closed, 'open')
  })

  it('a Content-Length that contradicts the body is not sent', async () => {
    const upstream = await upstreamOf(everyRequest(() => ok))
    for (const asked of [
      { headers: ['Host', 'x', 'Content-Length', '3'] },
      { headers: ['Host', 'x', 'Content-Length', '3'], body: chunked('abc') },
      { headers: ['Host', 'x', 'Content-Length', '3', 'Content-Length', '3'], body: new BufferedBody(Buffer.from('abc')) },
    ]) {
      const { error, call } = await send(transportOf(), upstream, { method: 'POST', ...asked }).over
      assert.equal(error?.code, 'ERR_REQUEST_NOT_SENT')
      assert.equal(call.sent, false)
    }
    assert.equal(upstream.connections.length, 0)
  })

  for (const path of [
    '/a/../b',
    '/a/./b/%2e%2e/c',
    '//twice//',
    '/"quoted"?q="x"',
    '/a?b?c=?d',
    '/%7Euser/é'.replace('é', '\xe9'),
    '*',
    '/?',
  ]) {
    it(`path rewritten: ${path}`, async () => {
      assert.equal((await arrives({ method: 'OPTIONS', path })).split('\r\n', 1)[0], `OPTIONS ${path} HTTP/1.1`)
    })
  }

  it('path rewritten: http-proxy-3 by itself still does', async () => {
    assert.match(await bare('OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n', '\r\n\r\n'), /^OPTIONS \/\* /)
    assert.match(await bare('GET /a/../b"c HTTP/1.1\r\nHost: x\r\n\r\n', '\r\n\r\n'), /^GET \/b%22c /)
  })

  it('fields folded: case, order and repetition', async () => {
    const lines = [
      'hOsT: up.test',
      'X-b: 1',
      'X-A: 2',
      'x-B: 3',
      'Cookie: a=1',
      'Cookie: b=2',
      'X-Latin: \xe9\xff',
      'Authorization: one',
      'Authorization: two',
      '1: number',
    ]
    const headers = lines.flatMap((line) => line.split(': '))
    const spoilt = await bare(`GET / HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`, '\r\n\r\n')
    assert.ok(!spoilt.includes(lines.join('\r\n')))

    const received = await arrives({ headers })
    assert.equal(received, `GET / HTTP/1.1\r\n${lines.join('\r\n')}\r\nConnection: keep-alive\r\n\r\n`)
  })

  it('octets changed: latin1 fields in front of a slow body, and a Content-Disposition behind a Content-Length', async () => {
    const upstream = await upstreamOf(everyRequest(() => ok))
    let reader: BodyReader | undefined
    const body: RequestBody = {
      length: 2,
      hasTrailers: false,
      open: (opened) => {
        reader = opened
        return { resume() {}, close() {} }
      },
    }
    const headers = ['Host', 'x', 'Content-Length', '2', 'Content-Disposition', 'attachment; filename="\xc3\xa9"', 'X', '\xe9']
    const run = send(transportOf(), upstream, { method: 'PUT', headers, body })
    // The head is there before the first byte of the body.
    await (await upstream.connection(1)).sees('\r\n\r\n')
    reader?.onChunk(Buffer.from('ok'))
    reader?.onEnd(undefined)
    await run.over
    const request = await upstream.request(1)
    assert.equal(request.header('content-disposition'), 'attachment; filename="\xc3\xa9"')
    assert.equal(request.header('x'), '\xe9')
  })

  it('Expect switches off proxyReq hooks: nothing here hangs on one', async () => {
    const spoilt = await bare('POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n', '\r\n\r\n', (proxy) =>
      proxy.on('proxyReq', (request) => request.setHeader('x-injected', 'yes')),
    )
    assert.doesNotMatch(spoilt, /x-injected/)

    const received = await arrives({ method: 'POST', headers: ['Host', 'x', 'Expect', '100-continue', 'X-Injected', 'yes'] })
    assert.equal(received, 'POST / HTTP/1.1\r\nHost: x\r\nX-Injected: yes\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n')
  })

  it('nothing added but framing and Connection', async () => {
    assert.equal(await arrives({ headers: ['Host', 'x'] }), 'GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n')
    assert.equal(
      await arrives({ headers: ['Host', 'x'] }, { keepAliveTimeout: 0 }),
      'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    )
  })

  it('trailers of a request', async () => {
    const upstream = await upstreamOf(everyRequest(() => ok))
    await send(transportOf(), upstream, {
      method: 'POST',
      headers: ['Host', 'x', 'Trailer', 'X-Sum'],
      body: chunked('abc', ['X-Sum', '1', 'x-sum', '2']),
    }).over
    const { trailers } = await upstream.request(1)
    assert.deepEqual(trailers, ['X-Sum', '1', 'x-sum', '2'])
  })

  it('FORCE_FETCH_PATH in the environment sends everything through fetch', async () => {
    const upstream = await upstreamOf(everyRequest(() => ok))
    const { fetch } = globalThis
    let fetched = 0
    globalThis.fetch = () => {
      fetched++
      return Promise.reject(new Error('fetched'))
    }
    process.env.FORCE_FETCH_PATH = 'true'
    try {
      const { error } = await send(transportOf(), upstream).over
      assert.equal(error?.code, 'ERR_REQUEST_NOT_SENT')
      assert.equal(fetched, 0)
    } finally {
      delete process.env.FORCE_FETCH_PATH
      globalThis.fetch = fetch
    }
  })
})

describe('responses, as http-proxy-3 would spoil them', () => {
  const get = async (script: UpstreamScript | string, asked?: Asked): Promise<Result> =>
    send(transportOf(), await upstreamOf(script), asked).over

  for (const [name, head] of [
    ['Content-Length', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'],
    ['chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'],
  ] as const) {
    for (const how of ['end', 'reset'] as const) {
      it(`a truncated ${name} body leaves the client waiting (${how})`, async () => {
        const result = send(
          transportOf(),
          await upstreamOf(async (connection) => {
            await connection.readRequest()
            await connection.send(head)
            await go
            connection[how]()
          }),
          {},
          { onData: () => release() },
        )
        const { error, body } = await result.over
        assert.equal(error?.code, 'ERR_UPSTREAM_BODY')
        assert.equal(body, 'abc')
      })
      let release = (): void => {}
      const go = new Promise<void>((resolve) => {
        release = resolve
      })
    }
  }

  it('what came before a malformed chunk is delivered before the error', async () => {
    const { body, error } = await get('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n')
    assert.equal(body, 'abc')
    assert.equal(error?.code, 'ERR_UPSTREAM_BODY')
  })

  it('fields beyond the thousandth are lost', async () => {
    const fields = (count: number): string => Array.from({ length: count }, (_, i) => `x-${i}: ${i}\r\n`).join('')
    const all = await get(`HTTP/1.1 204 No Content\r\n${fields(1000)}\r\n`)
    assert.equal(all.head?.headers.length, 2000)
    const { error } = await get(`HTTP/1.1 204 No Content\r\n${fields(1001)}\r\n`)
    assert.equal(error?.code, 'ERR_UPSTREAM_HEAD')
  })

  it('fields folded: case, order, repetition, octets', async () => {
    const lines = ['Set-Cookie: a', 'X-b: 1', 'set-cookie: b', 'Set-Cookie: c', 'X: \xe9\xff', 'Content-Length: 0', '1: number']
    const { head } = await get(`HTTP/1.1 200 Fein\r\n${lines.join('\r\n')}\r\n\r\n`)
    assert.deepEqual(head, { status: 200, reason: 'Fein', headers: lines.flatMap((line) => line.split(': ')) })
  })

  it('interim responses and trailers are lost', async () => {
    const result = await get(
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\nx-t: 2\r\n\r\n',
    )
    assert.deepEqual(result.interims, [{ status: 103, headers: ['Link', '</a>', 'link', '</b>'] }])
    assert.deepEqual(result.trailers, ['X-T', '1', 'x-t', '2'])
    assert.equal(result.body, 'a')
  })

  for (const head of [
    'HTTP/1.1 101 Switching Protocols\r\n\r\n',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
  ]) {
    it(`an unasked 101 is passed over in silence (${head.length} bytes)`, async () => {
      const { error } = await get(head)
      assert.equal(error?.code, 'ERR_UPGRADE_RESPONSE')
    })
  }

  it('an upgrade offered in passing is an ordinary response', async () => {
    const { body, error } = await get('HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2,h2c\r\nContent-Length: 2\r\n\r\nok')
    assert.equal(error, undefined)
    assert.equal(body, 'ok')
  })

  for (const [method, status] of [
    ['HEAD', 200],
    ['GET', 204],
    ['GET', 304],
  ] as const) {
    it(`${method} ${status} keeps Content-Length and has no body, and the connection goes on`, async () => {
      const transport = transportOf()
      const upstream = await upstreamOf(
        everyRequest((request) =>
          request.target === '/next' ? ok : `HTTP/1.1 ${status} X\r\n${status === 204 ? '' : 'Content-Length: 5\r\n'}\r\n`,
        ),
      )
      const to = asUpstream(upstream.url)
      const first = await send(transport, to, { method }).over
      assert.equal(first.error, undefined)
      assert.equal(first.body, '')
      assert.equal(first.head?.headers[1], status === 204 ? undefined : '5')
      const next = await send(transport, to, { path: '/next' }).over
      assert.equal(next.body, 'ok')
      assert.equal(next.call.reused, true)
    })
  }

  it("the upstream's Connection: close ends that connection and nothing else", async () => {
    const transport = transportOf()
    const upstream = await upstreamOf(everyRequest(() => 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'))
    const to = asUpstream(upstream.url)
    for (let i = 0; i < 2; i++) {
      const { call, body } = await send(transport, to).over
      assert.equal(body, 'ok')
      assert.equal(call.reused, false)
      await (await upstream.connection(i + 1)).closed
    }
  })

  it('a second response that nobody asked for reaches nobody', async () => {
    const transport = transportOf()
    const upstream = await upstreamOf(
      everyRequest((request) => (request.target === '/poison' ? `${ok}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison` : ok)),
    )
    const to = asUpstream(upstream.url)
    assert.equal((await send(transport, to, { path: '/poison' }).over).body, 'ok')
    assert.equal((await send(transport, to).over).body, 'ok')
  })

  it('a response that arrives while the connection idles closes it', async () => {
    const transport = transportOf({ keepAliveTimeout: '1m' })
    const upstream = await upstreamOf(everyRequest(() => ok))
    const to = asUpstream(upstream.url)
    await send(transport, to).over
    const connection = await upstream.connection(1)
    void connection.send('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison')
    await connection.closed
    const { body, call } = await send(transport, to).over
    assert.equal(body, 'ok')
    assert.equal(call.reused, false)
  })
})

describe('failures, as http-proxy-3 would spoil them', () => {
  it('an upstream that cannot be reached ends the process without an error listener', async () => {
    await using port = await refusedPort()
    const { error, call } = await send(transportOf(), asUpstream(port.url)).over
    assert.equal(error?.code, 'ERR_CONNECT_REFUSED')
    assert.equal(call.sent, false)
  })

  it('timeouts look like resets: connect', async () => {
    await using port = await blackHolePort()
    const { error, call } = await send(transportOf(), asUpstream(port.url), { timeouts: { connect: 50, head: 10 } }).over
    assert.equal(error?.code, 'ERR_CONNECT_TIMEOUT')
    assert.equal(call.sent, false)
  })

  it('timeouts look like resets: head', async () => {
    const upstream = await upstreamOf(async (connection) => void (await connection.readRequest()))
    const { error, call } = await send(transportOf(), upstream, { timeouts: { head: 50 } }).over
    assert.equal(error?.code, 'ERR_HEAD_TIMEOUT')
    assert.equal(call.sent, true)
    assert.notEqual(await (await upstream.connection(1)).closed, 'open')
  })

  it('timeouts look like resets: body', async () => {
    const upstream = await upstreamOf('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc')
    const { error, body } = await send(transportOf(), upstream, { timeouts: { idle: 50 } }).over
    assert.equal(error?.code, 'ERR_BODY_TIMEOUT')
    assert.equal(body, 'abc')
  })

  it('a slow reader is taken for a silent upstream', async () => {
    const upstream = await upstreamOf('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc')
    const run = send(transportOf(), upstream, { timeouts: { idle: 30 } }, { onHead: () => run.call.pause() })
    // A call whose idle timer started later and was not paused: when that one is over, the first has long passed its limit.
    const silent = await upstreamOf('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n')
    while (run.head === undefined) await new Promise((resolve) => setImmediate(resolve))
    assert.equal((await send(transportOf(), silent, { timeouts: { idle: 30 } }).over).error?.code, 'ERR_BODY_TIMEOUT')
    assert.equal(run.error, undefined)
    run.call.resume()
    const { body, error } = await run.over
    assert.equal(error, undefined)
    assert.equal(body, 'abc')
  })

  it('a slow upload is not a silent upstream either', async () => {
    const upstream = await upstreamOf(everyRequest(() => ok))
    const silent = await upstreamOf(async (connection) => void (await connection.readRequest()))
    let reader: BodyReader | undefined
    const body: RequestBody = {
      length: undefined,
      hasTrailers: false,
      open: (opened) => {
        reader = opened
        return { resume() {}, close() {} }
      },
    }
    const run = send(transportOf(), upstream, { method: 'POST', body, timeouts: { head: 30 } })
    await (await upstream.connection(1)).sees('\r\n\r\n')
    assert.equal((await send(transportOf(), silent, { timeouts: { head: 60 } }).over).error?.code, 'ERR_HEAD_TIMEOUT')
    reader?.onEnd(undefined)
    assert.equal((await run.over).body, 'ok')
  })

  it('an upload is a silent upstream when the upstream does not take it', async () => {
    const upstream = await upstreamOf(async (connection) => {
      await connection.readHead()
      connection.pause()
    })
    const chunk = Buffer.alloc(65_536)
    let produced = 0
    const body: RequestBody = {
      length: undefined,
      hasTrailers: false,
      open: (reader) => ({
        resume: () => {
          do produced += chunk.length
          while (reader.onChunk(chunk))
        },
        close: () => {},
      }),
    }
    const { error } = await send(transportOf(), upstream, { method: 'POST', body, timeouts: { head: 200 } }).over
    assert.equal(error?.code, 'ERR_HEAD_TIMEOUT')
    assert.ok(produced < 64 * 1024 * 1024, `${produced} bytes were read ahead`)
  })

  it('a client that left leaves the upstream busy: every phase', async () => {
    await using hole = await blackHolePort()
    const transport = transportOf({ keepAliveTimeout: '1m' })
    const silent = await upstreamOf(async (connection) => void (await connection.readRequest()))
    const slow = await upstreamOf('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc')

    const early = send(transport, silent, {}, { onStart: (call) => call.abort() })
    const atOnce = send(transport, silent)
    atOnce.call.abort()
    const connecting = send(transport, asUpstream(hole.url))
    setImmediate(() => connecting.call.abort())
    const waiting = send(transport, silent)
    await silent.request(1)
    waiting.call.abort()
    const reading: Run = send(transport, slow, {}, { onData: () => reading.call.abort() })
    assert.notEqual(await (await slow.connection(1)).closed, 'open')
    for (const connection of silent.connections) assert.notEqual(await connection.closed, 'open')
    for (const run of [early, atOnce, connecting, waiting, reading]) assert.equal(run.error, undefined)
    // None of them went back to be used again.
    const after = send(transport, silent)
    await silent.request(2)
    assert.equal(after.call.reused, false)
    assert.equal(silent.open, 1)
    after.call.abort()
  })

  it('a client that left in the tick of its request leaves a connection open that nobody wanted', async () => {
    const transport = transportOf({ keepAliveTimeout: '1m' })
    const upstream = await upstreamOf(everyRequest(() => ok))
    const to = asUpstream(upstream.url)
    for (let i = 0; i < 3; i++) send(transport, to).call.abort()
    await send(transport, to).over
    await upstream.request(1)
    const others = upstream.connections.filter((connection) => connection.received.length === 0)
    for (const connection of others) assert.notEqual(await connection.closed, 'open')
    assert.equal(upstream.open, 1)
  })

  it('a response before the end of the upload is delivered, and its connection not used again', async () => {
    const upstream = await upstreamOf(async (connection) => {
      await connection.readHead()
      await connection.send('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno')
    })
    let closed = false
    const body: RequestBody = {
      length: undefined,
      hasTrailers: false,
      open: (reader) => ({
        resume: () => void reader.onChunk(Buffer.from('abc')),
        close: () => {
          closed = true
        },
      }),
    }
    const run = await send(transportOf(), upstream, { method: 'POST', body }).over
    assert.equal(run.head?.status, 413)
    assert.equal(run.body, 'no')
    assert.equal(closed, true)
    assert.notEqual(await (await upstream.connection(1)).closed, 'open')
  })
})

describe('connections', () => {
  it('waits for one of maxConnections, under the head timeout', async () => {
    const transport = transportOf({ maxConnections: 1 })
    const answers: (() => void)[] = []
    const answered = [1, 2].map(() => new Promise<void>((resolve) => answers.push(resolve)))
    const upstream = await upstreamOf(
      everyRequest(async () => {
        await answered.shift()
        return ok
      }),
    )
    const to = asUpstream(upstream.url)
    const first = send(transport, to)
    await upstream.request(1)
    const { error, call } = await send(transport, to, { timeouts: { head: 30 } }).over
    assert.equal(error?.code, 'ERR_HEAD_TIMEOUT')
    assert.equal(call.sent, false)
    const third = send(transport, to)
    for (const answer of answers) answer()
    assert.equal((await first.over).body, 'ok')
    assert.equal((await third.over).call.reused, true)
    assert.equal(upstream.connections.length, 1)
  })

  it('a connection used many times carries no listeners from one request to the next', async () => {
    const transport = transportOf()
    const upstream = await upstreamOf(everyRequest(() => ok))
    const to = asUpstream(upstream.url)
    const warnings: string[] = []
    const warn = (warning: Error): void => void warnings.push(warning.name)
    process.on('warning', warn)
    endings.push(() => process.off('warning', warn))
    for (let i = 0; i < 30; i++) await send(transport, to).over
    assert.equal(upstream.connections.length, 1)
    assert.deepEqual(warnings, [])
  })

  it('forget and close end idle connections, and busy ones when they are done', async () => {
    const transport = transportOf({ keepAliveTimeout: '1m' })
    let answer = (): void => {}
    const answered = new Promise<void>((resolve) => {
      answer = resolve
    })
    const upstream = await upstreamOf(
      everyRequest(async (request) => {
        if (request.target === '/busy') await answered
        return ok
      }),
    )
    const to = asUpstream(upstream.url)
    const busy = send(transport, to, { path: '/busy' })
    await upstream.request(1)
    await send(transport, to).over
    transport.forget?.(to)
    await (await upstream.connection(2)).closed
    answer()
    assert.equal((await busy.over).body, 'ok')
    await (await upstream.connection(1)).closed
  })

  it('TLS: the name comes from the upstream, never from Host; certificates are verified', async () => {
    const { ca, localhost, wrongName } = certificates()
    const trusted = await upstreamOf(
      everyRequest(() => ok),
      { tls: localhost },
    )
    const { body, error } = await send(transportOf({ tls: { ca } }), trusted, { headers: ['Host', 'evil.test'] }).over
    assert.equal(error, undefined)
    assert.equal(body, 'ok')
    assert.equal((await trusted.connection(1)).servername, 'localhost')

    const untrusted = await send(transportOf(), trusted).over
    assert.equal(untrusted.error?.code, 'ERR_TLS_CERTIFICATE')
    assert.equal(untrusted.call.sent, false)
    const other = await upstreamOf(
      everyRequest(() => ok),
      { tls: wrongName },
    )
    assert.equal((await send(transportOf({ tls: { ca } }), other).over).error?.code, 'ERR_TLS_CERTIFICATE')
    assert.equal((await send(transportOf({ tls: { ca, servername: 'wrong.test' } }), other).over).body, 'ok')
    assert.equal((await send(transportOf({ tls: { insecure: true } }), other).over).body, 'ok')
  })

  it('Unix sockets', async () => {
    const upstream = await upstreamOf(
      everyRequest(() => ok),
      { unix: true },
    )
    assert.equal((await send(transportOf(), upstream, { path: '/x' }).over).body, 'ok')
    assert.equal((await upstream.request(1)).target, '/x')
    const { error } = await send(transportOf(), asUpstream(`${upstream.url}.missing`)).over
    assert.equal(error?.code, 'ERR_UNREACHABLE')
  })

  it('wrong options are told together', () => {
    const wrong = { maxConnections: 0, keepAliveTimeout: 'soon', localAddress: 'here', retries: 3 } as unknown as HttpProxyTransportOptions
    assert.throws(
      () => httpProxyTransport(wrong),
      (error) => OptionsError.is(error) && error.problems.length === 4,
    )
  })
})
