import { type Balancer, OptionsError } from '@weir/core'
import { type StubUpstream, seededRandom, stubExchange, stubOutcome, stubUpstream, stubUpstreams } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { leastConnections } from './least-connections.ts'

const exchange = stubExchange()

function pool(upstreams: readonly StubUpstream[], seed = 1): Balancer {
  const balancer = leastConnections({ random: seededRandom(seed) })
  balancer.update(upstreams)
  return balancer
}

function begin(balancer: Balancer, upstream = balancer.pick(exchange) as StubUpstream): StubUpstream {
  upstream.inflight++
  balancer.acquire?.(upstream)
  return upstream
}

function end(balancer: Balancer, upstream: StubUpstream): void {
  upstream.inflight--
  balancer.release?.(upstream, stubOutcome(upstream))
}

const loads = (upstreams: readonly StubUpstream[]): number[] => upstreams.map(({ inflight }) => inflight)

describe('the least loaded', () => {
  it('has the fewest in flight', () => {
    const [a, b, c] = stubUpstreams([1, 1, 1]) as [StubUpstream, StubUpstream, StubUpstream]
    const balancer = pool([a, b, c])
    for (let i = 0; i < 30; i++) begin(balancer)
    expect(loads([a, b, c])).toEqual([10, 10, 10])
    end(balancer, b)
    end(balancer, b)
    end(balancer, c)
    expect([begin(balancer), begin(balancer), begin(balancer)].map(({ id }) => id).sort()).toEqual(['b', 'b', 'c'])
  })

  it('has the fewest for its weight', () => {
    const upstreams = stubUpstreams([1, 2, 5])
    const balancer = pool(upstreams)
    for (let i = 0; i < 80; i++) begin(balancer)
    expect(loads(upstreams)).toEqual([10, 20, 50])
  })

  it('gets less when it is slow', () => {
    const [slow, fast] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const balancer = pool([slow, fast])
    let picked = 0
    for (let i = 0; i < 100; i++) {
      const upstream = begin(balancer)
      if (upstream === fast) end(balancer, fast)
      else picked++
    }
    expect(picked).toBe(1)
  })

  it('is right after exchanges that no pick chose', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const balancer = pool([a, b])
    for (let i = 0; i < 5; i++) begin(balancer, a)
    for (let i = 0; i < 5; i++) expect(begin(balancer)).toBe(b)
    end(balancer, a)
    expect(begin(balancer)).toBe(a)
  })
})

describe('ties', () => {
  it('are served in turn', () => {
    const upstreams = stubUpstreams([1, 1, 1, 1])
    const balancer = pool(upstreams)
    const picks = Array.from({ length: 12 }, () => {
      const upstream = begin(balancer)
      end(balancer, upstream)
      return upstream.id
    })
    expect(picks.slice(0, 4).sort()).toEqual(['a', 'b', 'c', 'd'])
    expect(picks).toEqual([...picks.slice(0, 4), ...picks.slice(0, 4), ...picks.slice(0, 4)])
  })

  it('are served by weight in a pool that is idle', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 10 }), fc.integer(), (weights, seed) => {
        const upstreams = stubUpstreams(weights)
        const balancer = pool(upstreams, seed)
        const total = weights.reduce((sum, weight) => sum + weight, 0)
        const counts = new Map(upstreams.map((upstream) => [upstream, 0]))
        for (let i = 0; i < 10 * total; i++) {
          const upstream = begin(balancer)
          end(balancer, upstream)
          counts.set(upstream, (counts.get(upstream) as number) + 1)
        }
        for (const [{ weight }, count] of counts) expect(Math.abs(count - 10 * weight)).toBeLessThanOrEqual(2)
      }),
    )
  })

  it('do not all start with the first of the list', () => {
    const first = new Set(Array.from({ length: 40 }, (_, seed) => pool(stubUpstreams([1, 1, 1, 1]), seed).pick(exchange)?.id))
    expect(first).toEqual(new Set(['a', 'b', 'c', 'd']))
  })

  it('are not paid back in a burst to a class that was busy for long', () => {
    const [slow, fast] = stubUpstreams([2, 1]) as [StubUpstream, StubUpstream]
    const balancer = pool([slow, fast])
    const stuck = Array.from({ length: 10 }, () => begin(balancer, slow))
    for (let i = 0; i < 3_000; i++) end(balancer, begin(balancer))
    for (const upstream of stuck) end(balancer, upstream)
    const picks = Array.from({ length: 30 }, () => {
      const upstream = begin(balancer)
      end(balancer, upstream)
      return upstream
    })
    expect(Math.abs(picks.filter((upstream) => upstream === slow).length - 20)).toBeLessThanOrEqual(2)
  })
})

describe('upstreams that cannot be picked', () => {
  it('are passed over while full, and back with the next release', () => {
    const [a, b] = stubUpstreams([9, 1]) as [StubUpstream, StubUpstream]
    a.maxConcurrent = 1
    const balancer = pool([a, b])
    begin(balancer, a)
    for (let i = 0; i < 20; i++) expect(begin(balancer)).toBe(b)
    end(balancer, a)
    expect(begin(balancer)).toBe(a)
    expect(begin(balancer)).toBe(b)
  })

  it('come back without a release when nobody else is left', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    a.maxConcurrent = b.maxConcurrent = 1
    const balancer = pool([a, b])
    begin(balancer)
    begin(balancer)
    expect(balancer.pick(exchange)).toBeUndefined()
    b.maxConcurrent = 2
    expect(balancer.pick(stubExchange({ tried: [b] }))).toBeUndefined()
    expect(balancer.pick(exchange)).toBe(b)
  })

  it('are passed over when tried, and stay where they were', () => {
    const [a, b, c] = stubUpstreams([1, 1, 1]) as [StubUpstream, StubUpstream, StubUpstream]
    const balancer = pool([a, b, c])
    begin(balancer, b)
    begin(balancer, c)
    begin(balancer, c)
    expect(balancer.pick(stubExchange({ tried: [a, stubUpstream(), a] }))).toBe(b)
    expect(balancer.pick(stubExchange({ tried: [b, a] }))).toBe(c)
    expect(balancer.pick(stubExchange({ tried: [c, b, a] }))).toBeUndefined()
    expect(balancer.pick(exchange)).toBe(a)
  })

  it('are looked at once when full, not at every pick', () => {
    let looks = 0
    const upstreams = stubUpstreams(new Array(1_000).fill(1))
    const balancer = pool(upstreams)
    for (const upstream of upstreams) {
      const full = upstream !== upstreams[500]
      Object.defineProperty(upstream, 'full', { get: () => ++looks > 0 && full })
    }
    for (let i = 0; i < 1_000; i++) expect(begin(balancer)).toBe(upstreams[500])
    expect(looks).toBe(1_999)
  })
})

describe('a change of membership', () => {
  it('counts what is in flight on a member, whenever it began', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const balancer = pool([a])
    for (let i = 0; i < 3; i++) begin(balancer)
    balancer.update([b])
    end(balancer, a)
    begin(balancer, b)
    balancer.update([a, b])
    expect(begin(balancer)).toBe(b)
    expect(loads([a, b])).toEqual([2, 2])
    for (let i = 0; i < 2; i++) end(balancer, a)
    expect([begin(balancer), begin(balancer)]).toEqual([a, a])
  })

  it('takes a new weight', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const balancer = pool([a, b])
    for (let i = 0; i < 10; i++) begin(balancer)
    b.weight = 3
    balancer.update([a, b])
    for (let i = 0; i < 10; i++) begin(balancer)
    expect(loads([a, b])).toEqual([5, 15])
  })

  it('leaves those who have gone alone, whatever ends there', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const balancer = pool([a, b])
    begin(balancer, a)
    balancer.update([b])
    end(balancer, a)
    expect(begin(balancer)).toBe(b)
    balancer.update([])
    end(balancer, b)
    expect(balancer.pick(exchange)).toBeUndefined()
  })
})

describe('cost', () => {
  it('looks at one upstream per pick, of 10,000 with a hundred weights', () => {
    let looks = 0
    const upstreams = stubUpstreams(Array.from({ length: 10_000 }, (_, i) => 1 + (i % 100)))
    for (const upstream of upstreams) Object.defineProperty(upstream, 'full', { get: () => ++looks < 0 })
    const balancer = pool(upstreams)
    for (let i = 0; i < 1_000; i++) begin(balancer)
    expect(looks).toBe(1_000)
  })
})

describe('options', () => {
  it('are refused when wrong, in the editor and at run time', () => {
    // @ts-expect-error: no such option
    expect(() => leastConnections({ slowStart: '10s' })).toThrow(OptionsError)
    // @ts-expect-error: not a function
    expect(() => leastConnections({ random: 1 })).toThrow(OptionsError)
    // @ts-expect-error: not an object
    expect(() => leastConnections(3)).toThrow(OptionsError)
  })
})
