/** Hard caps, through the whole proxy without sockets. */
import { createPool, createProxy, type PoolOptions, type RetryOptions } from '@weir/core'
import { type FakeResponse, fakeTransport, type VirtualClock, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type ConcurrencyLimitOptions, concurrencyLimit } from './concurrency-limit.ts'

function rig(options: ConcurrencyLimitOptions, more: Partial<PoolOptions> = {}, retry: RetryOptions | false = false, clock?: VirtualClock) {
  const held: ((answer: FakeResponse) => void)[] = []
  const transport = fakeTransport(() => {
    const { promise, resolve } = Promise.withResolvers<FakeResponse>()
    held.push(resolve)
    return promise
  })
  const pool = createPool({ upstreams: ['http://a.test', 'http://b.test'], health: [concurrencyLimit(options)], transport, ...more })
  const proxy = createProxy({ pool, retry, ...(clock === undefined ? {} : { clock }) })
  return {
    proxy,
    pool,
    transport,
    ask: () => proxy.inject({ url: '/' }).then(({ status }) => status),
    turn: () => new Promise<void>((resolve) => setImmediate(resolve)),
    /** Answers the oldest request that waits for an answer. */
    answer: (answer: FakeResponse = {}) => held.shift()?.(answer),
    answerNewest: (answer: FakeResponse) => held.pop()?.(answer),
    async close() {
      for (const resolve of held) resolve({})
      await proxy.close()
      await pool.close()
    },
  }
}

it('requests: so many at once in the pool, the next is refused, and one that ended makes room', async () => {
  const r = rig({ requests: 2 })
  const running = [r.ask(), r.ask()]
  await r.turn()
  expect(await r.ask()).toBe(503)
  expect(r.transport.requests).toHaveLength(2)
  r.answer()
  expect(await Promise.race(running)).toBe(200)
  const third = r.ask()
  await r.turn()
  expect(r.transport.requests).toHaveLength(3)
  await r.close()
  expect(await third).toBe(200)
})

it('waiting: refuses while so many wait, and lets those that wait through', async () => {
  const r = rig({ waiting: 2 }, { maxConcurrent: 1 })
  const running = [r.ask(), r.ask(), r.ask(), r.ask()]
  await r.turn()
  expect(r.pool.stats().waiting).toBe(2)
  expect(await r.ask()).toBe(503)
  r.answer()
  await r.turn()
  r.answer()
  await r.turn()
  r.answer()
  await r.turn()
  r.answer()
  expect(await Promise.all(running)).toEqual([200, 200, 200, 200])
  await r.close()
})

it('perUpstream: the rest waits in the queue; who joins is limited too', async () => {
  const r = rig({ perUpstream: 1 })
  const running = [r.ask(), r.ask(), r.ask()]
  await r.turn()
  expect(r.transport.requests).toHaveLength(2)
  expect(r.pool.stats().waiting).toBe(1)
  r.pool.add('http://c.test')
  await r.turn()
  expect(r.transport.requests).toHaveLength(3)
  expect(r.pool.get('http://c.test')?.maxConcurrent).toBe(1)
  for (let i = 0; i < 3; i++) r.answer()
  expect(await Promise.all(running)).toEqual([200, 200, 200])
  await r.close()
})

describe('retries', () => {
  it('so many in flight; first tries are never refused for it, and the count comes back to nothing', async () => {
    const r = rig({ retries: 1 }, {}, { attempts: 5 })
    const first = r.ask()
    const second = r.ask()
    await r.turn()
    r.answer({ error: 'ERR_CONNECT_REFUSED' })
    await r.turn()
    expect(r.transport.requests).toHaveLength(3)
    // The other one fails as well, but a retry is in flight.
    r.answer({ error: 'ERR_CONNECT_REFUSED' })
    expect(await second).toBe(502)
    const third = r.ask()
    await r.turn()
    expect(r.transport.requests).toHaveLength(4)
    r.answer()
    r.answer()
    expect([await first, await third]).toEqual([200, 200])
    // Room again, also after retries that went round to an upstream already tried.
    const fourth = r.ask()
    await r.turn()
    r.answer({ error: 'ERR_CONNECT_REFUSED' })
    await r.turn()
    r.answer()
    expect(await fourth).toBe(200)
    await r.close()
  })

  it('those that go round to the same upstream are counted as well', async () => {
    const clock = virtualClock()
    const r = rig({ retries: 1 }, { upstreams: ['http://a.test'], clock }, { attempts: 5 }, clock)
    const failing = async (): Promise<void> => {
      await r.turn()
      r.answer({ error: 'ERR_CONNECT_REFUSED' })
      await clock.advance(250)
    }
    for (let i = 0; i < 3; i++) {
      const asked = r.ask()
      await failing()
      r.answer()
      expect(await asked).toBe(200)
    }
    const first = r.ask()
    await failing()
    const second = r.ask()
    await r.turn()
    // The retry of the first is in flight and is answered last.
    r.answerNewest({ error: 'ERR_CONNECT_REFUSED' })
    await clock.advance(250)
    expect(await second).toBe(502)
    expect(r.transport.requests).toHaveLength(9)
    r.answer()
    expect(await first).toBe(200)
    await r.close()
  })

  it('0 allows none', async () => {
    const r = rig({ retries: 0 }, {}, { attempts: 3 })
    const asked = r.ask()
    await r.turn()
    r.answer({ error: 'ERR_CONNECT_REFUSED' })
    expect(await asked).toBe(502)
    expect(r.transport.requests).toHaveLength(1)
    await r.close()
  })
})

it('wrong options are named', () => {
  expect(() => concurrencyLimit({})).toThrow('at least one limit')
  expect(() => concurrencyLimit({ requests: 0, retries: -1 })).toThrow(/requests[\s\S]*retries/)
})
