/**
 * E21. Connect, headers, idle and total timeouts each produce 504 with distinct codes; upstream refusal produces 502 with a code and no
 * address in the body.
 *
 * A timeout that cannot be told from another is a timeout that nobody can mend, so the code is asked for twice: in `Proxy-Status`, where the
 * client's side sees it, and in `onFinish`, where the operator does.
 */
import { connect } from 'node:net'
import type { Pool } from '@weir/core'
import {
  blackHolePort,
  bytes,
  faults,
  patternAt,
  pieces,
  rawConnect,
  rawRequest,
  rawUpstream,
  refusedPort,
  testUpstream,
} from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { h2Client } from './h2.ts'
import { get, head, ok } from './messages.ts'
import { signal, startProxy, transports, until } from './observed.ts'

/** Short enough for a test, long enough for a busy machine to connect on loopback. */
const short = 150

/** For limits that must not fall: a dozen times what the other side takes, so that a machine with other things to do does not decide. */
const ample = 500

describe.each(transports)('E21 over %s', (_name, transport) => {
  const retry = false

  it('connect: 504 ERR_CONNECT_TIMEOUT when nobody accepts', async () => {
    await using hole = await blackHolePort()
    await using proxy = await startProxy({ upstreams: [hole.url], retry, timeouts: { connect: short } }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(504)
    expect(response.header('proxy-status')).toBe('weir; error=connection_timeout; details="ERR_CONNECT_TIMEOUT"')
    const outcome = await proxy.outcome()
    expect(outcome).toMatchObject({ status: 504, reason: 'ERR_CONNECT_TIMEOUT' })
    expect(outcome.attempts).toHaveLength(1)
    expect(outcome.attempts[0]).toMatchObject({ headMs: undefined, status: undefined, error: { code: 'ERR_CONNECT_TIMEOUT' } })
  })

  it('connect: covers the TLS handshake too', async () => {
    await using silent = await rawUpstream(async (connection) => void (await connection.stall()))
    const url = `https://127.0.0.1:${silent.port}`
    await using proxy = await startProxy({ upstreams: [url], retry, timeouts: { connect: short, head: 0 } }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(504)
    expect(response.header('proxy-status')).toContain('details="ERR_CONNECT_TIMEOUT"')
    expect(await (await silent.connection(1)).closed).not.toBe('open')
  })

  it('connect: a second try is allowed even for POST, since nothing was sent', async () => {
    await using hole = await blackHolePort()
    await using fine = await testUpstream()
    await using proxy = await startProxy({ upstreams: [hole.url, fine.url], timeouts: { connect: short } }, { transport })
    // Two requests: whichever upstream the rotation starts with, one of them meets the black hole first.
    for (let i = 0; i < 2; i++) {
      const response = await rawRequest(proxy.port, `${head('POST', '/', 'Content-Length: 4')}body`)
      expect(response.status).toBe(200)
    }
    expect(fine.count()).toBe(2)
    expect(proxy.outcomes.map((outcome) => outcome.attempts.length).sort((a, b) => a - b)).toEqual([1, 2])
  })

  it('head: 504 ERR_HEAD_TIMEOUT, and the upstream connection is closed', async () => {
    await using upstream = await testUpstream({ '/': faults.stall() })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { head: short } }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(504)
    expect(response.header('proxy-status')).toBe('weir; error=http_response_timeout; details="ERR_HEAD_TIMEOUT"')
    const outcome = await proxy.outcome()
    expect(outcome).toMatchObject({ status: 504, reason: 'ERR_HEAD_TIMEOUT' })
    expect(outcome.upstream?.id ?? outcome.attempts[0]?.upstream.id).toBe(upstream.url)
    await upstream.until((seen) => seen.sockets === 0)
  })

  it('head: an interim response is no head', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send('HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n')
      await connection.stall()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { head: short } }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.interims.map((interim) => interim.status)).toEqual([103])
    expect(response.status).toBe(504)
    expect((await proxy.outcome()).reason).toBe('ERR_HEAD_TIMEOUT')
  })

  it('head: half a head is no head', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send('HTTP/1.1 200 OK\r\nContent-')
      await connection.stall()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { head: short } }, { transport })
    expect((await rawRequest(proxy.port, get())).status).toBe(504)
    expect((await proxy.outcome()).reason).toBe('ERR_HEAD_TIMEOUT')
  })

  it('head: a slow upload does not run it down, but starts it when it ends', async () => {
    await using upstream = await testUpstream({
      '/fine': async (req, res) => void req.on('end', () => res.end('got it')).resume(),
      '/mute': faults.stall(),
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { head: ample } }, { transport })
    for (const path of ['/fine', '/mute']) {
      await using client = await rawConnect(proxy.port)
      await client.write(head('POST', path, 'Content-Length: 20'))
      // Longer than the limit in all, never silent for nearly as long as the limit.
      for (let i = 0; i < 20; i++) {
        await new Promise((resolve) => setTimeout(resolve, ample / 12))
        await client.write('x')
      }
      const response = await client.readResponse()
      expect(response.status).toBe(path === '/fine' ? 200 : 504)
    }
    expect((await proxy.outcome(2)).reason).toBe('ERR_HEAD_TIMEOUT')
  })

  it('head: 0 switches it off', async () => {
    await using upstream = await testUpstream({ '/': faults.stall(3 * short) })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { head: 0 } }, { transport })
    expect((await rawRequest(proxy.port, get())).status).toBe(200)
  })

  it('idle: ERR_BODY_TIMEOUT behind a head that the client has seen, so the connection breaks', async () => {
    await using upstream = await testUpstream({ '/': faults.stallBody(10, 1000) })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { idle: short } }, { transport })
    const response = await rawRequest(proxy.port, get(), { until: 'close' })
    expect(response).toMatchObject({ status: 200, complete: false })
    expect(response.body).toEqual(patternAt(0, 10))
    const outcome = await proxy.outcome()
    expect(outcome).toMatchObject({ reason: 'ERR_BODY_TIMEOUT', error: { code: 'ERR_BODY_TIMEOUT', status: 504, phase: 'body' } })
    expect(outcome.attempts[0]?.error?.code).toBe('ERR_BODY_TIMEOUT')
    await upstream.until((seen) => seen.sockets === 0)
  })

  it('idle: a chunked body that falls silent has no clean end', async () => {
    await using upstream = await testUpstream({ '/': pieces(['one', 'two'], { open: true }) })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { idle: short } }, { transport })
    const response = await rawRequest(proxy.port, get(), { until: 'close' })
    expect(response).toMatchObject({ framing: 'chunked', complete: false })
    expect(response.raw.includes('0\r\n\r\n')).toBe(false)
    expect((await proxy.outcome()).reason).toBe('ERR_BODY_TIMEOUT')
  })

  it('idle: pieces that keep coming may take longer in all', async () => {
    await using upstream = await testUpstream({ '/': pieces(Array<string>(20).fill('tick'), { everyMs: ample / 12 }) })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { idle: ample } }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response).toMatchObject({ status: 200, complete: true })
    expect(response.text()).toBe('tick'.repeat(20))
  })

  it('idle: a client that does not read is not an upstream that does not write', async () => {
    const size = 24 * 1024 * 1024
    await using upstream = await testUpstream({ '/': bytes(size) })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { idle: ample } }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(get())
    await client.sees('HTTP/1.1 200')
    client.pause()
    // The kernel's buffers are full after a moment; from then on it is the client alone who delays.
    await new Promise((resolve) => setTimeout(resolve, 2 * ample))
    client.resume()
    const response = await client.readResponse()
    expect(response.complete).toBe(true)
    expect(response.body.length).toBe(size)
    expect((await proxy.outcome()).reason).toBe('completed')
  })

  it('total: 504 ERR_DEADLINE, however long the other limits are', async () => {
    await using upstream = await testUpstream({ '/': faults.stall() })
    await using proxy = await startProxy({ upstreams: [upstream.url], timeouts: { total: short } }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(504)
    expect(response.header('proxy-status')).toBe('weir; error=http_response_timeout; details="ERR_DEADLINE"')
    const outcome = await proxy.outcome()
    expect(outcome).toMatchObject({ status: 504, reason: 'ERR_DEADLINE' })
    expect(outcome.attempts).toHaveLength(1)
    await upstream.until((seen) => seen.sockets === 0)
  })

  it('total: covers every try, not each', async () => {
    await using upstream = await testUpstream({ '/': faults.stall() })
    await using proxy = await startProxy(
      {
        upstreams: [upstream.url],
        timeouts: { head: short, total: 2.5 * short },
        retry: { attempts: 100, on: ['timeout'], budget: false, backoff: { base: 0, max: 0 } },
      },
      { transport },
    )
    const response = await rawRequest(proxy.port, get())
    expect(response.header('proxy-status')).toContain('details="ERR_DEADLINE"')
    const outcome = await proxy.outcome()
    expect(outcome.attempts.length).toBeLessThanOrEqual(3)
    expect(outcome.attempts.map((attempt) => attempt.error?.code)).toEqual([
      ...outcome.attempts.slice(1).map(() => 'ERR_HEAD_TIMEOUT'),
      'ERR_DEADLINE',
    ])
  })

  it('total: covers the wait for a slot', async () => {
    await using upstream = await testUpstream({ '/hold': faults.stall() })
    await using lender = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1, queue: { timeout: '5s' } }, { transport })
    const pool = lender.proxy.pool as Pool
    await using proxy = await startProxy({
      routes: [
        { match: { path: '/hold' }, pool },
        { pool, timeouts: { total: short } },
      ],
    })
    await using holder = await rawConnect(proxy.port)
    void holder.write(get('/hold'))
    await upstream.until((seen) => seen.count('/hold') === 1)
    const waited = await rawRequest(proxy.port, get())
    expect(waited.status).toBe(504)
    expect(waited.header('proxy-status')).toContain('details="ERR_DEADLINE"')
    expect(await proxy.outcome(1)).toMatchObject({ reason: 'ERR_DEADLINE', attempts: [] })
    expect(pool.stats().waiting).toBe(0)
  })

  it('total: covers hooks that take their time with a response, and with the answer to the timeout', async () => {
    await using upstream = await testUpstream({ '/': 200 })
    await using proxy = await startProxy(
      { upstreams: [upstream.url], timeouts: { total: short }, use: [() => ({ onResponse: () => new Promise<void>(() => {}) })] },
      { transport },
    )
    const response = await rawRequest(proxy.port, get())
    expect([response.status, response.header('proxy-status')]).toEqual([504, 'weir; error=http_response_timeout; details="ERR_DEADLINE"'])
    await upstream.until((seen) => seen.sockets === 0)
  })

  it('total: cuts a body that still flows', async () => {
    await using upstream = await testUpstream({ '/': pieces(Array<string>(1000).fill('tick'), { everyMs: 5 }) })
    await using proxy = await startProxy({ upstreams: [upstream.url], timeouts: { total: short } }, { transport })
    const response = await rawRequest(proxy.port, get(), { until: 'close' })
    expect(response).toMatchObject({ status: 200, complete: false })
    expect((await proxy.outcome()).reason).toBe('ERR_DEADLINE')
    await upstream.until((seen) => seen.sockets === 0)
  })

  it('total: ends an upload that never ends', async () => {
    await using upstream = await testUpstream({ '/': async (req) => void req.resume() })
    await using proxy = await startProxy({ upstreams: [upstream.url], timeouts: { total: short } }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(head('POST', '/', 'Transfer-Encoding: chunked'))
    const response = await client.readResponse()
    expect(response.status).toBe(504)
    expect((await proxy.outcome()).reason).toBe('ERR_DEADLINE')
  })

  it('queue: 504 ERR_QUEUE_TIMEOUT', async () => {
    await using upstream = await testUpstream({ '/hold': faults.stall(), '/': 200 })
    await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1, queue: { timeout: short } }, { transport })
    await using holder = await rawConnect(proxy.port)
    void holder.write(get('/hold'))
    await upstream.until((seen) => seen.count('/hold') === 1)
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(504)
    expect(response.header('proxy-status')).toBe('weir; error=connection_limit_reached; details="ERR_QUEUE_TIMEOUT"')
    expect(await proxy.outcome()).toMatchObject({ reason: 'ERR_QUEUE_TIMEOUT', attempts: [] })
  })

  it('refusal: 502 ERR_CONNECT_REFUSED, and no word of the address anywhere in the answer', async () => {
    await using dead = await refusedPort()
    await using proxy = await startProxy({ upstreams: [dead.url], retry }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(502)
    expect(response.header('proxy-status')).toBe('weir; error=connection_refused; details="ERR_CONNECT_REFUSED"')
    const sent = response.raw.toString('latin1')
    expect(sent).not.toContain(String(dead.port))
    expect(sent).not.toContain('127.0.0.1')
    expect(sent).not.toContain('ECONNREFUSED')
    const outcome = await proxy.outcome()
    expect(outcome.reason).toBe('ERR_CONNECT_REFUSED')
    // The operator, in contrast, is told where.
    expect(outcome.error?.upstream?.id).toBe(dead.url)
    expect(outcome.error?.cause).toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('refusal: a name that does not resolve is 502 ERR_DNS, without the name', async () => {
    await using proxy = await startProxy({ upstreams: ['http://no-such-host.invalid:81'], retry }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(502)
    expect(response.header('proxy-status')).toBe('weir; error=dns_error; details="ERR_DNS"')
    expect(response.raw.toString('latin1')).not.toContain('no-such-host')
  })

  it('refusal: a socket file that is not there is 502 ERR_UNREACHABLE, without the path', async () => {
    await using proxy = await startProxy({ upstreams: ['unix:/nowhere/app.sock'], retry }, { transport })
    const response = await rawRequest(proxy.port, get())
    expect(response.status).toBe(502)
    expect(response.header('proxy-status')).toContain('details="ERR_UNREACHABLE"')
    expect(response.raw.toString('latin1')).not.toContain('nowhere')
  })

  it('refusal: a reset before the head is 502 ERR_UPSTREAM_RESET', async () => {
    await using upstream = await testUpstream({ '/reset': faults.reset(), '/fin': faults.hangUp() })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry }, { transport })
    for (const path of ['/reset', '/fin']) {
      const response = await rawRequest(proxy.port, get(path))
      expect(response.status).toBe(502)
      expect(response.header('proxy-status')).toBe('weir; error=connection_terminated; details="ERR_UPSTREAM_RESET"')
      expect(response.raw.toString('latin1')).not.toContain(String(upstream.port))
    }
  })

  it('a timed-out client connection stays in step: the next request on it is answered', async () => {
    await using upstream = await testUpstream({ '/mute': faults.stall(), '/': 'fine' })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { head: short } }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(get('/mute'))
    expect((await client.readResponse()).status).toBe(504)
    void client.write(get('/'))
    expect((await client.readResponse()).text()).toBe('fine')
  })

  it('a late answer goes nowhere', async () => {
    const late = signal()
    let answered = 0
    await using upstream = await rawUpstream(async (connection) => {
      const request = await connection.readRequest()
      if (request.target !== '/late') {
        await connection.send(ok('fine'))
        return
      }
      await connection.closed
      await connection.send(ok('late'))
      answered++
      late.fire()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url], retry, timeouts: { head: short } }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(get('/late'))
    expect((await client.readResponse()).status).toBe(504)
    await late.until(() => answered || undefined, 'the late answer')
    void client.write(get('/'))
    expect((await client.readResponse()).text()).toBe('fine')
    expect(client.unread).toHaveLength(0)
  })

  it('an HTTP/2 client gets the same codes', async () => {
    await using dead = await refusedPort()
    await using upstream = await testUpstream({ '/mute': faults.stall(), '/half': faults.stallBody() })
    await using proxy = await startProxy(
      {
        routes: [{ match: { path: '/dead' }, pool: { upstreams: [dead.url] } }, { pool: { upstreams: [upstream.url] } }],
        retry,
        timeouts: { head: short, idle: short },
      },
      { http2: true },
    )
    await using client = await h2Client(proxy.port)
    const [mute, refused, half] = await Promise.all([
      client.request({ ':path': '/mute' }),
      client.request({ ':path': '/dead' }),
      client.request({ ':path': '/half' }),
    ])
    expect(mute.status).toBe(504)
    expect(mute.all('proxy-status')).toEqual(['weir; error=http_response_timeout; details="ERR_HEAD_TIMEOUT"'])
    expect(refused.status).toBe(502)
    expect(refused.all('proxy-status')).toEqual(['weir; error=connection_refused; details="ERR_CONNECT_REFUSED"'])
    expect(half).toMatchObject({ status: 200, reset: 2 })
  })

  it('a route has timeouts of its own', async () => {
    await using upstream = await testUpstream({ '*': faults.stall(3 * short) })
    // Its pool, and so its transport, serve the proxy under test.
    await using lender = await startProxy({ upstreams: [upstream.url], retry, timeouts: { head: short } }, { transport })
    await using proxy = await startProxy({
      timeouts: { head: short },
      retry,
      routes: [
        { match: { path: '/patient' }, pool: lender.proxy.pool as Pool, timeouts: { head: '10s' } },
        { pool: lender.proxy.pool as Pool },
      ],
    })
    const [slow, hasty] = await Promise.all([rawRequest(proxy.port, get('/patient')), rawRequest(proxy.port, get('/hasty'))])
    expect([slow.status, hasty.status]).toEqual([200, 504])
  })

  it('nothing is left: no exchange, no place at the upstream, no connection', async () => {
    await using hole = await blackHolePort()
    await using proxy = await startProxy({ upstreams: [hole.url], retry, timeouts: { connect: '10s', total: short } }, { transport })
    await using client = await rawConnect(proxy.port)
    // The hole keeps connections of its own waiting.
    const connecting = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length
    const before = connecting()
    void client.write(get())
    await until('the proxy is connecting', () => connecting() === before + 1)
    expect((await client.readResponse()).header('proxy-status')).toContain('ERR_DEADLINE')
    await proxy.outcome()
    expect(proxy.proxy.stats()).toMatchObject({ inflight: 0, pools: [{ waiting: 0, upstreams: [{ inflight: 0 }] }] })
    await until('the connection that was being made is given up', () => connecting() === before)
  })
})

it('E21 a client that leaves while connecting frees everything in the same way', async () => {
  await using hole = await blackHolePort()
  await using proxy = await startProxy({ upstreams: [hole.url], retry: false, timeouts: { connect: '10s' } })
  const client = connect(proxy.port, '127.0.0.1', () => client.write(get()))
  await until('the request has arrived', () => proxy.proxy.stats().inflight === 1)
  client.destroy()
  const outcome = await proxy.outcome()
  expect(outcome).toMatchObject({ status: 499, reason: 'ERR_CLIENT_ABORTED' })
  expect(proxy.proxy.pool?.upstreams[0]).toMatchObject({ inflight: 0, state: 'up' })
})
