import { describe, expect, it } from 'vitest'
import { freshMs, retryAfterMs } from './freshness.ts'

describe('an answer is good for', () => {
  it.each([
    ['max-age=60', undefined, 60_000],
    ['public, Max-Age=60', undefined, 60_000],
    ['max-age="60"', undefined, 60_000],
    ['max-age=60', '20', 40_000],
    ['max-age=60', '90', 0],
    ['max-age=60', 'old', 60_000],
    ['max-age=0', undefined, 0],
    ['s-maxage=60', undefined, undefined],
    ['no-cache, max-age=60', undefined, undefined],
    ['no-store', undefined, undefined],
    ['max-age=-5', undefined, undefined],
    ['max-age=soon', undefined, undefined],
    ['', undefined, undefined],
  ])('Cache-Control: %s, Age: %s', (control, age, expected) => {
    expect(freshMs({ 'cache-control': control, ...(age === undefined ? null : { age }) })).toBe(expected)
  })
  it('no field', () => expect(freshMs({})).toBe(undefined))
})

describe('Retry-After', () => {
  const now = Date.parse('Fri, 20 Nov 2026 10:00:00 GMT')
  it.each([
    ['120', 120_000],
    [' 0 ', 0],
    ['Fri, 20 Nov 2026 10:01:00 GMT', 60_000],
    ['Fri, 20 Nov 2026 09:00:00 GMT', 0],
    ['soon', undefined],
    ['', undefined],
  ])('%s', (value, expected) => {
    expect(retryAfterMs({ 'retry-after': value }, now)).toBe(expected)
  })
  it('no field', () => expect(retryAfterMs({}, now)).toBe(undefined))
})
