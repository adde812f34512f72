/** The table against a `Map`, through replacement and expiry; and whom it gives up. */
import type { Clock } from '@weir/core'
import { virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { LimitStep } from './limit.ts'
import { MemoryTable } from './memory-table.ts'

const whole = 100
const state = { a: 0, b: 0, c: 0 }

type Numbers = 1 | 2 | 3

/** What a key wrote and when it expires are both in `a`, the only number that is always kept; the others follow from it. */
const tableOf = (maxEntries: number, clock: Clock, numbers: Numbers): MemoryTable =>
  new MemoryTable(maxEntries, clock, whole, numbers, ({ a }) => Math.floor(a / 1e6))

const step = (n: number, remaining: number, expiresAt: number): LimitStep => {
  const a = expiresAt * 1e6 + n
  return new LimitStep(true, remaining, 0, 0, 0, 0, a, a + 0.5, a + 0.25)
}

function readOf(table: MemoryTable, key: string, expiresAt: number, numbers: Numbers): number | undefined {
  if (table.read(key, state) < 0) {
    expect(state).toEqual({ a: 0, b: 0, c: 0 })
    return undefined
  }
  const { a, b, c } = state
  expect([b, c]).toEqual([numbers > 1 ? a + 0.5 : 0, numbers > 2 ? a + 0.25 : 0])
  expect(Math.floor(a / 1e6)).toBe(expiresAt)
  return a % 1e6
}

const each = it.each<Numbers>([1, 2, 3])

each(
  'rows of %i: remembers what a Map would, and when it is full gives up one key for each new one: the expired, or the least used',
  async (numbers) => {
    const write = fc.record({ key: fc.nat(40), remaining: fc.nat(whole), lives: fc.integer({ min: 1, max: 50 }), wait: fc.nat(3) })
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 16 }), fc.array(write, { maxLength: 200 }), async (maxEntries, writes) => {
        const clock = virtualClock(1000)
        const table = tableOf(maxEntries, clock, numbers)
        const model = new Map<string, { n: number; quarter: number; expiresAt: number }>()
        let lost = 0
        for (const [i, { key: id, remaining, lives, wait }] of writes.entries()) {
          if (wait > 0) await clock.advance(wait)
          const now = clock.now()
          const key = `key-${id}`
          const known = model.has(key)
          const victims = [...model].filter(([, entry]) => entry.expiresAt <= now).map(([name]) => name)
          const least = Math.min(...[...model.values()].map(({ quarter }) => quarter))
          const expiresAt = now + lives
          table.write(table.read(key, state), step(i + 1, remaining, expiresAt))
          model.set(key, { n: i + 1, quarter: Math.min(3, Math.floor((4 * (whole - remaining)) / whole)), expiresAt })
          if (!known && model.size > maxEntries) {
            // Who went? Among the expired it makes no difference: any of them.
            const gone = [...model].filter(
              ([name, entry]) => entry.expiresAt > now && readOf(table, name, entry.expiresAt, numbers) === undefined,
            )
            if (victims.length > 0) {
              expect(gone).toEqual([])
              // One of them is out of the table; what is left of the others is as good as nothing, but still there.
              const out = victims.find((name) => table.read(name, state) < 0) as string
              expect(out).toBeDefined()
              model.delete(out)
            } else {
              expect(gone).toHaveLength(1)
              const [name, entry] = gone[0] as (typeof gone)[0]
              expect(name).not.toBe(key)
              expect(entry.quarter).toBe(least)
              model.delete(name)
              lost++
            }
          }
          expect(table.size).toBe(model.size)
          expect(table.evictions).toBe(lost)
          for (const [name, entry] of model) expect(readOf(table, name, entry.expiresAt, numbers)).toBe(entry.n)
        }
      }),
      { numRuns: 200 },
    )
  },
)

each('rows of %i: keeps every key until it is full', (numbers) => {
  const clock = virtualClock(1000)
  const table = tableOf(50_000, clock, numbers)
  for (let i = 1; i <= 50_000; i++) table.write(table.read(`k${i}`, state), step(i, 50, 5000))
  expect([table.size, table.evictions]).toEqual([50_000, 0])
  for (let i = 1; i <= 50_000; i++) expect(readOf(table, `k${i}`, 5000, numbers)).toBe(i)
})

each('rows of %i: a flood of new keys makes it forget nobody who is near the limit', (numbers) => {
  const clock = virtualClock(1000)
  const table = tableOf(1000, clock, numbers)
  for (let i = 1; i <= 100; i++) table.write(table.read(`near-${i}`, state), step(i, 0, 5000))
  for (let i = 1; i <= 100_000; i++) table.write(table.read(`flood-${i}`, state), step(i, 99, 5000))
  for (let i = 1; i <= 100; i++) expect(readOf(table, `near-${i}`, 5000, numbers)).toBe(i)
  expect([table.size, table.evictions]).toEqual([1000, 99_100])
})
