/** Rate limits on real sockets: exact under concurrency, told in the fields, valid for WebSockets, and not to be talked out of who a client is. */
import { banList, inflightLimit, type LimitOptions, rateLimit } from '@weir/rate-limit'
import { faults, rawConnect, rawRequest, testUpstream, WsRefused, wsConnect, wsUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { get } from './messages.ts'
import { startProxy, until } from './setup.ts'

const statuses = async (port: number, count: number, ...lines: readonly string[]): Promise<number[]> => {
  const seen: number[] = []
  for (let i = 0; i < count; i++) seen.push((await rawRequest(port, get('/', ...lines))).status)
  return seen
}

const refusal = (port: number): Promise<number> =>
  wsConnect(port).then(
    async (peer) => {
      await peer[Symbol.asyncDispose]()
      return 101
    },
    (error: unknown) => {
      if (error instanceof WsRefused) return error.response.status
      throw error
    },
  )

describe('as many as the limit, and not one more', () => {
  const shapes: readonly LimitOptions[] = [
    { limit: 50, window: '1h' },
    { limit: 50, window: '1h', algorithm: 'token-bucket' },
    { limit: 50, window: '1h', algorithm: 'fixed-window' },
    { limit: 50, window: '1d', algorithm: 'sliding-window' },
  ]
  it.each(shapes)('when 200 come at once over 20 connections: $algorithm', async (limit) => {
    await using upstream = await testUpstream({ '*': 'ok' })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [rateLimit(limit)] })
    const client = async (): Promise<number[]> => {
      await using connection = await rawConnect(proxy.port)
      const seen: number[] = []
      for (let i = 0; i < 10; i++) {
        void connection.write(get())
        seen.push((await connection.readResponse()).status)
      }
      return seen
    }
    const seen = (await Promise.all(Array.from({ length: 20 }, client))).flat()
    expect([seen.filter((status) => status === 200).length, seen.filter((status) => status === 429).length]).toEqual([50, 150])
    expect(upstream.count()).toBe(50)
  })
})

it('fields as the draft has them, on allowed and refused responses', async () => {
  await using upstream = await testUpstream({ '*': 'ok' })
  const limits = [
    { name: 'burst', limit: 2, window: '1h' },
    { name: 'daily', limit: 100, window: '1d', algorithm: 'fixed-window' },
  ] as const
  await using proxy = await startProxy({ upstreams: [upstream.url], use: [rateLimit({ limits })] })
  const [first, , refused] = [await rawRequest(proxy.port, get()), await rawRequest(proxy.port, get()), await rawRequest(proxy.port, get())]
  const policy = '"burst";q=2;w=3600, "daily";q=100;w=86400'
  expect([first.status, first.header('ratelimit-policy'), refused.status, refused.header('ratelimit-policy')]).toEqual([
    200,
    policy,
    429,
    policy,
  ])
  expect(first.header('ratelimit')).toBe('"burst";r=1;t=1800, "daily";r=99;t=86400')
  expect(refused.header('ratelimit')).toMatch(/^"burst";r=0;t=\d+$/)
  expect(Number(refused.header('retry-after'))).toBeGreaterThan(0)
  expect(refused.text()).toBe('Too many requests\n')
})

describe('who a client is', () => {
  it('is what a trusted proxy says, and not what its client made up before', async () => {
    await using upstream = await testUpstream({ '*': 'ok' })
    const options = { upstreams: [upstream.url], trustedProxies: ['loopback'], use: [rateLimit({ limit: 2, window: '1h' })] }
    await using proxy = await startProxy(options)
    expect(await statuses(proxy.port, 3, 'X-Forwarded-For: 198.51.100.7')).toEqual([200, 200, 429])
    expect(await statuses(proxy.port, 1, 'X-Forwarded-For: 203.0.113.1, 198.51.100.7')).toEqual([429])
    expect(await statuses(proxy.port, 1, 'X-Forwarded-For: 127.0.0.1, 198.51.100.7')).toEqual([429])
    expect(await statuses(proxy.port, 2, 'X-Forwarded-For: 198.51.100.8')).toEqual([200, 200])
  })

  it('without trust is the connection, whatever a client says', async () => {
    await using upstream = await testUpstream({ '*': 'ok' })
    await using proxy = await startProxy({
      upstreams: [upstream.url],
      use: [rateLimit({ limit: 2, window: '1h', exempt: ['10.0.0.0/8'] })],
    })
    const seen: number[] = []
    for (const address of ['198.51.100.1', '198.51.100.2', '198.51.100.3', '10.0.0.1'])
      seen.push(...(await statuses(proxy.port, 1, `X-Forwarded-For: ${address}`, `Forwarded: for=${address}`, `X-Real-IP: ${address}`)))
    expect(seen).toEqual([200, 200, 429, 429])
  })

  it('is a /64 with IPv6, and an IPv4 address however it is wrapped', async () => {
    await using upstream = await testUpstream({ '*': 'ok' })
    const options = { upstreams: [upstream.url], trustedProxies: ['loopback'], use: [rateLimit({ limit: 2, window: '1h' })] }
    await using proxy = await startProxy(options)
    const from = (address: string): Promise<number[]> => statuses(proxy.port, 1, `X-Forwarded-For: ${address}`)
    const walk = ['2001:db8:0:1::1', '[2001:db8:0:1::2]:4711', '2001:DB8:0:1:ffff:ffff:ffff:ffff', '2001:db8:0:2::1']
    expect((await Promise.all(walk.slice(0, 2).map(from))).flat()).toEqual([200, 200])
    expect([await from(walk[2] as string), await from(walk[3] as string)]).toEqual([[429], [200]])
    expect([await from('192.0.2.1'), await from('::ffff:192.0.2.1'), await from('::ffff:c000:201')]).toEqual([[200], [200], [429]])
  })
})

describe('WebSockets', () => {
  it('are charged when they begin, and refused before there is a tunnel', async () => {
    await using upstream = await wsUpstream()
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [rateLimit({ limit: 2, window: '1h' })] })
    await using first = await wsConnect(proxy.port)
    void first.send('hello')
    expect((await first.next()).data.toString()).toBe('hello')
    expect(first.head.headers.join()).toContain('"default";r=1')
    await using _second = await wsConnect(proxy.port)
    expect(await refusal(proxy.port)).toBe(429)
    expect((await rawRequest(proxy.port, get())).status).toBe(429)
  })

  it('count as in flight until the tunnel ends, however it ends', async () => {
    await using upstream = await wsUpstream()
    const limit = inflightLimit({ limit: 1 })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [limit] })
    for (const ending of ['end', 'reset'] as const) {
      const peer = await wsConnect(proxy.port)
      expect([await refusal(proxy.port), limit.stats().inflight]).toEqual([429, 1])
      peer[ending]()
      await until('the place is free', () => limit.stats().inflight === 0)
    }
    expect(await refusal(proxy.port)).toBe(101)
    await until('the place is free', () => limit.stats().keys === 0)
  })
})

describe('a client that leaves', () => {
  it('is no longer in flight', async () => {
    await using upstream = await testUpstream({ '*': faults.stall() })
    const limit = inflightLimit({ limit: 1 })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [limit] })
    const client = await rawConnect(proxy.port)
    void client.write(get())
    await upstream.until(({ active }) => active === 1)
    expect(await statuses(proxy.port, 1)).toEqual([429])
    await client[Symbol.asyncDispose]()
    await until('the place is free', () => limit.stats().inflight === 0)
    expect(limit.stats()).toMatchObject({ allowed: 1, refused: 1, keys: 0 })
  })

  it('frees its turn for whoever comes next', async () => {
    await using upstream = await testUpstream({ '*': 'ok' })
    const limit = rateLimit({ limit: 6, window: '1h', algorithm: 'leaky-bucket', maxDelay: '10m', key: () => 'k' })
    await using proxy = await startProxy({ upstreams: [upstream.url], use: [limit] })
    expect(await statuses(proxy.port, 1)).toEqual([200])
    const waiting = await rawConnect(proxy.port)
    void waiting.write(get())
    await until('one waits', () => limit.stats().waiting === 1)
    expect(await statuses(proxy.port, 1)).toEqual([429])
    await waiting[Symbol.asyncDispose]()
    await until('it has left', () => limit.stats().abandoned === 1)
    const next = await rawConnect(proxy.port)
    void next.write(get())
    await until('the next one waits', () => limit.stats().waiting === 1)
    await next[Symbol.asyncDispose]()
    await until('it has left too', () => limit.stats().waiting === 0)
    expect([limit.stats().refused, upstream.count()]).toEqual([1, 1])
  })
})

it('who does not stop is banned, also from WebSockets', async () => {
  await using upstream = await wsUpstream()
  const bans = banList()
  const onRefused = bans.after({ refusals: 2, within: '1h', duration: '1h' })
  await using proxy = await startProxy({ upstreams: [upstream.url], use: [bans, rateLimit({ limit: 1, window: '1h', onRefused })] })
  expect([await refusal(proxy.port), await refusal(proxy.port), await refusal(proxy.port), await refusal(proxy.port)]).toEqual([
    101, 429, 429, 403,
  ])
  expect(bans.list()).toMatchObject([{ key: '127.0.0.1', reason: 'too many refusals' }])
  bans.unban('127.0.0.1')
  expect(await refusal(proxy.port)).toBe(429)
})
