/** Outlier detection in a real pool on a virtual clock, with attempts that the test makes up; at the end through the whole proxy. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type AttemptOutcome, createPool, createProxy, type ErrorCode, errorTable, ProxyError, type Upstream } from '@weir/core'
import { fakeTransport, stubOutcome, type VirtualClock, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Ejection, newcomer, nextEjection } from './ejection.ts'
import { type OutlierMessage, outlierDetection } from './outlier-detection.ts'
import type { OutlierOptions } from './outlier-options.ts'

let messages: OutlierMessage[] = []
const listener = (message: unknown): void => void messages.push(message as OutlierMessage)
beforeEach(() => {
  messages = []
  subscribe('weir:health:outlier', listener)
})
afterEach(() => void unsubscribe('weir:health:outlier', listener))

/** As real timers are: they count whole milliseconds, and so may be a fraction of one early by the finer clock. */
function earlyClock(by: number): VirtualClock {
  const clock = virtualClock()
  const { setTimeout } = clock
  return Object.assign(clock, { setTimeout: (fn: () => void, ms: number) => setTimeout(fn, ms - by) })
}

async function rig(count: number, options: OutlierOptions = {}, clock: VirtualClock = virtualClock()) {
  const ids = Array.from({ length: count }, (_, i) => `u${i}`)
  const policy = outlierDetection(options)
  const pool = createPool({
    upstreams: ids.map((id) => ({ url: `http://${id}.test`, id })),
    health: [policy],
    transport: fakeTransport(),
    clock,
  })
  await pool.start()
  const tell = (id: string, outcome: Partial<AttemptOutcome>, times = 1): void => {
    for (let i = 0; i < times; i++) policy.onAttempt?.({ ...stubOutcome(pool.get(id) as Upstream), ...outcome })
  }
  return {
    clock,
    pool,
    status: (id: string, status: number, times = 1) => tell(id, { status }, times),
    fail: (id: string, times = 1, code: ErrorCode = 'ERR_CONNECT_REFUSED', reused = false) =>
      tell(id, { status: undefined, headMs: undefined, error: new ProxyError(code), reused }, times),
    slow: (id: string, headMs: number, times: number) => tell(id, { headMs }, times),
    state: (id: string) => pool.get(id)?.state,
    down: () => pool.upstreams.filter(({ state }) => state === 'down').map(({ id }) => id),
  }
}

describe('rows', () => {
  it('of failures to answer', async () => {
    const { fail, status, down } = await rig(3)
    fail('u0', 4)
    status('u0', 200)
    fail('u0', 4)
    expect(down()).toEqual([])
    fail('u0')
    expect(down()).toEqual(['u0'])
    expect(messages).toMatchObject([{ cause: 'local-errors', value: 5, threshold: 5, ejected: true, ejectedMs: 30_000 }])
  })

  it('of 502 to 504, which a 500 ends and a failure to answer does not', async () => {
    const { fail, status, down } = await rig(3)
    status('u0', 503, 4)
    status('u0', 500)
    status('u0', 502, 4)
    expect(down()).toEqual([])
    fail('u0')
    status('u0', 504)
    expect(down()).toEqual(['u0'])
    expect(messages[0]?.cause).toBe('gateway-errors')
  })

  it('of any 5xx by option only', async () => {
    const off = await rig(3)
    off.status('u0', 500, 49)
    expect(off.down()).toEqual([])
    const on = await rig(3, { serverErrors: 3, gatewayErrors: false })
    on.status('u0', 500, 2)
    on.status('u0', 404)
    on.status('u0', 503, 2)
    expect(on.down()).toEqual([])
    on.status('u0', 500)
    expect(on.down()).toEqual(['u0'])
    expect(messages[0]?.cause).toBe('server-errors')
  })

  for (const code of Object.keys(errorTable) as ErrorCode[]) {
    const counts = errorTable[code].source === 'upstream' && code !== 'ERR_UPSTREAM_DOWN' && code !== 'ERR_TUNNEL_BROKEN'
    it(`${code} ${counts ? 'counts' : 'does not count'}`, async () => {
      const { fail, down } = await rig(2)
      fail('u0', 10, code)
      expect(down()).toEqual(counts ? ['u0'] : [])
    })
  }

  it('an attempt without an end says nothing', async () => {
    const { fail, status, down } = await rig(2)
    fail('u0', 4)
    status('u0', undefined as never, 3)
    fail('u0')
    expect(down()).toEqual(['u0'])
  })

  it('a pooled connection that had gone stale does not count; neither does it end a row', async () => {
    const { fail, down } = await rig(2)
    fail('u0', 4)
    fail('u0', 10, 'ERR_UPSTREAM_RESET', true)
    expect(down()).toEqual([])
    fail('u0', 1, 'ERR_UPSTREAM_RESET')
    expect(down()).toEqual(['u0'])
  })
})

describe('ejection', () => {
  it('grows with every time, is capped, and is forgotten step by step', async () => {
    const { clock, fail, state } = await rig(2, { baseEjection: '30s', maxEjection: '70s', interval: '10s' })
    for (const [ms, again] of [
      [30_000, true],
      [60_000, true],
      [70_000, true],
      [70_000, false],
    ] as const) {
      fail('u0', 5)
      expect(state('u0')).toBe('down')
      await clock.advance(ms - 1)
      expect(state('u0')).toBe('down')
      await clock.advance(1)
      expect(state('u0')).toBe('up')
      if (!again) break
    }
    // Three steps back take three quiet intervals, and one more for the part of an interval that was not quiet.
    await clock.advance(40_000)
    fail('u0', 5)
    expect(messages.at(-1)?.ejectedMs).toBe(30_000)
  })

  describe('by timers that are half a millisecond early', () => {
    it('ends all the same, as often as it comes', async () => {
      const { clock, pool, fail, down } = await rig(3, { baseEjection: '30s', maxEjected: 0.4 }, earlyClock(0.5))
      for (const ms of [30_000, 60_000]) {
        fail('u0', 5)
        expect(down()).toEqual(['u0'])
        await clock.advance(ms)
        expect(down()).toEqual([])
        // Nothing is left of it in the count of those who are out: the next one is the first again.
        fail('u1', 5)
        expect(down()).toEqual(['u1'])
        await clock.advance(60_000)
        expect(down()).toEqual([])
      }
      await pool.close()
    })

    it('is forgotten at the pace of one step per quiet interval', async () => {
      const { clock, pool, fail } = await rig(2, { baseEjection: '30s', maxEjection: '90s', interval: '10s' }, earlyClock(0.5))
      for (const ms of [30_000, 60_000, 90_000]) {
        fail('u0', 5)
        await clock.advance(ms)
      }
      await clock.advance(40_000)
      fail('u0', 5)
      expect(messages.at(-1)?.ejectedMs).toBe(30_000)
      await pool.close()
    })
  })

  it('a long bad day is forgotten as fast as the cap needs', () => {
    const times = { base: 10, max: 25, interval: 5 }
    let state: Ejection = newcomer(0)
    for (let now = 0; now < 1000; now += 25)
      for (const kind of ['time', 'eject'] as const) state = nextEjection(state, { kind, now }, times)
    expect(state.times).toBe(3)
  })

  it('begins a new account afterwards, of rows and of the interval', async () => {
    const { clock, fail, down } = await rig(3, { localErrors: 60, baseEjection: '1s' })
    fail('u0', 60)
    expect(down()).toEqual(['u0'])
    await clock.advance(10_000)
    expect(messages).toHaveLength(1)
    expect(down()).toEqual([])
  })

  it('what comes back during one says nothing', async () => {
    const { clock, fail, state } = await rig(2)
    fail('u0', 5)
    fail('u0', 100)
    await clock.advance(30_000)
    expect(state('u0')).toBe('up')
    fail('u0', 4)
    expect(state('u0')).toBe('up')
  })

  it('never the last one', async () => {
    const { fail, down } = await rig(2)
    fail('u0', 5)
    fail('u1', 50)
    expect(down()).toEqual(['u0'])
    expect(messages.at(-1)).toMatchObject({ ejected: false, ejectedMs: 0 })
    const alone = await rig(1)
    alone.fail('u0', 50)
    expect(alone.down()).toEqual([])
  })

  it('one always, more only up to the share', async () => {
    const tenth = await rig(19)
    for (let i = 0; i < 19; i++) tenth.fail(`u${i}`, 5)
    expect(tenth.down()).toEqual(['u0'])
    const fifth = await rig(20, { maxEjected: 0.2 })
    for (let i = 0; i < 20; i++) fifth.fail(`u${i}`, 5)
    expect(fifth.down()).toHaveLength(4)
    const none = await rig(20, { maxEjected: 0 })
    for (let i = 0; i < 20; i++) none.fail(`u${i}`, 5)
    expect(none.down()).toHaveLength(1)
  })

  it('of one that leaves makes room for another', async () => {
    const { pool, fail, down } = await rig(3)
    fail('u0', 5)
    await pool.remove('u0')
    fail('u1', 5)
    expect(down()).toEqual(['u1'])
  })

  it('a dry run tells and ejects nobody', async () => {
    const { fail, down, pool } = await rig(3, { dryRun: true })
    fail('u0', 10)
    expect(down()).toEqual([])
    expect(messages).toHaveLength(2)
    expect(messages[0]).toMatchObject({ pool: 'pool', policy: 'outlierDetection', upstream: pool.get('u0'), ejected: false })
  })
})

describe('over an interval', () => {
  const rows = { gatewayErrors: false, localErrors: false } as const

  it('failure ratio: enough failures of enough requests', async () => {
    const { clock, status, fail, down } = await rig(10, { ...rows, maxEjected: 1, successRate: false })
    // Of 50 requests 43 are 86 %, of 49 they are not looked at, of 50 42 are 84 %.
    status('u0', 503, 20)
    fail('u0', 23)
    status('u0', 200, 7)
    status('u1', 500, 49)
    status('u2', 500, 42)
    status('u2', 200, 8)
    await clock.advance(9999)
    expect(down()).toEqual([])
    await clock.advance(1)
    expect(down()).toEqual(['u0'])
    expect(messages).toMatchObject([{ cause: 'failure-ratio', value: 0.86, threshold: 0.85 }])
    // The next interval begins at nothing.
    status('u1', 500, 1)
    await clock.advance(10_000)
    expect(down()).toEqual(['u0'])
  })

  it('success rate: against the others, when enough of them had enough', async () => {
    const play = async (hosts: number, requests: number) => {
      const r = await rig(hosts, { ...rows, failureRatio: false })
      for (let i = 0; i < hosts; i++) {
        r.status(`u${i}`, 200, i === 0 ? requests / 2 : requests)
        if (i === 0) r.status('u0', 500, requests / 2)
      }
      await r.clock.advance(10_000)
      return r.down()
    }
    expect(await play(6, 100)).toEqual(['u0'])
    expect(await play(6, 98)).toEqual([])
    expect(await play(4, 100)).toEqual([])
  })

  it('the worst goes first when there is not room for all', async () => {
    const { clock, status, down } = await rig(10, { ...rows, successRate: false })
    for (const [id, bad] of [
      ['u1', 88],
      ['u2', 99],
      ['u3', 92],
    ] as const) {
      status(id, 500, bad)
      status(id, 200, 100 - bad)
    }
    await clock.advance(10_000)
    expect(down()).toEqual(['u2'])
  })

  it('latency: median or tail against the others, by option', async () => {
    const play = async (latency: OutlierOptions['latency']) => {
      const r = await rig(4, { ...rows, ...(latency === undefined ? {} : { latency }) })
      for (const id of ['u0', 'u1', 'u2']) r.slow(id, 40, 100)
      r.slow('u2', 2000, 5)
      r.slow('u3', 400, 100)
      await r.clock.advance(10_000)
      return r.down()
    }
    expect(await play(undefined)).toEqual([])
    expect(await play(true)).toEqual(['u3'])
    expect(await play({ factor: 20 })).toEqual([])
    expect(await play({ floor: '1s' })).toEqual([])
    expect(await play({ quantile: 0.99, factor: 8 })).toEqual(['u2'])
    expect(await play({ minHosts: 5 })).toEqual([])
  })
})

it('nothing runs before start, and close leaves no timer', async () => {
  const clock = virtualClock()
  const pool = createPool({
    upstreams: ['http://a.test', 'http://b.test'],
    health: [outlierDetection()],
    transport: fakeTransport(),
    clock,
  })
  expect(clock.pending).toBe(0)
  await pool.start()
  expect(clock.pending).toBe(1)
  await pool.close()
  expect(clock.pending).toBe(0)
  const r = await rig(2)
  r.fail('u0', 5)
  await r.pool.close()
  expect(r.clock.pending).toBe(0)
  r.fail('u1', 5)
  expect(r.clock.pending).toBe(0)
})

it('any history: never too many out, never the last, each for its time, and all come back', async () => {
  const action = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({ id: fc.nat(4), kind: fc.constantFrom('ok' as const, 'bad' as const, 'fail' as const), times: fc.nat(6) }),
    },
    { weight: 2, arbitrary: fc.record({ ms: fc.integer({ min: 0, max: 20_000 }) }) },
  )
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 40 }), fc.constantFrom(0, 0.4, 1), async (actions, maxEjected) => {
      const r = await rig(5, { maxEjected, baseEjection: '5s', maxEjection: '20s' })
      const out = new Map<string, number>()
      for (const step of actions) {
        messages = []
        if ('ms' in step) await r.clock.advance(step.ms)
        else if (step.kind === 'ok') r.status(`u${step.id}`, 200, step.times)
        else if (step.kind === 'bad') r.status(`u${step.id}`, 503, step.times)
        else r.fail(`u${step.id}`, step.times)
        for (const message of messages)
          if (message.ejected) {
            expect(out.get(message.upstream.id) ?? 0).toBeLessThanOrEqual(r.clock.now())
            expect([5000, 10_000, 15_000, 20_000]).toContain(message.ejectedMs)
            out.set(message.upstream.id, r.clock.now() + message.ejectedMs)
          }
        const down = r.down()
        for (const [id, until] of out) expect(down.includes(id)).toBe(until > r.clock.now())
        expect(down.length).toBeLessThanOrEqual(Math.min(4, Math.max(1, 5 * maxEjected)))
      }
      await r.clock.advance(20_000)
      expect(r.down()).toEqual([])
      await r.pool.close()
      expect(r.clock.pending).toBe(0)
    }),
    { numRuns: 100 },
  )
})

it('the machine: any events keep times and ends within bounds', () => {
  const times = { base: 30, max: 100, interval: 10 }
  const event = fc.record({ kind: fc.constantFrom('eject' as const, 'time' as const), after: fc.nat(60) })
  fc.assert(
    fc.property(fc.array(event, { maxLength: 50 }), (events) => {
      let state: Ejection = newcomer(0)
      let now = 0
      for (const { kind, after } of events) {
        now += after
        const before: Ejection = state
        state = nextEjection(before, { kind, now }, times)
        expect(state.times).toBeGreaterThanOrEqual(0)
        expect(state.times).toBeLessThanOrEqual(4)
        if (before.kind === 'ejected' && state.kind === 'admitted') expect(now).toBeGreaterThanOrEqual(before.until)
        if (before.kind === 'admitted' && state.kind === 'ejected') {
          expect(kind).toBe('eject')
          expect(state.until - now).toBe(Math.min(100, 30 * Math.min(4, before.times + 1)))
        }
        if (before.kind === 'admitted' && state.kind === 'admitted' && state.times < before.times)
          expect(now - before.since).toBeGreaterThanOrEqual(10)
      }
    }),
  )
})

it('through the proxy: a bad server is found out and left out', async () => {
  await using proxy = createProxy({
    upstreams: ['a', 'b', 'c'].map((id) => ({ url: `http://${id}.test`, id })),
    health: [outlierDetection()],
    transport: fakeTransport((_request, upstream) => (upstream.id === 'b' ? { status: 503 } : { status: 200 })),
    retry: false,
  })
  const statuses: number[] = []
  for (let i = 0; i < 40; i++) statuses.push((await proxy.inject({ url: '/' })).status)
  expect(statuses.filter((status) => status === 503)).toHaveLength(5)
  expect(proxy.pool?.get('b')?.state).toBe('down')
})

it('wrong options are named', () => {
  const problems = (options: unknown): string[] => {
    try {
      outlierDetection(options as OutlierOptions)
      return []
    } catch (error) {
      return (error as { problems: { path: string }[] }).problems.map(({ path }) => path)
    }
  }
  expect(
    problems({
      interval: 0,
      baseEjection: '1m',
      maxEjection: '1s',
      maxEjected: 2,
      localErrors: 0,
      failureRatio: { threshold: 0 },
      successRate: { minHosts: 1 },
      latency: { quantile: 2 },
      x: 1,
    }),
  ).toEqual([
    'x',
    'interval',
    'maxEjection',
    'maxEjected',
    'localErrors',
    'failureRatio.threshold',
    'successRate.minHosts',
    'latency.quantile',
  ])
  expect(problems({ serverErrors: false, gatewayErrors: false, localErrors: false, failureRatio: false, successRate: false })).toEqual([])
})
