/**
 * Who waits in the pool's line does not hold up those for whom somebody is free: requests that one balancer sends to different servers, a client that asks for what
 * is not there, and servers that are full for hours.
 */
import { Agent, type ClientRequest, request } from 'node:http'
import { subsets } from '@weir/balancer'
import { everyRequest, faults, rawUpstream, testUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { ask } from './caching.ts'
import { startProxy, until } from './observed.ts'

describe('a request that nobody can serve', () => {
  it('is answered at once while nobody is busy, and holds up no other', async () => {
    await using upstream = await testUpstream()
    await using proxy = await startProxy({
      upstreams: [{ url: upstream.url, meta: { version: 'v1' } }],
      balancer: subsets({ labels: { version: 'header:x-version' } }),
    })
    const get = async (version: string): Promise<number> => (await ask(proxy.port, '/', { headers: { 'x-version': version } })).status
    expect(await get('v1')).toBe(200)
    expect(await get('nope')).toBe(503)
    const [bad, ...good] = await Promise.all(['nope', 'v1', 'v1', 'v1'].map(get))
    expect([bad, good]).toEqual([503, [200, 200, 200]])
    expect(proxy.proxy.stats().pools[0]?.waiting).toBe(0)
  })
})

describe('a request whose server is full', () => {
  it('waits for that one, and those for another go past it', async () => {
    await using v1 = await rawUpstream(everyRequest(() => 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:\n\n'))
    await using v2 = await testUpstream()
    await using proxy = await startProxy({
      upstreams: [
        { url: v1.url, meta: { version: 'v1' }, maxConcurrent: 1 },
        { url: v2.url, meta: { version: 'v2' } },
      ],
      balancer: subsets({ labels: { version: 'header:x-version' } }),
      queue: { timeout: '1s' },
    })
    const get = async (version: string): Promise<number> => (await ask(proxy.port, '/', { headers: { 'x-version': version } })).status
    const stream = new AbortController()
    const open = await fetch(`http://127.0.0.1:${proxy.port}/`, { headers: { 'x-version': 'v1' }, signal: stream.signal })
    const waits = get('v1')
    await until('it waits', () => proxy.proxy.stats().pools[0]?.waiting === 1)
    expect(await Promise.all(Array.from({ length: 20 }, () => get('v2')))).toEqual(new Array(20).fill(200))
    expect(proxy.proxy.stats().pools[0]?.waiting).toBe(1)
    expect(await waits).toBe(504)
    stream.abort()
    await open.body?.cancel().catch(() => {})
  })

  it('a retry that waits for it does not shut the one that has come back', async () => {
    await using a = await testUpstream()
    await using b = await rawUpstream(everyRequest(() => 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:\n\n'))
    await using proxy = await startProxy({
      upstreams: [
        { id: 'a', url: a.url },
        { id: 'b', url: b.url },
      ],
      maxConcurrent: 2,
      queue: { timeout: '1s' },
    })
    const pool = proxy.proxy.pool
    const streams = new AbortController()
    void pool?.drain('a')
    for (let i = 0; i < 2; i++) await fetch(`http://127.0.0.1:${proxy.port}/`, { signal: streams.signal })
    pool?.undrain('a')
    await a.kill()
    const retried = ask(proxy.port, '/')
    await until('it waits for the other', () => proxy.proxy.stats().pools[0]?.waiting === 1)
    await a.restart()
    const statuses: number[] = []
    for (let i = 0; i < 10; i++) statuses.push((await ask(proxy.port, '/')).status)
    expect(statuses).toEqual(new Array(10).fill(200))
    expect([200, 502, 504]).toContain((await retried).status)
    streams.abort()
  })
})

describe('a long line', () => {
  it('whose requests are over as soon as it is their turn is worked off, every one of them', async () => {
    let release = (): void => {}
    await using upstream = await testUpstream({
      '/base/hold': (_req, res) => {
        release = () => void res.end('held')
      },
    })
    await using proxy = await startProxy({ upstreams: [`${upstream.url}/base`], maxConcurrent: 1, queue: { limit: 2000, timeout: '20s' } })
    const held = ask(proxy.port, '/hold')
    await upstream.until(({ active }) => active === 1)
    // They climb out of the base path, which shows when a target is made for an upstream.
    const agent = new Agent({ keepAlive: false })
    const climbing = Array.from({ length: 1500 }, async () => {
      const { promise, resolve, reject } = Promise.withResolvers<number | undefined>()
      request({ agent, port: proxy.port, path: '/a/../../secret' }, (res) => res.resume().on('end', () => resolve(res.statusCode)))
        .on('error', reject)
        .end()
      return promise
    })
    await until('all wait', () => proxy.proxy.stats().pools[0]?.waiting === 1500, 15_000)
    release()
    expect((await held).status).toBe(200)
    expect(new Set(await Promise.all(climbing))).toEqual(new Set([400]))
    await until('all are over', () => proxy.proxy.stats().inflight === 0)
    expect(proxy.proxy.stats().pools[0]).toMatchObject({ waiting: 0, upstreams: [{ inflight: 0 }] })
  }, 40_000)

  it('for a server that is stuck does not keep those behind it from another', async () => {
    await using stuck = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.stall()
    })
    await using quick = await testUpstream({ '*': faults.stall(20, 'quick') })
    await using proxy = await startProxy({
      upstreams: [
        { url: stuck.url, meta: { version: 'v1' }, maxConcurrent: 1 },
        { url: quick.url, meta: { version: 'v2' }, maxConcurrent: 1 },
      ],
      balancer: subsets({ labels: { version: 'header:x-version' } }),
      queue: { limit: 1000, timeout: '10s' },
      timeouts: { total: 0 },
    })
    const agent = new Agent({ keepAlive: false })
    const open = new Set<ClientRequest>()
    for (let i = 0; i < 700; i++) {
      const asked = request({ agent, port: proxy.port, headers: { 'x-version': 'v1' } })
      asked.on('error', () => {}).end()
      open.add(asked)
    }
    await until('they wait', () => proxy.proxy.stats().pools[0]?.waiting === 699, 15_000)
    const answers = Array.from({ length: 6 }, () => ask(proxy.port, '/', { headers: { 'x-version': 'v2' } }))
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual(new Array(6).fill(200))
    expect(proxy.proxy.stats().pools[0]?.waiting).toBe(699)
    for (const asked of open) asked.destroy()
    await until('all have left', () => proxy.proxy.stats().inflight === 0)
  }, 40_000)
})
