/** The adaptive limit against a simulated server: workers, service times, a queue, and twice the load that it can take. Time is the simulation's. */
import {
  type AttemptOutcome,
  type Clock,
  createPool,
  createProxy,
  type HealthControl,
  ProxyError,
  type ResponseSink,
  type Transport,
  type Upstream,
} from '@weir/core'
import { fakeTransport, seededRandom, stubExchange, stubOutcome, stubUpstream, virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type AdaptiveConcurrencyOptions, adaptiveConcurrency } from './adaptive-concurrency.ts'

interface Second {
  readonly done: number
  readonly refused: number
  readonly worstMs: number
  readonly meanInflight: number
}

/** A binary heap would be faster; with a few hundred events pending a sorted insert is fast enough. */
class Simulation implements Clock {
  #now = 0
  readonly #events: { at: number; run: () => void }[] = []

  now(): number {
    return this.#now
  }

  setTimeout(run: () => void, ms: number): unknown {
    const event = { at: this.#now + ms, run }
    let low = 0
    let high = this.#events.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#events[middle]?.at ?? 0) <= event.at) low = middle + 1
      else high = middle
    }
    this.#events.splice(low, 0, event)
    return event
  }

  clearTimeout(handle: unknown): void {
    const at = this.#events.indexOf(handle as { at: number; run: () => void })
    if (at >= 0) this.#events.splice(at, 1)
  }

  run(until: number): void {
    for (let event = this.#events[0]; event !== undefined && event.at <= until; event = this.#events[0]) {
      this.#events.shift()
      this.#now = event.at
      event.run()
    }
    this.#now = until
  }
}

/** Seconds of a server with `workers` that take about 10 ms per request, at `load` requests per second. */
function simulate(seconds: number, load: number, workersAt: (second: number) => number, options?: AdaptiveConcurrencyOptions): Second[] {
  const clock = new Simulation()
  const random = seededRandom(7)
  const upstream = stubUpstream()
  const exchange = stubExchange()
  const control = { inflight: 0, clock, random, name: 'pool', upstreams: [upstream] }
  const policy = options === undefined ? undefined : adaptiveConcurrency(options)
  policy?.attach(control as unknown as HealthControl)

  const waiting: (() => void)[] = []
  let busy = 0
  let workers = workersAt(0)
  let tally = { done: 0, refused: 0, worstMs: 0, inflight: 0, arrivals: 0 }
  const next = (): void => {
    while (busy < workers && waiting.length > 0) {
      busy++
      waiting.shift()?.()
    }
  }
  const arrive = (): void => {
    clock.setTimeout(arrive, (-Math.log(1 - random()) * 1000) / load)
    tally.arrivals++
    tally.inflight += control.inflight
    if (policy?.admit?.(exchange) !== undefined) {
      tally.refused++
      return
    }
    const startedAt = clock.now()
    control.inflight++
    policy?.onAcquire?.(upstream, exchange)
    waiting.push(() =>
      clock.setTimeout(
        () => {
          busy--
          control.inflight--
          const headMs = clock.now() - startedAt
          tally.done++
          tally.worstMs = Math.max(tally.worstMs, headMs)
          policy?.onHead?.(upstream, 200, [], stubOutcome(upstream))
          policy?.onAttempt?.({ ...stubOutcome(upstream), startedAt, headMs, durationMs: headMs })
          next()
        },
        8 + random() * 4,
      ),
    )
    next()
  }
  arrive()
  const result: Second[] = []
  for (let second = 0; second < seconds; second++) {
    workers = workersAt(second)
    clock.run((second + 1) * 1000)
    result.push({ done: tally.done, refused: tally.refused, worstMs: tally.worstMs, meanInflight: tally.inflight / tally.arrivals })
    tally = { done: 0, refused: 0, worstMs: 0, inflight: 0, arrivals: 0 }
  }
  return result
}

describe('a server of 10 workers and 10 ms, with twice the load that it can take', () => {
  it('without a limit the queue grows without end', () => {
    const last = simulate(10, 2000, () => 10).at(-1) as Second
    expect(last.worstMs).toBeGreaterThan(4000)
  })

  it('with one it settles a little above the knee: full use of the server, times near the best', () => {
    const seconds = simulate(20, 2000, () => 10, {}).slice(5)
    for (const { done, worstMs, meanInflight } of seconds) {
      // The knee is at 10 at once; the server can do 1,000 a second.
      expect(meanInflight).toBeGreaterThan(9)
      expect(meanInflight).toBeLessThan(25)
      expect(worstMs).toBeLessThan(60)
      expect(done).toBeGreaterThan(900)
    }
  })

  it('follows the server when half of its workers go and come back, measurements included', () => {
    const seconds = simulate(40, 2000, (second) => (second >= 10 && second < 25 ? 5 : 10), { measureEvery: '5s' })
    const mean = (from: number, to: number, of: (second: Second) => number): number =>
      seconds.slice(from, to).reduce((sum, second) => sum + of(second), 0) / (to - from)
    expect(mean(14, 25, ({ meanInflight }) => meanInflight)).toBeLessThan(13)
    expect(mean(14, 25, ({ done }) => done)).toBeGreaterThan(430)
    expect(mean(30, 40, ({ done }) => done)).toBeGreaterThan(850)
    for (const { worstMs } of seconds.slice(14)) expect(worstMs).toBeLessThan(100)
  })

  it('below the knee nobody is refused once it has measured', () => {
    const seconds = simulate(20, 400, () => 10, {}).slice(5)
    expect(seconds.reduce((sum, { refused }) => sum + refused, 0)).toBe(0)
  })
})

describe('in a pool', () => {
  const outcome = (upstream: Upstream, more: Partial<AttemptOutcome>): AttemptOutcome => ({ ...stubOutcome(upstream), ...more })

  it('refuses above the limit with ERR_OVERLOADED, and nothing is left when the pool closes', async () => {
    const clock = virtualClock()
    const { promise, resolve } = Promise.withResolvers<object>()
    const pool = createPool({
      upstreams: ['http://a.test'],
      health: [adaptiveConcurrency({ measureLimit: 2 })],
      transport: fakeTransport(() => promise),
      clock,
    })
    const proxy = createProxy({ pool, clock })
    const running = [proxy.inject({ url: '/' }), proxy.inject({ url: '/' })]
    await clock.advance(0)
    const refused = await proxy.inject({ url: '/' })
    expect(refused.status).toBe(503)
    expect(refused.headers.get('proxy-status')).toContain('connection_limit_reached')
    resolve({})
    expect((await Promise.all(running)).map(({ status }) => status)).toEqual([200, 200])
    await proxy.close()
    await pool.close()
    expect(clock.pending).toBe(0)
  })

  it('per upstream: each has its own limit, by its own times', async () => {
    const clock = virtualClock()
    const policy = adaptiveConcurrency({ scope: 'upstream', measureSamples: 10, initialLimit: 20 })
    const pool = createPool({ upstreams: ['http://a.test', 'http://b.test'], health: [policy], transport: fakeTransport(), clock })
    const [a, b] = pool.upstreams as [Upstream, Upstream]
    expect([a.maxConcurrent, b.maxConcurrent]).toEqual([3, 3])
    const play = async (aMs: number, bMs: number): Promise<number[]> => {
      for (let i = 0; i < 10; i++) {
        policy.onAttempt?.(outcome(a, { headMs: aMs }))
        policy.onAttempt?.(outcome(b, { headMs: bMs }))
      }
      await clock.advance(100)
      return [a.maxConcurrent, b.maxConcurrent]
    }
    expect(await play(10, 10)).toEqual([20, 20])
    const [fast, slow] = (await play(10, 100)) as [number, number]
    expect(fast).toBeGreaterThan(20)
    expect(slow).toBeLessThan(20)
    const c = pool.add('http://c.test')
    expect(c.maxConcurrent).toBe(3)
    await pool.remove(a.id)
    await pool.close()
    expect(clock.pending).toBe(0)
  })

  it('takes every step, also by timers that are half a millisecond early', async () => {
    const clock = virtualClock()
    const { setTimeout } = clock
    Object.assign(clock, { setTimeout: (fn: () => void, ms: number) => setTimeout(fn, ms - 0.5) })
    const policy = adaptiveConcurrency({ scope: 'upstream', measureSamples: 10, initialLimit: 20 })
    const pool = createPool({ upstreams: ['http://a.test'], health: [policy], transport: fakeTransport(), clock })
    const [a] = pool.upstreams as [Upstream]
    const limits: number[] = []
    for (let step = 0; step < 6; step++) {
      for (let i = 0; i < 10; i++) policy.onAttempt?.(outcome(a, { headMs: 10 }))
      // As under load: the next sample comes with the step.
      await clock.advance(99.5)
      limits.push(a.maxConcurrent)
    }
    // It grows with every step but the first, which measured.
    expect(limits).toEqual([...new Set(limits)].toSorted((x, y) => x - y))
    await pool.close()
  })

  it('failures, errors and tunnels are no samples', async () => {
    const clock = virtualClock()
    const policy = adaptiveConcurrency({ scope: 'upstream', measureSamples: 1 })
    const pool = createPool({ upstreams: ['http://a.test'], health: [policy], transport: fakeTransport(), clock })
    const [a] = pool.upstreams as [Upstream]
    for (const more of [{ status: 503 }, { status: 101 }, { error: new ProxyError('ERR_UPSTREAM_BODY') }, { headMs: undefined }])
      policy.onAttempt?.(outcome(a, more))
    expect(clock.pending).toBe(0)
    policy.onAttempt?.(outcome(a, {}))
    expect(clock.pending).toBe(1)
    await pool.close()
  })
})

it('wrong options are named', () => {
  const problems = (options: unknown): string[] => {
    try {
      adaptiveConcurrency(options as AdaptiveConcurrencyOptions)
      return []
    } catch (error) {
      return (error as { problems: { path: string }[] }).problems.map(({ path }) => path)
    }
  }
  expect(problems({ scope: 'x', minLimit: 0, maxLimit: 0, step: 0, quantile: 0, tolerance: -1, measureEvery: 0, y: 1 })).toEqual([
    'y',
    'minLimit',
    'maxLimit',
    'measureEvery',
    'step',
    'quantile',
    'tolerance',
    'scope',
  ])
})

it('tunnels and event streams, which have been answered, do not use the limit up for ever', async () => {
  const clock = virtualClock()
  const policy = adaptiveConcurrency({ measureLimit: 3 })
  const upstream = stubUpstream()
  const control = { inflight: 0, clock, random: seededRandom(1), name: 'pool', upstreams: [upstream] }
  policy.attach(control as unknown as HealthControl)
  for (const status of [101, 101, 200]) {
    expect(policy.admit?.(stubExchange())).toBeUndefined()
    control.inflight++
    policy.onAcquire?.(upstream, stubExchange())
    policy.onHead?.(upstream, status, [], stubOutcome(upstream))
  }
  await clock.advance(3_600_000)
  expect(policy.admit?.(stubExchange())).toBeUndefined()
  await policy.close?.()
})

it('nor do they use up the limit of their upstream', async () => {
  const clock = virtualClock()
  const streams: ResponseSink[] = []
  /** Answers every request, and ends none of them by itself. */
  const transport: Transport = {
    name: 'endless',
    send(_request, _upstream, sink) {
      sink.onStart({ abort() {}, pause() {}, resume() {}, reused: false, connectMs: undefined, sent: true })
      sink.onHead(200, 'OK', [])
      sink.onData(Buffer.from('data: 1\n\n'))
      streams.push(sink)
    },
  }
  const policy = adaptiveConcurrency({ scope: 'upstream', measureLimit: 2 })
  const pool = createPool({ upstreams: ['http://a.test'], health: [policy], queue: false, clock, transport })
  const [a] = pool.upstreams as [Upstream]
  const proxy = createProxy({ pool, clock })
  const open = Array.from({ length: 10 }, () => proxy.inject({ url: '/stream' }))
  await clock.advance(0)
  expect([streams.length, a.inflight, a.maxConcurrent]).toEqual([10, 10, 12])
  for (const stream of streams) stream.onEnd(undefined)
  expect((await Promise.all(open)).map(({ status }) => status)).toEqual(Array(10).fill(200))
  expect([a.inflight, a.maxConcurrent]).toEqual([0, 2])
  await proxy.close()
  await pool.close()
})
