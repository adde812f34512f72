/** Memory under a flood of keys: bounded in number and in bytes, and what it forgets too early it admits. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { boundedKey } from './key.ts'
import type { Limit } from './limit.ts'
import { memoryStore } from './memory-store.ts'

const limit: Limit = { id: 'x', name: 'x', algorithm: 'gcra', quota: 10, windowMs: 60_000, burst: 10, maxDelayMs: 0 }

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes that are still referred to. */
function heap(): number {
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

it('a million distinct keys take no more room than it has, and less than 100 bytes each', () => {
  const maxEntries = 50_000
  const total = 1_000_000
  const before = heap()
  const store = memoryStore({ maxEntries, clock: virtualClock(1000) })
  const flood = (from: number, to: number): void => {
    for (let i = from; i < to; i++)
      store.take([{ limit, key: `2001:db8:${(i >> 16).toString(16)}:${(i & 0xffff).toString(16)}::/64`, cost: 1 }])
  }
  flood(0, 2 * maxEntries)
  const full = heap()
  expect((full - before) / maxEntries).toBeLessThan(100)
  flood(2 * maxEntries, total)
  expect(store.stats()).toEqual({ entries: maxEntries, evictions: total - maxEntries })
  // 900,000 keys that were kept would be 130 MB.
  expect(heap() - full).toBeLessThan(5e6)
})

it('a key that was cut from a long text does not keep that text', () => {
  const store = memoryStore({ maxEntries: 2000, clock: virtualClock(1000) })
  const before = heap()
  for (let i = 0; i < 2000; i++) store.take([{ limit, key: `${String(i).padStart(10, '0')}${'x'.repeat(10_000)}`.slice(0, 40), cost: 1 }])
  expect(store.stats().entries).toBe(2000)
  expect(heap() - before).toBeLessThan(5e6)
})

it('forgets whoever has used the least, and counts it only while its limit was running', async () => {
  const clock = virtualClock(1000)
  const store = memoryStore({ maxEntries: 2, clock })
  const left = (key: string): number | undefined => store.take([{ limit, key, cost: 1 }])[0]?.remaining
  expect([left('a'), left('a'), left('a'), left('a'), left('b')]).toEqual([9, 8, 7, 6, 9])
  expect(left('c')).toBe(9)
  expect(store.stats()).toEqual({ entries: 2, evictions: 1 })
  expect([left('a'), left('b')]).toEqual([5, 9])
  expect(store.stats()).toEqual({ entries: 2, evictions: 2 })
  // All have expired: nothing of worth is lost any more.
  await clock.advance(60_000)
  expect([left('d'), left('e'), store.stats().evictions]).toEqual([9, 9, 2])
})

it.each([
  ['gcra, a small burst', { quota: 1000, burst: 20 }],
  ['token-bucket', { algorithm: 'token-bucket', quota: 100, burst: 25 }],
  ['fixed-window', { algorithm: 'fixed-window', quota: 20, burst: 20 }],
  ['sliding-window', { algorithm: 'sliding-window', quota: 20, burst: 20 }],
  ['leaky-bucket', { algorithm: 'leaky-bucket', quota: 60, burst: 60, maxDelayMs: 10_000 }],
] as const)('a flood of new keys makes it forget nobody who is at the limit: %s', (_name, options) => {
  const store = memoryStore({ maxEntries: 1000, clock: virtualClock(1000) })
  const one: Limit = { ...limit, ...options }
  const near = Array.from({ length: 50 }, (_, i) => `near-${i}`)
  for (const key of near) while (store.take([{ limit: one, key, cost: 1 }])[0]?.allowed === true);
  for (let i = 0; i < 20_000; i++) store.take([{ limit: one, key: `flood-${i}`, cost: 1 }])
  expect(store.stats().entries).toBe(1000)
  expect(near.filter((key) => store.take([{ limit: one, key, cost: 1 }])[0]?.allowed === true)).toEqual([])
})

it('a refused request, and one that costs nothing, take no room', () => {
  const store = memoryStore({ clock: virtualClock(1000) })
  store.take([{ limit, key: 'a', cost: 11 }])
  store.take([{ limit, key: 'b', cost: 0 }])
  store.adjust(limit, 'c', -1, 0)
  expect(store.stats().entries).toBe(0)
})

it('a request is charged to all of its limits or to none, whatever they are', async () => {
  const kinds = ['gcra', 'token-bucket', 'fixed-window', 'sliding-window'] as const
  const step = fc.record({
    gap: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 1500 })),
    which: fc.uniqueArray(fc.nat(3), { minLength: 1, maxLength: 4 }),
    cost: fc.integer({ min: 1, max: 3 }),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 4, maxLength: 4 }),
      fc.array(step, { maxLength: 40 }),
      async (quotas, steps) => {
        const clock = virtualClock(1000)
        const store = memoryStore({ clock })
        const limits = kinds.map(
          (algorithm, i): Limit => ({
            ...limit,
            id: algorithm,
            algorithm,
            quota: quotas[i] as number,
            burst: quotas[i] as number,
            windowMs: 1000 * (i + 1),
          }),
        )
        const left = (): number[] => limits.map((one) => store.take([{ limit: one, key: 'k', cost: 0 }])[0]?.remaining as number)
        for (const { gap, which, cost } of steps) {
          if (gap > 0) await clock.advance(gap)
          const before = left()
          const verdicts = store.take(which.map((i) => ({ limit: limits[i] as Limit, key: 'k', cost })))
          const fits = which.map((i) => (before[i] as number) >= cost)
          const all = !fits.includes(false)
          expect(verdicts.map(({ allowed }) => allowed)).toEqual(fits)
          const after = before.map((was, i) => (all && which.includes(i) ? was - cost : was))
          expect(left()).toEqual(after)
          expect(verdicts.map(({ remaining }) => remaining)).toEqual(which.map((i) => after[i]))
        }
      },
    ),
    { numRuns: 60 },
  )
})

it('a flood of keys of one limit does not make another forget', () => {
  const store = memoryStore({ maxEntries: 10, clock: virtualClock(1000) })
  const other: Limit = { ...limit, id: 'y' }
  for (let i = 0; i < 10; i++) store.take([{ limit, key: 'a', cost: 1 }])
  for (let i = 0; i < 100; i++) store.take([{ limit: other, key: String(i), cost: 1 }])
  expect(store.take([{ limit, key: 'a', cost: 1 }])[0]?.allowed).toBe(false)
})

it('keys are never long, whoever makes them up', () => {
  const long = 'x'.repeat(8000)
  expect(boundedKey(long).length).toBeLessThanOrEqual(64)
  expect(boundedKey(`${long}a`)).not.toBe(boundedKey(`${long}b`))
  expect(boundedKey('x'.repeat(64))).toBe('x'.repeat(64))
  // Nobody can send what somebody else's long key became.
  expect(boundedKey(boundedKey(long))).not.toBe(boundedKey(long))
})

it('never makes a promise', () => {
  const store = memoryStore()
  expect(store.take([{ limit, key: 'a', cost: 1 }])).toBeInstanceOf(Array)
  expect(store.adjust(limit, 'a', 1, 0)).toBeUndefined()
})
