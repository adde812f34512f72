import { type Balancer, OptionsError, type Upstream } from '@weir/core'
import { stubExchange, stubOutcome, stubUpstreams } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { fallback } from './fallback.ts'
import { hash } from './hash.ts'
import { leastConnections } from './least-connections.ts'

function recording(name: string, picked?: Upstream): Balancer & { seen: string[] } {
  const seen: string[] = []
  return {
    name,
    seen,
    update: (available) => void seen.push(`update ${available.length}`),
    pick: () => {
      seen.push('pick')
      return picked
    },
    acquire: ({ id }) => void seen.push(`acquire ${id}`),
    onHead: ({ id }, status) => void seen.push(`head ${id} ${status}`),
    release: ({ id }) => void seen.push(`release ${id}`),
  }
}

describe('fallback', () => {
  it('asks the next only when one has no answer, and tells all of everything', () => {
    const [a] = stubUpstreams([1]) as [Upstream]
    const strategies = [recording('x'), recording('y', a), recording('z', a)] as const
    const balancer = fallback(...strategies)
    expect(balancer.name).toBe('fallback:x,y,z')
    balancer.update([a])
    expect(balancer.pick(stubExchange())).toBe(a)
    balancer.acquire?.(a)
    balancer.onHead?.(a, 200, [])
    balancer.release?.(a, stubOutcome(a))
    const rest = ['acquire a', 'head a 200', 'release a']
    expect(strategies.map(({ seen }) => seen)).toEqual([
      ['update 1', 'pick', ...rest],
      ['update 1', 'pick', ...rest],
      ['update 1', ...rest],
    ])
  })

  it('has no answer when nobody has', () => {
    const balancer = fallback(recording('x'), recording('y'))
    expect(balancer.pick(stubExchange())).toBeUndefined()
  })

  it('keeps those who have a key where they are, and spreads the others by load', () => {
    const upstreams = stubUpstreams([1, 1, 1])
    const balancer = fallback(hash({ key: 'hashKey', missing: 'none' }), leastConnections())
    balancer.update(upstreams)
    const home = balancer.pick(stubExchange({ hashKey: 'k' }))
    for (let i = 0; i < 9; i++) {
      expect(balancer.pick(stubExchange({ hashKey: 'k' }))).toBe(home)
      const picked = balancer.pick(stubExchange()) as (typeof upstreams)[number]
      picked.inflight++
      balancer.acquire?.(picked)
    }
    expect(upstreams.map(({ inflight }) => inflight)).toEqual([3, 3, 3])
  })

  it('refuses what is no strategy, and the same one twice', () => {
    const one = leastConnections()
    expect(() => fallback(one, one)).toThrow(OptionsError)
    // @ts-expect-error: the factory, not what it makes
    expect(() => fallback(one, leastConnections)).toThrow(OptionsError)
  })
})
