import { describe, expect, it } from 'vitest'
import { seededRandom } from './random.ts'

const take = (seed: number, n: number): number[] => Array.from({ length: n }, seededRandom(seed))

describe('seededRandom', () => {
  it('gives the same numbers for the same seed, in this release and the next', () => {
    expect(take(1, 3)).toEqual(take(1, 3))
    expect(take(1, 3).map((n) => n.toFixed(12))).toMatchInlineSnapshot(`
      [
        "0.454165407139",
        "0.153952216003",
        "0.623297922930",
      ]
    `)
  })

  it('gives unrelated numbers for neighbouring seeds', () => {
    const seeds = Array.from({ length: 1_000 }, (_, seed) => take(seed, 1)[0] as number)
    expect(new Set(seeds).size).toBe(1_000)
    expect(Math.abs(correlation(seeds.slice(1), seeds.slice(0, -1)))).toBeLessThan(0.1)
  })

  it('tells seeds apart beyond 32 bits', () => {
    expect(take(5, 1)).not.toEqual(take(5 + 2 ** 32, 1))
  })

  it('spreads evenly over 0 up to 1', () => {
    const random = seededRandom(2)
    const cells = new Array<number>(100).fill(0)
    for (let i = 0; i < 100_000; i++) {
      const number = random()
      expect(number >= 0 && number < 1).toBe(true)
      const cell = Math.floor(number * 100)
      cells[cell] = (cells[cell] as number) + 1
    }
    const chiSquare = cells.reduce((sum, count) => sum + (count - 1_000) ** 2 / 1_000, 0)
    // 99 degrees of freedom: 0.1 % of true generators are outside.
    expect(chiSquare).toBeGreaterThan(61)
    expect(chiSquare).toBeLessThan(149)
  })

  it('uses all 53 bits', () => {
    const low = take(3, 1_000).map((number) => (number * 2 ** 53) % 256)
    expect(new Set(low).size).toBeGreaterThan(200)
  })
})

function correlation(a: readonly number[], b: readonly number[]): number {
  const mean = (x: readonly number[]): number => x.reduce((sum, n) => sum + n, 0) / x.length
  const covariance = (x: readonly number[], y: readonly number[]): number =>
    mean(x.map((n, i) => (n - mean(x)) * ((y[i] as number) - mean(y))))
  return covariance(a, b) / Math.sqrt(covariance(a, a) * covariance(b, b))
}
