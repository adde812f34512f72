import { OptionsError } from '@weir/core'
import { seededRandom, stubExchange, stubUpstreams } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { powerOfTwo } from './power-of-two.ts'
import { random } from './random.ts'

const exchange = stubExchange()

describe('powerOfTwo', () => {
  it('compares two different upstreams: of two, the busier one is never picked', () => {
    const load = fc.nat({ max: 50 })
    const weight = fc.integer({ min: 1, max: 20 })
    fc.assert(
      fc.property(load, load, weight, weight, fc.integer(), (loadA, loadB, weightA, weightB, seed) => {
        const [a, b] = stubUpstreams([weightA, weightB]) as [never, never]
        Object.assign(a, { inflight: loadA })
        Object.assign(b, { inflight: loadB })
        const balancer = powerOfTwo({ random: seededRandom(seed) })
        balancer.update([a, b])
        const picked = new Set(Array.from({ length: 40 }, () => balancer.pick(exchange)))
        if (loadA * weightB < loadB * weightA) expect(picked).toEqual(new Set([a]))
        if (loadA * weightB > loadB * weightA) expect(picked).toEqual(new Set([b]))
      }),
    )
  })

  it('breaks ties by weight, not by place in the list', () => {
    const balancer = powerOfTwo({ random: seededRandom(1) })
    balancer.update(stubUpstreams([1, 3]))
    let a = 0
    for (let i = 0; i < 4_000; i++) if (balancer.pick(exchange)?.id === 'a') a++
    expect(Math.abs(a - 1_000)).toBeLessThan(5 * Math.sqrt(750))
  })

  it('compares every pair, in proportion to weights', () => {
    const upstreams = stubUpstreams([1, 2, 3])
    // Increasing load: the first of a pair in the list wins, so the winner's frequency tells how often its pairs were drawn.
    upstreams.forEach((upstream, i) => {
      upstream.inflight = 100 * (i + 1) * upstream.weight
    })
    const balancer = powerOfTwo({ random: seededRandom(2) })
    balancer.update(upstreams)
    const wins = { a: 0, b: 0, c: 0 }
    const picks = 20_000
    for (let i = 0; i < picks; i++) wins[balancer.pick(exchange)?.id as keyof typeof wins]++
    // P(pair x, y) = p(x) p(y) / (1 - p(x)) + p(y) p(x) / (1 - p(y))
    const pair = (x: number, y: number): number => (x * y) / (1 - x) + (y * x) / (1 - y)
    const b = pair(2 / 6, 3 / 6)
    expect(wins.c).toBe(0)
    expect(Math.abs(wins.b - b * picks)).toBeLessThan(5 * Math.sqrt(b * (1 - b) * picks))
  })

  it('compares two that are left when the rest is tried or full', () => {
    const upstreams = stubUpstreams(new Array(200).fill(10))
    for (const upstream of upstreams.slice(2, 150)) upstream.maxConcurrent = upstream.inflight = 1
    const [a, b] = upstreams
    Object.assign(a as object, { inflight: 5 })
    Object.assign(b as object, { inflight: 4 })
    const balancer = powerOfTwo({ random: seededRandom(3) })
    balancer.update(upstreams)
    const others = stubExchange({ tried: upstreams.slice(150) })
    for (let i = 0; i < 200; i++) expect(balancer.pick(others)).toBe(b)
    expect(balancer.pick(stubExchange({ tried: upstreams.filter((upstream) => upstream !== a) }))).toBe(a)
  })

  it('keeps the busiest near the average, where a random choice does not', () => {
    // 50,000 exchanges on 500 upstreams that end in no order: the known gap of one choice against two.
    const busiest = (balancer: ReturnType<typeof random>): number => {
      const upstreams = stubUpstreams(new Array(500).fill(1))
      const chance = seededRandom(4)
      balancer.update(upstreams)
      const running: (typeof upstreams)[number][] = []
      let most = 0
      for (let i = 0; i < 50_000; i++) {
        if (running.length >= 5_000) {
          const at = Math.floor(chance() * running.length)
          const last = running.pop() as (typeof upstreams)[number]
          const ended = at < running.length ? (running[at] as (typeof upstreams)[number]) : last
          if (at < running.length) running[at] = last
          ended.inflight--
        }
        const picked = balancer.pick(exchange) as (typeof upstreams)[number]
        picked.inflight++
        running.push(picked)
        if (i > 10_000) most = Math.max(most, picked.inflight)
      }
      return most
    }
    const two = busiest(powerOfTwo({ random: seededRandom(5) }))
    expect(two).toBeLessThanOrEqual(16)
    expect(busiest(random({ random: seededRandom(5) }))).toBeGreaterThan(two + 5)
  })

  it('refuses wrong options, in the editor and at run time', () => {
    // @ts-expect-error: two is two
    expect(() => powerOfTwo({ choices: 3 })).toThrow(OptionsError)
    // @ts-expect-error: not a function
    expect(() => powerOfTwo({ random: null })).toThrow(OptionsError)
  })
})
