/** The default health policy, in a pool and on a virtual clock: what counts as a failure, how long it is remembered, and who is never set aside. */
import { fakeTransport, stubExchange, type VirtualClock, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Attempt } from './attempt.ts'
import { type ErrorCode, errorTable, ProxyError } from './errors.ts'
import { type FailureMemoryOptions, failureMemory } from './failure-memory.ts'
import type { HealthPolicy } from './health.ts'
import type { OptionsError } from './options.ts'
import { createPool, type LivePool } from './pool.ts'

function setup(ids: readonly string[], options?: FailureMemoryOptions) {
  const clock: VirtualClock = virtualClock()
  const policy = failureMemory(options)
  const pool = createPool({
    upstreams: ids.map((id) => ({ url: `http://${id}.test`, id })),
    health: [policy],
    transport: fakeTransport(),
    clock,
  }) as LivePool
  /** One attempt on `id` that ended like this; reaches also one that is down, as a retry without choice would. */
  const attempt = (id: string, code?: ErrorCode, reused = false): void => {
    const upstream = pool.get(id)
    if (upstream === undefined) throw new Error(`no ${id}`)
    ;(upstream as { inflight: number }).inflight++
    pool.release({ upstream, reused, error: code === undefined ? undefined : new ProxyError(code) } as unknown as Attempt)
  }
  const fail = (id: string, times = 1): void => {
    for (let i = 0; i < times; i++) attempt(id, 'ERR_CONNECT_REFUSED')
  }
  return { clock, policy, pool, attempt, fail, state: (id: string) => pool.get(id)?.state }
}

describe('the threshold', () => {
  it('three failures in a row set aside, two do not', () => {
    const { fail, state } = setup(['a', 'b'])
    fail('a', 2)
    expect(state('a')).toBe('up')
    fail('a')
    expect(state('a')).toBe('down')
    expect(state('b')).toBe('up')
  })

  it('a success in between starts the row anew', () => {
    const { attempt, fail, state } = setup(['a', 'b'])
    fail('a', 2)
    attempt('a')
    fail('a', 2)
    expect(state('a')).toBe('up')
  })

  it('a success of another one does not', () => {
    const { attempt, fail, state } = setup(['a', 'b'])
    fail('a', 2)
    attempt('b')
    fail('a')
    expect(state('a')).toBe('down')
  })

  it('is an option', () => {
    const { fail, state } = setup(['a', 'b'], { failures: 1 })
    fail('a')
    expect(state('a')).toBe('down')
  })
})

describe('what counts', () => {
  for (const code of Object.keys(errorTable) as ErrorCode[]) {
    // What another policy cut is a consequence of its verdict.
    const counts = errorTable[code].source === 'upstream' && code !== 'ERR_UPSTREAM_DOWN'
    it(`${code} ${counts ? 'does' : 'does not'}`, () => {
      const { attempt, state } = setup(['a', 'b'])
      for (let i = 0; i < 5; i++) attempt('a', code)
      expect(state('a')).toBe(counts ? 'down' : 'up')
    })
  }

  it('a pooled connection that had gone stale does not; any other failure on one does', () => {
    const { attempt, state } = setup(['a', 'b'])
    for (let i = 0; i < 5; i++) attempt('a', 'ERR_UPSTREAM_RESET', true)
    expect(state('a')).toBe('up')
    for (let i = 0; i < 5; i++) attempt('b', 'ERR_HEAD_TIMEOUT', true)
    expect(state('b')).toBe('down')
  })

  it('what does not count does not break a row either', () => {
    const { attempt, fail, state } = setup(['a', 'b'])
    fail('a', 2)
    attempt('a', 'ERR_CLIENT_ABORTED')
    attempt('a', 'ERR_UPSTREAM_RESET', true)
    fail('a')
    expect(state('a')).toBe('down')
  })
})

describe('the penalty', () => {
  it('ends on time, and probation follows: one more failure sets aside again, one success acquits', async () => {
    const { clock, attempt, fail, state } = setup(['a', 'b'])
    fail('a', 3)
    await clock.advance(9999)
    expect(state('a')).toBe('down')
    await clock.advance(1)
    expect(state('a')).toBe('up')
    fail('a')
    expect(state('a')).toBe('down')
    await clock.advance(10_000)
    attempt('a')
    fail('a', 2)
    expect(state('a')).toBe('up')
    fail('a')
    expect(state('a')).toBe('down')
  })

  it('is not made longer by what still runs', async () => {
    const { clock, fail, state } = setup(['a', 'b'], { penalty: '1s' })
    fail('a', 3)
    await clock.advance(600)
    fail('a', 5)
    await clock.advance(400)
    expect(state('a')).toBe('up')
    expect(clock.pending).toBe(0)
    fail('a')
    expect(state('a')).toBe('down')
  })

  it('a success while aside acquits, but does not shorten it', async () => {
    const { clock, attempt, fail, state } = setup(['a', 'b'])
    fail('a', 3)
    attempt('a')
    expect(state('a')).toBe('down')
    await clock.advance(10_000)
    fail('a', 2)
    expect(state('a')).toBe('up')
  })

  it('is a suspicion: a retry without any other choice still goes there', () => {
    const { pool, fail } = setup(['a', 'b'])
    fail('a', 3)
    const b = pool.get('b')
    expect(pool.pick(stubExchange())?.id).toBe('b')
    expect(pool.pick({ ...stubExchange(), tried: b === undefined ? [] : [b] })?.id).toBe('a')
  })
})

describe('the last one', () => {
  it('is never set aside, however often it fails', () => {
    const { fail, state } = setup(['a', 'b'])
    fail('a', 3)
    fail('b', 100)
    expect([state('a'), state('b')]).toEqual(['down', 'up'])
  })

  it('goes as soon as another is back', async () => {
    const { clock, fail, state } = setup(['a', 'b'])
    fail('a', 3)
    fail('b', 3)
    await clock.advance(10_000)
    expect([state('a'), state('b')]).toEqual(['up', 'up'])
    fail('b')
    expect([state('a'), state('b')]).toEqual(['up', 'down'])
  })

  const ids = ['a', 'b', 'c']
  it('any history: somebody is always up, each stays aside exactly for its penalty, and only after enough failures', async () => {
    const step = fc.oneof(
      { weight: 5, arbitrary: fc.record({ id: fc.constantFrom(...ids), ok: fc.boolean() }) },
      { weight: 1, arbitrary: fc.record({ ms: fc.constantFrom(1, 400, 1000) }) },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.integer({ min: 1, max: 3 }), async (steps, failures) => {
        const { clock, attempt, fail, state } = setup(ids, { failures, penalty: 1000 })
        const rows = new Map(ids.map((id) => [id, { row: 0, until: 0 }]))
        for (const action of steps) {
          if ('ms' in action) {
            await clock.advance(action.ms)
            for (const entry of rows.values())
              if (entry.until > 0 && entry.until <= clock.now()) {
                entry.until = 0
                if (entry.row > 0) entry.row = failures - 1
              }
          } else {
            const entry = rows.get(action.id) as { row: number; until: number }
            if (action.ok) {
              attempt(action.id)
              entry.row = 0
            } else {
              fail(action.id)
              entry.row++
              const others = [...rows].filter(([id, { until }]) => id !== action.id && until === 0)
              if (entry.row >= failures && entry.until === 0 && others.length > 0) entry.until = clock.now() + 1000
            }
          }
          for (const [id, { until }] of rows) expect(state(id), id).toBe(until > 0 ? 'down' : 'up')
          expect(ids.some((id) => state(id) === 'up')).toBe(true)
        }
      }),
      { numRuns: 150 },
    )
  })
})

it('closing the pool leaves no timer, also for what fails afterwards', async () => {
  const { clock, pool, fail } = setup(['a', 'b', 'c'])
  fail('a', 3)
  expect(clock.pending).toBe(1)
  await pool.close()
  expect(clock.pending).toBe(0)
  fail('b', 3)
  expect(clock.pending).toBe(0)
})

it('one that left while aside comes back as a stranger', async () => {
  const { clock, pool, fail, state } = setup(['a', 'b'])
  fail('a', 3)
  await pool.remove('a')
  pool.add({ url: 'http://a.test', id: 'a' })
  expect(state('a')).toBe('up')
  fail('a', 2)
  await clock.advance(10_000)
  expect(state('a')).toBe('up')
})

describe('options', () => {
  const wrong: [options: unknown, paths: string[]][] = [
    [{ failures: 0 }, ['failures']],
    [{ failures: 1.5, penalty: 0 }, ['failures', 'penalty']],
    [{ penalty: 'soon' }, ['penalty']],
    [{ limit: 3 }, ['limit']],
    [3, ['options']],
  ]
  for (const [options, paths] of wrong)
    it(`${JSON.stringify(options)} is wrong at ${paths.join(', ')}`, () => {
      let found: string[] = []
      try {
        failureMemory(options as FailureMemoryOptions)
      } catch (error) {
        found = (error as OptionsError).problems.map(({ path }) => path)
      }
      expect(found).toEqual(paths)
    })

  it('the policy has a name', () => {
    const policy: HealthPolicy = failureMemory()
    expect(policy.name).toBe('failureMemory')
  })
})
