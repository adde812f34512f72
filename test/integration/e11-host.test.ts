/**
 * E11. Host decides who is meant. Two of them mean two; none on HTTP/1.1 means a broken client or a probe; a malformed one means something
 * else to the next parser. RFC 9112 §3.2 wants 400 for all of these. HTTP/1.0 had no Host, and health checkers still speak it.
 */
import { rawConnect, rawRequest } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { okUpstream, startProxy, transports } from './setup.ts'

describe('E11: On HTTP/1.1', () => {
  it.each<[what: string, fields: string]>([
    ['no Host', ''],
    ['no Host, with a forwarded one', 'X-Forwarded-Host: public.test\r\n'],
    ['two that differ', 'Host: a.test\r\nHost: b.test\r\n'],
    ['two that agree', 'Host: a.test\r\nHost: a.test\r\n'],
    ['two in different case', 'Host: a.test\r\nhOsT: b.test\r\n'],
    ['two, far apart', 'Host: a.test\r\nX-A: 1\r\nX-B: 2\r\nhost: b.test\r\n'],
    ['two, the first one empty', 'Host:\r\nHost: b.test\r\n'],
    ['a list', 'Host: a.test, b.test\r\n'],
    ['a blank inside', 'Host: a.test b.test\r\n'],
    ['user information', 'Host: user@a.test\r\n'],
    ['a path', 'Host: a.test/path\r\n'],
    ['a query', 'Host: a.test?q\r\n'],
    ['a scheme', 'Host: http://a.test\r\n'],
    ['a backslash', 'Host: a.test\\b\r\n'],
    ['a fragment', 'Host: a.test#b\r\n'],
    ['a port that is no number', 'Host: a.test:http\r\n'],
    ['a negative port', 'Host: a.test:-1\r\n'],
    ['a port of six digits', 'Host: a.test:123456\r\n'],
    ['a port beyond 65535', 'Host: a.test:99999\r\n'],
    ['two ports', 'Host: a.test:80:80\r\n'],
    ['an open bracket', 'Host: [::1\r\n'],
    ['brackets around a name', 'Host: [a.test]\r\n'],
    ['something behind brackets', 'Host: [::1]a\r\n'],
    ['only a port', 'Host: :80\r\n'],
    ['octets above 0x7F', 'Host: caf\xe9.test\r\n'],
    ['a quote', 'Host: "a.test"\r\n'],
    ['angle brackets', 'Host: <script>\r\n'],
    ['a space before the colon', 'Host : a.test\r\n'],
    ['a folded line', 'Host: a.test\r\n b.test\r\n'],
    ['a NUL', 'Host: a.test\x00b\r\n'],
  ])('%s is refused with 400 and never forwarded', async (_what, fields) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const response = await rawRequest(running.port, `GET / HTTP/1.1\r\n${fields}\r\n`, { until: 'close' })
    expect(response.status).toBe(400)
    expect(upstream.connections).toEqual([])
  })

  it.each<[what: string, fields: string]>([
    ['no Host', ''],
    ['two that differ', 'Host: a.test\r\nHost: b.test\r\n'],
    ['two that agree', 'Host: a.test\r\nHost: a.test\r\n'],
  ])('%s is refused with 400 also by a server that does not ask for Host itself', async (_what, fields) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { server: { requireHostHeader: false } })
    const response = await rawRequest(running.port, `GET / HTTP/1.1\r\n${fields}\r\n`, { until: 'close' })
    expect([response.status, response.header('proxy-status')?.includes('ERR_HOST')]).toEqual([400, true])
    expect(upstream.connections).toEqual([])
  })

  it('a second Host is refused before a route or a stage is asked', async () => {
    await using upstream = await okUpstream()
    let asked = 0
    const stage = () => void asked++
    const routes = [{ match: () => ++asked > 0, pool: { upstreams: [upstream.url] } }]
    await using running = await startProxy({ routes, use: [stage] })
    await rawRequest(running.port, 'GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n')
    expect(asked).toBe(0)
    await rawRequest(running.port, 'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
    expect(asked).toBe(2)
  })

  it('what is pipelined behind a refused request is not answered', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    const bytes = 'GET /first HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\nGET /second HTTP/1.1\r\nHost: a.test\r\n\r\n'
    const response = await rawRequest(running.port, bytes, { until: 'close' })
    expect(response.raw.toString('latin1').match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 400'])
    expect(upstream.connections).toEqual([])
  })

  it.each([
    'a.test',
    'A.Test',
    'a.test:80',
    'a.test:8080',
    'a.test:',
    'a.test.',
    'a_b.test',
    '192.0.2.1:1',
    '[2001:db8::1]',
    '[2001:db8::1]:65535',
    'xn--caf-dma.test',
  ])('a good Host goes on as it is: %s', async (host) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    expect((await rawRequest(running.port, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).status).toBe(200)
    expect(upstream.requests[0]?.all('host')).toEqual([host])
  })
})

describe.each(transports)('E11 over %s: On HTTP/1.0', (_, transport) => {
  it('a request without Host works, and the upstream gets one', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    const response = await rawRequest(running.port, 'GET /health HTTP/1.0\r\n\r\n', { until: 'close' })
    expect([response.status, response.text(), response.ending]).toEqual([200, 'ok', 'fin'])
    const [request] = upstream.requests
    expect([request?.version, request?.target, request?.all('host')]).toEqual(['1.1', '/health', [`127.0.0.1:${upstream.port}`]])
    expect(request?.all('x-forwarded-host')).toEqual([])
  })

  it('a request without Host gets the one that the policy writes', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url], hostHeader: { fixed: 'inner.test' } }, { transport })
    await rawRequest(running.port, 'GET / HTTP/1.0\r\n\r\n')
    expect(upstream.requests[0]?.all('host')).toEqual(['inner.test'])
  })

  it('a request without Host is taken by a route without host, not by one with', async () => {
    await using named = await okUpstream('named')
    await using rest = await okUpstream('rest')
    const routes = [{ match: { host: ['a.test', '*.test'] }, pool: { upstreams: [named.url] } }, { pool: { upstreams: [rest.url] } }]
    await using running = await startProxy({ routes }, { transport })
    expect((await rawRequest(running.port, 'GET / HTTP/1.0\r\n\r\n')).text()).toBe('rest')
    expect((await rawRequest(running.port, 'GET / HTTP/1.0\r\nHost: a.test\r\n\r\n')).text()).toBe('named')
  })

  it('a request with a body and without Host works', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    expect((await rawRequest(running.port, 'POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi')).status).toBe(200)
    expect(upstream.requests[0]?.text()).toBe('hi')
  })

  it('a request with Host keeps it', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
    await rawRequest(running.port, 'GET / HTTP/1.0\r\nHost: public.test\r\n\r\n')
    expect(upstream.requests[0]?.all('host')).toEqual(['public.test'])
  })

  it.each(['Host: a.test\r\nHost: b.test\r\n', 'Host: a.test\r\nHost: a.test\r\n', 'Host: a.test/b\r\n'])(
    'is no excuse: %j is refused with 400',
    async (fields) => {
      await using upstream = await okUpstream()
      await using running = await startProxy({ upstreams: [upstream.url] }, { transport })
      expect((await rawRequest(running.port, `GET / HTTP/1.0\r\n${fields}\r\n`)).status).toBe(400)
      expect(upstream.connections).toEqual([])
    },
  )
})

describe('E11: Over HTTP/2', () => {
  it.each<[what: string, headers: Record<string, string>]>([
    ['a Host that contradicts :authority', { ':authority': 'a.test', host: 'b.test' }],
    ['a malformed :authority', { ':authority': 'user@a.test' }],
    ['a malformed Host alone', { host: 'a.test/path' }],
  ])('%s is refused with 400', async (_what, headers) => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { http2: true })
    await using client = await h2Client(running.port)
    const { stream, answer } = client.open(headers)
    stream.end()
    const response = await answer
    expect(response.status === 400 || response.reset !== 0).toBe(true)
    expect(upstream.connections).toEqual([])
  })

  it('a Host that says the same as :authority, or stands for it, is good', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] }, { http2: true })
    await using client = await h2Client(running.port)
    expect((await client.request({ ':authority': 'a.test', host: 'a.test' })).status).toBe(200)
    expect((await client.request({ host: 'b.test' })).status).toBe(200)
    expect(upstream.requests.map((request) => request.all('host'))).toEqual([['a.test'], ['b.test']])
  })
})

describe('E11: A connection', () => {
  it('whose request was refused by node itself is closed, and the next one works', async () => {
    await using upstream = await okUpstream()
    await using running = await startProxy({ upstreams: [upstream.url] })
    await using client = await rawConnect(running.port)
    void client.write('GET / HTTP/1.1\r\n\r\n')
    expect((await client.readResponse()).status).toBe(400)
    expect(await client.closed).toBe('fin')
    expect((await rawRequest(running.port, 'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')).status).toBe(200)
  })
})
