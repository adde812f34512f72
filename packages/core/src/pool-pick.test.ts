/** Who is picked: the tier in use, affinity, and for a retry whoever is left anywhere. */
import { fakeTransport, stubExchange } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import type { Attempt } from './attempt.ts'
import type { Balancer } from './balancer.ts'
import type { Exchange } from './exchange.ts'
import type { HealthPolicy } from './health.ts'
import { createPool, type LivePool } from './pool.ts'
import type { PoolOptions } from './pool-options.ts'
import type { Upstream, UpstreamOptions } from './upstream.ts'

const up = (id: string, more: Omit<UpstreamOptions, 'url' | 'id'> = {}): UpstreamOptions => ({ url: `http://${id}.test`, id, ...more })

/** Picks the first that may be; shows what it was told. */
class FirstOf implements Balancer {
  readonly name = 'first'
  available: readonly string[] = []
  updates = 0
  readonly log: string[] = []
  #list: readonly Upstream[] = []
  update(available: readonly Upstream[]): void {
    this.updates++
    this.#list = available
    this.available = available.map(({ id }) => id)
  }
  pick({ tried }: Exchange): Upstream | undefined {
    return this.#list.find((upstream) => !upstream.full && !tried.includes(upstream))
  }
  acquire(upstream: Upstream): void {
    this.log.push(`+${upstream.id}`)
  }
  release(upstream: Upstream): void {
    this.log.push(`-${upstream.id}`)
  }
}

function setup(upstreams: readonly UpstreamOptions[], options: Partial<PoolOptions> = {}) {
  const balancer = new FirstOf()
  const pool = createPool({ upstreams, balancer, health: [], transport: fakeTransport(), ...options }) as LivePool
  const get = (id: string): Upstream => pool.get(id) as Upstream
  const pick = (exchange: Partial<Exchange> = {}): string | undefined => pool.pick({ ...stubExchange(), ...exchange })?.id
  return { balancer, pool, get, pick }
}
const policy = (name = 'check'): HealthPolicy => ({ name, attach() {} })

describe('tiers', () => {
  it('the lowest priority that has anybody up is in use, and changes as that changes', () => {
    const { balancer, pool, get } = setup([up('a'), up('b'), up('c', { backup: true }), up('d', { priority: 2 })])
    const check = policy()
    const after = (change: () => void): string => {
      change()
      return balancer.available.join()
    }
    expect(after(() => {})).toBe('a,b')
    expect(after(() => pool.policies.setDown(get('a'), check, 'x'))).toBe('b')
    expect(after(() => pool.policies.setDown(get('b'), check, 'x'))).toBe('c')
    expect(after(() => pool.policies.setDown(get('c'), check, 'x'))).toBe('d')
    expect(after(() => pool.policies.setDown(get('d'), check, 'x'))).toBe('')
    expect(after(() => pool.policies.setUp(get('c'), check, 'x'))).toBe('c')
    expect(after(() => void pool.add(up('e')))).toBe('e')
    expect(after(() => pool.policies.setUp(get('a'), check, 'x'))).toBe('a,e')
    expect(after(() => void pool.drain('e'))).toBe('a')
    expect(after(() => pool.setWeight('a', 0))).toBe('c')
    expect(after(() => pool.undrain('e'))).toBe('e')
    expect(after(() => void pool.remove('e'))).toBe('c')
  })

  it('the balancer hears of changes only', () => {
    const { balancer, pool, get } = setup([up('a'), up('b')])
    const before = balancer.updates
    pool.setWeight('a', 1)
    pool.policies.setUp(get('a'), policy(), 'x')
    pool.undrain('a')
    pool.pick(stubExchange())
    expect(balancer.updates).toBe(before)
    pool.setWeight('a', 2)
    expect(balancer.updates).toBe(before + 1)
  })

  it('a tier that is full is no reason to use the next one', () => {
    const { pick } = setup([up('a', { maxConcurrent: 1 }), up('b', { backup: true })])
    expect([pick(), pick()]).toEqual(['a', undefined])
  })
})

describe('weight 0', () => {
  it('is given nothing but what belongs to it', () => {
    const { balancer, pick } = setup([up('a', { weight: 0 }), up('b')])
    expect(balancer.available).toEqual(['b'])
    expect(pick()).toBe('b')
    expect(pick({ affinity: 'a' })).toBe('a')
  })

  it('is no last resort either', () => {
    const { pick, get } = setup([up('a', { weight: 0 }), up('b')])
    expect(pick({ tried: [get('b')] })).toBeUndefined()
  })
})

describe('affinity', () => {
  const states: [what: string, change: (pool: LivePool, upstream: Upstream) => void, honoured: boolean][] = [
    ['up', () => {}, true],
    ['draining', (pool) => void pool.drain('b'), true],
    ['of weight 0', (pool) => pool.setWeight('b', 0), true],
    ['down', (pool, upstream) => void pool.policies.setDown(upstream, policy(), 'x'), false],
    ['down on suspicion', (pool, upstream) => void pool.policies.setDown(upstream, policy(), 'x', { soft: true }), false],
    ['full', (pool) => void pool.pick({ ...stubExchange(), affinity: 'b' }), false],
    ['gone', (pool) => void pool.remove('b'), false],
  ]
  for (const [what, change, honoured] of states)
    it(`for one that is ${what} ${honoured ? 'holds' : 'gives way to the balancer'}`, () => {
      const { pool, pick, get } = setup([up('a'), up('b', { maxConcurrent: 1 })])
      change(pool, get('b'))
      expect(pick({ affinity: 'b' })).toBe(honoured ? 'b' : 'a')
    })

  it('does not lead back to one that was tried', () => {
    const { pick, get } = setup([up('a'), up('b')])
    expect(pick({ affinity: 'b', tried: [get('b')] })).toBe('a')
  })

  it('to nobody known is no affinity', () => {
    expect(setup([up('a')]).pick({ affinity: 'z' })).toBe('a')
  })
})

describe('the last resort of a retry', () => {
  it('is another tier, before those that are down on suspicion; the nearer tier first, in it the least busy', () => {
    const { pool, get } = setup([up('a'), up('b', { backup: true }), up('c', { backup: true }), up('d', { priority: 2 }), up('e'), up('f')])
    const suspicion = policy()
    pool.policies.setDown(get('e'), suspicion, 'x', { soft: true })
    pool.policies.setDown(get('f'), policy(), 'x')
    pool.pick({ ...stubExchange(), affinity: 'b' })
    const tried: Upstream[] = []
    const order: (string | undefined)[] = []
    for (let i = 0; i < 7; i++) {
      const next = pool.pick({ ...stubExchange(), tried: [...tried] })
      order.push(next?.id)
      // The very first pick is no retry.
      tried.push(next ?? get('a'))
    }
    expect(order).toEqual(['a', 'c', 'b', 'd', 'e', undefined, undefined])
  })

  it('is not for a first try', () => {
    const { pool, pick, get } = setup([up('a')])
    pool.policies.setDown(get('a'), policy(), 'x', { soft: true })
    expect(pick()).toBeUndefined()
  })

  it('is nobody who is full, draining, or down for certain', () => {
    const { pool, pick, get } = setup([up('a'), up('full', { maxConcurrent: 1, backup: true }), up('draining'), up('down')])
    pick({ affinity: 'full' })
    void pool.drain('draining')
    pool.policies.setDown(get('down'), policy(), 'x')
    expect(pick({ tried: [get('a')] })).toBeUndefined()
  })

  it('suspicion counts as such only while every vote is one', () => {
    const { pool, pick, get } = setup([up('a'), up('b')])
    const [soft, hard] = [policy('soft'), policy('hard')]
    pool.policies.setDown(get('b'), soft, 'x', { soft: true })
    expect(pick({ tried: [get('a')] })).toBe('b')
    pool.policies.setDown(get('b'), hard, 'x')
    expect(pick({ tried: [get('a')] })).toBeUndefined()
    pool.policies.setUp(get('b'), hard, 'x')
    expect(pick({ tried: [get('a')] })).toBe('b')
  })
})

describe('load', () => {
  const attemptOn = (upstream: Upstream, headMs?: number, uploadMs = 0): Attempt => ({ upstream, headMs, uploadMs }) as unknown as Attempt

  it('counts from the pick to the release, however the upstream was chosen; the balancer hears of both', () => {
    const { pool, balancer, get } = setup([up('a'), up('b')])
    const first = pool.pick(stubExchange()) as Upstream
    const second = pool.pick({ ...stubExchange(), affinity: 'b' }) as Upstream
    expect([get('a').inflight, get('b').inflight]).toEqual([1, 1])
    pool.release(attemptOn(second))
    void pool.remove('a')
    pool.release(attemptOn(first))
    expect([first.inflight, second.inflight]).toEqual([0, 0])
    expect(balancer.log).toEqual(['+a', '+b', '-b', '-a'])
  })

  it("the cap is the upstream's own, else the pool's", () => {
    const { pool } = setup([up('a', { maxConcurrent: 2 }), up('b')], { maxConcurrent: 1 })
    expect(pool.upstreams.map(({ maxConcurrent, full }) => [maxConcurrent, full])).toEqual([
      [2, false],
      [1, false],
    ])
    expect([1, 2, 3, 4].map(() => pool.pick(stubExchange())?.id)).toEqual(['a', 'a', 'b', undefined])
    expect(pool.upstreams.map(({ full }) => full)).toEqual([true, true])
  })

  it('latency is a moving average of heads; a try without a head leaves it alone', () => {
    const { pool, get } = setup([up('a')])
    const take = (headMs?: number, uploadMs?: number): number => {
      pool.release(attemptOn(pool.pick(stubExchange()) as Upstream, headMs, uploadMs))
      return get('a').latencyMs
    }
    expect(take()).toBe(0)
    expect(take(100)).toBe(100)
    expect(take(200)).toBeCloseTo(110)
    expect(take()).toBeCloseTo(110)
    // What the client took for its body is not the upstream's.
    expect(take(510, 400)).toBeCloseTo(110)
    let last = 0
    for (let i = 0; i < 100; i++) last = take(50)
    expect(last).toBeGreaterThan(50)
    expect(last).toBeLessThan(51)
  })
})
