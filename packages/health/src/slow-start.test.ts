/** Slow start in a real pool on a virtual clock: the curve, when there is none, and what it does to real picks. */
import { createPool, createProxy, type HealthControl, type HealthPolicy, type Pool, type Upstream } from '@weir/core'
import { fakeTransport, type VirtualClock, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type SlowStartOptions, slowStart } from './slow-start.ts'

interface Judge extends HealthPolicy {
  down(id: string): void
  up(id: string): void
  degrade(id: string): void
}

/** A policy that says what the test wants. */
function judge(): Judge {
  let control: HealthControl | undefined
  const find = (id: string): Upstream => control?.upstreams.find((upstream) => upstream.id === id) as Upstream
  const policy: Judge = {
    name: 'judge',
    attach(pool) {
      control = pool
    },
    down: (id) => void control?.setDown(find(id), policy, 'test'),
    up: (id) => control?.setUp(find(id), policy, 'test'),
    degrade: (id) => control?.setDegraded(find(id), policy, true, 'test'),
  }
  return policy
}

function rig(ids: readonly string[], options: SlowStartOptions = {}) {
  const clock: VirtualClock = virtualClock()
  const says = judge()
  const updates: number[] = []
  const pool: Pool = createPool({
    upstreams: ids.map((id) => ({ url: `http://${id}.test`, id })),
    health: [says, slowStart({ window: 10_000, steps: 10, ...options })],
    balancer: { name: 'counting', update: () => void updates.push(clock.now()), pick: () => undefined },
    transport: fakeTransport(),
    clock,
  })
  return {
    clock,
    says,
    pool,
    updates,
    weight: (id: string) => pool.get(id)?.weight,
    add: (id: string) => pool.add({ url: `http://${id}.test`, id }),
  }
}

async function curve(r: ReturnType<typeof rig>, id: string, seconds: number): Promise<number[]> {
  const weights: number[] = []
  for (let i = 0; i <= seconds; i++) {
    weights.push(Math.round((r.weight(id) ?? 0) * 1000) / 1000)
    if (i < seconds) await r.clock.advance(1000)
  }
  return weights
}

describe('the curve', () => {
  it('is a line from the floor, for one that joins', async () => {
    const r = rig(['a'])
    r.add('b')
    expect(await curve(r, 'b', 11)).toEqual([0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1])
    expect(r.weight('a')).toBe(1)
    expect(r.clock.pending).toBe(0)
  })

  it('the same for one that recovers, and from the beginning when it falls in between', async () => {
    const r = rig(['a', 'b'])
    r.says.down('b')
    r.says.up('b')
    expect(await curve(r, 'b', 5)).toEqual([0.1, 0.1, 0.2, 0.3, 0.4, 0.5])
    r.says.down('b')
    expect(r.clock.pending).toBe(0)
    await r.clock.advance(5000)
    r.says.up('b')
    expect((await curve(r, 'b', 10)).at(-1)).toBe(1)
  })

  it('bends with aggression and begins at the floor', async () => {
    const fast = rig(['a'], { aggression: 2, floor: 0.25 })
    fast.add('b')
    expect(await curve(fast, 'b', 4)).toEqual([0.25, 0.316, 0.447, 0.548, 0.632])
    const slow = rig(['a'], { aggression: 0.5, floor: 0.01 })
    slow.add('b')
    expect(await curve(slow, 'b', 4)).toEqual([0.01, 0.01, 0.04, 0.09, 0.16])
  })

  it('is taken in steps, so that tables are built a bounded number of times', async () => {
    const r = rig(['a'], { steps: 4 })
    r.add('b')
    r.updates.length = 0
    await r.clock.advance(20_000)
    expect(r.updates).toEqual([2500, 5000, 7500, 10_000])
  })
})

describe('there is none', () => {
  it('when a pool starts', () => {
    const r = rig(['a', 'b'])
    expect([r.weight('a'), r.weight('b'), r.clock.pending]).toEqual([1, 1, 0])
  })

  it('when all come up one by one after the start, nor for one that joins them soon', async () => {
    const r = rig(['a', 'b', 'c'])
    for (const id of ['a', 'b', 'c']) r.says.down(id)
    for (const id of ['a', 'b', 'c']) {
      await r.clock.advance(10)
      r.says.up(id)
      expect(r.weight(id)).toBe(1)
    }
    await r.clock.advance(5000)
    r.add('d')
    expect(r.weight('d')).toBe(1)
    // After a window they are warm, and who comes then ramps.
    await r.clock.advance(5000)
    r.add('e')
    expect(r.weight('e')).toBe(0.1)
  })

  it('for the only one', async () => {
    const empty = rig([])
    empty.add('a')
    expect(empty.weight('a')).toBe(1)
    const r = rig(['a', 'b'])
    r.says.down('a')
    r.says.down('b')
    r.says.up('b')
    expect(r.weight('b')).toBe(1)
  })

  it('against peers of another tier, without weight, or draining', async () => {
    const r = rig(['a'])
    r.pool.add({ url: 'http://b.test', id: 'b', backup: true })
    expect(r.weight('b')).toBe(1)
    await r.pool.drain('a')
    r.add('c')
    expect(r.weight('c')).toBe(1)
    const degraded = rig(['a'])
    degraded.says.degrade('a')
    degraded.add('b')
    expect(degraded.weight('b')).toBe(1)
    const idle = rig(['a'])
    idle.pool.setWeight('a', 0)
    idle.add('b')
    expect(idle.weight('b')).toBe(1)
  })

  it('for one that is undrained', async () => {
    const r = rig(['a', 'b'])
    await r.pool.drain('b')
    r.pool.undrain('b')
    expect(r.weight('b')).toBe(1)
  })
})

it('one that joins and has to wait for its first check ramps once that has passed, not before', async () => {
  const clock = virtualClock()
  let control: HealthControl | undefined
  const gate: HealthPolicy = {
    name: 'gate',
    attach(pool) {
      control = pool
    },
    onUpstream({ upstream, from }) {
      if (from === undefined) control?.setDown(upstream, gate, 'waits')
    },
  }
  const pool = createPool({
    upstreams: ['http://a.test'],
    health: [gate, slowStart({ window: 10_000 })],
    transport: fakeTransport(),
    clock,
  })
  const b = pool.add('http://b.test')
  expect(clock.pending).toBe(0)
  await clock.advance(5000)
  control?.setUp(b, gate, 'passed')
  expect(b.weight).toBe(0.1)
  await clock.advance(10_000)
  expect(b.weight).toBe(1)
  await pool.close()
})

describe('a ramp ends', () => {
  it('when the last warm one goes down, drains or leaves', async () => {
    for (const end of ['down', 'drain', 'remove'] as const) {
      const r = rig(['a'])
      r.add('b')
      r.add('c')
      await r.clock.advance(2000)
      expect(r.weight('b')).toBe(0.2)
      if (end === 'down') r.says.down('a')
      else await r.pool[end]('a')
      expect([r.weight('b'), r.weight('c')]).toEqual([1, 1])
    }
  })

  it('when the pool closes', async () => {
    const r = rig(['a'])
    r.add('b')
    await r.pool.close()
    expect(r.clock.pending).toBe(0)
  })
})

it('any history: weights are whole when nobody is warm, never below the floor, and whole in the end', async () => {
  const ids = ['a', 'b', 'c']
  const action = fc.oneof(
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('time' as const), ms: fc.nat(6000), id: fc.constant('') }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constantFrom('down' as const, 'up' as const, 'toggle' as const),
        id: fc.constantFrom(...ids),
        ms: fc.constant(0),
      }),
    },
  )
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 30 }), async (actions) => {
      const r = rig(ids)
      for (const { kind, id, ms } of actions) {
        if (kind === 'time') await r.clock.advance(ms)
        else if (kind === 'toggle') {
          if (r.pool.get(id) === undefined) r.add(id)
          else await r.pool.remove(id)
        } else if (r.pool.get(id) !== undefined) r.says[kind](id)
        const up = r.pool.upstreams.filter(({ state }) => state === 'up')
        // Somebody carries the rest: not all of those in use are held back.
        if (up.length > 0) expect(Math.max(...up.map(({ weight }) => weight))).toBe(1)
        for (const { weight } of r.pool.upstreams) expect(weight).toBeGreaterThanOrEqual(0.1)
      }
      await r.clock.advance(10_000)
      for (const { weight } of r.pool.upstreams) expect(weight).toBe(1)
      await r.pool.close()
      expect(r.clock.pending).toBe(0)
    }),
    { numRuns: 200 },
  )
})

it('through the proxy: the share of a newcomer grows to a whole one', async () => {
  const clock = virtualClock()
  const transport = fakeTransport()
  await using proxy = createProxy({
    pool: createPool({ upstreams: [{ url: 'http://a.test', id: 'a' }], health: [slowStart({ window: '10s' })], transport, clock }),
  })
  proxy.pool?.add({ url: 'http://b.test', id: 'b' })
  const share = async (): Promise<number> => {
    const before = transport.requests.length
    for (let i = 0; i < 110; i++) await proxy.inject({ url: '/' })
    return transport.requests.slice(before).filter(({ upstream }) => upstream.id === 'b').length
  }
  expect(await share()).toBeGreaterThanOrEqual(9)
  expect(await share()).toBeLessThanOrEqual(11)
  await clock.advance(10_000)
  expect(await share()).toBe(55)
})

it('wrong options are named', () => {
  const problems = (options: unknown): string[] => {
    try {
      slowStart(options as SlowStartOptions)
      return []
    } catch (error) {
      return (error as { problems: { path: string }[] }).problems.map(({ path }) => path)
    }
  }
  expect(problems({ window: 0, aggression: 0, floor: 0, steps: 0.5, ramp: 1 })).toEqual(['ramp', 'window', 'aggression', 'floor', 'steps'])
})
