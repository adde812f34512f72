/** Circuit breakers in a real proxy on a virtual clock; the upstream side answers what the test says, when it says so. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createPool, createProxy, type ErrorCode, ProxyError, type ResponseSink, type Transport, type UpstreamCall } from '@weir/core'
import { type FakeResponse, fakeTransport, seededRandom, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { CircuitBreakerOptions } from './breaker-options.ts'
import { type BreakerMessage, circuitBreaker } from './circuit-breaker.ts'

let messages: BreakerMessage[] = []
const listener = (message: unknown): void => void messages.push(message as BreakerMessage)
beforeEach(() => {
  messages = []
  subscribe('weir:health:breaker', listener)
})
afterEach(() => void unsubscribe('weir:health:breaker', listener))
const story = (): string[] => messages.map(({ from, to }) => `${from} > ${to}`)

function rig(count: number, options: CircuitBreakerOptions = {}) {
  const clock = virtualClock()
  const answers = new Map<string, FakeResponse | Promise<FakeResponse>>()
  const transport = fakeTransport((_request, { id }) => answers.get(id) ?? {})
  const pool = createPool({
    upstreams: Array.from({ length: count }, (_, i) => ({ url: `http://u${i}.test`, id: `u${i}` })),
    health: [circuitBreaker(options)],
    transport,
    clock,
    random: seededRandom(1),
  })
  const proxy = createProxy({ pool, clock, retry: false })
  const ask = (): Promise<number> =>
    proxy.inject({ url: '/' }).then(
      ({ status }) => status,
      () => 0,
    )
  return {
    clock,
    pool,
    transport,
    answer: (id: string, answer: FakeResponse | Promise<FakeResponse>) => void answers.set(id, answer),
    ask,
    async many(times: number): Promise<number[]> {
      const statuses: number[] = []
      for (let i = 0; i < times; i++) statuses.push(await ask())
      return statuses
    },
    sent: () => transport.requests.length,
    state: (id: string) => pool.get(id)?.state,
    async close() {
      await proxy.close()
      await pool.close()
    },
  }
}

const bad: FakeResponse = { status: 500 }
const tripped = (error: ErrorCode): FakeResponse => ({ error })

describe('what trips', () => {
  it('a ratio of failures, when there are enough requests', async () => {
    const r = rig(1)
    await r.many(9)
    r.answer('u0', bad)
    await r.many(9)
    // 9 of 18: half, but fewer than 20.
    expect(story()).toEqual([])
    r.answer('u0', {})
    await r.ask()
    r.answer('u0', tripped('ERR_CONNECT_REFUSED'))
    await r.ask()
    expect(story()).toEqual(['closed > open'])
    expect(messages[0]).toMatchObject({
      pool: 'pool',
      upstream: undefined,
      reason: '10 of 20 requests failed',
      error: { code: 'ERR_CONNECT_REFUSED' },
    })
    const before = r.sent()
    expect(await r.many(3)).toEqual([503, 503, 503])
    expect(r.sent()).toBe(before)
    await r.close()
  })

  it('not failures that lie further back than the window', async () => {
    const r = rig(1, { window: '10s' })
    r.answer('u0', bad)
    await r.many(19)
    await r.clock.advance(11_000)
    await r.many(19)
    expect(story()).toEqual([])
    await r.ask()
    expect(story()).toEqual(['closed > open'])
    await r.close()
  })

  it('a row of failures', async () => {
    const r = rig(1, { errorRatio: false, consecutive: 3 })
    r.answer('u0', bad)
    await r.many(2)
    r.answer('u0', {})
    await r.ask()
    r.answer('u0', bad)
    await r.many(2)
    expect(story()).toEqual([])
    await r.ask()
    expect(story()).toEqual(['closed > open'])
    await r.close()
  })

  it('a quantile of times', async () => {
    for (const [slow, trips] of [
      [2, false],
      [3, true],
    ] as const) {
      messages = []
      const r = rig(1, { errorRatio: false, latency: { above: '100ms', quantile: 0.9, minRequests: 20 } })
      for (let i = 0; i < 20; i++) {
        const { promise, resolve } = Promise.withResolvers<FakeResponse>()
        r.answer('u0', promise)
        const asked = r.ask()
        await r.clock.advance(i < slow ? 101 : 100)
        resolve({})
        await asked
      }
      expect(story()).toEqual(trips ? ['closed > open'] : [])
      await r.close()
    }
  })

  it('not what the statuses do not name, nor what is not the upstream', async () => {
    const r = rig(1, { status: [502, 504] })
    r.answer('u0', bad)
    await r.many(30)
    r.answer('u0', { error: 'ERR_REQUEST_NOT_SENT' })
    await r.many(30)
    expect(story()).toEqual([])
    await r.close()
  })

  it('a dry run tells and stops nothing', async () => {
    const r = rig(1, { consecutive: 1, dryRun: true })
    r.answer('u0', bad)
    expect(await r.many(3)).toEqual([500, 500, 500])
    expect(story()).toEqual(['closed > open'])
    expect(messages[0]?.dryRun).toBe(true)
    await r.close()
  })
})

describe('half-open', () => {
  const options: CircuitBreakerOptions = { errorRatio: false, consecutive: 1, open: '5s', maxOpen: '15s', trials: 2, recovery: '10s' }
  const opened = async () => {
    const r = rig(1, options)
    r.answer('u0', bad)
    await r.ask()
    return r
  }

  it('begins on time and lets so many through at once', async () => {
    const r = await opened()
    await r.clock.advance(4999)
    expect(await r.ask()).toBe(503)
    await r.clock.advance(1)
    const { promise, resolve } = Promise.withResolvers<FakeResponse>()
    r.answer('u0', promise)
    const trials = [r.ask(), r.ask()]
    await r.clock.advance(0)
    expect(await r.ask()).toBe(503)
    expect(r.transport.open).toBe(2)
    resolve({})
    expect(await Promise.all(trials)).toEqual([200, 200])
    expect(story()).toEqual(['closed > open', 'open > half-open', 'half-open > recovering'])
    await r.close()
  })

  it('a failed trial opens it again, for longer, up to the cap', async () => {
    const r = await opened()
    for (const ms of [5000, 10_000, 15_000, 15_000]) {
      await r.clock.advance(ms - 1)
      expect(await r.ask()).toBe(503)
      await r.clock.advance(1)
      expect(await r.ask()).toBe(500)
    }
    expect(await r.ask()).toBe(503)
    await r.close()
  })

  it('a trial that says nothing makes room for another', async () => {
    const r = await opened()
    await r.clock.advance(5000)
    r.answer('u0', { error: 'ERR_REQUEST_NOT_SENT' })
    await r.many(10)
    expect(r.sent()).toBe(11)
    r.answer('u0', {})
    expect(await r.many(2)).toEqual([200, 200])
    await r.close()
  })

  it('what was sent before it opened decides nothing, whenever it ends', async () => {
    const r = rig(1, options)
    const early = Promise.withResolvers<FakeResponse>()
    const later = Promise.withResolvers<FakeResponse>()
    r.answer('u0', early.promise)
    const first = r.ask()
    await r.clock.advance(10)
    r.answer('u0', later.promise)
    const second = r.ask()
    await r.clock.advance(10)
    r.answer('u0', bad)
    await r.ask()
    await r.clock.advance(5000)
    early.resolve(bad)
    expect(await first).toBe(500)
    later.resolve({})
    expect(await second).toBe(200)
    expect(story()).toEqual(['closed > open', 'open > half-open'])
    r.answer('u0', {})
    expect(await r.many(2)).toEqual([200, 200])
    expect(story().at(-1)).toBe('half-open > recovering')
    await r.close()
  })

  it('what was sent before it opened takes no place of a trial', async () => {
    const r = rig(1, { ...options, trials: 1 })
    const early = Promise.withResolvers<FakeResponse>()
    r.answer('u0', early.promise)
    const first = r.ask()
    await r.clock.advance(10)
    r.answer('u0', bad)
    await r.ask()
    await r.clock.advance(5000)
    r.answer('u0', {})
    expect(await r.ask()).toBe(200)
    early.resolve({})
    await first
    await r.close()
  })

  describe('a trial is judged by its head', () => {
    /** Answers with heads at once; the bodies go on until the test ends them. */
    const streaming = () => {
      const sinks: ResponseSink[] = []
      const call: UpstreamCall = { abort() {}, pause() {}, resume() {}, reused: false, connectMs: 1, sent: true }
      let status = 500
      const transport: Transport = {
        name: 'streaming',
        send(_request, _upstream, sink) {
          sink.onStart(call)
          sink.onHead(status, '', [])
          if (status === 500) sink.onEnd(undefined)
          else sinks.push(sink)
        },
      }
      const clock = virtualClock()
      const proxy = createProxy({
        upstreams: ['http://u0.test'],
        health: [circuitBreaker({ ...options, trials: 2 })],
        transport,
        clock,
        retry: false,
      })
      const ask = (): void => void proxy.inject({ url: '/' }).catch(() => {})
      const halfOpen = async (): Promise<void> => {
        ask()
        await clock.advance(5000)
        status = 200
      }
      return { sinks, ask, halfOpen, clock, proxy }
    }

    it('so endless streams close the circuit, hold no place, and their end counts nothing', async () => {
      const { sinks, ask, halfOpen, clock, proxy } = streaming()
      await halfOpen()
      ask()
      await clock.advance(0)
      expect(story().at(-1)).toBe('open > half-open')
      ask()
      await clock.advance(0)
      expect(story().at(-1)).toBe('half-open > recovering')
      await clock.advance(10_000)
      expect(story().at(-1)).toBe('recovering > closed')
      for (const sink of sinks) sink.onError(new ProxyError('ERR_BODY_TIMEOUT'))
      await clock.advance(0)
      expect(story().at(-1)).toBe('recovering > closed')
      await proxy.close({ deadline: 0 })
    })

    it('one that breaks off behind it, while others are awaited, opens it again', async () => {
      const { sinks, ask, halfOpen, clock, proxy } = streaming()
      await halfOpen()
      ask()
      await clock.advance(0)
      sinks[0]?.onError(new ProxyError('ERR_BODY_TIMEOUT'))
      await clock.advance(0)
      expect(story().at(-1)).toBe('half-open > open')
      await proxy.close({ deadline: 0 })
    })

    it('one that ends well is one pass, not two', async () => {
      const { sinks, ask, halfOpen, clock, proxy } = streaming()
      await halfOpen()
      ask()
      await clock.advance(0)
      sinks[0]?.onEnd(undefined)
      await clock.advance(0)
      expect(story().at(-1)).toBe('open > half-open')
      await proxy.close({ deadline: 0 })
    })
  })

  it('a slow trial fails where slowness trips', async () => {
    const r = rig(1, { ...options, latency: { above: '100ms' } })
    r.answer('u0', bad)
    await r.ask()
    await r.clock.advance(5000)
    const { promise, resolve } = Promise.withResolvers<FakeResponse>()
    r.answer('u0', promise)
    const trial = r.ask()
    await r.clock.advance(101)
    resolve({})
    expect(await trial).toBe(200)
    expect(story().at(-1)).toBe('half-open > open')
    await r.close()
  })

  it('the row that tripped it is not gone on with', async () => {
    const r = rig(1, { ...options, consecutive: 2 })
    r.answer('u0', bad)
    await r.many(2)
    await r.clock.advance(5000)
    r.answer('u0', {})
    await r.many(2)
    await r.clock.advance(9999)
    r.answer('u0', bad)
    expect(await r.ask()).toBe(500)
    expect(story().at(-1)).toBe('half-open > recovering')
    await r.close()
  })

  it('the counts that tripped it are not gone on with', async () => {
    const r = rig(1, { open: '1s', trials: 1, recovery: '1s' })
    r.answer('u0', bad)
    await r.many(20)
    await r.clock.advance(1000)
    r.answer('u0', {})
    await r.ask()
    await r.clock.advance(1000)
    r.answer('u0', bad)
    await r.many(19)
    expect(story().at(-1)).toBe('recovering > closed')
    await r.close()
  })

  it('then traffic grows back, and after the ramp all of it gets through', async () => {
    const r = await opened()
    await r.clock.advance(5000)
    r.answer('u0', {})
    await r.many(2)
    const share = async (): Promise<number> => (await r.many(200)).filter((status) => status === 200).length / 200
    await r.clock.advance(2500)
    expect(Math.abs((await share()) - 0.25)).toBeLessThan(0.1)
    await r.clock.advance(5000)
    expect(Math.abs((await share()) - 0.75)).toBeLessThan(0.1)
    await r.clock.advance(2500)
    expect(await share()).toBe(1)
    expect(story().at(-1)).toBe('recovering > closed')
    await r.close()
    expect(r.clock.pending).toBe(0)
  })
})

describe('per upstream', () => {
  const options: CircuitBreakerOptions = { scope: 'upstream', errorRatio: false, consecutive: 2, open: '5s', trials: 2, recovery: '10s' }

  /** Two in turn, so that one stays; of u0, `old` exchanges go on. */
  const withOld = async (old: number) => {
    const r = rig(2, options)
    const streams = Array.from({ length: old }, () => Promise.withResolvers<FakeResponse>())
    const early: Promise<number>[] = []
    for (const { promise } of streams) {
      r.answer('u0', promise)
      early.push(r.ask(), r.ask())
      await r.clock.advance(1)
    }
    r.answer('u0', bad)
    await r.many(4)
    expect(story()).toEqual(['closed > open'])
    await r.clock.advance(5000)
    r.answer('u0', {})
    return { r, early, end: () => streams.forEach(({ resolve }) => void resolve({})) }
  }

  it('what was sent before it opened takes no place of a trial, however long it goes on', async () => {
    const { r, early, end } = await withOld(3)
    expect(r.pool.get('u0')?.maxConcurrent).toBe(3 + 2)
    await r.many(40)
    expect(story().at(-1)).toBe('half-open > recovering')
    end()
    expect(await Promise.all(early)).toEqual(new Array(6).fill(200))
    await r.close()
  })

  it('and no more trials run at once when it ends meanwhile', async () => {
    const { r, early, end } = await withOld(1)
    expect(r.pool.get('u0')?.maxConcurrent).toBe(1 + 2)
    end()
    await Promise.all(early)
    expect(r.pool.get('u0')?.maxConcurrent).toBe(2)
    await r.close()
  })

  it('an open one is left out, tried with a small share and a limit, and grows back', async () => {
    const r = rig(2, options)
    r.answer('u0', bad)
    expect((await r.many(8)).filter((status) => status === 500)).toHaveLength(2)
    expect(r.state('u0')).toBe('down')
    r.answer('u0', {})
    await r.clock.advance(5000)
    expect(r.pool.get('u0')).toMatchObject({ state: 'up', weight: 0.1, maxConcurrent: 2 })
    await r.many(30)
    expect(story().at(-1)).toBe('half-open > recovering')
    expect(r.pool.get('u0')).toMatchObject({ weight: 0.1, maxConcurrent: Number.POSITIVE_INFINITY })
    await r.clock.advance(5000)
    expect(r.pool.get('u0')?.weight).toBe(0.5)
    await r.clock.advance(5000)
    expect(r.pool.get('u0')?.weight).toBe(1)
    expect(story()).toEqual(['closed > open', 'open > half-open', 'half-open > recovering', 'recovering > closed'])
    expect(r.clock.pending).toBe(0)
    await r.close()
  })

  it('a failed trial takes everything back and leaves it out again', async () => {
    const r = rig(2, options)
    r.answer('u0', bad)
    await r.many(8)
    await r.clock.advance(5000)
    await r.many(30)
    expect(r.pool.get('u0')).toMatchObject({ state: 'down', weight: 1, maxConcurrent: Number.POSITIVE_INFINITY })
    await r.close()
    expect(r.clock.pending).toBe(0)
  })

  it('one that trips while it grows back stops growing', async () => {
    const r = rig(2, options)
    r.answer('u0', bad)
    await r.many(8)
    r.answer('u0', {})
    await r.clock.advance(5000)
    await r.many(30)
    await r.clock.advance(5000)
    r.answer('u0', bad)
    await r.many(20)
    expect(r.pool.get('u0')).toMatchObject({ state: 'down', weight: 1 })
    // The time that it stays open, and nothing of the ramp.
    expect(r.clock.pending).toBe(1)
    await r.close()
  })

  it('a dry run leaves everybody in', async () => {
    const r = rig(2, { ...options, dryRun: true })
    r.answer('u0', bad)
    await r.many(8)
    expect(story()).toEqual(['closed > open'])
    expect(r.pool.get('u0')).toMatchObject({ state: 'up', weight: 1 })
    await r.close()
  })

  it('never the last one', async () => {
    const r = rig(2, options)
    r.answer('u0', bad)
    r.answer('u1', bad)
    expect(await r.many(20)).not.toContain(503)
    expect(new Set([r.state('u0'), r.state('u1')])).toEqual(new Set(['down', 'up']))
    expect(messages.at(-1)).toMatchObject({ from: 'closed', to: 'closed' })
    await r.close()
  })

  it('one that leaves takes its timers along', async () => {
    const r = rig(2, options)
    r.answer('u0', bad)
    await r.many(8)
    expect(r.clock.pending).toBe(1)
    await r.pool.remove('u0')
    expect(r.clock.pending).toBe(0)
    const ramping = rig(2, options)
    ramping.answer('u0', bad)
    await ramping.many(8)
    ramping.answer('u0', {})
    await ramping.clock.advance(5000)
    await ramping.many(30)
    expect(story().at(-1)).toBe('half-open > recovering')
    await ramping.pool.remove('u0')
    expect(ramping.clock.pending).toBe(0)
    await ramping.close()
    await r.close()
  })
})

it('any history: never more trials than allowed, nothing is sent while open, and it always closes again', async () => {
  const step = fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({ ask: fc.constantFrom<FakeResponse | 'silence'>({}, bad, { error: 'ERR_UPSTREAM_RESET' }, 'silence') }),
    },
    { weight: 2, arbitrary: fc.record({ ms: fc.nat(4000) }) },
    { weight: 1, arbitrary: fc.record({ settle: fc.constantFrom<FakeResponse>({}, bad) }) },
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      messages = []
      const r = rig(1, { errorRatio: false, consecutive: 2, open: 3000, maxOpen: 6000, trials: 2, recovery: 2000 })
      const waiting: ((answer: FakeResponse) => void)[] = []
      const asked: Promise<number>[] = []
      const settle = async (answer: FakeResponse): Promise<void> => {
        for (const resolve of waiting.splice(0)) resolve(answer)
        await r.clock.advance(0)
      }
      for (const action of steps) {
        const kind = messages.at(-1)?.to ?? 'closed'
        const before = r.sent()
        if ('ms' in action) await r.clock.advance(action.ms)
        else if ('settle' in action) await settle(action.settle)
        else {
          if (action.ask === 'silence') {
            const { promise, resolve } = Promise.withResolvers<FakeResponse>()
            waiting.push(resolve)
            r.answer('u0', promise)
          } else r.answer('u0', action.ask)
          asked.push(r.ask())
          await r.clock.advance(0)
          if (kind === 'open') expect(r.sent()).toBe(before)
          if (kind === 'closed') expect(r.sent()).toBe(before + 1)
        }
      }
      await settle({})
      r.answer('u0', {})
      await Promise.all(asked)
      for (let i = 0; i < 40; i++) {
        await r.clock.advance(1000)
        await r.ask()
      }
      expect(messages.at(-1)?.to ?? 'closed').toBe('closed')
      expect(await r.ask()).toBe(200)
      await r.close()
      expect(r.clock.pending).toBe(0)
    }),
    { numRuns: 40 },
  )
})

it('wrong options are named', () => {
  const problems = (options: unknown): string[] => {
    try {
      circuitBreaker(options as CircuitBreakerOptions)
      return []
    } catch (error) {
      return (error as { problems: { path: string }[] }).problems.map(({ path }) => path)
    }
  }
  expect(
    problems({
      scope: 'all',
      window: 1,
      errorRatio: { threshold: 0 },
      consecutive: 0,
      latency: {},
      status: 1,
      open: '1m',
      maxOpen: '1s',
      trials: 0,
      random: 1,
      x: 1,
    }),
  ).toEqual(['x', 'scope', 'window', 'errorRatio.threshold', 'consecutive', 'latency.above', 'status', 'maxOpen', 'trials', 'random'])
  expect(problems({ errorRatio: false })).toEqual(['options'])
})
