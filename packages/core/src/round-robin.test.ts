import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Balancer } from './balancer.ts'
import type { AttemptOutcome, Exchange } from './exchange.ts'
import { OptionsError } from './options.ts'
import { roundRobin } from './round-robin.ts'
import type { Upstream } from './upstream.ts'

interface Server extends Upstream {
  weight: number
  inflight: number
  maxConcurrent: number
}

const servers = (...weights: number[]): Server[] =>
  weights.map((weight, index) => ({
    id: String.fromCharCode(97 + index),
    url: new URL('http://a.test'),
    weight,
    priority: 0,
    host: undefined,
    configuredWeight: weight,
    degraded: false,
    state: 'up',
    inflight: 0,
    maxConcurrent: Number.POSITIVE_INFINITY,
    get full(): boolean {
      return this.inflight >= this.maxConcurrent
    },
    latencyMs: 0,
    meta: {},
  }))

const exchange = (...tried: Upstream[]): Exchange => ({ tried }) as unknown as Exchange
const untried = exchange()

const always = (number: number) => (): number => number

function rotation(upstreams: readonly Upstream[], random: () => number = always(0)): Balancer {
  const balancer = roundRobin({ random })
  balancer.update(upstreams)
  return balancer
}

const order = (balancer: Balancer, picks: number): string =>
  Array.from({ length: picks }, () => balancer.pick(untried)?.id ?? '-').join(' ')

const outcome = {} as AttemptOutcome

/** Repeatable chance; this package can not have the one of `@weir/testing`, which stands on it. */
function chance(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x9e37_79b9) | 0
    const mixed = Math.imul(state ^ (state >>> 16), 0x85eb_ca6b)
    return ((Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35) >>> 16) * 0x1_0000 + (mixed >>> 16)) / 2 ** 32
  }
}

const weights = fc.oneof(
  fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 12 }),
  fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 12 }),
  fc.array(fc.integer({ min: 1, max: 65_535 }), { minLength: 1, maxLength: 12 }),
  // The schedule is kept in another way for these.
  fc.array(fc.integer({ min: 1, max: 1_000 }), { minLength: 17, maxLength: 26 }),
)

describe('the order of turns', () => {
  it('is smooth: 5, 1, 1', () => {
    expect(order(rotation(servers(5, 1, 1)), 21)).toBe('a a b a c a a a a b a c a a a a b a c a a')
  })

  it('is the order of the list when weights are equal', () => {
    expect(order(rotation(servers(1, 1, 1, 1)), 12)).toBe('a b c d a b c d a b c d')
    expect(order(rotation(servers(7, 7, 7)), 9)).toBe('a b c a b c a b c')
    expect(order(rotation(servers(3, 3)), 6)).toBe('a b a b a b')
  })

  it('is the same after a million turns', () => {
    const balancer = rotation(servers(5, 1, 1))
    for (let i = 0; i < 700_000; i++) balancer.pick(untried)
    expect(order(balancer, 7)).toBe('a a b a c a a')
  })

  it('keeps every upstream less than one turn from its share, at every moment', () => {
    fc.assert(
      fc.property(weights, (weights) => {
        const upstreams = servers(...weights)
        const total = weights.reduce((sum, weight) => sum + weight, 0)
        const bound = weights.length > 1 ? 1 - 1 / (2 * weights.length - 2) : 0
        const balancer = rotation(upstreams)
        const had = new Map<Upstream | undefined, number>()
        let furthest = 0
        for (let picks = 1; picks <= 500; picks++) {
          const picked = balancer.pick(untried)
          had.set(picked, (had.get(picked) ?? 0) + 1)
          // In whole numbers, so that no rounding of the test's own comes in.
          for (const upstream of upstreams)
            furthest = Math.max(furthest, Math.abs((had.get(upstream) ?? 0) * total - upstream.weight * picks))
        }
        expect(furthest).toBeLessThanOrEqual(bound * total + 1e-6)
      }),
      { numRuns: 200 },
    )
  })

  it('is fair wherever it begins', () => {
    fc.assert(
      fc.property(weights, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (weights, start) => {
        const upstreams = servers(...weights)
        const total = weights.reduce((sum, weight) => sum + weight, 0)
        const balancer = rotation(upstreams, always(start))
        const had = new Map<Upstream | undefined, number>()
        let furthest = 0
        for (let picks = 1; picks <= 200; picks++) {
          const picked = balancer.pick(untried)
          had.set(picked, (had.get(picked) ?? 0) + 1)
          for (const upstream of upstreams)
            furthest = Math.max(furthest, Math.abs((had.get(upstream) ?? 0) - (upstream.weight * picks) / total))
        }
        expect(furthest).toBeLessThan(2)
      }),
      { numRuns: 100 },
    )
  })
})

describe('where it begins', () => {
  it('is a random turn of the same rotation', () => {
    const starts = Array.from({ length: 7 }, (_, i) => order(rotation(servers(5, 1, 1), always(i / 7)), 7))
    expect(starts[0]).toBe('a a b a c a a')
    expect(new Set(starts).size).toBe(7)
    for (const start of starts) expect('a a b a c a a a a b a c a a').toContain(start)
  })

  it('spreads the first picks of many processes by weight', () => {
    const random = chance(1)
    const first = { a: 0, b: 0, c: 0 }
    for (let i = 0; i < 7_000; i++) first[order(rotation(servers(5, 1, 1), random), 1) as keyof typeof first]++
    // Five standard deviations are 190 and 146.
    expect(Math.abs(first.a - 5_000)).toBeLessThan(190)
    expect(Math.abs(first.b - 1_000)).toBeLessThan(146)
    expect(Math.abs(first.c - 1_000)).toBeLessThan(146)
  })
})

describe('an upstream that was tried', () => {
  it('is passed over for this exchange only, and keeps its turn', () => {
    const [a, b, c] = servers(1, 1, 1) as [Server, Server, Server]
    const balancer = rotation([a, b, c])
    expect(balancer.pick(exchange(a))).toBe(b)
    expect(order(balancer, 3)).toBe('c a b')
  })

  it('does not draw more first tries than its share when all of them fail', () => {
    const [a, b] = servers(1, 1) as [Server, Server]
    const balancer = rotation([a, b])
    let firstOnA = 0
    for (let i = 0; i < 1_000; i++) {
      if (balancer.pick(untried) !== a) continue
      firstOnA++
      expect(balancer.pick(exchange(a))).toBe(b)
    }
    expect(Math.abs(firstOnA - 500)).toBeLessThanOrEqual(1)
  })

  it('leaves each pick to be shared by weight among the others', () => {
    // The ideal: every pick pays one turn out to those who may be picked, by weight. Nobody may be far from what it was paid.
    const step = fc.array(fc.nat({ max: 25 }), { maxLength: 3 })
    fc.assert(
      fc.property(weights, fc.array(step, { minLength: 100, maxLength: 300 }), (weights, steps) => {
        const upstreams = servers(...weights)
        const balancer = rotation(upstreams)
        const lags = new Map<Upstream, number>(upstreams.map((upstream) => [upstream, 0]))
        let excluded = 0
        for (const step of steps) {
          const tried = step.flatMap((index) => upstreams[index] ?? [])
          const pickable = upstreams.filter((upstream) => !tried.includes(upstream))
          const picked = balancer.pick(exchange(...tried))
          if (picked === undefined ? pickable.length > 0 : !pickable.includes(picked as Server)) excluded++
          if (picked === undefined) continue
          const total = pickable.reduce((sum, { weight }) => sum + weight, 0)
          for (const upstream of pickable) lags.set(upstream, (lags.get(upstream) ?? 0) + upstream.weight / total)
          lags.set(picked, (lags.get(picked) ?? 0) - 1)
        }
        expect(excluded).toBe(0)
        expect(Math.max(...[...lags.values()].map(Math.abs))).toBeLessThan(3)
      }),
      { numRuns: 200 },
    )
  })

  it('may be named twice, or be none of this pool', () => {
    const [a, b] = servers(1, 1) as [Server, Server]
    const [stranger] = servers(1) as [Server]
    const balancer = rotation([a, b])
    expect(balancer.pick(exchange(a, a, stranger))).toBe(b)
    expect(balancer.pick(exchange(a, b, a))).toBeUndefined()
    expect(order(balancer, 4)).toMatch(/^(a b a b|b a b a)$/)
  })
})

describe('a full upstream', () => {
  it('is passed over until a release', () => {
    const [a, b] = servers(1, 1) as [Server, Server]
    const balancer = rotation([a, b])
    a.maxConcurrent = a.inflight = 1
    expect(order(balancer, 4)).toBe('b b b b')
    a.inflight = 0
    balancer.release?.(a, outcome)
    expect(order(balancer, 4)).toMatch(/^(a b a b|b a b a)$/)
  })

  it('comes back without a burst, however long it was full', () => {
    const [a, b, c] = servers(1, 5, 4) as [Server, Server, Server]
    const balancer = rotation([a, b, c])
    b.maxConcurrent = b.inflight = 1
    for (let i = 0; i < 10_000; i++) balancer.pick(untried)
    b.inflight = 0
    balancer.release?.(b, outcome)
    const picks = order(balancer, 100).split(' ')
    for (const length of [10, 20, 50, 100]) {
      const had = picks.slice(0, length).filter((id) => id === 'b').length
      expect(Math.abs(had - length / 2)).toBeLessThan(2)
    }
  })

  it.each([10, 50])('leaves the turns of all evenly spread, however often upstreams come and go: 5 and %d light ones', (light) => {
    const upstreams = servers(50, 20, 5, 5, 5, ...new Array<number>(light).fill(1))
    const total = upstreams.reduce((sum, { weight }) => sum + weight, 0)
    const balancer = rotation(upstreams)
    const random = chance(1)
    const below = (n: number): number => Math.floor(random() * n)
    for (let round = 0; round < 3_000; round++) {
      const busy = new Set(Array.from({ length: 1 + below(10) }, () => upstreams[below(upstreams.length)] as Server))
      for (const upstream of busy) upstream.maxConcurrent = upstream.inflight = 1
      for (let picks = below(60); picks > 0; picks--) balancer.pick(untried)
      for (const upstream of busy) {
        upstream.inflight = 0
        balancer.release?.(upstream, outcome)
      }
    }
    const had = new Map<Upstream | undefined, number>()
    let furthest = 0
    for (let picks = 1; picks <= 1_000; picks++) {
      const picked = balancer.pick(untried)
      had.set(picked, (had.get(picked) ?? 0) + 1)
      for (const upstream of upstreams)
        furthest = Math.max(furthest, Math.abs((had.get(upstream) ?? 0) - (upstream.weight * picks) / total))
    }
    expect(furthest).toBeLessThan(2)
  })

  it('is found again without a release when nobody else is left', () => {
    const [a, b] = servers(1, 1) as [Server, Server]
    const balancer = rotation([a, b])
    a.maxConcurrent = a.inflight = b.maxConcurrent = b.inflight = 1
    expect(balancer.pick(untried)).toBeUndefined()
    a.maxConcurrent = 2
    expect(balancer.pick(exchange(a))).toBeUndefined()
    expect(balancer.pick(untried)).toBe(a)
  })

  it('does not disturb the rest: their shares are by weight among themselves', () => {
    const upstreams = servers(3, 2, 1, 6)
    const balancer = rotation(upstreams)
    const full = upstreams[3] as Server
    full.maxConcurrent = full.inflight = 1
    const picks = order(balancer, 600).split(' ')
    const had = (id: string): number => picks.filter((other) => other === id).length
    expect(had('d')).toBe(0)
    expect(Math.max(Math.abs(had('a') - 300), Math.abs(had('b') - 200), Math.abs(had('c') - 100))).toBeLessThan(2)
  })
})

describe('a change of membership or weight', () => {
  it('goes on where the rotation was', () => {
    const upstreams = servers(1, 1, 1, 1)
    const balancer = rotation(upstreams)
    expect(order(balancer, 2)).toBe('a b')
    balancer.update(upstreams)
    expect(order(balancer, 4)).toBe('c d a b')
    balancer.update(upstreams.slice(1))
    expect(order(balancer, 4)).toBe('c d b c')
  })

  it('lets a newcomer in at a random point, not at the same one in every process', () => {
    const first = (random: () => number): number => {
      const [heavy, newcomer] = servers(1_000, 1) as [Server, Server]
      const balancer = rotation([heavy], random)
      balancer.update([heavy, newcomer])
      return order(balancer, 3_000).split(' ').indexOf('b')
    }
    const positions = Array.from({ length: 40 }, (_, seed) => first(chance(seed)))
    expect(positions).not.toContain(-1)
    // Its turns are 1,001 picks apart; with two upstreams, the first ones cover half of that.
    expect(Math.max(...positions) - Math.min(...positions)).toBeGreaterThan(400)
    expect(new Set(positions).size).toBeGreaterThan(30)
  })

  it('takes a new weight from the next turn on', () => {
    const upstreams = servers(1, 1)
    const balancer = rotation(upstreams)
    order(balancer, 101)
    ;(upstreams[0] as Server).weight = 9
    balancer.update(upstreams)
    const picks = order(balancer, 100).split(' ')
    expect(Math.abs(picks.filter((id) => id === 'a').length - 90)).toBeLessThanOrEqual(2)
    expect(Math.abs(picks.slice(0, 20).filter((id) => id === 'a').length - 18)).toBeLessThanOrEqual(2)
  })

  it('keeps shares fair over any number of changes', () => {
    const change = fc.record({ flip: fc.nat({ max: 7 }), weight: fc.integer({ min: 1, max: 9 }), picks: fc.nat({ max: 20 }) })
    fc.assert(
      fc.property(fc.array(change, { minLength: 20, maxLength: 60 }), fc.integer(), (changes, seed) => {
        const upstreams = servers(1, 2, 3, 4, 5, 6, 7, 8)
        let members = [...upstreams]
        let wrong = 0
        const balancer = rotation(members, chance(seed))
        for (const { flip, weight, picks } of changes) {
          const upstream = upstreams[flip] as Server
          if (picks % 3 === 0) upstream.weight = weight
          else members = members.includes(upstream) ? members.filter((other) => other !== upstream) : [...members, upstream]
          balancer.update(members)
          for (let i = 0; i < picks; i++) {
            const picked = balancer.pick(untried)
            if (picked === undefined ? members.length > 0 : !members.includes(picked as Server)) wrong++
          }
        }
        expect(wrong).toBe(0)
        if (members.length === 0) return
        // Whatever happened before, a run of picks is by weight.
        const total = members.reduce((sum, { weight }) => sum + weight, 0)
        const had = new Map<Upstream | undefined, number>()
        for (let i = 0; i < 300; i++) {
          const picked = balancer.pick(untried)
          had.set(picked, (had.get(picked) ?? 0) + 1)
        }
        const distances = members.map((member) => Math.abs((had.get(member) ?? 0) - (300 * member.weight) / total))
        expect(Math.max(...distances)).toBeLessThan(4)
      }),
      { numRuns: 200 },
    )
  })

  it('forgets those who have left, also for a release', () => {
    const [a, b] = servers(1, 1) as [Server, Server]
    const balancer = rotation([a, b])
    balancer.update([b])
    balancer.release?.(a, outcome)
    expect(order(balancer, 3)).toBe('b b b')
    balancer.update([])
    expect(balancer.pick(untried)).toBeUndefined()
  })
})

describe('cost', () => {
  it('looks at one upstream per pick, of 10,000', () => {
    let looks = 0
    const upstreams = servers(...Array.from({ length: 10_000 }, (_, i) => 1 + (i % 3)))
    for (const upstream of upstreams)
      Object.defineProperty(upstream, 'full', {
        get: () => {
          looks++
          return false
        },
      })
    const balancer = rotation(upstreams, chance(1))
    looks = 0
    for (let i = 0; i < 1_000; i++) balancer.pick(untried)
    expect(looks).toBe(1_000)
  })

  it('looks at a full upstream once, not at every pick', () => {
    let looks = 0
    const upstreams = servers(...new Array<number>(1_000).fill(1))
    upstreams.forEach((upstream, i) => {
      if (i > 0)
        Object.defineProperty(upstream, 'full', {
          get: () => {
            looks++
            return true
          },
        })
    })
    const balancer = rotation(upstreams)
    for (let i = 0; i < 1_000; i++) expect(balancer.pick(untried)).toBe(upstreams[0])
    expect(looks).toBe(999)
  })
})

describe('options', () => {
  it('are checked by the compiler', () => {
    // @ts-expect-error: no such option
    expect(() => roundRobin({ seed: 1 })).toThrow(OptionsError)
    // @ts-expect-error: not a function
    expect(() => roundRobin({ random: 0.5 })).toThrow(OptionsError)
    // @ts-expect-error: a function of another type
    expect(() => roundRobin({ random: () => '0.5' })).not.toThrow()
    // @ts-expect-error: not an object
    expect(() => roundRobin('weighted')).toThrow(OptionsError)
  })

  it('are reported all at once', () => {
    let problems: readonly { path: string }[] = []
    try {
      roundRobin({ random: 1, sede: 2 } as never)
    } catch (error) {
      problems = (error as OptionsError).problems
    }
    expect(problems.map(({ path }) => path).sort()).toEqual(['random', 'sede'])
  })
})
