import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LoadHeap } from './load-heap.ts'

describe('the heap of loads', () => {
  it('has the least on top, by load and then by turn, whatever is put in and taken out', () => {
    const step = fc.record({ item: fc.nat({ max: 11 }), load: fc.nat({ max: 3 }), turn: fc.nat({ max: 1_000 }), out: fc.boolean() })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const heap = new LoadHeap(12)
        const inside = new Map<number, { load: number; turn: number }>()
        for (const { item, load, turn, out } of steps) {
          if (out) {
            heap.remove(item)
            inside.delete(item)
          } else {
            heap.set(item, load, turn)
            inside.set(item, { load, turn })
          }
          expect(heap.size).toBe(inside.size)
          if (inside.size === 0) continue
          const top = inside.get(heap.top)
          const [least] = [...inside.values()].sort((a, b) => a.load - b.load || a.turn - b.turn)
          expect(top).toEqual(least)
        }
      }),
    )
  })
})
