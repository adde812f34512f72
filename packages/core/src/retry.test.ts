/** When a second try is allowed: the truth table of failures, the pause before it, and the options. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type ErrorCode, errorTable, ProxyError } from './errors.ts'
import { OptionReader, type OptionsError } from './options.ts'
import { backoffDelay, compileRetry, RetryBudget, type RetryOptions, type RetryPolicy, retriesError } from './retry.ts'

const policyOf = (options: RetryOptions | false | undefined): RetryPolicy => {
  const read = new OptionReader('createProxy')
  const policy = compileRetry(options, read)
  read.check()
  return policy
}

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
    'ERR_UPSTREAM_CODING',
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
