/** The retry budget as an invariant over any history, on a clock that the history itself moves. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RetryBudget } from './retry.ts'

describe('the budget', () => {
  interface Event {
    readonly kind: 'request' | 'retry'
    readonly at: number
  }
  // Bursts within a millisecond, pauses within the window, and silence longer than it.
  const pause = fc.oneof(
    { weight: 6, arbitrary: fc.nat(40) },
    { weight: 3, arbitrary: fc.nat(2500) },
    { weight: 1, arbitrary: fc.integer({ min: 8000, max: 25_000 }) },
  )
  const history = fc
    .tuple(
      fc.nat(1_000_000),
      fc.array(fc.tuple(pause, fc.constantFrom('request' as const, 'retry' as const), fc.integer({ min: 1, max: 12 })), { maxLength: 40 }),
    )
    .map(([start, steps]) => {
      let at = start
      return steps.flatMap(([wait, kind, times]) => {
        at += wait
        return Array.from({ length: times }, (): Event => ({ kind, at }))
      })
    })
  const ratio = fc.constantFrom(0, 0.1, 0.2, 0.5, 1)
  const perSecond = fc.constantFrom(0, 0.1, 0.35, 1, 3)

  /** Requests and granted retries, as times. */
  function play(
    events: readonly Event[],
    share: number,
    floor: number,
    each?: (granted: boolean, requests: number[], retries: number[], at: number) => void,
  ) {
    const budget = new RetryBudget(share, floor)
    const requests: number[] = []
    const retries: number[] = []
    for (const { kind, at } of events) {
      if (kind === 'request') {
        budget.onRequest(at)
        requests.push(at)
        continue
      }
      const granted = budget.tryRetry(at)
      each?.(granted, requests, retries, at)
      if (granted) retries.push(at)
    }
    return { requests, retries }
  }
  const second = (at: number): number => Math.floor(at / 1000)
  /** How many lie in the current second and the nine before it. */
  const inSlots = (times: readonly number[], at: number): number => times.filter((time) => second(time) > second(at) - 10).length

  it('grants exactly while retries, this one included, stay within ratio * requests + floor, over the current second and the nine before', () => {
    fc.assert(
      fc.property(history, ratio, perSecond, (events, share, floor) => {
        play(events, share, floor, (granted, requests, retries, at) => {
          expect(granted).toBe(inSlots(retries, at) + 1 <= inSlots(requests, at) * share + floor * 10)
        })
      }),
      { numRuns: 300 },
    )
  })

  // The bound that holds for the trailing ten seconds proper: they may reach into an eleventh second, of which the ring has forgotten
  // everything. So: retries(10 s) <= ratio * requests(10 s) + floor * 10 + the retries in that part of a second.
  it('in any trailing 10 s, what is beyond ratio * requests + floor was granted in the one second that the window cuts', () => {
    fc.assert(
      fc.property(history, ratio, perSecond, (events, share, floor) => {
        const { requests, retries } = play(events, share, floor)
        for (const at of retries) {
          const within = (times: readonly number[]): number[] => times.filter((time) => time > at - 10_000 && time <= at)
          const cut = within(retries).filter((time) => second(time) === second(at) - 10).length
          expect(within(retries).length - cut).toBeLessThanOrEqual(within(requests).length * share + floor * 10)
          // And that second kept to its own ten.
          expect(cut).toBeLessThanOrEqual(
            requests.filter((time) => second(time) > second(at) - 20 && second(time) <= second(at) - 10).length * share + floor * 10,
          )
        }
      }),
      { numRuns: 300 },
    )
  })

  it('the floor alone serves a quiet service, and comes back', () => {
    const budget = new RetryBudget(0.2, 1)
    const grant = (at: number, times: number): number => Array.from({ length: times }, () => budget.tryRetry(at)).filter(Boolean).length
    expect(grant(500_000, 20)).toBe(10)
    expect(grant(509_999, 5)).toBe(0)
    expect(grant(510_000, 20)).toBe(10)
    expect(grant(10_000_000, 20)).toBe(10)
  })

  it('nothing is nothing', () => {
    const budget = new RetryBudget(0, 0)
    for (let i = 0; i < 100; i++) budget.onRequest(1000)
    expect(budget.tryRetry(1000)).toBe(false)
  })
})
