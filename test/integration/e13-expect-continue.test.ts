/**
 * E13. `100 Continue` is a promise: "send it, I want it". So it may go out only when routing and policies are through; and that it is asked
 * for must change nothing else. In other Node proxies a client can switch hooks off by asking for it.
 */
import { createPool, type Exchange, type Hooks, type StageHandler } from '@weir/core'
import { everyRequest, type RawRequest, rawConnect, rawRequest, rawUpstream, refusedPort } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { gate, okUpstream, outcomeLog, startProxy, transports, until } from './setup.ts'

const expecting = (length: number, ...fields: string[]): string =>
  `POST /up HTTP/1.1\r\nHost: public.test\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n${fields.map((line) => `${line}\r\n`).join('')}\r\n`

/** Lets everything that is already on its way arrive: proxy, upstream and client share this event loop. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
}

describe.each(transports)('E13 over %s: Expect: 100-continue', (_, transport) => {
  it('gets its 100 only after every stage has passed, then the body goes through', async () => {
    await using upstream = await okUpstream()
    const [first, second] = [gate(), gate()]
    await using running = await startProxy(
      { upstreams: [upstream.url], use: [() => first.opened, () => second.opened, () => undefined] },
      { transport },
    )
    await using client = await rawConnect(running.port)
    void client.write(expecting(5))
    await until('the exchange to begin', () => running.proxy.stats().inflight === 1)
    await settle()
    expect(client.received.length).toBe(0)
    first.open()
    await settle()
    expect(client.received.length).toBe(0)
    expect(upstream.connections).toEqual([])
    second.open()
    expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
    expect(client.unread.length).toBe(0)
    void client.write('hello')
    const response = await client.readResponse()
    expect([response.status, response.interims, response.text()]).toEqual([200, [], 'ok'])
    expect(upstream.requests.map((request) => [request.text(), request.all('expect'), request.all('content-length')])).toEqual([
      ['hello', [], ['5']],
    ])
  })

  it('works for a chunked body, and keeps the connection', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    for (let i = 0; i < 2; i++) {
      void client.write('POST /up HTTP/1.1\r\nHost: public.test\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n')
      expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
      void client.write('5\r\nhello\r\n0\r\n\r\n')
      expect((await client.readResponse()).status).toBe(200)
    }
    expect(upstream.requests.map((request) => [request.text(), request.all('expect')])).toEqual([
      ['hello', []],
      ['hello', []],
    ])
  })

  it('is asked for once, however many upstreams are tried', async () => {
    await using dead = await refusedPort()
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [dead.url, upstream.url], retry: { attempts: 2 } }, { transport })
    for (let i = 0; i < 2; i++) {
      await using client = await rawConnect(running.port)
      void client.write(expecting(5))
      expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
      void client.write('hello')
      const response = await client.readResponse()
      expect([response.status, response.interims]).toEqual([200, []])
    }
    expect(upstream.requests.map((request) => request.text())).toEqual(['hello', 'hello'])
  })

  it('is not asked for twice when the upstream says 100, too', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readHead()
      await connection.send('HTTP/1.1 100 Continue\r\n\r\n')
      await connection.readBytes(5)
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(expecting(5))
    expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
    void client.write('hello')
    const response = await client.readResponse()
    expect([response.status, response.interims]).toEqual([200, []])
  })

  it('does not hold up a client that sends its body without waiting', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(running.port)
    void client.write(`${expecting(5)}hello`)
    void client.write('GET /next HTTP/1.1\r\nHost: public.test\r\n\r\n')
    expect((await client.readResponse()).status).toBe(200)
    expect((await client.readResponse()).status).toBe(200)
    expect(upstream.requests.map((request) => [request.target, request.text()])).toEqual([
      ['/up', 'hello'],
      ['/next', ''],
    ])
  })

  it('without a body needs no 100', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    for (const bytes of [expecting(0), 'GET / HTTP/1.1\r\nHost: public.test\r\nExpect: 100-continue\r\n\r\n']) {
      const response = await rawRequest(running.port, bytes)
      expect([response.status, response.interims]).toEqual([200, []])
    }
    for (const request of upstream.requests) expect(request.all('expect')).toEqual([])
  })

  it('is not heard from an HTTP/1.0 client, which could not read a 100', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const bytes = 'POST / HTTP/1.0\r\nHost: public.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello'
    const response = await rawRequest(running.port, bytes, { until: 'close' })
    expect([response.status, response.interims, response.raw.toString('latin1').includes(' 100 ')]).toEqual([200, [], false])
    expect(upstream.requests.map((request) => [request.text(), request.all('expect')])).toEqual([['hello', []]])
  })

  it('works over HTTP/2: the 100 comes after the stages', async () => {
    await using upstream = await okUpstream()
    const passed = gate()
    await using running = await startProxy({ upstreams: [upstream.url], use: [() => passed.opened] }, { transport, http2: true })
    await using client = await h2Client(running.port)
    const { stream, answer } = client.open({ ':method': 'POST', expect: '100-continue' })
    let continued = 0
    stream.on('continue', () => {
      continued++
      stream.end('hello')
    })
    await until('the exchange to begin', () => running.proxy.stats().inflight === 1)
    await settle()
    expect(continued).toBe(0)
    passed.open()
    const response = await answer
    expect([response.status, response.body.toString(), continued]).toEqual([200, 'ok', 1])
    expect(upstream.requests.map((request) => [request.text(), request.all('expect')])).toEqual([['hello', []]])
  })

  it('changes nothing for stages, hooks and the upstream', async () => {
    await using upstream = await okUpstream()
    const calls: string[] = []
    const stage: StageHandler = (exchange: Exchange): Hooks => {
      calls.push(`handle ${exchange.method} ${exchange.url} ${exchange.headers.get('authorization')}`)
      return {
        onAttempt: (headers) => {
          calls.push(`onAttempt ${headers.has('expect')}`)
          headers.delete('authorization')
          headers.set('X-User', 'u1')
        },
        onResponse: (response) => void calls.push(`onResponse ${response.status}`),
        onFinish: (outcome) => void calls.push(`onFinish ${outcome.status} ${outcome.reason} ${outcome.attempts.length}`),
      }
    }
    await using running = await startProxy(
      { upstreams: [upstream.url], use: [stage], headers: { request: { set: { 'X-Rule': '1' } } } },
      { transport },
    )
    const ask = async (...fields: string[]): Promise<string[]> => {
      calls.length = 0
      await using client = await rawConnect(running.port)
      void client.write(
        `POST /up HTTP/1.1\r\nHost: public.test\r\n${fields.map((line) => `${line}\r\n`).join('')}Authorization: Basic eA==\r\nX-User: root\r\nContent-Length: 5\r\n\r\n`,
      )
      if (fields.length > 0) expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
      void client.write('hello')
      expect((await client.readResponse()).status).toBe(200)
      await until('the end', () => calls.some((call) => call.startsWith('onFinish')))
      return [...calls]
    }
    const without = await ask()
    const withIt = await ask('Expect: 100-continue')
    expect(without).toEqual(['handle POST /up Basic eA==', 'onAttempt false', 'onResponse 200', 'onFinish 200 completed 1'])
    expect(withIt).toEqual(without)
    const [plain, expected] = upstream.requests
    const said = (request: RawRequest | undefined): string[] => [
      `${request?.line}`,
      ...(request?.fields ?? []).map((line) => line.toLowerCase()).sort(),
      `${request?.text()}`,
    ]
    expect(said(expected)).toEqual(said(plain))
    expect([plain?.all('x-user'), plain?.all('authorization'), plain?.all('x-rule')]).toEqual([['u1'], [], ['1']])
  })
})

describe('E13: Expect: 100-continue', () => {
  /** An answer came without a 100. What the client then does, it may do: the connection is in step, or closed. */
  async function refusedWith(status: number, port: number, head: string, body: string): Promise<void> {
    await using client = await rawConnect(port)
    void client.write(head)
    const response = await client.readResponse()
    expect([response.status, response.interims]).toEqual([status, []])
    // RFC 9110 §10.1.1: a client may send the body all the same. It must not be taken for a request.
    void client.write(body)
    void client.write('GET /after HTTP/1.1\r\nHost: public.test\r\n\r\n')
    if (response.header('connection') === 'close') {
      await client.closed
      expect(client.unread.length).toBe(0)
    } else expect((await client.readResponse()).interims).toEqual([])
    expect(client.received.toString('latin1')).not.toContain(' 100 ')
  }

  const smuggled = 'GET /admin HTTP/1.1\r\nHost: public.test\r\n\r\n'

  it('gets no 100 when a stage refuses at once', async () => {
    await using upstream = await okUpstream()
    const guard = (exchange: { url: string }) => (exchange.url === '/up' ? { status: 401, body: 'no' } : undefined)
    await using running = await startProxy({ upstreams: [upstream.url], use: [guard] })
    await refusedWith(401, running.port, expecting(smuggled.length), smuggled)
    expect(upstream.requests.map(({ target }) => target).filter((target) => target !== '/after')).toEqual([])
  })

  it('gets no 100 when a stage refuses later', async () => {
    await using upstream = await okUpstream()
    const guard = async (exchange: { url: string }) => {
      await settle()
      return exchange.url === '/up' ? { status: 403, body: 'no' } : undefined
    }
    await using running = await startProxy({ upstreams: [upstream.url], use: [guard] })
    await refusedWith(403, running.port, expecting(smuggled.length), smuggled)
    expect(upstream.requests.map(({ target }) => target).filter((target) => target !== '/after')).toEqual([])
  })

  it('gets no 100 when a stage throws', async () => {
    await using upstream = await okUpstream()
    const broken = (exchange: { url: string }) => {
      if (exchange.url === '/up') throw new Error('broken')
    }
    await using running = await startProxy({ upstreams: [upstream.url], use: [broken] })
    await refusedWith(500, running.port, expecting(smuggled.length), smuggled)
    expect(upstream.requests.map(({ target }) => target).filter((target) => target !== '/after')).toEqual([])
  })

  it('gets no 100 when no route matches', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ routes: [{ match: { path: '/after' }, pool: { upstreams: [upstream.url] } }] })
    await refusedWith(404, running.port, expecting(smuggled.length), smuggled)
    expect(upstream.requests.map(({ target }) => target).filter((target) => target !== '/after')).toEqual([])
  })

  it('gets no 100 when the announced body is too large', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url], maxBodySize: smuggled.length - 1 })
    await refusedWith(413, running.port, expecting(smuggled.length), smuggled)
    expect(upstream.requests.map(({ target }) => target).filter((target) => target !== '/after')).toEqual([])
  })

  it('gets no 100 when the request is malformed', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    await refusedWith(400, running.port, expecting(smuggled.length, 'Host: other.test'), smuggled)
    expect(upstream.connections).toEqual([])
  })

  it('gets no 100 when there is nobody to send the body to', async () => {
    await using pool = Object.assign(createPool({ upstreams: [] }), { [Symbol.asyncDispose]: async () => pool.close() })
    await using running = await startProxy({ pool })
    await refusedWith(503, running.port, expecting(smuggled.length), smuggled)
  })

  it('gets no 100 while it waits for a slot', async () => {
    const busy = gate()
    await using upstream = await rawUpstream(
      everyRequest(async ({ target }) => {
        if (target === '/slow') await busy.opened
        return 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
      }),
    )
    await using running = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1 })
    await using first = await rawConnect(running.port)
    void first.write('GET /slow HTTP/1.1\r\nHost: public.test\r\n\r\n')
    await upstream.request(1)
    await using second = await rawConnect(running.port)
    void second.write(expecting(5))
    await until('the second exchange to wait', () => running.proxy.pool?.stats().waiting === 1)
    await settle()
    expect(second.received.length).toBe(0)
    busy.open()
    expect((await second.readHead()).line).toBe('HTTP/1.1 100 Continue')
    void second.write('hello')
    expect((await second.readResponse()).status).toBe(200)
  })

  it('gets no 100 while the proxy drains', async () => {
    const busy = gate()
    await using upstream = await rawUpstream(
      everyRequest(async () => {
        await busy.opened
        return 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
      }),
    )
    await using running = await startProxy({ upstreams: [upstream.url] })
    await using late = await rawConnect(running.port)
    await using first = await rawConnect(running.port)
    void first.write('GET /slow HTTP/1.1\r\nHost: public.test\r\n\r\n')
    await upstream.request(1)
    void late.write('POST /up HTTP/1.1\r\n')
    await settle()
    const closed = running.proxy.close()
    void late.write(expecting(5).replace('POST /up HTTP/1.1\r\n', ''))
    const response = await late.readResponse()
    expect([response.status, response.interims]).toEqual([503, []])
    busy.open()
    await closed
  })

  it('is followed by 413 when the body that comes is longer than allowed', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.stall()
    })
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], maxBodySize: 10, use: [log.stage] })
    await using client = await rawConnect(running.port)
    void client.write('POST /up HTTP/1.1\r\nHost: public.test\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n')
    expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
    void client.write('b\r\nhello world\r\n')
    const response = await client.readResponse()
    expect([response.status, response.interims]).toEqual([413, []])
    expect((await log.outcome(1)).reason).toBe('ERR_BODY_TOO_LARGE')
    await until('the upstream to be let go', () => upstream.open === 0)
  })

  it('gets no 100 over HTTP/2 when a stage refuses', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url], use: [() => ({ status: 401 })] }, { http2: true })
    await using client = await h2Client(running.port)
    const { stream, answer } = client.open({ ':method': 'POST', expect: '100-continue' })
    let continued = 0
    stream.on('continue', () => void continued++)
    stream.on('response', () => stream.end())
    const response = await answer
    expect([response.status, continued, upstream.connections.length]).toEqual([401, 0, 0])
  })

  it('with any other expectation is refused and not forwarded', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const response = await rawRequest(running.port, expecting(5).replace('100-continue', 'miracles'))
    expect([400, 417]).toContain(response.status)
    expect(upstream.connections).toEqual([])
  })

  it('that a client gives up on while it waits frees everything', async () => {
    await using upstream = await okUpstream()
    const never = gate()
    const log = outcomeLog()
    await using running = await startProxy({ upstreams: [upstream.url], use: [log.stage, () => never.opened] })
    const client = await rawConnect(running.port)
    void client.write(expecting(5))
    await until('the exchange to begin', () => running.proxy.stats().inflight === 1)
    client.reset()
    expect((await log.outcome(1)).reason).toBe('ERR_CLIENT_ABORTED')
    expect(running.proxy.stats().inflight).toBe(0)
    never.open()
    await settle()
    expect(upstream.connections).toEqual([])
  })
})

describe('E13: A plain request listener', () => {
  it('runs stages and hooks all the same; the 100 is node’s then', async () => {
    await using upstream = await okUpstream()
    const user = () => ({ onAttempt: (headers: { set(name: string, value: string): unknown }) => void headers.set('X-User', 'u1') })
    await using running = await startProxy({ upstreams: [upstream.url], use: [user] }, { mount: 'listener' })
    await using client = await rawConnect(running.port)
    void client.write(expecting(5, 'X-User: root'))
    expect((await client.readHead()).line).toBe('HTTP/1.1 100 Continue')
    void client.write('hello')
    const response = await client.readResponse()
    expect([response.status, response.interims]).toEqual([200, []])
    expect(upstream.requests.map((request) => [request.text(), request.all('x-user'), request.all('expect')])).toEqual([
      ['hello', ['u1'], []],
    ])
  })
})
