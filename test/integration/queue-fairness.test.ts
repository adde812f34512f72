/**
 * Who waits in the pool's line does not hold up those for whom somebody is free: requests that one balancer sends to different servers, a client that asks for what
 * is not there, and servers that are full for hours.
 */
import { subsets } from '@weir/balancer'
import { everyRequest, rawUpstream, testUpstream } from '@weir/testing'
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
