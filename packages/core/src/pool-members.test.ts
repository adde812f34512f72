/** Coming and going: ids, draining and removal with and without a deadline, and what a pool refuses when it is made. */
import { type FakeTransport, fakeTransport, stubExchange, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import type { Attempt } from './attempt.ts'
import type { Balancer } from './balancer.ts'
import type { Exchange } from './exchange.ts'
import type { OptionsError } from './options.ts'
import { createPool, type LivePool } from './pool.ts'
import type { PoolOptions } from './pool-options.ts'
import { createProxy } from './proxy.ts'
import { roundRobin } from './round-robin.ts'
import type { Upstream } from './upstream.ts'

function setup(ids: readonly string[]) {
  const clock = virtualClock()
  const forgotten: string[] = []
  const transport: FakeTransport = Object.assign(fakeTransport(), { forget: (upstream: Upstream) => void forgotten.push(upstream.id) })
  const pool = createPool({ upstreams: ids.map((id) => ({ url: `http://${id}.test`, id })), health: [], transport, clock }) as LivePool
  const cut: string[] = []
  /** An exchange in flight; `end` releases it, `cut` by the pool releases it too. */
  const start = (name: string, more: Partial<Exchange> = {}): (() => void) => {
    const upstream = pool.pick({ ...stubExchange(), ...more }) as Upstream
    const attempt = {
      upstream,
      cut() {
        cut.push(name)
        end()
      },
    } as unknown as Attempt
    let over = false
    const end = (): void => {
      if (over) return
      over = true
      pool.release(attempt)
    }
    pool.enter(attempt)
    return end
  }
  /** Whether a promise has been fulfilled by now. */
  const watch = (promise: Promise<void>): { done: boolean } => {
    const state = { done: false }
    void promise.then(() => {
      state.done = true
    })
    return state
  }
  return { clock, pool, transport, forgotten, cut, start, watch }
}
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

describe.each(['remove', 'drain'] as const)('%s', (leave) => {
  it('resolves when the last exchange in flight has ended, and gives it nothing new', async () => {
    const { pool, start, watch } = setup(['a', 'b'])
    const ends = [start('1', { affinity: 'a' }), start('2', { affinity: 'a' })]
    const a = pool.get('a') as Upstream
    const left = watch(pool[leave]('a'))
    expect(a.state).toBe('draining')
    expect([1, 2, 3].map(() => pool.pick(stubExchange())?.id)).toEqual(['b', 'b', 'b'])
    ends[0]?.()
    await turn()
    expect(left.done).toBe(false)
    ends[1]?.()
    await turn()
    expect(left.done).toBe(true)
  })

  it('idle, or unknown, resolves at once', async () => {
    const { pool } = setup(['a'])
    await pool[leave]('a')
    await pool[leave]('nobody')
  })

  it('at its deadline cuts what is left, and only that', async () => {
    const { pool, clock, cut, start, watch } = setup(['a', 'b'])
    const end = start('ended', { affinity: 'a' })
    start('one', { affinity: 'a' })
    start('other', { affinity: 'b' })
    start('two', { affinity: 'a' })
    const left = watch(pool[leave]('a', { deadline: '5s' }))
    end()
    await clock.advance(4999)
    expect(cut).toEqual([])
    await clock.advance(1)
    expect(cut.toSorted()).toEqual(['one', 'two'])
    expect(left.done).toBe(true)
    expect(pool.get('b')?.inflight).toBe(1)
  })

  it('a deadline of 0 cuts at once; without one it takes as long as it takes, and no timer is left', async () => {
    const { pool, clock, cut, start, watch } = setup(['a', 'b'])
    const end = start('a', { affinity: 'a' })
    const left = watch(pool[leave]('a'))
    expect(clock.pending).toBe(0)
    await clock.advance(86_400_000)
    expect(left.done).toBe(false)
    end()
    await turn()
    expect(left.done).toBe(true)
    start('b', { affinity: 'b' })
    await Promise.all([pool[leave]('b', { deadline: 0 }), clock.advance(0)])
    expect(cut).toEqual(['b'])
    expect(clock.pending).toBe(0)
  })

  it('an early end clears the deadline', async () => {
    const { pool, clock, start } = setup(['a'])
    const end = start('a')
    const left = pool[leave]('a', { deadline: 1000 })
    end()
    await left
    expect(clock.pending).toBe(0)
  })

  it('asked for twice, resolves twice', async () => {
    const { pool, clock, cut, start } = setup(['a', 'b'])
    start('a', { affinity: 'a' })
    const both = Promise.all([pool.drain('a'), pool[leave]('a', { deadline: 1000 })])
    await clock.advance(1000)
    await both
    expect(cut).toEqual(['a'])
  })

  it('with a deadline that is none is refused, and changes nothing', async () => {
    const { pool } = setup(['a'])
    await expect(async () => pool[leave]('a', { deadline: 'soon' as '1s' })).rejects.toMatchObject({
      code: 'ERR_OPTIONS',
      problems: [{ path: 'deadline' }],
    })
    await expect(async () => pool[leave]('a', { dedline: 5 } as object)).rejects.toMatchObject({ code: 'ERR_OPTIONS' })
    expect(pool.get('a')?.state).toBe('up')
  })
})

describe('coming back', () => {
  it('undrain ends the drain: its deadline cuts nobody any more', async () => {
    const { pool, clock, cut, start } = setup(['a'])
    start('before')
    void pool.drain('a', { deadline: 1000 })
    pool.undrain('a')
    start('after')
    await clock.advance(5000)
    expect(cut).toEqual([])
    expect(pool.get('a')).toMatchObject({ state: 'up', inflight: 2 })
  })

  it('a removed id may be added again, as another upstream', () => {
    const { pool, forgotten, start } = setup(['a'])
    const old = pool.get('a') as Upstream
    const end = start('old')
    void pool.remove('a')
    expect(forgotten).toEqual(['a'])
    const fresh = pool.add({ url: 'http://a.test', id: 'a' })
    expect(fresh).not.toBe(old)
    expect(pool.get('a')).toBe(fresh)
    end()
    expect([old.inflight, fresh.inflight]).toEqual([0, 0])
    expect(pool.pick(stubExchange())).toBe(fresh)
  })

  it('undrain and remove of nobody do nothing', async () => {
    const { pool } = setup(['a'])
    pool.undrain('nobody')
    expect(pool.upstreams.map(({ id }) => id)).toEqual(['a'])
  })
})

describe('refused', () => {
  const problems = (run: () => unknown): string[] => {
    try {
      run()
    } catch (error) {
      return (error as OptionsError).problems.map(({ path }) => path)
    }
    return []
  }
  const make = (options: unknown) => (): unknown => createPool({ transport: fakeTransport(), ...(options as PoolOptions) })

  const wrong: [what: string, options: unknown, paths: string[]][] = [
    ['no upstreams', {}, ['upstreams']],
    ['one upstream without a list', { upstreams: 'http://a' }, ['upstreams']],
    [
      'an id twice',
      {
        upstreams: [
          { url: 'http://a', id: 'x' },
          { url: 'http://b', id: 'x' },
        ],
      },
      ['upstreams[1].id'],
    ],
    ['a URL twice', { upstreams: ['http://a', 'http://b', 'http://A:80/'] }, ['upstreams[2].id']],
    [
      'URLs that are none',
      { upstreams: ['a:3000', '', 'http://', 'ftp://a', 'http://a?x', 'http://a#x', 'unix:', 'unix://host/run/x', 5, null, undefined, {}] },
      [0, 1, 2, 3, 4, 5, 6, 7]
        .map((i) => `upstreams[${i}]`)
        .concat('upstreams[8]', 'upstreams[8].url', 'upstreams[9]', 'upstreams[9].url', 'upstreams[10].url', 'upstreams[11].url'),
    ],
    [
      'settings of an upstream',
      { upstreams: [{ url: 'http://a', weight: 1.5, priority: -1, maxConcurrent: 0, id: '', meta: 5, wieght: 2 }] },
      ['wieght', 'priority', 'weight', 'maxConcurrent', 'id', 'meta'].map((name) => `upstreams[0].${name}`),
    ],
    ['priority and backup', { upstreams: [{ url: 'http://a', backup: true, priority: 2 }] }, ['upstreams[0].backup']],
    [
      'everything at once',
      {
        upstreams: ['x'],
        balancer: roundRobin,
        health: {},
        maxConcurrent: 0,
        queue: { limit: -1, timeout: 0, size: 5 },
        transport: {},
        name: 'p',
        tsl: {},
      },
      ['tsl', 'maxConcurrent', 'queue.size', 'queue.limit', 'queue.timeout', 'balancer', 'health', 'transport', 'upstreams[0]'],
    ],
    ['transport and tls', { upstreams: [], tls: {} }, ['tls']],
  ]
  for (const [what, options, paths] of wrong) it(what, () => expect(problems(make(options)).toSorted()).toEqual(paths.toSorted()))

  it('credentials in a URL, without showing them', () => {
    try {
      make({ upstreams: ['http://user:hunter2@a'] })()
      expect.unreachable()
    } catch (error) {
      expect((error as OptionsError).problems).toHaveLength(1)
      expect((error as Error).message).not.toContain('hunter2')
    }
  })

  it('an id that is taken, by add; the pool stays as it was', () => {
    const { pool } = setup(['a'])
    expect(problems(() => pool.add({ url: 'http://other', id: 'a' }))).toEqual(['id'])
    expect(problems(() => pool.add('nonsense'))).toEqual(['options'])
    expect(problems(() => pool.add({ url: 'http://b.test', id: 'b', weight: -1 }))).toEqual(['weight'])
    expect(pool.get('b')).toBeUndefined()
    expect(pool.upstreams.map(({ url }) => url.href)).toEqual(['http://a.test/'])
  })

  it('a weight that is none, or of nobody', () => {
    const { pool } = setup(['a'])
    for (const weight of [-1, 1.5, 65_536, Number.NaN, '2' as unknown as number])
      expect(problems(() => pool.setWeight('a', weight))).toEqual(['weight'])
    expect(problems(() => pool.setWeight('nobody', 1))).toEqual(['id'])
    expect(pool.get('a')?.weight).toBe(1)
  })

  describe('a balancer that is shared', () => {
    const options = (balancer: Balancer): PoolOptions => ({ upstreams: ['http://a'], balancer, transport: fakeTransport() })

    it('by two pools', () => {
      const balancer = roundRobin()
      createPool(options(balancer))
      expect(problems(() => createPool(options(balancer)))).toEqual(['balancer'])
    })

    it('by two routes of one proxy', () => {
      const balancer = roundRobin()
      const routes = [{ match: { path: '/a' }, pool: options(balancer) }, { pool: options(balancer) }]
      expect(problems(() => createProxy({ routes }))).toEqual(['routes[1].pool.balancer'])
    })

    it('but not by a pool that was never made', () => {
      const balancer = roundRobin()
      expect(problems(() => createPool({ ...options(balancer), maxConcurrent: 0 }))).toEqual(['maxConcurrent'])
      expect(problems(() => createPool(options(balancer)))).toEqual([])
    })
  })
})

describe('what is kept of an upstream', () => {
  it('from a URL: an id that does not depend on how it was spelt', () => {
    const pool = createPool({
      upstreams: ['http://A.test:80/', new URL('https://b.test/base//'), 'unix:/run/app.sock'],
      transport: fakeTransport(),
    })
    expect(pool.upstreams.map(({ id }) => id)).toEqual(['http://a.test', 'https://b.test/base', 'unix:/run/app.sock'])
    expect(pool.upstreams[0]).toMatchObject({
      weight: 1,
      priority: 0,
      state: 'up',
      inflight: 0,
      maxConcurrent: Number.POSITIVE_INFINITY,
      full: false,
      latencyMs: 0,
      meta: {},
    })
  })

  it('stats say it all', () => {
    const { pool, start } = setup(['a', 'b'])
    start('1', { affinity: 'b' })
    void pool.drain('b')
    pool.setWeight('a', 3)
    expect(pool.stats()).toEqual({
      name: 'pool',
      waiting: 0,
      failOpen: false,
      failOpenPicks: 0,
      upstreams: [
        { id: 'a', state: 'up', weight: 3, inflight: 0, latencyMs: 0 },
        { id: 'b', state: 'draining', weight: 1, inflight: 1, latencyMs: 0 },
      ],
    })
  })
})

it('a transport that was given stays open when the pool closes', async () => {
  const { pool, transport } = setup(['a'])
  await pool.close()
  expect(transport.closed).toBe(false)
})
