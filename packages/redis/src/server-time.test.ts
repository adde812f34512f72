/** Whatever answers take, and whatever the difference between the clocks: a moment here is never one of the server's that is too late. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { ServerTime } from './server-time.ts'

it('is never too late, and no earlier than the quickest answer of a generation makes it', () => {
  const answer = fc.record({ wait: fc.double({ min: 0, max: 4000, noNaN: true }), took: fc.double({ min: 0, max: 300, noNaN: true }) })
  fc.assert(
    fc.property(fc.integer({ min: -1e6, max: 1e6 }), fc.array(answer, { minLength: 1, maxLength: 30 }), (ahead, answers) => {
      const time = new ServerTime()
      let at = 1_800_000_000_000
      const recent: { at: number; took: number }[] = []
      for (const { wait, took } of answers) {
        at += wait + took
        time.heard(at - took + ahead, Math.floor(at))
        recent.push({ at, took })
        const offset = time.offset as number
        expect(offset).toBeLessThanOrEqual(ahead)
        const quickest = Math.min(...recent.filter((each) => each.at > at - 4999).map((each) => each.took))
        expect(offset).toBeGreaterThan(ahead - quickest - 2.001)
      }
    }),
  )
})

it('knows nothing before the first answer, and forgets what was long ago', () => {
  const time = new ServerTime()
  expect(time.offset).toBeUndefined()
  time.heard(1000, 1000)
  time.heard(950, 1001)
  expect(time.offset).toBe(-1)
  time.heard(11_500, 12_000)
  expect(time.offset).toBe(-501)
  // Set back by an hour: what it said before is worth nothing.
  time.heard(12_000, 12_000 - 3_600_000)
  expect(time.offset).toBe(3_599_999)
})
