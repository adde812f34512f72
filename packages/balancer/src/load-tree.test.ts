import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LoadTree } from './load-tree.ts'

const load = fc.oneof(fc.nat({ max: 3 }), fc.constant(Number.POSITIVE_INFINITY))
const step = fc.record({ index: fc.nat(), load, turn: fc.nat({ max: 1_000 }) })

describe('the tournament of loads', () => {
  it('is won by the least, by load and then by turn, whoever changes', () => {
    fc.assert(
      fc.property(fc.array(load, { minLength: 1, maxLength: 13 }), fc.array(step, { maxLength: 60 }), (start, steps) => {
        const loads = Float64Array.from(start)
        const turns = new Float64Array(start.length)
        const tree = new LoadTree(loads, turns)
        const check = (): void => {
          const [least] = [...loads.keys()].sort(
            (a, b) =>
              (loads[a] === loads[b] ? 0 : (loads[a] as number) - (loads[b] as number)) || (turns[a] as number) - (turns[b] as number),
          )
          const expected = [loads[least as number], turns[least as number]]
          if (expected[0] === Number.POSITIVE_INFINITY) expect(tree.least).toBe(-1)
          else expect([loads[tree.least], turns[tree.least]]).toEqual(expected)
        }
        check()
        for (const { index, load, turn } of steps) {
          loads[index % loads.length] = load
          turns[index % loads.length] = turn
          tree.replay(index % loads.length)
          check()
        }
      }),
    )
  })

  it('has no winner without classes', () => {
    expect(new LoadTree(new Float64Array(0), new Float64Array(0)).least).toBe(-1)
  })
})
