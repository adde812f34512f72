import { type Balancer, OptionsError } from '@weir/core'
import { type StubUpstream, seededRandom, stubExchange, stubOutcome, stubUpstreams } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { boundedLoad } from './bounded-load.ts'
import { hash } from './hash.ts'
import { ipHash } from './ip-hash.ts'
import { ketama } from './ketama.ts'
import { leastConnections } from './least-connections.ts'
import { maglev } from './maglev.ts'

const strategies: readonly (readonly [string, () => Balancer])[] = [
  ['hash', () => hash({ key: 'hashKey' })],
  ['ipHash', () => ipHash()],
  ['ketama', () => ketama({ key: 'hashKey' })],
  ['maglev', () => maglev({ key: 'hashKey', tableSize: 1_009 })],
]

const client = (key: number) => stubExchange({ hashKey: `k${key}`, clientIp: `198.51.100.${key}` })

function begin(balancer: Balancer, upstream: StubUpstream): void {
  upstream.inflight++
  balancer.acquire?.(upstream)
}

function end(balancer: Balancer, upstream: StubUpstream): void {
  upstream.inflight--
  balancer.release?.(upstream, stubOutcome(upstream))
}

describe.each(strategies)('bounded load on %s', (_, make) => {
  it('never picks one beyond its bound, whatever begins and ends', () => {
    const step = fc.oneof(
      { weight: 50, arbitrary: fc.record({ do: fc.constant('pick'), key: fc.nat({ max: 20 }) }) },
      { weight: 20, arbitrary: fc.record({ do: fc.constant('end'), key: fc.nat() }) },
      { weight: 10, arbitrary: fc.record({ do: fc.constant('affinity'), key: fc.nat() }) },
      { weight: 10, arbitrary: fc.record({ do: fc.constant('update'), key: fc.nat() }) },
    )
    const weights = fc.array(fc.constantFrom(0.1, 0.5, 1, 2, 7), { minLength: 2, maxLength: 6 })
    fc.assert(
      fc.property(weights, fc.constantFrom(1.01, 1.25, 2), fc.array(step, { maxLength: 120 }), (weights, factor, steps) => {
        const all = stubUpstreams(weights)
        let members = all
        const balancer = boundedLoad(make(), { factor })
        const plain = make()
        balancer.update(members)
        plain.update(members)
        const running: StubUpstream[] = []
        for (const { do: action, key } of steps) {
          const some = all[key % all.length] as StubUpstream
          if (action === 'end') {
            const [ended] = running.splice(key % Math.max(1, running.length), 1)
            if (ended) end(balancer, ended)
          } else if (action === 'affinity') {
            running.push(some)
            begin(balancer, some)
          } else if (action === 'update') {
            members =
              members.includes(some) && members.length > 1 ? members.filter((other) => other !== some) : [...new Set([...members, some])]
            balancer.update(members)
            plain.update(members)
          } else {
            const weight = members.reduce((sum, upstream) => sum + upstream.weight, 0)
            const inflight = members.reduce((sum, upstream) => sum + upstream.inflight, 0) + 1
            const bound = (upstream: StubUpstream): number => Math.ceil((factor * inflight * upstream.weight) / weight - 1e-9)
            const picked = balancer.pick(client(key)) as StubUpstream
            // The first of its own sequence below the bound: as if those at it had been tried.
            expect(picked).toBe(plain.pick({ ...client(key), tried: members.filter((upstream) => upstream.inflight >= bound(upstream)) }))
            running.push(picked)
            begin(balancer, picked)
            expect(picked.inflight).toBeLessThanOrEqual(bound(picked))
          }
        }
      }),
      { numRuns: 80 },
    )
  })

  it('sends one hot key to as few upstreams as the bound allows, always the same ones', () => {
    const upstreams = stubUpstreams(new Array(10).fill(1))
    const run = (): StubUpstream[] => {
      const balancer = boundedLoad(make(), { factor: 2 })
      for (const upstream of upstreams) upstream.inflight = 0
      balancer.update(upstreams)
      for (let i = 0; i < 1_000; i++) begin(balancer, balancer.pick(client(7)) as StubUpstream)
      return upstreams.filter(({ inflight }) => inflight > 0)
    }
    const used = run()
    // At factor 2 half of them can hold all of it. Rounding up while there was little to hold has let the next few have some.
    expect(used.filter(({ inflight }) => inflight > 20).length).toBe(5)
    expect(run()).toEqual(used)
  })

  it('leaves keys at home while load is below the bound', () => {
    const upstreams = stubUpstreams([1, 1, 1, 1])
    const plain = make()
    const bounded = boundedLoad(make(), { factor: 100 })
    plain.update(upstreams)
    bounded.update(upstreams)
    const chance = seededRandom(1)
    for (let i = 0; i < 300; i++) {
      const exchange = client(Math.floor(chance() * 256))
      const picked = bounded.pick(exchange) as StubUpstream
      expect(picked).toBe(plain.pick(exchange))
      begin(bounded, picked)
    }
  })

  it('gives way when everybody below the bound is tried or full', () => {
    const [a, b] = stubUpstreams([1, 1]) as [StubUpstream, StubUpstream]
    const balancer = boundedLoad(make())
    balancer.update([a, b])
    for (let i = 0; i < 10; i++) begin(balancer, a)
    expect(balancer.pick(client(1))).toBe(b)
    expect(balancer.pick({ ...client(1), tried: [b] })).toBe(a)
    b.maxConcurrent = 0
    expect(balancer.pick(client(1))).toBe(a)
  })
})

describe('options of boundedLoad', () => {
  it('may be those of hash', () => {
    const balancer = boundedLoad({ key: 'hashKey', factor: 1.5 })
    expect(balancer.name).toBe('bounded-load:hash')
    expect(() => boundedLoad({ key: 'hashKey', missing: 'none' })).not.toThrow()
  })

  it('gives no answer without a key when the strategy gives none', () => {
    const balancer = boundedLoad({ key: 'hashKey', missing: 'none' })
    balancer.update(stubUpstreams([1]))
    expect(balancer.pick(stubExchange())).toBeUndefined()
  })

  it('are refused when wrong, in the editor and at run time', () => {
    expect(() => boundedLoad(leastConnections())).toThrow(OptionsError)
    expect(() => boundedLoad(hash({ key: 'path' }), { factor: 1 })).toThrow(OptionsError)
    // @ts-expect-error: not a number
    expect(() => boundedLoad(hash({ key: 'path' }), { factor: '125%' })).toThrow(OptionsError)
    // @ts-expect-error: a key is required
    expect(() => boundedLoad({ factor: 2 })).toThrow(OptionsError)
    // @ts-expect-error: nothing given
    expect(() => boundedLoad()).toThrow(OptionsError)
  })
})
