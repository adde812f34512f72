/** Fail open in a real pool. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createPool, createProxy, type HealthControl, type HealthPolicy, type Upstream } from '@weir/core'
import { fakeTransport, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type PanicMessage, type PanicOptions, panicThreshold } from './panic-threshold.ts'

async function rig(count: number, options?: PanicOptions, first: 'judge' | 'panic' = 'judge', pending = false) {
  const clock = virtualClock()
  let control: HealthControl | undefined
  const judge: HealthPolicy = {
    name: 'judge',
    attach(pool) {
      control = pool
      if (pending) for (const upstream of pool.upstreams) pool.setDown(upstream, judge, 'pending')
    },
  }
  const panic = panicThreshold(options)
  const transport = fakeTransport()
  const pool = createPool({
    upstreams: Array.from({ length: count }, (_, i) => ({ url: `http://u${i}.test`, id: `u${i}` })),
    health: first === 'judge' ? [judge, panic] : [panic, judge],
    transport,
    clock,
  })
  await pool.start()
  const find = (id: string) => pool.get(id) as Upstream
  return {
    pool,
    open: () => pool.health().failOpen,
    down: (...ids: string[]) => ids.forEach((id) => void control?.setDown(find(id), judge, 'test')),
    up: (...ids: string[]) => ids.forEach((id) => void control?.setUp(find(id), judge, 'test')),
  }
}

describe('the threshold', () => {
  it('opens below it, not at it, and closes at it', async () => {
    const r = await rig(4)
    r.down('u0', 'u1')
    expect(r.open()).toBe(false)
    r.down('u2')
    expect(r.open()).toBe(true)
    r.up('u2')
    expect(r.open()).toBe(false)
  })

  it('is to be seen in the stats, with the picks made beyond it', async () => {
    const r = await rig(3)
    const proxy = createProxy({ pool: r.pool, retry: false })
    const ask = async (): Promise<number> => (await proxy.inject({ url: '/' })).status
    expect(await ask()).toBe(200)
    expect(r.pool.stats()).toMatchObject({ failOpen: false, failOpenPicks: 0 })
    r.down('u0', 'u1')
    for (let i = 0; i < 3; i++) expect(await ask()).toBe(200)
    expect(r.pool.stats()).toMatchObject({ failOpen: true, failOpenPicks: 3 })
    r.up('u0')
    expect(await ask()).toBe(200)
    expect(r.pool.stats()).toMatchObject({ failOpen: false, failOpenPicks: 3 })
    await proxy.close()
  })

  it('is crossed by who joins and leaves too', async () => {
    const r = await rig(4)
    r.down('u0', 'u1')
    await r.pool.remove('u3')
    expect(r.open()).toBe(true)
    r.pool.add({ url: 'http://u4.test', id: 'u4' })
    expect(r.open()).toBe(false)
  })

  it('does not count those that drain', async () => {
    const r = await rig(4)
    await r.pool.drain('u0')
    await r.pool.drain('u1')
    expect(r.open()).toBe(false)
    r.down('u2')
    expect(r.open()).toBe(false)
    r.down('u3')
    expect(r.open()).toBe(true)
  })

  it('may recover later than it broke', async () => {
    const r = await rig(4, { below: 0.5, recover: 1 })
    r.down('u0', 'u1', 'u2')
    r.up('u0', 'u1')
    expect(r.open()).toBe(true)
    r.up('u2')
    expect(r.open()).toBe(false)
  })

  it('0 switches it off', async () => {
    const r = await rig(2, { below: 0 })
    r.down('u0', 'u1')
    expect(r.open()).toBe(false)
  })
})

for (const first of ['judge', 'panic'] as const)
  it(`a pool that starts is not in panic, once it was up it may be (${first} first)`, async () => {
    const r = await rig(2, {}, first, true)
    expect(r.open()).toBe(false)
    r.up('u0')
    expect(r.open()).toBe(false)
    r.down('u0')
    expect(r.open()).toBe(true)
  })

it('nothing is counted before the pool starts', async () => {
  const policy = panicThreshold()
  let control: HealthControl | undefined
  const judge: HealthPolicy = {
    name: 'judge',
    attach(given) {
      control = given
    },
  }
  const pool = createPool({
    upstreams: ['http://a.test', 'http://b.test', 'http://c.test'],
    health: [judge, policy],
    transport: fakeTransport(),
  })
  const [a] = pool.upstreams as [Upstream]
  control?.setDown(a, judge, 'test')
  control?.setUp(a, judge, 'test')
  control?.setDown(a, judge, 'test')
  expect(pool.health().failOpen).toBe(false)
  await pool.start()
  expect(pool.health().failOpen).toBe(false)
  await pool.close()
})

it('any history: open exactly when the share has fallen below', async () => {
  const ids = ['u0', 'u1', 'u2', 'u3']
  const step = fc.record({
    id: fc.constantFrom(...ids),
    what: fc.constantFrom('up' as const, 'down' as const, 'drain' as const, 'toggle' as const),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 30 }),
      fc.constantFrom(0.3, 0.5, 1),
      fc.constantFrom(0, 0.2),
      async (steps, below, more) => {
        const recover = Math.min(1, below + more)
        const r = await rig(4, { below, recover })
        let open = false
        for (const { id, what } of steps) {
          const upstream = r.pool.get(id)
          if (what === 'toggle') {
            if (upstream === undefined) r.pool.add({ url: `http://${id}.test`, id })
            else await r.pool.remove(id)
          } else if (upstream !== undefined) {
            if (what === 'drain') upstream.state === 'draining' ? r.pool.undrain(id) : await r.pool.drain(id)
            else r[what](id)
          }
          const up = r.pool.upstreams.filter(({ state }) => state === 'up').length
          const down = r.pool.upstreams.filter(({ state }) => state === 'down').length
          if (up + down > 0) open = up / (up + down) < (open ? recover : below)
          expect(r.open()).toBe(open)
        }
      },
    ),
    { numRuns: 200 },
  )
})

it('through the proxy: wrong answers are better than none, and it is told', async () => {
  const messages: unknown[] = []
  const listener = (message: unknown): void => void messages.push(message)
  subscribe('weir:health:panic', listener)
  try {
    const r = await rig(2)
    await using proxy = createProxy({ pool: r.pool })
    r.down('u0', 'u1')
    expect((await proxy.inject({ url: '/' })).status).toBe(200)
    r.up('u0', 'u1')
    expect(messages).toEqual([
      { pool: 'pool', policy: 'panicThreshold', panic: true, up: 0, down: 2 },
      { pool: 'pool', policy: 'panicThreshold', panic: false, up: 1, down: 1 },
    ] satisfies PanicMessage[])
    await r.pool.close()
  } finally {
    unsubscribe('weir:health:panic', listener)
  }
})

it('wrong options are named', () => {
  expect(() => panicThreshold({ below: 2 })).toThrow('below')
  expect(() => panicThreshold({ below: 0.5, recover: 0.4 })).toThrow('recover')
})
