/** Waiting for one's turn: in order, bounded, and free for the next when somebody leaves. */
import { getEventListeners } from 'node:events'

import { createProxy, type StageHandler } from '@weir/core'
import { fakeTransport, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type LeakyLimit, memoryStore, type RateLimitStageOptions, rateLimit } from './index.ts'
import { leakyBucket } from './leaky-bucket.ts'
import type { Limit, LimitState } from './limit.ts'
import { TurnQueue } from './turn-queue.ts'

describe('the stage', () => {
  function rig(options: Partial<LeakyLimit & RateLimitStageOptions> = {}) {
    const clock = virtualClock(5000)
    const seen: string[] = []
    const transport = fakeTransport(({ path }) => {
      seen.push(`${path}@${clock.now() - 5000}`)
      return {}
    })
    const stage = rateLimit({ limit: 10, window: '1s', algorithm: 'leaky-bucket', clock, ...options })
    const proxy = createProxy({ upstreams: ['http://a.test'], transport, use: [stage], retry: false })
    onTestFinished(() => proxy.close())
    return { clock, seen, stage, ask: (url: string) => proxy.inject({ url }) }
  }

  it('lets requests through in the order of arrival, one per turn', async () => {
    const { ask, clock, seen, stage } = rig()
    const asked = ['/a', '/b', '/c', '/d'].map(ask)
    await clock.advance(0)
    expect(seen).toEqual(['/a@0'])
    expect(stage.stats().waiting).toBe(3)
    await clock.advance(99)
    expect(seen).toEqual(['/a@0'])
    await clock.advance(1000)
    expect(seen).toEqual(['/a@0', '/b@100', '/c@200', '/d@300'])
    expect((await Promise.all(asked)).map(({ status }) => status)).toEqual([200, 200, 200, 200])
    expect(stage.stats()).toMatchObject({ allowed: 4, delayed: 3, waiting: 0, abandoned: 0 })
    expect(clock.pending).toBe(0)
  })

  it('refuses whoever would wait longer than maxDelay, and says for how long', async () => {
    const { ask, clock, stage } = rig({ limit: 1, window: '10s', maxDelay: '20s' })
    const asked = ['/a', '/b', '/c'].map(ask)
    const { status, headers } = await ask('/d')
    expect([status, headers.get('Retry-After'), headers.get('RateLimit')]).toEqual([429, '10', '"default";r=0;t=10'])
    await clock.advance(20_000)
    expect((await Promise.all(asked)).map((one) => one.status)).toEqual([200, 200, 200])
    expect(stage.stats().refused).toBe(1)
  })

  it('refuses when too many wait, and charges nobody for it', async () => {
    const { ask, clock, seen, stage } = rig({ maxWaiting: 1, maxDelay: '10s' })
    const asked = ['/a', '/b'].map(ask)
    for (const url of ['/c', '/d', '/e']) {
      const { status, headers } = await ask(url)
      expect([status, headers.get('Retry-After')]).toEqual([429, '1'])
    }
    await clock.advance(100)
    const last = ask('/f')
    await clock.advance(100)
    expect(seen).toEqual(['/a@0', '/b@100', '/f@200'])
    await Promise.all([...asked, last])
    expect(stage.stats()).toMatchObject({ allowed: 3, refused: 3 })
  })
})

describe('the line', () => {
  const play = fc.record({
    shares: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 25 }),
    gaps: fc.array(fc.integer({ min: 0, max: 250 }), { minLength: 25, maxLength: 25 }),
    leaves: fc.array(fc.record({ who: fc.nat(24), at: fc.integer({ min: 0, max: 4000 }) }), { maxLength: 10 }),
  })

  it('keeps the order and the distance, whoever leaves, and loses no turn', async () => {
    await fc.assert(
      fc.asyncProperty(play, async ({ shares, gaps, leaves }) => {
        const limit: Limit = { id: 't', name: 't', algorithm: 'leaky-bucket', quota: 10, windowMs: 1000, burst: 10, maxDelayMs: 1e6 }
        const apart = 100
        const clock = virtualClock()
        const queue = new TurnQueue(clock, 1000)
        let state: LimitState = { a: 0, b: 0, c: 0 }
        const gone = shares.map(() => new AbortController())
        const went: { who: number; at: number }[] = []
        const arrive = (who: number): void => {
          const cost = shares[who] as number
          const step = leakyBucket.take(state, clock.now(), cost, limit)
          state = step
          if (step.delayMs === 0) {
            went.push({ who, at: clock.now() })
            return
          }
          void queue.wait('k', step.delayMs, cost * apart, (gone[who] as AbortController).signal).then((ready) => {
            if (ready) went.push({ who, at: clock.now() })
            else state = leakyBucket.adjust(state, clock.now(), -cost, 0, limit)
          })
        }
        let at = 0
        shares.forEach((_, who) => {
          at += gaps[who] as number
          clock.setTimeout(() => arrive(who), at)
        })
        for (const leave of leaves) clock.setTimeout(() => gone[leave.who]?.abort(), leave.at)
        await clock.advance(20_000)
        expect(queue.waiting).toBe(0)
        expect(clock.pending).toBe(0)
        expect(went.map(({ who }) => who)).toEqual(went.map(({ who }) => who).toSorted((a, b) => a - b))
        // What each would get if nobody left. Who leaves makes nobody wait longer.
        let next = 0
        let arrival = 0
        const latest = shares.map((share, who) => {
          arrival += gaps[who] as number
          const turn = Math.max(next, arrival)
          next = turn + share * apart
          return turn
        })
        let free = 0
        for (const { who, at: when } of went) {
          expect(when).toBeGreaterThanOrEqual(free - 0.01)
          expect(when).toBeLessThanOrEqual((latest[who] as number) + 0.01)
          if (leaves.length === 0) expect(when).toBeCloseTo(latest[who] as number, 3)
          free = when + (shares[who] as number) * apart
        }
      }),
      { numRuns: 60 },
    )
  })

  it('moves up when somebody leaves, and the place at its end is free', async () => {
    const clock = virtualClock()
    const queue = new TurnQueue(clock, 10)
    const gone = new AbortController()
    const went: string[] = []
    const wait = (name: string, delay: number, signal = new AbortController().signal): void =>
      void queue.wait('k', delay, 100, signal).then((ready) => went.push(`${name} ${ready ? 'at' : 'left'} ${clock.now()}`))
    wait('a', 100)
    wait('b', 200, gone.signal)
    wait('c', 300)
    await clock.advance(50)
    gone.abort()
    await clock.advance(0)
    // What the store gives out next: the end of the line, one place nearer.
    wait('d', 250)
    await clock.advance(1000)
    expect(went).toEqual(['b left 50', 'a at 100', 'c at 200', 'd at 300'])
  })

  it('is in the order of the store, also when its answers overtake each other', async () => {
    const clock = virtualClock()
    const queue = new TurnQueue(clock, 10)
    const went: string[] = []
    const { signal } = new AbortController()
    void queue.wait('k', 300, 100, signal).then(() => went.push(`a ${clock.now()}`))
    void queue.wait('k', 200, 100, signal).then(() => went.push(`b ${clock.now()}`))
    await clock.advance(1000)
    expect(went).toEqual(['b 200', 'a 300'])
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  it('who had left before it began waits for nothing', async () => {
    const queue = new TurnQueue(virtualClock(), 10)
    expect(await queue.wait('k', 100, 100, AbortSignal.abort())).toBe(false)
    expect(queue.waiting).toBe(0)
  })
})

it('a client that leaves gives its place back to the store', async () => {
  const clock = virtualClock(5000)
  const store = memoryStore({ clock })
  const stage = rateLimit({ limit: 1, window: '1s', algorithm: 'leaky-bucket', maxDelay: '1s', clock, store })
  const gone = new AbortController()
  const exchange = (signal: AbortSignal): Parameters<StageHandler>[0] =>
    ({ clientIp: '192.0.2.1', signal, locals: {} }) as Parameters<StageHandler>[0]
  const never = new AbortController().signal
  await stage.handle(exchange(never))
  const waiting = stage.handle(exchange(gone.signal))
  expect(await stage.handle(exchange(never))).toMatchObject({ status: 429 })
  gone.abort()
  await waiting
  const next = stage.handle(exchange(never))
  await clock.advance(1000)
  expect(await next).not.toHaveProperty('status')
  expect(stage.stats()).toMatchObject({ allowed: 2, refused: 1, abandoned: 1, delayed: 1, waiting: 0 })
})
