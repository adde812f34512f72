/**
 * E40. `close()` stops accepting, finishes in-flight requests, signals h1/h2 clients, ends tunnels at the deadline and leaves no handle open.
 */
import { constants } from 'node:http2'
import { createPool, type Stage } from '@weir/core'
import { bytes, everyRequest, faults, pieces, rawConnect, rawRequest, rawUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { runChild } from './children/run.ts'
import { h2Client } from './h2.ts'
import { manualClock } from './manual-clock.ts'
import { get, head, ok } from './messages.ts'
import { gate, startProxy, transports, until } from './observed.ts'

/** Answers when the test says so. */
function held(): { readonly script: Parameters<typeof rawUpstream>[0]; readonly release: () => void } {
  const { opened, open } = gate()
  return { script: everyRequest(async () => opened.then(() => ok('done'))), release: () => open() }
}

describe.each(transports)('E40 over %s', (_name, transport) => {
  it('new work is refused on connections that are there: 503, Retry-After, Connection: close', async () => {
    const { script, release } = held()
    await using upstream = await rawUpstream(script)
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using working = await rawConnect(proxy.port)
    await using late = await rawConnect(proxy.port)
    // Half a head: this connection is not idle, so it survives the beginning of the drain.
    await late.write('GET / HTTP/1.1\r\nHost: loc')
    void working.write(get())
    await upstream.request(1)
    const closing = proxy.proxy.close({ deadline: '10s' })
    void late.write('alhost\r\n\r\n')
    const refused = await late.readResponse()
    expect([refused.status, refused.header('retry-after'), refused.header('connection')]).toEqual([503, '1', 'close'])
    expect(refused.header('proxy-status')).toBe('weir; error=destination_unavailable; details="ERR_DRAINING"')
    expect(await late.closed).toBe('fin')
    expect(upstream.requests).toHaveLength(1)
    release()
    expect((await working.readResponse()).status).toBe(200)
    await closing
  })

  it('idle connections of clients are closed at once', async () => {
    const { script, release } = held()
    await using upstream = await rawUpstream(script)
    await using quick = await testUpstream({ '*': 'quick' })
    await using proxy = await startProxy(
      { routes: [{ match: { path: '/held' }, pool: { upstreams: [upstream.url] } }, { pool: { upstreams: [quick.url] } }] },
      { transport },
    )
    await using idle = await rawConnect(proxy.port)
    void idle.write(get())
    expect((await idle.readResponse()).header('connection')).not.toBe('close')
    await using working = await rawConnect(proxy.port)
    void working.write(get('/held'))
    await upstream.request(1)
    const closing = proxy.proxy.close()
    expect(await idle.closed).toBe('fin')
    expect(working.ending).toBe('open')
    release()
    await closing
  })

  it('what is in flight is finished, and told that the connection ends with it', async () => {
    const { script, release } = held()
    await using upstream = await rawUpstream(script)
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(get())
    await upstream.request(1)
    let closed = false
    const closing = proxy.proxy.close({ deadline: '10s' }).then(() => {
      closed = true
    })
    await until('a few turns', () => upstream.open === 1)
    expect(closed).toBe(false)
    release()
    const response = await client.readResponse()
    expect([response.status, response.text(), response.header('connection')]).toEqual([200, 'done', 'close'])
    expect(await client.closed).toBe('fin')
    await closing
    expect((await proxy.outcome()).reason).toBe('completed')
  })

  it('a body in flight is finished to its last byte', async () => {
    const size = 6 * 1024 * 1024
    await using upstream = await testUpstream({ '/': bytes(size) })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(get())
    await client.sees('HTTP/1.1 200')
    client.pause()
    const closing = proxy.proxy.close({ deadline: '10s' })
    client.resume()
    expect((await client.readResponse()).body).toHaveLength(size)
    await closing
    expect((await proxy.outcome()).reason).toBe('completed')
  })

  it('an upload in flight is finished', async () => {
    await using upstream = await testUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(`${head('POST', '/', 'Content-Length: 10')}12345`)
    await until('it is on its way', () => upstream.active === 1)
    const closing = proxy.proxy.close({ deadline: '10s' })
    void client.write('67890')
    const response = await client.readResponse()
    expect(response.status).toBe(200)
    expect((JSON.parse(response.text()) as { body: string }).body).toBe('1234567890')
    await closing
  })

  it('a retry, too, belongs to what is in flight', async () => {
    const { opened, open } = gate()
    await using failing = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await opened
      connection.reset()
    })
    await using good = await testUpstream({ '*': 'good' })
    await using proxy = await startProxy({ upstreams: [failing.url, { url: good.url, backup: true }] }, { transport })
    const answer = rawRequest(proxy.port, get())
    await failing.request(1)
    const closing = proxy.proxy.close({ deadline: '10s' })
    open()
    expect((await answer).text()).toBe('good')
    await closing
  })

  it('whoever waits for a slot keeps waiting', async () => {
    const { script, release } = held()
    await using upstream = await rawUpstream(script)
    await using proxy = await startProxy({ upstreams: [upstream.url], maxConcurrent: 1 }, { transport })
    const first = rawRequest(proxy.port, get())
    await upstream.request(1)
    const second = rawRequest(proxy.port, get())
    await until('the second waits', () => proxy.proxy.pool?.stats().waiting === 1)
    const closing = proxy.proxy.close({ deadline: '10s' })
    release()
    expect((await first).status).toBe(200)
    expect((await second).status).toBe(200)
    await closing
  })

  describe('at the deadline', () => {
    it('what has no head gets a 503, what has one is broken off', async () => {
      await using upstream = await testUpstream({
        '/mute': faults.stall(),
        '/half': faults.stallBody(),
        '/stream': pieces(['one'], { open: true }),
      })
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const clients = await Promise.all([rawConnect(proxy.port), rawConnect(proxy.port), rawConnect(proxy.port)])
      const [mute, half, stream] = clients as [(typeof clients)[0], (typeof clients)[0], (typeof clients)[0]]
      void mute.write(get('/mute'))
      void half.write(get('/half'))
      void stream.write(get('/stream'))
      await half.sees('HTTP/1.1 200')
      await stream.sees('one')
      await until('all are at work', () => upstream.active === 3)
      await proxy.proxy.close({ deadline: 100 })
      const refused = await mute.readResponse()
      expect([refused.status, refused.header('connection')]).toEqual([503, 'close'])
      expect((await half.readResponse()).complete).toBe(false)
      expect((await stream.readResponse()).complete).toBe(false)
      expect(proxy.outcomes.map((outcome) => outcome.reason)).toEqual(['ERR_DRAINING', 'ERR_DRAINING', 'ERR_DRAINING'])
      expect(proxy.proxy.stats().inflight).toBe(0)
      await upstream.until((seen) => seen.sockets === 0)
      for (const client of clients) client.destroy()
    })

    it('a client that does not read its answer does not keep the drain', async () => {
      await using upstream = await testUpstream({ '/': bytes(32 * 1024 * 1024) })
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(proxy.port)
      void client.write(get())
      await client.sees('HTTP/1.1 200')
      client.pause()
      await proxy.proxy.close({ deadline: 100 })
      expect((await proxy.outcome()).reason).toBe('ERR_DRAINING')
      await upstream.until((seen) => seen.sockets === 0)
    })

    it('nor does one that does not finish its upload', async () => {
      await using upstream = await testUpstream({ '/': (req) => void req.resume() })
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(proxy.port)
      void client.write(`${head('POST', '/', 'Content-Length: 1000')}some`)
      await until('it is on its way', () => upstream.active === 1)
      await proxy.proxy.close({ deadline: 100 })
      expect((await client.readResponse()).status).toBe(503)
    })

    it('nor a stage, a hook or a wait that never ends', async () => {
      const forever = new Promise<undefined>(() => {})
      await using upstream = await testUpstream({ '/busy': [{ status: 503, headers: { 'Retry-After': '30' } }, 200], '*': 'fine' })
      await using proxy = await startProxy(
        {
          upstreams: [upstream.url],
          retry: { on: [503], maxRetryAfter: '60s' },
          use: [
            (exchange) => (exchange.url === '/stage' ? forever : undefined),
            (exchange) => (exchange.url === '/hook' ? { onResponse: () => forever } : undefined),
          ],
        },
        { transport },
      )
      const answers = ['/stage', '/hook', '/busy'].map((path) => rawRequest(proxy.port, get(path)))
      for (const answer of answers) answer.catch(() => {})
      await until('all hang', () => proxy.proxy.stats().inflight === 3 && upstream.count() === 2)
      await proxy.proxy.close({ deadline: 100 })
      for (const answer of await Promise.all(answers)) expect(answer.status).toBe(503)
      expect(proxy.proxy.stats().inflight).toBe(0)
      expect(proxy.outcomes.map((outcome) => outcome.reason)).toEqual(Array(3).fill('ERR_DRAINING'))
    })

    it('of 0 everything ends at once', async () => {
      await using upstream = await testUpstream({ '/': faults.stall() })
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      const answer = rawRequest(proxy.port, get())
      await until('it is at work', () => upstream.active === 1)
      await proxy.proxy.close({ deadline: 0 })
      expect((await answer).status).toBe(503)
    })

    it('that is not given is ten seconds', async () => {
      const clock = manualClock()
      await using upstream = await testUpstream({ '/': faults.stall() })
      await using proxy = await startProxy({ upstreams: [upstream.url], clock }, { transport })
      const answer = rawRequest(proxy.port, get())
      await until('it is at work', () => upstream.active === 1)
      const closing = proxy.proxy.close()
      expect(clock.pending).toEqual([10_000])
      clock.advance(10_000)
      expect((await answer).status).toBe(503)
      await closing
      expect(clock.pending).toEqual([])
    })
  })

  it('HTTP/2 clients get a GOAWAY, their streams are finished', async () => {
    const { script, release } = held()
    await using upstream = await rawUpstream(script)
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true })
    await using client = await h2Client(proxy.port)
    const goaway = new Promise<number>((resolve) => client.session.once('goaway', resolve))
    const answer = client.request()
    await upstream.request(1)
    const closing = proxy.proxy.close({ deadline: '10s' })
    expect(await goaway).toBe(constants.NGHTTP2_NO_ERROR)
    release()
    expect(await answer).toMatchObject({ status: 200, reset: 0 })
    await closing
    await until('the session is over', () => client.session.destroyed)
  })

  it('HTTP/2 streams that last are broken off at the deadline, not ended', async () => {
    await using upstream = await testUpstream({ '/half': faults.stallBody(), '/mute': faults.stall() })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, http2: true, https: true })
    await using client = await h2Client(proxy.port, 'https')
    const half = client.request({ ':path': '/half' })
    const mute = client.request({ ':path': '/mute' })
    await until('both are at work', () => upstream.active === 2)
    await until('one has its head', () => proxy.proxy.stats().inflight === 2)
    await proxy.proxy.close({ deadline: 150 })
    expect((await half).reset).toBe(constants.NGHTTP2_INTERNAL_ERROR)
    expect((await mute).status).toBe(503)
    await upstream.until((seen) => seen.sockets === 0)
  })

  it('closes the connections to upstreams of its own transport, and of no other', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    const own = transport()
    const pool = createPool({ upstreams: [upstream.url], transport: own })
    {
      await using proxy = await startProxy({ pool })
      expect((await rawRequest(proxy.port, get())).status).toBe(200)
      await proxy.proxy.close()
    }
    // The pool was lent: another proxy goes on with it.
    await using second = await startProxy({ pool })
    expect((await rawRequest(second.port, get())).status).toBe(200)
    expect(upstream.accepted).toBe(1)
    await pool.close()
    expect(upstream.sockets).toBe(1)
    await own.close?.()
    await upstream.until((seen) => seen.sockets === 0)
  })

  it('leaves no handle open: the process ends by itself', { timeout: 30_000 }, async () => {
    const report = await runChild<{
      before: string[]
      after: string[]
      upstreamConnections: number
      inflight: number
      tunnels: number
      goaway: number
      same: boolean
      listeners: string[]
      outcomes: string[]
    }>('close-leaves-nothing', [_name])
    expect(report.after).toEqual(report.before)
    expect(report).toMatchObject({ upstreamConnections: 0, inflight: 0, tunnels: 0, goaway: 0, same: true })
    expect(report.listeners.slice(1)).toEqual(['checkContinue 0', 'upgrade 0', 'connect 0', 'session 0'])
    expect(report.outcomes).toEqual([...Array<string>(5).fill('ERR_DRAINING'), ...Array<string>(20).fill('completed')])
  })
})

describe('E40', () => {
  it('the default transport is the proxy’s own', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    await using proxy = await startProxy({ upstreams: [upstream.url] })
    expect((await rawRequest(proxy.port, get())).status).toBe(200)
    expect(upstream.sockets).toBe(1)
    await proxy.proxy.close()
    await upstream.until((seen) => seen.sockets === 0)
  })

  it('is idempotent: every call is the first one', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    const closed: string[] = []
    const stage: Stage = { name: 'count', handle: () => undefined, close: () => void closed.push('closed') }
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [stage] })
    const first = proxy.proxy.close()
    expect(proxy.proxy.close({ deadline: 1 })).toBe(first)
    await Promise.all([first, proxy.proxy.close(), proxy.proxy[Symbol.asyncDispose]()])
    await proxy.proxy.close()
    expect(closed).toEqual(['closed'])
  })

  it('what comes after is refused, not left hanging', async () => {
    await using upstream = await testUpstream({ '*': 'fine' })
    await using proxy = await startProxy({ upstreams: [upstream.url] })
    await proxy.proxy.close()
    // The server is the embedder's, and still listens.
    const response = await rawRequest(proxy.port, get(), { until: 'close' })
    expect([response.status, response.header('retry-after')]).toEqual([503, '1'])
    await using unattached = await startProxy({ upstreams: [upstream.url] }, { mount: 'listener' })
    await unattached.proxy.close()
    expect((await rawRequest(unattached.port, get())).status).toBe(503)
    expect(upstream.count()).toBe(0)
  })

  it('refuses a wrong deadline, and can then be closed rightly', async () => {
    await using proxy = await startProxy({ upstreams: [] })
    expect(() => proxy.proxy.close({ deadline: -1 })).toThrow(expect.objectContaining({ code: 'ERR_OPTIONS' }))
    await proxy.proxy.close({ deadline: '1s' })
  })
})
