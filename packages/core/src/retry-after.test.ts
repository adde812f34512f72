/** `Retry-After` in its two forms, three spellings of a date among them, wherever the proxy runs; and what is neither. */
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { parseRetryAfter } from './retry.ts'

describe('Retry-After', () => {
  const now = Date.UTC(2024, 1, 29, 12, 0, 0)
  const zone = process.env.TZ
  afterEach(() => {
    if (zone === undefined) delete process.env.TZ
    else process.env.TZ = zone
  })

  const rows: [value: string | undefined, ms: number | undefined][] = [
    [undefined, undefined],
    ['0', 0],
    ['5', 5000],
    [' 120 ', 120_000],
    ['Thu, 29 Feb 2024 12:00:05 GMT', 5000],
    ['Thursday, 29-Feb-24 12:00:05 GMT', 5000],
    ['Thu Feb 29 12:00:05 2024', 5000],
    ['Thu Feb  1 12:00:05 2024', 0],
    ['Thu, 29 Feb 2024 11:59:59 GMT', 0],
    ['', undefined],
    ['-1', undefined],
    ['+1', undefined],
    ['2.5', undefined],
    ['1e3', undefined],
    ['0x10', undefined],
    ['5s', undefined],
    ['5, 6', undefined],
    ['soon', undefined],
    ['soon 5', undefined],
    ['later 2030', undefined],
    ['Infinity', undefined],
    ['2024-02-29', undefined],
    ['2024-02-29T12:00:05Z', undefined],
    ['Thu', undefined],
    ['Thu, 32 Foo 2024 12:00:05 GMT', undefined],
    ['Feb 29 2024', undefined],
  ]
  // A date without a zone is GMT too (RFC 9110 §5.6.7), wherever the proxy runs.
  for (const place of ['UTC', 'America/New_York', 'Asia/Kolkata'])
    for (const [value, ms] of rows)
      it(`${JSON.stringify(value)} is ${ms} in ${place}`, () => {
        process.env.TZ = place
        expect(parseRetryAfter(value, now)).toBe(ms)
      })

  it('however many digits, it is long, not junk', () => {
    for (const value of ['99999999999', '9'.repeat(400)]) expect(parseRetryAfter(value, now)).toBeGreaterThan(2 ** 31)
  })

  it('every second is read back, in each of the three forms', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3600 * 24 * 300 }), (seconds) => {
        process.env.TZ = 'America/New_York'
        const date = new Date(now + seconds * 1000)
        const [day, number, month, year, time] = date.toUTCString().split(/,? /) as [string, string, string, string, string]
        const long = { Sun: 'Sunday', Mon: 'Monday', Tue: 'Tuesday', Wed: 'Wednesday', Thu: 'Thursday', Fri: 'Friday', Sat: 'Saturday' }[
          day
        ]
        for (const value of [
          String(seconds),
          date.toUTCString(),
          `${long}, ${number}-${month}-${year.slice(2)} ${time} GMT`,
          `${day} ${month} ${number.replace(/^0/, ' ')} ${time} ${year}`,
        ])
          expect(parseRetryAfter(value, now), value).toBe(seconds * 1000)
      }),
    )
  })
})
