/** Who waits when all are busy, and who is let go when that changes. Waiters here do what exchanges do: on being woken they pick, and keep their place when that finds nobody. */
import { fakeTransport, stubExchange, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Attempt } from './attempt.ts'
import type { Balancer } from './balancer.ts'
import { ProxyError } from './errors.ts'
import type { Exchange } from './exchange.ts'
import type { HealthPolicy } from './health.ts'
import { createPool, type LivePool } from './pool.ts'
import type { PoolOptions } from './pool-options.ts'
import type { Waiter } from './queue.ts'
import type { Upstream, UpstreamOptions } from './upstream.ts'

const up = (id: string, more: Omit<UpstreamOptions, 'url' | 'id'> = {}): UpstreamOptions => ({
  url: `http://${id}.test`,
  id,
  maxConcurrent: 1,
  ...more,
})

function setup(upstreams: readonly UpstreamOptions[], options: Partial<PoolOptions> = {}) {
  const clock = virtualClock()
  const pool = createPool({ upstreams, health: [], transport: fakeTransport(), clock, ...options }) as LivePool
  const log: string[] = []
  const take = (exchange: Exchange): Attempt | undefined => {
    const upstream = pool.pick(exchange)
    return upstream === undefined ? undefined : ({ upstream } as unknown as Attempt)
  }
  const running = new Map<string, Attempt>()
  const wait = (name: string, more: Partial<Exchange> = {}): Waiter | ProxyError => {
    const exchange = { ...stubExchange(), ...more }
    const waiter = pool.wait(exchange, (error) => {
      if (error !== undefined) {
        log.push(`${name}: ${error.code}`)
        return true
      }
      const attempt = take(exchange)
      if (attempt === undefined) return false
      pool.leave(waiter as Waiter)
      log.push(`${name}: ${attempt.upstream.id}`)
      running.set(name, attempt)
      return true
    })
    return waiter
  }
  const occupy = (affinity: string): (() => void) => {
    const attempt = take({ ...stubExchange(), affinity }) as Attempt
    return () => pool.release(attempt)
  }
  const end = (name: string): void => pool.release(running.get(name) as Attempt)
  return { clock, pool, log, wait, occupy, end, get: (id: string) => pool.get(id) as Upstream }
}
const check: HealthPolicy = { name: 'check', attach() {} }

describe('a slot that is freed', () => {
  it('goes to whoever has waited longest, one each', () => {
    const { pool, log, wait, occupy, end } = setup([up('a')])
    const release = occupy('a')
    for (const name of ['1', '2', '3']) wait(name)
    expect(pool.stats().waiting).toBe(3)
    expect(pool.hasWaiters).toBe(true)
    release()
    expect(log).toEqual(['1: a'])
    end('1')
    end('2')
    end('3')
    expect(log).toEqual(['1: a', '2: a', '3: a'])
    expect(pool.hasWaiters).toBe(false)
  })

  it('passes over one that was there already', () => {
    const { log, wait, occupy, get } = setup([up('a'), up('b')])
    const release = occupy('a')
    occupy('b')
    wait('1', { tried: [get('a')] })
    wait('2')
    release()
    expect(log).toEqual(['2: a'])
  })

  it('goes to who is bound to it, also when nobody else may use it', () => {
    const { pool, log, wait, occupy } = setup([up('a'), up('b')])
    const release = occupy('a')
    occupy('b')
    pool.setWeight('a', 0)
    wait('1')
    wait('2', { affinity: 'a' })
    release()
    expect(log).toEqual(['2: a'])
  })
})

describe('nobody is woken in vain', () => {
  it('by an idle tier that is not in use', () => {
    const { pool, log, wait, occupy } = setup([up('a'), up('b', { backup: true })])
    occupy('a')
    wait('1')
    wait('2')
    pool.setWeight('a', 2)
    expect(log).toEqual([])
  })

  it('by an upstream that gets no traffic', () => {
    const { pool, log, wait, occupy } = setup([up('a'), up('b', { weight: 0 })])
    occupy('a')
    wait('1')
    pool.setWeight('a', 2)
    expect(log).toEqual([])
  })

  it('but a retry may go where a first try may not', () => {
    const { pool, log, wait, occupy, get } = setup([up('a'), up('c'), up('b', { backup: true })])
    occupy('a')
    const release = occupy('b')
    occupy('c')
    wait('first')
    wait('retry', { tried: [get('a')] })
    release()
    expect(log).toEqual(['retry: b'])
    pool.setWeight('a', 2)
    expect(log).toEqual(['retry: b'])
  })
})

describe('room for several', () => {
  it('lets several go: an upstream that joins', () => {
    const { pool, log, wait, occupy } = setup([up('a')])
    occupy('a')
    for (const name of ['1', '2', '3', '4']) wait(name)
    pool.add(up('b', { maxConcurrent: 3 }))
    expect(log).toEqual(['1: b', '2: b', '3: b'])
    expect(pool.stats().waiting).toBe(1)
  })

  it('one that comes back', () => {
    const { pool, log, wait, occupy, get } = setup([up('a'), up('b', { maxConcurrent: 2 })])
    pool.policies.setDown(get('b'), check, 'x')
    occupy('a')
    for (const name of ['1', '2', '3']) wait(name)
    pool.policies.setUp(get('b'), check, 'x')
    expect(log).toEqual(['1: b', '2: b'])
  })

  it('and a tier that comes into use', () => {
    const { pool, log, wait, occupy, get } = setup([up('a'), up('b', { backup: true, maxConcurrent: 2 })])
    occupy('a')
    for (const name of ['1', '2', '3']) wait(name)
    pool.policies.setDown(get('a'), check, 'x')
    expect(log).toEqual(['1: b', '2: b'])
  })
})

describe('a balancer that finds nobody for some', () => {
  /** Nobody for those whose key is `x`. */
  const choosy = (): Balancer & { asked: number } => {
    let members: readonly Upstream[] = []
    const made = {
      name: 'choosy',
      asked: 0,
      update(available: readonly Upstream[]) {
        members = available
      },
      pick(exchange: Exchange) {
        made.asked++
        return exchange.hashKey === 'x' ? undefined : members.find(({ full }) => !full)
      },
    }
    return made
  }

  it('does not let them wait while nobody is busy: ERR_NO_UPSTREAM', () => {
    const { pool, wait } = setup([up('a')], { balancer: choosy() })
    expect(wait('1', { hashKey: 'x' })).toMatchObject({ code: 'ERR_NO_UPSTREAM', message: expect.stringContaining('choosy') })
    expect(pool.stats().waiting).toBe(0)
  })

  it('nor for one that is busy and gets no new work, unless they are bound to it', () => {
    const { wait, pool, occupy } = setup([up('a'), up('b')], { balancer: choosy() })
    occupy('a')
    void pool.drain('a')
    expect(wait('1', { hashKey: 'x' })).toMatchObject({ code: 'ERR_NO_UPSTREAM' })
    expect(wait('2', { hashKey: 'x', affinity: 'a' })).not.toMatchObject({ code: 'ERR_NO_UPSTREAM' })
    expect(pool.stats().waiting).toBe(1)
  })

  it('lets those behind them go, and keeps their place and their time', async () => {
    const balancer = choosy()
    const { pool, clock, log, wait, occupy } = setup([up('a')], { balancer, queue: { timeout: '2s' } })
    const release = occupy('a')
    wait('1', { hashKey: 'x' })
    await clock.advance(1500)
    wait('2')
    release()
    expect([log, pool.stats().waiting]).toEqual([['2: a'], 1])
    const { asked } = balancer
    pool.setWeight('a', 2)
    expect(balancer.asked - asked).toBeLessThanOrEqual(1)
    await clock.advance(500)
    expect(log).toEqual(['2: a', '1: ERR_QUEUE_TIMEOUT'])
  })
})

it('nobody waits for a server that is free, however long the line and whatever happens', async () => {
  const ids = ['a', 'b', 'c']
  const byKey: Balancer = {
    name: 'by-key',
    update(available) {
      this.pick = ({ hashKey }) => available.find(({ id, full }) => id === hashKey && !full)
    },
    pick: () => undefined,
  }
  const turns = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))
  const action = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(fc.constant('wait' as const), fc.constantFrom(...ids), fc.integer({ min: 1, max: 300 })) },
    { weight: 4, arbitrary: fc.tuple(fc.constant('end' as const), fc.constantFrom(...ids), fc.integer({ min: 1, max: 3 })) },
    { weight: 1, arbitrary: fc.tuple(fc.constant('leave' as const), fc.constantFrom(...ids), fc.integer({ min: 1, max: 100 })) },
  )
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 25 }), async (actions) => {
      const pool = createPool({
        upstreams: ids.map((id) => up(id)),
        health: [],
        transport: fakeTransport(),
        clock: virtualClock(),
        balancer: { ...byKey },
        queue: { limit: 10_000 },
      }) as LivePool
      const waiting = new Map<string, Set<Waiter>>(ids.map((id) => [id, new Set()]))
      const running = new Map<string, Attempt>()
      // Somebody has each of them.
      const take = (exchange: Exchange): boolean => {
        const upstream = pool.pick(exchange)
        if (upstream !== undefined) running.set(upstream.id, { upstream } as unknown as Attempt)
        return upstream !== undefined
      }
      for (const id of ids) take({ ...stubExchange(), hashKey: id })
      for (const [what, id, count] of actions) {
        for (let i = 0; i < count; i++) {
          const mine = waiting.get(id) as Set<Waiter>
          if (what === 'wait') {
            const exchange = { ...stubExchange(), hashKey: id }
            if (take(exchange)) continue
            const waiter = pool.wait(exchange, (error) => {
              if (error !== undefined || !take(exchange)) return error !== undefined
              pool.leave(waiter as Waiter)
              mine.delete(waiter as Waiter)
              return true
            })
            if (!ProxyError.is(waiter)) mine.add(waiter)
          } else if (what === 'end') {
            const attempt = running.get(id)
            if (attempt === undefined) continue
            running.delete(id)
            pool.release(attempt)
          } else {
            const [one] = mine
            if (one === undefined) continue
            mine.delete(one)
            pool.leave(one)
          }
        }
        await turns()
        for (const each of ids)
          expect([each, (pool.get(each) as Upstream).full || (waiting.get(each) as Set<Waiter>).size === 0]).toEqual([each, true])
        expect(pool.stats().waiting).toBe([...waiting.values()].reduce((sum, { size }) => sum + size, 0))
      }
      await pool.close()
    }),
    { numRuns: 60 },
  )
})

describe('the end of waiting', () => {
  it('nobody is left who could come: ERR_NO_UPSTREAM for all', () => {
    const { pool, log, wait, occupy, get } = setup([up('a')])
    occupy('a')
    wait('1')
    wait('2')
    pool.policies.setDown(get('a'), check, 'x')
    expect(log).toEqual(['1: ERR_NO_UPSTREAM', '2: ERR_NO_UPSTREAM'])
    expect(wait('3')).toMatchObject({ code: 'ERR_NO_UPSTREAM' })
  })

  it('the timeout: ERR_QUEUE_TIMEOUT', async () => {
    const { clock, log, wait, occupy } = setup([up('a')], { queue: { timeout: '2s' } })
    occupy('a')
    wait('1')
    await clock.advance(1999)
    expect(log).toEqual([])
    await clock.advance(1)
    expect(log).toEqual(['1: ERR_QUEUE_TIMEOUT'])
  })

  it('a full queue, or none: ERR_QUEUE_FULL at once', () => {
    const bounded = setup([up('a')], { queue: { limit: 1 } })
    bounded.occupy('a')
    expect(bounded.wait('1')).not.toBeInstanceOf(ProxyError)
    expect(bounded.wait('2')).toMatchObject({ code: 'ERR_QUEUE_FULL' })
    const none = setup([up('a')], { queue: false })
    none.occupy('a')
    expect(none.wait('1')).toMatchObject({ code: 'ERR_QUEUE_FULL' })
    expect(none.pool.hasWaiters).toBe(false)
  })

  it('a closed pool: ERR_DRAINING', async () => {
    const { pool, clock, log, wait, occupy } = setup([up('a')])
    occupy('a')
    wait('1')
    await pool.close()
    expect(log).toEqual(['1: ERR_DRAINING'])
    expect(clock.pending).toBe(0)
  })

  it('a client that leaves is not served, and the next one is', () => {
    const { pool, log, wait, occupy } = setup([up('a')])
    const release = occupy('a')
    const first = wait('1') as Waiter
    wait('2')
    pool.leave(first)
    release()
    expect(log).toEqual(['2: a'])
  })
})
