/** What is counted of whom; rates against their definition under a virtual clock; what is forgotten. */
import { createProxy, type Exchange, OptionsError, type StageLike } from '@weir/core'
import { fakeTransport, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type KeyCounters, type KeyCountersOptions, keyCounters } from './key-counters.ts'

type Answer = NonNullable<Parameters<typeof fakeTransport>[0]>

function rig<const C extends string = never>(
  options: KeyCountersOptions<C> = {},
  { answer, inner = [] }: { answer?: Answer; inner?: readonly StageLike[] } = {},
) {
  const clock = virtualClock(1_000_000)
  const counters: KeyCounters<C> = keyCounters({ clock, ...options })
  const proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(answer), use: [counters, ...inner], retry: false })
  onTestFinished(() => proxy.close())
  return {
    clock,
    counters,
    proxy,
    ask: async (remoteAddress = '192.0.2.1', url = '/') => (await proxy.inject({ url, remoteAddress })).status,
  }
}

describe('a key', () => {
  it('is counted by what became of its requests', async () => {
    const { counters, ask } = rig({}, { answer: ({ path }) => ({ status: Number(path.slice(1)), body: 'abc' }) })
    for (const url of ['/200', '/200', '/404', '/401', '/503']) await ask('192.0.2.1', url)
    await ask('192.0.2.2', '/200')
    expect(counters.get('192.0.2.1')).toEqual({
      key: '192.0.2.1',
      inflight: 0,
      requests: { total: 5, rate: 5 },
      clientErrors: { total: 2, rate: 2 },
      serverErrors: { total: 1, rate: 1 },
      bytesOut: { total: 15, rate: 15 },
      counters: {},
      ageMs: 0,
      idleMs: 0,
    })
    expect(counters.get('192.0.2.2')).toMatchObject({ requests: { total: 1 }, clientErrors: { total: 0 } })
    expect(counters.get('192.0.2.3')).toBeUndefined()
  })

  it('is known to the stages behind, itself included, and they decide', async () => {
    let counters: KeyCounters | undefined
    const strict: StageLike = (exchange) => ((counters?.of(exchange)?.clientErrors.rate ?? 0) >= 2 ? { status: 403 } : undefined)
    const made = rig({}, { answer: () => ({ status: 404 }), inner: [strict] })
    counters = made.counters
    expect([await made.ask(), await made.ask(), await made.ask(), await made.ask('192.0.2.9')]).toEqual([404, 404, 403, 404])
    // The refusal is an error, too.
    expect(counters.get('192.0.2.1')?.clientErrors.total).toBe(3)
  })

  it('is one per IPv6 network, and found by any spelling of an address of it', async () => {
    const { counters, ask } = rig()
    await ask('2001:db8::1')
    await ask('2001:db8::2')
    expect(counters.get('2001:0DB8:0:0::77')?.requests.total).toBe(2)
    expect(counters.delete('2001:db8::5')).toBe(true)
    expect(counters.get('2001:db8::1')).toBeUndefined()
  })

  it('has what is in flight counted until it ends, a client that leaves included', async () => {
    const { promise, resolve } = Promise.withResolvers<{ status: number }>()
    const { counters, ask } = rig({}, { answer: () => promise })
    const running = [ask(), ask()]
    await new Promise((done) => setImmediate(done))
    expect(counters.get('192.0.2.1')).toMatchObject({ inflight: 2, requests: { total: 2 } })
    resolve({ status: 200 })
    await Promise.all(running)
    expect(counters.get('192.0.2.1')).toMatchObject({ inflight: 0, requests: { total: 2 } })
    const exchange = { clientIp: '192.0.2.1' } as Exchange
    const visit = counters.handle(exchange) as { onFinish(outcome: unknown): void }
    visit.onFinish({ status: 499, bytesOut: 0 })
    visit.onFinish({ status: 499, bytesOut: 0 })
    expect(counters.get('192.0.2.1')).toMatchObject({ inflight: 0, requests: { total: 3 }, clientErrors: { total: 0 } })
  })

  it('has counters of the service, by name', async () => {
    const logins: { add: (exchange: Exchange) => void } = { add: () => {} }
    const { counters, ask, clock } = rig({ counters: ['logins', 'points'], window: 1000 }, { inner: [(exchange) => logins.add(exchange)] })
    logins.add = (exchange) => {
      counters.add(exchange, 'logins')
      counters.add(exchange, 'points', 2.5)
    }
    await ask()
    await ask()
    expect(counters.get('192.0.2.1')?.counters).toEqual({ logins: { total: 2, rate: 2 }, points: { total: 5, rate: 5 } })
    await clock.advance(2000)
    expect(counters.get('192.0.2.1')?.counters.logins).toEqual({ total: 2, rate: 0 })
    const exchange = { clientIp: '192.0.2.200' } as Exchange
    // @ts-expect-error not declared
    expect(() => counters.add(exchange, 'login')).toThrow(RangeError)
    expect(() => counters.add(exchange, 'logins', Number.NaN)).toThrow(RangeError)
    // Not one that was counted.
    counters.add(exchange, 'logins')
    expect(counters.get('192.0.2.1')?.counters.logins.total).toBe(2)
  })

  it('that takes a promise to find out is counted all the same', async () => {
    let seen: number | undefined
    let counters: KeyCounters | undefined
    const made = rig(
      { key: async ({ clientIp }) => `user of ${clientIp}` },
      {
        inner: [
          (exchange) => {
            seen = counters?.of(exchange)?.requests.total
          },
        ],
      },
    )
    counters = made.counters
    await made.ask()
    await made.ask()
    expect(seen).toBe(2)
    expect(counters.get('user of 192.0.2.1')?.requests.total).toBe(2)
  })

  it('is known by what it was when it came, whatever stages in between do to it', async () => {
    const seen: unknown[] = []
    let counters: KeyCounters<'logins'> | undefined
    const made = rig(
      { key: { header: 'X-API-Key' }, counters: ['logins'] },
      {
        inner: [
          (exchange) => {
            exchange.headers.delete('X-API-Key')
            counters?.add(exchange, 'logins')
            seen.push(counters?.of(exchange)?.key)
          },
        ],
      },
    )
    counters = made.counters
    await made.proxy.inject({ headers: { Host: 'a', 'X-API-Key': 'k1' } })
    expect(seen).toEqual(['hk1'])
    expect(counters.get('hk1')?.counters.logins.total).toBe(1)
  })

  it('that cannot be found out fails its exchange, and asking for it afterwards asks nobody', async () => {
    let asked = 0
    let counters: KeyCounters<'logins'> | undefined
    const watch: StageLike = (exchange) => ({ onFinish: () => counters?.add(exchange, 'logins') })
    const stage = keyCounters({
      counters: ['logins'],
      key: async () => {
        asked++
        throw new Error('look-up failed')
      },
    })
    counters = stage
    const proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(), use: [watch, stage] })
    expect((await proxy.inject({})).status).toBe(500)
    await proxy.close()
    expect(asked).toBe(1)
  })

  it('that is exempt, or has none, is not counted', async () => {
    const { counters, ask } = rig({ exempt: ['192.0.2.0/24'], key: ['ip', ({ url }) => (url === '/free' ? undefined : 'x')] })
    await ask('192.0.2.1')
    await ask('198.51.100.1', '/free')
    expect(counters.stats()).toEqual({ entries: 0, evictions: 0 })
    await ask('198.51.100.1')
    expect(counters.stats().entries).toBe(1)
  })
})

describe('a rate', () => {
  it('is this window and what the sliding one still covers of the last, whatever comes when', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(2500), { maxLength: 30 }), fc.nat(2500), async (gaps, rest) => {
        const clock = virtualClock(10_000)
        const counters = keyCounters({ window: 1000, clock })
        const times: number[] = []
        for (const gap of gaps) {
          await clock.advance(gap)
          times.push(clock.now())
          const visit = counters.handle({ clientIp: 'k' } as Exchange) as { onFinish(outcome: unknown): void }
          visit.onFinish({ status: 200, bytesOut: 10 })
        }
        await clock.advance(rest)
        const now = clock.now()
        const window = Math.floor(now / 1000)
        const inWindow = (n: number): number => times.filter((time) => Math.floor(time / 1000) === n).length
        const rate = inWindow(window) + inWindow(window - 1) * (1 - (now / 1000 - window))
        const counts = counters.get('k')
        expect(counts?.requests.total ?? 0).toBe(times.length)
        expect(counts?.requests.rate ?? 0).toBeCloseTo(rate, 6)
        expect(counts?.bytesOut.rate ?? 0).toBeCloseTo(10 * rate, 6)
      }),
    )
  })

  it('puts the busiest first', async () => {
    const { counters, ask, clock } = rig({ window: 1000 }, { answer: ({ path }) => ({ status: path === '/bad' ? 404 : 200 }) })
    for (let i = 0; i < 5; i++) for (let n = 0; n <= i; n++) await ask(`192.0.2.${i}`)
    await ask('192.0.2.0', '/bad')
    expect(counters.top(2).map(({ key }) => key)).toEqual(['192.0.2.4', '192.0.2.3'])
    expect(counters.top(2, 'clientErrors').map(({ key }) => key)).toEqual(['192.0.2.0'])
    expect(counters.top(2, 'inflight')).toEqual([])
    await clock.advance(5000)
    expect(counters.top()).toEqual([])
    expect(() => counters.top(1, 'request' as 'requests')).toThrow(RangeError)
  })
})

describe('memory', () => {
  it('is bounded: who was longest not seen goes first, and is counted when that was before its time', async () => {
    const { counters, ask, clock } = rig({ maxEntries: 2, idle: '1m' })
    for (const key of ['a', 'b', 'a', 'c']) await ask(`192.0.2.${key.charCodeAt(0)}`)
    expect([counters.get('192.0.2.97'), counters.get('192.0.2.98')].map((one) => one?.requests.total)).toEqual([2, undefined])
    expect(counters.stats()).toEqual({ entries: 2, evictions: 1 })
    await clock.advance(60_000)
    expect(counters.get('192.0.2.97')).toBeUndefined()
    await ask('192.0.2.1')
    await ask('192.0.2.2')
    expect(counters.stats()).toEqual({ entries: 2, evictions: 1 })
    counters.clear()
    expect(counters.stats().entries).toBe(0)
  })

  it('a key that is forgotten while it is in flight begins anew', async () => {
    const counters = keyCounters({ clock: virtualClock(1000) })
    const exchange = { clientIp: 'k' } as Exchange
    const visit = counters.handle(exchange) as { onFinish(outcome: unknown): void }
    expect(counters.of(exchange)?.inflight).toBe(1)
    counters.delete('k')
    expect(counters.of(exchange)).toBeUndefined()
    visit.onFinish({ status: 200, bytesOut: 0 })
    expect(counters.get('k')).toBeUndefined()
  })
})

it('names every wrong option', () => {
  const wrong = (): unknown =>
    keyCounters({ window: 0, counters: ['a', 'a'], idle: 1, maxEntries: 0, ipv6Prefix: 1, key: {}, exempt: 1, clock: 1, nmae: '' } as never)
  expect(wrong).toThrow(OptionsError)
  for (const name of ['window', 'counters', 'idle', 'maxEntries', 'ipv6Prefix', 'key', 'exempt', 'clock', 'nmae'])
    expect(wrong).toThrow(name)
  expect(() => keyCounters({ counters: ['requests'] })).toThrow(OptionsError)
})
