import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createProxy, type Decision, type HealthControl, type HealthPolicy, OptionsError, type Upstream } from '@weir/core'
import { fakeTransport, type StubUpstream, seededRandom, stubExchange, stubUpstream } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { leastConnections } from './least-connections.ts'
import { type LocalityOptions, locality } from './locality.ts'
import { random } from './random.ts'

/** `{ here: 3, there: 5 }`: so many servers in each zone. */
const servers = (zones: Readonly<Record<string, number>>, weight = 1): StubUpstream[] =>
  Object.entries(zones).flatMap(([zone, n]) =>
    Array.from({ length: n }, (_, i) => stubUpstream({ id: `${zone}-${i}`, weight, meta: zone === 'none' ? {} : { zone } })),
  )

const picks = 8_000

function shares(
  upstreams: readonly Upstream[],
  options: Partial<LocalityOptions> = {},
  tried: readonly Upstream[] = [],
): Record<string, number> {
  const random = seededRandom(1)
  const balancer = locality({ zone: 'here', random, balancer: () => leastConnections({ random }), ...options })
  balancer.update(upstreams)
  const got: Record<string, number> = {}
  for (let i = 0; i < picks; i++) {
    const zone = String(balancer.pick(stubExchange({ tried }))?.meta.zone)
    got[zone] = (got[zone] ?? 0) + 1 / picks
  }
  return got
}

const near = (got: Record<string, number>, expected: Record<string, number>): void => {
  for (const zone of new Set([...Object.keys(got), ...Object.keys(expected)]))
    expect(Math.abs((got[zone] ?? 0) - (expected[zone] ?? 0)), `${zone} in ${JSON.stringify(got)}`).toBeLessThan(
      5 * Math.sqrt(0.25 / picks),
    )
}

describe('the own zone', () => {
  it('gets everything while it has its share of the capacity', () => {
    expect(shares(servers({ here: 3, there: 3 }))).toEqual({ here: expect.closeTo(1) })
    expect(shares(servers({ here: 5, there: 3, far: 4 }))).toEqual({ here: expect.closeTo(1) })
  })

  it('keeps what it has capacity for, and spills the rest to where there is some to spare', () => {
    // Half of the traffic arrives here, a quarter of the capacity is here: half of it stays.
    near(shares(servers({ here: 2, there: 6 })), { here: 0.5, there: 0.5 })
    // A third arrives in each. Here: 1/9 of capacity, a third stays. Spare: 2/9 there, none far.
    near(shares(servers({ here: 1, there: 5, far: 3 })), { here: 1 / 3, there: 2 / 3 })
    near(shares(servers({ here: 1, there: 5, far: 4 })), { here: 0.3, there: (0.7 * 5) / 7, far: (0.7 * 2) / 7 })
  })

  it('counts capacity by weight, not by heads', () => {
    near(shares([...servers({ here: 4 }, 0.5), ...servers({ there: 2 }, 3)]), { here: 0.5, there: 0.5 })
  })

  it('is not looked at while the pool fails open, and is again afterwards', async () => {
    const down = new Set<string>()
    let open = false
    let control: HealthControl | undefined
    const policy: HealthPolicy = {
      name: 'test',
      attach: (pool) => {
        control = pool
      },
    }
    const zoned = Object.entries({ here: 4, there: 4 }).flatMap(([zone, n]) =>
      Array.from({ length: n }, (_, i) => ({ id: `${zone}-${i}`, url: `http://${zone}-${i}.test`, meta: { zone } })),
    )
    const balancer = locality({ zone: 'here', random: seededRandom(1), balancer: () => random({ random: seededRandom(2) }) })
    await using proxy = createProxy({ upstreams: zoned, balancer, health: [policy], transport: fakeTransport() })
    const pool = control as HealthControl
    const change = (): void => {
      for (const upstream of pool.upstreams) {
        if (down.has(upstream.id)) pool.setDown(upstream, policy, 'ill')
        else pool.setUp(upstream, policy, 'well')
      }
      pool.setFailOpen(policy, open, 'too few')
    }
    const zonesOf = async (): Promise<string[]> => {
      const seen = new Set<string>()
      for (let i = 0; i < 60; i++) {
        const runs: string[] = []
        const listener = (message: unknown): void => void runs.push((message as Decision).chosen as string)
        subscribe('weir:decision', listener)
        await proxy.inject({ url: '/' })
        unsubscribe('weir:decision', listener)
        for (const id of runs) seen.add(id.split('-')[0] as string)
      }
      return [...seen].toSorted()
    }
    expect(await zonesOf()).toEqual(['here'])
    for (let i = 0; i < 3; i++) for (const zone of ['here', 'there']) down.add(`${zone}-${i}`)
    open = true
    change()
    expect(await zonesOf()).toEqual(['here', 'there'])
    down.clear()
    open = false
    change()
    expect(await zonesOf()).toEqual(['here'])
  })

  it('is not looked at in small pools, nor when it has nobody', () => {
    near(shares(servers({ here: 3, there: 2 })), { here: 0.6, there: 0.4 })
    expect(shares(servers({ here: 3, there: 2 }), { minUpstreams: 5 })).toEqual({ here: expect.closeTo(1) })
    near(shares(servers({ there: 6, far: 2 })), { there: 0.75, far: 0.25 })
  })

  it('is helped by servers that are in no zone', () => {
    near(shares(servers({ here: 1, there: 4, none: 5 })), { here: 0.2, undefined: 0.8 })
  })

  it('is helped out when everybody in it is tried', () => {
    const upstreams = servers({ here: 3, there: 3 })
    expect(shares(upstreams, {}, upstreams.slice(0, 3))).toEqual({ there: expect.closeTo(1) })
  })
})

describe('callers', () => {
  it('say where traffic arrives', () => {
    // Three quarters arrive here, half of the capacity is here.
    near(shares(servers({ here: 4, there: 4 }), { callers: { here: 3, there: 1 } }), { here: 2 / 3, there: 1 / 3 })
    expect(shares(servers({ here: 1, there: 7 }), { callers: { here: 1, there: 7 } })).toEqual({ here: expect.closeTo(1) })
  })

  it('of all zones together load every server in proportion to its weight', () => {
    const count = fc.integer({ min: 1, max: 9 })
    fc.assert(
      fc.property(fc.array(fc.tuple(count, count), { minLength: 2, maxLength: 4 }), (zones) => {
        const upstreams = servers(Object.fromEntries(zones.map(([n], i) => [`z${i}`, n])))
        if (upstreams.length < 6) return
        const callers = Object.fromEntries(zones.map(([, n], i) => [`z${i}`, n]))
        const total = zones.reduce((sum, [, n]) => sum + n, 0)
        const load: Record<string, number> = {}
        for (const [i, [, n]] of zones.entries())
          for (const [zone, share] of Object.entries(shares(upstreams, { zone: `z${i}`, callers })))
            load[zone] = (load[zone] ?? 0) + (share * n) / total
        near(load, Object.fromEntries(zones.map(([n], i) => [`z${i}`, n / upstreams.length])))
      }),
      { numRuns: 12 },
    )
  })
})

it('follows changes of membership', () => {
  const upstreams = servers({ here: 3, there: 3 })
  const balancer = locality({ zone: 'here', random: seededRandom(1) })
  balancer.update(upstreams)
  expect(balancer.pick(stubExchange())?.meta.zone).toBe('here')
  balancer.update(servers({ there: 6 }))
  expect(balancer.pick(stubExchange())?.meta.zone).toBe('there')
  balancer.update(upstreams)
  for (let i = 0; i < 20; i++) expect(upstreams.slice(0, 3)).toContain(balancer.pick(stubExchange()))
  balancer.update([])
  expect(balancer.pick(stubExchange())).toBeUndefined()
})

it('may call the field otherwise', () => {
  const balancer = locality({ zone: '7', meta: 'rack', minUpstreams: 1 })
  const [a, b] = [stubUpstream({ id: 'a', meta: { rack: 7 } }), stubUpstream({ id: 'b', meta: { rack: 8 } })]
  balancer.update([a, b])
  for (let i = 0; i < 50; i++) expect(balancer.pick(stubExchange())).toBe(a)
})

it('refuses wrong options, in the editor and at run time', () => {
  // @ts-expect-error: a zone is required
  expect(() => locality({})).toThrow(OptionsError)
  expect(() => locality({ zone: '' })).toThrow(OptionsError)
  expect(() => locality({ zone: 'here', minUpstreams: 0 })).toThrow(OptionsError)
  expect(() => locality({ zone: 'here', callers: { there: 1 } })).toThrow(OptionsError)
  expect(() => locality({ zone: 'here', callers: { here: -1 } })).toThrow(OptionsError)
  // @ts-expect-error: a strategy instead of a factory
  expect(() => locality({ zone: 'here', balancer: leastConnections() })).toThrow(OptionsError)
})
