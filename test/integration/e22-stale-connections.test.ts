/**
 * E22. A stale pooled connection is retried once for idempotent methods without a consumed body, and never for `POST` unless allowed.
 *
 * A server closes idle connections whenever it likes, and now and then the request that reuses one crosses its FIN on the way. That is not a
 * failure of the server, and the client must not see it; but a request that may have been processed must not be sent twice either.
 */
import { failureMemory } from '@weir/core'
import { everyRequest, type RawUpstream, rawConnect, rawRequest, rawUpstream, type UpstreamScript } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { get, head, ok } from './messages.ts'
import { startProxy, transports, until } from './observed.ts'

/** How a connection that was kept dies under its second request. */
type Death = 'fin' | 'reset' | 'half a head'

/** The first connection serves one request and dies under the next; every later connection serves for ever. */
function staleOnce(death: Death, seen: string[] = []): UpstreamScript {
  return async (connection, upstream) => {
    if (connection.number > 1) {
      await everyRequest((request) => {
        seen.push(`${request.method} ${request.text()}`)
        return request.method === 'HEAD' ? 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n' : ok(`from ${connection.number}`)
      })(connection, upstream)
      return
    }
    await connection.readRequest()
    await connection.send(ok('from 1'))
    // The next request has come whole: this server could have processed it.
    const request = await connection.readRequest(60_000)
    seen.push(`${request.method} ${request.text()}`)
    if (death === 'reset') connection.reset()
    else {
      if (death === 'half a head') await connection.send('HTTP/1.1 200 OK\r\nContent-Le')
      connection.end()
    }
  }
}

const bodied = (method: string, body: string, ...lines: string[]): string =>
  `${head(method, '/', `Content-Length: ${body.length}`, ...lines)}${body}`

/** One good exchange, so that there is a connection to reuse. */
async function warm(port: number): Promise<void> {
  expect((await rawRequest(port, get('/warm'))).status).toBe(200)
}

describe.each(transports)('E22 over %s', (_name, transport) => {
  const deaths: readonly Death[] = ['fin', 'reset', 'half a head']

  it.each(deaths)('GET survives a reused connection that ends with: %s', async (death) => {
    await using upstream = await rawUpstream(staleOnce(death))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await warm(proxy.port)
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(200)
    expect(response.text()).toBe('from 2')
    const outcome = await proxy.outcome(2)
    expect(outcome.reason).toBe('completed')
    expect(outcome.attempts.map(({ number, reused, error }) => ({ number, reused, code: error?.code }))).toEqual([
      { number: 1, reused: true, code: 'ERR_UPSTREAM_RESET' },
      { number: 2, reused: false, code: undefined },
    ])
  })

  it.each(['HEAD', 'OPTIONS', 'DELETE', 'QUERY', 'PUT'])('%s is idempotent (RFC 9110 §9.2.2) and is retried', async (method) => {
    const seen: string[] = []
    await using upstream = await rawUpstream(staleOnce('fin', seen))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await warm(proxy.port)
    const body = method === 'PUT' || method === 'QUERY' ? 'the whole body' : ''
    const response = await rawRequest(proxy.port, body === '' ? head(method, '/') : bodied(method, body))
    expect(response.status).toBe(200)
    expect(seen).toEqual([`${method} ${body}`, `${method} ${body}`])
  })

  it('a chunked PUT is replayed byte for byte', async () => {
    const seen: string[] = []
    await using upstream = await rawUpstream(staleOnce('reset', seen))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await warm(proxy.port)
    await using client = await rawConnect(proxy.port)
    void client.write(`${head('PUT', '/', 'Transfer-Encoding: chunked')}3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n`)
    expect((await client.readResponse()).status).toBe(200)
    expect(seen).toEqual(['PUT onetwo', 'PUT onetwo'])
  })

  it('a PUT whose body is no longer whole is not', async () => {
    await using upstream = await rawUpstream(staleOnce('reset'))
    await using proxy = await startProxy({ upstreams: [upstream.url], retry: { replayBuffer: 100 } }, { transport })
    await warm(proxy.port)
    const response = await rawRequest(proxy.port, bodied('PUT', 'x'.repeat(101)))
    expect(response.status).toBe(502)
    expect(response.header('proxy-status')).toContain('ERR_UPSTREAM_RESET')
    expect((await proxy.outcome(2)).attempts).toHaveLength(1)
  })

  it.each(['POST', 'PATCH'])('%s is not: the client gets a 502, the upstream gets it once', async (method) => {
    const seen: string[] = []
    await using upstream = await rawUpstream(staleOnce('fin', seen))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await warm(proxy.port)
    const response = await rawRequest(proxy.port, bodied(method, 'pay 100'))
    expect(response.status).toBe(502)
    expect(response.header('proxy-status')).toBe('weir; error=connection_terminated; details="ERR_UPSTREAM_RESET"')
    const outcome = await proxy.outcome(2)
    expect(outcome.attempts.map(({ reused, error }) => [reused, error?.code])).toEqual([[true, 'ERR_UPSTREAM_RESET']])
    expect(seen).toEqual([`${method} pay 100`])
  })

  it('POST without a body is not either', async () => {
    await using upstream = await rawUpstream(staleOnce('reset'))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await warm(proxy.port)
    expect((await rawRequest(proxy.port, head('POST', '/', 'Content-Length: 0'))).status).toBe(502)
    expect(upstream.connections).toHaveLength(1)
  })

  it('Idempotency-Key changes nothing by itself, and makes POST retryable where the policy says so', async () => {
    for (const allowed of [false, true]) {
      const seen: string[] = []
      await using upstream = await rawUpstream(staleOnce('fin', seen))
      await using proxy = await startProxy({ upstreams: [upstream.url], retry: { idempotencyKey: allowed } }, { transport })
      await warm(proxy.port)
      const response = await rawRequest(proxy.port, bodied('POST', 'pay 100', 'Idempotency-Key: "8e03978e"'))
      expect(response.status).toBe(allowed ? 200 : 502)
      expect(seen).toHaveLength(allowed ? 2 : 1)
    }
    // And the policy alone, without the field, allows nothing.
    await using upstream = await rawUpstream(staleOnce('fin'))
    await using proxy = await startProxy({ upstreams: [upstream.url], retry: { idempotencyKey: true } }, { transport })
    await warm(proxy.port)
    expect((await rawRequest(proxy.port, bodied('POST', 'pay 100'))).status).toBe(502)
  })

  it('`methods` allows what the operator knows to be harmless', async () => {
    await using upstream = await rawUpstream(staleOnce('fin'))
    await using proxy = await startProxy({ upstreams: [upstream.url], retry: { methods: ['post'] } }, { transport })
    await warm(proxy.port)
    expect((await rawRequest(proxy.port, bodied('POST', 'search'))).status).toBe(200)
  })

  it('`retry: false` and `on` without reset mean what they say', async () => {
    for (const retry of [false, { on: ['connect'] }] as const) {
      await using upstream = await rawUpstream(staleOnce('fin'))
      await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport })
      await warm(proxy.port)
      expect((await rawRequest(proxy.port, get())).status).toBe(502)
    }
  })

  it('a connection that closed while idle is simply not used, not even for POST', async () => {
    const seen: string[] = []
    await using upstream = await rawUpstream(async (connection) => {
      const request = await connection.readRequest()
      seen.push(request.method)
      await connection.send(ok('fine'))
      connection.end()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await warm(proxy.port)
    // The upstream has closed, and the proxy has answered that by closing its own side.
    await until('the proxy has let go of the connection', () => upstream.open === 0)
    const response = await rawRequest(proxy.port, bodied('POST', 'pay 100'))
    expect(response.status).toBe(200)
    expect((await proxy.outcome(2)).attempts).toHaveLength(1)
    expect(seen).toEqual(['GET', 'POST'])
  })

  it('several stale connections in a row do not use up the tries: the second one is fresh', async () => {
    // A restarted server leaves as many dead connections as there were kept ones.
    const kept = 4
    const arrived: (() => void)[] = []
    await using upstream = await rawUpstream(async (connection, self) => {
      if (connection.number > kept) {
        await everyRequest(() => ok('fresh'))(connection, self)
        return
      }
      await connection.readRequest()
      // Answered together, so that there are as many connections as requests.
      await new Promise<void>((resolve) => {
        arrived.push(resolve)
        if (arrived.length === kept) for (const answer of arrived) answer()
      })
      await connection.send(ok('old'))
      await connection.readRequest(60_000)
      connection.reset()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await Promise.all(Array.from({ length: kept }, () => warm(proxy.port)))
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(200)
    expect(response.text()).toBe('fresh')
    const outcome = await proxy.outcome(kept + 1)
    expect(outcome.attempts.map((attempt) => attempt.reused)).toEqual([true, false])
  })

  it('the failure is never held against the upstream, retried or not', async () => {
    await using upstream = await rawUpstream(staleOnce('reset'))
    await using other = await rawUpstream(staleOnce('reset'))
    await using proxy = await startProxy({ upstreams: [upstream.url, other.url], health: [failureMemory({ failures: 1 })] }, { transport })
    for (let i = 0; i < 2; i++) await warm(proxy.port)
    // One that is retried, one that cannot be: both meet a stale connection.
    expect((await rawRequest(proxy.port, bodied('POST', 'pay 100'))).status).toBe(502)
    expect((await rawRequest(proxy.port, get())).status).toBe(200)
    const failed = proxy.outcomes.flatMap((outcome) => outcome.attempts).filter((attempt) => attempt.error !== undefined)
    expect(failed.map(({ reused, error }) => [reused, error?.code])).toEqual([
      [true, 'ERR_UPSTREAM_RESET'],
      [true, 'ERR_UPSTREAM_RESET'],
    ])
    expect(proxy.proxy.pool?.upstreams.map((member) => member.state)).toEqual(['up', 'up'])
    expect(proxy.proxy.pool?.upstreams.map((member) => member.inflight)).toEqual([0, 0])
  })

  it('a reset of a fresh connection, in contrast, is', async () => {
    const resets: UpstreamScript = async (connection) => {
      await connection.readRequest()
      connection.reset()
    }
    await using upstream = await rawUpstream(resets)
    await using other = await rawUpstream(everyRequest(() => ok('fine')))
    await using proxy = await startProxy({ upstreams: [upstream.url, other.url], health: [failureMemory({ failures: 1 })] }, { transport })
    for (let i = 0; i < 2; i++) expect((await rawRequest(proxy.port, get())).status).toBe(200)
    expect(stateOf(proxy.proxy.pool?.get(upstream.url))).toBe('down')
    expect(stateOf(proxy.proxy.pool?.get(other.url))).toBe('up')
  })

  it('a retry happens before the client has seen anything, never behind the head', async () => {
    // The reused connection dies in the middle of the body instead of before the head.
    await using upstream: RawUpstream = await rawUpstream(async (connection, self) => {
      if (connection.number > 1) {
        await everyRequest(() => ok('from 2'))(connection, self)
        return
      }
      await connection.readRequest()
      await connection.send(ok('from 1'))
      await connection.readRequest(60_000)
      await connection.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')
      connection.reset()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await warm(proxy.port)
    await using client = await rawConnect(proxy.port)
    void client.write(get())
    const received = (await client.readToEnd()).toString('latin1')
    expect(received).not.toContain('from 2')
    expect(upstream.connections).toHaveLength(1)
    expect((await proxy.outcome(2)).reason).toBe('ERR_UPSTREAM_BODY')
  })

  it('an HTTP/1.1 client keeps its own connection through all this', async () => {
    await using upstream = await rawUpstream(staleOnce('fin'))
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    for (const expected of ['from 1', 'from 2', 'from 2']) {
      void client.write(get())
      expect((await client.readResponse()).text()).toBe(expected)
    }
  })
})

function stateOf(upstream: { readonly state: string } | undefined): string | undefined {
  return upstream?.state
}
