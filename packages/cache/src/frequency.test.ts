/** How often keys are asked for, and what that keeps in a memory store: what is asked for again and again outlives a scan of what nobody comes back for. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { entryOf } from './fixtures/entries.ts'
import { FrequencySketch } from './frequency.ts'
import { memoryStore } from './memory-store.ts'

describe('the sketch', () => {
  it('never says less than a key was asked for, up to 15, until it forgets', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(30), { maxLength: 600 }), (asked) => {
        const sketch = new FrequencySketch(64)
        const counts = new Map<number, number>()
        for (const key of asked) {
          sketch.count(`key-${key}`)
          counts.set(key, (counts.get(key) ?? 0) + 1)
        }
        for (const [key, count] of counts) expect(sketch.estimate(`key-${key}`)).toBeGreaterThanOrEqual(Math.min(15, count))
      }),
    )
  })

  it('forgets by halves: what was popular once is overtaken', () => {
    const sketch = new FrequencySketch(64)
    for (let i = 0; i < 15; i++) sketch.count('old')
    expect(sketch.estimate('old')).toBe(15)
    for (let i = 0; i < 640; i++) sketch.count(`other-${i}`)
    expect(sketch.estimate('old')).toBeLessThan(15)
    expect(new FrequencySketch(64).estimate('old')).toBe(0)
  })
})

describe('a memory store', () => {
  const body = Buffer.alloc(4096)
  /** Twenty that are asked for ten times, then a thousand that are asked for once. How many of the twenty are left? */
  const survivors = (admission: 'all' | 'frequency'): number => {
    const store = memoryStore({ maxSize: '256KiB', admission })
    const ask = (key: string): void => {
      if ((store.find(key) as readonly unknown[]).length === 0) void store.put(entryOf(key, body.length), body)
    }
    const popular = Array.from({ length: 20 }, (_, i) => `popular-${i}`)
    for (let i = 0; i < 10; i++) popular.forEach(ask)
    for (let i = 0; i < 1000; i++) ask(`once-${i}`)
    return popular.filter((key) => [...(store.entries() as Iterable<{ key: string }>)].some((entry) => entry.key === key)).length
  }

  it('by frequency keeps what is asked for often through a scan, and takes in all without it', () => {
    expect([survivors('frequency'), survivors('all')]).toEqual([20, 0])
  })
})
