import { type Balancer, OptionsError, type Upstream } from '@weir/core'
import { type StubUpstream, seededRandom, stubExchange, stubUpstream } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Arms } from './arms.ts'
import { ipHash } from './ip-hash.ts'
import { leastConnections } from './least-connections.ts'
import { split } from './split.ts'
import { hashText } from './text-hash.ts'
import { trafficSplit } from './traffic-split.ts'

const keys = Array.from({ length: 40_000 }, (_, i) => hashText(`user ${i}`, 0))
const divide = (arms: Arms): number[] => keys.map((key) => arms.choose(key))
const moved = (before: readonly number[], after: readonly number[]): number =>
  before.filter((arm, i) => arm !== after[i]).length / keys.length
/** Five standard deviations of a fraction of the keys. */
const spread = (p: number): number => 5 * Math.sqrt((p * (1 - p)) / keys.length)

describe('arms', () => {
  it('get their shares', () => {
    for (const weights of [
      [95, 5],
      [999, 1],
      [1, 1, 1],
      [50, 0, 30, 20],
      [0, 3, 1],
    ]) {
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      const chosen = divide(
        new Arms(
          weights.map((_, i) => `arm ${i}`),
          weights,
          '',
        ),
      )
      for (const [i, weight] of weights.entries()) {
        const got = chosen.filter((arm) => arm === i).length / keys.length
        expect(Math.abs(got - weight / total)).toBeLessThanOrEqual(spread(weight / total))
      }
    }
  })

  it('growing from 5 to 10 % keep what they had, and take just 5 %', () => {
    const arms = new Arms(['stable', 'canary'], [95, 5], '')
    const before = divide(arms)
    arms.setWeights([90, 10])
    const after = divide(arms)
    expect(before.every((arm, i) => arm === 0 || after[i] === 1)).toBe(true)
    expect(Math.abs(moved(before, after) - 0.05)).toBeLessThan(spread(0.05))
    arms.setWeights([95, 5])
    expect(divide(arms)).toEqual(before)
  })

  it('any two, whatever their weights: only in one direction, and no more than the change', () => {
    const weight = fc.integer({ min: 0, max: 100 })
    fc.assert(
      fc.property(weight, weight, (a, b) => {
        const arms = new Arms(['x', 'y'], [100 - a, a], 'salt')
        const before = divide(arms)
        arms.setWeights([100 - b, b])
        const after = divide(arms)
        const wrong = b >= a ? 0 : 1
        expect(before.some((arm, i) => arm !== after[i] && after[i] === wrong)).toBe(false)
        expect(Math.abs(moved(before, after) - Math.abs(a - b) / 100)).toBeLessThanOrEqual(spread(Math.abs(a - b) / 100))
      }),
      { numRuns: 20 },
    )
  })

  it('one of several: hardly more than the change moves, and those before it keep all they had', () => {
    const arms = new Arms(['stable', 'a', 'b', 'c'], [70, 10, 10, 10], '')
    const before = divide(arms)
    arms.setWeights([65, 10, 15, 10])
    const after = divide(arms)
    expect(before.every((arm, i) => (arm === 1) === (after[i] === 1))).toBe(true)
    // What b takes from c, c takes from the rest: 5 % x 10 / 80 more.
    expect(Math.abs(moved(before, after) - 0.05 - (0.05 * 10) / 80)).toBeLessThan(spread(0.06))
  })

  it('are divided in another way with another salt', () => {
    const [one, other] = ['', 'two'].map((salt) => divide(new Arms(['stable', 'canary'], [90, 10], salt))) as [number[], number[]]
    const both = one.filter((arm, i) => arm === 1 && other[i] === 1).length / keys.length
    expect(Math.abs(both - 0.01)).toBeLessThan(spread(0.01))
  })
})

const server = (id: string, version: string): StubUpstream => stubUpstream({ id, meta: { version } })
const servers = [server('a', 'stable'), server('b', 'stable'), server('c', 'canary'), server('d', 'other')]
const arms = [
  { weight: 95, labels: { version: 'stable' } },
  { weight: 5, labels: { version: 'canary' } },
] as const

const users = Array.from({ length: 4_000 }, (_, i) => stubExchange({ hashKey: `user ${i}` }))
const versions = (balancer: Balancer): unknown[] => users.map((user) => balancer.pick(user)?.meta.version)

describe('split', () => {
  it('divides users by weight, however many servers an arm has, and keeps them there', () => {
    const balancer = split({ key: 'hashKey', arms })
    balancer.update(servers)
    const first = versions(balancer)
    expect(versions(balancer)).toEqual(first)
    expect(Math.abs(first.filter((version) => version === 'canary').length / users.length - 0.05)).toBeLessThan(0.018)
    expect(first).not.toContain('other')
  })

  it('spreads the users of an arm over its servers by the strategy given', () => {
    const balancer = split({ key: 'hashKey', arms, balancer: () => leastConnections() })
    const own = servers.map(({ id, meta }) => stubUpstream({ id, meta }))
    balancer.update(own)
    for (const user of users.slice(0, 400)) {
      const picked = balancer.pick(user) as StubUpstream
      picked.inflight++
      balancer.acquire?.(picked)
    }
    const [a, b] = own as [StubUpstream, StubUpstream]
    expect(Math.abs(a.inflight - b.inflight)).toBeLessThanOrEqual(1)
  })

  it('changes weights while it runs', () => {
    const balancer = split({
      key: 'hashKey',
      arms: [
        { ...arms[0], name: 'stable' },
        { ...arms[1], name: 'canary' },
      ],
    })
    balancer.update(servers)
    const before = versions(balancer)
    balancer.setWeights({ canary: 0 })
    expect(versions(balancer)).not.toContain('canary')
    balancer.setWeights({ canary: 5 })
    expect(versions(balancer)).toEqual(before)
    expect(() => balancer.setWeights({ canari: 1 })).toThrow(OptionsError)
    expect(() => balancer.setWeights({ canary: 0, stable: 0 })).toThrow(OptionsError)
    expect(versions(balancer)).toEqual(before)
  })

  it('moves the users of an empty arm only, to the others by weight', () => {
    const balancer = split({
      key: 'hashKey',
      arms: [
        { weight: 50, match: ({ id }: Upstream) => id === 'a' },
        { weight: 30, match: ({ id }: Upstream) => id === 'b' },
        { weight: 10, match: ({ id }: Upstream) => id === 'c' },
        { weight: 10, match: ({ id }: Upstream) => id === 'd' },
        { weight: 0, match: ({ id }: Upstream) => id === 'd' },
      ],
    })
    balancer.update(servers)
    const before = users.map((user) => balancer.pick(user)?.id)
    balancer.update(servers.slice(1))
    const after = users.map((user) => balancer.pick(user)?.id)
    expect(before.every((id, i) => id === 'a' || after[i] === id)).toBe(true)
    const toB = after.filter((id, i) => before[i] === 'a' && id === 'b').length / before.filter((id) => id === 'a').length
    expect(Math.abs(toB - 0.6)).toBeLessThan(0.06)
    balancer.update(servers.slice(3))
    expect(users.every((user) => balancer.pick(user)?.id === 'd')).toBe(true)
    balancer.update([])
    expect(balancer.pick(stubExchange({ hashKey: 'x' }))).toBeUndefined()
  })

  it('or gives no answer, when told so', () => {
    const balancer = split({ key: 'hashKey', arms, empty: 'none' })
    balancer.update(servers.slice(0, 2))
    const canaries = users.filter((user) => balancer.pick(user) === undefined).length
    expect(Math.abs(canaries / users.length - 0.05)).toBeLessThan(0.018)
  })

  it('goes to another arm when its own is tried or full', () => {
    const balancer = split({ key: 'hashKey', arms, balancer: () => ipHash() })
    balancer.update(servers)
    const canary = users.find((user) => balancer.pick(user)?.id === 'c') as (typeof users)[number]
    expect(balancer.pick({ ...canary, tried: [servers[2] as Upstream] })?.meta.version).toBe('stable')
  })

  it('refuses wrong options, in the editor and at run time', () => {
    const wrong: unknown[] = [
      { key: 'path' },
      { key: 'path', arms: [arms[0]] },
      { key: 'path', arms: [arms[0], arms[0]] },
      { key: 'path', arms: [{ ...arms[0], weight: -1 }, arms[1]] },
      { key: 'path', arms: [{ labels: { a: 1 } }, arms[1]] },
      { key: 'path', arms: [{ weight: 1 }, arms[1]] },
      { key: 'path', arms: [{ weight: 1, labels: {} }, arms[1]] },
      { key: 'path', arms: [{ weight: 1, match: 'x' }, arms[1]] },
      { key: 'path', arms: [{ ...arms[0], match: () => true }, arms[1]] },
      { key: 'path', arms: arms.map((arm) => ({ ...arm, weight: 0 })) },
      { key: 'path', arms, salt: 1 },
      { key: 'path', arms, empty: 'any' },
      { arms },
    ]
    for (const options of wrong) expect(() => split(options as never), JSON.stringify(options)).toThrow(OptionsError)
    // @ts-expect-error: labels or match
    expect(() => split({ key: 'path', arms: [{ weight: 1 }, arms[1]] })).toThrow(OptionsError)
  })
})

describe('trafficSplit', () => {
  it('gives routes their share, exactly one arm for everybody', () => {
    const traffic = trafficSplit({ key: 'hashKey', arms: { stable: 80, canary: 15, next: 5 } })
    const tests = (['stable', 'canary', 'next'] as const).map((arm) => traffic.is(arm))
    const got = [0, 0, 0]
    for (const user of users) {
      const yes = tests.map((is) => is(user))
      expect(yes.filter(Boolean).length).toBe(1)
      got[yes.indexOf(true)] = (got[yes.indexOf(true)] as number) + 1
      expect(traffic.of(user)).toBe(['stable', 'canary', 'next'][yes.indexOf(true)])
    }
    for (const [i, share] of [0.8, 0.15, 0.05].entries()) expect(Math.abs((got[i] as number) / users.length - share)).toBeLessThan(0.032)
  })

  it('draws once for an exchange without a key', () => {
    const traffic = trafficSplit({ key: 'hashKey', arms: { a: 1, b: 1 }, random: seededRandom(1) })
    const arms = Array.from({ length: 100 }, () => {
      const exchange = stubExchange()
      const arm = traffic.of(exchange)
      for (let i = 0; i < 10; i++) expect(traffic.of(exchange)).toBe(arm)
      expect(traffic.is('a')(exchange)).toBe(arm === 'a')
      return arm
    })
    expect(new Set(arms).size).toBe(2)
  })

  it('has no arm for it when told so', () => {
    const traffic = trafficSplit({ key: 'hashKey', arms: { a: 1, b: 1 }, missing: 'none' })
    expect(traffic.of(stubExchange())).toBeUndefined()
    expect(traffic.is('a')(stubExchange())).toBe(false)
  })

  it('changes weights while it runs', () => {
    const traffic = trafficSplit({ key: 'hashKey', arms: { stable: 1, canary: 0 } })
    expect(users.some(traffic.is('canary'))).toBe(false)
    traffic.setWeights({ canary: 1 })
    expect(Math.abs(users.filter(traffic.is('canary')).length / users.length - 0.5)).toBeLessThan(0.04)
    expect(() => traffic.setWeights({ canary: -1 })).toThrow(OptionsError)
  })

  it('refuses arms that do not exist, in the editor and at run time', () => {
    const traffic = trafficSplit({ key: 'path', arms: { stable: 95, canary: 5 } })
    // @ts-expect-error: no such arm
    expect(() => traffic.is('canari')).toThrow(OptionsError)
    // @ts-expect-error: no such arm
    expect(() => traffic.setWeights({ canari: 5 })).toThrow(OptionsError)
    expect(() => trafficSplit({ key: 'path', arms: { only: 1 } })).toThrow(OptionsError)
    expect(() => trafficSplit({ key: 'path', arms: { a: 0, b: 0 } })).toThrow(OptionsError)
    // @ts-expect-error: a number
    expect(() => trafficSplit({ key: 'path', arms: { a: '95%', b: '5%' } })).toThrow(OptionsError)
  })
})
