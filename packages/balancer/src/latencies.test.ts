import { type AttemptOutcome, ProxyError } from '@weir/core'
import { stubOutcome, stubUpstreams } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { Latencies, type LatencyRules } from './latencies.ts'

function book(peak = true, rules: Partial<LatencyRules> = {}) {
  const time = { now: 1_000 }
  const latencies = new Latencies({ decay: 10_000, failurePenalty: 10, serverErrors: true, clock: { now: () => time.now }, ...rules }, peak)
  const upstreams = stubUpstreams([1, 1, 1])
  latencies.update(upstreams)
  const see = (slot: number, part: Partial<AttemptOutcome>, byLastByte = false): boolean =>
    latencies.observe(slot, { ...stubOutcome(upstreams[slot] as (typeof upstreams)[number]), ...part }, byLastByte)
  const now = (slot: number): number => {
    latencies.tick()
    latencies.refresh(slot)
    return latencies.current[slot] as number
  }
  return { time, latencies, upstreams, see, now }
}

const answer = (ms: number): Partial<AttemptOutcome> => ({ headMs: ms, durationMs: ms })

describe('a time', () => {
  it('jumps up at once, and comes down with the time constant', () => {
    const { see, now, time } = book()
    see(1, answer(10))
    see(0, answer(10))
    see(0, answer(110))
    expect(now(0)).toBe(110)
    time.now += 10_000
    see(0, answer(10))
    expect(now(0)).toBeCloseTo(10 + 100 / Math.E, 6)
    time.now += 30_000
    see(0, answer(10))
    expect(now(0)).toBeCloseTo(10 + 100 / Math.E ** 4, 6)
  })

  it('of a try that lost against a hedge counts for what it had taken, where that is more than was believed', () => {
    const lost = (ms: number): Partial<AttemptOutcome> => ({ headMs: undefined, durationMs: ms, error: new ProxyError('ERR_HEDGE_LOST') })
    const { see, now, time } = book()
    see(1, answer(10))
    // Nothing is known of it: it is taken for typical, 10.
    expect(see(0, lost(8))).toBe(false)
    expect(now(0)).toBe(10)
    expect(see(0, lost(50))).toBe(true)
    expect(now(0)).toBe(50)
    // A bound from below makes nothing quicker, and is not typical of anything.
    expect(see(0, lost(30))).toBe(false)
    expect(now(0)).toBe(50)
    expect(now(2)).toBe(10)
    // Nor does it keep an old peak alive.
    time.now += 10_000
    expect(see(0, lost(12))).toBe(false)
    expect(now(0)).toBeCloseTo(10 + 40 / Math.E, 6)
    expect(see(0, { headMs: undefined, durationMs: 500, error: new ProxyError('ERR_CLIENT_ABORTED') })).toBe(false)
  })

  it('is averaged, when peaks are not wanted', () => {
    const { see, now, time } = book(false)
    see(0, answer(10))
    time.now += 10_000
    see(0, answer(110))
    expect(now(0)).toBeCloseTo(110 - 100 / Math.E, 6)
  })

  it('is averaged by the clock, however small its steps', () => {
    const { see, now, time } = book(false)
    see(0, answer(10))
    for (let i = 0; i < 10_000; i++) {
      time.now += 1
      see(0, answer(20))
    }
    expect(now(0)).toBeCloseTo(20 - 10 / Math.E, 3)
    // What is typical forgets in the same way: of the 10 there is hardly anything left.
    expect(now(2)).toBeCloseTo(20, 2)
  })

  it('that never changes is never rounded', () => {
    const { see, now, time } = book()
    for (let i = 0; i < 1_000; i++) {
      time.now += 7.3
      see(0, answer(0.7))
      expect(now(0)).toBe(0.7)
    }
    // Nor is what is typical: the sums decay alike.
    expect(now(2)).toBeCloseTo(0.7, 12)
  })

  it('is to the head, or to the last byte', () => {
    const { see, now } = book()
    see(0, { headMs: 5, durationMs: 500 })
    see(1, { headMs: 5, durationMs: 500 }, true)
    expect([now(0), now(1)]).toEqual([5, 500])
    expect(see(2, { headMs: undefined, durationMs: 3 })).toBe(false)
  })
})

describe('one without a past', () => {
  it('is taken for typical of the pool', () => {
    const { see, now, latencies } = book()
    expect(now(0)).toBe(now(2))
    expect(latencies.known).toBe(false)
    see(0, answer(40))
    see(1, answer(60))
    expect(now(2)).toBeCloseTo(50, 6)
    expect(latencies.known).toBe(true)
  })

  it('or not heard of for long, comes to be so again', () => {
    const { see, now, time } = book()
    see(0, answer(1_000))
    for (let i = 0; i < 1_000; i++) {
      time.now += 100
      see(1, answer(20))
    }
    expect(now(0)).toBeGreaterThan(20)
    expect(now(0)).toBeLessThan(25)
    see(2, answer(1))
    time.now += 100_000
    expect(now(2)).toBeGreaterThan(15)
  })
})

describe('a failure', () => {
  const failed = (code: ConstructorParameters<typeof ProxyError>[0], part: Partial<AttemptOutcome> = {}): Partial<AttemptOutcome> => ({
    error: new ProxyError(code),
    status: undefined,
    headMs: undefined,
    durationMs: 1,
    reused: false,
    ...part,
  })

  it.each(['ERR_CONNECT_REFUSED', 'ERR_UPSTREAM_RESET', 'ERR_UPSTREAM_BODY'] as const)(
    'counts as slow however quick it was: %s',
    (code) => {
      for (const peak of [true, false]) {
        const { see, now, time } = book(peak)
        see(0, answer(10))
        time.now += 1
        see(0, failed(code))
        expect(now(0)).toBeCloseTo(100, 6)
        // And is not learnt as typical.
        expect(now(2)).toBe(10)
      }
    },
  )

  it('counts as long as it took, when that is more', () => {
    const { see, now } = book()
    see(0, answer(10))
    see(0, failed('ERR_HEAD_TIMEOUT', { durationMs: 30_000 }))
    expect(now(0)).toBe(30_000)
  })

  it('does not add up: a hundred that end together are one event', () => {
    const { see, now } = book()
    see(0, answer(10))
    for (let i = 0; i < 100; i++) see(0, failed('ERR_UPSTREAM_RESET'))
    expect(now(0)).toBe(100)
  })

  it.each([
    ['a client that left', 'ERR_CLIENT_ABORTED', {}],
    ['the proxy itself', 'ERR_DEADLINE', {}],
    ['a pooled connection that had gone stale', 'ERR_UPSTREAM_RESET', { reused: true }],
  ] as const)('of %s says nothing', (_, code, part) => {
    const { see, now } = book()
    see(0, answer(10))
    expect(see(0, failed(code, { durationMs: 5_000, ...part }))).toBe(false)
    expect(now(0)).toBe(10)
  })

  it('may be a status from 500', () => {
    for (const [serverErrors, expected] of [
      [true, 100],
      [false, 10],
    ] as const) {
      const { see, now } = book(true, { serverErrors })
      see(0, answer(10))
      see(0, { ...answer(1), status: 503 })
      expect(now(0)).toBeCloseTo(expected, 6)
    }
    const { see, now } = book()
    see(0, { ...answer(10), status: 499 })
    expect(now(0)).toBe(10)
  })
})

describe('a change of membership', () => {
  it('forgets nobody, also those who leave and come back', () => {
    const { latencies, upstreams, see, now, time } = book()
    see(0, answer(10))
    see(1, answer(80))
    time.now += 1
    const [a, b, c] = upstreams as [never, never, never]
    latencies.update([c, a])
    expect([latencies.slot(a), latencies.slot(b), latencies.slot(c)]).toEqual([1, -1, 0])
    expect(now(1)).toBe(10)
    latencies.update([a, b, c])
    expect(now(1)).toBe(80)
    expect(now(0)).toBe(10)
  })
})
