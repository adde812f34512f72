/** When a second try is allowed: the budget as an invariant over any history, the truth table of failures, pauses, and `Retry-After`. */
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { type ErrorCode, errorTable, ProxyError } from './errors.ts'
import { OptionReader, type OptionsError } from './options.ts'
import { backoffDelay, compileRetry, parseRetryAfter, RetryBudget, type RetryOptions, type RetryPolicy, retriesError } from './retry.ts'

const policyOf = (options: RetryOptions | false | undefined): RetryPolicy => {
  const read = new OptionReader('createProxy')
  const policy = compileRetry(options, read)
  read.check()
  return policy
}

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

describe('retriesError', () => {
  type Row = [code: ErrorCode, sent: boolean, repeatable: boolean, by: readonly ('connect' | 'reset' | 'timeout')[]]
  const rows: Row[] = []
  for (const code of Object.keys(errorTable) as ErrorCode[]) {
    const { source, phase } = errorTable[code]
    if (source !== 'upstream')
      for (const sent of [true, false]) for (const repeatable of [true, false]) rows.push([code, sent, repeatable, []])
    // No connection, no request: safe for every method, whatever was sent of the failed handshake.
    else if (phase === 'connect')
      for (const sent of [true, false]) for (const repeatable of [true, false]) rows.push([code, sent, repeatable, ['connect']])
  }
  rows.push(
    ['ERR_UPSTREAM_RESET', false, false, ['connect', 'reset']],
    ['ERR_UPSTREAM_RESET', false, true, ['connect', 'reset']],
    ['ERR_UPSTREAM_RESET', true, true, ['reset']],
    ['ERR_UPSTREAM_RESET', true, false, []],
    ['ERR_HEAD_TIMEOUT', true, true, ['timeout']],
    ['ERR_HEAD_TIMEOUT', true, false, []],
  )
  // A server that answered, however badly, has processed the request.
  for (const code of [
    'ERR_UPSTREAM_PROTOCOL',
    'ERR_UPSTREAM_HEAD',
    'ERR_UPSTREAM_STATUS',
    'ERR_UPSTREAM_BODY',
    'ERR_BODY_TIMEOUT',
    'ERR_UPGRADE_RESPONSE',
  ] as const)
    for (const repeatable of [true, false]) rows.push([code, true, repeatable, []])

  const policies = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => (['connect', 'reset', 'timeout'] as const).filter((_, i) => bits & (1 << i)))
  for (const [code, sent, repeatable, by] of rows)
    it(`${code}, ${sent ? 'sent' : 'not sent'}, ${repeatable ? 'repeatable' : 'not repeatable'}: ${by.join(' or ') || 'never'}`, () => {
      for (const on of policies)
        expect(retriesError(policyOf({ on }), new ProxyError(code), sent, repeatable), on.join()).toBe(
          by.some((condition) => on.includes(condition)),
        )
    })
})

describe('backoffDelay', () => {
  it('lies below base doubled per try, and never above max', () => {
    fc.assert(
      fc.property(
        fc.nat(1000),
        fc.nat(5000),
        fc.integer({ min: 2, max: 100 }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (base, max, attempt, random) => {
          const delay = backoffDelay(policyOf({ backoff: { base, max } }), attempt, () => random)
          expect(delay).toBeGreaterThanOrEqual(0)
          expect(delay).toBeLessThanOrEqual(max)
          expect(delay).toBeLessThanOrEqual(base * 2 ** (attempt - 2))
          expect(delay).toBe(Math.min(max, base * 2 ** (attempt - 2)) * random)
        },
      ),
    )
  })
})

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

describe('options', () => {
  it('the defaults: one retry, for what is safe', () => {
    const { budget, methods, ...rest } = policyOf(undefined)
    expect(budget).toBeInstanceOf(RetryBudget)
    expect([...methods].sort()).toEqual(['DELETE', 'GET', 'HEAD', 'OPTIONS', 'PUT', 'QUERY'])
    expect(rest).toMatchObject({
      attempts: 2,
      connect: true,
      reset: true,
      timeout: false,
      statuses: undefined,
      idempotencyKey: false,
      maxRetryAfter: 1000,
      replayBuffer: 65_536,
      backoffBase: 25,
      backoffMax: 250,
    })
  })

  it('false is one try', () => expect(policyOf(false).attempts).toBe(1))

  it('what is given is taken', () => {
    const policy = policyOf({
      on: [503, 'timeout', 429],
      methods: ['get', 'Patch'],
      budget: false,
      perTryTimeout: '2s',
      maxRetryAfter: '3s',
      replayBuffer: '1KiB',
    })
    expect(policy).toMatchObject({
      connect: false,
      reset: false,
      timeout: true,
      budget: undefined,
      perTryTimeout: 2000,
      maxRetryAfter: 3000,
      replayBuffer: 1024,
    })
    expect([...(policy.statuses ?? [])]).toEqual([503, 429])
    expect([...policy.methods]).toEqual(['GET', 'PATCH'])
  })

  const wrong: [options: unknown, paths: string[]][] = [
    [true, ['options']],
    [null, ['options']],
    [{ attempts: 0 }, ['attempts']],
    [{ attempts: 1.5 }, ['attempts']],
    [{ on: 'reset' }, ['on']],
    [{ on: 503 }, ['on']],
    [{ on: {} }, ['on']],
    [{ on: ['connect', 'conect', 399, 600, 502.5, null] }, ['on[1]', 'on[2]', 'on[3]', 'on[4]', 'on[5]']],
    [{ methods: 'GET' }, ['methods']],
    [{ methods: [5] }, ['methods']],
    [{ budget: true }, ['budget']],
    [{ budget: { ratio: 20 } }, ['budget.ratio']],
    [{ budget: { ratio: -0.1, minPerSecond: -1, min: 1 } }, ['budget.min', 'budget.ratio', 'budget.minPerSecond']],
    [{ backoff: { base: 'soon', max: -1 } }, ['backoff.base', 'backoff.max']],
    [{ retries: 3 }, ['retries']],
    [
      { idempotencyKey: 1, perTryTimeout: 'x', maxRetryAfter: 'x', replayBuffer: 'x' },
      ['idempotencyKey', 'perTryTimeout', 'maxRetryAfter', 'replayBuffer'],
    ],
  ]
  for (const [options, paths] of wrong)
    it(`${JSON.stringify(options)} is wrong at ${paths.join(', ')}`, () => {
      let found: string[] = []
      try {
        policyOf(options as RetryOptions)
      } catch (error) {
        found = (error as OptionsError).problems?.map(({ path }) => path)
      }
      expect(found).toEqual(paths)
    })
})
