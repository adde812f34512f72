import { OptionsError } from '@weir/core'
import { seededRandom, stubExchange, stubUpstreams } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { random } from './random.ts'

describe('random', () => {
  it('draws by weight', () => {
    const balancer = random({ random: seededRandom(1) })
    const upstreams = stubUpstreams([1, 2, 7])
    balancer.update(upstreams)
    const counts = new Map(upstreams.map((upstream) => [upstream.id, 0]))
    for (let i = 0; i < 10_000; i++) {
      const id = balancer.pick(stubExchange())?.id as string
      counts.set(id, (counts.get(id) as number) + 1)
    }
    for (const { id, weight } of upstreams)
      expect(Math.abs((counts.get(id) as number) - weight * 1_000)).toBeLessThan(5 * Math.sqrt(weight * 1_000))
  })

  it('does not depend on what it drew before', () => {
    const upstreams = stubUpstreams([1, 1])
    const balancer = random({ random: seededRandom(2) })
    balancer.update(upstreams)
    const picks = Array.from({ length: 8_000 }, () => balancer.pick(stubExchange())?.id)
    const after = (before: string): number => picks.filter((id, i) => id === 'a' && picks[i - 1] === before).length
    // A quarter each; five standard deviations are 194.
    expect(Math.abs(after('a') - 2_000)).toBeLessThan(194)
    expect(Math.abs(after('b') - 2_000)).toBeLessThan(194)
  })

  it('leaves the share of one that is tried to all others, by weight', () => {
    const balancer = random({ random: seededRandom(3) })
    const upstreams = stubUpstreams([6, 1, 3])
    balancer.update(upstreams)
    let b = 0
    for (let i = 0; i < 4_000; i++) if (balancer.pick(stubExchange({ tried: upstreams.slice(0, 1) }))?.id === 'b') b++
    expect(Math.abs(b - 1_000)).toBeLessThan(5 * Math.sqrt(750))
  })

  it('refuses wrong options, in the editor and at run time', () => {
    // @ts-expect-error: no such option
    expect(() => random({ weight: 2 })).toThrow(OptionsError)
    // @ts-expect-error: not a function
    expect(() => random({ random: 4 })).toThrow(OptionsError)
  })
})
