import { seededRandom, stubExchange, stubUpstream } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { WeightedTable } from './weighted-table.ts'

const exchange = stubExchange()
const weightsOf = fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 65_535 })), { minLength: 1, maxLength: 9 })
const servers = (weights: readonly number[]) => weights.map((weight, i) => stubUpstream({ id: `s${i}`, weight }))
const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0)

/** Shares of the slots when the random number takes every value of a fine grid: exact but for the grid. */
function sweep(grid: number, draw: (u: number) => number, slots: number): number[] {
  const shares = new Array<number>(slots).fill(0)
  for (let i = 0; i < grid; i++) {
    const slot = draw((i + 0.5) / grid)
    shares[slot] = (shares[slot] as number) + 1 / grid
  }
  return shares
}

describe('drawing by weight', () => {
  it('gives every upstream exactly its share', () => {
    fc.assert(
      fc.property(weightsOf, (weights) => {
        const table = new WeightedTable(servers(weights))
        const shares = sweep(5_000, (u) => table.draw(exchange, () => u, -1), weights.length)
        // Each of the at most 2n pieces of the table has two edges, each of which may be off by one point of the grid.
        const slack = (4 * weights.length) / 5_000
        for (const [i, share] of shares.entries()) expect(Math.abs(share - (weights[i] as number) / sum(weights))).toBeLessThan(slack)
      }),
    )
  })

  it('gives the others exactly their shares when one is left out', () => {
    fc.assert(
      fc.property(weightsOf, fc.nat(), (weights, choice) => {
        fc.pre(weights.length > 1)
        const except = choice % weights.length
        const table = new WeightedTable(servers(weights))
        // Whatever the first number hits, the second is what decides when it hit the one left out: sweep both.
        const left = sum(weights) - (weights[except] as number)
        const shares = new Array<number>(weights.length).fill(0)
        const grid = 150
        for (let i = 0; i < grid; i++)
          for (let j = 0; j < grid; j++) {
            const numbers = [(i + 0.5) / grid, (j + 0.5) / grid]
            const slot = table.draw(exchange, () => numbers.shift() as number, except)
            shares[slot] = (shares[slot] as number) + 1 / grid ** 2
          }
        expect(shares[except]).toBe(0)
        for (const [i, share] of shares.entries())
          if (i !== except) expect(Math.abs(share - (weights[i] as number) / left)).toBeLessThan((6 * weights.length) / grid)
      }),
      { numRuns: 30 },
    )
  })

  it('needs two numbers at most to leave one out that has nearly all the weight', () => {
    const table = new WeightedTable(servers([65_535, 1, 1]))
    let drawn = 0
    const random = seededRandom(1)
    const counted = (): number => {
      drawn++
      return random()
    }
    const counts = [0, 0, 0]
    for (let i = 0; i < 1_000; i++) {
      const slot = table.draw(exchange, counted, 0)
      counts[slot] = (counts[slot] as number) + 1
    }
    expect(drawn).toBeLessThanOrEqual(2_000)
    expect(counts[0]).toBe(0)
    expect(Math.abs((counts[1] as number) - 500)).toBeLessThan(80)
  })

  it('keeps to the weights of those that are pickable, also when hardly anybody is', () => {
    const upstreams = servers(new Array<number>(500).fill(100))
    // 1 % of the weight is left, so that draws fail and the scan decides.
    for (const upstream of upstreams.slice(3)) upstream.maxConcurrent = 0
    upstreams.slice(0, 3).forEach((upstream, i) => {
      upstream.weight = 20 * (i + 1)
    })
    const table = new WeightedTable(upstreams)
    const random = seededRandom(2)
    const counts = [0, 0, 0]
    for (let i = 0; i < 6_000; i++) {
      const slot = table.draw(exchange, random, -1)
      counts[slot] = (counts[slot] as number) + 1
    }
    expect(counts.length).toBe(3)
    for (const [i, count] of counts.entries()) expect(Math.abs(count - 1_000 * (i + 1))).toBeLessThan(5 * Math.sqrt(1_000 * (i + 1)))
  })

  it('says -1 when there is nobody, and takes fractions for weights', () => {
    expect(new WeightedTable([]).draw(exchange, () => 0, -1)).toBe(-1)
    const [only] = servers([1])
    expect(new WeightedTable([only as never]).draw(exchange, () => 0, 0)).toBe(-1)
    const table = new WeightedTable(servers([0.1, 0.2, 0.7]))
    const shares = sweep(1_000, (u) => table.draw(exchange, () => u, -1), 3)
    expect(shares.map((share) => Math.round(share * 10))).toEqual([1, 2, 7])
    const almostOne = 1 - 2 ** -53
    for (let except = 0; except < 3; except++) expect([0, 1, 2]).toContain(table.draw(exchange, () => almostOne, except))
  })
})
