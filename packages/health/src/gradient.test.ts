import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { firstGradient, type Gradient, type GradientSettings, limitOf, nextGradient, takesSample } from './gradient.ts'
import { LatencyHistogram } from './latency-histogram.ts'

const settings: GradientSettings = {
  minLimit: 3,
  maxLimit: 100,
  measureLimit: 3,
  measureSamples: 10,
  measureEvery: 1000,
  step: 100,
  minSamples: 5,
  quantile: 0.5,
  tolerance: 0.25,
}

const filled = (ms: number, count = 10): LatencyHistogram => {
  const histogram = new LatencyHistogram()
  for (let i = 0; i < count; i++) histogram.record(ms)
  return histogram
}
/** After a measurement of `best` milliseconds at time 0. */
const measured = (best: number, limit = 20): Gradient => nextGradient(firstGradient(0, limit), 0, 0, filled(best), settings)

describe('the gradient', () => {
  it('measures with few at a time until it has enough, and goes on from where it was', () => {
    const first = firstGradient(0, 20)
    expect(limitOf(first, settings)).toBe(3)
    expect(nextGradient(first, 100, 0, filled(10, 9), settings)).toBe(first)
    expect(limitOf(measured(10), settings)).toBe(20)
  })

  it('counts nothing that was sent before the measurement began', () => {
    expect(takesSample(firstGradient(50, 20), 49)).toBe(false)
    expect(takesSample(firstGradient(50, 20), 50)).toBe(true)
    expect(takesSample(measured(10), -1)).toBe(true)
  })

  it('grows while times are near the best, shrinks when they are not, by no more than twice', () => {
    const step = (ms: number): number => limitOf(nextGradient(measured(10), 100, 0, filled(ms), settings), settings)
    expect(step(10)).toBe(30)
    expect(step(12.5)).toBeGreaterThan(20)
    expect(step(25)).toBeLessThan(20)
    expect(step(1000)).toBe(13)
    expect(step(0.1)).toBe(46)
  })

  it('stays where it is without enough samples, and between steps', () => {
    expect(limitOf(nextGradient(measured(10), 100, 0, filled(1000, 4), settings), settings)).toBe(20)
    expect(nextGradient(measured(10), 99, 0, filled(1000), settings)).toMatchObject({ limit: 20, stepAt: 100 })
  })

  it('measures again in time, later by jitter', () => {
    expect(nextGradient(measured(10), 999, 0, filled(10), settings).kind).toBe('adjusting')
    expect(nextGradient(measured(10), 1000, 0, filled(10), settings)).toEqual({ kind: 'measuring', limit: 20, since: 1000 })
    const late = nextGradient(firstGradient(0, 20), 0, 1, filled(10), settings)
    expect(nextGradient(late, 1149, 0, filled(10), settings).kind).toBe('adjusting')
  })

  it('any times: the limit stays within its bounds', () => {
    const step = fc.record({
      after: fc.nat(300),
      ms: fc.double({ min: 0.001, max: 100_000, noNaN: true }),
      count: fc.nat(20),
      jitter: fc.double({ min: 0, max: 1, noNaN: true }),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        let state: Gradient = firstGradient(0, 20)
        const histogram = new LatencyHistogram()
        let now = 0
        for (const { after, ms, count, jitter } of steps) {
          now += after
          for (let i = 0; i < count; i++) histogram.record(ms)
          state = nextGradient(state, now, jitter, histogram, settings)
          expect(limitOf(state, settings)).toBeGreaterThanOrEqual(3)
          expect(limitOf(state, settings)).toBeLessThanOrEqual(state.kind === 'measuring' ? 3 : 100)
        }
      }),
    )
  })
})
