import { seededRandom } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LatencyHistogram } from './latency-histogram.ts'
import { above, farAboveMedian, farBelowMean } from './outlier-statistics.ts'

const samples = (...values: number[]) => values.map((value, index) => ({ of: index, value }))
const who = (outliers: readonly { of: number }[]): number[] => outliers.map(({ of }) => of)

describe('comparisons', () => {
  it('above: at least the threshold, the worst first', () => {
    expect(who(above(samples(0.8, 0.85, 0.2, 1), 0.85))).toEqual([3, 1])
  })

  it('far below the mean: by deviations and by the margin', () => {
    const rates = samples(0.99, 0.98, 0.99, 1, 0.99, 0.5)
    expect(who(farBelowMean(rates, 1.9, 0.05))).toEqual([5])
    expect(who(farBelowMean(rates, 2.3, 0.05))).toEqual([])
    expect(who(farBelowMean(rates, 1.9, 0.9))).toEqual([])
    // Even ones, one a trifle worse.
    expect(who(farBelowMean(samples(1, 1, 1, 1, 1, 0.99), 1.9, 0.05))).toEqual([])
    expect(who(farBelowMean(samples(1, 1, 1, 1, 1, 0.99), 1.9, 0))).toEqual([5])
    expect(who(farBelowMean(samples(0.1, 0.1, 0.1), 1.9, 0))).toEqual([])
  })

  it('far above the median: by factor, and above the floor', () => {
    expect(who(farAboveMedian(samples(10, 11, 500, 9, 90), 3, 0))).toEqual([2, 4])
    expect(who(farAboveMedian(samples(10, 11, 500, 9, 90), 3, 100))).toEqual([2])
    expect(farAboveMedian(samples(10, 20, 30, 100), 3, 0)[0]?.threshold).toBe(75)
  })
})

describe('the histogram', () => {
  it('any values: quantiles are right to 2.6 %', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0.02, max: 300_000, noNaN: true }), { minLength: 1, maxLength: 200 }), (values) => {
        const histogram = new LatencyHistogram()
        for (const value of values) histogram.record(value)
        const sorted = values.toSorted((a, b) => a - b)
        for (const q of [0.01, 0.5, 0.9, 0.99, 1]) {
          const exact = sorted[Math.max(1, Math.ceil(q * values.length)) - 1] as number
          expect(Math.abs(histogram.quantile(q) / exact - 1)).toBeLessThan(0.026)
        }
      }),
    )
  })

  it('has bounds, and forgets', () => {
    const histogram = new LatencyHistogram()
    expect(histogram.quantile(0.5)).toBe(0)
    histogram.record(0)
    histogram.record(1e12)
    expect(histogram.total).toBe(2)
    expect(histogram.quantile(1)).toBeGreaterThan(500_000)
    histogram.reset()
    expect([histogram.total, histogram.quantile(0.5)]).toEqual([0, 0])
    const random = seededRandom(1)
    for (let i = 0; i < 1000; i++) histogram.record(random() * 100)
    expect(histogram.quantile(0.5)).toBeCloseTo(50, -1)
  })
})
