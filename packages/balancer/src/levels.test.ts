import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Levels } from './levels.ts'

type Step = { readonly slot: number; readonly what: 'toggle' | 'raise' | 'lower' | 'rotate' }

describe('levels', () => {
  it('are what sorting all of them again would give', () => {
    const step: fc.Arbitrary<Step> = fc.record({
      slot: fc.nat({ max: 7 }),
      what: fc.constantFrom('toggle', 'raise', 'raise', 'lower', 'rotate'),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const classOf = Int32Array.from([0, 1, 0, 0, 1, 2, 0, 0])
        const levels = new Levels(classOf, 3)
        const inflight = new Array<number>(8).fill(0)
        // Per class, the queue of each level in order of arrival: what the structure must agree with.
        const queues = new Map<string, number[]>()
        const queue = (slot: number): number[] => {
          const key = `${classOf[slot]} ${inflight[slot]}`
          if (!queues.has(key)) queues.set(key, [])
          return queues.get(key) as number[]
        }
        const take = (slot: number): void => void queue(slot).splice(queue(slot).indexOf(slot), 1)
        for (const { slot, what } of steps) {
          const inside = queue(slot).includes(slot)
          expect(levels.has(slot)).toBe(inside)
          if (what === 'toggle') {
            if (inside) {
              take(slot)
              levels.remove(slot)
            } else {
              queue(slot).push(slot)
              levels.add(slot, inflight[slot] as number)
            }
          } else if (what === 'rotate') {
            if (!inside) continue
            const index = classOf[slot] as number
            const first = queue(levels.first(index))
            first.push(first.shift() as number)
            levels.rotate(index)
          } else {
            const change = what === 'raise' ? 1 : -1
            if ((inflight[slot] as number) + change < 0) continue
            if (inside) take(slot)
            inflight[slot] = (inflight[slot] as number) + change
            if (!inside) continue
            queue(slot).push(slot)
            if (change === 1) levels.raise(slot)
            else levels.lower(slot)
          }
          for (const index of [0, 1, 2]) {
            const counts = [...queues]
              .filter(([key, slots]) => key.startsWith(`${index} `) && slots.length > 0)
              .map(([key]) => Number(key.slice(2)))
            expect(levels.isEmpty(index)).toBe(counts.length === 0)
            if (counts.length === 0) continue
            const least = Math.min(...counts)
            const slots = queues.get(`${index} ${least}`) as number[]
            expect([levels.least(index), levels.leastCount(index), levels.first(index)]).toEqual([least, slots.length, slots[0]])
          }
        }
      }),
    )
  })
})
