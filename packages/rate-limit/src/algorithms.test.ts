/**
 * Each algorithm against its own definition, played at random: what it promises at most in any stretch of time, what it guarantees at least, and what
 * giving back may do. The sums are made from the list of admitted requests and know nothing of the algorithm.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { algorithms } from './algorithms.ts'
import type { AlgorithmName, Limit, LimitState, LimitStep } from './limit.ts'

const buckets: readonly AlgorithmName[] = ['gcra', 'token-bucket']
const windows: readonly AlgorithmName[] = ['fixed-window', 'sliding-window']
const settling: readonly AlgorithmName[] = [...buckets, ...windows]
const all: readonly AlgorithmName[] = [...settling, 'leaky-bucket']

const limitOf = (algorithm: AlgorithmName, quota: number, windowMs: number, more: Partial<Limit> = {}): Limit => ({
  id: 't',
  name: 't',
  algorithm,
  quota,
  windowMs,
  burst: quota,
  maxDelayMs: 0,
  ...more,
})

interface Admitted {
  readonly at: number
  /** What it cost in the end. */
  cost: number
}

/** One key's life. */
class Client {
  state: LimitState = { a: 0, b: 0, c: 0 }
  now = 0
  readonly limit: Limit
  readonly admitted: Admitted[] = []

  constructor(limit: Limit) {
    this.limit = limit
  }

  ask(cost = 1): LimitStep {
    const step = algorithms[this.limit.algorithm].take(this.state, this.now, cost, this.limit)
    if (step.allowed) {
      this.state = step
      this.admitted.push({ at: this.now + step.delayMs, cost })
    }
    return step
  }

  adjust(charge: Admitted, difference: number): void {
    this.state = algorithms[this.limit.algorithm].adjust(this.state, this.now, difference, charge.at, this.limit)
    charge.cost += difference
  }

  /** The most in any stretch (s, s + d] that ends with a request, for every one that begins with one. */
  heaviest(bound: (d: number) => number): number {
    let worst = Number.NEGATIVE_INFINITY
    this.admitted.forEach(({ at: from }, i) => {
      let sum = 0
      for (const { at, cost } of this.admitted.slice(i)) {
        sum += cost
        worst = Math.max(worst, sum - bound(at - from))
      }
    })
    return worst
  }
}

const gaps = fc.oneof(
  fc.constant(0),
  fc.integer({ min: 0, max: 30 }),
  fc.integer({ min: 0, max: 2500 }),
  fc.double({ min: 0, max: 50, noNaN: true }),
)
const play = fc.array(fc.record({ gap: gaps, cost: fc.integer({ min: 0, max: 4 }) }), { maxLength: 150 })
const shape = fc.record({ quota: fc.integer({ min: 1, max: 30 }), windowMs: fc.constantFrom(7, 100, 1000, 1001) })
const tolerance = 0.01

describe.each(buckets)('%s', (algorithm) => {
  it('admits at most burst + rate * d in any stretch of d', () => {
    fc.assert(
      fc.property(shape, fc.integer({ min: 1, max: 40 }), play, ({ quota, windowMs }, burst, steps) => {
        const client = new Client(limitOf(algorithm, quota, windowMs, { burst }))
        for (const { gap, cost } of steps) {
          client.now += gap
          client.ask(cost)
        }
        expect(client.heaviest((d) => burst + (quota * d) / windowMs)).toBeLessThanOrEqual(tolerance)
      }),
    )
  })

  it('never refuses who keeps to the rate, nor a burst after a rest', () => {
    fc.assert(
      fc.property(shape, fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 1e9 }), ({ quota, windowMs }, burst, start) => {
        const client = new Client(limitOf(algorithm, quota, windowMs, { burst }))
        for (let i = 0; i < 200; i++) {
          client.now = start + (i * windowMs) / quota
          expect(client.ask().allowed).toBe(true)
        }
        client.now += (burst * windowMs) / quota
        for (let i = 0; i < burst; i++) expect(client.ask().allowed).toBe(true)
        expect(client.ask().allowed).toBe(false)
      }),
    )
  })

  it('holds the bound for what requests cost in the end, however late and however much is given back', () => {
    const step = fc.record({
      gap: fc.oneof(fc.constant(0), fc.constant(1), fc.integer({ min: 0, max: 12 })),
      asks: fc.integer({ min: 0, max: 6 }),
      cost: fc.integer({ min: 1, max: 3 }),
      back: fc.array(fc.record({ which: fc.nat(), part: fc.integer({ min: 1, max: 3 }) }), { maxLength: 4 }),
    })
    fc.assert(
      fc.property(fc.integer({ min: 3, max: 8 }), fc.array(step, { maxLength: 30 }), (burst, steps) => {
        const client = new Client(limitOf(algorithm, 10, 1000, { burst }))
        const open: Admitted[] = []
        for (const { gap, asks, cost, back } of steps) {
          client.now += gap * 100
          for (let i = 0; i < asks; i++) if (client.ask(cost).allowed) open.push(client.admitted.at(-1) as Admitted)
          for (const { which, part } of back) {
            const [charge] = open.splice(which % Math.max(1, open.length), 1)
            if (charge !== undefined) client.adjust(charge, -Math.min(part, charge.cost))
          }
        }
        expect(client.heaviest((d) => burst + d / 100)).toBeLessThanOrEqual(tolerance)
      }),
      { numRuns: 2000 },
    )
  })

  it('gives all of it back at once', () => {
    const client = new Client(limitOf(algorithm, 10, 1000))
    client.ask(8)
    client.adjust(client.admitted[0] as Admitted, -8)
    expect(client.ask(10).allowed).toBe(true)
  })
})

it('gcra and token-bucket decide alike', () => {
  fc.assert(
    fc.property(shape, fc.integer({ min: 1, max: 40 }), play, ({ quota, windowMs }, burst, steps) => {
      const [one, two] = buckets.map((algorithm) => new Client(limitOf(algorithm, quota, windowMs, { burst }))) as [Client, Client]
      for (const { gap, cost } of steps) {
        one.now += Math.round(gap)
        two.now = one.now
        const [a, b] = [one.ask(cost), two.ask(cost)]
        expect([a.allowed, a.remaining]).toEqual([b.allowed, b.remaining])
        expect(Math.abs(a.resetMs - b.resetMs)).toBeLessThan(tolerance * windowMs)
      }
    }),
  )
})

describe('fixed-window', () => {
  it('admits at most the limit in each window of a client, and twice that in any stretch of one', () => {
    fc.assert(
      fc.property(shape, play, ({ quota, windowMs }, steps) => {
        const client = new Client(limitOf('fixed-window', quota, windowMs))
        let begun = Number.NEGATIVE_INFINITY
        let sum = 0
        for (const { gap, cost } of steps) {
          client.now += gap
          const { allowed } = client.ask(cost)
          if (!allowed || cost === 0) continue
          if (client.now >= begun + windowMs) {
            begun = client.now
            sum = 0
          }
          sum += cost
          expect(sum).toBeLessThanOrEqual(quota)
        }
        expect(client.heaviest((d) => (d < windowMs ? 2 * quota : Number.POSITIVE_INFINITY))).toBeLessThanOrEqual(tolerance)
      }),
    )
  })

  it('gives the whole limit after a window of rest', () => {
    fc.assert(
      fc.property(shape, play, ({ quota, windowMs }, steps) => {
        const client = new Client(limitOf('fixed-window', quota, windowMs))
        for (const { gap, cost } of steps) {
          client.now += gap
          client.ask(cost)
        }
        client.now += windowMs
        for (let i = 0; i < quota; i++) expect(client.ask().allowed).toBe(true)
        expect(client.ask().allowed).toBe(false)
      }),
    )
  })

  it('gives nothing back of a window that is over', () => {
    const client = new Client(limitOf('fixed-window', 10, 1000))
    client.ask(10)
    client.now = 1000
    client.ask(10)
    client.adjust(client.admitted[0] as Admitted, -10)
    expect(client.ask().allowed).toBe(false)
    client.adjust(client.admitted[1] as Admitted, -10)
    expect(client.ask(10).allowed).toBe(true)
  })
})

describe('sliding-window', () => {
  it('admits at most the limit in each window on the clock, and limit * (1 + d / window) in any stretch of d', () => {
    fc.assert(
      fc.property(shape, play, ({ quota, windowMs }, steps) => {
        const client = new Client(limitOf('sliding-window', quota, windowMs))
        const sums = new Map<number, number>()
        for (const { gap, cost } of steps) {
          client.now += gap
          if (!client.ask(cost).allowed) continue
          const index = Math.floor(client.now / windowMs)
          sums.set(index, (sums.get(index) ?? 0) + cost)
        }
        for (const sum of sums.values()) expect(sum).toBeLessThanOrEqual(quota)
        expect(client.heaviest((d) => (d < windowMs ? quota * (1 + d / windowMs) : Number.POSITIVE_INFINITY))).toBeLessThanOrEqual(
          tolerance,
        )
      }),
    )
  })

  it('refuses nobody who spaces limit - 1 per window evenly, nor a limit after two windows of rest', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 30 }), fc.integer({ min: 0, max: 100_000 }), (quota, start) => {
        const client = new Client(limitOf('sliding-window', quota, 1000))
        for (let i = 0; i < 200; i++) {
          client.now = start + (i * 1000) / (quota - 1)
          expect(client.ask().allowed).toBe(true)
        }
        client.now += 2000
        for (let i = 0; i < quota; i++) expect(client.ask().allowed).toBe(true)
        expect(client.ask().allowed).toBe(false)
      }),
    )
  })

  it('gives back to the window that was charged, and nothing to later ones', () => {
    const client = new Client(limitOf('sliding-window', 10, 1000))
    client.ask(10)
    client.now = 1000
    client.adjust(client.admitted[0] as Admitted, -4)
    expect(client.ask(0).remaining).toBe(4)
    client.ask(3)
    client.now = 2000
    expect(client.ask(0).remaining).toBe(7)
    client.adjust(client.admitted[0] as Admitted, -6)
    expect(client.ask(0).remaining).toBe(7)
  })
})

describe('leaky-bucket', () => {
  it('gives out turns in order, a cost apart, none later than maxDelay', () => {
    fc.assert(
      fc.property(shape, fc.integer({ min: 0, max: 3000 }), play, ({ quota, windowMs }, maxDelayMs, steps) => {
        const client = new Client(limitOf('leaky-bucket', quota, windowMs, { maxDelayMs }))
        for (const { gap, cost } of steps) {
          client.now += gap
          const { allowed, delayMs } = client.ask(cost)
          if (allowed) expect(delayMs).toBeLessThanOrEqual(maxDelayMs + windowMs / quota / 1000)
        }
        client.admitted.forEach(({ at }, i) => {
          const before = client.admitted[i - 1]
          if (before !== undefined) expect(at - before.at).toBeGreaterThanOrEqual((before.cost * windowMs) / quota - tolerance)
        })
      }),
    )
  })

  it('delays nobody who keeps to the rate', () => {
    fc.assert(
      fc.property(shape, ({ quota, windowMs }) => {
        const client = new Client(limitOf('leaky-bucket', quota, windowMs))
        for (let i = 0; i < 100; i++) {
          client.now = (i * windowMs) / quota
          const { allowed, delayMs } = client.ask()
          expect([allowed, delayMs < tolerance]).toEqual([true, true])
        }
      }),
    )
  })
})

describe.each(all)('%s', (algorithm) => {
  it('refuses until retryAfterMs and not after it, and has one more after resetMs', () => {
    fc.assert(
      fc.property(shape, fc.integer({ min: 0, max: 500 }), play, ({ quota, windowMs }, maxDelayMs, steps) => {
        const client = new Client(limitOf(algorithm, quota, windowMs, algorithm === 'leaky-bucket' ? { maxDelayMs } : {}))
        const { take } = algorithms[algorithm]
        const hair = windowMs * 1e-3
        for (const { gap, cost } of steps) {
          client.now += gap
          const step = client.ask(cost)
          const later = (ms: number, units: number): LimitStep => take(client.state, client.now + ms, units, client.limit)
          if (step.allowed) expect(step.retryAfterMs).toBe(0)
          else if (step.retryAfterMs === Number.POSITIVE_INFINITY) expect(cost).toBeGreaterThan(quota)
          else {
            expect(step.retryAfterMs).toBeGreaterThan(0)
            expect(later(step.retryAfterMs + hair, cost).allowed).toBe(true)
            if (step.retryAfterMs > 2 * hair) expect(later(step.retryAfterMs - 2 * hair, cost).allowed).toBe(false)
          }
          if (step.resetMs > 0) {
            expect(later(step.resetMs + hair, 0).remaining).toBeGreaterThan(step.remaining)
            if (step.resetMs > 2 * hair) expect(later(step.resetMs - 2 * hair, 0).remaining).toBe(step.remaining)
          }
        }
      }),
    )
  })

  it('says truly what is left: so many more pass at once, and not one more', () => {
    fc.assert(
      fc.property(shape, fc.integer({ min: 0, max: 500 }), play, ({ quota, windowMs }, maxDelayMs, steps) => {
        const client = new Client(limitOf(algorithm, quota, windowMs, algorithm === 'leaky-bucket' ? { maxDelayMs } : {}))
        let left = client.ask(0).remaining
        for (const { gap, cost } of steps) {
          client.now += gap
          left = client.ask(cost).remaining
        }
        for (let i = 0; i < left; i++) expect(client.ask().allowed).toBe(true)
        expect(client.ask().allowed).toBe(false)
      }),
    )
  })

  it('says what a key never seen would be told, once it has expired', () => {
    fc.assert(
      fc.property(shape, play, fc.integer({ min: 0, max: 40 }), fc.nat(5000), ({ quota, windowMs }, steps, cost, ago) => {
        const client = new Client(limitOf(algorithm, quota, windowMs, algorithm === 'leaky-bucket' ? { maxDelayMs: 100 } : {}))
        for (const step of steps) {
          client.now += step.gap
          client.ask(step.cost)
        }
        const { take, adjust, expiresAt } = algorithms[algorithm]
        const now = Math.max(client.now, expiresAt(client.state, client.limit))
        const nothing = { a: 0, b: 0, c: 0 }
        const told = take(client.state, now, cost, client.limit)
        const anew = take(nothing, now, cost, client.limit)
        expect([told.allowed, told.remaining, told.delayMs < tolerance]).toEqual([anew.allowed, anew.remaining, true])
        for (const difference of [-cost, cost])
          expect(adjust(client.state, now, difference, Math.max(0, now - ago), client.limit).remaining).toBe(
            adjust(nothing, now, difference, Math.max(0, now - ago), client.limit).remaining,
          )
      }),
    )
  })

  it('remembers as many numbers as it says, and leaves the others 0', () => {
    const { numbers } = algorithms[algorithm]
    const used = [false, false, false]
    fc.assert(
      fc.property(shape, play, fc.integer({ min: -3, max: 3 }), ({ quota, windowMs }, steps, difference) => {
        const client = new Client(limitOf(algorithm, quota, windowMs, algorithm === 'leaky-bucket' ? { maxDelayMs: windowMs } : {}))
        for (const { gap, cost } of steps) {
          client.now += gap
          const taken = client.ask(cost)
          const adjusted = algorithms[algorithm].adjust(client.state, client.now, difference, client.now, client.limit)
          for (const { a, b, c } of [taken, adjusted]) {
            for (const [i, number] of [a, b, c].entries()) if (number !== 0) used[i] = true
          }
        }
      }),
    )
    expect(used).toEqual([true, numbers > 1, numbers > 2])
  })

  it('is pure: the state that it is given stays as it is', () => {
    const state = Object.freeze({ a: 1, b: 2, c: 0 })
    const limit = limitOf(algorithm, 5, 1000)
    const { take, adjust } = algorithms[algorithm]
    expect(take(state, 10, 1, limit)).toEqual(take(state, 10, 1, limit))
    expect(adjust(state, 10, -1, 5, limit)).toEqual(adjust(state, 10, -1, 5, limit))
  })
})

it.each(settling)('%s: a clock that goes back gives nobody more', (algorithm) => {
  const wobble = fc.array(fc.record({ gap: fc.integer({ min: -900, max: 1000 }), asks: fc.integer({ min: 0, max: 6 }) }), { maxLength: 40 })
  fc.assert(
    fc.property(wobble, (steps) => {
      const client = new Client(limitOf(algorithm, 5, 1000))
      client.now = 10_000
      // The latest time that the limit knows of: what it never saw it cannot hold on to.
      let latest = 0
      for (const { gap, asks } of steps) {
        client.now = Math.max(0, client.now + gap)
        for (let i = 0; i < asks; i++) {
          if (!client.ask().allowed) continue
          latest = Math.max(latest, client.now)
          client.admitted[client.admitted.length - 1] = { at: latest, cost: 1 }
        }
      }
      const most = (d: number): number => (algorithm === 'fixed-window' ? (d < 1000 ? 10 : Number.POSITIVE_INFINITY) : 5 + d / 200)
      const bound = algorithm === 'sliding-window' ? (d: number) => (d < 1000 ? most(d) : Number.POSITIVE_INFINITY) : most
      expect(client.heaviest(bound)).toBeLessThanOrEqual(tolerance)
    }),
    { numRuns: 500 },
  )
})

it('a clock that went back far does not close a sliding window for good', () => {
  const client = new Client(limitOf('sliding-window', 5, 1000))
  client.now = 10_000
  client.ask(3)
  client.now = 11_000
  client.ask(1)
  client.now = 5000
  expect(client.ask(0).remaining).toBe(1)
})
